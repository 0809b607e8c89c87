package ledger

import (
	"fmt"
	"time"
)

// Tolerance is how far exchange and ledger may differ before a permit is denied or a hold set.
// It never hides drift: any drift at all is looked up and booked.
type Tolerance struct {
	Pct Percent // of the exchange's amount
	USD USD     // at the mark
}

// Of is max(step, min(Pct of |held|, USD at the mark)). Without a mark it is the step: what can't be valued gets no slack.
func (t Tolerance) Of(lot Lot, held Qty, mark Price) Qty {
	slack := held.Abs().Of(t.Pct).Min(QtyFor(t.USD, mark, Qty{}))
	return lot.Step.Max(slack)
}

// Fresh tells whether an observation made at at is usable at now: not older than bound, and not from the future.
func Fresh(at, now time.Time, bound time.Duration) bool {
	return !at.IsZero() && !at.After(now) && now.Sub(at) <= bound
}

// SendWithin is how long after its promise an order may still be signed.
const SendWithin = time.Second

// clockSlack is how far our idea of the exchange's clock may be off: as far as the exchange itself tolerates.
const clockSlack = time.Second

// Since is the earliest instant, on the exchange's clock, at which the order that i promised can have come into
// being. What is older under its client id is a namesake, and proves nothing.
func (i *Intent) Since() time.Time { return i.SendBefore.Add(-SendWithin - clockSlack) }

// mayBe tells whether a trade can be i's, of which booked is booked already.
func (i *Intent) mayBe(t Trade, booked Qty) bool {
	return i.State != NotPlaced && t.Key == i.Key && t.Direction == i.Direction && !t.At.Before(i.Since()) && !i.Qty.Less(booked.Add(t.Qty))
}

// OrderOf is the order of ours that a trade belongs to, or nil.
func (s *State) OrderOf(t Trade) *Intent {
	if i := s.Intents[t.ClientOrderID]; i != nil {
		return i
	}
	if t.ClientOrderID != "" {
		return nil
	}
	for _, i := range s.Intents {
		if i.OrderID == t.OrderID && i.OrderID != 0 && i.Key == t.Key {
			return i
		}
	}
	return nil
}

// Unbooked are those of trades that move k and are not in its ledger yet, told apart by whose they are. What trades under an
// id of ours and can't be the order we promised, or certainly never was, is somebody else's.
func (s *State) Unbooked(k Key, trades []Trade) (own, others []Trade) {
	p, booked := s.Positions[k], map[string]Qty{}
	for _, t := range trades {
		if t.Key != k || p == nil || p.HasBooked(t.ID) {
			continue
		}
		i := s.OrderOf(t)
		if i == nil || !i.mayBe(t, i.Booked.Add(booked[i.ClientOrderID])) {
			others = append(others, t)
			continue
		}
		t.ClientOrderID = i.ClientOrderID
		booked[i.ClientOrderID] = booked[i.ClientOrderID].Add(t.Qty)
		own = append(own, t)
	}
	return own, others
}

// BookOwn are the events that add our own trades to the ledger. A trade proves that its order was placed, whatever was
// known of it before, and with the last of them that it is filled; a stop that they fill is gone with the last of them.
func (s *State) BookOwn(own []Trade) []Event {
	var events []Event
	booked, proven := map[string]Qty{}, map[string]bool{}
	for _, t := range own {
		i := s.Intents[t.ClientOrderID]
		total := i.Booked.Add(booked[i.ClientOrderID]).Add(t.Qty)
		booked[i.ClientOrderID] = booked[i.ClientOrderID].Add(t.Qty)
		switch full := total.Equal(i.Qty); {
		case proven[i.ClientOrderID]:
		case i.State == Sending, i.State == Unknown, i.State == Placed && full && !TerminalStatus(i.Status):
			proven[i.ClientOrderID] = true
			events = append(events, i.proof(own))
		}
		events = append(events, &FillBooked{Trade: t})
		if (i.State == Standing || i.Kind == StopStep && proven[i.ClientOrderID]) && total.Equal(i.Qty) {
			events = append(events, &StopGone{ClientOrderID: i.ClientOrderID, Why: "triggered and filled"})
		}
	}
	return events
}

// proof is what trades prove of their order.
func (i *Intent) proof(own []Trade) Event {
	e := &IntentAnswered{ClientOrderID: i.ClientOrderID, State: Placed, Executed: i.Booked}
	if i.Kind == StopStep {
		e.State = Standing
	}
	for _, t := range own {
		if t.ClientOrderID == i.ClientOrderID {
			e.OrderID, e.Executed = t.OrderID, e.Executed.Add(t.Qty)
		}
	}
	if !e.Executed.Less(i.Qty) {
		e.Status = "FILLED"
	}
	e.Evidence = fmt.Sprintf("trades of %s by order %d", e.Executed, e.OrderID)
	return e
}
