package sandbox

import (
	"math"
	"slices"
	"strings"
	"time"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// What the exchange forgets.
const (
	forgetUnfilled = 3 * 24 * time.Hour
	forgetOrders   = 90 * 24 * time.Hour
	window7        = 7 * 24 * time.Hour
)

// errNoOrder is the answer to a lookup that finds nothing.
var errNoOrder error = venue.Reject{Code: -2013, Msg: "Order does not exist."}

// typeOf is an order's type, and the type it was made as.
func (s *Sandbox) typeOf(o venue.Order) (now, made string) {
	switch {
	case !o.Limit.IsZero():
		return "LIMIT", "LIMIT"
	case strings.HasPrefix(o.ClientOrderID, "autoclose-"):
		return "MARKET", "LIQUIDATION"
	case s.account.stops[orderRef{o.Symbol, o.OrderID}]:
		return "MARKET", "STOP_MARKET"
	}
	return "MARKET", "MARKET"
}

// placedJSON is an order as the answers to POST and DELETE tell it, which have had no average price since July 2026.
func (s *Sandbox) placedJSON(o venue.Order) map[string]any {
	kind, made := s.typeOf(o)
	step, tick := s.markets[o.Symbol].Lot.Step, s.markets[o.Symbol].Tick
	return map[string]any{
		"orderId": o.OrderID, "symbol": o.Symbol, "status": o.Status, "clientOrderId": o.ClientOrderID, "price": o.Limit.Padded(tick), "origQty": o.Qty.Padded(step),
		"executedQty": o.Executed.Padded(step), "cumQty": o.Executed.Padded(step), "timeInForce": "GTC", "type": kind, "reduceOnly": o.Reducing, "closePosition": false,
		"side": o.Direction, "positionSide": o.Side, "stopPrice": "0.00", "workingType": "CONTRACT_PRICE", "priceProtect": false, "origType": made, "priceMatch": "NONE",
		"selfTradePreventionMode": "EXPIRE_MAKER", "goodTillDate": 0, "updateTime": o.UpdatedAt.UnixMilli(),
	}
}

// orderJSON is an order as the queries tell it.
func (s *Sandbox) orderJSON(o venue.Order) map[string]any {
	j := s.placedJSON(o)
	delete(j, "cumQty")
	cost := s.account.costs[orderRef{o.Symbol, o.OrderID}]
	j["avgPrice"], j["cumQuote"], j["time"], j["pair"] = ledger.AveragePrice(cost, o.Executed).Fixed(5), cost.Fixed(5), o.CreatedAt.UnixMilli(), o.Symbol
	return j
}

// remembered tells whether the exchange still has an order.
func remembered(now time.Time, o venue.Order) bool {
	ended := o.Status == venue.StatusCanceled || o.Status == venue.StatusExpired
	age := now.Sub(o.CreatedAt)
	return age <= forgetOrders && !(ended && o.Executed.IsZero() && age > forgetUnfilled)
}

// seenFrom is since when orders are not found yet: never, unless a fault has lookups lag.
func (s *Sandbox) seenFrom(c *call) (since time.Time) {
	if f, lags := s.strike(c.now, c.name, c.params.Get("symbol"), LookupLag); lags {
		return c.now.Add(-f.forOr(lagDefault))
	}
	return c.now.Add(time.Hour)
}

// lookup finds the order that a call names.
func (s *Sandbox) lookup(c *call) (o venue.Order, err error) {
	symbol, err := s.symbol(c, false)
	if err != nil {
		return o, err
	}
	orderID, err := c.integer("orderId", 0, 1, math.MaxInt64)
	clientID := c.params.Get("origClientOrderId")
	switch {
	case err != nil:
		return o, err
	case orderID == 0 && clientID == "":
		return o, malformed("orderId")
	}
	o, ok := s.account.orders[orderRef{symbol, orderID}]
	if orderID == 0 {
		o, ok = s.venue.Order(symbol, clientID)
	}
	if !ok {
		return o, errNoOrder
	}
	return o, nil
}

func (s *Sandbox) getOrder(c *call) (any, error) {
	o, err := s.lookup(c)
	if clientID := c.params.Get("origClientOrderId"); clientID != "" && c.params.Get("orderId") == "" {
		if f, ok := s.strike(c.now, c.name, c.params.Get("symbol"), Namesake); ok && c.params.Get("symbol") != "" {
			return s.orderJSON(s.namesake(c, f, clientID)), nil
		}
	}
	if err != nil {
		return nil, err
	}
	if !remembered(c.now, o) || o.CreatedAt.After(s.seenFrom(c)) {
		return nil, errNoOrder
	}
	return s.orderJSON(o), nil
}

// namesake is an order of an hour ago that had the same client id.
func (s *Sandbox) namesake(c *call, f Fault, clientID string) venue.Order {
	symbol, side := c.params.Get("symbol"), ledger.Both
	if s.venue.Hedge() {
		side = ledger.Long
	}
	then := c.now.Add(-time.Hour)
	o := venue.Order{
		Key: ledger.Key{Symbol: symbol, Side: side}, OrderID: firstOrderID - 1, ClientOrderID: clientID, Direction: ledger.Sell, Qty: f.Qty, Executed: f.Qty,
		Status: venue.StatusFilled, Reducing: true, CreatedAt: then, UpdatedAt: then,
	}
	if f.Qty.IsZero() {
		o.Qty, o.Status, o.Expiry = s.markets[symbol].Lot.Min, venue.StatusExpired, venue.ExpiryMarket
	}
	return o
}

func (s *Sandbox) openOrder(c *call) (any, error) {
	o, err := s.lookup(c)
	if err == nil && o.Status != venue.StatusNew && o.Status != venue.StatusPartiallyFilled {
		err = errNoOrder
	}
	if err != nil {
		return nil, err
	}
	return s.orderJSON(o), nil
}

func (s *Sandbox) openOrders(c *call) (any, error) {
	if _, err := s.symbol(c, true); err != nil {
		return nil, err
	}
	seen := s.seenFrom(c)
	rows := []any{}
	orders, _ := s.venue.Open()
	for _, o := range orders {
		if c.wanted(o.Symbol) && !o.CreatedAt.After(seen) {
			rows = append(rows, s.orderJSON(o))
		}
	}
	return rows, nil
}

func (s *Sandbox) deleteOrder(c *call) (any, error) {
	o, err := s.lookup(c)
	if err != nil {
		return nil, venue.Reject{Code: -2011, Msg: "Unknown order sent."}
	}
	change, err := s.venue.Cancel(c.now, o.Symbol, o.OrderID, "")
	if err != nil {
		return nil, err
	}
	s.commit(change)
	return s.placedJSON(change.Orders[0]), nil
}

// span is the window of a list: at most seven days, and the last seven if nothing is said.
func (c *call) span() (start, end time.Time, err error) {
	start, end, err = c.times()
	if err != nil {
		return start, end, err
	}
	switch {
	case start.IsZero() && end.IsZero():
		start, end = c.now.Add(-window7), c.now
	case start.IsZero():
		start = end.Add(-window7)
	case end.IsZero():
		end = start.Add(window7)
	}
	if end.Before(start) || end.Sub(start) > window7 {
		return start, end, venue.Reject{Code: -4165, Msg: "Invalid time interval. Maximum time interval is 7 days."}
	}
	return start, end, nil
}

// within tells whether an instant, which is told in milliseconds, lies between two.
func within(at, start, end time.Time) bool {
	ms := at.UnixMilli()
	return ms >= start.UnixMilli() && ms <= end.UnixMilli()
}

// newest cuts a list to its limit: from its beginning where the call says where that is, else the newest.
func newest[T any](items []T, limit int64, fromStart bool) []T {
	if n := int64(len(items)); n > limit && !fromStart {
		return items[n-limit:]
	}
	return items[:min(int64(len(items)), limit)]
}

func (s *Sandbox) allOrders(c *call) (any, error) {
	symbols, err := s.symbolsOf(c)
	if err != nil {
		return nil, err
	}
	limit, err := c.integer("limit", 500, 1, 1000)
	if err != nil {
		return nil, err
	}
	from, err := c.integer("orderId", 0, 1, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	start, end, err := c.span()
	if err != nil {
		return nil, err
	}
	if from > 0 && c.params.Get("startTime") == "" && c.params.Get("endTime") == "" {
		start = time.Time{} // An id reaches back as far as the exchange remembers.
	}
	seen := s.seenFrom(c)
	var found []venue.Order
	for _, symbol := range symbols {
		for _, o := range s.venue.Orders(symbol, time.Time{}, math.MaxInt) {
			if o.OrderID >= from && within(o.CreatedAt, start, end) && remembered(c.now, o) && !o.CreatedAt.After(seen) {
				found = append(found, o)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b venue.Order) int { return a.CreatedAt.Compare(b.CreatedAt) })
	rows := []any{}
	for _, o := range newest(found, limit, from > 0 || c.params.Get("startTime") != "") {
		rows = append(rows, s.orderJSON(o))
	}
	return rows, nil
}

// userTrades pages by fromId, or by times, and never by both. A parameter of another spelling is no parameter.
func (s *Sandbox) userTrades(c *call) (any, error) {
	symbol, err := s.symbol(c, false)
	if err != nil {
		return nil, err
	}
	limit, err := c.integer("limit", 500, 1, 1000)
	if err != nil {
		return nil, err
	}
	from, err := c.integer("fromId", -1, 0, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	order, err := c.integer("orderId", 0, 1, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	timed := c.params.Get("startTime") != "" || c.params.Get("endTime") != ""
	if from >= 0 && timed {
		return nil, venue.Reject{Code: -1128, Msg: "Combination of optional parameters invalid."}
	}
	start, end, err := c.span()
	if err != nil {
		return nil, err
	}
	if from >= 0 {
		start = c.now.Add(-forgetOrders)
	}
	seen := c.now
	if f, lags := s.strike(c.now, c.name, symbol, TradesLag); lags {
		seen = seen.Add(-f.forOr(lagDefault))
	}
	var found []fill
	for _, t := range s.account.fills[symbol] {
		if t.ID >= from && (order == 0 || t.OrderID == order) && within(t.At, start, end) && c.now.Sub(t.At) <= forgetOrders && !t.At.After(seen) {
			found = append(found, t)
		}
	}
	rows := []any{}
	for _, t := range newest(found, limit, from >= 0 || c.params.Get("startTime") != "") {
		rows = append(rows, s.tradeJSON(t))
	}
	return rows, nil
}

func (s *Sandbox) tradeJSON(t fill) map[string]any {
	m := s.markets[t.Symbol]
	return map[string]any{
		"buyer": t.Direction == ledger.Buy, "commission": t.FeeUSD.Fixed(8), "commissionAsset": "USDT", "id": t.ID, "maker": false, "orderId": t.OrderID,
		"price": t.Price.Padded(m.Tick), "qty": t.Qty.Padded(m.Lot.Step), "quoteQty": ledger.Notional(t.Qty, t.Price).String(), "baseQty": t.Qty.Padded(m.Lot.Step),
		"marginAsset": "USDT", "realizedPnl": t.realized.Fixed(8), "side": t.Direction, "positionSide": t.Side, "symbol": t.Symbol, "pair": t.Symbol, "time": t.At.UnixMilli(),
	}
}
