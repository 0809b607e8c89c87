package apply

import (
	"permitchain/ledger"
)

// Tend keeps the stop of a position what it should be: re-placed after a change of the amount,
// gone when the position is flat or turned, and the old one gone once the new one stands.
func Tend(r Rules, s *ledger.State, pos *ledger.Position, see Sight) step {
	var st draft
	for _, id := range pos.OldStops {
		st.Effects = append(st.Effects, Effect{Cancel: &Cancel{pos.Key, id}})
	}
	stop := pos.Stop
	if stop == nil || s.UnresolvedOn(pos.Key, ledger.StopStep) != nil {
		return st.step
	}
	i := s.Intents[stop.ClientOrderID]
	p := s.Plans[i.Plan]
	switch {
	case pos.Amount.IsZero() || stop.Epoch != pos.Epoch:
		st.Effects = append(st.Effects, Effect{Cancel: &Cancel{pos.Key, stop.ClientOrderID}})
	case stop.Qty.Equal(pos.Amount.Abs()), s.UnresolvedOn(pos.Key, ledger.CloseStep) != nil, i.Booked.Sign() > 0:
	default:
		if _, _, reason := mayNotSend(s, p, ledger.StopStep); reason == "" {
			st.promise(r, p, i.Step, pos.Amount, pos.Amount.Abs(), see)
		}
	}
	return st.step
}

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
