// Package exchange is the port to a futures exchange: what the chain may ask of one
// and how it answers, whoever is behind it.
//
// Contract: an order's answer is one of three, and Unknown is what it is whenever
// anything is in doubt. A query that fails is an error, never an empty answer.
// Instants are on the exchange's clock. Nothing is retried behind the caller's back.
package exchange

import (
	"context"
	"errors"
	"time"

	"permitchain/ledger"
)

// Exchange is one account on one exchange. Its methods may be called concurrently.
type Exchange interface {
	// Now is the exchange's clock, as well as it is known.
	Now() time.Time
	// Markets returns the rules of the symbols asked for; a symbol it does not trade is missing.
	Markets(ctx context.Context, symbols []string) (map[string]Market, error)
	// Snapshot returns all that is held. Its SentAt is when the request left.
	Snapshot(ctx context.Context) (ledger.Snapshot, error)
	// Trades returns the account's trades of a symbol with ids above after, ascending and without gaps, at most
	// TradesPage of them; a full page means there may be more.
	Trades(ctx context.Context, symbol string, after int64) ([]ledger.Trade, error)
	// LastTradeID returns the id of the account's newest trade of a symbol, 0 where there is none.
	LastTradeID(ctx context.Context, symbol string) (int64, error)
	// Place sends one order, once.
	Place(ctx context.Context, o Order) Answer
	// Find looks an order up by its client id; ErrNotFound when the exchange says it does not have it.
	Find(ctx context.Context, k ledger.Key, clientOrderID string) (OrderState, error)
	// OrdersSince returns the orders of a symbol created at or after an instant, at most OrdersPage, oldest first.
	OrdersSince(ctx context.Context, symbol string, since time.Time) ([]OrderState, error)
	// OpenOrders returns every order and stop of the account that could still execute, whoever sent it.
	OpenOrders(ctx context.Context) ([]OrderState, error)
	// Bars returns the newest closed bars of a symbol, oldest first and without gaps, at most limit and at most BarsPage.
	Bars(ctx context.Context, symbol string, limit int) ([]ledger.Bar, error)
	// CancelStop cancels a standing stop. ErrNotFound when it stands no more.
	CancelStop(ctx context.Context, k ledger.Key, clientOrderID string) error
	// Stream reports what the exchange says unasked, until ctx is done. emit must not block for long.
	Stream(ctx context.Context, emit func(StreamEvent)) error
}

// Page sizes of lists: limits of one answer, not of what can be known.
const (
	TradesPage = 1000
	OrdersPage = 1000
	BarsPage   = 1000
)

// ErrNotFound tells that the exchange says it has no such order (Binance -2013). Right after an order was
// sent it proves nothing.
var ErrNotFound = errors.New("the exchange has no such order")

// Market is a symbol's rules.
type Market struct {
	Symbol string
	Lot    ledger.Lot   // of orders at market
	Tick   ledger.Price // of prices
}

// Order is one order to send: at market, or a stop at market when Trigger is set.
// It always reduces: reduce-only in one-way mode, by its position side in hedge mode.
type Order struct {
	ClientOrderID string
	Key           ledger.Key
	Direction     ledger.Direction
	Qty           ledger.Qty
	Trigger       ledger.Price
	SendBefore    time.Time // nothing is signed at or after it: the answer is then NotPlaced
}

// Answer is what became of an order that was to be sent.
type Answer struct {
	Outcome     Outcome
	OrderID     int64 // when Placed
	Status      string
	Executed    ledger.Qty
	Code        int64 // the exchange's code, or 0
	Message     string
	RateLimited bool // NotPlaced because of a rate limit: says nothing about the order
}

// Outcome is how certain an answer is.
type Outcome string

// The outcomes of sending an order.
const (
	Placed    Outcome = "placed"     // the exchange has it
	NotPlaced Outcome = "not_placed" // it certainly never was, and never will be
	Unknown   Outcome = "unknown"    // anything else
)

// OrderState is an order as the exchange knows it.
type OrderState struct {
	ClientOrderID string
	OrderID       int64
	Key           ledger.Key
	Direction     ledger.Direction
	Status        string
	Qty           ledger.Qty
	Executed      ledger.Qty
	Trigger       ledger.Price
	CreatedAt     time.Time
}

// StreamEvent is something the exchange said unasked; one of its fields is set.
type StreamEvent struct {
	Mark    *ledger.Mark
	Bar     *ledger.Bar   // a bar has closed
	Changed *ledger.Key   // the account changed under this key: a snapshot now will tell more
	Order   *OrderState   // what has become of an order; it may come before the answer to its sending, twice, or late
	Trade   *ledger.Trade // an execution on the account; it may come twice
}
