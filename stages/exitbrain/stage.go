// Package exitbrain is where proposals enter the chain: its own, and those of others,
// which the operator's API hands on.
package exitbrain

import (
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/pipeline"
)

// Offer is a proposal that is owed planning's answer.
type Offer = pipeline.Request[ledger.Proposal, ledger.Receipt]

// Stage hands proposals to apply, one at a time: it waits until each is taken.
type Stage struct {
	Config   Config
	Board    *exchange.Board
	External <-chan Offer // from the operator's API
	Offers   chan<- Offer // to apply
	Rehearse bool         // paper mode: propose closes of what is held, so that there is something to see
}

// perInterval is how many proposals the paper source makes in an interval: so many that some of them are denied, legibly.
const perInterval = 10

// Run works until it is stopped.
func (b *Stage) Run(stop pipeline.Stop) error {
	tick := time.NewTicker(b.Config.Interval / perInterval)
	defer tick.Stop()
	for n := 0; ; {
		var o Offer
		select {
		case o = <-b.External:
		case now := <-tick.C:
			p, ok := b.rehearsal(n, now)
			if !ok {
				continue
			}
			n++
			o = pipeline.Ask[ledger.Proposal, ledger.Receipt](p)
		case <-stop.Soft:
			return nil
		case <-stop.Hard.Done():
			return nil
		}
		select {
		case b.Offers <- o:
		case <-stop.Soft:
			return nil
		case <-stop.Hard.Done():
			return nil
		}
	}
}

// rehearsal is the simplest source there can be: for each position held in turn, the next action of a fixed round.
func (b *Stage) rehearsal(n int, now time.Time) (ledger.Proposal, bool) {
	snap := b.Board.Snapshot()
	if !b.Rehearse || !b.Config.Enabled || snap == nil || len(snap.Holdings) == 0 {
		return ledger.Proposal{}, false
	}
	round := []struct {
		action ledger.Action
		score  float64
	}{{ledger.Partial25, 0.41}, {ledger.Partial50, 0.47}, {ledger.Partial25, 0.44}, {ledger.Partial50, 0.52}, {ledger.Partial75, 0.56}, {ledger.FullClose, 0.66}}
	h := snap.Holdings[n%len(snap.Holdings)]
	r := round[n/len(snap.Holdings)%len(round)]
	return ledger.Proposal{
		Symbol: h.Symbol, Side: h.Side, Action: r.action, KillScore: r.score, ComputedAt: now.UTC().Truncate(time.Millisecond), Source: ledger.FromBrain,
	}, !h.Amount.IsZero()
}
