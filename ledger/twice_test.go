package ledger

import (
	"errors"
	"testing"
	"time"
)

// TestATradeCountsOnce: a trade above the cursor is remembered by its id until the cursor has passed it: told of again, it is
// nobody's, and an event that books it again is refused.
func TestATradeCountsOnce(t *testing.T) {
	s, at := NewState(), time.Date(2026, 1, 25, 0, 26, 8, 0, time.UTC)
	k := Key{Symbol: "BTCUSDT", Side: Both}
	apply := func(e Event) error { return s.Apply(Record{Seq: s.Control.Seq + 1, At: at, Event: e}) }
	trade := Trade{Key: k, ID: 7, OrderID: 1, Direction: Sell, Qty: MustQty("0.01"), Price: MustPrice("50000"), At: at}
	for _, e := range []Event{&LedgerOpened{Holding: Holding{Key: k, Amount: MustQty("0.046")}, Cursor: 5, By: "test"}, &FillBooked{Trade: trade, External: true}} {
		if err := apply(e); err != nil {
			t.Fatal(err)
		}
	}
	if own, others := s.Unbooked(k, []Trade{trade}); len(own)+len(others) > 0 {
		t.Errorf("a trade that is booked is told apart once more: %v %v", own, others)
	}
	if broken := (*BrokenError)(nil); !errors.As(apply(&FillBooked{Trade: trade, External: true}), &broken) || broken.Invariant != "S10" {
		t.Errorf("it is booked twice; the ledger says %s", s.Positions[k].Amount)
	}
}
