package stages

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// oracle answers the questions of the chain as a test wants it; what is nil is answered by the real one.
type oracle struct {
	exchange.Exchange
	find   func(real func() (exchange.OrderState, error)) (exchange.OrderState, error)
	since  func(real []exchange.OrderState) ([]exchange.OrderState, error)
	open   func(real []exchange.OrderState) []exchange.OrderState
	trades func(real []ledger.Trade) ([]ledger.Trade, error)
	cancel func(real func() error) error
}

func (o *oracle) Find(ctx context.Context, k ledger.Key, id string) (exchange.OrderState, error) {
	real := func() (exchange.OrderState, error) { return o.Exchange.Find(ctx, k, id) }
	if o.find != nil {
		return o.find(real)
	}
	return real()
}

func (o *oracle) OrdersSince(ctx context.Context, symbol string, since time.Time) ([]exchange.OrderState, error) {
	all, err := o.Exchange.OrdersSince(ctx, symbol, since)
	if o.since != nil && err == nil {
		return o.since(all)
	}
	return all, err
}

func (o *oracle) OpenOrders(ctx context.Context) ([]exchange.OrderState, error) {
	all, err := o.Exchange.OpenOrders(ctx)
	if o.open != nil {
		all = o.open(all)
	}
	return all, err
}

func (o *oracle) Trades(ctx context.Context, symbol string, after int64) ([]ledger.Trade, error) {
	all, err := o.Exchange.Trades(ctx, symbol, after)
	if o.trades != nil && err == nil {
		return o.trades(all)
	}
	return all, err
}

func (o *oracle) CancelStop(ctx context.Context, k ledger.Key, id string) error {
	real := func() error { return o.Exchange.CancelStop(ctx, k, id) }
	if o.cancel != nil {
		return o.cancel(real)
	}
	return real()
}

// consult puts an oracle before the exchange, below the hostile one that counts orders.
func consult(o *oracle) func(*hostile) {
	return func(h *hostile) { o.Exchange, h.Exchange = h.Exchange, o }
}

// mute is an exchange that can be asked for nothing about orders and trades: only its stream tells of them.
func mute() *oracle {
	down := errors.New("the line is dead")
	return &oracle{
		find: func(func() (exchange.OrderState, error)) (exchange.OrderState, error) {
			return exchange.OrderState{}, down
		},
		since:  func([]exchange.OrderState) ([]exchange.OrderState, error) { return nil, down },
		trades: func([]ledger.Trade) ([]ledger.Trade, error) { return nil, down },
	}
}

// story is what the account's stream says of an order that has executed, in the order in which it happened.
func (r *rig) story(id string) []exchange.StreamEvent {
	ctx := context.Background()
	order, err := r.paper.Find(ctx, btc, id)
	if err != nil {
		r.t.Errorf("tell of %s: %v", id, err)
		return nil
	}
	order.CreatedAt = time.Time{} // The stream does not say.
	first := order
	first.Status, first.Executed = "NEW", ledger.Qty{}
	events := []exchange.StreamEvent{{Order: &first}}
	trades, err := r.paper.Trades(ctx, btc.Symbol, 0)
	if err != nil {
		r.t.Errorf("tell of %s: %v", id, err)
	}
	sofar := ledger.Qty{}
	for _, t := range trades {
		if t.ClientOrderID != id {
			continue
		}
		sofar = sofar.Add(t.Qty)
		then := order
		then.Executed = sofar
		if then.Status = "PARTIALLY_FILLED"; sofar.Equal(order.Executed) {
			then.Status = order.Status
		}
		events = append(events, exchange.StreamEvent{Order: &then}, exchange.StreamEvent{Trade: &t})
	}
	return events
}

// shuffles are the ways in which a stream may tell a story.
var shuffles = map[string]func([]exchange.StreamEvent) []exchange.StreamEvent{
	"in order": func(e []exchange.StreamEvent) []exchange.StreamEvent { return e },
	"twice": func(e []exchange.StreamEvent) []exchange.StreamEvent {
		return append(append([]exchange.StreamEvent{}, e...), e...)
	},
	"backwards": func(e []exchange.StreamEvent) []exchange.StreamEvent {
		var back []exchange.StreamEvent
		for n := range e {
			back = append(back, e[len(e)-1-n])
		}
		return back
	},
	"states backwards, then trades": func(e []exchange.StreamEvent) []exchange.StreamEvent {
		var states, trades []exchange.StreamEvent
		for n := range e {
			if x := e[len(e)-1-n]; x.Trade != nil {
				trades = append(trades, x)
			} else {
				states = append(states, x)
			}
		}
		return append(states, trades...)
	},
	"trades only": func(e []exchange.StreamEvent) []exchange.StreamEvent {
		var some []exchange.StreamEvent
		for _, x := range e {
			if x.Trade != nil {
				some = append(some, x)
			}
		}
		return some
	},
}

func (r *rig) tell(events []exchange.StreamEvent) {
	for _, e := range events {
		r.heard <- e
	}
}

// once checks that one order was sent, that it took off what it should, and that ledger and exchange agree.
func (r *rig) once(plan ledger.Plan, left string) {
	r.t.Helper()
	r.want(plan, ledger.Executed, "", "")
	r.wait(settled)
	r.agree()
	if q := held(r, btc); q.String() != left || len(r.hostile.orders()) != 1 {
		r.t.Errorf("%s is left after %d orders", q, len(r.hostile.orders()))
	}
	if fills := r.recorded(ledger.KindHoldPut, ledger.KindLedgerResidual); len(fills) != 0 {
		r.t.Errorf("%s: %+v", fills[0].Event.Kind(), fills[0].Event)
	}
}

// TestTheStreamSettlesTheUnknown: with every answer lost and nothing to ask, what the account's stream tells is enough.
func TestTheStreamSettlesTheUnknown(t *testing.T) {
	for name, shuffle := range shuffles {
		t.Run(name, func(t *testing.T) {
			deaf := mute()
			inBubble(t, "", func(r *rig) {
				r.wait(settled)
				id := r.propose(proposal(ledger.Partial75)).ID
				r.wait(5 * time.Second)
				r.view(func(s *ledger.State) {
					if p := s.Plans[id]; p.Outcome != ledger.OutcomeUnknown {
						r.t.Errorf("outcome %s", p.Outcome)
					}
				})
				r.tell(shuffle(r.story(ledger.ClientOrderID(id, 1, 1))))
				r.wait(10 * time.Millisecond)
				r.view(func(s *ledger.State) {
					if p := s.Plans[id]; p.Outcome != ledger.Executed {
						r.t.Errorf("after the stream: %s", p.Fate())
					}
				})
				deaf.find, deaf.since, deaf.trades = nil, nil, nil
				r.once(r.outcome(id), "0.012")
			}, consult(deaf), func(h *hostile) {
				h.place = func(_ exchange.Order, real func() exchange.Answer) exchange.Answer {
					real()
					return exchange.Answer{Outcome: exchange.Unknown, Message: "timeout"}
				}
			})
		})
	}
}

// TestAPartIsHeardToBeAll: the stream's word that an order has expired ends it, with what it filled.
func TestAPartIsHeardToBeAll(t *testing.T) {
	for name, shuffle := range shuffles {
		if name == "trades only" {
			continue // They can't tell that there will be no more.
		}
		t.Run(name, func(t *testing.T) {
			inBubble(t, "", func(r *rig) {
				r.wait(settled)
				id := r.propose(proposal(ledger.Partial75)).ID
				r.wait(5 * time.Second)
				story := r.story(ledger.ClientOrderID(id, 1, 1))
				for _, e := range story {
					if e.Order != nil {
						e.Order.Qty = ledger.MustQty("0.034")
						e.Order.Status = strings.Replace(e.Order.Status, "FILLED", "EXPIRED", 1)
						e.Order.Status = strings.Replace(e.Order.Status, "PARTIALLY_EXPIRED", "PARTIALLY_FILLED", 1)
					}
				}
				r.tell(shuffle(story))
				r.wait(10 * time.Millisecond)
				r.want(r.outcome(id), ledger.PartlyExecuted, atExecution, ledger.OrderUnfilled)
				r.wait(settled)
				r.agree()
				if q := held(r, btc); q.String() != "0.036" {
					r.t.Errorf("%s is left", q)
				}
			}, consult(mute()), func(h *hostile) {
				h.place = func(o exchange.Order, _ func() exchange.Answer) exchange.Answer {
					o.Qty = ledger.MustQty("0.01")
					h.Exchange.Place(context.Background(), o)
					return exchange.Answer{Outcome: exchange.Unknown, Message: "timeout"}
				}
			})
		})
	}
}

// TestTheStreamComesBeforeTheAnswer: whatever the answer then says, the order has executed, once, and is not sent again.
func TestTheStreamComesBeforeTheAnswer(t *testing.T) {
	answers := map[string]func(exchange.Answer) exchange.Answer{
		"placed":   func(a exchange.Answer) exchange.Answer { return a },
		"accepted": func(a exchange.Answer) exchange.Answer { a.Status, a.Executed = "NEW", ledger.Qty{}; return a },
		"unknown": func(exchange.Answer) exchange.Answer {
			return exchange.Answer{Outcome: exchange.Unknown, Message: "timeout"}
		},
		"not placed": func(exchange.Answer) exchange.Answer {
			return exchange.Answer{Outcome: exchange.NotPlaced, Code: -2022}
		},
	}
	for answer, say := range answers {
		beginnings := maps.Clone(shuffles)
		beginnings["the beginning"] = func(e []exchange.StreamEvent) []exchange.StreamEvent { return e[:1] }
		for name, shuffle := range beginnings {
			t.Run(answer+" "+name, func(t *testing.T) {
				var r *rig
				inBubble(t, "", func(rr *rig) {
					r = rr
					r.wait(settled)
					r.once(r.decide(proposal(ledger.Partial75)), "0.012")
				}, func(h *hostile) {
					h.place = func(o exchange.Order, real func() exchange.Answer) exchange.Answer {
						a := real()
						r.tell(shuffle(r.story(o.ClientOrderID)))
						<-time.After(300 * time.Millisecond)
						time.AfterFunc(100*time.Millisecond, func() { r.tell(r.story(o.ClientOrderID)) })
						return say(a)
					}
				})
			})
		}
	}
}

// TestWhatIsHeardLateChangesNothing: the story of an order that is booked already leaves no trace in the journal.
func TestWhatIsHeardLateChangesNothing(t *testing.T) {
	inBubble(t, "", func(r *rig) {
		r.wait(settled)
		plan := r.decide(proposal(ledger.Partial75))
		r.wait(settled)
		before := r.recorded(ledger.KindFillBooked, ledger.KindIntentAnswered, ledger.KindPlanEnded, ledger.KindHoldPut)
		for _, shuffle := range shuffles {
			r.tell(shuffle(r.story(plan.Orders()[0])))
		}
		r.wait(settled)
		after := r.recorded(ledger.KindFillBooked, ledger.KindIntentAnswered, ledger.KindPlanEnded, ledger.KindHoldPut)
		if len(after) != len(before) {
			r.t.Errorf("%d records became %d, the last %+v", len(before), len(after), after[len(after)-1].Event)
		}
		r.once(plan, "0.012")
	})
}

// TestAnOrderThatWasNotPlacedAndLives: an answer that was wrong stops the position before a second order is sent.
func TestAnOrderThatWasNotPlacedAndLives(t *testing.T) {
	var r *rig
	inBubble(t, "", func(rr *rig) {
		r = rr
		r.wait(settled)
		plan := r.decide(proposal(ledger.Partial75))
		r.want(plan, ledger.Failed, atExecution, ledger.HoldActive)
		r.wait(settled)
		if n := len(r.hostile.orders()); n != 1 {
			r.t.Errorf("%d orders were sent", n)
		}
		r.view(func(s *ledger.State) {
			holds := s.HoldsOn(btc)
			if !holds.Has(ledger.HoldForeignInstance) || !strings.Contains(holds[0].Evidence, plan.Orders()[0]) {
				r.t.Errorf("holds %+v", holds)
			}
		})
	}, func(h *hostile) {
		h.place = func(o exchange.Order, real func() exchange.Answer) exchange.Answer {
			real()
			time.AfterFunc(50*time.Millisecond, func() { r.tell(r.story(o.ClientOrderID)) })
			return exchange.Answer{Outcome: exchange.NotPlaced, Code: -1008, Message: "throttled"}
		}
	}, consult(mute())) // No trade tells of it either.
}

// TestTradesThatDoNotFitAreNotOurs: under our id, but too much, or the other way, or before its time.
func TestTradesThatDoNotFitAreNotOurs(t *testing.T) {
	inBubble(t, "", func(r *rig) {
		r.wait(settled)
		id := r.propose(proposal(ledger.Partial75)).ID
		r.wait(time.Second)
		sold := ledger.Trade{
			Key: btc, ID: 1 << 40, OrderID: 77, ClientOrderID: ledger.ClientOrderID(id, 1, 1), Direction: ledger.Sell, Qty: ledger.MustQty("0.01"),
			Price: ledger.MustPrice("80000"), At: time.Now(),
		}
		much, bought, early := sold, sold, sold
		much.Qty, bought.Direction, early.At = ledger.MustQty("0.035"), ledger.Buy, time.Now().Add(-time.Minute)
		for _, trade := range []ledger.Trade{much, bought, early} {
			r.tell([]exchange.StreamEvent{{Trade: &trade}})
		}
		r.wait(time.Second)
		if fills := r.recorded(ledger.KindFillBooked); len(fills) != 0 {
			r.t.Fatalf("booked %+v", fills[0].Event)
		}
		r.tell([]exchange.StreamEvent{{Trade: &sold}})
		r.wait(time.Second)
		r.view(func(s *ledger.State) {
			if i := s.Intents[sold.ClientOrderID]; i.State != ledger.Placed || i.Booked.String() != "0.01" {
				r.t.Errorf("the one that fits: %s, booked %s", i.State, i.Booked)
			}
		})
	}, consult(mute()), neverAnswers)
}
