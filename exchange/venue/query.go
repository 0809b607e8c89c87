package venue

import (
	"cmp"
	"slices"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// Hedge tells the position mode.
func (v *Venue) Hedge() bool { return v.hedge }

// Market is a symbol's rules, and whether it is traded here.
func (v *Venue) Market(symbol string) (m exchange.Market, ok bool) {
	if b := v.books[symbol]; b != nil && b.market != nil {
		return *b.market, true
	}
	return m, false
}

// Holdings are all positions that are not flat, in order of their keys.
func (v *Venue) Holdings() []ledger.Holding {
	var all []ledger.Holding
	for k, p := range v.held {
		all = append(all, ledger.Holding{Key: k, Amount: p.amount, Entry: p.entry, Liquidation: p.liquidation()})
	}
	slices.SortFunc(all, func(a, b ledger.Holding) int { return compareKeys(a.Key, b.Key) })
	return all
}

// Price is a symbol's mark price, zero where it is not known.
func (v *Venue) Price(symbol string) ledger.Price {
	if b := v.books[symbol]; b != nil {
		return b.mark
	}
	return ledger.Price{}
}

// Order is the newest order of a client id, which may have had several.
func (v *Venue) Order(symbol, clientOrderID string) (o Order, ok bool) {
	b := v.books[symbol]
	if b == nil {
		return o, false
	}
	for _, o := range slices.Backward(b.orders) {
		if o.ClientOrderID == clientOrderID {
			return o, true
		}
	}
	return o, false
}

// Orders are the orders of a symbol created at or after an instant, oldest first, at most limit.
func (v *Venue) Orders(symbol string, since time.Time, limit int) []Order {
	b := v.books[symbol]
	if b == nil {
		return nil
	}
	some := kept(b.orders, func(o Order) bool { return !o.CreatedAt.Before(since) })
	return some[:min(limit, len(some))]
}

// Stop is the newest stop of a client id.
func (v *Venue) Stop(symbol, clientAlgoID string) (s Stop, ok bool) {
	b := v.books[symbol]
	if b == nil {
		return s, false
	}
	for _, s := range slices.Backward(b.stops) {
		if s.ClientAlgoID == clientAlgoID {
			return s, true
		}
	}
	return s, false
}

// Stops are all stops of a symbol, whatever became of them, created at or after an instant, oldest first.
func (v *Venue) Stops(symbol string, since time.Time) []Stop {
	b := v.books[symbol]
	if b == nil {
		return nil
	}
	return kept(b.stops, func(s Stop) bool { return !s.CreatedAt.Before(since) })
}

// Open are the orders of all symbols that can still execute, and the stops that stand.
func (v *Venue) Open() (orders []Order, stops []Stop) {
	for _, symbol := range v.Symbols() {
		if b := v.books[symbol]; b != nil {
			orders = append(orders, kept(b.orders, Order.open)...)
			stops = append(stops, kept(b.stops, Stop.standing)...)
		}
	}
	return orders, stops
}

// Trades are the account's trades of a symbol with ids above after, in their order, at most limit.
func (v *Venue) Trades(symbol string, after int64, limit int) []ledger.Trade {
	b := v.books[symbol]
	if b == nil {
		return nil
	}
	i, _ := slices.BinarySearchFunc(b.trades, after+1, func(t ledger.Trade, id int64) int { return cmp.Compare(t.ID, id) })
	return slices.Clone(b.trades[i:min(len(b.trades), i+limit)])
}

// LastTradeID is the id of the account's newest trade of a symbol, 0 where there is none.
func (v *Venue) LastTradeID(symbol string) int64 {
	if b := v.books[symbol]; b != nil {
		return b.lastTrade
	}
	return 0
}
