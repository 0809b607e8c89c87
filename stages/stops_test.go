package stages

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/pipeline"
)

var btc = ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}

// neverAnswers loses the answer of every order, and the order with it.
func neverAnswers(h *hostile) {
	h.place = func(exchange.Order, func() exchange.Answer) exchange.Answer {
		return exchange.Answer{Outcome: exchange.Unknown, Message: "timeout"}
	}
}

// TestUnknownEnds: neither a trade by hand nor drift within the tolerance keeps an order unknown for ever.
func TestUnknownEnds(t *testing.T) {
	end := func(r *rig, id ledger.PlanID) {
		r.wait(2 * time.Minute)
		r.want(r.outcome(id), ledger.Failed, atExecution, ledger.AttemptsExhausted)
		for _, o := range r.hostile.orders()[1:] {
			if o.ClientOrderID == r.hostile.orders()[0].ClientOrderID {
				r.t.Errorf("%s was sent twice", o.ClientOrderID)
			}
		}
	}
	t.Run("a trade by hand meanwhile", func(t *testing.T) {
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			id := r.propose(proposal(ledger.Partial25)).ID
			r.wait(500 * time.Millisecond)
			r.trade("BTCUSDT", "0.01")
			end(r, id)
			r.wait(settled)
			r.agree()
		}, neverAnswers)
	})
	t.Run("a trade by hand just before, not booked yet", func(t *testing.T) {
		var until time.Time
		x := &oracle{trades: func(real []ledger.Trade) ([]ledger.Trade, error) {
			if d := time.Until(until); d > 0 {
				<-time.After(d)
			}
			return real, nil
		}}
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			until = time.Now().Add(3 * time.Second)
			if err := r.paper.Trade(r.t.Context(), "BTCUSDT", ledger.Both, ledger.MustQty("0.001")); err != nil {
				r.t.Fatal(err)
			}
			r.wait(500 * time.Millisecond)
			id := r.propose(proposal(ledger.Partial25)).ID
			r.view(func(s *ledger.State) {
				if i := s.Intents[ledger.ClientOrderID(id, 1, 1)]; i != nil && i.Exchange.Equal(i.Ledger) {
					r.t.Error("the trade was booked before: this tests nothing")
				}
			})
			end(r, id)
			r.wait(settled)
			r.agree()
		}, consult(x), neverAnswers)
	})
	t.Run("drift within the tolerance", func(t *testing.T) {
		inBubble(t, "paper: {ledger: {BTCUSDT: '0.0455'}}", func(r *rig) {
			r.wait(settled)
			end(r, r.propose(proposal(ledger.Partial25)).ID)
		}, neverAnswers)
	})
}

// TestForceNeedsALedger: a fill of a position without a ledger could not be booked, so not even force sends it.
func TestForceNeedsALedger(t *testing.T) {
	inBubble(t, "reconcile: {initial: hold}", func(r *rig) {
		r.wait(settled)
		f := pipeline.Ask[ledger.FlattenOrder, []ledger.Receipt](ledger.FlattenOrder{Force: true, Who: "test", Why: "storm"})
		r.flattens <- f
		r.want(r.outcome((<-f.Reply)[0].ID), denied, atExecution, ledger.HoldNoLedger)
	})
}

// TestAStalePermitIsNotUsed: when the governor's word comes after another plan's fill, the position permit is of the past.
func TestAStalePermitIsNotUsed(t *testing.T) {
	inBubble(t, wide, func(r *rig) {
		r.wait(settled)
		a, b := proposal(ledger.Partial75), proposal(ledger.Partial75, func(p *ledger.Proposal) { p.KillScore = 0.55 })
		done := make(chan ledger.Receipt, 2)
		for _, p := range []ledger.Proposal{a, b} {
			go func() { done <- r.propose(p) }()
		}
		<-done
		<-done
		one, two := r.outcome(a.ID()), r.outcome(b.ID())
		if (one.Outcome == ledger.Executed) == (two.Outcome == ledger.Executed) {
			t.Fatalf("%s and %s", one.Fate(), two.Fate())
		}
		r.wait(settled)
		r.agree()
		if q := held(r, btc); q.String() != "0.012" {
			r.t.Errorf("%s is left", q)
		}
	})
}

// stands are the ids of the stops that stand in the ledger.
func stands(r *rig) (ids []string) {
	r.view(func(s *ledger.State) {
		for id, i := range s.Intents {
			if i.State == ledger.Standing {
				ids = append(ids, id)
			}
		}
	})
	return ids
}

// TestAStopThatIsGoneIsNoticed: cancelled by hand, or gone before its lost answer was looked up.
func TestAStopThatIsGoneIsNoticed(t *testing.T) {
	t.Run("cancelled by hand", func(t *testing.T) {
		inBubble(t, wide, func(r *rig) {
			r.wait(settled)
			p := r.decide(proposal(ledger.UpdateSL, withSL("50000")))
			r.wait(settled)
			if err := r.paper.CancelStop(r.t.Context(), btc, p.Orders()[0]); err != nil {
				r.t.Fatal(err)
			}
			r.wait(time.Minute)
			if ids := stands(r); len(ids) != 0 {
				r.t.Fatalf("%v stands", ids)
			}
			r.executed(proposal(ledger.UpdateSL, withSL("50000")))
		})
	})
	t.Run("its answer was lost", func(t *testing.T) {
		inBubble(t, wide, func(r *rig) {
			r.wait(settled)
			r.propose(proposal(ledger.UpdateSL, withSL("50000")))
			r.wait(time.Minute)
			if ids := stands(r); len(ids) != 0 {
				r.t.Fatalf("%v stands", ids)
			}
		}, func(h *hostile) {
			h.place = func(o exchange.Order, real func() exchange.Answer) exchange.Answer {
				real()
				_ = h.Exchange.CancelStop(context.Background(), o.Key, o.ClientOrderID)
				return exchange.Answer{Outcome: exchange.Unknown}
			}
		})
	})
}

// TestARefusedStopIsNotSentForEver: a stop that has to follow the amount and is refused each time.
func TestARefusedStopIsNotSentForEver(t *testing.T) {
	var refuse atomic.Bool
	inBubble(t, wide, func(r *rig) {
		r.wait(settled)
		r.executed(proposal(ledger.UpdateSL, withSL("50000")))
		r.wait(settled)
		refuse.Store(true)
		r.trade("BTCUSDT", "0.01")
		r.wait(10 * time.Minute)
		if n := len(r.hostile.orders()); n != 4 {
			r.t.Errorf("%d orders were sent, one stop and three tries are wanted", n)
		}
		refuse.Store(false)
		r.trade("BTCUSDT", "0.01") // Another amount is another try.
		r.wait(settled)
		if ids := stands(r); len(ids) != 1 || !strings.HasSuffix(ids[0], "-5") {
			r.t.Errorf("%v stands", ids)
		}
	}, func(h *hostile) {
		h.place = func(_ exchange.Order, real func() exchange.Answer) exchange.Answer {
			if refuse.Load() {
				return exchange.Answer{Outcome: exchange.NotPlaced, Code: -4045}
			}
			return real()
		}
	})
}

// TestALostStopClosesWhereConfigured: not placed, by evidence and not by an answer.
func TestALostStopClosesWhereConfigured(t *testing.T) {
	inBubble(t, wide+"apply: {on_stop_failure: close}", func(r *rig) {
		r.wait(settled)
		r.want(r.decide(proposal(ledger.UpdateSL, withSL("50000"))), ledger.Failed, atExecution, ledger.OrderNotPlaced)
		r.wait(settled)
		if q := held(r, btc); !q.IsZero() {
			r.t.Errorf("still holds %s", q)
		}
		r.agree()
	}, func(h *hostile) {
		h.place = func(o exchange.Order, real func() exchange.Answer) exchange.Answer {
			if !o.Trigger.IsZero() {
				return exchange.Answer{Outcome: exchange.Unknown}
			}
			return real()
		}
	})
}

// TestAStopIsNeverLoosened: of two stops judged before either stands, the tighter one stands in the end.
func TestAStopIsNeverLoosened(t *testing.T) {
	inBubble(t, wide, func(r *rig) {
		r.wait(settled)
		for _, price := range []string{"52000", "51000"} {
			r.propose(proposal(ledger.UpdateSL, withSL(price)))
		}
		r.wait(time.Minute)
		r.view(func(s *ledger.State) {
			if stop := s.Positions[btc].Stop; stop == nil || stop.Trigger.String() != "52000" {
				r.t.Errorf("stop %+v", stop)
			}
		})
	})
}

// TestAStopNeverTurnsAround: when a close takes off a step more than the ledger knew of, the stop goes, and none is sent the other way.
func TestAStopNeverTurnsAround(t *testing.T) {
	for mode, config := range map[string]string{
		"hedge":   "paper: {hedge: true, positions: {'BTCUSDT:LONG': '0.046'}, ledger: {'BTCUSDT:LONG': '0.045'}}",
		"one-way": "paper: {ledger: {BTCUSDT: '0.045'}}",
	} {
		t.Run(mode, func(t *testing.T) {
			inBubble(t, wide+config, func(r *rig) {
				r.wait(settled)
				side := func(p *ledger.Proposal) {
					if mode == "hedge" {
						p.Side = ledger.Long
					}
				}
				r.executed(proposal(ledger.UpdateSL, withSL("50000"), side))
				r.wait(settled)
				r.executed(proposal(ledger.FullClose, side))
				r.wait(time.Minute)
				for _, o := range r.hostile.orders() {
					if o.Direction != ledger.Sell {
						r.t.Errorf("%s would %s %s", o.ClientOrderID, o.Direction, o.Qty)
					}
				}
				if ids := stands(r); len(ids) != 0 {
					r.t.Errorf("flat, and %v stands", ids)
				}
				r.agree() // The step too much was written off as a residual.
			})
		})
	}
}

// TestANewStopThatIsRefusedLeavesTheOldOne: its answer was lost, and it is found ended.
func TestANewStopThatIsRefusedLeavesTheOldOne(t *testing.T) {
	inBubble(t, wide, func(r *rig) {
		r.wait(settled)
		r.executed(proposal(ledger.UpdateSL, withSL("50000")))
		r.wait(settled)
		id := r.propose(proposal(ledger.UpdateSL, withSL("52000"))).ID
		r.wait(2 * time.Minute)
		open, err := r.paper.OpenOrders(r.t.Context())
		if err != nil || len(open) != 1 || open[0].Trigger.String() != "50000" || len(stands(r)) != 1 {
			r.t.Errorf("open %+v, ledger %v, %v", open, stands(r), err)
		}
		r.want(r.outcome(id), ledger.Failed, atExecution, ledger.OrderNotPlaced)
	}, func(h *hostile) {
		h.place = func(o exchange.Order, real func() exchange.Answer) exchange.Answer {
			a := real()
			if o.Trigger.String() == "52000" {
				_ = h.Exchange.CancelStop(context.Background(), o.Key, o.ClientOrderID)
				return exchange.Answer{Outcome: exchange.Unknown}
			}
			return a
		}
	})
}

// TestDustGetsNoStop: what is less than a step, after a change of the rules or in a ledger that was seeded, is no reason to
// send an order for nothing, nor to halt.
func TestDustGetsNoStop(t *testing.T) {
	inBubble(t, wide+"paper: {ledger: {BTCUSDT: '0.0465'}}", func(r *rig) {
		r.wait(settled)
		r.executed(proposal(ledger.UpdateSL, withSL("50000")))
		r.wait(settled)
		r.executed(proposal(ledger.FullClose))
		r.wait(time.Minute)
		r.agree()
		if ids := stands(r); len(ids) != 0 {
			r.t.Errorf("flat, and %v stands", ids)
		}
	})
}
