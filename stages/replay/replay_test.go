package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"permitchain/ledger"
	"permitchain/stages/apply"
	"permitchain/stages/governor"
	"permitchain/stages/reconcile"
)

var rewrite = flag.Bool("rewrite", false, "write the golden result anew; commit it only when every change in it is wanted")

const (
	reportedLog    = "testdata/plans/reported-2026-01-25.log"
	reportedGolden = "testdata/plans/reported-2026-01-25.json"
	root           = "../../"
)

// defaults are config.yaml's, as far as the kernels ask.
func defaults(string) Rules {
	a := apply.Config{ProposalTTL: 30 * time.Second, DedupeTTL: 6 * time.Hour, PermitWait: 1200 * time.Millisecond, Attempts: 3, ExternalProtective: true, OnStopFailure: apply.AlertOnly}
	g := governor.Config{
		AutoApprove: []ledger.Mode{ledger.Testnet, ledger.DryRun}, MaxPerHour: 3, MaxPer5Min: 2, DailyNotional: ledger.MustUSD("5000"), OnDailyLimit: governor.DenyPast,
		ProtectivePerHour: 6, StopsPerHour: 10, KillScoreCritical: 0.8, PermitTTL: time.Minute, DisarmTo: ledger.ProtectiveOnly, DisarmErrors: 5,
	}
	x := reconcile.Config{
		SnapshotInterval: 5 * time.Second, StaleAfter: 10 * time.Second, TolerancePct: ledger.MustPercent("1"), ToleranceUSD: ledger.MustUSD("100"),
		Cooldown: 15 * time.Second, PermitTTL: time.Minute, Initial: reconcile.Adopt, ExternalTrades: reconcile.Adopt, Dust: reconcile.DustCloseAll,
	}
	return Rules{
		Apply:     apply.Rules{Config: a, Listed: true, Mode: ledger.Paper, Tolerance: x.Tolerance(), StaleAfter: x.StaleAfter, RecvWindow: 3 * time.Second},
		Governor:  governor.Rules{Config: g, Mode: ledger.Paper, StaleAfter: x.StaleAfter},
		Reconcile: x,
	}
}

func readFile(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(root + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func logText(t testing.TB) string { t.Helper(); return readFile(t, reportedLog) }

// play replays texts as files called log0, log1 and so on.
func play(t testing.TB, sets []string, texts ...string) *Report {
	t.Helper()
	over, rest, err := ParseSets(sets)
	if err != nil || len(rest) > 0 {
		t.Fatalf("sets %v: %v, %v", sets, rest, err)
	}
	return playWith(t, Options{Rules: defaults, Overrides: over, Unknown: true}, texts...)
}

func playWith(t testing.TB, o Options, texts ...string) *Report {
	t.Helper()
	var sources []Source
	for i, text := range texts {
		sources = append(sources, Source{fmt.Sprintf("log%d", i), strings.NewReader(text)})
	}
	r, err := Run(o, sources)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// decisions are what must not depend on how a log is written.
func decisions(t testing.TB, r *Report) string {
	t.Helper()
	return toJSON(t, r.Decisions)
}

func of(t testing.TB, r *Report, id string) Decision {
	t.Helper()
	for _, d := range r.Decisions {
		if strings.HasPrefix(d.PlanID, id) {
			return d
		}
	}
	t.Fatalf("no plan %s in %s", id, toJSON(t, r))
	return Decision{}
}

func TestReportedRun(t *testing.T) {
	r, err := Run(Options{Rules: defaults}, []Source{{reportedLog, strings.NewReader(logText(t))}})
	if err != nil {
		t.Fatal(err)
	}
	got := toJSON(t, r) + "\n"
	if *rewrite {
		if err := os.WriteFile(root+reportedGolden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var have, want any
	if json.Unmarshal([]byte(got), &have) != nil || json.Unmarshal([]byte(readFile(t, reportedGolden)), &want) != nil || !reflect.DeepEqual(have, want) {
		t.Errorf("the reported run came out as\n%s\nand should be\n%s", got, readFile(t, reportedGolden))
	}
}

func TestReportedRunSaysWhatTheReportSays(t *testing.T) {
	r := play(t, nil, logText(t))
	for _, c := range []struct{ id, exchange, diff string }{{"86c8756d", "0.046", "0.044"}, {"81c162f5", "0.046", "0.044"}, {"9a2f24d1", "0.046", "0.044"}, {"084222f2", "0.062", "0.06"}} {
		d := of(t, r, c.id)
		want := ledger.Facts{{Name: "exchange_amt", Value: c.exchange}, {Name: "ledger_amt", Value: "0.002"}, {Name: "diff", Value: c.diff}, {Name: "tolerance", Value: "0.001"}}
		if d.Position.Verdict != ledger.Deny || d.Position.Reason != ledger.QtyMismatch || !reflect.DeepEqual(d.Position.Context, want) || d.WouldExecute || d.Agrees == nil || !*d.Agrees {
			t.Errorf("plan %s: %s", c.id, toJSON(t, d))
		}
	}
	if r.Lines != 28 || r.Plans != 5 || r.Agree != 4 || r.Undecided != 1 || r.Differs() {
		t.Errorf("%d lines, %d plans, %d agree, %d undecided", r.Lines, r.Plans, r.Agree, r.Undecided)
	}
}

// Every amount in a context is one the verdict depends on: changed, the plan no longer agrees.
func TestAChangedAmountDiffers(t *testing.T) {
	for _, id := range []string{"86c8756d", "81c162f5", "9a2f24d1", "084222f2"} {
		for _, change := range [][2]string{{"'exchange_amt': 0.0", "'exchange_amt': 0.1"}, {"'ledger_amt': 0.002", "'ledger_amt': 0.003"}, {"'diff': 0.0", "'diff': 0.1"}, {"'tolerance': 0.001", "'tolerance': 0.002"}} {
			head, tail, _ := strings.Cut(logText(t), "P3.3 DENY plan "+id)
			r := play(t, nil, head+"P3.3 DENY plan "+id+strings.Replace(tail, change[0], change[1], 1))
			if d := of(t, r, id); r.Differ != 1 || r.Agree != 3 || d.Agrees == nil || *d.Agrees {
				t.Errorf("%s with %s: %s", id, change[1], toJSON(t, r))
			}
		}
	}
	r := play(t, nil, strings.Replace(logText(t), "86c8756d (permit issued: qty=0.0000", "86c8756d (permit issued: qty=0.0340", 1))
	if r.Differ != 1 {
		t.Errorf("a changed permit: %s", toJSON(t, r))
	}
	noise := strings.ReplaceAll(logText(t), "'diff': 0.044", "'diff': 0.044000000000000004")
	if r := play(t, nil, noise); r.Agree != 4 {
		t.Errorf("a float's noise is taken for a difference: %s", toJSON(t, r))
	}
}

func TestWhatIf(t *testing.T) {
	r := play(t, []string{"ledger.BTCUSDT=0.046"}, logText(t))
	for _, id := range []string{"86c8756d", "81c162f5", "9a2f24d1"} {
		if d := of(t, r, id); !d.WouldExecute || d.Qty != "0.034" || d.Position.Reason != ledger.PositionAgrees || *d.Agrees {
			t.Errorf("%s", toJSON(t, d))
		}
	}
	d := of(t, r, "084222f2")
	if d.WouldExecute || d.Position.Reason != ledger.QtyMismatch || d.Position.Context.Get("diff") != "0.016" {
		t.Errorf("%s", toJSON(t, d))
	}
	if r.Differ != 4 || r.Undecided != 1 || !r.Differs() {
		t.Errorf("%d differ, %d undecided", r.Differ, r.Undecided)
	}
	if d := of(t, play(t, []string{"mode=paper", "ledger.BTCUSDT=0.046"}, logText(t)), "86c8756d"); d.Governor.Decided == nil || d.Governor.Verdict != ledger.Allow || !d.WouldExecute {
		t.Errorf("a governor without a price is taken to have decided: %s", toJSON(t, d))
	}
	if d := of(t, play(t, []string{"mode=paper", "mark.BTCUSDT=89000"}, logText(t)), "86c8756d"); d.Governor.Decided != nil || d.Governor.Reason != ledger.WithinLimits || d.Governor.Notional != "3026" {
		t.Errorf("with a price: %s", toJSON(t, d))
	}
	if d := of(t, play(t, []string{"mode=paper", "mark.BTCUSDT=890000"}, logText(t)), "86c8756d"); d.Governor.Reason != ledger.DailyLimit || *d.Agrees {
		t.Errorf("past the daily limit: %s", toJSON(t, d))
	}
	wide := playWith(t, Options{Rules: func(s string) Rules {
		r := defaults(s)
		r.Reconcile.TolerancePct = ledger.MustPercent("100")
		return r
	}}, logText(t))
	if d := of(t, wide, "86c8756d"); !d.WouldExecute || d.Qty != "0.034" {
		t.Errorf("with a tolerance of all: %s", toJSON(t, d))
	}
}

func TestBadSets(t *testing.T) {
	for arg, key := range map[string]string{
		"ledger.BTCUSDT": "ledger.BTCUSDT", "ledger.BTCUSDT=x": "ledger.BTCUSDT", "ledger.BTCUSDT=1e3": "ledger.BTCUSDT", "ledger.BTCUSDT:UP=1": "ledger.BTCUSDT:UP",
		"ledger.=1": "ledger.", "mode=prod": "mode", "mark.BTCUSDT=0": "mark.BTCUSDT", "nonsense=1": "nonsense", "paper.seed=1": "paper.seed", "governor.max per hour=1": "governor.max per hour",
	} {
		_, _, err := ParseSets([]string{arg})
		var bad *SetError
		if !errors.As(err, &bad) || !strings.Contains(bad.Key, key) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", arg, err)
		}
	}
	if _, _, err := ParseSets([]string{"ledger.BTCUSDT=1", "ledger.BTCUSDT:BOTH=2"}); err == nil {
		t.Error("one ledger may be set twice")
	}
	over, rest, err := ParseSets([]string{"governor.max_per_hour=1", "reconcile.tolerance_pct=2.0", "governor.auto_approve=[]"})
	if want := "governor:\n  max_per_hour: 1\n  auto_approve: []\nreconcile:\n  tolerance_pct: 2.0\n"; err != nil || string(Overlay(rest)) != want || !over.AutoApprove {
		t.Errorf("the overlay is %q, %v, %v", Overlay(rest), over, err)
	}
	over, _, _ = ParseSets([]string{"ledger.BTCUSD=1"})
	var bad *SetError
	if _, err := Run(Options{Rules: defaults, Overrides: over}, []Source{{"log", strings.NewReader(logText(t))}}); !errors.As(err, &bad) || bad.Key != "ledger.BTCUSD" {
		t.Errorf("a slip in a symbol: %v", err)
	}
}

// In dry_run nothing is ever sized to be sent, and what would be sent is still the question.
func TestDryRunAndASymbolThatIsNotListed(t *testing.T) {
	unlisted := func(s string) Rules { r := defaults(s); r.Apply.Listed = false; return r }
	dry := strings.NewReplacer("mode=testnet", "mode=dry_run", "Testnet mode", "Dry-run mode").Replace(logText(t))
	over, _, _ := ParseSets([]string{"ledger.BTCUSDT=0.046"})
	if d := of(t, playWith(t, Options{Rules: unlisted, Overrides: over}, dry), "86c8756d"); !d.WouldExecute || d.Qty != "0.034" || d.Governor.Reason != ledger.DryRunAutoApprove {
		t.Errorf("%s", toJSON(t, d))
	}
}

func TestAutoApproveTakenAway(t *testing.T) {
	none := func(s string) Rules { r := defaults(s); r.Governor.AutoApprove = nil; return r }
	if r := playWith(t, Options{Rules: none}, logText(t)); r.Agree != 4 || of(t, r, "86c8756d").Governor.Reason != ledger.TestnetAutoApprove {
		t.Errorf("the log says that testnet was auto-approved: %s", toJSON(t, r))
	}
	r := playWith(t, Options{Rules: none, Overrides: Overrides{AutoApprove: true, Mark: map[string]ledger.Price{"BTCUSDT": ledger.MustPrice("89000")}}}, logText(t))
	if d := of(t, r, "86c8756d"); d.Governor.Reason != ledger.WithinLimits || d.Governor.Notional != "3026" {
		t.Errorf("%s", toJSON(t, d))
	}
}

func TestTable(t *testing.T) {
	r := play(t, []string{"ledger.BTCUSDT=0.046"}, logText(t)+"what\n")
	var plain, coloured bytes.Buffer
	if r.WriteTable(&plain, false) != nil || r.WriteTable(&coloured, true) != nil {
		t.Fatal("the table is not written")
	}
	for _, want := range []string{"DENY → ALLOW", "0.034", "ledger 0.002 → 0.046", "diff 0.060 → 0.016", "3 repeats:", "decided and denied", "0 agree, 4 differ, 1 undecided", "29 lines, 1 of them unknown", "log0:29: what"} {
		if !strings.Contains(plain.String(), want) {
			t.Errorf("%q is not in\n%s", want, plain.String())
		}
	}
	for line := range strings.Lines(plain.String()) {
		if n := utf8.RuneCountInString(line); n > 121 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if strings.Contains(plain.String(), "\x1b") || !strings.Contains(coloured.String(), "\x1b[") {
		t.Error("colours are where they should not be, or the other way round")
	}
}

func TestProposalsAndSnapshots(t *testing.T) {
	const text = `{"sent_at":"2026-01-25T00:26:05Z","holdings":[{"symbol":"BTCUSDT","side":"BOTH","amount":"0.046","entry":"87000"}]}
{"symbol":"BTCUSDT","side":"BOTH","action":"PARTIAL_75","kill_score":0.54,"computed_at":"2026-01-25T00:26:08.000Z"}
{"symbol":"BTCUSDT","side":"BOTH","action":"PARTIAL_75","kill_score":0.54,"computed_at":"2026-01-25T00:26:08.000Z"}
{"symbol":"BTCUSDT","side":"BOTH","action":"PARTIAL_25","kill_score":0.55,"computed_at":"2026-01-25T00:26:38.000Z"}
{"symbol":"BTCUSDT","side":"BOTH","action":"HOLD","kill_score":0.1,"computed_at":"2026-01-25T00:26:39.000Z"}
{"symbol":"BTCUSDT","side":"BOTH","action":"FULL_CLOSE_PROPOSED","kill_score":0.9,"computed_at":"2026-01-25T00:26:45.000Z"}
{"sent_at":"2026-01-25T00:26:40Z","holdings":[{"symbol":"BTCUSDT","side":"BOTH","amount":"0.06"}]}
{"symbol":"BTCUSDT","price":"87000","at":"2026-01-25T00:26:07Z"}
{"symbol":"BTCUSDT","side":"BOTH","action":"PARTIAL_75","kill_score":2,"computed_at":"2026-01-25T00:26:08.000Z"}
`
	r := play(t, nil, text)
	if r.Plans != 4 || r.Undecided != 4 || r.UnknownLines != 1 || !strings.Contains(r.Unknown[0].Why, "kill_score") {
		t.Fatalf("%s", toJSON(t, r))
	}
	first, stale, hold, drifted := r.Decisions[0], r.Decisions[1], r.Decisions[2], r.Decisions[3]
	if !first.WouldExecute || first.Qty != "0.034" || first.Duplicates != 1 || first.Governor.Reason != ledger.WithinLimits {
		t.Errorf("%s", toJSON(t, first))
	}
	if stale.Position.Reason != ledger.StaleExchangeState || stale.WouldExecute {
		t.Errorf("%s", toJSON(t, stale))
	}
	if hold.Decision != ledger.Skip || hold.Reason != ledger.ActionHold || hold.Governor.Verdict != "" {
		t.Errorf("%s", toJSON(t, hold))
	}
	if drifted.Position.Reason != ledger.QtyMismatch || drifted.Governor.Reason != ledger.WithinProtectiveBudget {
		t.Errorf("%s", toJSON(t, drifted))
	}
}

func BenchmarkReplay(b *testing.B) {
	text := strings.Repeat(logText(b), 100)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		playWith(b, Options{Rules: defaults}, text)
	}
}
