package binance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/exchange/sandbox"
	"permitchain/exchange/venue"
	"permitchain/ledger"
)

const (
	dayKey    = "dbefbc809e3e83c283a984c3a1459732ea7db1360ca80c5c2c8867408d28cc83"
	daySecret = "2b5eb11e18796d12d88f13dc27dbbd02c2cc51ff7059765ed9821957d82bb4d9"
)

// day is an account on the sandbox, traded on by hand and by us, and a consumer who knows of its trades only
// what the stream told, and what REST answered when the stream said that there was something to ask.
type day struct {
	t     *testing.T
	net   *memNet
	box   *sandbox.Sandbox
	b     *Binance
	faced map[sandbox.Kind]int // faults that were armed

	ask chan struct{} // of 1: something has changed

	mu       sync.Mutex // guards what follows
	known    map[ledger.Key]map[int64]ledger.Trade
	streamed map[string]int // emissions, by symbol and trade id
	early    int            // orders whose steps were told before they were answered
	late     time.Duration  // the longest that a trade was not known
	marks    int
	bars     map[time.Time]int
	orders   map[string][]exchange.OrderState // by client id
}

func daySymbols() []string { return []string{"BTCUSDT", "ETHUSDT"} }

func newDay(t *testing.T, ctx context.Context) (*day, func()) {
	d := &day{
		t: t, net: newMemNet(), faced: map[sandbox.Kind]int{}, ask: make(chan struct{}, 1),
		known: map[ledger.Key]map[int64]ledger.Trade{}, streamed: map[string]int{}, bars: map[time.Time]int{}, orders: map[string][]exchange.OrderState{},
	}
	d.box = sandbox.New(sandbox.Options{
		Seed: 5, Symbols: daySymbols(), Key: dayKey, Secret: daySecret, Odds: venue.Odds{Split: 0.4, Expire: 0.1, Rest: 0.1},
		Positions: map[ledger.Key]ledger.Qty{bothOf("BTCUSDT"): ledger.MustQty("50"), bothOf("ETHUSDT"): ledger.MustQty("-900")},
	})
	var running sync.WaitGroup
	running.Go(func() { _ = d.box.Run(ctx) })
	web := &http.Server{Handler: d.box.Handler()}
	running.Go(func() { _ = web.Serve(d.net) })
	secret, err := NewCredentials(dayKey, daySecret)
	if err != nil {
		t.Fatal(err)
	}
	d.b, err = Open(ctx, Options{
		RESTURL: "http://exchange", StreamURL: "ws://exchange", Credentials: secret, RecvWindow: 5 * time.Second, Timeout: 10 * time.Second,
		Symbols: daySymbols()[:1], Bar: time.Minute, Dial: d.net.dial, Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() {
		if err := d.b.Stream(ctx, d.hear); ctx.Err() == nil {
			t.Errorf("the stream ended: %v", err)
		}
	})
	running.Go(func() { d.answer(ctx) })
	return d, func() {
		_ = d.b.Close()
		_ = web.Close()
		running.Wait()
	}
}

func bothOf(symbol string) ledger.Key { return ledger.Key{Symbol: symbol, Side: ledger.Both} }

// hear is the consumer's ear.
func (d *day) hear(e exchange.StreamEvent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case e.Mark != nil:
		d.marks++
	case e.Bar != nil:
		d.bars[e.Bar.OpenAt]++
	case e.Trade != nil:
		id := fmt.Sprint(e.Trade.Symbol, e.Trade.ID)
		if d.streamed[id]++; d.streamed[id] > 1 {
			d.t.Errorf("trade %s was emitted twice", id)
		}
		d.know(*e.Trade)
	case e.Order != nil:
		d.orders[e.Order.ClientOrderID] = append(d.orders[e.Order.ClientOrderID], *e.Order)
	case e.Changed != nil:
		d.ring()
	}
}

func (d *day) ring() {
	select {
	case d.ask <- struct{}{}:
	default:
	}
}

// know is what the consumer remembers. Stream and REST must say the same of a trade.
func (d *day) know(t ledger.Trade) {
	if d.known[t.Key] == nil {
		d.known[t.Key] = map[int64]ledger.Trade{}
	}
	was, known := d.known[t.Key][t.ID]
	if known && !same(was, t) {
		d.t.Errorf("a trade is %s and %s", told(was), told(t))
	}
	if !known {
		d.known[t.Key][t.ID] = t
		d.late = max(d.late, time.Since(t.At))
	}
}

// told is a trade as text: a Key in it would speak for all of it.
func told(t ledger.Trade) string {
	return fmt.Sprint(t.Key, t.ID, t.OrderID, t.ClientOrderID, t.Direction, t.Qty, t.Price, t.FeeUSD, t.At.UnixMilli())
}

// same compares what the exchange says of a trade: its fee has eight decimals.
func same(a, b ledger.Trade) bool {
	a.FeeUSD, b.FeeUSD = ledger.MustUSD(a.FeeUSD.Fixed(8)), ledger.MustUSD(b.FeeUSD.Fixed(8))
	return told(a) == told(b)
}

// answer asks REST when the stream says that something changed, or an order was sent, and at no other time.
func (d *day) answer(ctx context.Context) {
	cursor := map[string]int64{}
	for {
		select {
		case <-d.ask:
		case <-ctx.Done():
			return
		}
		for _, symbol := range daySymbols() {
			trades, err := exchange.TradesAfter(ctx, d.b, symbol, cursor[symbol])
			if err != nil {
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return
				}
				d.ring()
				continue
			}
			d.mu.Lock()
			for _, t := range trades {
				d.know(t)
				cursor[symbol] = t.ID
			}
			d.mu.Unlock()
		}
	}
}

func (d *day) arm(k sandbox.Kind, call string, lasts time.Duration) {
	d.faced[k]++
	if err := d.box.Arm(sandbox.Fault{Kind: k, Call: call, Lasts: lasts}); err != nil {
		d.t.Error(err)
	}
}

// hand trades by hand, so that the position swings around where it began.
func (d *day) hand(n int) {
	k, q := bothOf("BTCUSDT"), "1.5"
	if n%2 == 1 {
		k, q = bothOf("ETHUSDT"), "-7"
	}
	qty := ledger.MustQty(q)
	if n/2%3 == 2 {
		qty = qty.Neg()
	}
	err := d.box.Do(func(v *venue.Venue, now time.Time) (venue.Change, error) { return v.Trade(now, k, qty) })
	if err != nil {
		d.t.Errorf("trade by hand: %v", err)
	}
}

// order sends one of ours. What becomes of it the streams tell.
func (d *day) order(ctx context.Context, n int) string {
	o := exchange.Order{
		ClientOrderID: ledger.ClientOrderID(ledger.PlanID(fmt.Sprintf("%016x", n)), 1, 1), Key: bothOf("BTCUSDT"), Direction: ledger.Sell,
		Qty: ledger.MustQty("0.5"), SendBefore: d.b.Now().Add(5 * time.Second),
	}
	if n%2 == 1 {
		o.Key, o.Direction, o.Qty = bothOf("ETHUSDT"), ledger.Buy, ledger.MustQty("2")
	}
	if a := d.b.Place(ctx, o); a.Outcome != exchange.Placed {
		d.t.Errorf("order %d: %+v", n, a)
	}
	d.mu.Lock()
	if len(d.orders[o.ClientOrderID]) > 0 {
		d.early++
	}
	d.mu.Unlock()
	d.ring() // Whoever sent an order asks what came of it.
	return o.ClientOrderID
}

// deleteKey is another process of the account, which ends the listen key that we share.
func (d *day) deleteKey(ctx context.Context) {
	web := &http.Client{Transport: &http.Transport{DialContext: d.net.dial, DisableKeepAlives: true}}
	q, err := http.NewRequestWithContext(ctx, http.MethodDelete, "http://exchange/fapi/v1/listenKey", nil)
	if err != nil {
		d.t.Error(err)
		return
	}
	q.Header.Set("X-MBX-APIKEY", dayKey)
	a, err := web.Do(q)
	if err != nil || a.StatusCode != http.StatusOK {
		d.t.Errorf("delete the listen key: %v %v", a, err)
		return
	}
	a.Body.Close()
}

// TestADayOfStreams is a day and an hour of everything that sockets do, and an hour of peace: at the end the consumer
// knows the venue's trades, each exactly as it was.
func TestADayOfStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		d, end := newDay(t, ctx)
		defer end()
		defer stop()
		var ours []string
		minutes := 25 * 60
		for m := range minutes {
			wait(time.Minute)
			if m%7 == 3 {
				d.hand(m / 7)
			}
			if m%13 == 5 {
				ours = append(ours, d.order(ctx, m/13))
			}
			d.mischief(ctx, m)
		}
		d.box.Disarm()
		wait(70 * time.Minute) // A stream that is silent without anyone knowing is replaced within the hour.
		d.compare(ours)
		d.faults()
	})
}

// mischief is what happens in a minute.
func (d *day) mischief(ctx context.Context, m int) {
	const private, market = "ws private", "ws market"
	if m < 60 && m%5 == 2 { // After that the socket grows old undisturbed.
		d.arm([]sandbox.Kind{sandbox.WSSilent, sandbox.WSRefused}[m%2], market, 0)
		d.arm(sandbox.WSDrop, market, 0)
	}
	switch m % 173 {
	case 4, 24:
		d.arm(sandbox.WSDuplicate, private, 0)
	case 12:
		d.arm(sandbox.WSReorder, private, 0)
	case 20, 25:
		d.arm(sandbox.WSDropFill, private, 0)
	case 31:
		d.arm(sandbox.WSLoseUpdate, private, 0)
	case 40:
		d.arm(sandbox.WSAmendment, private, 0)
	case 47:
		d.arm(sandbox.WSUnknown, private, 0)
	case 55:
		d.arm(sandbox.WSExpired, private, 0)
	case 62:
		d.arm(sandbox.WSRefused, private, 0)
		d.arm(sandbox.WSDrop, private, 0)
	case 70: // The next connection is silent.
		d.arm(sandbox.WSSilent, private, 0)
		d.arm(sandbox.WSDrop, private, 0)
	case 110:
		d.arm(sandbox.WSNoPings, private, 0)
		d.arm(sandbox.WSDrop, private, 0)
	case 137: // What an order of ours did is told before the answer to its sending.
		d.arm(sandbox.SlowAnswer, "POST /fapi/v1/order", 0)
	case 145:
		d.faced["cut"]++
		d.net.cut("/private/")
	case 150:
		d.faced["deleted"]++
		d.deleteKey(ctx)
	}
}

func (d *day) compare(ours []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	trades, traded := 0, map[string]ledger.Qty{}
	for _, symbol := range daySymbols() {
		var all []ledger.Trade
		_ = d.box.Do(func(v *venue.Venue, _ time.Time) (venue.Change, error) {
			all = v.Trades(symbol, 0, 1<<30)
			return venue.Change{}, errors.New("nothing is changed")
		})
		trades += len(all)
		known := d.known[bothOf(symbol)]
		for _, t := range all {
			traded[t.ClientOrderID] = traded[t.ClientOrderID].Add(t.Qty)
			if k, ok := known[t.ID]; !ok || !same(k, t) {
				d.t.Errorf("trade %s is known as %s (%v)", told(t), told(k), ok)
			}
		}
		if len(known) != len(all) {
			d.t.Errorf("%d trades of %s are known, %d happened", len(known), symbol, len(all))
		}
	}
	finished := 0
	for _, id := range ours {
		steps := d.orders[id]
		var last exchange.OrderState
		for i, s := range steps {
			if s.Executed.Less(last.Executed) || (i > 0 && rank(s.Status) < rank(last.Status)) {
				d.t.Errorf("order %s went back: %+v", id, steps)
			}
			last = s
		}
		if rank(last.Status) == 2 {
			finished++
			if !last.Executed.Equal(traded[id]) {
				d.t.Errorf("order %s executed %s, the stream says %s", id, traded[id], last.Executed)
			}
		}
	}
	f := d.b.Health().Stream
	d.t.Logf("%d trades: %d told by the stream, %d only by REST, the last after %v; %d of our %d orders seen to their end; %d prices, %d bars",
		trades, len(d.streamed), trades-len(d.streamed), d.late, finished, len(ours), d.marks, len(d.bars))
	d.t.Logf("%+v", f)
	if trades < 300 || len(d.streamed) < trades/2 || len(d.streamed) == trades || finished < len(ours)/2 {
		d.t.Error("the day was too quiet to prove anything")
	}
	if d.late > userLife+time.Minute {
		d.t.Errorf("a trade was not known for %v", d.late)
	}
	if d.marks < 25*3600*95/100 || len(d.bars) < 25*60*95/100 {
		d.t.Errorf("%d prices and %d bars in 25 hours", d.marks, len(d.bars))
	}
	for at, n := range d.bars {
		if n > 1 {
			d.t.Errorf("the bar of %v came %d times", at, n)
		}
	}
}

// faults shows that each fault happened: it is armed no more, and left its mark.
func (d *day) faults() {
	f := d.b.Health().Stream
	for name, n := range map[string]int64{
		"connections of the account": f.User.Connects - 24, "lost connections of the account": f.User.Losses - 20, "connections of the account that last": 150 - f.User.Connects, "rollovers of the account": f.User.Rollovers - 10,
		"lost connections of the market": f.Market.Losses - 10, "rollovers of the market": f.Market.Rollovers, "repeated events": f.Repeated - 10,
		"unknown events": f.Unknown["STRATEGY_UPDATE"] - 5, "expired keys": f.Events[saidExpired] - 5, "proofs of silence": f.Silences - 3,
		"TRADE_LITE": f.Events[saidLite], "ACCOUNT_UPDATE": f.Events[saidAccount],
	} {
		if n <= 0 {
			d.t.Errorf("too few %s: %+v", name, f)
		}
	}
	if f.Malformed != 0 || !f.User.Connected || !f.Market.Connected {
		d.t.Errorf("at the end: %+v", f)
	}
	if len(d.faced) != 14 || d.early < 4 || slices.Min(slices.Collect(maps.Values(d.faced))) < 8 {
		d.t.Errorf("faults: %v; %d orders were told of early", d.faced, d.early)
	}
	if strings.Contains(fmt.Sprintf("%+v", f), "listenKey=") {
		d.t.Error("the facts name the listen key")
	}
}
