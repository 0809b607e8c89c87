package apply

import (
	"time"

	"permitchain/ledger"
)

// Tend keeps the stop of a position what it should be: re-placed after a change of the amount,
// gone when the position is flat or turned, and the old one gone once the new one stands.
func Tend(r Rules, s *ledger.State, pos *ledger.Position, see Sight, now time.Time) step {
	st := draft{seen: see.of(pos.Key)}
	for _, id := range pos.OldStops {
		st.Effects = append(st.Effects, Effect{Cancel: &Cancel{pos.Key, id}})
	}
	stop := pos.Stop
	if stop == nil || s.UnresolvedOn(pos.Key, ledger.StopStep) != nil {
		return st.step
	}
	i := s.Intents[stop.ClientOrderID]
	p := s.Plans[i.Plan]
	want := stopQty(see.Lot, pos.Amount)
	switch {
	// Flat, another life, or across zero: an order of ours may have taken off more than the ledger knew of.
	case pos.Amount.Sign()*i.Exchange.Sign() <= 0 || stop.Epoch != pos.Epoch:
		st.Effects = append(st.Effects, Effect{Cancel: &Cancel{pos.Key, stop.ClientOrderID}})
	case want.Sign() <= 0: // Dust, which no order can be for: the stop that stands covers it.
	case stop.Qty.Equal(want), passed(stop, pos, see), s.UnresolvedOn(pos.Key, ledger.CloseStep) != nil, i.Booked.Sign() > 0:
	case now.Before(retryStop(r, s, &p.Steps[i.Step], want)):
	default:
		if _, _, reason := mayNotSend(s, p, ledger.StopStep); reason == "" {
			st.promise(r, s, p, i.Step, pos.Amount, want, see)
		}
	}
	return st.step
}

// passed tells whether the mark price is beyond the stop: it is about to trigger, and a new one would be refused.
func passed(stop *ledger.Stop, pos *ledger.Position, see Sight) bool {
	return ledger.Holding{Amount: pos.Amount}.Useless(stop.Trigger, see.Mark) == ledger.StopWouldTrigger
}

// stopQty is what a stop covers: the position, or as much of it as one order may be.
func stopQty(lot ledger.Lot, amount ledger.Qty) ledger.Qty {
	if lot.Max.Sign() > 0 {
		amount = amount.Abs().Min(lot.Max)
	}
	return amount.Abs().FloorTo(lot.Step)
}

// retryStop is when a stop over this quantity may be sent again: refusals are answered by waiting, ever
// longer, and after as many as one close may have, the next try is for another quantity.
func retryStop(r Rules, s *ledger.State, sp *ledger.Step, want ledger.Qty) time.Time {
	refused := 0
	var last time.Time
	for n := len(sp.Orders) - 1; n >= 0; n-- {
		i := s.Intents[sp.Orders[n]]
		if i.State != ledger.NotPlaced || !i.Qty.Equal(want) {
			break
		}
		if refused++; refused == 1 {
			last = i.AnsweredAt
		}
	}
	switch {
	case refused == 0:
		return time.Time{}
	case refused >= r.Attempts:
		return last.Add(never)
	default:
		return last.Add(restDelays[min(refused, len(restDelays))-1] * retrySlower)
	}
}

// A refused stop waits some seconds where a close would wait tenths; given up, it waits beyond the age of any position.
const (
	retrySlower = 10
	never       = 100 * 365 * 24 * time.Hour
)

// Tended are the positions whose stops may need something done.
func Tended(s *ledger.State) []*ledger.Position {
	var tended []*ledger.Position
	for _, k := range s.Keys() {
		if pos := s.Positions[k]; pos.Stop != nil || len(pos.OldStops) > 0 {
			tended = append(tended, pos)
		}
	}
	return tended
}
