package ledger

import (
	"testing"
	"time"
)

// TestALateFillIsRememberedRightly: a trade of an order that had ended unfilled completes the tranche at its own size, and
// that of an earlier life of the position none.
func TestALateFillIsRememberedRightly(t *testing.T) {
	for _, mode := range []string{"epoch", "was"} {
		s := NewState()
		now := time.Unix(1700000000, 0).UTC()
		ap := func(e Event) {
			now = now.Add(time.Second)
			if err := s.Apply(Record{Seq: s.Control.Seq + 1, At: now, Event: e}); err != nil {
				t.Fatal(mode, e.Kind(), err)
			}
		}
		k := Key{"BTCUSDT", Both}
		ap(&LedgerOpened{Holding: Holding{Key: k, Amount: MustQty("1"), Entry: MustPrice("100")}, By: "t"})
		tid := int64(0)
		fill := func(q string, d Direction, cid string) {
			tid++
			ap(&FillBooked{Trade: Trade{ID: tid, Key: k, Direction: d, Qty: MustQty(q), Price: MustPrice("100"), At: now, ClientOrderID: cid}, External: cid == ""})
		}
		run := func(score float64, exq, qty string, filled bool) string {
			p := Proposal{Symbol: "BTCUSDT", Side: Both, Action: Partial25, KillScore: score, ComputedAt: now.Truncate(time.Millisecond), Source: FromBrain}
			id := p.ID()
			ap(&PlanDecided{ID: id, Proposal: p, Decision: Execute, Steps: []StepKind{CloseStep}})
			x := now.Add(time.Minute)
			ap(&GovernorDecided{ID: id, Verdicts: []Verdict{{Ruling: Allow, Expires: x}}})
			ap(&PositionDecided{ID: id, Verdicts: []Verdict{{Ruling: Allow, Expires: x, SafeCloseQty: MustQty(qty), Exchange: MustQty(exq), Version: s.Version(k)}}})
			ap(&StepGranted{ID: id, Qty: MustQty(qty), Expires: x})
			cid := ClientOrderID(id, 1, 1)
			ap(&IntentOpened{Intent: Intent{ClientOrderID: cid, Plan: id, Attempt: 1, Key: k, Kind: CloseStep, Direction: Sell, Qty: MustQty(qty), Exchange: MustQty(exq), Epoch: s.Positions[k].Epoch, SendBefore: now, Fence: now.Add(time.Second)}})
			a := &IntentAnswered{ClientOrderID: cid, State: Placed, OrderID: 5, Status: "EXPIRED"}
			if filled {
				a.Status, a.Executed = "FILLED", MustQty(qty)
			}
			ap(a)
			o := Failed
			if filled {
				fill(qty, Sell, cid)
				o = Executed
			}
			ap(&StepEnded{ID: id, Outcome: o})
			ap(&PlanEnded{ID: id, Outcome: o})
			return cid
		}
		if mode == "epoch" {
			cid := run(0.5, "1", "0.25", false)
			fill("1", Sell, "")
			fill("1", Buy, "")
			fill("0.25", Sell, cid)
			if pos := s.Positions[k]; pos.Epoch != 2 || len(pos.Tranches) != 0 {
				t.Errorf("a fill of epoch 1 left epoch %d with %v", pos.Epoch, pos.Tranches)
			}
			continue
		}
		run(0.5, "1", "0.25", true)
		fill("1.25", Buy, "")
		cid := run(0.51, "2", "0.5", false)
		fill("0.5", Sell, cid)
		if tr := s.Positions[k].Tranches[Partial25]; !tr.Done || tr.Amount.String() != "2" {
			t.Errorf("tranche %+v, done at a position of 2", tr)
		}
	}
}
