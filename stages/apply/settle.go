package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/pipeline"
)

// Settle is the operator's evidence about an order that stays unknown.
type Settle = pipeline.Request[ledger.SettleOrder, ledger.SettleResult]

// settle looks the order up once more before the operator's word is taken for anything.
func (a *Stage) settle(hard context.Context, o Settle) error {
	var i ledger.Intent
	var cursor int64
	err := a.do(hard, func(s *ledger.State, _ time.Time) (st step) {
		if known := s.Intents[o.Value.ClientOrderID]; known != nil {
			i = *known
		}
		if pos := s.Positions[i.Key]; pos != nil {
			cursor = pos.Cursor
		}
		return st
	})
	switch {
	case err != nil:
		return err
	case i.Plan == "":
		o.Reply <- ledger.SettleResult{Error: fmt.Sprintf("order %s is not on record", o.Value.ClientOrderID)}
		return nil
	case i.State != ledger.Unknown && i.State != ledger.Placed:
		o.Reply <- ledger.SettleResult{State: i.State, Error: fmt.Sprintf("order %s is %s: only one whose outcome is not known whole can be settled", i.ClientOrderID, i.State)}
		return nil
	}
	a.looking[i.ClientOrderID] = true
	a.spawn(func() {
		l := a.lookup(hard, i, cursor, o.Value.OrderID)
		l.settle, l.was = &o, i.State
		pipeline.Send(hard, a.lookups, l)
	})
	return nil
}

// settled answers the operator once the lookup has proven what it can.
func (a *Stage) settled(hard context.Context, l Lookup) error {
	return a.do(hard, func(s *ledger.State, _ time.Time) (st step) {
		var see Sight
		if i := s.Intents[l.ID]; i != nil {
			see = a.see(i.Key.Symbol)
		}
		e, res := SettledBy(s, l, l.settle.Value, see)
		if e != nil {
			st.Events = []ledger.Event{e}
		}
		st.Effects = []Effect{{Reply: func() { l.settle.Reply <- res }}}
		return st
	})
}

// SettledBy is what the operator's evidence makes of an unknown order, or of one that was placed and whose end nothing tells,
// after the lookup l: it is refused wherever anything that the exchange shows speaks against it.
func SettledBy(s *ledger.State, l Lookup, o ledger.SettleOrder, see Sight) (ledger.Event, ledger.SettleResult) {
	i := s.Intents[l.ID]
	refused := func(format string, args ...any) (ledger.Event, ledger.SettleResult) {
		return nil, ledger.SettleResult{State: l.was, Error: fmt.Sprintf(format, args...)}
	}
	if i == nil || i.State != l.was {
		res := ledger.SettleResult{Error: "the exchange itself has just told what became of the order, which counts"}
		if i != nil {
			res.State = i.State
		}
		return nil, res
	}
	if !l.At.After(i.Fence) {
		return refused("the order may still appear until %s", i.Fence.UTC().Format(time.RFC3339))
	}
	order, _, contradiction := l.shown(i)
	if i.State == ledger.Placed {
		switch {
		case o.OrderID != i.OrderID:
			return refused("it was placed as order %d: look that one up on the exchange, and settle it by --order-id %d", i.OrderID, i.OrderID)
		case order != nil && !ledger.TerminalStatus(order.Status):
			return refused("the exchange says that order %d is %s, and can still execute", order.OrderID, order.Status)
		}
		return endedAs(i, order, o), ledger.SettleResult{State: ledger.Settled}
	}
	if o.OrderID != 0 {
		e := byOrderID(s, i, l, o)
		if e == nil {
			return refused("the exchange shows no order %d since the sending that could be it, and no trade of one", o.OrderID)
		}
		return e, ledger.SettleResult{State: e.State}
	}
	if contradiction != nil {
		return refused("%v", contradiction)
	}
	others, err := attributed(s, i, l.Trades)
	if err != nil {
		return refused("%v: if it is of this order, give its --order-id", err)
	}
	// A change that cannot be this order's speaks neither for it nor against; the operator, who has seen more, may say so.
	var change movedError
	if err := unmoved(s, i, l, others, see); err != nil && (!errors.As(err, &change) || change.couldBe(i)) {
		return refused("%v: if the order executed, give its --order-id once its trades are shown; otherwise try again", err)
	}
	return &ledger.IntentAnswered{
		ClientOrderID: i.ClientOrderID, State: ledger.NotPlaced, Message: "not placed, by the operator's evidence",
		Evidence: fmt.Sprintf("%s: %s; looked up once more: no such order, none listed, no trade unattributed, and the position has not moved as by it", o.Who, o.Why),
	}, ledger.SettleResult{State: ledger.NotPlaced}
}

// endedAs ends an order that was placed and whose rest, if there is any, nobody tells: what it executed by all that is known
// is not executed again, and what of it is not booked is drift.
func endedAs(i *ledger.Intent, order *exchange.OrderState, o ledger.SettleOrder) *ledger.IntentAnswered {
	e := &ledger.IntentAnswered{
		ClientOrderID: i.ClientOrderID, State: ledger.Settled, OrderID: i.OrderID, Status: "EXPIRED", Executed: i.Executed,
		Evidence: fmt.Sprintf("%s: it has ended with %s executed and %s booked: %s", o.Who, i.Executed, i.Booked, o.Why),
	}
	if order != nil {
		e.Status = order.Status
	} else if ledger.TerminalStatus(i.Status) {
		e.Status = i.Status
	}
	return e
}

// byOrderID is the order that the operator names, where the exchange shows it or its trades, without another's client id.
func byOrderID(s *ledger.State, i *ledger.Intent, l Lookup, o ledger.SettleOrder) *ledger.IntentAnswered {
	e := &ledger.IntentAnswered{
		ClientOrderID: i.ClientOrderID, State: ledger.Placed, OrderID: o.OrderID, Status: "EXPIRED", // After the fence an order at market has ended.
		Evidence: fmt.Sprintf("%s: it is order %d: %s", o.Who, o.OrderID, o.Why),
	}
	if i.Kind == ledger.StopStep {
		e.State = ledger.Standing
	}
	mine := func(clientOrderID string) bool { return clientOrderID == "" || clientOrderID == i.ClientOrderID }
	for _, x := range l.Listed {
		if x.OrderID == o.OrderID && mine(x.ClientOrderID) && fits(i, &x) && !older(i, &x) {
			e.Status, e.Executed = x.Status, x.Executed
			return e
		}
	}
	_, others := s.Unbooked(i.Key, l.Trades)
	for _, t := range others {
		if t.OrderID == o.OrderID && mine(t.ClientOrderID) && t.Direction == i.Direction && !t.At.Before(i.Since()) {
			e.Executed = e.Executed.Add(t.Qty)
		}
	}
	if e.Executed.IsZero() || i.Qty.Less(e.Executed) {
		return nil
	}
	return e
}
