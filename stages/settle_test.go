package stages

import (
	"strings"
	"testing"
	"time"

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
		inBubble(t, "apply: {attempts: 1}", func(r *rig) {
			r.wait(settled)
			r.hostile.noSnapshots.Store(true) // Without a snapshot after the fence nothing is concluded.
			id := r.propose(proposal(ledger.Partial75)).ID
			o := ledger.SettleOrder{ClientOrderID: ledger.ClientOrderID(id, 1, 1)}
			r.wait(time.Second)
			refused(r, o, "may still appear")
			r.wait(time.Minute)
			refused(r, ledger.SettleOrder{ClientOrderID: "pc-none-1-1"}, "not on record")
			refused(r, ledger.SettleOrder{ClientOrderID: o.ClientOrderID, OrderID: 999}, "no order 999")
			if res := say(r, o); res.Error != "" || res.State != ledger.NotPlaced {
				r.t.Fatalf("%+v", res)
			}
			refused(r, o, "not_placed")
			r.hostile.noSnapshots.Store(false)
			r.want(r.outcome(id), ledger.Failed, atExecution, ledger.AttemptsExhausted)
			found := false
			for _, record := range r.recorded(ledger.KindIntentAnswered) {
				e := record.Event.(*ledger.IntentAnswered)
				found = found || e.State == ledger.NotPlaced && strings.Contains(e.Evidence, "operator ann: looked at the web page")
			}
			if !found {
				r.t.Error("who said it, and why, is not on record")
			}
		}, neverAnswers)
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
}
