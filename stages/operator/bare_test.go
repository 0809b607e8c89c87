package operator

import (
	"testing"
	"time"

	"permitchain/ledger"
)

// A stop that covers a part of its position is told with its own quantity.
func TestWhatIsUnprotectedIsSaid(t *testing.T) {
	pos := &ledger.Position{Key: btc, Amount: ledger.MustQty("-0.056"), Epoch: 2, BareSince: time.Date(2026, 1, 25, 0, 26, 8, 0, time.UTC)}
	for want, stop := range map[string]*ledger.Stop{
		"without its wanted stop since 2026-01-25T00:26:08Z":                                   nil,
		"0.01 of 0.056 without its wanted stop, which covers 0.046 since 2026-01-25T00:26:08Z": {Qty: ledger.MustQty("0.046"), Epoch: 2},
	} {
		if pos.Stop = stop; unprotected(pos) != want {
			t.Errorf("%q, wanted %q", unprotected(pos), want)
		}
	}
}
