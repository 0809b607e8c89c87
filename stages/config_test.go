package stages

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"permitchain/ledger"
)

// configYAML is the project's config.yaml, which main embeds.
func configYAML(tb testing.TB) []byte {
	tb.Helper()
	text, err := os.ReadFile("../config.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func mustParse(tb testing.TB, text string) *Config {
	tb.Helper()
	c, err := ParseConfig(configYAML(tb), "config.yaml", []byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// leaves lists the full names of all keys below v, sections left out.
func leaves(prefix string, v reflect.Value) []string {
	var keys []string
	for _, f := range fieldsOf(v) {
		if isSection(f.value.Type()) {
			keys = append(keys, leaves(prefix+f.key+".", f.value)...)
		} else {
			keys = append(keys, prefix+f.key)
		}
	}
	return keys
}

func TestConfigYAMLSetsEveryKey(t *testing.T) {
	r := &configReader{at: map[string]*yaml.Node{}, failed: map[string]bool{}}
	r.read(configYAML(t))
	for _, key := range leaves("", reflect.ValueOf(Config{})) {
		if _, ok := r.at[key]; !ok {
			t.Errorf("config.yaml does not set %s", key)
		}
	}
	alone, err := ParseConfig(nil, "config.yaml", configYAML(t))
	if err != nil {
		t.Fatalf("config.yaml alone:\n%v", err)
	}
	if got, want := mustParse(t, ""), alone; !reflect.DeepEqual(got, want) {
		t.Errorf("the defaults\n%s\nare not config.yaml alone\n%s", got.Effective(), want.Effective())
	}
	if w := alone.Warnings(); len(w) > 0 {
		t.Errorf("config.yaml has warnings: %q", w)
	}
	for i, line := range strings.Split(string(configYAML(t)), "\n") {
		if n := len([]rune(line)); n > 120 {
			t.Errorf("config.yaml:%d has %d characters", i+1, n)
		}
	}
}

// The golden file is the specification's values in canonical form; a default changes only with it.
func TestDefaultsAreTheSpecified(t *testing.T) {
	want, err := os.ReadFile("../testdata/config/defaults.golden.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(mustParse(t, "").Effective()); got != string(want) {
		t.Errorf("effective defaults:\n%s\nwant:\n%s", got, want)
	}
}

// What the stages' types call "of the whole process" is what the reader refuses per symbol.
func TestWholeProcessMatchesTheTypes(t *testing.T) {
	marked := regexp.MustCompile("yaml:\"([a-z_0-9]+)\"`.*of the whole process")
	var want []string
	for _, f := range fieldsOf(reflect.ValueOf(SymbolConfig{})) {
		source, err := os.ReadFile(filepath.Join(strings.ReplaceAll(f.key, "_", ""), "config.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range marked.FindAllSubmatch(source, -1) {
			want = append(want, f.key+"."+string(m[1]))
		}
	}
	if !slices.Equal(want, wholeProcess[:]) {
		t.Errorf("the types mark %v,\nthe reader refuses %v", want, wholeProcess)
	}
}

func TestOverridesPerSymbol(t *testing.T) {
	c := mustParse(t, `
symbols:
  - BTCUSDT
  - name: ETHUSDT
    governor: &strict {max_per_hour: 1, daily_notional: 100.50, auto_approve: []}
    reconcile: {tolerance_pct: "0.50"}
  - {name: SOLUSDT, governor: *strict, apply: }
governor: {max_per_hour: 7, cooldown: 90s}
`)
	if got, want := c.SymbolNames(), []string{"BTCUSDT", "ETHUSDT", "SOLUSDT"}; !slices.Equal(got, want) {
		t.Errorf("symbols %v, want %v", got, want)
	}
	for symbol, want := range map[string]int{"BTCUSDT": 7, "ETHUSDT": 1, "SOLUSDT": 1, "XRPUSDT": 7} {
		if got := c.For(symbol).Governor; got.MaxPerHour != want || got.Cooldown != 90*time.Second {
			t.Errorf("%s: %d per hour after %s, want %d after 1m30s", symbol, got.MaxPerHour, got.Cooldown, want)
		}
	}
	eth := c.For("ETHUSDT")
	if len(eth.Governor.AutoApprove) != 0 || len(c.Governor.AutoApprove) != 2 {
		t.Errorf("auto_approve: ETHUSDT has %v, the others %v", eth.Governor.AutoApprove, c.Governor.AutoApprove)
	}
	if got := eth.Governor.DailyNotional; !got.Equal(ledger.MustUSD("100.5")) {
		t.Errorf("ETHUSDT: daily_notional %s, want 100.5", got)
	}
	want := `symbols:
  - {name: "BTCUSDT"}
  - {name: "ETHUSDT", governor: {auto_approve: [], max_per_hour: 1, daily_notional: "100.5"}, reconcile: {tolerance_pct: "0.5"}}
  - {name: "SOLUSDT", governor: {auto_approve: [], max_per_hour: 1, daily_notional: "100.5"}}
`
	if got := string(c.Effective()); !strings.Contains(got, want) {
		t.Errorf("effective:\n%s\nlacks:\n%s", got, want)
	}
}

// Another's Effective may be the defaults, and what is then laid over it reaches its symbols too.
func TestEffectiveAsDefaults(t *testing.T) {
	base := mustParse(t, "symbols: [{name: BTCUSDT, apply: {attempts: 2}}, ETHUSDT]")
	c, err := ParseConfig(base.Effective(), "--set", []byte("governor: {max_per_hour: 9}"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.For("BTCUSDT"); got.Governor.MaxPerHour != 9 || got.Apply.Attempts != 2 {
		t.Errorf("BTCUSDT: max_per_hour %d, attempts %d; want 9, 2", got.Governor.MaxPerHour, got.Apply.Attempts)
	}
	_, err = ParseConfig(mustParse(t, "symbols: [{name: BTCUSDT, governor: {permit_ttl: 30s}}]").Effective(),
		"--set", []byte("apply: {permit_wait: 40s}"))
	want := "--set:1:22: symbols.BTCUSDT.apply.permit_wait: must be below governor.permit_ttl: permits would expire" +
		" while awaited (got \"40s\")"
	if err == nil || err.Error() != want {
		t.Errorf("error %v,\nwant %s", err, want)
	}
}

func TestExactAmountsAndUnits(t *testing.T) {
	c := mustParse(t, `
symbols: [BTCUSDT]
governor: {daily_notional: 12345678901234567.000000000000000001, kill_score_critical: 1}
exchange: {recv_window: 1500ms, timeout: 0m55s}
paper: {speed: 0.5, hedge: true, positions: {"BTCUSDT:LONG": 0.10, "BTCUSDT:SHORT": "-3"}, ledger: {BTCUSDT:LONG: 0}}
`)
	if got, want := c.Governor.DailyNotional.String(), "12345678901234567.000000000000000001"; got != want {
		t.Errorf("daily_notional %s, want %s", got, want)
	}
	if c.Exchange.RecvWindow != 1500*time.Millisecond || c.Exchange.Timeout != 55*time.Second {
		t.Errorf("recv_window %s, timeout %s", c.Exchange.RecvWindow, c.Exchange.Timeout)
	}
	if got := c.Paper.Positions[ledger.Key{Symbol: "BTCUSDT", Side: ledger.Short}]; !got.Equal(ledger.MustQty("-3")) {
		t.Errorf("short %s, want -3", got)
	}
	want := `  positions: {"BTCUSDT:LONG": "0.1", "BTCUSDT:SHORT": "-3"}`
	if got := string(c.Effective()); !strings.Contains(got, want) {
		t.Errorf("effective lacks %s:\n%s", want, got)
	}
}

// Listing other symbols, or another position mode, does not mean having to empty the example's positions.
func TestDefaultPositionsGiveWay(t *testing.T) {
	if got := mustParse(t, "").Paper.Positions; len(got) != 1 {
		t.Errorf("default positions %v", got)
	}
	for _, text := range []string{"symbols: [ETHUSDT]", "paper: {hedge: true}"} {
		if got := mustParse(t, text).Paper.Positions; len(got) != 0 {
			t.Errorf("%s: positions %v, want none", text, got)
		}
	}
}

func TestEmptyFilesAreTheDefaults(t *testing.T) {
	want := mustParse(t, "").Digest()
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "null", "governor:\n", "\ufeff# mark\n", "governor: {}\r\n"} {
		if got := mustParse(t, text).Digest(); got != want {
			t.Errorf("%q is not the defaults", text)
		}
	}
}

func TestDigestFollowsMeaning(t *testing.T) {
	digest := func(text string) string { return mustParse(t, text).Digest() }
	if digest("governor: {daily_notional: 5000.00, cooldown: 0m}") != digest("") {
		t.Error("the same values in other words have another digest")
	}
	if digest("symbols: [{name: BTCUSDT, governor: {max_per_hour: 3}}, ETHUSDT, SOLUSDT]") != digest("") {
		t.Error("an override that changes nothing changes the digest")
	}
	for _, text := range []string{"symbols: [{name: BTCUSDT, governor: {max_per_hour: 2}}, ETHUSDT, SOLUSDT]", "mode: dry_run"} {
		if digest(text) == digest("") {
			t.Errorf("%s has the digest of the defaults", text)
		}
	}
}

func TestLoadConfig(t *testing.T) {
	defaults := configYAML(t)
	c, err := LoadConfig(defaults, "")
	if err != nil || c.Mode != ledger.Paper {
		t.Errorf("without a path: %v", err)
	}
	if _, err = LoadConfig(defaults, filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	path := filepath.Join(t.TempDir(), "c.yaml")
	for text, want := range map[string]string{
		"mode: Live\n": path + ":1:7: mode: wants one of paper, dry_run, testnet, live (got \"Live\")",
		strings.Repeat("#", configBytesMax) + "#": path + ": the file is larger than 1048576 bytes",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadConfig(defaults, path)
		var e *ConfigError
		if !errors.As(err, &e) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// FuzzParseConfig: no text makes the reader panic, and what it accepts it writes so that it reads the same.
func FuzzParseConfig(f *testing.F) {
	defaults := configYAML(f)
	f.Add(defaults)
	f.Add([]byte("a: &a [*a]\nsymbols: &s [*s, {name: *s}, {name: NULL}, \"NULL\"]"))
	f.Add([]byte("symbols: [{name: BTCUSDT, governor: &g {max_per_hour: 1, governor: *g}}]\n<<: *g"))
	f.Add([]byte("paper: {hedge: true, speed: 1e-3, positions: {\"BTCUSDT:LONG\": 0.10, ? [x] : y}}"))
	f.Add([]byte("exchange: {rest_url: \"http://[::1]:80/\\u00e9\\\\\"}\nstate_dir: 'a\"b'\n---\n"))
	for _, bad := range badConfigs {
		f.Add([]byte(bad.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseConfig(defaults, "fuzz.yaml", text)
		if err != nil {
			return
		}
		again, err := ParseConfig(nil, "effective.yaml", c.Effective())
		if err != nil {
			t.Fatalf("effective does not parse: %v\n%s", err, c.Effective())
		}
		if again.Digest() != c.Digest() {
			t.Fatalf("effective\n%s\nparses to\n%s", c.Effective(), again.Effective())
		}
	})
}
