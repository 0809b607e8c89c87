package venue

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"permitchain/ledger"
)

func TestStops(t *testing.T) {
	v := at(Options{}, map[ledger.Key]string{btc: "1"})
	stop := with(closing(ledger.Sell, "0.4"), func(r *Request) { r.Trigger, r.ClientOrderID = ledger.MustPrice("95"), "pc-1-s2-1" })
	if _, err := send(v, stop); err != nil {
		t.Fatal(err)
	}
	if _, err := send(v, stop); code(t, err) != -4116 {
		t.Errorf("the id of a standing stop: %v, want -4116", err)
	}
	if _, found := v.Order("BTCUSDT", "pc-1-s2-1"); found {
		t.Error("a standing stop is found among the orders")
	}
	if c := v.Mark(t0, "BTCUSDT", ledger.MustPrice("95.1")); !c.Empty() {
		t.Errorf("above the trigger: %+v", c)
	}
	c := v.Mark(t0.Add(time.Second), "BTCUSDT", ledger.MustPrice("95"))
	if len(c.Trades) != 1 || c.Trades[0].ClientOrderID != "pc-1-s2-1" || v.amount(btc).String() != "0.6" {
		t.Fatalf("at the trigger: %+v, position %s", c, v.amount(btc))
	}
	if s, _ := v.Stop("BTCUSDT", "pc-1-s2-1"); s.Status != StatusTriggered || s.OrderID != c.Orders[0].OrderID {
		t.Errorf("stop %+v", s)
	}
	if _, err := v.CancelStop(t0, "BTCUSDT", "pc-1-s2-1"); code(t, err) != -2011 {
		t.Errorf("cancel of a triggered stop: %v, want -2011", err)
	}
	if _, err := send(v, stop); code(t, err) != -2021 {
		t.Errorf("stop at the mark: %v, want -2021", err)
	}
	v.Mark(t0, "BTCUSDT", ledger.MustPrice("100"))
	if _, err := send(v, stop); err != nil {
		t.Errorf("the id of a triggered stop: %v, want it accepted", err)
	}
	if _, err := v.CancelStop(t0, "BTCUSDT", "pc-1-s2-1"); err != nil {
		t.Errorf("cancel: %v", err)
	}
	if c := v.Mark(t0, "BTCUSDT", ledger.MustPrice("90")); !c.Empty() {
		t.Errorf("a cancelled stop did %+v", c)
	}
}

func TestStopThatHasNothingToReduce(t *testing.T) {
	v := at(Options{}, map[ledger.Key]string{btc: "-1"})
	if _, err := send(v, with(closing(ledger.Buy, "1"), func(r *Request) { r.Trigger = ledger.MustPrice("110") })); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Trade(t0, btc, ledger.MustQty("1")); err != nil {
		t.Fatal(err)
	}
	v.Mark(t0, "BTCUSDT", ledger.MustPrice("111"))
	if s, _ := v.Stop("BTCUSDT", "pc-1"); s.Status != StatusRejected || len(v.Holdings()) != 0 {
		t.Errorf("stop %+v, holds %v, want REJECTED and flat", s, v.Holdings())
	}
}

func TestStopLimit(t *testing.T) {
	v := at(Options{}, map[ledger.Key]string{btc: "1"})
	for i := range stopsMax + 1 {
		r := with(closing(ledger.Sell, "0.001"), func(r *Request) { r.Trigger, r.ClientOrderID = ledger.MustPrice("50"), "" })
		_, err := send(v, r)
		if want := i == stopsMax; (code(t, err) == -4045) != want {
			t.Fatalf("stop %d: %v", i, err)
		}
	}
}

func TestHandAndLiquidation(t *testing.T) {
	v := at(Options{}, nil)
	c, err := v.Trade(t0, btc, ledger.MustQty("500"))
	if err != nil {
		t.Fatalf("a hand needs not mind the maximum: %v", err)
	}
	if id := c.Trades[0].ClientOrderID; !strings.HasPrefix(id, "web_") || ledger.OfOurForm(id) {
		t.Errorf("client id %q", id)
	}
	for q, want := range map[string]int64{"0": -4003, "0.0001": -4004, "0.0011": -1111} {
		if _, err := v.Trade(t0, btc, ledger.MustQty(q)); code(t, err) != want {
			t.Errorf("hand trades %s: %v, want %d", q, err, want)
		}
	}
	c, err = v.Liquidate(t0, btc)
	if err != nil || !strings.HasPrefix(c.Trades[0].ClientOrderID, "autoclose-") || len(v.Holdings()) != 0 {
		t.Errorf("liquidation %+v %v, holds %v", c, err, v.Holdings())
	}
	if _, err := v.Liquidate(t0, btc); code(t, err) != -2022 {
		t.Errorf("liquidation of nothing: %v", err)
	}
}

func TestPositionMode(t *testing.T) {
	v := at(Options{}, nil)
	if _, err := v.SetHedge(t0, false); code(t, err) != -4059 {
		t.Errorf("no change: %v, want -4059", err)
	}
	must(t)(v.Trade(t0, btc, ledger.MustQty("1")))
	if _, err := v.SetHedge(t0, true); code(t, err) != -4068 {
		t.Errorf("with a position: %v, want -4068", err)
	}
	must(t)(send(v, with(closing(ledger.Sell, "1"), func(r *Request) { r.Trigger = ledger.MustPrice("50") })))
	must(t)(v.Trade(t0, btc, ledger.MustQty("-1")))
	if _, err := v.SetHedge(t0, true); code(t, err) != -4067 {
		t.Errorf("with a stop: %v, want -4067", err)
	}
	must(t)(v.CancelStop(t0, "BTCUSDT", "pc-1"))
	must(t)(v.SetHedge(t0, true))
	if !v.Hedge() {
		t.Error("still one-way")
	}
}

func must(t *testing.T) func(Change, error) Change {
	return func(c Change, err error) Change {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

func TestPagesAndQueries(t *testing.T) {
	v := at(Options{}, nil)
	for i := range 10 {
		must(t)(v.Trade(t0.Add(time.Duration(i)*time.Minute), btc, ledger.MustQty("1")))
	}
	var got []ledger.Trade
	for after := int64(0); ; after = got[len(got)-1].ID {
		page := v.Trades("BTCUSDT", after, 3)
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
	}
	if len(got) != 10 || got[9].ID != v.LastTradeID("BTCUSDT") {
		t.Errorf("%d trades up to %d, want 10 up to %d", len(got), got[len(got)-1].ID, v.LastTradeID("BTCUSDT"))
	}
	since := v.Orders("BTCUSDT", t0.Add(4*time.Minute), 3)
	if len(since) != 3 || !since[0].CreatedAt.Equal(t0.Add(4*time.Minute)) {
		t.Errorf("orders since: %+v", since)
	}
	if _, ok := v.Market("NOSUCH"); ok || v.LastTradeID("NOSUCH") != 0 || v.Trades("NOSUCH", 0, 9) != nil || v.Orders("NOSUCH", t0, 9) != nil {
		t.Error("a symbol nobody lists has something")
	}
}

func TestRedoRefusesWhatDoesNotFit(t *testing.T) {
	v := at(Options{}, map[ledger.Key]string{btc: "1"})
	c, err := send(v, closing(ledger.Sell, "0.5"))
	if err != nil {
		t.Fatal(err)
	}
	fresh := func() *Venue { return at(Options{}, map[ledger.Key]string{btc: "1"}) }
	if err := fresh().Redo(c); err != nil {
		t.Fatalf("the change itself: %v", err)
	}
	if err := v.Redo(c); err == nil {
		t.Error("a change done twice is not refused")
	}
	less := c
	less.Trades = nil
	if err := fresh().Redo(less); err == nil {
		t.Error("an execution without its trade is not refused")
	}
	alone := c
	alone.Orders = nil
	if err := fresh().Redo(alone); err == nil {
		t.Error("a trade without its order is not refused")
	}
}

func TestStateForgetsWhatEnded(t *testing.T) {
	v := at(Options{}, map[ledger.Key]string{btc: "1"})
	must(t)(send(v, closing(ledger.Sell, "0.5")))
	must(t)(send(v, with(closing(ledger.Sell, "0.5"), func(r *Request) { r.Trigger = ledger.MustPrice("50") })))
	s := v.State(t0.Add(1))
	if sym := s.Symbols[0]; len(sym.Orders) != 0 || len(sym.Trades) != 0 || len(sym.Stops) != 1 || sym.LastTrade == 0 {
		t.Errorf("kept %+v, want the standing stop and the counters", sym)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back State
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(Restore(Options{}, back).State(t0.Add(1)))
	if err != nil || string(again) != string(text) {
		t.Errorf("restored %s (%v), want %s", again, err, text)
	}
}
