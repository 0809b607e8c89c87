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
	Order  *exchange.OrderState  // what it finds under that id; nil: it says it has no such order
	Listed []exchange.OrderState // of the symbol's orders since the sending, those under that id or the operator's order id
	Trades []ledger.Trade        // of the position, after its cursor
	Err    error                 // then nothing above says anything

	settle *Settle            // the operator waits for it
	was    ledger.IntentState // what it was when the operator spoke
}

// Finding is what a lookup comes to.
type Finding struct {
	Event     ledger.Event
	Negatives []time.Time // lookups after the fence that found nothing, this one among them
	Doubt     error       // why an order stays unknown though it can't appear any more
}

// What it takes to believe that an order was never placed. Under an id that an older order bears too, the exchange can't be
// asked for ours: its list of orders has to be empty of it for longer.
const (
	negativesWanted = 3
	negativesSpan   = 3 * time.Second
	namesakeSpan    = 30 * time.Second
	negativesKept   = 64
)

// Learn turns a lookup into what it proves of an order that is unknown, or placed and not finished.
// negatives are the instants of earlier lookups, after the fence, that found nothing.
func Learn(s *ledger.State, l Lookup, negatives []time.Time, see Sight) Finding {
	i := s.Intents[l.ID]
	if i == nil || !i.State.Unresolved() || l.Err != nil {
		return Finding{Negatives: negatives}
	}
	own, _ := s.Unbooked(i.Key, l.Trades)
	traded := slices.ContainsFunc(own, func(t ledger.Trade) bool { return t.ClientOrderID == i.ClientOrderID })
	order, namesake, contradiction := l.shown(i)
	switch {
	case order != nil:
		return Finding{Event: found(i, order, "found by its client id"), Doubt: untold(i, l, traded)}
	case contradiction != nil:
		return Finding{Doubt: contradiction}
	case traded || i.State != ledger.Unknown || !l.At.After(i.Fence):
		return Finding{Doubt: untold(i, l, traded)} // Booking its trades proves it, or it may still appear.
	}
	negatives = append(negatives[:min(len(negatives), negativesKept)], l.At)
	span := negativesSpan
	if namesake {
		span = namesakeSpan
	}
	if why := doubt(s, i, l, negatives, span, see); why != nil {
		return Finding{Negatives: negatives, Doubt: why}
	}
	evidence := fmt.Sprintf("%d lookups over %s after %s found nothing, no order listed, no trade unattributed, position agrees",
		len(negatives), l.At.Sub(negatives[0]).Round(time.Millisecond), i.Fence.UTC().Format(time.RFC3339Nano))
	if namesake {
		evidence += "; under its id there is only an older order"
	}
	return Finding{Event: &ledger.IntentAnswered{
		ClientOrderID: i.ClientOrderID, State: ledger.NotPlaced, Message: "not found after the fence", Evidence: evidence,
	}}
}

// untold says of an order that was placed that its end, or its trades, are long overdue; nil where they are not.
func untold(i *ledger.Intent, l Lookup, traded bool) error {
	if i.State != ledger.Placed || traded || !l.At.After(i.Fence) {
		return nil
	}
	return fmt.Errorf("it was placed as order %d, is %s by what is known and executed %s, and trades of only %s are told", i.OrderID, i.Status, i.Executed, i.Booked)
}

// shown is the order that a lookup shows to be the one that i promised. An older namesake is not, and proves nothing;
// what came into being since and is another order under the same id is a contradiction.
func (l Lookup) shown(i *ledger.Intent) (order *exchange.OrderState, namesake bool, contradiction error) {
	all := l.Listed
	if l.Order != nil {
		all = append([]exchange.OrderState{*l.Order}, all...)
	}
	for n := range all {
		switch o := &all[n]; {
		case o.ClientOrderID != i.ClientOrderID:
		case older(i, o):
			namesake = true
		case !fits(i, o):
			contradiction = fmt.Errorf("order %d has its client id and is not what was promised: %s %s of %s, executed %s", o.OrderID, o.Direction, o.Qty, o.Key, o.Executed)
		case order == nil:
			order = o
		}
	}
	return order, namesake, contradiction
}

// older tells whether an order came into being before the one that i promised could. An instant that is not told, as on the
// account's stream, is now.
func older(i *ledger.Intent, o *exchange.OrderState) bool {
	return !o.CreatedAt.IsZero() && o.CreatedAt.Before(i.Since())
}

// fits tells whether an order can be the one that i promised; an exchange may shrink it.
func fits(i *ledger.Intent, o *exchange.OrderState) bool {
	return o.Key == i.Key && o.Direction == i.Direction && !i.Qty.Less(o.Qty) && !i.Qty.Less(o.Executed)
}

// tells whether a status says more of an order that is placed than is known: what comes twice, or late, does not.
func tells(i *ledger.Intent, status string, executed ledger.Qty) bool {
	if executed.Less(i.Executed) || ledger.TerminalStatus(i.Status) && !ledger.TerminalStatus(status) {
		return false
	}
	return i.Executed.Less(executed) || i.Status != status
}

// found is what an order of ours that the exchange shows proves; nil where it proves nothing new.
func found(i *ledger.Intent, o *exchange.OrderState, how string) ledger.Event {
	if i.State == ledger.Placed && !tells(i, o.Status, o.Executed) {
		return nil
	}
	e := &ledger.IntentAnswered{
		ClientOrderID: i.ClientOrderID, State: ledger.Placed, OrderID: o.OrderID, Status: o.Status, Executed: o.Executed,
		Evidence: fmt.Sprintf("order %d %s: %s, executed %s", o.OrderID, how, o.Status, o.Executed),
	}
	switch {
	case i.Kind != ledger.StopStep:
	case ledger.TerminalStatus(o.Status) && o.Executed.IsZero(): // It has ended and done nothing: the one before it must not make room for it.
		e.State, e.Message = ledger.NotPlaced, "the exchange says "+o.Status
	default:
		e.State = ledger.Standing
	}
	return e
}

// doubt says what still speaks against "never placed", nil where nothing does. A false
// "not placed" is the one verdict that could execute twice.
func doubt(s *ledger.State, i *ledger.Intent, l Lookup, negatives []time.Time, span time.Duration, see Sight) error {
	moved, err := attributed(s, i, l.Trades)
	switch {
	case err != nil:
		return err
	case len(negatives) < negativesWanted || l.At.Sub(negatives[0]) < span:
		return fmt.Errorf("only %d lookups found nothing", len(negatives))
	default:
		return unmoved(s, i, l, moved, see)
	}
}

// unmoved is nil where a snapshot since the fence differs from the ledger as it did before i was sent. others is what trades
// of others that are not booked did.
func unmoved(s *ledger.State, i *ledger.Intent, l Lookup, others ledger.Qty, see Sight) error {
	pos := s.Positions[i.Key]
	if pos == nil || see.Snapshot == nil || !see.Snapshot.SentAt.After(i.Fence) {
		return errors.New("no snapshot since the fence")
	}
	held, before := see.Snapshot.Of(i.Key).Amount, drift(s, i, l.Trades)
	// Where they agree to the last digit nothing has executed that is not booked, also where the snapshot before the
	// order was behind and they had seemed to differ.
	// Nor where the position is what it was when the order was promised, but for what others have traded since: of a
	// forced close the ledger may have known nothing.
	unchanged := held.Equal(i.Exchange.Add(since(s, i, l.Trades)))
	if now := held.Sub(pos.Amount.Add(others)); !now.IsZero() && !now.Equal(before) && !unchanged {
		return movedError{now.Sub(before), fmt.Sprintf("position and ledger differ otherwise than before the order to %s %s: the exchange holds %s, the ledger says %s, trades of others explain %s; they differ by %s, and differed by %s",
			i.Direction, i.Qty, held, pos.Amount, others, now, before)}
	}
	return nil
}

// movedError tells that a position has changed by something that nothing explains.
type movedError struct {
	by   ledger.Qty
	text string
}

func (e movedError) Error() string { return e.text }

// couldBe tells whether the change could be an order's, whole or in part.
func (e movedError) couldBe(i *ledger.Intent) bool {
	return e.by.Sign() == i.Direction.Signed(i.Qty).Sign() && !i.Qty.Less(e.by.Abs())
}

// since is what trades of others that are not booked did to the position after i was promised.
func since(s *ledger.State, i *ledger.Intent, trades []ledger.Trade) (moved ledger.Qty) {
	_, others := s.Unbooked(i.Key, trades)
	for _, t := range others {
		if !t.At.Before(i.SendBefore.Add(-ledger.SendWithin)) {
			moved = moved.Add(t.Direction.Signed(t.Qty))
		}
	}
	return moved
}

// drift is by how much position and ledger differed when i was promised, without what trades of others have explained since:
// those that had happened and were not booked yet.
func drift(s *ledger.State, i *ledger.Intent, trades []ledger.Trade) ledger.Qty {
	differed, explained := i.Exchange.Sub(i.Ledger), ledger.Qty{}
	_, others := s.Unbooked(i.Key, trades)
	for _, t := range others {
		if !t.At.Before(i.SendBefore.Add(-ledger.SendWithin)) {
			break
		}
		if explained = explained.Add(t.Direction.Signed(t.Qty)); explained.Equal(differed) {
			return ledger.Qty{}
		}
	}
	return differed
}

// attributed is what trades of others, all of them surely not of the order in doubt, did to its position.
func attributed(s *ledger.State, i *ledger.Intent, trades []ledger.Trade) (moved ledger.Qty, err error) {
	_, others := s.Unbooked(i.Key, trades)
	for _, t := range others {
		if t.ClientOrderID == "" || ledger.OfOurForm(t.ClientOrderID) {
			return moved, fmt.Errorf("trade %d of order %d (%q) belongs to nobody we know", t.ID, t.OrderID, t.ClientOrderID)
		}
		moved = moved.Add(t.Direction.Signed(t.Qty))
	}
	return moved, nil
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
	order, _, contradiction := l.shown(i)
	switch {
	case contradiction != nil, order != nil && !ledger.TerminalStatus(order.Status):
		return nil, nil
	case order != nil:
		return &ledger.StopGone{ClientOrderID: l.ID, Why: "the exchange says " + order.Status}, nil
	}
	if negatives = append(negatives, l.At); len(negatives) < negativesWanted || l.At.Sub(negatives[0]) < negativesSpan {
		return nil, negatives // Right after it was placed an exchange may not find it.
	}
	return &ledger.StopGone{ClientOrderID: l.ID, Why: "the exchange does not have it"}, nil
}
