package ledger

import "time"

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

// Unbooked are those of trades that move k and are not in its ledger yet, told apart by whose they are.
func (s *State) Unbooked(k Key, trades []Trade) (own, others []Trade) {
	p := s.Positions[k]
	for _, t := range trades {
		if t.Key != k || p == nil || p.HasBooked(t.ID) {
			continue
		}
		if i := s.OrderOf(t); i != nil && i.State != NotPlaced { // A trade of what certainly never was is nobody's we know.
			t.ClientOrderID = i.ClientOrderID
			own = append(own, t)
		} else {
			others = append(others, t)
		}
	}
	return own, others
}

// BookOwn are the events that add our own trades to the ledger. A stop that they fill is gone with the last of them.
func (s *State) BookOwn(own []Trade) []Event {
	var events []Event
	booked := map[string]Qty{}
	for _, t := range own {
		events = append(events, &FillBooked{Trade: t})
		i := s.Intents[t.ClientOrderID]
		booked[t.ClientOrderID] = booked[t.ClientOrderID].Add(t.Qty)
		if i.State == Standing && i.Booked.Add(booked[t.ClientOrderID]).Equal(i.Qty) {
			events = append(events, &StopGone{ClientOrderID: i.ClientOrderID, Why: "triggered and filled"})
		}
	}
	return events
}
