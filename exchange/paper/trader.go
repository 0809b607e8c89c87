package paper

import (
	"math/rand/v2"
	"slices"
	"time"

	"permitchain/ledger"
)

// trader is someone else on the account, who wants the positions the book began with
// and opens one again, by hand, some while after it was closed.
type trader struct {
	luck *rand.Rand
	due  map[ledger.Key]time.Time // when a flat position is opened again
}

// The trader takes its time, and is back within a minute.
const (
	reopenMin = 20 * time.Second
	reopenMax = 40 * time.Second
)

// wants are the positions to open now. Only what is flat is opened: one that was closed in part is the chain's business.
func (t *trader) wants(now time.Time, targets, held []ledger.Holding) []ledger.Holding {
	var open []ledger.Holding
	for _, h := range targets {
		due, waiting := t.due[h.Key]
		switch flat := !slices.ContainsFunc(held, func(x ledger.Holding) bool { return x.Key == h.Key }); {
		case !flat:
			delete(t.due, h.Key)
		case !waiting:
			t.due[h.Key] = now.Add(reopenMin + time.Duration(t.luck.Int64N(int64(reopenMax-reopenMin))))
		case !now.Before(due):
			delete(t.due, h.Key)
			open = append(open, h)
		}
	}
	return open
}

// trade does what the trader wants. What the exchange refuses, such as a position of the
// other mode, the trader does not get; the error is the book's.
func (p *Paper) trade(now time.Time) error {
	for _, h := range p.trader.wants(now, p.opening.Targets, p.venue.Holdings()) {
		c, err := p.venue.Trade(now, h.Key, h.Amount)
		if err != nil {
			continue
		}
		if err := p.commit(c); err != nil {
			return err
		}
	}
	return nil
}
