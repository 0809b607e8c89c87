package paper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"permitchain/exchange"
	"permitchain/exchange/venue"
	"permitchain/ledger"
)

var _ exchange.Exchange = (*Paper)(nil)

// Markets implements exchange.Exchange.
func (p *Paper) Markets(ctx context.Context, symbols []string) (map[string]exchange.Market, error) {
	return query(ctx, p, "read markets", func(time.Time) map[string]exchange.Market {
		all := map[string]exchange.Market{}
		for _, s := range symbols {
			if m, ok := p.venue.Market(s); ok {
				all[s] = m
			}
		}
		return all
	})
}

// Snapshot implements exchange.Exchange.
func (p *Paper) Snapshot(ctx context.Context) (ledger.Snapshot, error) {
	sent := p.Now()
	return query(ctx, p, "read positions", func(time.Time) ledger.Snapshot {
		return ledger.Snapshot{SentAt: sent, Hedge: p.venue.Hedge(), Holdings: p.venue.Holdings()}
	})
}

// Trades implements exchange.Exchange.
func (p *Paper) Trades(ctx context.Context, symbol string, after int64) ([]ledger.Trade, error) {
	return query(ctx, p, "read trades", func(time.Time) []ledger.Trade { return p.venue.Trades(symbol, after, exchange.TradesPage) })
}

// LastTradeID implements exchange.Exchange.
func (p *Paper) LastTradeID(ctx context.Context, symbol string) (int64, error) {
	return query(ctx, p, "read the last trade", func(time.Time) int64 { return p.venue.LastTradeID(symbol) })
}

// Place implements exchange.Exchange.
func (p *Paper) Place(ctx context.Context, o exchange.Order) exchange.Answer {
	a, taken, err := ask(ctx, p, func(now time.Time) exchange.Answer { return p.place(now, o) })
	switch {
	case err == nil:
		return a
	case taken:
		return exchange.Answer{Outcome: exchange.Unknown, Message: err.Error()}
	default:
		return exchange.Answer{Outcome: exchange.NotPlaced, Message: err.Error()}
	}
}

func (p *Paper) place(now time.Time, o exchange.Order) exchange.Answer {
	if !now.Before(o.SendBefore) {
		return exchange.Answer{Outcome: exchange.NotPlaced, Message: "it is too late to send it"}
	}
	if !o.Key.Side.Valid() || (o.Key.Side == ledger.Long && o.Direction != ledger.Sell) || (o.Key.Side == ledger.Short && o.Direction != ledger.Buy) {
		return exchange.Answer{Outcome: exchange.NotPlaced, Message: fmt.Sprintf("a %s of %s would not surely reduce", o.Direction, o.Key)}
	}
	r := venue.Request{
		ClientOrderID: o.ClientOrderID, Symbol: o.Key.Symbol, Side: o.Key.Side, Direction: o.Direction, Qty: o.Qty,
		ReduceOnly: o.Key.Side == ledger.Both, Trigger: o.Trigger, SignedAt: now,
	}
	err := p.venue.Admit(now, r)
	var c venue.Change
	if err == nil {
		c, err = p.venue.Place(now, r)
	}
	if err != nil {
		a := exchange.Answer{Outcome: exchange.NotPlaced, Message: err.Error()}
		if r := (venue.Reject{}); errors.As(err, &r) {
			a.Code, a.Message = r.Code, r.Msg
		}
		return a
	}
	if err := p.commit(c); err != nil {
		return exchange.Answer{Outcome: exchange.Unknown, Message: err.Error()}
	}
	if len(c.Stops) > 0 {
		return exchange.Answer{Outcome: exchange.Placed, OrderID: c.Stops[0].AlgoID, Status: string(c.Stops[0].Status)}
	}
	placed := c.Orders[0]
	return exchange.Answer{Outcome: exchange.Placed, OrderID: placed.OrderID, Status: string(placed.Status), Executed: placed.Executed}
}

// Find implements exchange.Exchange. A stop that triggered is found as the order it became.
func (p *Paper) Find(ctx context.Context, k ledger.Key, clientOrderID string) (exchange.OrderState, error) {
	found, err := query(ctx, p, "look an order up", func(time.Time) []exchange.OrderState {
		if o, ok := p.venue.Find(k.Symbol, clientOrderID); ok {
			return []exchange.OrderState{o}
		}
		return nil
	})
	if err != nil {
		return exchange.OrderState{}, err
	}
	if len(found) == 0 {
		return exchange.OrderState{}, exchange.ErrNotFound
	}
	return found[0], nil
}

// OrdersSince implements exchange.Exchange. Stops are among the orders, those that triggered as the orders they became.
func (p *Paper) OrdersSince(ctx context.Context, symbol string, since time.Time) ([]exchange.OrderState, error) {
	return query(ctx, p, "list orders", func(time.Time) []exchange.OrderState { return p.venue.Since(symbol, since) })
}

// OpenOrders implements exchange.Exchange.
func (p *Paper) OpenOrders(ctx context.Context) ([]exchange.OrderState, error) {
	return query(ctx, p, "list open orders", func(time.Time) []exchange.OrderState { return p.venue.Working() })
}

// CancelStop implements exchange.Exchange.
func (p *Paper) CancelStop(ctx context.Context, k ledger.Key, clientOrderID string) error {
	return p.Do(ctx, "cancel a stop", func(v *venue.Venue, now time.Time) (venue.Change, error) {
		c, err := v.CancelStop(now, k.Symbol, clientOrderID)
		if err != nil {
			err = fmt.Errorf("%w (%w)", exchange.ErrNotFound, err)
		}
		return c, err
	})
}

// Trade is a trade by someone else on the account: qty is signed, and may open, grow, reduce or turn a position.
func (p *Paper) Trade(ctx context.Context, symbol string, side ledger.Side, qty ledger.Qty) error {
	return p.Do(ctx, "trade by hand", func(v *venue.Venue, now time.Time) (venue.Change, error) {
		return v.Trade(now, ledger.Key{Symbol: symbol, Side: side}, qty)
	})
}

// Do has fn do something to the account, and makes it durable; what names it in the error. fn must not block.
func (p *Paper) Do(ctx context.Context, what string, fn func(*venue.Venue, time.Time) (venue.Change, error)) error {
	refused, err := query(ctx, p, what, func(now time.Time) error {
		c, err := fn(p.venue, now)
		if err != nil {
			return err
		}
		return p.commit(c)
	})
	if err == nil && refused != nil {
		err = fmt.Errorf("%s: %w", what, refused)
	}
	return err
}

func query[T any](ctx context.Context, p *Paper, what string, fn func(now time.Time) T) (T, error) {
	v, _, err := ask(ctx, p, fn)
	if err != nil {
		return v, fmt.Errorf("%s: %w", what, err)
	}
	return v, nil
}
