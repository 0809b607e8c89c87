package operator

import (
	"strings"
	"testing"
	"time"

	"permitchain/ledger"
)

// A plan that was decided and not sent says how much it would have closed: the smaller of what both permits allow.
func TestWhatWouldHaveBeenClosed(t *testing.T) {
	plan := func(g ledger.Verdict, outcome ledger.Outcome) *ledger.Plan {
		g.Ruling = ledger.Allow
		p := &ledger.Verdict{Ruling: ledger.Allow, Reason: ledger.PositionAgrees, SafeCloseQty: ledger.MustQty("0.008")}
		return &ledger.Plan{
			ID: "b6defdcbb3858e7c", Proposal: ledger.Proposal{Symbol: "BTCUSDT", Side: ledger.Both, Action: ledger.Partial25},
			Basis: ledger.Basis{Lot: ledger.Lot{Step: ledger.MustQty("0.001")}}, Decision: ledger.Execute, Outcome: outcome, Stage: ledger.StageExecution, Reason: ledger.ModeDryRun,
			Steps: []ledger.Step{{Kind: ledger.CloseStep, Governor: &g, Position: p}},
		}
	}
	for _, c := range []struct {
		governor ledger.Verdict
		outcome  ledger.Outcome
		want     string
	}{
		{ledger.Verdict{Reason: ledger.DryRunAutoApprove}, ledger.WouldExecute, "a close of up to 0.008"},
		{ledger.Verdict{Reason: ledger.TrimmedToDailyLimit, Capped: true, Qty: ledger.MustQty("0.005")}, ledger.WouldExecute, "a close of up to 0.005"},
		{ledger.Verdict{Reason: ledger.DryRunAutoApprove}, ledger.Failed, ""},
	} {
		s := ledger.NewState()
		p := plan(c.governor, c.outcome)
		if got := fate(p, s, time.Time{}); strings.Contains(got, "close of up to") != (c.want != "") || !strings.Contains(got, c.want) {
			t.Errorf("%s, want %q", got, c.want)
		}
		lines := strings.Join(story(p, s, time.Time{}).Lines, "\n")
		if !strings.Contains(lines, "position: ALLOW position_agrees: 0.008 may be closed") || strings.Contains(lines, "no more than 0.005") != c.governor.Capped {
			t.Errorf("story:\n%s", lines)
		}
	}
}

// A code of zero is none, and is not shown.
func TestAnAnswerWithoutACode(t *testing.T) {
	if got := answered(0, "timeout"); got != "timeout" {
		t.Error(got)
	}
	if got := answered(-2022, "ReduceOnly Order is rejected."); got != "-2022 ReduceOnly Order is rejected." {
		t.Error(got)
	}
}
