package stages

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// laggard is an exchange on which an order arrives as late as it can, and whose queries and streams know of it only later still.
type laggard struct {
	exchange.Exchange
	before ledger.Snapshot // what was held when the order arrived
	until  atomic.Int64    // when queries know of it, in ns; 0: it has not arrived
}

func (l *laggard) lags() bool { return time.Now().UnixNano() < l.until.Load() }

func (l *laggard) Find(ctx context.Context, k ledger.Key, id string) (exchange.OrderState, error) {
	if l.lags() {
		return exchange.OrderState{}, exchange.ErrNotFound
	}
	return l.Exchange.Find(ctx, k, id)
}

func (l *laggard) OrdersSince(ctx context.Context, symbol string, since time.Time) ([]exchange.OrderState, error) {
	if l.lags() {
		return nil, nil
	}
	return l.Exchange.OrdersSince(ctx, symbol, since)
}

func (l *laggard) Trades(ctx context.Context, symbol string, after int64) ([]ledger.Trade, error) {
	if l.lags() {
		return nil, nil
	}
	return l.Exchange.Trades(ctx, symbol, after)
}

func (l *laggard) Snapshot(ctx context.Context) (ledger.Snapshot, error) {
	snap, err := l.Exchange.Snapshot(ctx)
	if l.lags() {
		snap.Holdings = l.before.Holdings
	}
	return snap, err
}

// Stream tells of prices alone.
func (l *laggard) Stream(ctx context.Context, emit func(exchange.StreamEvent)) error {
	return l.Exchange.Stream(ctx, func(e exchange.StreamEvent) {
		if e.Order == nil && e.Trade == nil && e.Changed == nil {
			emit(e)
		}
	})
}

// TestALateOrderIsNotMissed: an order whose answer is lost arrives just before its fence, and for three seconds more nothing
// that is asked knows of it. Whoever looked before the fence, or once after it, would send a second one.
func TestALateOrderIsNotMissed(t *testing.T) {
	const late, lag = 4800 * time.Millisecond, 3 * time.Second // The fence is 5 s after the promise.
	inBubble(t, wide, func(r *rig) {
		r.wait(settled)
		plan := r.decide(proposal(ledger.Partial25))
		r.want(plan, ledger.Executed, "", "")
		if len(plan.Orders()) != 1 {
			r.t.Errorf("orders %v", plan.Orders())
		}
		r.wait(settled)
		r.agree()
		if q := held(r, btc); q.String() != "0.035" {
			r.t.Errorf("holds %s", q)
		}
	}, func(h *hostile) {
		l := &laggard{Exchange: h.Exchange}
		h.Exchange = l
		h.place = func(o exchange.Order, place func() exchange.Answer) exchange.Answer {
			if len(h.orders()) > 1 {
				return place()
			}
			time.AfterFunc(late, func() {
				l.before, _ = l.Snapshot(context.Background())
				l.until.Store(time.Now().Add(lag).UnixNano())
				o.SendBefore = time.Now().Add(time.Second) // It was signed in time, and was under way since.
				if a := l.Place(context.Background(), o); a.Outcome != exchange.Placed {
					t.Errorf("the late order: %+v", a)
				}
			})
			return exchange.Answer{Outcome: exchange.Unknown, Message: "timeout"}
		}
	})
}

// TestThePartsOfAPartialClose: a partial close above the market's maximum is several orders, which together take what was granted.
func TestThePartsOfAPartialClose(t *testing.T) {
	inBubble(t, "governor: {auto_approve: [paper]}\npaper: {positions: {BTCUSDT: '300'}}", func(r *rig) {
		r.wait(settled)
		plan := r.decide(proposal(ledger.Partial75))
		r.want(plan, ledger.Executed, "", "")
		if filled, _ := plan.Filled(); len(plan.Orders()) < 2 || filled.String() != "225" {
			r.t.Fatalf("%v filled %s", plan.Orders(), filled)
		}
		r.wait(settled)
		r.agree()
	})
}
