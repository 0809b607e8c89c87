package venue

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

var (
	t0   = time.Date(2026, 1, 25, 0, 0, 0, 0, time.UTC)
	btc  = ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}
	long = ledger.Key{Symbol: "BTCUSDT", Side: ledger.Long}
	shrt = ledger.Key{Symbol: "BTCUSDT", Side: ledger.Short}
)

func market(symbol string) exchange.Market {
	return exchange.Market{
		Symbol: symbol, Tick: ledger.MustPrice("0.1"),
		Lot: ledger.Lot{Step: ledger.MustQty("0.001"), Min: ledger.MustQty("0.001"), Max: ledger.MustQty("120")},
	}
}

// at makes a venue with a mark price of 100 that holds what is said.
func at(o Options, holds map[ledger.Key]string) *Venue {
	var s State
	s.Hedge = o.Hedge
	for k, q := range holds {
		s.Holdings = append(s.Holdings, ledger.Holding{Key: k, Amount: ledger.MustQty(q), Entry: ledger.MustPrice("90")})
	}
	v := Restore(o, s)
	v.List(market("BTCUSDT"))
	v.Mark(t0, "BTCUSDT", ledger.MustPrice("100"))
	return v
}

// closing is a reduce-only request in one-way mode.
func closing(d ledger.Direction, q string) Request {
	return Request{ClientOrderID: "pc-1", Symbol: "BTCUSDT", Direction: d, Qty: ledger.MustQty(q), ReduceOnly: true, SignedAt: t0}
}

func hedged(s ledger.Side, d ledger.Direction, q string) Request {
	return Request{ClientOrderID: "pc-1", Symbol: "BTCUSDT", Side: s, Direction: d, Qty: ledger.MustQty(q), SignedAt: t0}
}

func with(r Request, change func(*Request)) Request {
	change(&r)
	return r
}

func code(t *testing.T, err error) int64 {
	t.Helper()
	if err == nil {
		return 0
	}
	var r Reject
	if !errors.As(err, &r) {
		t.Fatalf("%v is not a Reject", err)
	}
	return r.Code
}

// send is a request that passes door and engine at one instant.
func send(v *Venue, r Request) (Change, error) {
	if err := v.Admit(t0, r); err != nil {
		return Change{}, err
	}
	return v.Place(t0, r)
}

func TestRules(t *testing.T) {
	oneWay, hedge := Options{}, Options{Hedge: true}
	for _, c := range []struct {
		name  string
		o     Options
		holds map[ledger.Key]string
		r     Request
		code  int64
		after map[ledger.Key]string
	}{
		{"closes a part", oneWay, map[ledger.Key]string{btc: "0.046"}, closing(ledger.Sell, "0.034"), 0, map[ledger.Key]string{btc: "0.012"}},
		{"closes all of a short", oneWay, map[ledger.Key]string{btc: "-3"}, closing(ledger.Buy, "3"), 0, nil},
		{"oversize is shrunk", oneWay, map[ledger.Key]string{btc: "0.046"}, closing(ledger.Sell, "5"), 0, nil},
		{"reduce-only when flat", oneWay, nil, closing(ledger.Sell, "1"), -2022, nil},
		{"reduce-only in the position's direction", oneWay, map[ledger.Key]string{btc: "1"}, closing(ledger.Buy, "1"), -2022, map[ledger.Key]string{btc: "1"}},
		{"without reduce-only it turns", oneWay, map[ledger.Key]string{btc: "1"}, with(closing(ledger.Sell, "3"), func(r *Request) { r.ReduceOnly = false }), 0, map[ledger.Key]string{btc: "-2"}},
		{"a position side in one-way mode", oneWay, map[ledger.Key]string{btc: "1"}, hedged(ledger.Long, ledger.Sell, "1"), -4061, map[ledger.Key]string{btc: "1"}},
		{"hedge: closes a long", hedge, map[ledger.Key]string{long: "1", shrt: "-2"}, hedged(ledger.Long, ledger.Sell, "1"), 0, map[ledger.Key]string{shrt: "-2"}},
		{"hedge: closes a short", hedge, map[ledger.Key]string{long: "1", shrt: "-2"}, hedged(ledger.Short, ledger.Buy, "0.5"), 0, map[ledger.Key]string{long: "1", shrt: "-1.5"}},
		{"hedge: opens", hedge, nil, hedged(ledger.Short, ledger.Sell, "2"), 0, map[ledger.Key]string{shrt: "-2"}},
		{"hedge: oversize", hedge, map[ledger.Key]string{long: "1"}, hedged(ledger.Long, ledger.Sell, "1.001"), -2022, map[ledger.Key]string{long: "1"}},
		{"hedge: flat", hedge, map[ledger.Key]string{shrt: "-1"}, hedged(ledger.Long, ledger.Sell, "1"), -2022, map[ledger.Key]string{shrt: "-1"}},
		{"hedge: reduce-only is not to be sent", hedge, map[ledger.Key]string{long: "1"}, with(hedged(ledger.Long, ledger.Sell, "1"), func(r *Request) { r.ReduceOnly = true }), -1106, map[ledger.Key]string{long: "1"}},
		{"hedge: no position side", hedge, map[ledger.Key]string{long: "1"}, hedged("", ledger.Sell, "1"), -4061, map[ledger.Key]string{long: "1"}},
		{"hedge: BOTH", hedge, map[ledger.Key]string{long: "1"}, hedged(ledger.Both, ledger.Sell, "1"), -4061, map[ledger.Key]string{long: "1"}},
		{"nothing", oneWay, map[ledger.Key]string{btc: "1"}, closing(ledger.Sell, "0"), -4003, map[ledger.Key]string{btc: "1"}},
		{"less than nothing", oneWay, map[ledger.Key]string{btc: "1"}, closing(ledger.Sell, "-1"), -4003, map[ledger.Key]string{btc: "1"}},
		{"too precise", oneWay, map[ledger.Key]string{btc: "1"}, closing(ledger.Sell, "0.0015"), -1111, map[ledger.Key]string{btc: "1"}},
		{"under the minimum", oneWay, map[ledger.Key]string{btc: "1"}, closing(ledger.Sell, "0.0005"), -4004, map[ledger.Key]string{btc: "1"}},
		{"the maximum", oneWay, map[ledger.Key]string{btc: "121"}, closing(ledger.Sell, "120"), 0, map[ledger.Key]string{btc: "1"}},
		{"above the maximum", oneWay, map[ledger.Key]string{btc: "121"}, closing(ledger.Sell, "120.001"), -4005, map[ledger.Key]string{btc: "121"}},
		{"unknown symbol", oneWay, nil, with(closing(ledger.Sell, "1"), func(r *Request) { r.Symbol = "NOSUCH" }), -1121, nil},
		{"no direction", oneWay, map[ledger.Key]string{btc: "1"}, closing("SIDEWAYS", "1"), -1117, map[ledger.Key]string{btc: "1"}},
		{"client id too long", oneWay, nil, with(closing(ledger.Sell, "1"), func(r *Request) { r.ClientOrderID = strings.Repeat("x", 37) }), -4015, nil},
		{"client id with a space", oneWay, nil, with(closing(ledger.Sell, "1"), func(r *Request) { r.ClientOrderID = "a b" }), -4015, nil},
		{"window too wide", oneWay, nil, with(closing(ledger.Sell, "1"), func(r *Request) { r.RecvWindow = time.Minute + 1 }), -1131, nil},
		{"trigger off the tick", oneWay, nil, with(closing(ledger.Sell, "1"), func(r *Request) { r.Trigger = ledger.MustPrice("90.05") }), -4014, nil},
		{"trigger below zero", oneWay, nil, with(closing(ledger.Sell, "1"), func(r *Request) { r.Trigger = ledger.MustPrice("-90") }), -4001, nil},
		{"a sale's trigger above the mark", oneWay, nil, with(closing(ledger.Sell, "1"), func(r *Request) { r.Trigger = ledger.MustPrice("100") }), -2021, nil},
		{"a buy's trigger below the mark", oneWay, nil, with(closing(ledger.Buy, "1"), func(r *Request) { r.Trigger = ledger.MustPrice("100") }), -2021, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := at(c.o, c.holds)
			ch, err := send(v, c.r)
			if got := code(t, err); got != c.code {
				t.Fatalf("code %d (%v), want %d", got, err, c.code)
			}
			if err != nil && !ch.Empty() {
				t.Errorf("a refusal changed %+v", ch)
			}
			got := map[ledger.Key]string{}
			for _, h := range v.Holdings() {
				got[h.Key] = h.Amount.String()
			}
			if len(got)+len(c.after) > 0 && !reflect.DeepEqual(got, c.after) {
				t.Errorf("holds %v, want %v", got, c.after)
			}
		})
	}
}

func TestStepThatIsNoPowerOfTen(t *testing.T) {
	v := at(Options{}, map[ledger.Key]string{btc: "10"})
	m := market("BTCUSDT")
	m.Lot.Step, m.Lot.Min = ledger.MustQty("0.5"), ledger.MustQty("0.5")
	v.List(m)
	if _, err := send(v, closing(ledger.Sell, "1.2")); code(t, err) != -4023 {
		t.Errorf("1.2 on a step of 0.5: %v, want -4023", err)
	}
	if _, err := send(v, closing(ledger.Sell, "1.5")); err != nil {
		t.Errorf("1.5 on a step of 0.5: %v", err)
	}
}

func TestShrunkOrderSaysSo(t *testing.T) {
	v := at(Options{}, map[ledger.Key]string{btc: "0.046"})
	c, err := send(v, closing(ledger.Sell, "1"))
	if err != nil {
		t.Fatal(err)
	}
	if o := c.Orders[0]; o.Qty.String() != "0.046" || o.Executed.String() != "0.046" || o.Status != StatusFilled {
		t.Errorf("order %+v, want 0.046 of 0.046 FILLED", o)
	}
}

// The window is looked at twice: at the door, and when the order reaches the engine.
func TestRecvWindow(t *testing.T) {
	v := at(Options{}, map[ledger.Key]string{btc: "1"})
	r := closing(ledger.Sell, "0.1")
	r.RecvWindow = 3 * time.Second
	for _, c := range []struct {
		after        time.Duration
		door, engine int64
	}{
		{-time.Second, -1021, 0},
		{-time.Second + 1, 0, 0},
		{0, 0, 0},
		{3 * time.Second, 0, 0},
		{3*time.Second + 1, -1021, -5028},
	} {
		if got := code(t, v.Admit(t0.Add(c.after), r)); got != c.door {
			t.Errorf("door %v after signing: %d, want %d", c.after, got, c.door)
		}
		if _, err := v.Place(t0.Add(c.after), r); code(t, err) != c.engine {
			t.Errorf("engine %v after signing: %v, want %d", c.after, err, c.engine)
		}
	}
}

func TestClientIDIsUniqueOnlyWhileOpen(t *testing.T) {
	v := at(Options{Odds: Odds{Rest: 1}}, map[ledger.Key]string{btc: "1"})
	first, err := send(v, closing(ledger.Sell, "0.1"))
	if err != nil || !first.Orders[0].open() {
		t.Fatalf("first order %+v %v, want it open", first, err)
	}
	if _, err := send(v, closing(ledger.Sell, "0.1")); code(t, err) != -4116 {
		t.Errorf("the id of an open order: %v, want -4116", err)
	}
	v.Mark(t0, "BTCUSDT", ledger.MustPrice("100"))
	if o, _ := v.Order("BTCUSDT", "pc-1"); o.Status != StatusFilled {
		t.Fatalf("after the next mark the order is %s", o.Status)
	}
	again, err := send(v, closing(ledger.Sell, "0.1"))
	if err != nil {
		t.Fatalf("the id of a filled order is accepted again, but got %v", err)
	}
	if o, _ := v.Order("BTCUSDT", "pc-1"); o.OrderID != again.Orders[0].OrderID {
		t.Errorf("the id finds order %d, want the newest, %d", o.OrderID, again.Orders[0].OrderID)
	}
}

func TestRestingReduceOnly(t *testing.T) {
	v := at(Options{Odds: Odds{Rest: 1}}, map[ledger.Key]string{btc: "1"})
	c, err := send(v, closing(ledger.Sell, "1"))
	if err != nil {
		t.Fatal(err)
	}
	second := closing(ledger.Sell, "0.5")
	second.ClientOrderID = "pc-2"
	if _, err := send(v, second); code(t, err) != -4118 {
		t.Errorf("beside a resting order for all: %v, want -4118", err)
	}
	// The hand turns the position: what rests can reduce nothing any more.
	if _, err := v.Trade(t0, btc, ledger.MustQty("-5")); err != nil {
		t.Fatal(err)
	}
	before := v.amount(btc)
	v.Mark(t0, "BTCUSDT", ledger.MustPrice("100"))
	o, _ := v.Order("BTCUSDT", "pc-1")
	if o.Status != StatusExpired || !o.Executed.Equal(c.Orders[0].Executed) || !v.amount(btc).Equal(before) {
		t.Errorf("after the turn: %+v, position %s, want EXPIRED without another fill and %s", o, v.amount(btc), before)
	}
}

func TestPartialThenExpired(t *testing.T) {
	v := at(Options{Seed: 3, Odds: Odds{Expire: 1}}, map[ledger.Key]string{btc: "1"})
	c, err := send(v, closing(ledger.Sell, "1"))
	if err != nil {
		t.Fatal(err)
	}
	o := c.Orders[0]
	if o.Status != StatusExpired || !o.Executed.Less(o.Qty) || !v.amount(btc).Equal(o.Qty.Sub(o.Executed)) {
		t.Errorf("order %+v, position %s", o, v.amount(btc))
	}
}

func TestSplitFillsWorsenAndPayFees(t *testing.T) {
	v := at(Options{Seed: 1, Fee: ledger.MustPercent("0.05"), Odds: Odds{Split: 1}}, map[ledger.Key]string{btc: "1"})
	c, err := send(v, closing(ledger.Sell, "1"))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Trades) < 2 {
		t.Fatalf("%d trades, want several", len(c.Trades))
	}
	var last int64
	for _, tr := range c.Trades {
		if tr.ID <= last || tr.ClientOrderID != "pc-1" || tr.OrderID != c.Orders[0].OrderID {
			t.Errorf("trade %+v after %d", tr, last)
		}
		last = tr.ID
		if ledger.MustPrice("100").Less(tr.Price) || tr.Price.Less(ledger.MustPrice("99")) {
			t.Errorf("sold at %s with the mark at 100", tr.Price)
		}
		if !tr.FeeUSD.Equal(ledger.Notional(tr.Qty, tr.Price).Of(ledger.MustPercent("0.05"))) {
			t.Errorf("fee %s of %s at %s", tr.FeeUSD, tr.Qty, tr.Price)
		}
	}
}

func TestEntryPrice(t *testing.T) {
	v := at(Options{}, nil)
	for _, c := range []struct{ mark, change, amount, entryMin, entryMax string }{
		{"100", "1", "1", "100", "100.2"},
		{"200", "1", "2", "150", "150.2"},
		{"300", "-1", "1", "150", "150.2"},
		{"400", "-3", "-2", "399.8", "400"},
		{"200", "-2", "-4", "299.8", "300"},
	} {
		v.Mark(t0, "BTCUSDT", ledger.MustPrice(c.mark))
		if _, err := v.Trade(t0, btc, ledger.MustQty(c.change)); err != nil {
			t.Fatal(err)
		}
		h := v.Holdings()[0]
		if h.Amount.String() != c.amount || h.Entry.Less(ledger.MustPrice(c.entryMin)) || ledger.MustPrice(c.entryMax).Less(h.Entry) {
			t.Errorf("after %s at %s: %s from %s, want %s from %s to %s", c.change, c.mark, h.Amount, h.Entry, c.amount, c.entryMin, c.entryMax)
		}
	}
}
