package stages

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/ledger"
)

// TestAnOlderNamesake proves nothing: it is neither our order nor the absence of it, and does not keep it unknown for ever.
func TestAnOlderNamesake(t *testing.T) {
	old := func(r *rig) exchange.OrderState {
		return exchange.OrderState{Key: btc, OrderID: 1, Direction: ledger.Sell, Status: "FILLED", Qty: ledger.MustQty("0.034"), Executed: ledger.MustQty("0.034"), CreatedAt: time.Now().Add(-time.Hour)}
	}
	hide := func(x *oracle, r *rig, id ledger.PlanID) {
		o := old(r)
		o.ClientOrderID = ledger.ClientOrderID(id, 1, 1)
		x.find = func(func() (exchange.OrderState, error)) (exchange.OrderState, error) { return o, nil }
	}
	t.Run("ours was never placed", func(t *testing.T) {
		x := mute()
		x.since, x.trades = nil, nil
		inBubble(t, "apply: {attempts: 1}", func(r *rig) {
			r.wait(settled)
			p := proposal(ledger.Partial75)
			hide(x, r, p.ID())
			id := r.propose(p).ID
			r.wait(25 * time.Second) // Three negatives over three seconds are long past.
			r.view(func(s *ledger.State) {
				if p := s.Plans[id]; p.Outcome != ledger.OutcomeUnknown {
					r.t.Errorf("%s", p.Fate())
				}
			})
			r.wait(time.Minute)
			plan := r.outcome(id)
			r.want(plan, ledger.Failed, atExecution, ledger.AttemptsExhausted)
			if q := held(r, btc); q.String() != "0.046" {
				r.t.Errorf("%s is left", q)
			}
		}, consult(x), neverAnswers)
	})
	t.Run("ours is listed", func(t *testing.T) {
		x := &oracle{trades: func(real []ledger.Trade) ([]ledger.Trade, error) {
			for n := range real {
				real[n].ClientOrderID = "" // So that only the list tells whose it is.
			}
			return real, nil
		}}
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			p := proposal(ledger.Partial75)
			hide(x, r, p.ID())
			r.once(r.decide(p), "0.012")
		}, consult(x), func(h *hostile) {
			h.place = func(_ exchange.Order, real func() exchange.Answer) exchange.Answer {
				real()
				return exchange.Answer{Outcome: exchange.Unknown, Code: -4116, Message: "ClientOrderId is duplicated."}
			}
		})
	})
	t.Run("nothing else can be asked", func(t *testing.T) {
		x := mute()
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			p := proposal(ledger.Partial75)
			hide(x, r, p.ID())
			id := r.propose(p).ID
			r.wait(10 * time.Minute)
			r.view(func(s *ledger.State) {
				if p := s.Plans[id]; p.Outcome != ledger.OutcomeUnknown {
					r.t.Errorf("%s", p.Fate())
				}
			})
		}, consult(x), neverAnswers)
	})
}

// TestAContradictionStaysUnknown: an order since the sending, under our id, that is not the one we promised.
func TestAContradictionStaysUnknown(t *testing.T) {
	changes := map[string]func(*exchange.OrderState){
		"direction": func(o *exchange.OrderState) { o.Direction = ledger.Buy },
		"quantity":  func(o *exchange.OrderState) { o.Qty = ledger.MustQty("0.035") },
		"side":      func(o *exchange.OrderState) { o.Key.Side = ledger.Long },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			x := &oracle{}
			inBubble(t, "", func(r *rig) {
				r.wait(settled)
				p := proposal(ledger.Partial75)
				o := exchange.OrderState{ClientOrderID: ledger.ClientOrderID(p.ID(), 1, 1), Key: btc, OrderID: 5, Direction: ledger.Sell, Status: "NEW", Qty: ledger.MustQty("0.034"), CreatedAt: time.Now()}
				change(&o)
				x.find = func(func() (exchange.OrderState, error)) (exchange.OrderState, error) { return o, nil }
				id := r.propose(p).ID
				r.wait(5 * time.Minute)
				r.view(func(s *ledger.State) {
					if p := s.Plans[id]; p.Outcome != ledger.OutcomeUnknown {
						r.t.Errorf("%s", p.Fate())
					}
				})
				r.want(r.decide(proposal(ledger.FullClose)), denied, atPosition, ledger.CooldownInFlight)
				if n := len(r.hostile.orders()); n != 1 {
					r.t.Errorf("%d orders were sent", n)
				}
			}, consult(x), neverAnswers)
		})
	}
}

// TestRefusedBecauseSomebodyClosedIt: -2022 is a reason to read the position again, not to send once more.
func TestRefusedBecauseSomebodyClosedIt(t *testing.T) {
	var r *rig
	inBubble(t, "", func(rr *rig) {
		r = rr
		r.wait(settled)
		plan := r.decide(proposal(ledger.Partial75))
		r.want(plan, ledger.Failed, atExecution, ledger.NothingLeft)
		if !strings.Contains(plan.Error, "-2022") {
			r.t.Errorf("error %q", plan.Error)
		}
		r.wait(settled)
		r.agree()
		if n := len(r.hostile.orders()); n != 1 {
			r.t.Errorf("%d orders were sent", n)
		}
	}, func(h *hostile) {
		h.place = func(_ exchange.Order, real func() exchange.Answer) exchange.Answer {
			_ = r.paper.Trade(context.Background(), "BTCUSDT", ledger.Both, ledger.MustQty("-0.046"))
			return real()
		}
	})
}

// TestOrdersInTheWayAreNamed: -4118 tells what has to be cancelled, and whose it is.
func TestOrdersInTheWayAreNamed(t *testing.T) {
	var slow atomic.Bool
	x := &oracle{open: func([]exchange.OrderState) []exchange.OrderState {
		if slow.Swap(false) {
			<-time.After(4 * time.Second)
		}
		other := exchange.OrderState{ClientOrderID: "web_77", OrderID: 4711, Key: btc, Direction: ledger.Sell, Status: "NEW", Qty: ledger.MustQty("0.046")}
		buys, elsewhere := other, other
		buys.Direction, buys.OrderID = ledger.Buy, 4712
		elsewhere.Key.Symbol, elsewhere.OrderID = "ETHUSDT", 4713
		return []exchange.OrderState{buys, other, elsewhere}
	}}
	var log bytes.Buffer
	inBubble(t, "apply: {attempts: 1}", func(r *rig) {
		r.wait(settled)
		began := time.Now()
		plan := r.decide(proposal(ledger.Partial75))
		r.want(plan, ledger.Failed, atExecution, ledger.AttemptsExhausted)
		if d := plan.EndedAt.Sub(began); !strings.Contains(plan.Error, "-4118") || d > time.Second {
			r.t.Errorf("after %s: error %q", d, plan.Error)
		}
		r.wait(settled)
	}, consult(x), func(h *hostile) {
		h.log = zerolog.New(zerolog.SyncWriter(&log))
		h.place = func(exchange.Order, func() exchange.Answer) exchange.Answer {
			slow.Store(true) // The refusal must not wait for what is in the way.
			return exchange.Answer{Outcome: exchange.NotPlaced, Code: -4118, Message: "ReduceOnly Order Failed."}
		}
	})
	if text := log.String(); !strings.Contains(text, "order 4711 web_77 (not ours)") || strings.Contains(text, "4712") || strings.Contains(text, "4713") {
		t.Errorf("told %s", text)
	}
}

// frozen shows the same holdings for as long as it is told to, each time as if they were new.
type frozen struct {
	exchange.Exchange
	on       atomic.Bool
	holdings []ledger.Holding
}

func (f *frozen) Snapshot(ctx context.Context) (ledger.Snapshot, error) {
	snap, err := f.Exchange.Snapshot(ctx)
	if err == nil && f.on.Load() {
		snap.Holdings = f.holdings
	}
	return snap, err
}

// TestRefusedAfterAFalseNegative: every probe denied the first order, which had executed. That the second is refused, for there is
// nothing left to reduce, is evidence of it: nothing more is sent, and the position waits for a person.
func TestRefusedAfterAFalseNegative(t *testing.T) {
	x, f := &oracle{}, &frozen{holdings: []ledger.Holding{{Key: btc, Amount: ledger.MustQty("0.046"), Entry: ledger.MustPrice("80000")}}}
	hide := func() {
		x.find = func(func() (exchange.OrderState, error)) (exchange.OrderState, error) {
			return exchange.OrderState{}, exchange.ErrNotFound
		}
		x.since = func([]exchange.OrderState) ([]exchange.OrderState, error) { return nil, nil }
		x.trades = func([]ledger.Trade) ([]ledger.Trade, error) { return nil, nil }
	}
	inBubble(t, "", func(r *rig) {
		r.wait(settled)
		f.on.Store(true)
		hide()
		id := r.propose(proposal(ledger.FullClose)).ID
		r.wait(2 * time.Minute)
		plan := r.outcome(id)
		if n := len(r.hostile.orders()); n != 2 || plan.Outcome != ledger.Failed || !strings.Contains(plan.Error, "-2022") {
			r.t.Errorf("%d orders were sent: %s (%s)", n, plan.Fate(), plan.Error)
		}
		r.view(func(s *ledger.State) {
			if holds := s.HoldsOn(btc); !holds.Has(ledger.HoldForeignInstance) || !strings.Contains(holds[0].Evidence, plan.Orders()[0]) {
				r.t.Errorf("holds %+v", holds)
			}
		})
	}, consult(x), func(h *hostile) { f.Exchange, h.Exchange = h.Exchange, f }, func(h *hostile) {
		h.place = func(_ exchange.Order, real func() exchange.Answer) exchange.Answer {
			a := real()
			if len(h.orders()) == 1 {
				return exchange.Answer{Outcome: exchange.Unknown, Message: "timeout"}
			}
			x.find, x.since, x.trades = nil, nil, nil // By now it would be found.
			f.on.Store(false)
			return a
		}
	})
}
