package operator

import (
	"errors"
	"strings"
	"testing"
	"time"

	"permitchain/ledger"
)

// Every record that can speak of a plan is told with its numbers and times.
func TestMoments(t *testing.T) {
	at := time.Date(2026, 1, 25, 0, 26, 8, 0, time.UTC)
	p := proposal(ledger.Partial75, 0.539)
	p.KComponents, p.ReasonCodes, p.ComputedAt = map[string]float64{"trend": 0.25, "age": 1}, []string{"harvest"}, at.Add(-time.Second)
	basis := ledger.Basis{At: at, SnapshotAt: at.Add(-2870 * time.Millisecond), Exchange: ledger.MustQty("0.046"), Mark: ledger.MustPrice("87003.3"), MarkAt: at, Lot: ledger.Lot{Step: ledger.MustQty("0.001"), Min: ledger.MustQty("0.002")}}
	for want, e := range map[string]ledger.Event{
		"planned: EXECUTE, from " + string(p.Source) + ", kill score 0.539000, R 0.000, computed 1s before, age 1, trend 0.25, because of harvest; exchange 0.046, snapshot 2.87s old, mark 87003.3 0s old, lot 0.001 from 0.002; protective": &ledger.PlanDecided{Proposal: p, Basis: basis, Decision: ledger.Execute, Protective: true},
		"proposed again: answered from the record, though it came with another r_net":                                        &ledger.PlanRepeated{Difference: "r_net"},
		"governor: ALLOW trimmed_to_daily_limit, no more than 0.01, good for 1m0s; DENY stop_limit_exceeded":                 &ledger.GovernorDecided{Verdicts: []ledger.Verdict{{Ruling: ledger.Allow, Reason: ledger.TrimmedToDailyLimit, Capped: true, Qty: ledger.MustQty("0.01"), Expires: at.Add(time.Minute)}, {Ruling: ledger.Deny, Reason: ledger.StopLimit}}},
		"position: ALLOW position_agrees of 0.023, good for 30s; exchange 0.046, snapshot never old, mark 1":                 &ledger.PositionDecided{At: at, Mark: ledger.MustPrice("1"), Holding: ledger.Holding{Amount: ledger.MustQty("0.046")}, Verdicts: []ledger.Verdict{{Ruling: ledger.Allow, Reason: ledger.PositionAgrees, SafeCloseQty: ledger.MustQty("0.023"), Expires: at.Add(30 * time.Second)}}},
		"step 2: both permits used for a grant of 0.023, good for 12ms":                                                      &ledger.StepGranted{Step: 1, Qty: ledger.MustQty("0.023"), Expires: at.Add(12 * time.Millisecond)},
		"promised pc-1: stop SELL 0.02 of 0.046, ledger 0.045, not signed after 00:26:09.000, fence 00:26:13.000, trigger 9": &ledger.IntentOpened{Intent: ledger.Intent{ClientOrderID: "pc-1", Kind: ledger.StopStep, Direction: ledger.Sell, Qty: ledger.MustQty("0.02"), Exchange: ledger.MustQty("0.046"), Ledger: ledger.MustQty("0.045"), SendBefore: at.Add(time.Second), Fence: at.Add(5 * time.Second), Trigger: ledger.MustPrice("9")}},
		"pc-1 is not_placed (-2022 ReduceOnly Order is rejected.)":                                                           &ledger.IntentAnswered{ClientOrderID: "pc-1", State: ledger.NotPlaced, Code: -2022, Message: "ReduceOnly Order is rejected."},
		"pc-1 is placed, order 7, FILLED, executed 0.02; evidence: order 7 found by its client id":                           &ledger.IntentAnswered{ClientOrderID: "pc-1", State: ledger.Placed, OrderID: 7, Status: "FILLED", Executed: ledger.MustQty("0.02"), Evidence: "order 7 found by its client id"},
		"stop pc-1 is gone: cancelled":                              &ledger.StopGone{ClientOrderID: "pc-1", Why: "cancelled"},
		"trade 5: SELL 0.002 at 94327.3, fee 0.09, by pc-1":         &ledger.FillBooked{Trade: ledger.Trade{ID: 5, Direction: ledger.Sell, Qty: ledger.MustQty("0.002"), Price: ledger.MustPrice("94327.3"), FeeUSD: ledger.MustUSD("0.09"), ClientOrderID: "pc-1"}},
		"step 1 ended: executed":                                    &ledger.StepEnded{Outcome: ledger.Executed},
		"plan ended: failed execution order_not_placed pc-1: -2022": &ledger.PlanEnded{Outcome: ledger.Failed, Stage: ledger.StageExecution, Reason: ledger.OrderNotPlaced, Error: "pc-1: -2022"},
	} {
		if m := MomentOf(ledger.Record{Seq: 3, At: at, Event: e}); m.Text != want || m.Seq != 3 || m.Kind != e.Kind() {
			t.Errorf("%s is told as\n%s\nand not\n%s", e.Kind(), m.Text, want)
		}
	}
}

// Why and plans show tell the journal's records beside what the teller decides again; without a teller, or where it fails,
// what is on record is told all the same.
func TestTold(t *testing.T) {
	r := newRig(t)
	p := proposal(ledger.Partial75, 0.539)
	r.record(&ledger.LedgerOpened{Holding: ledger.Holding{Key: btc, Amount: ledger.MustQty("0.002")}, By: "test"})
	r.record(denied(p)...)
	if text := r.want(200, "GET", "/v1/why?subject="+p.ID().Short(), ""); strings.Contains(text, `"told"`) {
		t.Errorf("nobody tells, and it is told: %s", text)
	}
	var read int
	var fails error
	r.Tell = func(journal func(func(ledger.Record) error) error, told *ledger.Plan) (*Told, error) {
		read = 0
		if err := journal(func(rec ledger.Record) error { read++; return nil }); err != nil {
			return nil, err
		}
		if fails != nil {
			return nil, fails
		}
		return &Told{
			Gates:   []Gate{{Step: 1, Stage: ledger.StagePosition, Name: "4 difference", Value: "0.044", Bound: "at most 0.001", Reached: true, Reason: ledger.QtyMismatch}},
			Nearest: []Flip{{Step: 1, Stage: ledger.StagePosition, Gate: ledger.QtyMismatch, Change: "ledger_amt 0.046 (0.002)"}},
		}, nil
	}
	for _, path := range []string{"/v1/why?subject=" + p.ID().Short(), "/v1/plans/" + p.ID().Short() + "?told=true"} {
		r.want(200, "GET", path, "", `"told":{"gates":[{"step":1,"stage":"position","name":"4 difference"`, `"text":"planned: EXECUTE`, `"kind":"plan.ended"`, `"change":"ledger_amt 0.046 (0.002)"`, `"margin":null`)
	}
	if read < 6 {
		t.Errorf("the teller read %d records", read)
	}
	if text := r.want(200, "GET", "/v1/plans/"+p.ID().Short(), ""); strings.Contains(text, `"told"`) {
		t.Errorf("told unasked: %s", text)
	}
	fails = errors.New("too long a journal")
	r.want(200, "GET", "/v1/why?subject="+p.ID().Short(), "", "can't be told: too long a journal", `"text":"planned: EXECUTE`, `"gates":[]`)
}
