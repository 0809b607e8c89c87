package replay

import (
	"time"

	"permitchain/ledger"
)

// Memory is a journal that keeps only what it adds up to. Its records have sequences of its own, and the fold
// refuses what it refuses everywhere.
type Memory struct{ State *ledger.State }

// NewMemory returns an empty journal.
func NewMemory() *Memory { return &Memory{ledger.NewState()} }

// Append folds events as the next records, at an instant not before the last one's.
func (m *Memory) Append(at time.Time, events ...ledger.Event) error {
	for _, e := range events {
		if at.Before(m.State.Control.At) {
			at = m.State.Control.At
		}
		if err := m.State.Apply(ledger.Record{Seq: m.State.Control.Seq + 1, At: at, Event: e}); err != nil {
			return err
		}
	}
	return nil
}
