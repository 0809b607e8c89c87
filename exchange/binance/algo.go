package binance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/adshao/go-binance/v2/futures"

	"permitchain/exchange"
	"permitchain/ledger"
)

// stopMarket sends a stop in quantity form. It is triggered by the mark price, which no single trade can move.
func (b *Binance) stopMarket(o exchange.Order) func(context.Context, *futures.Client) error {
	return func(ctx context.Context, f *futures.Client) error {
		s := f.NewCreateAlgoOrderService().Symbol(o.Key.Symbol).Side(futures.SideType(o.Direction)).Type(futures.AlgoOrderTypeStopMarket).
			Quantity(o.Qty.String()).TriggerPrice(o.Trigger.String()).WorkingType(futures.WorkingTypeMarkPrice).ClientAlgoId(o.ClientOrderID)
		if o.Key.Side == ledger.Both {
			s = s.ReduceOnly(true)
		} else {
			s = s.PositionSide(futures.PositionSideType(o.Key.Side))
		}
		_, err := s.Do(ctx, b.window())
		return err
	}
}

// stopRow is a conditional order, and the order it became, 0 while it has not.
type stopRow struct {
	exchange.OrderState
	orderID int64
	at      time.Time // of the last change
}

// readStop reads a conditional order of anybody's. One that closes a whole position has no quantity.
func readStop(f *fields) stopRow {
	s := stopRow{OrderState: exchange.OrderState{
		ClientOrderID: f.text("clientAlgoId"), OrderID: f.integer("algoId"), Key: keyRow(f), Direction: f.direction("side"),
		Status: f.text("algoStatus"), CreatedAt: f.at("createTime"),
	}}
	if f.has("quantity") && f.number("quantity") != "" {
		s.Qty = f.qty("quantity")
	}
	if f.has("triggerPrice") && f.number("triggerPrice") != "" {
		s.Trigger = f.price("triggerPrice")
	}
	if f.has("actualOrderId") && f.number("actualOrderId") != "" {
		s.orderID = f.integer("actualOrderId")
	}
	if s.at = s.CreatedAt; f.has("updateTime") {
		s.at = later(s.at, time.UnixMilli(f.integer("updateTime")))
	}
	if s.OrderID <= 0 || s.Status == "" || s.orderID < 0 {
		f.fail("it is no conditional order")
	}
	return s
}

func placedStop(f *fields, o exchange.Order) (exchange.Answer, error) {
	s := readStop(f)
	switch {
	case f.err != nil:
		return exchange.Answer{}, f.err
	case s.ClientOrderID != o.ClientOrderID || s.Key != o.Key || s.Direction != o.Direction:
		return exchange.Answer{}, fmt.Errorf("it speaks of %s, a %s of %s", clip(s.ClientOrderID), s.Direction, s.Key)
	case !s.Qty.Equal(o.Qty) || !s.Trigger.Equal(o.Trigger):
		return exchange.Answer{}, fmt.Errorf("it stops %s at %s", s.Qty, s.Trigger)
	case ledger.TerminalStatus(s.Status): // It does not stand, and the one before it must not make room for it.
		return exchange.Answer{}, fmt.Errorf("it is %s", clip(s.Status))
	}
	return exchange.Answer{Outcome: exchange.Placed, OrderID: s.OrderID, Status: s.Status}, nil
}

// gone tells that a stop waits no more, and so must have become an order unless it ended.
func (s stopRow) gone() bool {
	return s.orderID == 0 && (s.Status == "TRIGGERING" || s.Status == "TRIGGERED" || s.Status == "FINISHED")
}

// unnamed tells that the order of a stop that is gone is still to be named. After a while it is not waited for any more:
// an exchange that never names it must not keep everything else from being known.
func (b *Binance) unnamed(s stopRow) bool { return s.gone() && b.Now().Sub(s.at) < lagging }

var errTriggering = errors.New("the stop has triggered, and its order is not named yet")

func (b *Binance) findStop(ctx context.Context, k ledger.Key, clientAlgoID string) (exchange.OrderState, error) {
	c := &call{what: "GET /fapi/v1/algoOrder", weight: 1, essential: true}
	e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) error {
		_, err := f.NewGetAlgoOrderService().ClientAlgoID(clientAlgoID).Do(ctx, b.window())
		return err
	})
	if e != nil {
		return exchange.OrderState{}, fmt.Errorf("look up a stop: %w", e)
	}
	f := fieldsOf(c.body)
	s := readStop(f)
	if s.ClientOrderID != clientAlgoID || s.Key.Symbol != k.Symbol {
		f.fail("it speaks of %s of %s", clip(s.ClientOrderID), s.Key)
	}
	switch {
	case f.err != nil:
		return exchange.OrderState{}, fmt.Errorf("look up a stop: %w", f.err)
	case b.unnamed(s):
		return exchange.OrderState{}, fmt.Errorf("look up a stop: %w", errTriggering)
	case s.orderID == 0:
		if s.Status == "FINISHED" { // Without ever having become an order.
			s.Status = "EXPIRED"
		}
		return s.OrderState, nil
	}
	b.owners.put(k.Symbol, s.orderID, clientAlgoID)
	o, _, err := b.order(ctx, k.Symbol, func(q *futures.GetOrderService) { q.OrderID(s.orderID) })
	if errors.Is(err, exchange.ErrNotFound) {
		return exchange.OrderState{}, fmt.Errorf("look up a stop: order %d, which it became, is not there yet", s.orderID)
	}
	if err == nil && o.OrderID != s.orderID {
		err = fmt.Errorf("look up a stop: order %d is not what it became", o.OrderID)
	}
	if err != nil {
		return exchange.OrderState{}, err
	}
	o.ClientOrderID, o.Trigger = clientAlgoID, s.Trigger
	return o, nil
}

// CancelStop implements exchange.Exchange.
func (b *Binance) CancelStop(ctx context.Context, k ledger.Key, clientOrderID string) error {
	if b.opt.ReadOnly {
		return fmt.Errorf("cancel a stop of %s: %w", k, errReadOnly)
	}
	c := &call{what: "DELETE /fapi/v1/algoOrder", weight: 1, essential: true}
	e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) error {
		_, err := f.NewCancelAlgoOrderService().ClientAlgoID(clientOrderID).Do(ctx, b.window())
		return err
	})
	if e != nil && e.Status/100 == 4 && e.Code == -2011 {
		return fmt.Errorf("cancel a stop of %s: %w (%w)", k, exchange.ErrNotFound, e)
	}
	if e != nil {
		return fmt.Errorf("cancel a stop of %s: %w", k, e)
	}
	f := fieldsOf(c.body)
	if f.text("clientAlgoId") != clientOrderID || f.number("code") != "200" {
		f.fail("it does not say that %s is cancelled", clientOrderID)
	}
	if f.err != nil {
		return fmt.Errorf("cancel a stop of %s: %w", k, f.err)
	}
	return nil
}

func (b *Binance) openStops(ctx context.Context) ([]exchange.OrderState, error) {
	c := &call{what: "GET /fapi/v1/openAlgoOrders", weight: 40, list: true}
	e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) error {
		_, err := f.NewListOpenAlgoOrdersService().Do(ctx, b.window())
		return err
	})
	if e != nil {
		return nil, fmt.Errorf("list open stops: %w", e)
	}
	all, err := rowsOf(c.body, func(f *fields) exchange.OrderState { return readStop(f).OrderState })
	if err != nil {
		return nil, fmt.Errorf("list open stops: %w", err)
	}
	return all, nil
}

// stopsIn are all conditional orders of a symbol created in a span of time.
func (b *Binance) stopsIn(ctx context.Context, symbol string, from, until time.Time) ([]stopRow, error) {
	return halving(from, until, func(from, until time.Time) ([]stopRow, error) {
		c := &call{what: "GET /fapi/v1/allAlgoOrders", weight: 5, essential: true, list: true}
		e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) error {
			s := f.NewListAllAlgoOrdersService().Symbol(symbol).StartTime(from.UnixMilli()).EndTime(until.UnixMilli()).Limit(exchange.OrdersPage)
			_, err := s.Do(ctx, b.window())
			return err
		})
		if e != nil {
			return nil, fmt.Errorf("list stops: %w", e)
		}
		rows, err := rowsOf(c.body, func(f *fields) stopRow {
			s := readStop(f)
			if s.Key.Symbol != symbol {
				f.fail("it is not of %s", symbol)
			}
			return s
		})
		if err != nil {
			return nil, fmt.Errorf("list stops: %w", err)
		}
		return rows, nil
	})
}

// rowsOf reads a JSON list of objects; one that is not understood fails them all.
func rowsOf[T any](body []byte, read func(*fields) T) ([]T, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, fmt.Errorf("%w: it is no list", errMalformed)
	}
	all := make([]T, 0, len(raw))
	for _, r := range raw {
		f := fieldsOf(r)
		row := read(f)
		if f.err != nil {
			return nil, f.err
		}
		all = append(all, row)
	}
	return all, nil
}
