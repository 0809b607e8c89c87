package exchange

import (
	"sync/atomic"

	"permitchain/ledger"
)

// Board holds the latest observations for whoever needs them: an old one is replaced, and
// every reader checks its age. Snapshots are put up by reconcile alone, marks by the
// stream alone.
type Board struct {
	Markets  map[string]Market // fixed
	snapshot atomic.Pointer[ledger.Snapshot]
	marks    map[string]*atomic.Pointer[ledger.Mark] // one for each of Markets, fixed
}

// NewBoard returns an empty board for these markets.
func NewBoard(markets map[string]Market) *Board {
	b := &Board{Markets: markets, marks: map[string]*atomic.Pointer[ledger.Mark]{}}
	for symbol := range markets {
		b.marks[symbol] = new(atomic.Pointer[ledger.Mark])
	}
	return b
}

// PutSnapshot replaces the snapshot.
func (b *Board) PutSnapshot(s ledger.Snapshot) { b.snapshot.Store(&s) }

// Snapshot is the latest, nil before the first. It must not be changed.
func (b *Board) Snapshot() *ledger.Snapshot { return b.snapshot.Load() }

// PutMark replaces a symbol's mark; an older one than what is there, or one of a symbol that is not watched, is dropped.
func (b *Board) PutMark(m ledger.Mark) {
	cell := b.marks[m.Symbol]
	if cell == nil {
		return
	}
	if old := cell.Load(); old == nil || !m.At.Before(old.At) {
		cell.Store(&m)
	}
}

// Mark is a symbol's latest mark; its time is zero where there is none.
func (b *Board) Mark(symbol string) ledger.Mark {
	if cell := b.marks[symbol]; cell != nil {
		if m := cell.Load(); m != nil {
			return *m
		}
	}
	return ledger.Mark{Symbol: symbol}
}
