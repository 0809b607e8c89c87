package apply

import (
	"context"
	"fmt"
	"slices"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// Heard turns what the account's stream says of an order or a trade of ours into what it proves. It may come before the
// answer to the sending, twice, late, or never: what is known already is not said again, and whatever the stream leaves
// out is looked up. The first result is the order's intent, nil where it is nobody's we know.
func Heard(s *ledger.State, e exchange.StreamEvent) (*ledger.Intent, []ledger.Event) {
	switch {
	case e.Trade != nil:
		own, _ := s.Unbooked(e.Trade.Key, []ledger.Trade{*e.Trade})
		if len(own) == 0 {
			return nil, nil
		}
		return s.Intents[own[0].ClientOrderID], s.BookOwn(own)
	case e.Order != nil:
		i := s.Intents[e.Order.ClientOrderID]
		if i == nil || older(i, e.Order) {
			return nil, nil
		}
		return i, heardOrder(s, i, e.Order)
	default:
		return nil, nil
	}
}

func heardOrder(s *ledger.State, i *ledger.Intent, o *exchange.OrderState) []ledger.Event {
	live := o.Executed.Sign() > 0 || i.Kind == ledger.CloseStep && !ledger.TerminalStatus(o.Status)
	switch {
	case !fits(i, o):
		return nil // A lookup will show the contradiction.
	case i.State == ledger.NotPlaced && live:
		return contradicted(s, i, o)
	case i.State == ledger.Standing && ledger.TerminalStatus(o.Status) && !i.Booked.Less(o.Executed):
		return []ledger.Event{&ledger.StopGone{ClientOrderID: i.ClientOrderID, Why: "the exchange says " + o.Status}}
	case !i.State.Unresolved(), i.Kind == ledger.StopStep && ledger.TerminalStatus(o.Status) && o.Executed.IsZero():
		return nil // It is over, or a stop was refused: its answer, or a lookup, tells which.
	}
	if e := found(i, o, "told of by the account's stream"); e != nil {
		return []ledger.Event{e}
	}
	return nil
}

// contradicted stops a position for which an order lives that was believed never to have been placed.
func contradicted(s *ledger.State, i *ledger.Intent, o *exchange.OrderState) []ledger.Event {
	if s.Holds[i.Key].Has(ledger.HoldForeignInstance) {
		return nil
	}
	return []ledger.Event{&ledger.HoldPut{
		Key: i.Key, Reason: ledger.HoldForeignInstance, Owner: "apply",
		Evidence: fmt.Sprintf("order %s was said not to be placed, and the account's stream tells of it as order %d: %s, executed %s", i.ClientOrderID, o.OrderID, o.Status, o.Executed),
	}}
}

// mayBeOurs tells whether an event can be about an order of ours; most of what happens on an account is not.
func mayBeOurs(e exchange.StreamEvent) bool {
	id := ""
	switch {
	case e.Order != nil:
		id = e.Order.ClientOrderID
	case e.Trade != nil:
		id = e.Trade.ClientOrderID
	}
	return id == "" || ledger.OfOurForm(id)
}

// hear takes one event of the account's stream in.
func (a *Stage) hear(hard context.Context, e exchange.StreamEvent) error {
	if !mayBeOurs(e) {
		return nil
	}
	var plan ledger.PlanID
	more := false // a lookup will tell more
	var stop ledger.Intent
	var left ledger.Qty // by a stop that is gone
	err := a.do(hard, func(s *ledger.State, _ time.Time) (st step) {
		i, events := Heard(s, e)
		if i == nil {
			return st
		}
		st.Events = events
		more = e.Order != nil && i.Booked.Less(e.Order.Executed)
		if len(events) == 1 && events[0].Kind() == ledger.KindStopGone {
			stop, left = *i, Abandoned(s, i, e.Order)
		}
		if slices.ContainsFunc(events, func(e ledger.Event) bool { return e.Kind() != ledger.KindHoldPut }) {
			plan = i.Plan
		}
		return st
	})
	if err != nil {
		return err
	}
	a.abandon(stop.Key, stop.ClientOrderID, left, stop.Epoch)
	if more { // Its trades come next; whatever does not come is asked for a little later.
		soon := a.now().Add(lookEvery)
		a.lookAt, a.standAt = earlier(a.lookAt, soon), earlier(a.standAt, soon)
	}
	if plan == "" {
		return nil
	}
	a.ask()
	return a.progress(hard, plan)
}
