package sandbox

import (
	"regexp"
	"slices"
	"strconv"
	"time"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// number is how an amount may be written.
var number = regexp.MustCompile(`^[0-9]{1,18}(\.[0-9]{1,18})?$`)

func (c *call) qty(name string) (ledger.Qty, error) {
	text := c.params.Get(name)
	if !number.MatchString(text) {
		return ledger.Qty{}, illegal(name, text)
	}
	return ledger.ParseQty(text)
}

func (c *call) price(name string) (ledger.Price, error) {
	text := c.params.Get(name)
	if !number.MatchString(text) {
		return ledger.Price{}, illegal(name, text)
	}
	return ledger.ParsePrice(text)
}

func illegal(name, text string) error {
	if text == "" {
		return malformed(name)
	}
	return venue.Reject{Code: -1100, Msg: "Illegal characters found in parameter '" + name + "'; legal range is '^([0-9]{1,20})(\\.[0-9]{1,20})?$'."}
}

// flag is a parameter that is true or false.
func (c *call) flag(name string) (bool, error) {
	switch c.params.Get(name) {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	}
	return false, venue.Reject{Code: -1130, Msg: "Data sent for parameter '" + name + "' is not valid."}
}

// request reads what an order and a stop have in common.
func (s *Sandbox) request(c *call, clientID string) (r venue.Request, err error) {
	r = venue.Request{
		ClientOrderID: c.params.Get(clientID), Side: ledger.Side(c.params.Get("positionSide")), Direction: ledger.Direction(c.params.Get("side")),
		SignedAt: c.signedAt, RecvWindow: c.window,
	}
	if r.Symbol, err = s.symbol(c, false); err != nil {
		return r, err
	}
	if r.Direction != ledger.Buy && r.Direction != ledger.Sell {
		return r, venue.Reject{Code: -1117, Msg: "Invalid side."}
	}
	if r.Side != ledger.AnySide && !r.Side.Valid() {
		return r, venue.Reject{Code: -1130, Msg: "Data sent for parameter 'positionSide' is not valid."}
	}
	if r.ReduceOnly, err = c.flag("reduceOnly"); err != nil {
		return r, err
	}
	// In hedge mode the parameter itself is too much, whatever it says.
	if s.venue.Hedge() && c.params.Get("reduceOnly") != "" {
		return r, venue.Reject{Code: -1106, Msg: "Parameter 'reduceonly' sent when not required."}
	}
	r.Qty, err = c.qty("quantity")
	return r, err
}

func (s *Sandbox) postOrder(c *call) (any, error) {
	r, err := s.request(c, "newClientOrderId")
	if err != nil {
		return nil, err
	}
	switch kind := c.params.Get("type"); kind {
	case "MARKET":
	case "LIMIT":
		if c.params.Get("timeInForce") != "GTC" {
			return nil, malformed("timeInForce")
		}
		if r.Limit, err = c.price("price"); err != nil {
			return nil, err
		}
	case "":
		return nil, malformed("type")
	case "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET":
		return nil, venue.Reject{Code: -4120, Msg: "Order type not supported for this endpoint. Please use the Algo Order API endpoints instead."}
	default:
		return nil, venue.Reject{Code: -1116, Msg: "Invalid orderType."}
	}
	change, lost, err := s.send(c, r)
	if err != nil {
		return nil, err
	}
	if lost {
		return answer{how: Closed}, nil
	}
	o := change.Orders[0]
	if c.params.Get("newOrderRespType") != "RESULT" {
		o.Status, o.Executed = venue.StatusNew, ledger.Qty{}
	}
	return s.placedJSON(o), nil
}

// send has an order pass the door and travel to the engine. Lost tells that it is still under way and its answer is not waited for.
func (s *Sandbox) send(c *call, r venue.Request) (change venue.Change, lost bool, err error) {
	if err := s.venue.Admit(c.now, r); err != nil {
		return change, false, err
	}
	at := c.now
	switch c.fault.Kind {
	case Late:
		at = at.Add(c.fault.forOr(2 * time.Second))
	case TooLate:
		at = r.SignedAt.Add(r.RecvWindow + 10*time.Millisecond)
	default:
		change, err = s.land(c.now, c.noted, c.fault, r)
		return change, false, err
	}
	entry, fault := c.noted, c.fault
	s.late = append(s.late, landing{at, func(now time.Time) {
		_, _ = s.land(now, entry, fault, r) // Nobody waits for the answer; the log has it.
	}})
	return change, true, nil
}

// land has an order reach the engine.
func (s *Sandbox) land(now time.Time, entry *Entry, f Fault, r venue.Request) (venue.Change, error) {
	k := s.keyOf(r)
	before := holdingOf(s.venue.Holdings(), k).Amount
	s.prepare(now, f, k, r)
	c, err := s.match(now, f, r)
	entry.EngineAt = now
	if err != nil {
		if reject, ok := errCode(err); ok {
			entry.Code = reject.Code
		}
		return c, err
	}
	s.commit(c)
	if len(c.Stops) > 0 {
		entry.OrderID = c.Stops[0].AlgoID
	} else {
		entry.OrderID = c.Orders[0].OrderID
	}
	if f.Kind == Reopened && !before.IsZero() && holdingOf(s.venue.Holdings(), k).Amount.IsZero() {
		s.hand(now, k, before)
	}
	if open := len(c.Stops) > 0 || c.Orders[0].Status == venue.StatusNew || c.Orders[0].Status == venue.StatusPartiallyFilled; f.Kind == Twin && open {
		return c, venue.Reject{Code: -4116, Msg: "ClientOrderId is duplicated."}
	}
	return c, nil
}

// match has the engine take an order, under the luck that a fault brings with it.
func (s *Sandbox) match(now time.Time, f Fault, r venue.Request) (venue.Change, error) {
	switch f.Kind {
	case Twin:
		was := s.venue.SetOdds(venue.Odds{Rest: 1})
		defer s.venue.SetOdds(was)
	case PartOnly:
		depth := f.Qty
		if depth.IsZero() {
			depth = half(r.Qty, s.markets[r.Symbol].Lot.Step)
		}
		was := s.venue.Depth(r.Symbol, &depth)
		defer s.venue.Depth(r.Symbol, was)
	default: // It is the engine's own luck.
	}
	return s.venue.Place(now, r)
}

// keyOf is the position that an order is about.
func (s *Sandbox) keyOf(r venue.Request) ledger.Key {
	if r.Side == ledger.AnySide {
		r.Side = ledger.Both
	}
	return ledger.Key{Symbol: r.Symbol, Side: r.Side}
}

// prepare is what others do just before an order arrives.
func (s *Sandbox) prepare(now time.Time, f Fault, k ledger.Key, r venue.Request) {
	held := holdingOf(s.venue.Holdings(), k).Amount
	switch f.Kind {
	case FlatFirst:
		s.hand(now, k, held.Neg())
	case LessFirst:
		s.hand(now, k, s.share(f, held, k.Symbol).Neg())
	case RestFirst:
		far := ledger.MustPercent("104")
		if r.Direction == ledger.Buy {
			far = ledger.MustPercent("96")
		}
		m := s.markets[k.Symbol]
		c, err := s.venue.Place(now, venue.Request{
			Symbol: k.Symbol, Side: k.Side, Direction: r.Direction, Qty: held.Abs().Min(m.Lot.Max), ReduceOnly: !s.venue.Hedge(),
			Limit: s.venue.Price(k.Symbol).Of(far).FloorTo(m.Tick), SignedAt: now,
		})
		if err != nil {
			return // With nothing to reduce nobody has such an order.
		}
		s.commit(c)
		if f.For > 0 {
			s.late = append(s.late, landing{now.Add(f.For), func(now time.Time) { s.cancel(now, c.Orders[0]) }})
		}
	default: // Nobody does anything.
	}
}

// hand trades by hand. What the engine refuses, such as a change of nothing, does not happen.
func (s *Sandbox) hand(now time.Time, k ledger.Key, change ledger.Qty) {
	if c, err := s.venue.Trade(now, k, change); err == nil {
		s.commit(c)
	}
}

func half(q, step ledger.Qty) ledger.Qty { return q.Of(ledger.MustPercent("50")).FloorTo(step) }

// share is a fault's quantity with the sign of a position, or half of the position.
func (s *Sandbox) share(f Fault, held ledger.Qty, symbol string) ledger.Qty {
	if f.Qty.IsZero() {
		return half(held, s.markets[symbol].Lot.Step)
	}
	if held.Sign() < 0 {
		return f.Qty.Abs().Neg()
	}
	return f.Qty.Abs()
}

// meddle is what others do to the account just before a call. The caller holds the mutex.
func (s *Sandbox) meddle(now time.Time, f Fault, symbol string) {
	if f.Symbol != "" {
		symbol = f.Symbol
	}
	held := s.venue.Holdings()
	i := slices.IndexFunc(held, func(h ledger.Holding) bool { return symbol == "" || h.Symbol == symbol })
	if f.Kind == ModeFlip {
		s.flip(now)
		return
	}
	if i < 0 {
		return // There is nothing to do something to.
	}
	k, amount := held[i].Key, held[i].Amount
	switch f.Kind {
	case HandTrade:
		change := f.Qty
		if change.IsZero() {
			change = s.share(f, amount, k.Symbol).Neg()
		}
		s.hand(now, k, change)
	case Liquidate:
		if c, err := s.venue.Liquidate(now, k); err == nil {
			s.commit(c)
		}
	case ADL:
		if c, err := s.venue.Deleverage(now, k, s.share(f, amount, k.Symbol).Abs()); err == nil {
			s.commit(c)
		}
	default: // The others strike elsewhere.
	}
}

// cancel takes an order away, if it is still there.
func (s *Sandbox) cancel(now time.Time, o venue.Order) {
	if c, err := s.venue.Cancel(now, o.Symbol, o.OrderID, ""); err == nil {
		s.commit(c)
	}
}

// flip empties the account and switches its position mode.
func (s *Sandbox) flip(now time.Time) {
	orders, stops := s.venue.Open()
	for _, o := range orders {
		s.cancel(now, o)
	}
	for _, stop := range stops {
		if c, err := s.venue.CancelStop(now, stop.Symbol, stop.ClientAlgoID); err == nil {
			s.commit(c)
		}
	}
	for _, h := range s.venue.Holdings() {
		s.hand(now, h.Key, h.Amount.Neg())
	}
	if c, err := s.venue.SetHedge(now, !s.venue.Hedge()); err == nil {
		s.commit(c)
	}
}

func id(n int64) string { return strconv.FormatInt(n, 10) }
