package stages

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// badConfigs are one example of each thing that can be wrong, with all that is said of it, one error a line.
var badConfigs = []struct{ name, text, want string }{
	{"unknown section", "alerts: {}", `1:1: alerts: is not a known key`},
	{"unknown key", "governor:\n  max_per_our: 1", `2:3: governor.max_per_our: is not a known key; did you mean governor.max_per_hour?`},
	{"key of another section", "max_per_5min: 1", `1:1: max_per_5min: is not a known key; did you mean governor.max_per_5min?`},
	{"key with odd characters", `"a\nb": 1`, `1:1: a\nb: is not a known key`},
	{"merge key", "governor: &g {}\napply: {<<: *g}", `2:9: apply.<<: is not a known key`},
	{"key that is no word", "? [a]\n: 1", `1:3: has a key that is not a word`},
	{"repeated key", "mode: paper\nstate_dir: x\nmode: live", `3:1: mode: is repeated; it stands on line 1 already`},
	{"repeated section", "log: {level: info}\nlog: {format: json}", `2:1: log: is repeated; it stands on line 1 already`},
	{"several documents", "mode: paper\n---\nmode: live\n", `2:1: a second document begins here; a configuration is one`},
	{"not YAML", "mode: [paper", `2:1: not YAML: did not find expected ',' or ']' while parsing a flow sequence`},
	{"unknown anchor", "mode: *nope", `1:7: not YAML: unknown anchor … referenced`},
	{"not UTF-8", "mode: paper\nlog: {level: \xff}", `2:14: a character that UTF-8 text does not have`},
	{"control character", "mode: \x00", `1:7: a character that UTF-8 text does not have`},
	{"not a mapping", "paper", `1:1: wants keys with values (got "paper")`},
	{"section that is a value", "governor: 5", `1:11: governor: wants keys with values (got "5")`},
	{"value that is a section", "mode: {a: b}", `1:7: mode: wants one value, not a list or keys`},
	{"no value", "mode:\nstate_dir: ~", `1:6: mode: has no value: write one, or remove the key` + "\n" +
		`2:12: state_dir: has no value: write one, or remove the key`},
	{"tag", "apply: {attempts: !!int 3}", `1:19: apply.attempts: tags have no use here: remove it (got "!!int")`},
	{"cycle", "log: &l {level: *l}", `1:6: log.level: wants one value, not a list or keys`},
	{"two lines", "state_dir: |\n  a\n  b\n", `1:12: state_dir: wants text on one line (got "a\nb\n")`},

	{"not a mode", "mode: Paper", `1:7: mode: wants one of paper, dry_run, testnet, live (got "Paper")`},
	{"not a switch", "paper: {hedge: yes}", `1:16: paper.hedge: wants true or false (got "yes")`},
	{"quoted number", `apply: {attempts: "3"}`, `1:19: apply.attempts: wants a whole number (got "3")`},
	{"octal", "governor: {max_per_hour: 010}", `1:26: governor.max_per_hour: wants a whole number (got "010")`},
	{"half", "governor: {max_per_hour: 2.5}", `1:26: governor.max_per_hour: wants a whole number (got "2.5")`},
	{"not a number", "governor: {kill_score_critical: .nan}", `1:33: governor.kill_score_critical: wants a number like 0.8 (got ".nan")`},
	{"wordy duration", "governor: {cooldown: 5 minutes}", `1:22: governor.cooldown: wants a duration: write 5m (got "5 minutes")`},
	{"days", "apply: {dedupe_ttl: 2d}", `1:21: apply.dedupe_ttl: wants a duration: write 48h (got "2d")`},
	{"no unit", "apply: {proposal_ttl: 30}", `1:23: apply.proposal_ttl: wants a duration with a unit, like 1200ms, 60s, 5m or 6h (got "30")`},
	{"tiny unit", "apply: {proposal_ttl: 30us}", `1:23: apply.proposal_ttl: wants a duration with a unit, like 1200ms, 60s, 5m or 6h (got "30us")`},
	{"a limit nothing fits", `governor: {daily_notional: "1"}`, `1:28: governor.daily_notional: is less than the smallest order of any market, so nothing would ever pass; 0 is no limit (got "1")`},
	{"exponent", "governor: {daily_notional: 5e3}", `1:28: governor.daily_notional: wants a plain decimal like 0.046, of at most 18 digits on either side of the point (got "5e3")`},
	{"long value", "mode: " + strings.Repeat("x ", 100), `1:7: mode: wants one of paper, dry_run, testnet, live (got "` + strings.Repeat("x ", 20) + `…")`},
	{"not a list", "governor: {auto_approve: testnet}", `1:26: governor.auto_approve: wants a list, like [a, b], of at most 500 (got "testnet")`},
	{"repeated in a list", "governor: {auto_approve: [testnet, testnet]}", `1:36: governor.auto_approve[1]: is repeated (got "testnet")`},

	{"negative duration", "governor: {cooldown: -5s}", `1:22: governor.cooldown: must be from 0s to 24h (got "-5s")`},
	{"limit that never passes", "governor: {max_per_hour: 0, max_per_5min: -1}", `1:26: governor.max_per_hour: must be from 1 to 3600 (got "0")` + "\n" +
		`1:43: governor.max_per_5min: must be from 1 to 3600 (got "-1")`},
	{"no protection", "governor: {protective_per_hour: 0}", `1:33: governor.protective_per_hour: must be from 1 to 3600 (got "0")`},
	{
		"negative money", "governor: {daily_notional: -1, portfolio_daily_notional: -2}\nreconcile: {tolerance_usd: -3}",
		`1:28: governor.daily_notional: must not be negative (got "-1")` + "\n" +
			`1:58: governor.portfolio_daily_notional: must not be negative (got "-2")` + "\n" +
			`2:28: reconcile.tolerance_usd: must not be negative (got "-3")`,
	},
	{"kill score", "governor: {kill_score_critical: 1.01}", `1:33: governor.kill_score_critical: must be above 0 and at most 1 (got "1.01")`},
	{"tolerance", "reconcile: {tolerance_pct: 0}", `1:28: reconcile.tolerance_pct: must be above 0 and at most 100 (got "0")`},
	{"too many attempts", "apply: {attempts: 11}", `1:19: apply.attempts: must be from 1 to 10 (got "11")`},
	{"auto-approved live", "governor: {auto_approve: [live]}", `1:26: governor.auto_approve: must not contain live: nothing would be limited there`},
	{"disarmed to armed", "governor: {disarm_to: armed}", `1:23: governor.disarm_to: wants one of protective_only, disarmed (got "armed")`},
	{"short memory", "apply: {dedupe_ttl: 1h}", `1:21: apply.dedupe_ttl: must be at least an hour more than apply.proposal_ttl, 1h0m30s (got "1h")`},
	{"permits expire", "governor: {permit_ttl: 1s}", `1:24: apply.permit_wait: must be below governor.permit_ttl: permits would expire while awaited (got "1.2s")`},
	{"position permits expire", "apply: {permit_wait: 5s}\nreconcile: {permit_ttl: 5s}", `1:22: apply.permit_wait: must be below reconcile.permit_ttl: permits would expire while awaited (got "5s")`},
	{"always stale", "reconcile: {stale_after: 4s}", `1:26: reconcile.stale_after: must not be below reconcile.snapshot_interval, 5s: every permit would be denied (got "4s")`},

	{"no folder", `state_dir: ""`, `1:12: state_dir: must name a folder`},
	{"no symbols", "symbols: []", `1:10: symbols: must name at least one symbol`},
	{"symbols that are one", "symbols: BTCUSDT", `1:10: symbols: wants a list, like [a, b], of at most 500 (got "BTCUSDT")`},
	{
		"bad symbols", "symbols: [BTCUSDT, btcusdt, {name: BTC-USDT}, BTCUSDT, {governor: {}}, [X], null]",
		`1:20: symbols[1]: is not a symbol like BTCUSDT (got "btcusdt")` + "\n" +
			`1:29: symbols[2]: is not a symbol like BTCUSDT (got "BTC-USDT")` + "\n" +
			`1:47: symbols[3]: is repeated (got "BTCUSDT")` + "\n" +
			`1:56: symbols[4]: is not a symbol like BTCUSDT (got "")` + "\n" +
			`1:72: symbols[5]: wants one value, not a list or keys` + "\n" +
			`1:77: symbols[6]: has no value: write one, or remove the key`,
	},
	{"no name", "symbols: [{name: }]", `1:18: symbols[0].name: has no value: write one, or remove the key`},
	{
		"overrides", "symbols:\n  - name: BTCUSDT\n    governor: {max_per_hour: 0, disarm_to: disarmed}\n    govrnor: {}\n    http: {}\n" +
			"  - {name: ETHUSDT, governor: {max_per_hour: 0, portfolio_per_houre: 1}}\n",
		`3:30: symbols.BTCUSDT.governor.max_per_hour: must be from 1 to 3600 (got "0")` + "\n" +
			`3:33: symbols.BTCUSDT.governor.disarm_to: is of the whole process and cannot differ between symbols` + "\n" +
			`4:5: symbols.BTCUSDT.govrnor: is not a known key; did you mean governor?` + "\n" +
			`5:5: symbols.BTCUSDT.http: is not a known key; did you mean http?` + "\n" +
			`6:46: symbols.ETHUSDT.governor.max_per_hour: must be from 1 to 3600 (got "0")` + "\n" +
			`6:49: symbols.ETHUSDT.governor.portfolio_per_houre: is not a known key; did you mean governor.portfolio_per_hour?`,
	},
	{
		"override against the rest", "symbols: [{name: BTCUSDT, apply: {permit_wait: 50s}}]\nreconcile: {permit_ttl: 40s}",
		`1:48: symbols.BTCUSDT.apply.permit_wait: must be below reconcile.permit_ttl: permits would expire while awaited (got "50s")`,
	},

	{"a bar nobody has", "mode: testnet\nexit_brain: {bar: 7m}", `2:19: exit_brain.bar: must be a length that the exchange has: 1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 8h, 12h or 24h (got "7m")`},
	{"key and not its tail", "live: {confirm_key_tail: abcde}", `1:26: live.confirm_key_tail: must be the last 4 characters of the API key, no more and no less`},
	{
		"plain http", "exchange: {rest_url: \"http://example.com\", stream_url: wss://u:p@example.com}",
		`1:22: exchange.rest_url: must begin with https:// (or, on this machine, http://)` + "\n" +
			`1:56: exchange.stream_url: must be an address like wss://host/path, without user, query or fragment`,
	},
	{"real money as a testnet", "mode: testnet\nexchange: {rest_url: \"https://FAPI.binance.com.\"}", `2:22: exchange.rest_url: is where real money is traded, which is mode live`},
	{"reachable", `http: {listen: ":8787"}`, `1:16: http.listen: is reachable from other machines, which wants http.token_file (got ":8787")`},
	{"no port", `http: {listen: localhost}`, `1:16: http.listen: must be an address and a port, like 127.0.0.1:8787 (got "localhost")`},
	{"speed", "paper: {seed: -1, speed: 1001}", `1:15: paper.seed: must not be negative (got "-1")` + "\n" +
		`1:26: paper.speed: must be above 0 and at most 1000 (got "1001")`},
	{
		"positions", "paper:\n  positions: {XRPUSDT: 1, BTCUSDT:LONG: 1, BTCUSDT: 1, BTCUSDT:BOTH: 2, \"BTCUSDT:\": 1}\n  ledger: {ETHUSDT: 0x1}",
		`2:24: paper.positions.XRPUSDT: is of a symbol that is not in symbols` + "\n" +
			`2:41: paper.positions.BTCUSDT:LONG: can name a side only where paper.hedge is true` + "\n" +
			`2:56: paper.positions.BTCUSDT: is repeated; without a side BOTH is meant` + "\n" +
			`2:73: paper.positions.BTCUSDT:: wants SYMBOL, SYMBOL:LONG or SYMBOL:SHORT as its key` + "\n" +
			`3:21: paper.ledger.ETHUSDT: wants a plain decimal like 0.046, of at most 18 digits on either side of the point (got "0x1")`,
	},
	{
		"hedge", "paper: {hedge: true, positions: {BTCUSDT: 1, BTCUSDT:SHORT: 1}}",
		`1:43: paper.positions.BTCUSDT: must name its side, :LONG or :SHORT, where paper.hedge is true` + "\n" +
			`1:61: paper.positions.BTCUSDT:SHORT: is of the other side: a LONG is positive, a SHORT negative (got "1")`,
	},
}

func TestBadConfigs(t *testing.T) {
	for _, bad := range badConfigs {
		t.Run(bad.name, func(t *testing.T) {
			_, err := ParseConfig(configYAML(t), "c.yaml", []byte(bad.text))
			want := "c.yaml:" + strings.ReplaceAll(bad.want, "\n", "\nc.yaml:")
			if err == nil || err.Error() != want {
				t.Errorf("%s\ngives\n%v\nwant\n%s", bad.text, err, want)
			}
			var e *ConfigError
			if err != nil && (!errors.As(err, &e) || e.Line == 0 || e.Column == 0) {
				t.Errorf("%v is not a ConfigError with a position", err)
			}
		})
	}
}

// A bad default is named by its key alone: no line of the user's file can mend it.
func TestBadDefaultsNameTheKey(t *testing.T) {
	defaults := strings.Replace(string(configYAML(t)), "max_per_hour: 3", "max_per_hour: 0", 1)
	_, err := ParseConfig([]byte(defaults), "c.yaml", nil)
	if want := `c.yaml: governor.max_per_hour: must be from 1 to 3600 (got "0")`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// However much is wrong, what is said stays readable, and aliases do not multiply the work.
func TestErrorsAreBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString("governor: &g {")
	for i := range 10_000 {
		fmt.Fprintf(&text, "k%d: 1, ", i)
	}
	text.WriteString("}\nsymbols:\n")
	for i := range listMax {
		fmt.Fprintf(&text, "  - {name: S%d, governor: *g}\n", i)
	}
	for _, text := range []string{text.String(), "symbols: [" + strings.Repeat("x, ", listMax) + "]"} {
		r := &configReader{file: "c.yaml", at: map[string]*yaml.Node{}, failed: map[string]bool{}, said: map[string]bool{}}
		r.read([]byte(text))
		r.readSymbols()
		r.check()
		if found := len(r.errs); found != configErrorsMax+1 {
			t.Errorf("%d errors were found before giving up, want %d", found, configErrorsMax+1)
		}
		lines := strings.Split(r.err().Error(), "\n")
		if len(lines) != configErrorsMax+1 || lines[configErrorsMax] != "c.yaml: and more errors" {
			t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
		}
	}
}

// Each limit has bounds: the first value beyond one is refused, and the bound itself is not.
func TestBoundsOfLimits(t *testing.T) {
	for _, limit := range []struct{ section, key, low, least, most, high string }{
		{"exchange", "recv_window", "99ms", "100ms", "1m", "60001ms"},
		{"exchange", "timeout", "99ms", "100ms", "1m", "60001ms"},
		{"exit_brain", "interval", "999ms", "1s", "1h", "3601s"},
		{"apply", "proposal_ttl", "999ms", "1s", "10m", "601s"},
		{"apply", "dedupe_ttl", "1h0m29s", "1h0m30s", "2160h", "2161h"},
		{"apply", "permit_wait", "9ms", "10ms", "59999ms", "60s"},
		{"apply", "attempts", "0", "1", "10", "11"},
		{"governor", "max_per_hour", "0", "1", "3600", "3601"},
		{"governor", "max_per_5min", "0", "1", "3600", "3601"},
		{"governor", "cooldown", "-1ms", "0s", "24h", "25h"},
		{"governor", "protective_per_hour", "0", "1", "3600", "3601"},
		{"governor", "stops_per_hour", "0", "1", "3600", "3601"},
		{"governor", "kill_score_critical", "0", "0.001", "1", "1.001"},
		{"governor", "permit_ttl", "1200ms", "1201ms", "10m", "601s"},
		{"governor", "disarm_errors", "0", "1", "1000", "1001"},
		{"governor", "portfolio_per_hour", "-1", "0", "1000000", "1000001"},
		{"reconcile", "snapshot_interval", "499ms", "500ms", "10s", "10001ms"},
		{"reconcile", "stale_after", "4999ms", "5s", "10m", "601s"},
		{"reconcile", "tolerance_pct", "0", "0.001", "100", "100.001"},
		{"reconcile", "cooldown", "999ms", "1s", "24h", "25h"},
		{"reconcile", "permit_ttl", "1200ms", "1201ms", "10m", "601s"},
		{"paper", "seed", "-1", "0", "9223372036854775807", "9223372036854775808"},
		{"paper", "speed", "0", "0.001", "1000", "1000.001"},
		{"http", "listen", "127.0.0.1:-1", "127.0.0.1:0", "'[::1]:65535'", "127.0.0.1:65536"},
	} {
		for value, good := range map[string]bool{limit.low: false, limit.least: true, limit.most: true, limit.high: false} {
			text := fmt.Sprintf("%s: {%s: %s}", limit.section, limit.key, value)
			if _, err := ParseConfig(configYAML(t), "c.yaml", []byte(text)); (err == nil) != good {
				t.Errorf("%s: error %v, want one: %t", text, err, !good)
			}
		}
	}
}

func TestWarnings(t *testing.T) {
	for text, want := range map[string][]string{
		"governor: {max_per_5min: 4}": {"c.yaml:1:26: governor.max_per_5min: is above governor.max_per_hour, so that it never binds"},
		"governor:\n  cooldown: 30m":  {"c.yaml:2:13: governor.cooldown: is so long that governor.max_per_hour, 3, is never reached"},
		"governor: {cooldown: 29m}":   nil,
		"symbols: [{name: BTCUSDT, governor: {max_per_hour: 1}}]": {
			"c.yaml:1:52: symbols.BTCUSDT.governor.max_per_5min: is above governor.max_per_hour, so that it never binds",
		},
	} {
		c, err := ParseConfig(configYAML(t), "c.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Warnings(); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s\nwarns %q\nwant  %q", text, got, want)
		}
	}
}
