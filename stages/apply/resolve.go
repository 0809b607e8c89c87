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
	if traded := traded(s, i, l); traded != nil {
		return traded, nil
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

// traded is what trades prove of an order that the exchange denies to have; nil where there are none.
func traded(s *ledger.State, i *ledger.Intent, l Lookup) ledger.Event {
	own, _ := s.Unbooked(i.Key, l.Trades)
	total, id := i.Booked, i.OrderID
	for _, t := range own {
		if t.ClientOrderID == i.ClientOrderID {
			total, id = total.Add(t.Qty), t.OrderID
		}
	}
	if total.IsZero() || i.State != ledger.Unknown {
		return nil
	}
	e := &ledger.IntentAnswered{
		ClientOrderID: i.ClientOrderID, State: ledger.Placed, OrderID: id, Executed: total, Evidence: fmt.Sprintf("trades of %s by order %d", total, id),
	}
	if i.Kind == ledger.StopStep {
		e.State = ledger.Standing
	}
	if !total.Less(i.Qty) {
		e.Status = "FILLED"
	}
	return e
}

// found is what an order the exchange knows proves; nil where it proves nothing new.
func found(i *ledger.Intent, o *exchange.OrderState) ledger.Event {
	if o.Direction != i.Direction || i.Qty.Less(o.Executed) {
		return nil // Not the order that was promised: a contradiction stays unknown.
	}
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
	var moved ledger.Qty
	for _, t := range others {
		if t.ClientOrderID == "" || ledger.OfOurForm(t.ClientOrderID) {
			return fmt.Errorf("trade %d belongs to nobody we know", t.ID)
		}
		moved = moved.Add(t.Direction.Signed(t.Qty))
	}
	switch {
	case len(negatives) < negativesWanted || l.At.Sub(negatives[0]) < negativesSpan:
		return fmt.Errorf("only %d lookups found nothing", len(negatives))
	case l.Listed:
		return errors.New("the order is in the symbol's list")
	case pos == nil || see.Snapshot == nil || !see.Snapshot.SentAt.After(i.Fence):
		return errors.New("no snapshot since the fence")
	case !see.Snapshot.Of(i.Key).Amount.Sub(pos.Amount.Add(moved)).Equal(i.Exchange.Sub(i.Ledger)):
		return errors.New("position and ledger differ otherwise than before the order")
	default:
		return nil
	}
}

// Wanted are the orders to be looked up: every open one that is not merely waiting for its answer and,
// where standing says so, every stop that should stand.
func Wanted(s *ledger.State, standing bool) []*ledger.Intent {
	wanted := slices.DeleteFunc(s.Unresolved(), func(i *ledger.Intent) bool { return i.State == ledger.Sending })
	for _, pos := range Tended(s) {
		if pos.Stop != nil && standing {
			wanted = append(wanted, s.Intents[pos.Stop.ClientOrderID])
		}
	}
	return wanted
}

// Gone tells whether a lookup proves that a stop that should stand does not, and how often it was missed.
func Gone(s *ledger.State, l Lookup, negatives []time.Time) (ledger.Event, []time.Time) {
	i := s.Intents[l.ID]
	if i == nil || i.State != ledger.Standing || l.Err != nil {
		return nil, negatives
	}
	if l.Order != nil && !ledger.TerminalStatus(l.Order.Status) {
		return nil, nil
	}
	if l.Order != nil {
		return &ledger.StopGone{ClientOrderID: l.ID, Why: "the exchange says " + l.Order.Status}, nil
	}
	if negatives = append(negatives, l.At); len(negatives) < negativesWanted || l.At.Sub(negatives[0]) < negativesSpan {
		return nil, negatives // Right after it was placed an exchange may not find it.
	}
	return &ledger.StopGone{ClientOrderID: l.ID, Why: "the exchange does not have it"}, nil
}
