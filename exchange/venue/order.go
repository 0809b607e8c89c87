package venue

import (
	"fmt"
	"time"

	"permitchain/ledger"
)

// Reject is the exchange's refusal of a request: nothing changed.
type Reject struct {
	Code int64
	Msg  string
}

func (r Reject) Error() string { return fmt.Sprintf("%d %s", r.Code, r.Msg) }

func reject(code int64, msg string) error { return Reject{code, msg} }

// Status is what has become of an order or a stop.
type Status string

// The statuses. Of orders New and PartiallyFilled are open; of stops New is standing.
const (
	StatusNew             Status = "NEW"
	StatusPartiallyFilled Status = "PARTIALLY_FILLED"
	StatusFilled          Status = "FILLED"
	StatusExpired         Status = "EXPIRED"
	StatusCanceled        Status = "CANCELED"
	StatusTriggered       Status = "TRIGGERED" // the stop became the order OrderID
	StatusRejected        Status = "REJECTED"  // the stop triggered and its order was refused
)

// Expiry is why an order expired, as Binance counts it (er).
type Expiry int

// The reasons.
const (
	ExpiryReduce Expiry = 4 // there was nothing left to reduce
	ExpiryMarket Expiry = 9 // the market had no more; what is left of the order is gone
)

// Order is an order as the exchange keeps it: at market, or at a limit.
type Order struct {
	ledger.Key
	OrderID       int64            `json:"order_id"` // grows per symbol
	ClientOrderID string           `json:"client_order_id"`
	Direction     ledger.Direction `json:"direction"`
	Qty           ledger.Qty       `json:"qty"` // after the exchange shrank it
	Executed      ledger.Qty       `json:"executed"`
	Status        Status           `json:"status"`
	Limit         ledger.Price     `json:"limit,omitzero"`    // zero: at market
	Reducing      bool             `json:"reducing,omitzero"` // may only bring the position toward zero
	Expiry        Expiry           `json:"expiry,omitzero"`   // why it expired
	CreatedAt     time.Time        `json:"created_at"`
	UpdatedAt     time.Time        `json:"updated_at"`
}

func (o Order) id() int64 { return o.OrderID }

func (o Order) open() bool { return o.Status == StatusNew || o.Status == StatusPartiallyFilled }

// waits tells whether an order's limit keeps it from being filled at a price.
func (o Order) waits(mark ledger.Price) bool {
	if o.Limit.IsZero() {
		return false
	}
	if o.Direction == ledger.Sell {
		return mark.Less(o.Limit)
	}
	return o.Limit.Less(mark)
}

// Stop is a conditional order (STOP_MARKET of the algo service): it becomes an order
// at market when the mark price reaches its trigger.
type Stop struct {
	ledger.Key
	AlgoID       int64            `json:"algo_id"` // counts with the symbol's order ids
	ClientAlgoID string           `json:"client_algo_id"`
	Direction    ledger.Direction `json:"direction"`
	Qty          ledger.Qty       `json:"qty"`
	Trigger      ledger.Price     `json:"trigger"`
	ReduceOnly   bool             `json:"reduce_only,omitzero"`
	Status       Status           `json:"status"`
	OrderID      int64            `json:"order_id,omitzero"` // of the order it became, which has the stop's client id
	CreatedAt    time.Time        `json:"created_at"`
	UpdatedAt    time.Time        `json:"updated_at"`
}

func (s Stop) id() int64 { return s.AlgoID }

func (s Stop) standing() bool { return s.Status == StatusNew }

// position is an amount and what it was bought or sold at on average.
type position struct {
	amount ledger.Qty
	entry  ledger.Price
}

// move adds a trade to a position. Growing averages the entry price, reducing keeps
// it, and what goes through zero was entered at the trade's price.
func (v *Venue) move(k ledger.Key, change ledger.Qty, price ledger.Price) {
	p := v.held[k]
	if p == nil {
		p = &position{}
		v.held[k] = p
	}
	before := p.amount
	p.amount = before.Add(change)
	switch {
	case p.amount.IsZero():
		delete(v.held, k)
	case before.Sign() == change.Sign():
		cost := ledger.Notional(before, p.entry).Add(ledger.Notional(change, price))
		p.entry = ledger.AveragePrice(cost, p.amount)
	case before.Sign() != p.amount.Sign():
		p.entry = price
	}
}

// liquidation is where the exchange would close a position by itself: far away, because the account is rich.
func (p position) liquidation() ledger.Price {
	far := ledger.MustPercent("40")
	if p.amount.Sign() < 0 {
		far = ledger.MustPercent("160")
	}
	return ledger.AveragePrice(ledger.Notional(ledger.MustQty("1"), p.entry.Of(far)), ledger.MustQty("1"))
}

// amount is what is held under k.
func (v *Venue) amount(k ledger.Key) ledger.Qty {
	if p := v.held[k]; p != nil {
		return p.amount
	}
	return ledger.Qty{}
}

// room is how much an order in a direction can take off a position.
func (v *Venue) room(k ledger.Key, d ledger.Direction) ledger.Qty {
	if amount := v.amount(k); amount.Sign()*d.Signed(ledger.MustQty("1")).Sign() < 0 {
		return amount.Abs()
	}
	return ledger.Qty{}
}
