package store

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"permitchain/ledger"
)

// TestNobodyIsToldBeforeTheDisk: when Wait returns, what was decided is in the file.
func TestNobodyIsToldBeforeTheDisk(t *testing.T) {
	r := start(t, filepath.Join(t.TempDir(), "ledger.db"), testOptions)
	for i := range 300 {
		var seq uint64
		c, err := r.Decide(t.Context(), func(s *ledger.State, _ time.Time) []ledger.Event {
			seq = s.Control.Seq + 1
			return []ledger.Event{&ledger.ConfigUsed{Digest: fmt.Sprint(i), Text: "x"}}
		})
		if err == nil {
			err = c.Wait(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		if err := r.Reader().Records(seq, seq, func(ledger.Record, string) error { found++; return nil }); err != nil || found != 1 {
			t.Fatalf("record %d is said to be durable, and the file has %d of it (%v)", seq, found, err)
		}
	}
}
