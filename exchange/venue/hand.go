package venue

import (
	"fmt"
	"time"

	"permitchain/ledger"
)

// Trade is the user's own hand: it changes a position by a signed quantity, opening or
// turning it if it likes, under a client id of the exchange's web page. A hand needs
// not mind the maximum; in hedge mode it cannot take off more than there is.
func (v *Venue) Trade(now time.Time, k ledger.Key, change ledger.Qty) (Change, error) {
	b, err := v.listed(k.Symbol)
	if err != nil {
		return Change{}, err
	}
	r := Request{Symbol: k.Symbol, Side: k.Side, Direction: ledger.Buy, Qty: change.Abs()}
	if change.Sign() < 0 {
		r.Direction = ledger.Sell
	}
	if err := lotRules(ledger.Lot{Step: b.market.Lot.Step, Min: b.market.Lot.Min}, r.Qty); err != nil {
		return Change{}, err
	}
	if err := v.sideRules(r); err != nil {
		return Change{}, err
	}
	r.ClientOrderID = fmt.Sprintf("web_%d", b.lastID+1)
	defer b.endless()()
	return v.enter(now, b, r, Odds{Split: v.odds.Split})
}

// Liquidate is the exchange closing a position by itself, whatever the filters say.
func (v *Venue) Liquidate(now time.Time, k ledger.Key) (Change, error) {
	b, err := v.listed(k.Symbol)
	if err != nil {
		return Change{}, err
	}
	amount := v.amount(k)
	if amount.IsZero() || b.mark.IsZero() {
		return Change{}, reject(-2022, "Nothing to liquidate.")
	}
	return v.forced(now, b, k, amount.Abs(), fmt.Sprintf("autoclose-%d", b.lastID+1)), nil
}

// Deleverage is the exchange closing a part of a position that gains, because others could not pay.
func (v *Venue) Deleverage(now time.Time, k ledger.Key, q ledger.Qty) (Change, error) {
	b, err := v.listed(k.Symbol)
	if err != nil {
		return Change{}, err
	}
	if q = q.Min(v.amount(k).Abs()); q.Sign() <= 0 || b.mark.IsZero() {
		return Change{}, reject(-2022, "Nothing to deleverage.")
	}
	return v.forced(now, b, k, q, "adl_autoclose"), nil
}

// forced is an order of the exchange's own, which always finds what it needs.
func (v *Venue) forced(now time.Time, b *book, k ledger.Key, q ledger.Qty, clientID string) Change {
	o := Order{
		Key: k, OrderID: b.lastID + 1, ClientOrderID: clientID, Direction: ledger.Reducing(v.amount(k)),
		Qty: q, Status: StatusNew, Reducing: true, CreatedAt: now,
	}
	defer b.endless()()
	return v.match(now, b, o, Odds{})
}

// endless takes the bound of the market's depth away, until what it returns is called.
func (b *book) endless() func() {
	depth := b.depth
	b.depth = nil
	return func() { b.depth = depth }
}

// Depth is how much an order in a symbol finds from now on before the rest of it expires, and
// returns what it was; nil is all it wants.
func (v *Venue) Depth(symbol string, depth *ledger.Qty) (was *ledger.Qty) {
	b := v.book(symbol)
	was, b.depth = b.depth, depth
	return was
}

// SetOdds changes the exchange's luck, and returns what it was.
func (v *Venue) SetOdds(o Odds) Odds {
	was := v.odds
	v.odds = o
	return was
}
