package venue

import (
	"cmp"
	"slices"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// Shown is the order in the words of the port; trigger is that of the stop which became it.
func (o Order) Shown(trigger ledger.Price) exchange.OrderState {
	return exchange.OrderState{
		ClientOrderID: o.ClientOrderID, OrderID: o.OrderID, Key: o.Key, Direction: o.Direction, Status: string(o.Status),
		Qty: o.Qty, Executed: o.Executed, Trigger: trigger, CreatedAt: o.CreatedAt,
	}
}

// Shown is the stop in the words of the port.
func (s Stop) Shown() exchange.OrderState {
	return exchange.OrderState{
		ClientOrderID: s.ClientAlgoID, OrderID: s.AlgoID, Key: s.Key, Direction: s.Direction, Status: string(s.Status),
		Qty: s.Qty, Trigger: s.Trigger, CreatedAt: s.CreatedAt,
	}
}

// Find is the newest order or stop of a client id. A stop that triggered is found as the order it became.
func (v *Venue) Find(symbol, clientOrderID string) (exchange.OrderState, bool) {
	s, isStop := v.Stop(symbol, clientOrderID)
	if isStop && s.Status != StatusTriggered {
		return s.Shown(), true
	}
	o, ok := v.Order(symbol, clientOrderID)
	return o.Shown(s.Trigger), ok
}

// Since are the orders and stops of a symbol created at or after an instant, by their ids, at most a page. Stops
// that triggered are shown as the orders they became.
func (v *Venue) Since(symbol string, since time.Time) []exchange.OrderState {
	var all []exchange.OrderState
	triggers := map[int64]ledger.Price{}
	for _, s := range v.Stops(symbol, time.Time{}) {
		if s.Status == StatusTriggered {
			triggers[s.OrderID] = s.Trigger
		} else if !s.CreatedAt.Before(since) {
			all = append(all, s.Shown())
		}
	}
	for _, o := range v.Orders(symbol, since, exchange.OrdersPage) {
		all = append(all, o.Shown(triggers[o.OrderID]))
	}
	slices.SortFunc(all, func(a, b exchange.OrderState) int { return cmp.Compare(a.OrderID, b.OrderID) })
	return all[:min(len(all), exchange.OrdersPage)]
}

// Working are the orders of all symbols that can still execute, and the stops that stand.
func (v *Venue) Working() []exchange.OrderState {
	var all []exchange.OrderState
	orders, stops := v.Open()
	for _, o := range orders {
		all = append(all, o.Shown(ledger.Price{}))
	}
	for _, s := range stops {
		all = append(all, s.Shown())
	}
	return all
}
