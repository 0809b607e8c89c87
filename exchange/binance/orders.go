package binance

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/adshao/go-binance/v2/futures"

	"permitchain/exchange"
	"permitchain/ledger"
)

// clientID is what Binance takes as a client order id.
var clientID = regexp.MustCompile(`^[.A-Z:/a-z0-9_-]{1,36}$`)

// Place implements exchange.Exchange.
func (b *Binance) Place(ctx context.Context, o exchange.Order) exchange.Answer {
	if err := b.mayPlace(ctx, o); err != nil {
		return exchange.Answer{Outcome: exchange.NotPlaced, Message: err.Error()}
	}
	c := &call{what: "POST /fapi/v1/order", order: true, sendBefore: o.SendBefore}
	send, read := b.market(o), placedOrder
	if !o.Trigger.IsZero() {
		c.what, send, read = "POST /fapi/v1/algoOrder", b.stopMarket(o), placedStop
	}
	if e := b.do(ctx, c, send); e != nil {
		v := e.verdict()
		a := exchange.Answer{Outcome: v.outcome, Code: e.Code, Message: e.Error(), RateLimited: v.limited}
		if v.outcome == exchange.NotPlaced && e.Code != 0 {
			a.Message = e.Message // The exchange's own words say it best.
		}
		return a
	}
	a, err := read(fieldsOf(c.body), o)
	if err != nil {
		return exchange.Answer{Outcome: exchange.Unknown, Message: fmt.Sprintf("%s: the answer is not this order's: %s", c.what, hide(err.Error()))}
	}
	if o.Trigger.IsZero() {
		b.owners.put(o.Key.Symbol, a.OrderID, o.ClientOrderID)
	}
	return a
}

// mayPlace says why an order may not be signed, nil where it may.
func (b *Binance) mayPlace(ctx context.Context, o exchange.Order) error {
	reading := b.reading.Load()
	switch {
	case b.opt.ReadOnly:
		return errReadOnly
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !clientID.MatchString(o.ClientOrderID) || o.Key.Symbol == "" || o.Qty.Sign() <= 0 || o.Trigger.Sign() < 0 || o.SendBefore.IsZero():
		return errors.New("the order is not complete")
	case !o.Key.Side.Valid() || !reduces(o.Key.Side, o.Direction):
		return fmt.Errorf("a %s of %s would not surely reduce", o.Direction, o.Key)
	case reading == nil || reading.doubt() > clockDoubt:
		b.doubtClock()
		return errClock
	case !b.Now().Before(o.SendBefore):
		return errLate
	default:
		return nil
	}
}

var errReadOnly = errors.New("this process only reads")

// reduces tells whether a direction can only take off a position: in one-way mode reduceOnly sees to that.
func reduces(side ledger.Side, d ledger.Direction) bool {
	switch side {
	case ledger.Long:
		return d == ledger.Sell
	case ledger.Short:
		return d == ledger.Buy
	default:
		return d == ledger.Buy || d == ledger.Sell
	}
}

func (b *Binance) market(o exchange.Order) func(context.Context, *futures.Client) error {
	return func(ctx context.Context, f *futures.Client) error {
		s := f.NewCreateOrderService().Symbol(o.Key.Symbol).Side(futures.SideType(o.Direction)).Type(futures.OrderTypeMarket).
			Quantity(o.Qty.String()).NewClientOrderID(o.ClientOrderID).NewOrderResponseType(futures.NewOrderRespTypeRESULT)
		if o.Key.Side == ledger.Both {
			s = s.ReduceOnly(true)
		} else {
			s = s.PositionSide(futures.PositionSideType(o.Key.Side)) // There reduceOnly is an error, and the side says it.
		}
		_, err := s.Do(ctx, b.window())
		return err
	}
}

// window is how late an order may begin to execute.
func (b *Binance) window() futures.RequestOption {
	return futures.WithRecvWindow(b.opt.RecvWindow.Milliseconds())
}

// placedOrder reads the answer to an order at market: it is this one's, to the last field, or an error. Of a
// reduce-only order the exchange may have cut the quantity.
func placedOrder(f *fields, o exchange.Order) (exchange.Answer, error) {
	s, _ := orderRow(f)
	switch {
	case f.err != nil:
		return exchange.Answer{}, f.err
	case s.ClientOrderID != o.ClientOrderID || s.Key != o.Key || s.Direction != o.Direction:
		return exchange.Answer{}, fmt.Errorf("it speaks of %s, a %s of %s", clip(s.ClientOrderID), s.Direction, s.Key)
	case s.Qty.Sign() <= 0 || o.Qty.Less(s.Qty):
		return exchange.Answer{}, fmt.Errorf("its quantity is %s", s.Qty)
	}
	return exchange.Answer{Outcome: exchange.Placed, OrderID: s.OrderID, Status: s.Status, Executed: s.Executed}, nil
}

// orderRow reads an order, and its original type. Answers to a sending have no time.
func orderRow(f *fields) (exchange.OrderState, string) {
	s := exchange.OrderState{
		ClientOrderID: f.text("clientOrderId"), OrderID: f.integer("orderId"), Key: keyRow(f), Direction: f.direction("side"),
		Status: f.text("status"), Qty: f.qty("origQty"), Executed: f.qty("executedQty"),
	}
	if f.has("time") {
		s.CreatedAt = f.at("time")
	}
	if f.has("stopPrice") && f.number("stopPrice") != "" {
		s.Trigger = f.price("stopPrice")
	}
	kind := ""
	if f.has("origType") {
		kind = f.text("origType")
	}
	if s.OrderID <= 0 || s.Status == "" || s.Executed.Sign() < 0 || s.Qty.Less(s.Executed) {
		f.fail("it is no order")
	}
	return s, kind
}

func keyRow(f *fields) ledger.Key {
	k := ledger.Key{Symbol: f.text("symbol"), Side: ledger.Side(f.text("positionSide"))}
	if k.Symbol == "" || !k.Side.Valid() {
		f.fail("it names no position")
	}
	return k
}

// Find implements exchange.Exchange. A stop that triggered is found as the order it became, under the stop's id.
func (b *Binance) Find(ctx context.Context, k ledger.Key, clientOrderID string) (exchange.OrderState, error) {
	if ledger.OfStopForm(clientOrderID) {
		return b.findStop(ctx, k, clientOrderID)
	}
	s, _, err := b.order(ctx, k.Symbol, func(s *futures.GetOrderService) { s.OrigClientOrderID(clientOrderID) })
	if err != nil {
		return s, err
	}
	if s.ClientOrderID != clientOrderID {
		return exchange.OrderState{}, fmt.Errorf("look up order %s: the answer speaks of %s", clientOrderID, clip(s.ClientOrderID))
	}
	b.owners.put(k.Symbol, s.OrderID, clientOrderID)
	return s, nil
}

// order looks one order up, and its original type.
func (b *Binance) order(ctx context.Context, symbol string, by func(*futures.GetOrderService)) (exchange.OrderState, string, error) {
	c := &call{what: "GET /fapi/v1/order", weight: 1, essential: true}
	e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) error {
		s := f.NewGetOrderService().Symbol(symbol)
		by(s)
		_, err := s.Do(ctx, b.window())
		return err
	})
	if e != nil {
		return exchange.OrderState{}, "", fmt.Errorf("look up an order: %w", e)
	}
	f := fieldsOf(c.body)
	s, kind := orderRow(f)
	if s.CreatedAt.IsZero() || s.Key.Symbol != symbol {
		f.fail("it is not of %s, or says no time", symbol)
	}
	if f.err != nil {
		return exchange.OrderState{}, "", fmt.Errorf("look up an order: %w", f.err)
	}
	return s, kind, nil
}

// Lists of orders: a query may span less than seven days, and orders are kept for ninety.
const (
	listSpan = 7*24*time.Hour - time.Minute
	listAge  = 90 * 24 * time.Hour
)

// OrdersSince implements exchange.Exchange. Stops are under their own ids, those that triggered as the orders they became.
func (b *Binance) OrdersSince(ctx context.Context, symbol string, since time.Time) ([]exchange.OrderState, error) {
	now := b.Now()
	if oldest := now.Add(-listAge); since.Before(oldest) {
		since = oldest
	}
	var orders []exchange.OrderState
	var stops []stopRow
	for from := since; len(orders) < exchange.OrdersPage && !from.After(now); from = from.Add(listSpan) {
		until := from.Add(listSpan - time.Millisecond)
		some, err := b.ordersIn(ctx, symbol, from, until)
		if err != nil {
			return nil, err
		}
		more, err := b.stopsIn(ctx, symbol, from, until)
		if err != nil {
			return nil, err
		}
		orders, stops = append(orders, some...), append(stops, more...)
	}
	all := b.merge(symbol, orders, stops)
	all = slices.DeleteFunc(all, func(s exchange.OrderState) bool { return s.CreatedAt.Before(since.Truncate(time.Millisecond)) })
	slices.SortStableFunc(all, func(x, y exchange.OrderState) int { return x.CreatedAt.Compare(y.CreatedAt) })
	return all[:min(len(all), exchange.OrdersPage)], nil
}

// merge puts stops among orders: one that triggered gives its id and trigger to the order it became.
func (b *Binance) merge(symbol string, orders []exchange.OrderState, stops []stopRow) []exchange.OrderState {
	became := map[int64]stopRow{}
	var all []exchange.OrderState
	for _, s := range stops {
		if s.orderID == 0 {
			all = append(all, s.OrderState)
			continue
		}
		became[s.orderID] = s
		b.owners.put(symbol, s.orderID, s.ClientOrderID)
	}
	for _, o := range orders {
		if s, ok := became[o.OrderID]; ok {
			o.ClientOrderID, o.Trigger = s.ClientOrderID, s.Trigger
		} else if id, ok := b.owners.of(symbol, o.OrderID); ok {
			o.ClientOrderID = id
		}
		delete(became, o.OrderID)
		all = append(all, o)
	}
	for _, s := range became { // The order it became is not in the list yet, or too old for it.
		all = append(all, s.OrderState)
	}
	return all
}

// ordersIn are all orders of a symbol created in a span of time. Where an answer is full the span is halved, because
// nobody documents which end of it a full answer leaves out.
func (b *Binance) ordersIn(ctx context.Context, symbol string, from, until time.Time) ([]exchange.OrderState, error) {
	return halving(from, until, func(from, until time.Time) ([]exchange.OrderState, error) {
		rows, err := b.orderRows(ctx, symbol, func(s *futures.ListOrdersService) { s.StartTime(from.UnixMilli()).EndTime(until.UnixMilli()) })
		all := make([]exchange.OrderState, 0, len(rows))
		for _, r := range rows {
			all = append(all, r.OrderState)
		}
		return all, err
	})
}

// halving asks for a span, and for its halves where the answer is full.
func halving[T any](from, until time.Time, ask func(from, until time.Time) ([]T, error)) ([]T, error) {
	rows, err := ask(from, until)
	if err != nil || len(rows) < exchange.OrdersPage {
		return rows, err
	}
	middle := from.Add(until.Sub(from) / 2).Truncate(time.Millisecond)
	if !from.Before(middle) || !middle.Before(until) {
		return nil, fmt.Errorf("list orders: more than %d in one millisecond", len(rows))
	}
	first, err := halving(from, middle, ask)
	if err != nil || len(first) >= exchange.OrdersPage {
		return first, err
	}
	second, err := halving(middle.Add(time.Millisecond), until, ask)
	return append(first, second...), err
}

// orderKind is an order and its original type.
type orderKind struct {
	exchange.OrderState
	kind string
}

// orderRows is one page of a symbol's orders.
func (b *Binance) orderRows(ctx context.Context, symbol string, by func(*futures.ListOrdersService)) ([]orderKind, error) {
	c := &call{what: "GET /fapi/v1/allOrders", weight: 5, essential: true, list: true}
	e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) error {
		s := f.NewListOrdersService().Symbol(symbol).Limit(exchange.OrdersPage)
		by(s)
		_, err := s.Do(ctx, b.window())
		return err
	})
	if e != nil {
		return nil, fmt.Errorf("list orders: %w", e)
	}
	rows, err := rowsOf(c.body, func(f *fields) orderKind {
		s, kind := orderRow(f)
		if s.CreatedAt.IsZero() || s.Key.Symbol != symbol {
			f.fail("it is not of %s, or says no time", symbol)
		}
		return orderKind{s, kind}
	})
	if err != nil {
		return nil, fmt.Errorf("list orders: %w", err)
	}
	return rows, nil
}

// OpenOrders implements exchange.Exchange.
func (b *Binance) OpenOrders(ctx context.Context) ([]exchange.OrderState, error) {
	c := &call{what: "GET /fapi/v1/openOrders", weight: 40, list: true}
	e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) error {
		_, err := f.NewListOpenOrdersService().Do(ctx, b.window())
		return err
	})
	if e != nil {
		return nil, fmt.Errorf("list open orders: %w", e)
	}
	all, err := rowsOf(c.body, func(f *fields) exchange.OrderState {
		s, _ := orderRow(f)
		return s
	})
	if err != nil {
		return nil, fmt.Errorf("list open orders: %w", err)
	}
	stops, err := b.openStops(ctx)
	return append(all, stops...), err
}
