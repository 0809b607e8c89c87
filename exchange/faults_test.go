package exchange_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"permitchain/exchange"
	"permitchain/exchange/sandbox"
	"permitchain/ledger"
)

// of tells whether a kind strikes somewhere.
func of(k sandbox.Kind, where sandbox.Where) bool { return slices.Contains(sandbox.Kinds(where), k) }

// cells test every fault at every one of some calls.
func cells(t *testing.T, where []sandbox.Where, calls []string, test func(*testing.T, *bench, sandbox.Fault)) {
	n := 0
	for _, kind := range sandbox.Kinds(where...) {
		for _, call := range calls {
			for _, unexecuted := range []bool{false, true} {
				if unexecuted && !of(kind, sandbox.OnAnswer) {
					continue
				}
				n++
				f := sandbox.Fault{Kind: kind, Call: call, Unexecuted: unexecuted, For: 300 * time.Millisecond}
				t.Run(fmt.Sprintf("%s/%s/unexecuted=%t", kind, call, unexecuted), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						b := onSandbox(t, ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}, sandbox.NewWire())
						if err := b.box.Arm(f); err != nil {
							t.Fatal(err)
						}
						test(t, b, f)
					})
				})
			}
		}
	}
	t.Logf("%d cells", n)
}

// Whatever befalls an order, it is sent once, and its answer is never wrong: what was not placed never executes, what was
// placed executed what it says.
func TestFaultsOfOrders(t *testing.T) {
	where := []sandbox.Where{sandbox.OnAnswer, sandbox.OnCall, sandbox.OnOrder, sandbox.OnOthers}
	cells(t, where, []string{"POST /fapi/v1/order", "POST /fapi/v1/algoOrder"}, func(t *testing.T, b *bench, f sandbox.Fault) {
		o := b.order("0.020")
		if f.Call == "POST /fapi/v1/algoOrder" {
			o = b.stop("0.020", "100.1")
		}
		a := b.Place(t.Context(), o)
		struck := b.box.Struck()[f.Kind]
		<-time.After(time.Minute) // What comes late has come.
		b.box.Disarm()
		sent, entry := 0, sandbox.Entry{}
		for _, e := range b.box.Log() {
			if e.ClientID == o.ClientOrderID {
				sent, entry = sent+1, e
			}
		}
		switch {
		case sent > 1:
			t.Errorf("it was sent %d times", sent)
		case a.Outcome == exchange.NotPlaced && (entry.OrderID != 0 || !entry.Executed.IsZero()):
			t.Errorf("it was placed: %+v, though the answer is %+v", entry, a)
		case a.Outcome == exchange.Placed && (entry.OrderID != a.OrderID || !entry.Executed.Equal(a.Executed)):
			t.Errorf("it became %+v, though the answer is %+v", entry, a)
		case f.Unexecuted && a.Outcome == exchange.Placed:
			t.Errorf("it was never executed, though the answer is %+v", a)
		}
		slow := f.Kind == sandbox.SlowAnswer || f.Kind == sandbox.SlowBody
		if of(f.Kind, sandbox.OnAnswer) && !slow && (a.Outcome != exchange.Unknown || struck != 1) {
			t.Errorf("nobody can know, though the answer is %+v", a)
		}
		if of(f.Kind, sandbox.OnCall) && f.Kind != sandbox.HighWeight && (a.Outcome != exchange.NotPlaced || struck != 1) {
			t.Errorf("it was refused, though the answer is %+v", a)
		}
	})
}

// A query that was disturbed is an error, or right: never half of the truth.
func TestFaultsOfQueries(t *testing.T) {
	calls := []string{"GET /fapi/v1/accountConfig", "GET /fapi/v3/positionRisk", "GET /fapi/v1/userTrades", "GET /fapi/v1/order", "GET /fapi/v1/allOrders", "GET /fapi/v1/allAlgoOrders", "GET /fapi/v1/openOrders", "GET /fapi/v1/openAlgoOrders"}
	cells(t, []sandbox.Where{sandbox.OnAnswer, sandbox.OnCall}, calls, func(t *testing.T, b *bench, f sandbox.Fault) {
		before := b.Now().Add(-time.Second)
		o := b.order("0.020")
		b.place(o)
		stop := b.stop("0.020", "100.1")
		b.place(stop)
		if s, err := b.Snapshot(t.Context()); err == nil && s.Of(b.key).Amount.String() != "0.026" {
			t.Errorf("held %+v", s)
		}
		if trades, err := b.Trades(t.Context(), "BTCUSDT", 0); err == nil {
			var sum ledger.Qty
			for _, tr := range trades {
				sum = sum.Add(tr.Qty)
				if tr.ClientOrderID != o.ClientOrderID {
					t.Errorf("trade %+v", tr)
				}
			}
			if sum.String() != "0.02" {
				t.Errorf("trades %v", trades)
			}
		}
		if s, err := b.Find(t.Context(), b.key, o.ClientOrderID); err == nil && (s.Status != "FILLED" || s.Executed.String() != "0.02") {
			t.Errorf("found %+v", s)
		}
		if all, err := b.OrdersSince(t.Context(), "BTCUSDT", before); err == nil && len(all) != 2 {
			t.Errorf("listed %+v", all)
		}
		if all, err := b.OpenOrders(t.Context()); err == nil && (len(all) != 1 || all[0].ClientOrderID != stop.ClientOrderID) {
			t.Errorf("open %+v", all)
		}
		if b.box.Struck()[f.Kind] == 0 && f.Call != "GET /fapi/v1/order" { // Find alone asks it, and only after a call that may be refused.
			t.Errorf("%s never happened", f.Kind)
		}
	})
}
