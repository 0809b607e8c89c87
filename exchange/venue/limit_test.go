package venue

import (
	"strings"
	"testing"
	"time"

	"permitchain/ledger"
)

func limit(d ledger.Direction, q, p string) Request {
	return Request{ClientOrderID: "hand", Symbol: "BTCUSDT", Direction: d, Qty: ledger.MustQty(q), ReduceOnly: true, Limit: ledger.MustPrice(p), SignedAt: t0}
}

func TestLimitOrdersWaitForTheirPrice(t *testing.T) {
	v := at(Options{}, map[ledger.Key]string{btc: "2"})
	c := must(t)(send(v, limit(ledger.Sell, "2", "104")))
	if o := c.Orders[0]; o.Status != StatusNew || len(c.Trades) != 0 {
		t.Fatalf("%+v", c)
	}
	if _, err := send(v, closing(ledger.Sell, "1")); code(t, err) != -4118 {
		t.Errorf("a close beside it: %v", err)
	}
	v.Mark(t0, "BTCUSDT", ledger.MustPrice("103.9"))
	if held := v.Holdings(); !held[0].Amount.Equal(ledger.MustQty("2")) {
		t.Errorf("held %v before its price came", held)
	}
	c = v.Mark(t0, "BTCUSDT", ledger.MustPrice("105"))
	if len(v.Holdings()) != 0 || c.Orders[0].Status != StatusFilled || !c.Trades[0].Price.Equal(ledger.MustPrice("104")) {
		t.Errorf("at its price: %+v", c)
	}
	v = at(Options{}, map[ledger.Key]string{btc: "-2"})
	must(t)(send(v, limit(ledger.Buy, "2", "96")))
	v.Mark(t0, "BTCUSDT", ledger.MustPrice("96.1"))
	if len(v.Holdings()) != 1 {
		t.Error("a buy did not wait for its price")
	}
	if v.Mark(t0, "BTCUSDT", ledger.MustPrice("96")); len(v.Holdings()) != 0 {
		t.Error("a buy did not take its price")
	}
	// One whose price is there already takes it at once, and one that nothing is left for goes.
	v = at(Options{}, map[ledger.Key]string{btc: "2"})
	if c = must(t)(send(v, limit(ledger.Sell, "1", "99"))); c.Orders[0].Status != StatusFilled {
		t.Errorf("at a price that is there: %+v", c)
	}
	must(t)(send(v, limit(ledger.Sell, "1", "104")))
	must(t)(v.Trade(t0, btc, ledger.MustQty("-1")))
	if c = v.Mark(t0, "BTCUSDT", ledger.MustPrice("100")); c.Orders[0].Status != StatusExpired || c.Orders[0].Expiry != ExpiryReduce || len(c.Trades) != 0 {
		t.Errorf("with nothing to reduce: %+v", c)
	}
}

func TestCancel(t *testing.T) {
	v := at(Options{}, map[ledger.Key]string{btc: "2"})
	o := must(t)(send(v, limit(ledger.Sell, "2", "104"))).Orders[0]
	if _, err := v.Cancel(t0, "BTCUSDT", o.OrderID+1, "hand"); code(t, err) != -2011 {
		t.Errorf("by another id: %v", err)
	}
	if c := must(t)(v.Cancel(t0, "BTCUSDT", 0, "hand")); c.Orders[0].Status != StatusCanceled {
		t.Errorf("%+v", c)
	}
	for _, symbol := range []string{"BTCUSDT", "NOUSDT"} {
		if _, err := v.Cancel(t0, symbol, o.OrderID, ""); code(t, err) != -2011 {
			t.Errorf("%s again: %v", symbol, err)
		}
	}
	if c := must(t)(send(v, closing(ledger.Sell, "2"))); c.Orders[0].Status != StatusFilled {
		t.Errorf("a close after it: %+v", c)
	}
}

func TestDepth(t *testing.T) {
	v := at(Options{}, map[ledger.Key]string{btc: "2"})
	depth := ledger.MustQty("0.5")
	if was := v.Depth("BTCUSDT", &depth); was != nil {
		t.Errorf("it was %v", was)
	}
	o := must(t)(send(v, closing(ledger.Sell, "2"))).Orders[0]
	if o.Status != StatusExpired || o.Expiry != ExpiryMarket || !o.Executed.Equal(depth) {
		t.Errorf("%+v", o)
	}
	// What the exchange does itself, and what a hand does, is not bounded.
	must(t)(v.Trade(t0, btc, ledger.MustQty("1")))
	if held := v.Holdings(); !held[0].Amount.Equal(ledger.MustQty("2.5")) {
		t.Errorf("held %v", held)
	}
	must(t)(v.Deleverage(t0, btc, ledger.MustQty("1")))
	must(t)(v.Liquidate(t0, btc))
	if len(v.Holdings()) != 0 {
		t.Errorf("held %v after a liquidation", v.Holdings())
	}
	if was := v.Depth("BTCUSDT", nil); was == nil || !was.Equal(depth) {
		t.Errorf("it was %v", was)
	}
	must(t)(v.Trade(t0, btc, ledger.MustQty("1")))
	if o := must(t)(send(v, closing(ledger.Sell, "1"))).Orders[0]; o.Status != StatusFilled {
		t.Errorf("%+v", o)
	}
}

func TestLeastValue(t *testing.T) {
	o := Options{MinNotional: ledger.MustUSD("50")}
	v := at(o, map[ledger.Key]string{btc: "2"})
	open := func(r *Request) { r.ReduceOnly = false }
	if _, err := send(v, with(closing(ledger.Sell, "0.499"), open)); code(t, err) != -4164 {
		t.Errorf("49.9 USD: %v", err)
	}
	must(t)(send(v, with(closing(ledger.Sell, "0.5"), open)))
	must(t)(send(v, with(closing(ledger.Sell, "0.001"), func(r *Request) { r.ClientOrderID = "pc-2" })))
	o.Hedge = true
	v = at(o, map[ledger.Key]string{long: "2"})
	must(t)(send(v, hedged(ledger.Long, ledger.Sell, "0.001")))
	if _, err := send(v, hedged(ledger.Long, ledger.Buy, "0.001")); code(t, err) != -4164 {
		t.Errorf("opening in hedge mode: %v", err)
	}
}

func TestDeleverage(t *testing.T) {
	v := at(Options{}, map[ledger.Key]string{btc: "-2"})
	c := must(t)(v.Deleverage(t0, btc, ledger.MustQty("0.5")))
	if tr := c.Trades[0]; tr.Direction != ledger.Buy || !tr.Qty.Equal(ledger.MustQty("0.5")) || tr.ClientOrderID != "adl_autoclose" {
		t.Errorf("%+v", tr)
	}
	if c := must(t)(v.Deleverage(t0, btc, ledger.MustQty("9"))); !c.Trades[0].Qty.Equal(ledger.MustQty("1.5")) {
		t.Errorf("more than is held: %+v", c)
	}
	if _, err := v.Deleverage(t0, btc, ledger.MustQty("1")); code(t, err) != -2022 {
		t.Errorf("of nothing: %v", err)
	}
}

func TestLiquidationIsFarAway(t *testing.T) {
	for amount, want := range map[string]string{"2": "36", "-2": "144"} {
		v := at(Options{}, map[ledger.Key]string{btc: amount})
		if got := v.Holdings()[0].Liquidation; !got.Equal(ledger.MustPrice(want)) {
			t.Errorf("of %s from 90: %s", amount, got)
		}
	}
}

func TestOddsCanBeChanged(t *testing.T) {
	v := at(Options{Odds: Odds{Split: 1}}, map[ledger.Key]string{btc: "2"})
	if was := v.SetOdds(Odds{Rest: 1}); was != (Odds{Split: 1}) {
		t.Errorf("they were %+v", was)
	}
	o := must(t)(send(v, closing(ledger.Sell, "2"))).Orders[0]
	if !o.open() || !strings.HasPrefix(o.ClientOrderID, "pc-") {
		t.Errorf("%+v", o)
	}
	v.Mark(t0.Add(time.Second), "BTCUSDT", ledger.MustPrice("100"))
	if len(v.Holdings()) != 0 {
		t.Errorf("held %v after the next price", v.Holdings())
	}
}
