package apply_test

import (
	"errors"
	"testing"

	"permitchain/ledger"
	"permitchain/stages/apply"
)

// TestAHoldBitesAfterThePermits: a hold that is put between the permits and the order keeps the order back, in the kernel and,
// for an order that was decided before, in the fold.
func TestAHoldBitesAfterThePermits(t *testing.T) {
	held := func(s *ledger.State, p *ledger.Plan) {
		fold(t, s, now, &ledger.HoldPut{Key: p.Key(), Reason: ledger.HoldOperator, Owner: "test"})
	}
	s, p := planned(t, verdict(ledger.Allow, ledger.WithinLimits), verdict(ledger.Allow, ledger.PositionAgrees))
	held(s, p)
	st := apply.Join(rules, s, p, sight, now)
	fold(t, s, now, st.Events...)
	if len(st.Effects) > 0 || p.Reason != ledger.HoldActive {
		t.Errorf("plan %s, %d orders", p.Fate(), len(st.Effects))
	}

	s, p = planned(t, verdict(ledger.Allow, ledger.WithinLimits), verdict(ledger.Allow, ledger.PositionAgrees))
	st = apply.Join(rules, s, p, sight, now)
	held(s, p)
	var err error
	for _, e := range st.Events {
		if err == nil {
			err = s.Apply(ledger.Record{Seq: s.Control.Seq + 1, At: now, Event: e})
		}
	}
	if broken := (*ledger.BrokenError)(nil); !errors.As(err, &broken) || broken.Invariant != "S12" {
		t.Errorf("the fold takes an order under a hold: %v", err)
	}
}
