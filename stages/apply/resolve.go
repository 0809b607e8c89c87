package apply

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// Lookup is what the exchange said when it was asked about one order of ours.
type Lookup struct {
	ID     string // client order id
	At     time.Time
	Order  *exchange.OrderState // nil: it says it has no such order
	Listed bool                 // though it is in the list of the symbol's orders
	Trades []ledger.Trade       // of the position, after its cursor
	Err    error                // then nothing above says anything
}

// What it takes to believe that an order was never placed.
const (
	negativesWanted = 3
	negativesSpan   = 3 * time.Second
)

// Learn turns a lookup into what it proves of an order that is unknown, or placed and not finished.
// negatives are the instants of earlier lookups, after the fence, that found nothing; it returns them with this one.
func Learn(s *ledger.State, l Lookup, negatives []time.Time, see Sight) (ledger.Event, []time.Time) {
	i := s.Intents[l.ID]
	if i == nil || !i.State.Unresolved() || l.Err != nil {
		return nil, negatives
	}
	if l.Order != nil {
		return found(i, l.Order), nil
	}
	if i.State != ledger.Unknown || l.At.Before(i.Fence) || l.At.Equal(i.Fence) {
		return nil, nil // It may still appear.
	}
	negatives = append(negatives, l.At)
	if why := doubt(s, i, l, negatives, see); why != nil {
		return nil, negatives
	}
	return &ledger.IntentAnswered{
		ClientOrderID: i.ClientOrderID, State: ledger.NotPlaced, Message: "not found after the fence",
		Evidence: fmt.Sprintf("%d lookups over %s after %s found nothing, no order listed, no trade unattributed, position agrees",
			len(negatives), l.At.Sub(negatives[0]).Round(time.Millisecond), i.Fence.UTC().Format(time.RFC3339Nano)),
	}, nil
}

// found is what an order the exchange knows proves; nil where it proves nothing new.
func found(i *ledger.Intent, o *exchange.OrderState) ledger.Event {
	e := &ledger.IntentAnswered{
		ClientOrderID: i.ClientOrderID, State: ledger.Placed, OrderID: o.OrderID, Status: o.Status, Executed: o.Executed,
		Evidence: fmt.Sprintf("order %d found by its client id: %s, executed %s", o.OrderID, o.Status, o.Executed),
	}
	if i.Kind == ledger.StopStep {
		e.State = ledger.Standing
	}
	if i.State == ledger.Placed && i.Status == o.Status && i.Executed.Equal(o.Executed) {
		return nil
	}
	return e
}

// doubt says what still speaks against "never placed", nil where nothing does. A false
// "not placed" is the one verdict that could execute twice.
func doubt(s *ledger.State, i *ledger.Intent, l Lookup, negatives []time.Time, see Sight) error {
	pos := s.Positions[i.Key]
	_, others := s.Unbooked(i.Key, l.Trades)
	switch {
	case len(negatives) < negativesWanted || l.At.Sub(negatives[0]) < negativesSpan:
		return fmt.Errorf("only %d lookups found nothing", len(negatives))
	case l.Listed:
		return errors.New("the order is in the symbol's list")
	case len(others) > 0:
		return fmt.Errorf("trade %d belongs to nobody we know", others[0].ID)
	case pos == nil || see.Snapshot == nil || !see.Snapshot.SentAt.After(i.Fence):
		return errors.New("no snapshot since the fence")
	case !see.Snapshot.Of(i.Key).Amount.Equal(pos.Amount):
		return errors.New("position and ledger differ")
	default:
		return nil
	}
}

// Wanted are the lookups that are due: every open order that is not merely waiting for its answer.
func Wanted(s *ledger.State) []*ledger.Intent {
	return slices.DeleteFunc(s.Unresolved(), func(i *ledger.Intent) bool { return i.State == ledger.Sending })
}
