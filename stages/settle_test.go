package stages

import (
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/pipeline"
)

// TestSettle: the operator's evidence ends what nothing else could, and never against what the exchange shows.
func TestSettle(t *testing.T) {
	say := func(r *rig, o ledger.SettleOrder) ledger.SettleResult {
		o.Who, o.Why = "operator ann", "looked at the web page"
		request := pipeline.Ask[ledger.SettleOrder, ledger.SettleResult](o)
		r.settles <- request
		return <-request.Reply
	}
	lost := func(h *hostile) {
		h.place = func(_ exchange.Order, real func() exchange.Answer) exchange.Answer {
			real()
			return exchange.Answer{Outcome: exchange.Unknown, Message: "timeout"}
		}
	}
	refused := func(r *rig, o ledger.SettleOrder, text string) {
		r.t.Helper()
		if res := say(r, o); !strings.Contains(res.Error, text) {
			r.t.Errorf("%+v: %+v, wanted a refusal with %q", o, res, text)
		}
	}
	t.Run("not placed", func(t *testing.T) {
		// Under its id there is an older order only, so that it stays unknown for half a minute after the fence.
		x := &oracle{}
		propose := func(r *rig) (ledger.PlanID, ledger.SettleOrder) {
			p := proposal(ledger.Partial75)
			old := exchange.OrderState{ClientOrderID: ledger.ClientOrderID(p.ID(), 1, 1), Key: btc, OrderID: 1, Status: "FILLED", CreatedAt: time.Now().Add(-time.Hour)}
			x.find = func(func() (exchange.OrderState, error)) (exchange.OrderState, error) { return old, nil }
			return r.propose(p).ID, ledger.SettleOrder{ClientOrderID: old.ClientOrderID}
		}
		inBubble(t, "apply: {attempts: 1}", func(r *rig) {
			r.wait(settled)
			r.hostile.noSnapshots.Store(true)
			_, o := propose(r)
			r.wait(time.Second)
			refused(r, o, "may still appear")
			r.wait(time.Minute)
			refused(r, ledger.SettleOrder{ClientOrderID: "pc-none-1-1"}, "not on record")
			refused(r, ledger.SettleOrder{ClientOrderID: o.ClientOrderID, OrderID: 999}, "no order 999")
			refused(r, o, "no snapshot since")
		}, consult(x), neverAnswers)
		inBubble(t, "apply: {attempts: 1}", func(r *rig) {
			r.wait(settled)
			id, o := propose(r)
			r.wait(20 * time.Second)
			if res := say(r, o); res.Error != "" || res.State != ledger.NotPlaced {
				r.t.Fatalf("%+v", res)
			}
			refused(r, o, "not_placed")
			r.want(r.outcome(id), ledger.Failed, atExecution, ledger.AttemptsExhausted)
			found := false
			for _, record := range r.recorded(ledger.KindIntentAnswered) {
				e := record.Event.(*ledger.IntentAnswered)
				found = found || e.State == ledger.NotPlaced && strings.Contains(e.Evidence, "operator ann: looked at the web page")
			}
			if !found {
				r.t.Error("who said it, and why, is not on record")
			}
		}, consult(x), neverAnswers)
	})
	t.Run("not placed, says the operator, and the position has moved", func(t *testing.T) {
		x := &oracle{
			find: func(func() (exchange.OrderState, error)) (exchange.OrderState, error) {
				return exchange.OrderState{}, exchange.ErrNotFound
			},
			since:  func([]exchange.OrderState) ([]exchange.OrderState, error) { return nil, nil },
			trades: func([]ledger.Trade) ([]ledger.Trade, error) { return nil, nil },
		}
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			id := r.propose(proposal(ledger.Partial75)).ID
			r.wait(time.Minute)
			o := ledger.SettleOrder{ClientOrderID: ledger.ClientOrderID(id, 1, 1)}
			refused(r, o, "to SELL 0.034: the exchange holds 0.012, the ledger says 0.046")
			x.find, x.since, x.trades = nil, nil, nil
			r.once(r.outcome(id), "0.012")
		}, consult(x), lost)
	})
	t.Run("against what the exchange shows", func(t *testing.T) {
		x := mute()
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			id := r.propose(proposal(ledger.Partial75)).ID
			r.wait(time.Minute)
			o := ledger.SettleOrder{ClientOrderID: ledger.ClientOrderID(id, 1, 1)}
			refused(r, o, "could not be looked up")
			x.find, x.since, x.trades = nil, nil, nil
			refused(r, o, "the exchange")
			r.once(r.outcome(id), "0.012")
		}, consult(x), lost)
	})
	t.Run("by its order id", func(t *testing.T) {
		// The exchange forgot whose order it was: it is not found by its client id, and its trades bear none.
		x := &oracle{
			find: func(func() (exchange.OrderState, error)) (exchange.OrderState, error) {
				return exchange.OrderState{}, exchange.ErrNotFound
			},
			since: func([]exchange.OrderState) ([]exchange.OrderState, error) { return nil, nil },
			trades: func(real []ledger.Trade) ([]ledger.Trade, error) {
				for n := range real {
					real[n].ClientOrderID = ""
				}
				return real, nil
			},
		}
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			id := r.propose(proposal(ledger.Partial75)).ID
			r.wait(2 * time.Minute)
			o := ledger.SettleOrder{ClientOrderID: ledger.ClientOrderID(id, 1, 1)}
			refused(r, o, "belongs to nobody we know")
			real, err := r.paper.Find(r.t.Context(), btc, o.ClientOrderID)
			if err != nil {
				r.t.Fatal(err)
			}
			o.OrderID = real.OrderID
			if res := say(r, o); res.Error != "" || res.State != ledger.Placed {
				r.t.Fatalf("%+v", res)
			}
			plan := r.outcome(id)
			r.want(plan, ledger.Executed, "", "")
			r.wait(settled)
			r.agree()
		}, consult(x), lost)
	})
	t.Run("placed, and forgotten by the exchange", func(t *testing.T) {
		var loud strings.Builder
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			id := r.propose(proposal(ledger.Partial75)).ID
			r.wait(time.Minute)
			o := ledger.SettleOrder{ClientOrderID: ledger.ClientOrderID(id, 1, 1)}
			if !strings.Contains(loud.String(), "orders settle "+o.ClientOrderID) {
				r.t.Errorf("nobody was told: %s", loud.String())
			}
			refused(r, o, "was placed as order 4242")
			o.OrderID = 7
			refused(r, o, "was placed as order 4242")
			o.OrderID = 4242
			if res := say(r, o); res.Error != "" || res.State != ledger.Settled {
				r.t.Fatalf("%+v", res)
			}
			r.want(r.outcome(id), ledger.Failed, atExecution, ledger.OrderUnfilled)
			r.wait(settled)
			r.executed(proposal(ledger.FullClose))
			r.wait(settled)
			r.agree()
		}, func(h *hostile) {
			first := true
			h.log = zerolog.New(&loud)
			h.place = func(_ exchange.Order, real func() exchange.Answer) exchange.Answer {
				if first {
					first = false
					return exchange.Answer{Outcome: exchange.Placed, OrderID: 4242, Status: "NEW"}
				}
				return real()
			}
		})
	})
	t.Run("placed, and alive", func(t *testing.T) {
		x := &oracle{find: func(real func() (exchange.OrderState, error)) (exchange.OrderState, error) {
			o, err := real()
			o.Status, o.Executed = "NEW", ledger.Qty{}
			return o, err
		}, trades: func([]ledger.Trade) ([]ledger.Trade, error) { return nil, nil }}
		inBubble(t, "", func(r *rig) {
			r.wait(settled)
			id := r.propose(proposal(ledger.Partial75)).ID
			o := ledger.SettleOrder{ClientOrderID: ledger.ClientOrderID(id, 1, 1)}
			r.wait(time.Minute)
			r.view(func(s *ledger.State) { o.OrderID = s.Intents[o.ClientOrderID].OrderID })
			refused(r, o, "can still execute")
			x.find, x.trades = nil, nil
			r.want(r.outcome(id), ledger.Executed, "", "")
		}, consult(x), lost)
	})
}
