package apply

import (
	"context"
	"sync/atomic"
	"time"

	"permitchain/ledger"
	"permitchain/pipeline"
)

// Flatten is the operator's order to close what is held; it is answered with one receipt per position.
type Flatten = pipeline.Request[ledger.FlattenOrder, []ledger.Receipt]

// flatten makes one plan per position that the newest snapshot shows.
func (a *Stage) flatten(hard context.Context, f Flatten) error {
	snap := a.Board.Snapshot()
	if snap == nil {
		f.Reply <- []ledger.Receipt{{Decision: ledger.Errored, Reason: ledger.NoExchangeSnapshot, Error: "no snapshot of the exchange yet: nothing is known to be held"}}
		return nil
	}
	var proposals []ledger.Proposal
	for _, h := range snap.Holdings {
		if h.Amount.IsZero() || !a.Rules(h.Symbol).Listed || (f.Value.Symbol != "" && f.Value.Symbol != h.Symbol) {
			continue
		}
		proposals = append(proposals, ledger.Proposal{
			Symbol: h.Symbol, Side: h.Side, Action: ledger.FullClose, KillScore: 1, ComputedAt: a.now().UTC().Truncate(time.Millisecond),
			Source: ledger.FromOperator, Force: f.Value.Force, Operator: f.Value.Who + ": " + f.Value.Why,
		})
	}
	receipts, owed := make([]ledger.Receipt, len(proposals)), new(atomic.Int64)
	owed.Store(int64(len(proposals)))
	if len(proposals) == 0 {
		f.Reply <- receipts
	}
	for i, p := range proposals {
		err := a.decide(hard, p, func(r ledger.Receipt) { // The last one answers for all.
			if receipts[i] = r; owed.Add(-1) == 0 {
				f.Reply <- receipts
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}
