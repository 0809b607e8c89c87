package apply

import (
	"context"
	"slices"
	"time"

	"permitchain/ledger"
	"permitchain/pipeline"
)

// Flatten is the operator's order to close what is held; it is answered with one receipt per position.
type Flatten = pipeline.Request[ledger.FlattenOrder, []ledger.Receipt]

// flatten makes one plan per position that the newest snapshot shows.
func (a *Stage) flatten(hard context.Context, f Flatten) error {
	var receipts []ledger.Receipt
	snap := a.Board.Snapshot()
	if snap == nil {
		f.Reply <- []ledger.Receipt{{Decision: ledger.Errored, Reason: ledger.NoExchangeSnapshot, Error: "no snapshot of the exchange yet: nothing is known to be held"}}
		return nil
	}
	for _, h := range snap.Holdings {
		if h.Amount.IsZero() || !a.Rules(h.Symbol).Listed || (f.Value.Symbol != "" && f.Value.Symbol != h.Symbol) {
			continue
		}
		o := pipeline.Ask[ledger.Proposal, ledger.Receipt](ledger.Proposal{
			Symbol: h.Symbol, Side: h.Side, Action: ledger.FullClose, KillScore: 1, ComputedAt: time.Now().UTC().Truncate(time.Millisecond),
			Source: ledger.FromOperator, Force: f.Value.Force, Operator: f.Value.Who + ": " + f.Value.Why,
		})
		if err := a.plan(hard, o); err != nil {
			return err
		}
		select {
		case r := <-o.Reply:
			receipts = append(receipts, r)
		case <-hard.Done():
			return nil
		}
	}
	f.Reply <- slices.Clip(receipts)
	return nil
}
