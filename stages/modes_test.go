package stages

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/rs/zerolog"

	"permitchain/exchange/binance"
	"permitchain/exchange/sandbox"
	"permitchain/ledger"
)

const liveConfig = "mode: live\nlive: {confirm_key_tail: 9a1c}\n"

// A new live ledger starts disarmed and says so; what the operator then decides outlives a restart.
func TestANewLiveLedgerStartsDisarmed(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, dir, liveConfig)
		r.wait(settled)
		r.view(func(s *ledger.State) {
			if c := s.Control; c.RunState != ledger.Disarmed || c.Who != "permitchain" || !strings.Contains(c.Why, "new live ledger") {
				t.Errorf("run state %s by %s: %s", c.RunState, c.Who, c.Why)
			}
		})
		r.want(r.decide(proposal(ledger.Partial25)), ledger.WouldExecute, ledger.StageExecution, ledger.RunDisarmed)
		if sent := r.hostile.orders(); len(sent) != 0 {
			t.Errorf("sent %v", sent)
		}
		r.runState(ledger.Armed)
		r.stop()
		again := start(t, dir, liveConfig)
		again.wait(settled)
		again.view(func(s *ledger.State) {
			if s.Control.RunState != ledger.Armed {
				t.Errorf("after a restart: %s", s.Control.RunState)
			}
		})
		again.stop()
	})
}

// Without a key, or without the operator's word for live, nothing is opened and nothing is written.
func TestAnAccountIsNamedBeforeAnythingIsWritten(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{"key": "a-key-that-opens-nothing-9a1c\n", "secret": "a-secret-that-opens-nothing\n"}
	for name, text := range files {
		files[name] = filepath.Join(dir, name)
		if err := os.WriteFile(files[name], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"BINANCE_API_KEY", "BINANCE_API_SECRET", "BINANCE_API_KEY_FILE", "BINANCE_API_SECRET_FILE", "CREDENTIALS_DIRECTORY"} {
		t.Setenv(name, "")
	}
	state := filepath.Join(dir, "state")
	refused := func(config, want string) {
		t.Helper()
		err := Run(t.Context(), Options{Config: mustParse(t, "state_dir: "+state+"\n"+config)})
		if !errors.Is(err, ErrExchange) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "opens-nothing") {
			t.Errorf("%q: %v, want %q", config, err, want)
		}
		if _, err := os.Stat(state); err == nil {
			t.Error("a state folder was made")
		}
	}
	for _, mode := range []string{"dry_run", "testnet", "live"} {
		refused("mode: "+mode, "BINANCE_API_KEY_FILE")
	}
	t.Setenv("BINANCE_API_KEY_FILE", files["key"])
	t.Setenv("BINANCE_API_SECRET_FILE", files["secret"])
	refused("mode: live", "nothing stands there")
	refused("mode: live\nlive: {confirm_key_tail: 9a1d}", "what stands there is not those")
	a, err := accountOf(mustParse(t, liveConfig))
	if err != nil || a.tail != "9a1c" || a.host != "fapi.binance.com" {
		t.Errorf("live: %s at %s, %v", a.tail, a.host, err)
	}
	a, err = accountOf(mustParse(t, "mode: testnet\nexchange: {rest_url: \"http://127.0.0.1:8790/\"}"))
	if err != nil || a.host != "127.0.0.1:8790" {
		t.Errorf("a sandbox: %s, %v", a.host, err)
	}
	creds, err := Credentials()
	if err != nil {
		t.Fatal(err)
	}
	if o := mustParse(t, "mode: dry_run").Binance(creds, zerolog.Nop()); !o.ReadOnly || strings.HasSuffix(o.RESTURL, "/") {
		t.Errorf("a dry run is not read only: %+v", o)
	}
}

// A key that the exchange refuses ends the start, with what to do about it.
func TestARefusedKeyIsToldWhatToDo(t *testing.T) {
	w := newWired(t.TempDir(), sandbox.Options{Seed: 1, Symbols: []string{"BTCUSDT"}})
	defer w.end()
	defer w.server.Close()
	t.Setenv("BINANCE_API_KEY", wiredKey)
	t.Setenv("BINANCE_API_SECRET", "another-secret-0001")
	err := Run(t.Context(), Options{Config: mustParse(t, fmt.Sprintf("mode: testnet\nstate_dir: %q\nhttp: {listen: \"\"}\nexchange: {rest_url: %q, stream_url: \"ws%s\"}",
		t.TempDir(), w.server.URL, strings.TrimPrefix(w.server.URL, "http")))})
	if !errors.Is(err, ErrExchange) || !errors.Is(err, binance.ErrKey) || !strings.Contains(err.Error(), RefusedKey) || strings.Contains(err.Error(), "another-secret") {
		t.Errorf("%v", err)
	}
}
