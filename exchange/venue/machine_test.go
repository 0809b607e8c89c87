package venue

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"permitchain/ledger"
)

// twin knows nothing but how to add up trades.
type twin struct {
	v      *Venue
	copy   *Venue // made from the changes alone, by a venue of other luck
	now    time.Time
	sum    map[ledger.Key]ledger.Qty
	lastID map[string]int64
}

var symbols = []string{"AUSDT", "BUSDT"}

// took adds up a change, and judges every trade by the twin's own sum.
func (w *twin) took(t *rapid.T, c Change) {
	reducing := map[string]bool{}
	for _, o := range c.Orders {
		reducing[fmt.Sprint(o.Key, o.OrderID)] = o.Reducing
	}
	for _, tr := range c.Trades {
		if tr.ID <= w.lastID[tr.Symbol] {
			t.Fatalf("trade id %d after %d", tr.ID, w.lastID[tr.Symbol])
		}
		w.lastID[tr.Symbol] = tr.ID
		before := w.sum[tr.Key]
		after := before.Add(tr.Direction.Signed(tr.Qty))
		if reducing[fmt.Sprint(tr.Key, tr.OrderID)] && (!after.Abs().Less(before.Abs()) || after.Sign()*before.Sign() < 0) {
			t.Fatalf("a reducing order moved %s from %s to %s", tr.Key, before, after)
		}
		if (tr.Side == ledger.Long && after.Sign() < 0) || (tr.Side == ledger.Short && after.Sign() > 0) {
			t.Fatalf("%s went to %s", tr.Key, after)
		}
		if tr.Qty.Sign() <= 0 || tr.Price.Sign() <= 0 {
			t.Fatalf("trade %+v", tr)
		}
		w.sum[tr.Key] = after
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var read Change
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if err := w.copy.Redo(read); err != nil {
		t.Fatalf("redo: %v", err)
	}
}

func (w *twin) check(t *rapid.T) {
	held := map[ledger.Key]ledger.Qty{}
	for _, h := range w.v.Holdings() {
		held[h.Key] = h.Amount
		if h.Entry.Sign() <= 0 {
			t.Fatalf("%s held from %s", h.Key, h.Entry)
		}
	}
	for k, q := range w.sum {
		if !held[k].Equal(q) {
			t.Fatalf("%s: holds %s, trades add up to %s", k, held[k], q)
		}
	}
	for k := range held {
		if _, ok := w.sum[k]; !ok {
			t.Fatalf("%s holds %s without a trade", k, held[k])
		}
	}
	for _, s := range symbols {
		w.checkOrders(t, s)
	}
	mine, _ := json.Marshal(w.v.State(time.Time{}))
	theirs, _ := json.Marshal(w.copy.State(time.Time{}))
	if string(mine) != string(theirs) {
		t.Fatalf("the changes make\n%s\nwant\n%s", theirs, mine)
	}
}

func (w *twin) checkOrders(t *rapid.T, symbol string) {
	open, ids := map[string]bool{}, map[int64]bool{}
	traded := map[int64]ledger.Qty{}
	for _, tr := range w.v.Trades(symbol, 0, 1<<30) {
		traded[tr.OrderID] = traded[tr.OrderID].Add(tr.Qty)
	}
	for _, o := range w.v.Orders(symbol, time.Time{}, 1<<30) {
		if ids[o.OrderID] || (o.open() && open[o.ClientOrderID]) {
			t.Fatalf("order %d of %q is there twice", o.OrderID, o.ClientOrderID)
		}
		ids[o.OrderID] = true
		open[o.ClientOrderID] = open[o.ClientOrderID] || o.open()
		if !traded[o.OrderID].Equal(o.Executed) || (o.Status == StatusFilled) != o.Executed.Equal(o.Qty) {
			t.Fatalf("order %+v traded %s", o, traded[o.OrderID])
		}
		if o.open() && (o.Status == StatusPartiallyFilled) != (o.Executed.Sign() > 0) {
			t.Fatalf("open order %+v", o)
		}
	}
	standing := map[string]bool{}
	for _, s := range w.v.Stops(symbol, time.Time{}) {
		if ids[s.AlgoID] || (s.standing() && standing[s.ClientAlgoID]) {
			t.Fatalf("stop %+v is there twice", s)
		}
		ids[s.AlgoID] = true
		standing[s.ClientAlgoID] = standing[s.ClientAlgoID] || s.standing()
	}
}

func (w *twin) request(t *rapid.T) Request {
	r := Request{
		ClientOrderID: rapid.SampledFrom([]string{"", "pc-1", "pc-2", "pc-3"}).Draw(t, "id"),
		Symbol:        rapid.SampledFrom(symbols).Draw(t, "symbol"),
		Side:          rapid.SampledFrom([]ledger.Side{"", ledger.Both, ledger.Long, ledger.Short}).Draw(t, "side"),
		Direction:     rapid.SampledFrom([]ledger.Direction{ledger.Buy, ledger.Sell}).Draw(t, "direction"),
		Qty:           quantity(t),
		ReduceOnly:    rapid.Bool().Draw(t, "reduce only"),
		SignedAt:      w.now.Add(-time.Duration(rapid.IntRange(-2, 7).Draw(t, "age")) * time.Second),
	}
	switch rapid.IntRange(0, 2).Draw(t, "kind") {
	case 1:
		r.Trigger = price(t)
	case 2:
		r.Limit = price(t)
	}
	return r
}

func quantity(t *rapid.T) ledger.Qty {
	return ledger.MustQty(fmt.Sprintf("%d.%03d", rapid.IntRange(0, 3).Draw(t, "whole"), rapid.IntRange(0, 999).Draw(t, "milli")))
}

func price(t *rapid.T) ledger.Price {
	return ledger.MustPrice(fmt.Sprintf("%d.%d", rapid.IntRange(1, 8).Draw(t, "usd"), rapid.IntRange(0, 9).Draw(t, "tenth")))
}

func TestMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hedge := rapid.Bool().Draw(t, "hedge")
		odds := rapid.SampledFrom([]float64{0, 0.3, 1})
		o := Options{
			Seed: rapid.Uint64().Draw(t, "seed"), Hedge: hedge, Fee: ledger.MustPercent("0.05"),
			Odds: Odds{odds.Draw(t, "split"), odds.Draw(t, "expire"), odds.Draw(t, "rest")},
		}
		w := &twin{v: New(o), copy: New(Options{Seed: o.Seed + 1, Hedge: hedge}), now: t0, sum: map[ledger.Key]ledger.Qty{}, lastID: map[string]int64{}}
		for _, s := range symbols {
			w.v.List(market(s))
			w.copy.List(market(s))
			w.v.Mark(w.now, s, ledger.MustPrice("5"))
		}
		key := func(t *rapid.T) ledger.Key {
			return ledger.Key{
				Symbol: rapid.SampledFrom(symbols).Draw(t, "symbol"),
				Side:   rapid.SampledFrom([]ledger.Side{ledger.Both, ledger.Long, ledger.Short}).Draw(t, "side"),
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": w.check,
			"order": func(t *rapid.T) {
				r := w.request(t)
				if w.v.Admit(w.now, r) != nil {
					return
				}
				landed := w.now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "travel")) * time.Second)
				if c, err := w.v.Place(landed, r); err == nil {
					w.took(t, c)
					if landed.After(r.SignedAt.Add(recvWindowDefault)) {
						t.Fatalf("landed %v after signing", landed.Sub(r.SignedAt))
					}
				}
			},
			"hand": func(t *rapid.T) {
				q := quantity(t)
				if rapid.Bool().Draw(t, "sell") {
					q = q.Neg()
				}
				if c, err := w.v.Trade(w.now, key(t), q); err == nil {
					w.took(t, c)
				}
			},
			"mark": func(t *rapid.T) {
				w.now = w.now.Add(time.Second)
				w.took(t, w.v.Mark(w.now, rapid.SampledFrom(symbols).Draw(t, "symbol"), price(t)))
			},
			"liquidate": func(t *rapid.T) {
				if c, err := w.v.Liquidate(w.now, key(t)); err == nil {
					w.took(t, c)
				}
			},
			"cancel": func(t *rapid.T) {
				if c, err := w.v.CancelStop(w.now, rapid.SampledFrom(symbols).Draw(t, "symbol"), rapid.SampledFrom([]string{"pc-1", "pc-2", "pc-3"}).Draw(t, "id")); err == nil {
					w.took(t, c)
				}
			},
			"cancel order": func(t *rapid.T) {
				if c, err := w.v.Cancel(w.now, rapid.SampledFrom(symbols).Draw(t, "symbol"), 0, rapid.SampledFrom([]string{"pc-1", "pc-2", "pc-3"}).Draw(t, "id")); err == nil {
					w.took(t, c)
				}
			},
			"depth": func(t *rapid.T) {
				depth := quantity(t)
				w.v.Depth(rapid.SampledFrom(symbols).Draw(t, "symbol"), &depth)
			},
			"deleverage": func(t *rapid.T) {
				if c, err := w.v.Deleverage(w.now, key(t), quantity(t)); err == nil {
					w.took(t, c)
				}
			},
			"mode": func(t *rapid.T) {
				if c, err := w.v.SetHedge(w.now, rapid.Bool().Draw(t, "hedge")); err == nil {
					w.took(t, c)
				}
			},
		})
	})
}

// The same seed and the same calls give the same trades; another seed gives others.
func TestSameSeedSameAccount(t *testing.T) {
	run := func(seed uint64) string {
		v := at(Options{Seed: seed, Odds: Odds{Split: 0.5, Expire: 0.3, Rest: 0.3}}, nil)
		for i := range 50 {
			now := t0.Add(time.Duration(i) * time.Second)
			must(t)(v.Trade(now, btc, ledger.MustQty("1")))
			r := closing(ledger.Sell, "1")
			r.SignedAt = now
			if _, err := v.Place(now, r); err != nil && code(t, err) == 0 {
				t.Fatal(err)
			}
			v.Mark(now, "BTCUSDT", ledger.MustPrice("100"))
		}
		text, err := json.Marshal(v.State(time.Time{}))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if run(1) != run(1) {
		t.Error("one seed, two accounts")
	}
	if run(1) == run(2) {
		t.Error("two seeds, one account")
	}
}
