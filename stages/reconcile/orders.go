package reconcile

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// wantOrders looks for orders of our form that are not ours, now and then: those that could still execute, and those
// that were sent since the last look, which tells of another instance before it has moved a position.
func (r *Stage) wantOrders(ctx context.Context, now time.Time) {
	if r.listing || now.Before(r.ordersAt) {
		return
	}
	r.listing, r.ordersAt = true, now.Add(ordersEvery)
	at, since := r.Exchange.Now(), maps.Clone(r.listedAt)
	r.ask(ctx, func() result {
		res := result{need: NeedOrders, listed: map[string]time.Time{}}
		if res.orders, res.err = r.Exchange.OpenOrders(ctx); res.err != nil {
			return res
		}
		for _, symbol := range r.Symbols {
			if !r.traded(symbol) {
				continue
			}
			sent, err := r.Exchange.OrdersSince(ctx, symbol, since[symbol])
			if err == nil {
				res.orders, res.listed[symbol] = append(res.orders, sent...), at
			} else if res.err == nil { // One symbol that fails must not hide the others' orders.
				res.err = fmt.Errorf("%s: %w", symbol, err)
			}
		}
		return res
	})
}

func (r *Stage) onOrders(ctx context.Context, res result) error {
	r.listing = false
	maps.Copy(r.listedAt, res.listed) // Where it failed, the next look goes as far back.
	if res.err != nil {
		r.Log.Warn().Err(res.err).Msg("not all of the account's orders could be looked through for another instance's; tried again in a minute")
	}
	var keys []ledger.Key
	for _, o := range res.orders {
		if ledger.OfOurForm(o.ClientOrderID) && slices.Contains(r.Symbols, o.Key.Symbol) && !slices.Contains(keys, o.Key) {
			keys = append(keys, o.Key)
		}
	}
	seen, strays := r.strays, map[string]bool{}
	r.strays = strays
	if len(keys) == 0 {
		return nil
	}
	return r.decide(ctx, func(s *ledger.State, k ledger.Key, _ time.Time) (f finding) {
		if o := foreignOrder(s, k, res.orders, seen, strays); o != nil {
			f.hold(s, k, ledger.HoldForeignInstance, fmt.Sprintf("order %d (%s): %s %s, %s, which %s", o.OrderID, o.ClientOrderID, o.Direction, o.Qty, o.Status, disowned(s, o.ClientOrderID)))
		}
		return f
	}, keys...)
}

// foreignOrder is an order of our form on a position that this ledger never promised, or knows not to have been placed, and
// that lives or has executed; or nil. One that the ledger has as ended counts when it is shown open twice, a minute
// apart: the first time it may have ended while the list was on its way. seen are those of the last list, strays of this one.
func foreignOrder(s *ledger.State, k ledger.Key, orders []exchange.OrderState, seen, strays map[string]bool) *exchange.OrderState {
	var foreign *exchange.OrderState
	for n := range orders {
		o := &orders[n]
		if o.Key != k || !ledger.OfOurForm(o.ClientOrderID) {
			continue
		}
		i, open := s.Intents[o.ClientOrderID], !ledger.TerminalStatus(o.Status)
		switch {
		case i == nil, i.State == ledger.NotPlaced && (open || o.Executed.Sign() > 0) && !o.CreatedAt.Before(i.Since()):
			foreign = o
		case i.State == ledger.Settled && open:
			strays[o.ClientOrderID] = true
			if seen[o.ClientOrderID] {
				foreign = o
			}
		}
	}
	return foreign
}

// disowned says why an order of our form is not taken for ours.
func disowned(s *ledger.State, clientOrderID string) string {
	switch i := s.Intents[clientOrderID]; {
	case i == nil:
		return "this ledger never promised"
	case i.State == ledger.NotPlaced:
		return "by all that was known was not placed"
	default:
		return "is not what this ledger promised under that id, or had ended"
	}
}
