package exchange_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/exchange/binance"
	"permitchain/exchange/paper"
	"permitchain/exchange/sandbox"
	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// bench is an exchange under test, and what only its maker can do to the account.
type bench struct {
	exchange.Exchange
	t    *testing.T
	key  ledger.Key // of the position it begins with: 0.046 long
	hand func(qty ledger.Qty) error
	mark func(price ledger.Price) error // nil: its price cannot be moved
	box  *sandbox.Sandbox               // nil: it is another exchange
	sent int
}

var held = ledger.MustQty("0.046")

// benches are the implementations of the port, in both position modes.
func benches(t *testing.T, test func(*testing.T, *bench)) {
	for _, side := range []ledger.Side{ledger.Both, ledger.Long} {
		key := ledger.Key{Symbol: "BTCUSDT", Side: side}
		t.Run("paper/"+string(side), func(t *testing.T) { test(t, onPaper(t, key)) })
		t.Run("binance/"+string(side), func(t *testing.T) { test(t, onSandbox(t, key, nil)) })
	}
}

func onPaper(t *testing.T, key ledger.Key) *bench {
	p, err := paper.Open(filepath.Join(t.TempDir(), "book"), paper.Options{
		Seed: 1, Symbols: []string{"BTCUSDT", "ETHUSDT"}, Positions: map[ledger.Key]ledger.Qty{key: held}, Hedge: key.Side != ledger.Both,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return &bench{Exchange: p, t: t, key: key, hand: func(q ledger.Qty) error { return p.Trade(t.Context(), key.Symbol, key.Side, q) }}
}

// onSandbox is the adapter on a sandbox, over a network: that of 127.0.0.1 where there is none.
func onSandbox(t *testing.T, key ledger.Key, network *sandbox.Wire) *bench {
	const apiKey, secret = "dbefbc809e3e83c283a984c3a1459732ea7db136", "2b5eb11e18796d12d88f13dc27dbbd02c2cc51ff"
	s := sandbox.New(sandbox.Options{
		Seed: 1, Symbols: []string{"BTCUSDT", "ETHUSDT"}, Positions: map[ledger.Key]ledger.Qty{key: held}, Hedge: key.Side != ledger.Both,
		Key: apiKey, Secret: secret,
	})
	server := httptest.NewUnstartedServer(s.Handler())
	var dial func(context.Context, string, string) (net.Conn, error)
	if network != nil {
		_ = server.Listener.Close() // It was opened for nothing.
		server.Listener, dial = network, network.Dial
	}
	server.Start()
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	credentials, err := binance.NewCredentials(apiKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	b, err := binance.Open(t.Context(), binance.Options{
		RESTURL: server.URL, StreamURL: "ws" + strings.TrimPrefix(server.URL, "http"), Credentials: credentials, RecvWindow: time.Second, Timeout: time.Second,
		Symbols: []string{"BTCUSDT", "ETHUSDT"}, Bar: time.Minute, Dial: dial, Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := b.Close()
		stop()
		if ran := <-ran; err != nil || (ran != nil && !errors.Is(ran, context.Canceled)) {
			t.Errorf("%v, %v", err, ran)
		}
		server.Close()
	})
	return &bench{
		Exchange: b, t: t, key: key, box: s,
		hand: func(q ledger.Qty) error {
			return s.Do(func(v *venue.Venue, now time.Time) (venue.Change, error) { return v.Trade(now, key, q) })
		},
		mark: func(p ledger.Price) error {
			return s.Do(func(v *venue.Venue, now time.Time) (venue.Change, error) { return v.Mark(now, key.Symbol, p), nil })
		},
	}
}

// order is a close of the position.
func (b *bench) order(qty string) exchange.Order {
	b.sent++
	return exchange.Order{
		ClientOrderID: ledger.ClientOrderID("0123456789abcdef", 1, b.sent), Key: b.key, Direction: ledger.Sell, Qty: ledger.MustQty(qty), SendBefore: b.Now().Add(time.Second),
	}
}

func (b *bench) stop(qty, trigger string) exchange.Order {
	o := b.order(qty)
	o.ClientOrderID, o.Trigger = ledger.StopOrderID("0123456789abcdef", 1, b.sent), ledger.MustPrice(trigger)
	return o
}

// place sends an order that must be placed and filled whole.
func (b *bench) place(o exchange.Order) exchange.Answer {
	b.t.Helper()
	a := b.Place(b.t.Context(), o)
	if a.Outcome != exchange.Placed || a.OrderID <= 0 {
		b.t.Fatalf("%s: %+v", o.ClientOrderID, a)
	}
	return a
}

func (b *bench) amount() ledger.Qty {
	b.t.Helper()
	s, err := b.Snapshot(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return s.Of(b.key).Amount
}

func TestContractOfClosing(t *testing.T) {
	benches(t, func(t *testing.T, b *bench) {
		s, err := b.Snapshot(t.Context())
		if err != nil || s.Hedge != (b.key.Side == ledger.Long) || !s.Of(b.key).Amount.Equal(held) || s.Of(b.key).Entry.Sign() <= 0 || s.SentAt.After(b.Now()) || len(s.Holdings) != 1 {
			t.Fatalf("%+v, %v", s, err)
		}
		cursor, err := b.LastTradeID(t.Context(), "BTCUSDT")
		if err != nil {
			t.Fatal(err)
		}
		before := b.Now().Add(-time.Second)
		o := b.order("0.010")
		a := b.place(o)
		if a.Status != "FILLED" || !a.Executed.Equal(o.Qty) {
			t.Errorf("the answer is %+v", a)
		}
		f, err := b.Find(t.Context(), b.key, o.ClientOrderID)
		if err != nil || f.ClientOrderID != o.ClientOrderID || f.OrderID != a.OrderID || f.Key != b.key || f.Direction != ledger.Sell || f.Status != "FILLED" ||
			!f.Qty.Equal(o.Qty) || !f.Executed.Equal(o.Qty) || !f.Trigger.IsZero() || f.CreatedAt.Before(before) || f.CreatedAt.After(b.Now().Add(time.Second)) {
			t.Errorf("found %+v, %v", f, err)
		}
		trades, err := b.Trades(t.Context(), "BTCUSDT", cursor)
		var sum ledger.Qty
		last := cursor
		for _, tr := range trades {
			sum = sum.Add(tr.Direction.Signed(tr.Qty))
			if tr.ID <= last || tr.ClientOrderID != o.ClientOrderID || tr.OrderID != a.OrderID || tr.Key != b.key || tr.FeeUSD.Sign() <= 0 || tr.Price.Sign() <= 0 || tr.At.Before(before) {
				t.Errorf("trade %+v", tr)
			}
			last = tr.ID
		}
		if newest, err2 := b.LastTradeID(t.Context(), "BTCUSDT"); err != nil || err2 != nil || sum.String() != "-0.01" || newest != last || last == cursor {
			t.Errorf("trades of %s up to %d, the newest is %d (%v, %v)", sum, last, newest, err, err2)
		}
		if rest, err := b.Trades(t.Context(), "BTCUSDT", last); err != nil || len(rest) != 0 {
			t.Errorf("after the last: %v, %v", rest, err)
		}
		orders, err := b.OrdersSince(t.Context(), "BTCUSDT", before)
		if err != nil || len(orders) != 1 || fmt.Sprint(orders[0]) != fmt.Sprint(f) {
			t.Errorf("listed %+v, %v", orders, err)
		}
		if q := b.amount(); q.String() != "0.036" {
			t.Errorf("held %s", q)
		}
		rest := map[ledger.Side]string{ledger.Both: "5", ledger.Long: "0.036"}[b.key.Side] // Only reduceOnly is cut to what is held.
		a = b.place(b.order(rest))
		if a.Executed.String() != "0.036" || !b.amount().IsZero() {
			t.Errorf("the rest: %+v, held %s", a, b.amount())
		}
		if s, err := b.Snapshot(t.Context()); err != nil || len(s.Holdings) != 0 {
			t.Errorf("flat: %+v, %v", s, err)
		}
		if a := b.Place(t.Context(), b.order("0.001")); a.Outcome != exchange.NotPlaced || a.Code != -2022 || a.RateLimited {
			t.Errorf("when flat: %+v", a)
		}
	})
}

func TestContractOfRefusals(t *testing.T) {
	benches(t, func(t *testing.T, b *bench) {
		late, wrong, other := b.order("0.001"), b.order("0.001"), b.order("0.001")
		late.SendBefore = b.Now()
		wrong.Direction = ledger.Buy
		other.Key.Side = map[ledger.Side]ledger.Side{ledger.Both: ledger.Long, ledger.Long: ledger.Both}[b.key.Side]
		wrongCode := map[ledger.Side]int64{ledger.Both: -2022, ledger.Long: 0}[b.key.Side] // In hedge mode it is not even sent.
		otherCode := map[ledger.Side]int64{ledger.Both: -4061, ledger.Long: -1106}[b.key.Side]
		for name, c := range map[string]struct {
			order exchange.Order
			code  int64
		}{
			"too late":                {late, 0},
			"that would grow":         {wrong, wrongCode},
			"of another mode":         {other, otherCode},
			"off the step":            {b.order("0.0011"), -1111},
			"more than one may take":  {b.order("100000"), -4005},
			"a stop that is due":      {b.stop("0.001", "1000000"), -2021},
			"a stop of another's day": {func() exchange.Order { o := b.stop("0.001", "10"); o.SendBefore = b.Now(); return o }(), 0},
		} {
			if a := b.Place(t.Context(), c.order); a.Outcome != exchange.NotPlaced || a.Code != c.code || a.RateLimited {
				t.Errorf("an order %s: %+v, want %d", name, a, c.code)
			}
			if _, err := b.Find(t.Context(), b.key, c.order.ClientOrderID); !errors.Is(err, exchange.ErrNotFound) {
				t.Errorf("an order %s is found: %v", name, err)
			}
		}
		if q := b.amount(); !q.Equal(held) {
			t.Errorf("held %s", q)
		}
		if all, err := b.OpenOrders(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("open: %v, %v", all, err)
		}
	})
}

func TestContractOfStops(t *testing.T) {
	benches(t, func(t *testing.T, b *bench) {
		before := b.Now().Add(-time.Second)
		o := b.stop("0.046", "100.1")
		a := b.place(o)
		want := exchange.OrderState{ClientOrderID: o.ClientOrderID, OrderID: a.OrderID, Key: b.key, Direction: ledger.Sell, Status: "NEW"}
		check := func(what string, s exchange.OrderState, err error) {
			t.Helper()
			if err != nil || !s.Qty.Equal(o.Qty) || !s.Trigger.Equal(o.Trigger) || !s.Executed.IsZero() || s.CreatedAt.Before(before) || s.CreatedAt.After(b.Now().Add(time.Second)) {
				t.Errorf("%s: %+v, %v", what, s, err)
			}
			s.Qty, s.Trigger, s.Executed, s.CreatedAt = want.Qty, want.Trigger, want.Executed, want.CreatedAt
			if s != want {
				t.Errorf("%s: %+v, want %+v", what, s, want)
			}
		}
		s, err := b.Find(t.Context(), b.key, o.ClientOrderID)
		check("found", s, err)
		for what, list := range map[string]func() ([]exchange.OrderState, error){
			"open":   func() ([]exchange.OrderState, error) { return b.OpenOrders(t.Context()) },
			"listed": func() ([]exchange.OrderState, error) { return b.OrdersSince(t.Context(), "BTCUSDT", before) },
		} {
			all, err := list()
			if len(all) != 1 || err != nil {
				t.Fatalf("%s: %v, %v", what, all, err)
			}
			check(what, all[0], nil)
		}
		if err := b.CancelStop(t.Context(), b.key, o.ClientOrderID); err != nil {
			t.Error(err)
		}
		if err := b.CancelStop(t.Context(), b.key, o.ClientOrderID); !errors.Is(err, exchange.ErrNotFound) {
			t.Errorf("cancelled twice: %v", err)
		}
		want.Status = "CANCELED"
		s, err = b.Find(t.Context(), b.key, o.ClientOrderID)
		check("cancelled", s, err)
		if all, err := b.OpenOrders(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("open: %v, %v", all, err)
		}
		if q := b.amount(); !q.Equal(held) {
			t.Errorf("held %s", q)
		}
	})
}

// A stop that triggers is the order it became, and its trades are the stop's.
func TestContractOfTriggeredStops(t *testing.T) {
	benches(t, func(t *testing.T, b *bench) {
		if b.mark == nil {
			t.Skip("its price cannot be moved")
		}
		for _, listFirst := range []bool{false, true} {
			cursor, err := b.LastTradeID(t.Context(), "BTCUSDT")
			if err != nil {
				t.Fatal(err)
			}
			before := b.Now().Add(-time.Second)
			o := b.stop("0.020", "100.1")
			a := b.place(o)
			if err := b.mark(ledger.MustPrice("100")); err != nil {
				t.Fatal(err)
			}
			ask := func() []ledger.Trade {
				trades, err := b.Trades(t.Context(), "BTCUSDT", cursor)
				if err != nil {
					t.Fatal(err)
				}
				return trades
			}
			var trades []ledger.Trade
			if !listFirst {
				trades = ask()
			}
			s, err := b.Find(t.Context(), b.key, o.ClientOrderID)
			if err != nil || s.ClientOrderID != o.ClientOrderID || s.OrderID == a.OrderID || s.Status != "FILLED" || !s.Executed.Equal(o.Qty) || !s.Trigger.Equal(o.Trigger) {
				t.Errorf("found %+v, %v", s, err)
			}
			all, err := b.OrdersSince(t.Context(), "BTCUSDT", before)
			if i := slices.IndexFunc(all, func(l exchange.OrderState) bool { return l.ClientOrderID == o.ClientOrderID }); err != nil || i < 0 || fmt.Sprint(all[i]) != fmt.Sprint(s) {
				t.Errorf("listed %+v, %v", all, err)
			}
			if listFirst {
				trades = ask()
			}
			var sum ledger.Qty
			for _, tr := range trades {
				sum = sum.Add(tr.Qty)
				if tr.ClientOrderID != o.ClientOrderID || tr.OrderID != s.OrderID {
					t.Errorf("trade %+v", tr)
				}
			}
			if !sum.Equal(o.Qty) {
				t.Errorf("trades of %s", sum)
			}
			if err := b.CancelStop(t.Context(), b.key, o.ClientOrderID); !errors.Is(err, exchange.ErrNotFound) {
				t.Errorf("cancelled after it triggered: %v", err)
			}
			if err := b.mark(ledger.MustPrice("60000")); err != nil {
				t.Fatal(err)
			}
		}
		if q := b.amount(); q.String() != "0.006" {
			t.Errorf("held %s", q)
		}
	})
}

// What others do is told as theirs.
func TestContractOfOthers(t *testing.T) {
	benches(t, func(t *testing.T, b *bench) {
		cursor, err := b.LastTradeID(t.Context(), "BTCUSDT")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.hand(ledger.MustQty("0.004")); err != nil {
			t.Fatal(err)
		}
		trades, err := b.Trades(t.Context(), "BTCUSDT", cursor)
		if err != nil || len(trades) == 0 {
			t.Fatalf("%v, %v", trades, err)
		}
		for _, tr := range trades {
			if tr.ClientOrderID == "" || ledger.OfOurForm(tr.ClientOrderID) || tr.Direction != ledger.Buy {
				t.Errorf("trade %+v", tr)
			}
		}
		if q := b.amount(); q.String() != "0.05" {
			t.Errorf("held %s", q)
		}
	})
}

func TestContractOfQueries(t *testing.T) {
	benches(t, func(t *testing.T, b *bench) {
		m, err := b.Markets(t.Context(), []string{"BTCUSDT", "NOSUCHUSDT"})
		if err != nil || len(m) != 1 || m["BTCUSDT"].Symbol != "BTCUSDT" || m["BTCUSDT"].Lot.Step.String() != "0.001" || m["BTCUSDT"].Tick.Sign() <= 0 || m["BTCUSDT"].Lot.Max.Sign() <= 0 {
			t.Errorf("%+v, %v", m, err)
		}
		for _, limit := range []int{1, 300, exchange.BarsPage} {
			bars, err := b.Bars(t.Context(), "ETHUSDT", limit)
			if err != nil || len(bars) > limit || len(bars) < limit-1 || len(bars) == 0 && limit > 0 {
				t.Fatalf("%d bars of %d, %v", len(bars), limit, err)
			}
			for i, bar := range bars {
				if bar.Symbol != "ETHUSDT" || bar.CloseAt.Sub(bar.OpenAt) != time.Minute || bar.High.Less(bar.Low) || i > 0 && !bar.OpenAt.Equal(bars[i-1].CloseAt) {
					t.Fatalf("bar %d of %d: %+v", i, limit, bar)
				}
			}
			if newest := bars[len(bars)-1].CloseAt; newest.After(b.Now()) || b.Now().Sub(newest) > 61*time.Second {
				t.Errorf("the newest bar closed at %s", newest)
			}
		}
		done, cancel := context.WithCancel(t.Context())
		cancel()
		_, err1 := b.Snapshot(done)
		_, err2 := b.Trades(done, "BTCUSDT", 0)
		_, err3 := b.Find(done, b.key, "pc-1")
		_, err4 := b.OpenOrders(done)
		for _, err := range []error{err1, err2, err3, err4, b.CancelStop(done, b.key, "pc-1")} {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("with a context that is done: %v", err)
			}
		}
		if a := b.Place(done, b.order("0.001")); a.Outcome != exchange.NotPlaced {
			t.Errorf("with a context that is done: %+v", a)
		}
	})
}

// The streams tell of prices, and of what happens on the account.
func TestContractOfStreams(t *testing.T) {
	benches(t, func(t *testing.T, b *bench) {
		ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
		defer stop()
		events := make(chan exchange.StreamEvent, 4096)
		ended := make(chan error, 1)
		go func() { ended <- b.Stream(ctx, func(e exchange.StreamEvent) { events <- e }) }()
		o := b.order("0.010")
		var mark, changed bool
		var traded ledger.Qty
		for sent := false; !mark || !changed || traded.Less(o.Qty); {
			select {
			case e := <-events:
				mark = mark || e.Mark != nil && e.Mark.Price.Sign() > 0
				changed = changed || e.Changed != nil
				if e.Trade != nil && e.Trade.ClientOrderID == o.ClientOrderID {
					traded = traded.Add(e.Trade.Qty)
				}
				if b.mark == nil {
					traded = o.Qty // Paper tells of changes only.
				}
				if mark && changed && !sent || mark && b.mark == nil && !sent {
					sent = true
					o.SendBefore = b.Now().Add(time.Second)
					b.place(o)
				}
			case <-ctx.Done():
				t.Fatalf("mark %t, changed %t, traded %s", mark, changed, traded)
			}
		}
		stop()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// Orders sent at the same time are all executed once.
func TestContractOfConcurrency(t *testing.T) {
	benches(t, func(t *testing.T, b *bench) {
		const orders = 20
		answers := make(chan exchange.Answer, orders)
		for range orders {
			o := b.order("0.002")
			go func() { answers <- b.Place(context.Background(), o) }()
		}
		var sum ledger.Qty
		for range orders {
			a := <-answers
			if a.Outcome != exchange.Placed {
				t.Errorf("%+v", a)
			}
			sum = sum.Add(a.Executed)
		}
		if got := fmt.Sprint(sum, " ", b.amount()); got != "0.04 0.006" {
			t.Errorf("executed and held: %s", got)
		}
	})
}
