package stages

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"permitchain/exchange"
	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// behind is an exchange whose positions are for a while those of before, though the snapshot is new.
type behind struct {
	exchange.Exchange
	before atomic.Pointer[ledger.Snapshot] // nil: it is not behind
}

func (b *behind) Snapshot(ctx context.Context) (ledger.Snapshot, error) {
	snap, err := b.Exchange.Snapshot(ctx)
	if old := b.before.Load(); old != nil {
		snap.Holdings = old.Holdings
	}
	return snap, err
}

// TestARestIsClosedThoughTheExchangeIsBehind: what a triggered stop leaves is closed also where the first snapshots after it do not
// know of its trades yet: a close that they would have denied would be the only one.
func TestARestIsClosedThoughTheExchangeIsBehind(t *testing.T) {
	b := &behind{}
	inBubble(t, wide+"apply: {on_stop_failure: close}", func(r *rig) {
		r.wait(settled)
		act := func(fn func(*venue.Venue, time.Time) (venue.Change, error)) {
			if err := r.paper.Do(r.t.Context(), "act", fn); err != nil {
				r.t.Fatal(err)
			}
		}
		depth := func(q *ledger.Qty) {
			act(func(v *venue.Venue, _ time.Time) (venue.Change, error) {
				v.Depth("BTCUSDT", q)
				return venue.Change{}, nil
			})
		}
		trigger := r.board.Mark("BTCUSDT").Price.Of(ledger.MustPercent("98")).FloorTo(ledger.MustPrice("0.1"))
		r.executed(proposal(ledger.UpdateSL, withSL(trigger.String())))
		snap, err := r.paper.Snapshot(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		b.before.Store(&snap)
		some := ledger.MustQty("0.01")
		depth(&some)
		act(func(v *venue.Venue, now time.Time) (venue.Change, error) {
			return v.Mark(now, "BTCUSDT", trigger.Sub(ledger.MustPrice("1"))), nil
		})
		depth(nil)
		r.wait(40 * time.Second)
		b.before.Store(nil)
		r.wait(time.Minute)
		if q := held(r, btc); !q.IsZero() {
			r.t.Errorf("%s is left", q)
		}
		r.agree()
	}, func(h *hostile) { b.Exchange, h.Exchange = h.Exchange, b })
}

// TestASlowAnswerDoesNotDelayAnotherStop: the stops of two positions are replaced at once, and the answer to one comes late.
func TestASlowAnswerDoesNotDelayAnotherStop(t *testing.T) {
	var slow atomic.Bool
	inBubble(t, wide+"paper: {positions: {BTCUSDT: '0.046', ETHUSDT: '1'}}\napply: {on_stop_failure: close}", func(r *rig) {
		r.wait(settled)
		r.executed(proposal(ledger.UpdateSL, withSL("50000")))
		r.executed(proposal(ledger.UpdateSL, withSL("2500"), func(p *ledger.Proposal) { p.Symbol = "ETHUSDT" }))
		slow.Store(true)
		btc := r.propose(proposal(ledger.Partial25)).ID
		eth := r.propose(proposal(ledger.Partial25, func(p *ledger.Proposal) { p.Symbol = "ETHUSDT" })).ID
		r.want(r.outcome(btc), ledger.Executed, "", "")
		r.want(r.outcome(eth), ledger.Executed, "", "")
		r.wait(30 * time.Second)
		r.view(func(s *ledger.State) {
			for id, i := range s.Intents {
				if i.State == ledger.NotPlaced {
					r.t.Errorf("%s of %s: %s", id, i.Key, i.Message)
				}
			}
		})
	}, func(h *hostile) {
		h.place = func(o exchange.Order, real func() exchange.Answer) exchange.Answer {
			a := real()
			if slow.Load() && o.Trigger.Sign() > 0 {
				<-time.After(2 * time.Second)
			}
			return a
		}
	})
}
