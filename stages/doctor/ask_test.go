package doctor

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"permitchain/exchange/sandbox"
	"permitchain/ledger"
	"permitchain/stages"
)

// examine runs the whole examination on a sandbox that a test has spoiled.
func examine(t *testing.T, secret string, spoil func(*sandbox.Options), more string) Report {
	t.Helper()
	o := sandbox.Options{
		Seed: 1, Symbols: []string{"BTCUSDT"}, Key: "doctors-key-0001", Secret: "doctors-secret-0001",
		Positions: map[ledger.Key]ledger.Qty{{Symbol: "BTCUSDT", Side: ledger.Both}: ledger.MustQty("0.046")},
	}
	spoil(&o)
	s := sandbox.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); _ = s.Run(ctx) }()
	server := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		cancel()
		server.CloseClientConnections()
		server.Close()
		<-ran
	})
	t.Setenv("BINANCE_API_KEY", o.Key)
	t.Setenv("BINANCE_API_SECRET", secret)
	defaults, err := os.ReadFile("../../config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("mode: testnet\nstate_dir: %s/state\nsymbols: [BTCUSDT]\nhttp: {listen: \"\"}\nexchange: {rest_url: %q, stream_url: %q}\n%s",
		t.TempDir(), server.URL, strings.Replace(server.URL, "http", "ws", 1), more)
	cfg, err := stages.ParseConfig(defaults, "c.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return Judge(Examine(t.Context(), cfg))
}

// has finds a line by level and the beginning of what was seen.
func has(r Report, level Level, what, seen string) bool {
	for _, f := range r.Findings {
		if f.Level == level && f.What == what && strings.HasPrefix(f.Seen, seen) {
			return true
		}
	}
	return false
}

func TestASandboxIsExamined(t *testing.T) {
	plain := func(*sandbox.Options) {}
	for _, c := range []struct {
		name, secret string
		spoil        func(*sandbox.Options)
		config       string
		level        Level
		what, seen   string
	}{
		{"as it should be", "doctors-secret-0001", plain, "", OK, "market stream", "a mark price of every symbol within"},
		{"another secret", "doctors-secret-0002", plain, "", Fail, "API key", "open binance: "},
		{"a key that pays", "doctors-secret-0001", func(o *sandbox.Options) { o.Withdrawals = true }, "", Warn, "withdrawals", "possible"},
		{"hedge mode", "doctors-secret-0001", func(o *sandbox.Options) {
			o.Hedge, o.Positions = true, map[ledger.Key]ledger.Qty{{Symbol: "BTCUSDT", Side: ledger.Short}: ledger.MustQty("-0.046")}
		}, "", OK, "positions", "BTCUSDT SHORT -0.046"},
		{"a limit that nothing passes", "doctors-secret-0001", plain, "governor: {auto_approve: [], daily_notional: 100}", Warn, "limits", "BTCUSDT: the smallest partial close of what is held, 0.011"},
		{"a symbol that is not traded", "doctors-secret-0001", func(o *sandbox.Options) { o.Symbols, o.Positions = []string{"ETHUSDT"}, nil }, "", Fail, "markets", "not traded here: BTCUSDT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := examine(t, c.secret, c.spoil, c.config)
			if !has(r, c.level, c.what, c.seen) {
				t.Errorf("no line %s %s: %s in\n%+v", c.level, c.what, c.seen, r.Findings)
			}
			if r.Healthy != (c.level == OK) && !has(r, Warn, "disk", "") { // A slow disk is the machine's affair.
				t.Errorf("healthy is %v: %s", r.Healthy, r.Summary())
			}
		})
	}
}
