package replay

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"permitchain/ledger"
)

// The same log in other clothes gives the same decisions.
func TestHowALogIsWrittenDoesNotMatter(t *testing.T) {
	plain := logText(t)
	want := byID(t, play(t, nil, plain))
	each := func(change func(line string) string) string {
		lines := strings.Split(strings.TrimSuffix(plain, "\n"), "\n")
		for i, line := range lines {
			lines[i] = change(line)
		}
		return strings.Join(lines, "\n")
	}
	sections := strings.SplitAfterN(plain, "\n", 16)
	for name, text := range map[string]string{
		"syslog": each(func(l string) string { return "Jan 25 00:26:08 host quantum-governor[123]: " + l }),
		"syslog without inner date": each(func(l string) string {
			if len(l) > 20 && l[4] == '-' {
				return "Jan 25 " + l[11:19] + " host quantum-governor[123]: " + l[20:]
			}
			return "Jan 25 00:29:09 host quantum-governor[123]: " + l
		}),
		"ISO syslog":      each(func(l string) string { return "2026-01-25T00:26:08.123456+00:00 vps quantum[9]: " + l }),
		"newer syslog":    each(func(l string) string { return "<134>1 2026-01-25T00:26:08Z vps quantum 9 ID47 - " + l }),
		"compose":         each(func(l string) string { return "governor-1  | " + l }),
		"without dates":   each(func(l string) string { return strings.TrimPrefix(l, "2026-01-25 ") }),
		"without times":   each(func(l string) string { return l[max(0, strings.IndexByte(l, '[')):] }),
		"month and day":   each(func(l string) string { return strings.Replace(l, "2026-01-25", "Jan 25", 1) }),
		"milliseconds":    each(func(l string) string { return strings.Replace(l, " [", ",250 [", 1) }),
		"CRLF":            strings.ReplaceAll("\ufeff"+plain, "\n", "\r\n"),
		"colours":         each(func(l string) string { return "\x1b[32m" + l + "\x1b[0m" }),
		"quoted":          each(func(l string) string { return "> - " + l }),
		"numbered":        each(func(l string) string { return "12. " + l }),
		"fenced":          "```\n" + plain + "```\n",
		"apart":           strings.ReplaceAll(plain, "\n", "\n\n\n"),
		"sections turned": strings.Join(append(sections[15:], sections[:15]...), ""),
		"context inline":  strings.ReplaceAll(plain, "\n  context", " context"),
	} {
		r := play(t, nil, text)
		if got := byID(t, r); got != want || r.UnknownLines != 0 {
			t.Errorf("%s: %d unknown lines %v, %s", name, r.UnknownLines, r.Unknown, got)
		}
	}
}

// byID are the decisions in an order that does not depend on times.
func byID(t testing.TB, r *Report) string {
	t.Helper()
	m := map[string]Decision{}
	for _, d := range r.Decisions {
		m[d.PlanID] = d
	}
	return toJSON(t, m)
}

func TestSeveralLogsAreOne(t *testing.T) {
	lines := strings.SplitAfter(logText(t), "\n")
	governor, rest := strings.Join(lines[:9], ""), strings.Join(lines[9:], "")
	want := decisions(t, play(t, nil, logText(t)))
	for _, texts := range [][]string{{governor, rest}, {rest, governor}} {
		r := play(t, nil, texts...)
		if got := decisions(t, r); got != want || r.Lines != 28 || len(r.Source) != 2 {
			t.Errorf("two files, %d lines: %s", r.Lines, got)
		}
	}
}

func TestUnknownLinesAreCountedAndKept(t *testing.T) {
	noise := []string{
		"2026-01-25 00:26:08 [DEBUG] heartbeat", "Traceback (most recent call last):", "### Recent Activity:", "BTCUSDT: Plan 86c8756 already executed (duplicate)",
		"86c8756d", "{\"half\":", "{}", "context={'exchange_amt': 0.9", "\x00\xff\xfe", "2026-01-25 00:26:08 [INFO] BTCUSDT: ALLOW plan 86c8756d (permit issued: qty=1",
	}
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		lines := strings.Split(strings.TrimSuffix(logText(outer), "\n"), "\n")
		n := rapid.IntRange(0, 20).Draw(t, "n")
		for range n {
			at := rapid.IntRange(0, len(lines)).Draw(t, "at")
			lines = slices.Insert(lines, at, rapid.SampledFrom(noise).Draw(t, "noise"))
		}
		r := play(outer, nil, strings.Join(lines, "\n"))
		if r.UnknownLines != n || len(r.Unknown) != n || r.Lines != 28+n {
			t.Fatalf("%d unknown lines put in, %d of %d found", n, r.UnknownLines, r.Lines)
		}
		if got := byID(outer, r); got != byID(outer, play(outer, nil, logText(outer))) {
			t.Fatalf("unknown lines changed the decisions to %s", got)
		}
	})
	r := play(t, nil, logText(t)+strings.Join(noise, "\n"))
	if u := r.Unknown[0]; u.Line != 29 || u.Source != "log0" || u.Text != noise[0] {
		t.Errorf("the first unknown line is %+v", u)
	}
	few := playWith(t, Options{Rules: defaults}, strings.Join(noise, "\n"))
	if len(few.Unknown) != 0 || len(few.first) != listedMax || few.UnknownLines != len(noise) {
		t.Errorf("not asked for, %d unknown lines are kept of %d", len(few.first), few.UnknownLines)
	}
}

func TestIDs(t *testing.T) {
	long := "- 81c162f536289e05 (4+ retries every 5s)\n"
	for _, text := range []string{long + logText(t), logText(t) + long} {
		r := play(t, nil, text)
		if d := of(t, r, "81c162f5"); d.PlanID != "81c162f536289e05" || r.Plans != 5 || *d.Agrees != true || d.Duplicates != 0 {
			t.Errorf("%s", toJSON(t, d))
		}
	}
	two := "BTCUSDT: Evaluating plan 81c162f500000001\nBTCUSDT: Evaluating plan 81c162f500000002\nBTCUSDT: Plan 81c162f5... already executed (duplicate)\n"
	if r := play(t, nil, two); r.Plans != 2 || of(t, r, "81c162f500000002").Duplicates != 1 {
		t.Errorf("%s", toJSON(t, r))
	}
}

// The other lines the reported system is known to write.
func TestOtherLinesOfTheReportedSystem(t *testing.T) {
	r := play(t, nil, `04:56:18 [WARNING] BTCUSDT: P3.3 DENY plan d02f8bc4 reason=stale_exchange_state age_seconds=13
Feb 01 22:43:10 [WARNING] FILUSDT: P3.3 DENY plan e192fb6d reason=no_exchange_snapshot context={}
BTCUSDT: P3.3 DENY plan aaaaaaaa reason=no_position context={'exchange_amt': 0.0}
BTCUSDT: P3.3 DENY plan bbbbbbbb reason=cooldown_in_flight context={'seconds_since_last': 3, 'cooldown_sec': 15}
[INFO] BTCUSDT: Evaluating plan cccccccc (action=PARTIAL_50, decision=EXECUTE, kill_score=0.1, mode=live)
[INFO] BTCUSDT: Production mode - applying risk gates for plan cccccccc
[WARNING] BTCUSDT: BLOCKED plan cccccccc - hourly_limit_exceeded
[INFO] BTCUSDT: P3.3 ALLOW plan cccccccc (safe_qty=0.0230, exchange_amt=0.0460)
[WARNING] BTCUSDT: P3.3 DENY plan dddddddd reason=reconcile_required_qty_mismatch context={'exchange_amt': -0.046, 'ledger_amt': 2e-03, 'diff': 4.4e-2, 'tolerance': 0.001}
[INFO] BTCUSDT: Dry-run mode - auto-approving plan eeeeeeee
[WARNING] BTCUSDT: P3.3 DENY plan eeeeeeee reason=stale_exchange_state context={'age_seconds': 3}
`)
	if r.UnknownLines != 0 {
		t.Errorf("unknown: %v", r.Unknown)
	}
	for id, want := range map[string]string{"d02f8bc4": "agrees", "e192fb6d": "undecided", "aaaaaaaa": "agrees", "bbbbbbbb": "undecided", "cccccccc": "undecided", "dddddddd": "differs", "eeeeeeee": "undecided"} {
		d := of(t, r, id)
		got := "undecided"
		if d.Agrees != nil {
			got = map[bool]string{true: "agrees", false: "differs"}[*d.Agrees]
		}
		if got != want {
			t.Errorf("%s %s, want %s: %s", id, got, want, toJSON(t, d))
		}
	}
	if d := of(t, r, "dddddddd"); d.Position.Reason != ledger.SideMismatch {
		t.Errorf("a short against a long: %s", toJSON(t, d))
	}
}

func TestReadErrorsNameFileAndLine(t *testing.T) {
	_, err := Run(Options{Rules: defaults}, []Source{{"big.log", strings.NewReader("one\n" + strings.Repeat("x", lineMax+1))}})
	if err == nil || !strings.Contains(err.Error(), "big.log:2") {
		t.Errorf("a line without an end: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(logText(f))
	f.Add("Jan 25 00:26:08 host q[1]: 2026-01-25T00:26:08.5+0100 [INFO] BTCUSDT: P3.3 DENY plan 86c8756d reason=x context={'a': 1e-5, \"b\": 'c'}")
	f.Add("{\"sent_at\":\"2026-01-25T00:26:05Z\",\"holdings\":[]}\n{\"symbol\":\"A\",\"side\":\"BOTH\",\"action\":\"HOLD\",\"kill_score\":0,\"computed_at\":\"2026-01-25T00:26:08Z\"}")
	f.Add("{\"seq\":1,\"at\":\"2026-01-25T00:26:05Z\",\"kind\":\"process.started\",\"version\":1,\"event\":{\"instance\":1}}\n86c8756d (kill_score=0.3) → Governor ALLOW")
	f.Add("[12:00:00] BTCUSDT: Plan 86c8756d already executed (duplicate)\n> 1. `x`\n<1>1 - \x1b[")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Run(Options{Rules: defaults, Unknown: true}, []Source{{"fuzz", strings.NewReader(text)}})
		if err != nil {
			return
		}
		if r.Agree+r.Differ+r.Undecided != r.Plans || len(r.Decisions) != r.Plans || r.UnknownLines > r.Lines || len(r.Unknown) != r.UnknownLines {
			t.Fatalf("the counts do not add up: %s", toJSON(t, r))
		}
		if _, err := json.Marshal(r); err != nil {
			t.Fatal(err)
		}
		if err := r.WriteTable(&bytes.Buffer{}, true); err != nil {
			t.Fatal(err)
		}
	})
}
