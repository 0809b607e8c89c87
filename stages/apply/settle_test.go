package apply

import (
	"testing"
	"time"

	"permitchain/ledger"
)

// TestNotPlacedIsRefusedWhereTheOrderCouldHaveExecuted: a sale of 0.011 of 0.046, of which the exchange shows nothing.
func TestNotPlacedIsRefusedWhereTheOrderCouldHaveExecuted(t *testing.T) {
	k, sent := ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}, time.Date(2026, 1, 25, 0, 0, 0, 0, time.UTC)
	for held, accepted := range map[string]bool{
		"0.046": true,                  // it has not moved
		"0.035": false, "0.040": false, // by the order, or a part of it
		"0.050": true, "0.010": true, "0": true, // by something else
	} {
		s := ledger.NewState()
		s.Positions[k] = &ledger.Position{Key: k, Amount: ledger.MustQty("0.046")}
		s.Intents["pc-1"] = &ledger.Intent{
			ClientOrderID: "pc-1", Key: k, Kind: ledger.CloseStep, Direction: ledger.Sell, Qty: ledger.MustQty("0.011"), State: ledger.Unknown,
			Exchange: ledger.MustQty("0.046"), Ledger: ledger.MustQty("0.046"), SendBefore: sent, Fence: sent.Add(4 * time.Second),
		}
		l := Lookup{ID: "pc-1", At: sent.Add(20 * time.Second), was: ledger.Unknown}
		see := Sight{At: l.At, Snapshot: &ledger.Snapshot{SentAt: sent.Add(19 * time.Second), Holdings: []ledger.Holding{{Key: k, Amount: ledger.MustQty(held)}}}}
		e, res := SettledBy(s, l, ledger.SettleOrder{ClientOrderID: "pc-1", Who: "test", Why: "looked"}, see)
		if (e != nil) != accepted || (res.Error == "") != accepted {
			t.Errorf("held %s: %v, %q", held, e, res.Error)
		}
	}
}
