package paper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

var btc = ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}

func options() Options {
	return Options{Seed: 1, Symbols: []string{"BTCUSDT", "ETHUSDT"}, Positions: map[ledger.Key]ledger.Qty{btc: ledger.MustQty("0.046")}}
}

func bookPath(t *testing.T) string { return filepath.Join(t.TempDir(), "book.jsonl") }

func mustOpen(t *testing.T, path string, o Options) *Paper {
	t.Helper()
	p, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func closing(p *Paper, id, qty string) exchange.Order {
	return exchange.Order{ClientOrderID: id, Key: btc, Direction: ledger.Sell, Qty: ledger.MustQty(qty), SendBefore: p.Now().Add(time.Second)}
}

func held(t *testing.T, p *Paper, k ledger.Key) string {
	t.Helper()
	s, err := p.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Of(k).Amount.String()
}

// account is all that the port tells of an account.
type account struct {
	Holdings []ledger.Holding
	Trades   []ledger.Trade
	Orders   []exchange.OrderState
	Last     int64
}

func accountOf(t *testing.T, p *Paper) account {
	t.Helper()
	s, err1 := p.Snapshot(t.Context())
	trades, err2 := p.Trades(t.Context(), "BTCUSDT", 0)
	orders, err3 := p.OrdersSince(t.Context(), "BTCUSDT", time.Time{})
	last, err4 := p.LastTradeID(t.Context(), "BTCUSDT")
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	return account{s.Holdings, trades, orders, last}
}

func (a account) String() string {
	return fmt.Sprintf("%v", [4]any{a.Holdings, a.Trades, a.Orders, a.Last})
}

func TestPlaceAnswers(t *testing.T) {
	o, instant := options(), time.Now()
	o.Now = func() time.Time { return instant }
	p := mustOpen(t, bookPath(t), o)
	late := closing(p, "pc-late", "0.001")
	late.SendBefore = p.Now()
	for _, c := range []struct {
		name    string
		order   exchange.Order
		outcome exchange.Outcome
		code    int64
	}{
		{"at send_before", late, exchange.NotPlaced, 0},
		{"without send_before", func() exchange.Order { o := closing(p, "pc-x", "0.001"); o.SendBefore = time.Time{}; return o }(), exchange.NotPlaced, 0},
		{"without a side", func() exchange.Order { o := closing(p, "pc-x", "0.001"); o.Key.Side = ""; return o }(), exchange.NotPlaced, 0},
		{"of another mode", func() exchange.Order { o := closing(p, "pc-x", "0.001"); o.Key.Side = ledger.Long; return o }(), exchange.NotPlaced, -4061},
		{"opening in hedge mode", func() exchange.Order { o := closing(p, "pc-x", "0.001"); o.Key.Side = ledger.Short; return o }(), exchange.NotPlaced, 0},
		{"that would grow", func() exchange.Order { o := closing(p, "pc-x", "0.001"); o.Direction = ledger.Buy; return o }(), exchange.NotPlaced, -2022},
		{"off the step", closing(p, "pc-x", "0.0011"), exchange.NotPlaced, -1111},
		{"good", closing(p, "pc-1", "0.034"), exchange.Placed, 0},
		{"of the same id, after it filled", closing(p, "pc-1", "0.002"), exchange.Placed, 0},
		{"for more than is held", closing(p, "pc-2", "5"), exchange.Placed, 0},
		{"when flat", closing(p, "pc-3", "0.001"), exchange.NotPlaced, -2022},
	} {
		a := p.Place(t.Context(), c.order)
		if a.Outcome != c.outcome || a.Code != c.code {
			t.Errorf("an order %s: %+v, want %s %d", c.name, a, c.outcome, c.code)
		}
		if a.Outcome == exchange.Placed && (a.Status != "FILLED" || a.OrderID == 0) {
			t.Errorf("an order %s: %+v", c.name, a)
		}
	}
	sum := ledger.MustQty("0.046")
	trades, err := p.Trades(t.Context(), "BTCUSDT", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range trades {
		sum = sum.Add(tr.Direction.Signed(tr.Qty))
		if tr.ClientOrderID == "" || tr.FeeUSD.Sign() <= 0 {
			t.Errorf("trade %+v", tr)
		}
	}
	if !sum.IsZero() || held(t, p, btc) != "0" {
		t.Errorf("trades leave %s, held %s", sum, held(t, p, btc))
	}
}

func TestContextIsRespected(t *testing.T) {
	p := mustOpen(t, bookPath(t), options())
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if a := p.Place(done, closing(p, "pc-1", "0.001")); a.Outcome != exchange.NotPlaced {
		t.Errorf("an order whose context was done: %+v", a)
	}
	if _, err := p.Snapshot(done); !errors.Is(err, context.Canceled) {
		t.Errorf("snapshot: %v", err)
	}
	if _, err := p.Find(t.Context(), btc, "pc-1"); !errors.Is(err, exchange.ErrNotFound) {
		t.Errorf("the order is there: %v", err)
	}
	// The owner is busy, so the order waits at its door until the caller gives up.
	busy, release := make(chan struct{}), make(chan struct{})
	go ask(t.Context(), p, func(time.Time) bool { close(busy); <-release; return true })
	<-busy
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if a := p.Place(short, closing(p, "pc-2", "0.001")); a.Outcome != exchange.NotPlaced {
		t.Errorf("an order the owner never took: %+v", a)
	}
	close(release)
	if _, err := p.Find(t.Context(), btc, "pc-2"); !errors.Is(err, exchange.ErrNotFound) {
		t.Errorf("the order is there: %v", err)
	}
}

// An order the owner took but did not answer in time may have been placed.
func TestUnansweredIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var standStill atomic.Bool
		taken, release := make(chan struct{}), make(chan struct{})
		o := options()
		o.Now = func() time.Time {
			if standStill.CompareAndSwap(true, false) { // The owner looks at the clock when it has taken a call.
				close(taken)
				<-release
			}
			return time.Now()
		}
		p := mustOpen(t, bookPath(t), o)
		order := closing(p, "pc-1", "0.001")
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan exchange.Answer, 1)
		standStill.Store(true)
		go func() { result <- p.Place(ctx, order) }()
		<-taken
		cancel()
		if a := <-result; a.Outcome != exchange.Unknown {
			t.Errorf("answer %+v, want unknown", a)
		}
		close(release)
		if s, err := p.Find(t.Context(), btc, "pc-1"); err != nil || s.Status != "FILLED" {
			t.Errorf("it was placed all the same, but found %+v %v", s, err)
		}
	})
}

func TestStopsThroughThePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustOpen(t, bookPath(t), options())
		mark, err := query(t.Context(), p, "", func(time.Time) ledger.Price { return p.marks["BTCUSDT"].Price })
		if err != nil {
			t.Fatal(err)
		}
		place := func(id string, trigger ledger.Price) exchange.Answer {
			o := closing(p, id, "0.046")
			o.Trigger = trigger
			return p.Place(t.Context(), o)
		}
		far := ledger.MustPrice("1000")
		if a := place("pc-a-s1-1", far); a.Outcome != exchange.Placed || a.Status != "NEW" || a.OrderID == 0 {
			t.Fatalf("stop: %+v", a)
		}
		if s, err := p.Find(t.Context(), btc, "pc-a-s1-1"); err != nil || s.Status != "NEW" || !s.Trigger.Equal(far) {
			t.Errorf("found %+v %v", s, err)
		}
		if err := p.CancelStop(t.Context(), btc, "pc-a-s1-1"); err != nil {
			t.Fatal(err)
		}
		if err := p.CancelStop(t.Context(), btc, "pc-a-s1-1"); !errors.Is(err, exchange.ErrNotFound) {
			t.Errorf("second cancel: %v", err)
		}
		if s, err := p.Find(t.Context(), btc, "pc-a-s1-1"); err != nil || s.Status != "CANCELED" {
			t.Errorf("found %+v %v", s, err)
		}
		near := mark.Sub(ledger.MustPrice("0.1"))
		if a := place("pc-a-s1-2", near); a.Outcome != exchange.Placed {
			t.Fatalf("stop: %+v", a)
		}
		for range 3600 { // within an hour the price is at least once a tick below where it was
			<-time.After(time.Second)
			synctest.Wait()
			if held(t, p, btc) == "0" {
				break
			}
		}
		s, err := p.Find(t.Context(), btc, "pc-a-s1-2")
		if err != nil || s.Status != "FILLED" || !s.Trigger.Equal(near) || s.Executed.String() != "0.046" {
			t.Errorf("the triggered stop is %+v %v", s, err)
		}
		orders, err := p.OrdersSince(t.Context(), "BTCUSDT", time.Time{})
		if err != nil || len(orders) != 2 || orders[0].Status != "CANCELED" || orders[1].Status != "FILLED" {
			t.Errorf("orders %+v %v, want the cancelled stop and the order of the other", orders, err)
		}
	})
}

func TestHedgeMode(t *testing.T) {
	long, short := ledger.Key{Symbol: "BTCUSDT", Side: ledger.Long}, ledger.Key{Symbol: "BTCUSDT", Side: ledger.Short}
	o := options()
	o.Hedge = true
	o.Positions = map[ledger.Key]ledger.Qty{long: ledger.MustQty("1"), short: ledger.MustQty("-2")}
	path := bookPath(t)
	p := mustOpen(t, path, o)
	if err := p.Trade(t.Context(), "BTCUSDT", ledger.Short, ledger.MustQty("-1")); err != nil {
		t.Fatal(err)
	}
	a := p.Place(t.Context(), exchange.Order{ClientOrderID: "pc-1", Key: short, Direction: ledger.Buy, Qty: ledger.MustQty("0.5"), SendBefore: p.Now().Add(time.Second)})
	if a.Outcome != exchange.Placed || held(t, p, short) != "-2.5" || held(t, p, long) != "1" {
		t.Errorf("answer %+v, short %s, long %s", a, held(t, p, short), held(t, p, long))
	}
	p.Close()
	if _, err := Open(path, options()); err == nil {
		t.Error("the mode was switched with positions held")
	}
	if _, err := Open(bookPath(t), Options{Hedge: true, Positions: map[ledger.Key]ledger.Qty{long: ledger.MustQty("-1")}}); err == nil {
		t.Error("a long of -1 was accepted")
	}
	if _, err := Open(bookPath(t), Options{Positions: map[ledger.Key]ledger.Qty{btc: ledger.MustQty("0.0465")}}); err == nil {
		t.Error("a position off the step was accepted")
	}
}

func TestMarketsOnlyOfWhatIsTraded(t *testing.T) {
	p := mustOpen(t, bookPath(t), options())
	m, err := p.Markets(t.Context(), []string{"BTCUSDT", "ETHUSDT", "SOLUSDT"})
	if err != nil || len(m) != 2 || m["BTCUSDT"].Lot.Step.String() != "0.001" || m["BTCUSDT"].Lot.Max.String() != "120" {
		t.Errorf("markets %+v %v", m, err)
	}
}

func TestClosedExchangeSaysSo(t *testing.T) {
	p := mustOpen(t, bookPath(t), options())
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if _, err := p.Snapshot(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("snapshot: %v", err)
	}
	if a := p.Place(t.Context(), closing(p, "pc-1", "0.001")); a.Outcome != exchange.NotPlaced {
		t.Errorf("order: %+v", a)
	}
	if err := p.Stream(t.Context(), func(exchange.StreamEvent) {}); !errors.Is(err, ErrClosed) {
		t.Errorf("stream: %v", err)
	}
}

// What cannot be written down is Unknown, and the last thing the exchange says.
func TestBookThatCannotBeWritten(t *testing.T) {
	path := bookPath(t)
	p := mustOpen(t, path, options())
	streamed := make(chan error, 1)
	joined := make(chan struct{})
	var once sync.Once
	go func() {
		streamed <- p.Stream(context.Background(), func(exchange.StreamEvent) { once.Do(func() { close(joined) }) })
	}()
	<-joined
	if _, _, err := ask(t.Context(), p, func(time.Time) error { return p.book.file.Close() }); err != nil {
		t.Fatal(err)
	}
	if a := p.Place(t.Context(), closing(p, "pc-1", "0.034")); a.Outcome != exchange.Unknown {
		t.Errorf("answer %+v, want unknown", a)
	}
	if _, err := p.Snapshot(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("snapshot: %v, want why the book cannot be written", err)
	}
	if err := <-streamed; !errors.Is(err, os.ErrClosed) {
		t.Errorf("stream: %v", err)
	}
	if err := p.Close(); err == nil {
		t.Error("close says nothing of it")
	}
	if again := mustOpen(t, path, options()); held(t, again, btc) != "0.046" {
		t.Errorf("a restart finds %s", held(t, again, btc))
	}
}

// Many at once: no order executes twice, or more than there is, and the trades add up.
func TestConcurrentOrders(t *testing.T) {
	o := options()
	o.Positions[btc] = ledger.MustQty("0.1")
	p := mustOpen(t, bookPath(t), o)
	ctx, cancel := context.WithCancel(t.Context())
	var wg, streams sync.WaitGroup
	for range 3 {
		streams.Go(func() { p.Stream(ctx, func(exchange.StreamEvent) {}) })
	}
	executed := make(chan ledger.Qty, 200)
	for i := range 200 {
		wg.Go(func() {
			if a := p.Place(t.Context(), closing(p, fmt.Sprintf("pc-%d", i), "0.001")); a.Outcome == exchange.Placed {
				executed <- a.Executed
			}
			p.Snapshot(t.Context())
			p.Trades(t.Context(), "BTCUSDT", 0)
		})
	}
	wg.Wait()
	cancel()
	streams.Wait()
	close(executed)
	var sum ledger.Qty
	for q := range executed {
		sum = sum.Add(q)
	}
	if sum.String() != "0.1" || held(t, p, btc) != "0" {
		t.Errorf("executed %s of 0.1, held %s", sum, held(t, p, btc))
	}
}

func TestRestartFindsTheAccountAgain(t *testing.T) {
	path := bookPath(t)
	p := mustOpen(t, path, options())
	p.Place(t.Context(), closing(p, "pc-1", "0.01"))
	if err := p.Trade(t.Context(), "BTCUSDT", ledger.Both, ledger.MustQty("-3")); err != nil {
		t.Fatal(err)
	}
	stop := closing(p, "pc-2-s1-1", "0.5")
	stop.Direction, stop.Trigger = ledger.Buy, ledger.MustPrice("500000")
	if a := p.Place(t.Context(), stop); a.Outcome != exchange.Placed {
		t.Fatalf("stop %+v", a)
	}
	before := accountOf(t, p)
	p.Close()
	other := options()
	other.Seed, other.Positions = 99, map[ledger.Key]ledger.Qty{btc: ledger.MustQty("7")} // only of a new book
	again := mustOpen(t, path, other)
	if after := accountOf(t, again); before.String() != after.String() {
		t.Errorf("after a restart\n%s\nwant\n%s", after, before)
	}
	if err := again.CancelStop(t.Context(), btc, "pc-2-s1-1"); err != nil {
		t.Errorf("the stop stands no more: %v", err)
	}
	if a := again.Place(t.Context(), exchange.Order{ClientOrderID: "pc-3", Key: btc, Direction: ledger.Buy, Qty: ledger.MustQty("1"), SendBefore: again.Now().Add(time.Second)}); a.OrderID <= before.Orders[len(before.Orders)-1].OrderID {
		t.Errorf("order id %d was given before", a.OrderID)
	}
	if last, _ := again.LastTradeID(t.Context(), "BTCUSDT"); last <= before.Last {
		t.Errorf("trade id %d after %d", last, before.Last)
	}
}

// The answer comes after the write: a copy of the book taken when it came holds the order.
func TestBookHoldsWhatWasAnswered(t *testing.T) {
	path := bookPath(t)
	p := mustOpen(t, path, options())
	for i := range 5 {
		id := fmt.Sprintf("pc-%d", i)
		a := p.Place(t.Context(), closing(p, id, "0.001"))
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		copied := bookPath(t)
		if err := os.WriteFile(copied, text, 0o600); err != nil {
			t.Fatal(err)
		}
		killed := mustOpen(t, copied, options())
		if s, err := killed.Find(t.Context(), btc, id); err != nil || s.OrderID != a.OrderID || !s.Executed.Equal(a.Executed) {
			t.Errorf("answered %+v, the copy holds %+v %v", a, s, err)
		}
	}
}
