package binance

import (
	"testing"
	"time"

	"permitchain/ledger"
)

func TestRecentForgetsTheOldest(t *testing.T) {
	r := newRecent[int, string](3)
	for i := range 5 {
		r.put(i, "x")
		r.put(i, "y") // Again does not count twice.
	}
	for i := range 5 {
		if v, ok := r.get(i); ok != (i >= 2) || (ok && v != "y") {
			t.Errorf("%d: %q, %v", i, v, ok)
		}
	}
	if len(r.entries) != 3 {
		t.Errorf("%d entries", len(r.entries))
	}
}

func TestAnOrderOnlyAdvances(t *testing.T) {
	heard := newRecent[numbered, step](10)
	id := numbered{"BTCUSDT", 1}
	begin := time.UnixMilli(1790771340000)
	for i, c := range []struct {
		status, executed string
		ms               int
		want             bool
	}{
		{"NEW", "0", 0, true},
		{"NEW", "0", 0, false},
		{"PARTIALLY_FILLED", "1", 2, true},
		{"NEW", "0", 3, false},
		{"PARTIALLY_FILLED", "3", 4, true},
		{"PARTIALLY_FILLED", "2", 5, false},
		{"PARTIALLY_FILLED", "3", 6, true}, // amended
		{"PARTIALLY_FILLED", "3", 6, false},
		{"EXPIRED", "3", 6, true},
		{"PARTIALLY_FILLED", "3", 9, false},
		{"SOMETHING_NEW", "3", 9, false},
		{"FILLED", "4", 9, true}, // More was executed than was said: that is more of the truth.
	} {
		s := step{executed: ledger.MustQty(c.executed), rank: rank(c.status), at: begin.Add(time.Duration(c.ms) * time.Millisecond)}
		if i == 0 {
			s.born = begin
		}
		if got := advance(heard, id, &s); got != c.want {
			t.Errorf("step %d, %+v: %v", i, c, got)
		}
		if !s.born.Equal(begin) {
			t.Errorf("step %d began at %v", i, s.born)
		}
	}
	if s := (step{rank: 0}); !advance(heard, numbered{"ETHUSDT", 1}, &s) {
		t.Error("an order of another symbol is taken for this one")
	}
}
