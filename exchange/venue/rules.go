package venue

import (
	"fmt"
	"strings"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// Request is a signed request for an order at market, or for a stop when Trigger is set.
type Request struct {
	ClientOrderID string // "": the exchange makes one up
	Symbol        string
	Side          ledger.Side // of the position; "" is BOTH in one-way mode
	Direction     ledger.Direction
	Qty           ledger.Qty
	ReduceOnly    bool
	Trigger       ledger.Price // set: a stop
	Limit         ledger.Price // set: an order that takes this price or a better one, and rests until it gets it
	SignedAt      time.Time
	RecvWindow    time.Duration // 0: 5 s
}

// Bounds the exchange documents.
const (
	recvWindowDefault = 5 * time.Second
	recvWindowMax     = 60 * time.Second
	futureMax         = time.Second // a request may be signed less than this ahead of the exchange
	stopsMax          = 200         // standing on the account
)

func (r Request) window() time.Duration {
	if r.RecvWindow == 0 {
		return recvWindowDefault
	}
	return r.RecvWindow
}

// Admit is the exchange's door: the request's age, and all that can be judged without
// looking at the account. A request that passes may reach the engine later; see Place.
func (v *Venue) Admit(now time.Time, r Request) error {
	if r.window() < 0 || r.window() > recvWindowMax {
		return reject(-1131, "recvWindow must be less than 60000.")
	}
	if !r.SignedAt.Before(now.Add(futureMax)) || now.Sub(r.SignedAt) > r.window() {
		return reject(-1021, "Timestamp for this request is outside of the recvWindow.")
	}
	b, err := v.listed(r.Symbol)
	if err != nil {
		return err
	}
	if r.Direction != ledger.Buy && r.Direction != ledger.Sell {
		return reject(-1117, "Invalid side.")
	}
	if r.ClientOrderID != "" && !clientIDForm(r.ClientOrderID) {
		return reject(-4015, "Client order id is not valid.")
	}
	if err := lotRules(b.market.Lot, r.Qty); err != nil {
		return err
	}
	for _, p := range []ledger.Price{r.Trigger, r.Limit} {
		if err := tickRules(b.market, p); err != nil {
			return err
		}
	}
	return nil
}

// listed is the book of a symbol that is traded here.
func (v *Venue) listed(symbol string) (*book, error) {
	if b := v.books[symbol]; b != nil && b.market != nil {
		return b, nil
	}
	return nil, reject(-1121, "Invalid symbol.")
}

// clientIDForm is ^[\.A-Z\:/a-z0-9_-]{1,36}$.
func clientIDForm(id string) bool {
	const allowed = ".:/_-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	return len(id) <= 36 && strings.Trim(id, allowed) == ""
}

// lotRules are the filters of a quantity. Reduce-only is exempt from none of them.
func lotRules(lot ledger.Lot, q ledger.Qty) error {
	switch {
	case q.Sign() <= 0:
		return reject(-4003, "Quantity less than or equal to zero.")
	case q.Less(lot.Min):
		return reject(-4004, "Quantity less than min quantity.")
	case lot.Max.Sign() > 0 && lot.Max.Less(q):
		return reject(-4005, "Quantity greater than max quantity.")
	case decimals(q.String()) > decimals(lot.Step.String()):
		return reject(-1111, "Precision is over the maximum defined for this asset.")
	case !q.Sub(lot.Min).FloorTo(lot.Step).Equal(q.Sub(lot.Min)):
		return reject(-4023, "Quantity not increased by step size.")
	}
	return nil
}

func decimals(amount string) int {
	_, fraction, _ := strings.Cut(amount, ".")
	return len(fraction)
}

func tickRules(m *exchange.Market, p ledger.Price) error {
	switch {
	case p.Sign() < 0:
		return reject(-4001, "Price less than 0.")
	case !p.FloorTo(m.Tick).Equal(p):
		return reject(-4014, "Price not increased by tick size.")
	}
	return nil
}

// sideRules are the rules of the position mode. They belong to the engine, because the mode can change while a request travels.
func (v *Venue) sideRules(r Request) error {
	switch {
	case v.hedge && r.ReduceOnly:
		return reject(-1106, "Parameter 'reduceonly' sent when not required.")
	case v.hedge != (r.Side == ledger.Long || r.Side == ledger.Short):
		return reject(-4061, "Order's position side does not match user's setting.")
	}
	return nil
}

// valueRule is the least that an order must be worth. What reduces is exempt.
func (v *Venue) valueRule(b *book, r Request) error {
	if !r.reducing() && ledger.Notional(r.Qty, b.mark).Less(v.minNotional) {
		return reject(-4164, fmt.Sprintf("Order's notional must be no smaller than %s (unless you choose reduce only).", v.minNotional))
	}
	return nil
}

// reducing tells whether a request may only bring the position toward zero.
func (r Request) reducing() bool {
	return r.ReduceOnly || (r.Side == ledger.Long && r.Direction == ledger.Sell) || (r.Side == ledger.Short && r.Direction == ledger.Buy)
}

// reduceRules are the rules of an order that must reduce. They return the quantity that
// the exchange makes of it: one-way mode shrinks to the position, hedge mode refuses.
func (v *Venue) reduceRules(r Request, k ledger.Key) (ledger.Qty, error) {
	room := v.room(k, r.Direction)
	if room.IsZero() {
		return room, reject(-2022, "ReduceOnly Order is rejected.")
	}
	var resting ledger.Qty
	for _, o := range v.books[k.Symbol].orders {
		if o.Key == k && o.open() && o.Reducing && o.Direction == r.Direction {
			resting = resting.Add(o.Qty.Sub(o.Executed))
		}
	}
	switch {
	case !resting.IsZero() && room.Less(resting.Add(r.Qty)):
		return room, reject(-4118, "ReduceOnly Order Failed. Please check your existing position and open orders.")
	case v.hedge && room.Less(r.Qty):
		return room, reject(-2022, "ReduceOnly Order is rejected.")
	}
	return r.Qty.Min(room), nil
}

// stopRules are the rules of a stop when it is placed; whether it reduces anything is asked when it triggers.
func (v *Venue) stopRules(b *book, r Request) error {
	standing := 0
	for _, other := range v.books {
		for _, s := range other.stops {
			if !s.standing() {
				continue
			}
			standing++
			if other == b && s.ClientAlgoID == r.ClientOrderID {
				return reject(-4116, "ClientOrderId is duplicated.")
			}
		}
	}
	if standing >= stopsMax {
		return reject(-4045, "Reach max stop order limit.")
	}
	if reached(r.Direction, r.Trigger, b.mark) {
		return reject(-2021, "Order would immediately trigger.")
	}
	return nil
}

// reached tells whether the mark price has come to a stop: from above for a sale, from below for a buy.
func reached(d ledger.Direction, trigger, mark ledger.Price) bool {
	if mark.IsZero() {
		return false
	}
	if d == ledger.Sell {
		return mark.Cmp(trigger) <= 0
	}
	return mark.Cmp(trigger) >= 0
}
