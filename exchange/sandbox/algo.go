package sandbox

import (
	"math"
	"time"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

func (s *Sandbox) postAlgo(c *call) (any, error) {
	if c.params.Get("algoType") != "CONDITIONAL" {
		return nil, malformed("algoType")
	}
	if c.params.Get("type") != "STOP_MARKET" {
		return nil, venue.Reject{Code: -1116, Msg: "Invalid orderType."}
	}
	// A stop without a quantity, that closes whatever there is, is not modelled.
	if closes, err := c.flag("closePosition"); err != nil || closes {
		return nil, venue.Reject{Code: -1130, Msg: "Data sent for parameter 'closePosition' is not valid."}
	}
	r, err := s.request(c, "clientAlgoId")
	if err != nil {
		return nil, err
	}
	if r.Trigger, err = c.price("triggerPrice"); err != nil {
		return nil, err
	}
	if r.Trigger.Sign() <= 0 {
		return nil, malformed("triggerPrice")
	}
	change, lost, err := s.send(c, r)
	if err != nil {
		return nil, err
	}
	if lost {
		return answer{how: Closed}, nil
	}
	return s.algoJSON(change.Stops[0], false), nil
}

// algoJSON is a stop as the exchange tells it; a query tells of the order it became, too.
func (s *Sandbox) algoJSON(a venue.Stop, query bool) map[string]any {
	m := s.markets[a.Symbol]
	j := map[string]any{
		"algoId": a.AlgoID, "clientAlgoId": a.ClientAlgoID, "algoType": "CONDITIONAL", "orderType": "STOP_MARKET", "symbol": a.Symbol, "side": a.Direction, "positionSide": a.Side,
		"timeInForce": "GTC", "quantity": a.Qty.Padded(m.Lot.Step), "algoStatus": a.Status, "triggerPrice": a.Trigger.Padded(m.Tick), "price": "0", "icebergQuantity": nil,
		"selfTradePreventionMode": "EXPIRE_MAKER", "workingType": "MARK_PRICE", "priceMatch": "NONE", "closePosition": false, "priceProtect": false, "reduceOnly": a.ReduceOnly,
		"activatePrice": "", "callbackRate": "", "createTime": a.CreatedAt.UnixMilli(), "updateTime": a.UpdatedAt.UnixMilli(), "triggerTime": 0, "goodTillDate": 0,
	}
	if !query {
		return j
	}
	j["actualOrderId"], j["actualPrice"] = "", "0.00000"
	if a.Status == venue.StatusTriggered || a.Status == venue.StatusRejected {
		j["triggerTime"] = a.UpdatedAt.UnixMilli()
	}
	if ref := (orderRef{a.Symbol, a.OrderID}); a.OrderID != 0 {
		o := s.account.orders[ref]
		j["actualOrderId"], j["actualPrice"] = id(a.OrderID), ledger.AveragePrice(s.account.costs[ref], o.Executed).Fixed(5)
		if o.Status != venue.StatusNew && o.Status != venue.StatusPartiallyFilled {
			j["algoStatus"] = "FINISHED"
		}
	}
	return j
}

// algo finds the stop that a call names, by either id; Binance asks for no symbol.
func (s *Sandbox) algo(c *call) (found venue.Stop, err error) {
	algoID, err := c.integer("algoId", 0, 1, math.MaxInt64)
	clientID := c.params.Get("clientAlgoId")
	switch {
	case err != nil:
		return found, err
	case algoID == 0 && clientID == "":
		return found, malformed("algoId")
	}
	err = errNoOrder
	for _, symbol := range s.venue.Symbols() {
		for _, a := range s.venue.Stops(symbol, time.Time{}) {
			if a.AlgoID == algoID || (algoID == 0 && a.ClientAlgoID == clientID) {
				found, err = a, nil // The newest of a client id.
			}
		}
	}
	return found, err
}

func forgotten(now time.Time, a venue.Stop) bool {
	age := now.Sub(a.CreatedAt)
	ended := a.Status == venue.StatusCanceled || a.Status == venue.StatusRejected
	return age > forgetOrders || (ended && age > forgetUnfilled)
}

func (s *Sandbox) getAlgo(c *call) (any, error) {
	a, err := s.algo(c)
	if err != nil {
		return nil, err
	}
	if forgotten(c.now, a) || a.CreatedAt.After(s.seenFrom(c)) {
		return nil, errNoOrder
	}
	return s.algoJSON(a, true), nil
}

func (s *Sandbox) deleteAlgo(c *call) (any, error) {
	a, err := s.algo(c)
	if err != nil || a.Status != venue.StatusNew {
		return nil, venue.Reject{Code: -2011, Msg: "Unknown order sent."}
	}
	change, err := s.venue.CancelStop(c.now, a.Symbol, a.ClientAlgoID)
	if err != nil {
		return nil, err
	}
	s.commit(change)
	return map[string]any{"algoId": a.AlgoID, "clientAlgoId": a.ClientAlgoID, "code": "200", "msg": "success"}, nil
}

func (s *Sandbox) openAlgos(c *call) (any, error) {
	if _, err := s.symbol(c, true); err != nil {
		return nil, err
	}
	seen := s.seenFrom(c)
	rows := []any{}
	_, stops := s.venue.Open()
	for _, a := range stops {
		if c.wanted(a.Symbol) && !a.CreatedAt.After(seen) {
			rows = append(rows, s.algoJSON(a, true))
		}
	}
	return rows, nil
}

func (s *Sandbox) allAlgos(c *call) (any, error) {
	symbol, err := s.symbol(c, false)
	if err != nil {
		return nil, err
	}
	limit, err := c.integer("limit", 500, 1, 1000)
	if err != nil {
		return nil, err
	}
	from, err := c.integer("algoId", 0, 1, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	start, end, err := c.span()
	if err != nil {
		return nil, err
	}
	seen := s.seenFrom(c)
	var found []venue.Stop
	for _, a := range s.venue.Stops(symbol, time.Time{}) {
		if a.AlgoID >= from && within(a.CreatedAt, start, end) && !forgotten(c.now, a) && !a.CreatedAt.After(seen) {
			found = append(found, a)
		}
	}
	rows := []any{}
	for _, a := range newest(found, limit, from > 0 || c.params.Get("startTime") != "") {
		rows = append(rows, s.algoJSON(a, true))
	}
	return rows, nil
}
