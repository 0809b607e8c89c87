package venue

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"permitchain/ledger"
)

// Place is a request reaching the matching engine, at once or a while after the door.
// An order that is refused is a Reject and changes nothing.
func (v *Venue) Place(now time.Time, r Request) (Change, error) {
	if now.After(r.SignedAt.Add(r.window())) {
		return Change{}, reject(-5028, "Timestamp for this request is outside of the ME recvWindow.")
	}
	b, err := v.listed(r.Symbol)
	if err != nil {
		return Change{}, err
	}
	if r.Side == ledger.AnySide {
		r.Side = ledger.Both
	}
	if err := v.sideRules(r); err != nil {
		return Change{}, err
	}
	if r.ClientOrderID == "" {
		r.ClientOrderID = fmt.Sprintf("auto_%d", b.lastID+1)
	}
	if r.Trigger.IsZero() {
		if err := v.valueRule(b, r); err != nil {
			return Change{}, err
		}
		return v.enter(now, b, r, v.odds)
	}
	if err := v.stopRules(b, r); err != nil {
		return Change{}, err
	}
	return v.did(Change{At: now, Stops: []Stop{{
		Key: ledger.Key{Symbol: r.Symbol, Side: r.Side}, AlgoID: b.lastID + 1, ClientAlgoID: r.ClientOrderID,
		Direction: r.Direction, Qty: r.Qty, Trigger: r.Trigger, ReduceOnly: r.ReduceOnly,
		Status: StatusNew, CreatedAt: now, UpdatedAt: now,
	}}}), nil
}

// enter takes an order into the book and matches it, unless its limit has to be waited for.
func (v *Venue) enter(now time.Time, b *book, r Request, odds Odds) (Change, error) {
	k := ledger.Key{Symbol: r.Symbol, Side: r.Side}
	if slices.ContainsFunc(b.orders, func(o Order) bool { return o.open() && o.ClientOrderID == r.ClientOrderID }) {
		return Change{}, reject(-4116, "ClientOrderId is duplicated.")
	}
	if b.mark.IsZero() {
		return Change{}, reject(-4131, "The counterparty's best price does not meet the PERCENT_PRICE filter limit.")
	}
	if r.reducing() {
		q, err := v.reduceRules(r, k)
		if err != nil {
			return Change{}, err
		}
		r.Qty = q
	}
	o := Order{
		Key: k, OrderID: b.lastID + 1, ClientOrderID: r.ClientOrderID, Direction: r.Direction, Qty: r.Qty,
		Limit: r.Limit, Status: StatusNew, Reducing: r.reducing(), CreatedAt: now, UpdatedAt: now,
	}
	if o.waits(b.mark) {
		return v.did(Change{At: now, Orders: []Order{o}}), nil
	}
	return v.match(now, b, o, odds), nil
}

// match fills an open order as far as luck and the position allow. What a reducing
// order can no longer take off expires: it must never open anything.
func (v *Venue) match(now time.Time, b *book, o Order, odds Odds) Change {
	take := o.Qty.Sub(o.Executed)
	end := StatusFilled
	if room := v.room(o.Key, o.Direction); o.Reducing && room.Less(take) {
		take, end, o.Expiry = room, StatusExpired, ExpiryReduce
	}
	switch {
	case b.depth != nil && b.depth.Less(take):
		take, end, o.Expiry = *b.depth, StatusExpired, ExpiryMarket
	case v.lucky(odds.Rest):
		take, end, o.Expiry = v.part(take, b.market.Lot.Step), StatusNew, 0
		if !o.Executed.Add(take).IsZero() {
			end = StatusPartiallyFilled
		}
	case v.lucky(odds.Expire):
		take, end, o.Expiry = v.part(take, b.market.Lot.Step), StatusExpired, ExpiryMarket
	}
	var trades []ledger.Trade
	id := b.lastTrade
	for i, q := range v.parts(take, b.market.Lot.Step, odds) {
		id += 1 + v.luck.Int64N(3) // Trade ids are the market's: others trade between ours.
		price := v.price(b, o.Direction, i)
		if !o.Limit.IsZero() {
			price = o.Limit
		}
		trades = append(trades, ledger.Trade{
			Key: o.Key, ID: id, OrderID: o.OrderID, ClientOrderID: o.ClientOrderID, Direction: o.Direction,
			Qty: q, Price: price, FeeUSD: ledger.Notional(q, price).Of(v.fee), At: now,
		})
	}
	o.Executed, o.Status, o.UpdatedAt = o.Executed.Add(take), end, now
	return v.did(Change{At: now, Orders: []Order{o}, Trades: trades})
}

// lucky tells whether something of the given odds happens. What never happens draws no luck.
func (v *Venue) lucky(odds float64) bool { return odds > 0 && v.luck.Float64() < odds }

// part is a quantity from 0 to less than q, on the step.
func (v *Venue) part(q, step ledger.Qty) ledger.Qty {
	return q.Of(ledger.MustPercent(strconv.Itoa(v.luck.IntN(100)))).FloorTo(step)
}

// parts are the quantities in which q trades; none of them is 0.
func (v *Venue) parts(q, step ledger.Qty, odds Odds) []ledger.Qty {
	var parts []ledger.Qty
	if v.lucky(odds.Split) {
		for range 1 + v.luck.IntN(3) {
			if p := v.part(q, step); p.Sign() > 0 {
				parts = append(parts, p)
				q = q.Sub(p)
			}
		}
	}
	if q.Sign() > 0 {
		parts = append(parts, q)
	}
	return parts
}

// price is what the taker gets: near the mark price, up to two ticks worse, and worse by one with each trade.
func (v *Venue) price(b *book, d ledger.Direction, worse int) ledger.Price {
	p, tick := b.mark.FloorTo(b.market.Tick), b.market.Tick
	if d == ledger.Sell {
		tick = tick.Neg()
	}
	for range worse + v.luck.IntN(3) {
		p = p.Add(tick)
	}
	return p.Max(b.market.Tick)
}

// Mark sets a symbol's mark price. Orders that rest are matched to their end, and
// stops that it reaches become orders.
func (v *Venue) Mark(now time.Time, symbol string, price ledger.Price) Change {
	all := Change{At: now}
	b, err := v.listed(symbol)
	if err != nil {
		return all // Where nothing is traded there is no price.
	}
	b.mark = price
	for _, o := range slices.Clone(b.orders) {
		if o.open() && (!o.waits(price) || (o.Reducing && v.room(o.Key, o.Direction).IsZero())) {
			all = all.join(v.match(now, b, o, Odds{Split: v.odds.Split, Expire: v.odds.Expire}))
		}
	}
	for _, s := range slices.Clone(b.stops) {
		if s.standing() && reached(s.Direction, s.Trigger, price) {
			all = all.join(v.trigger(now, b, s))
		}
	}
	return all
}

// trigger makes a stop the order it stands for, under the stop's client id.
func (v *Venue) trigger(now time.Time, b *book, s Stop) Change {
	c, err := v.enter(now, b, Request{
		ClientOrderID: s.ClientAlgoID, Symbol: s.Symbol, Side: s.Side, Direction: s.Direction, Qty: s.Qty, ReduceOnly: s.ReduceOnly,
	}, v.odds)
	s.Status, s.UpdatedAt = StatusRejected, now
	if err == nil {
		s.Status, s.OrderID = StatusTriggered, c.Orders[0].OrderID
	}
	return c.join(v.did(Change{At: now, Stops: []Stop{s}}))
}

// Cancel takes an open order away: the one of the id, or where that is 0 the one of the client id.
func (v *Venue) Cancel(now time.Time, symbol string, orderID int64, clientOrderID string) (Change, error) {
	b := v.books[symbol]
	if b == nil {
		return Change{}, reject(-2011, "Unknown order sent.")
	}
	for _, o := range b.orders {
		if o.open() && (o.OrderID == orderID || (orderID == 0 && o.ClientOrderID == clientOrderID)) {
			o.Status, o.UpdatedAt = StatusCanceled, now
			return v.did(Change{At: now, Orders: []Order{o}}), nil
		}
	}
	return Change{}, reject(-2011, "Unknown order sent.")
}

// CancelStop takes a standing stop away.
func (v *Venue) CancelStop(now time.Time, symbol, clientAlgoID string) (Change, error) {
	for _, s := range v.book(symbol).stops {
		if s.standing() && s.ClientAlgoID == clientAlgoID {
			s.Status, s.UpdatedAt = StatusCanceled, now
			return v.did(Change{At: now, Stops: []Stop{s}}), nil
		}
	}
	return Change{}, reject(-2011, "Unknown order sent.")
}
