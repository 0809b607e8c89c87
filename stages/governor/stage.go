// Package governor decides whether the chain may act: a pure kernel with the gates of
// SPEC §5, and the stage that runs it on every plan.
package governor

import (
	"context"
	"time"

	"permitchain/ledger"
	"permitchain/pipeline"
)

// Loop is the governor's loop: it writes, and does nothing outside the process.
type Loop = pipeline.Loop[*ledger.State, ledger.Event, struct{}]

// Stage gives the governor's permits.
type Stage struct {
	Rules   func(symbol string) Rules
	Global  Config // for what concerns the whole process
	Loop    *Loop
	Plans   <-chan ledger.PlanID // from apply
	Permits chan<- ledger.PlanID // to apply: a verdict is on record
}

// checkEvery is how often auto-disarm is looked at when no plan comes.
const checkEvery = time.Second

// Run works until it is stopped.
func (g *Stage) Run(stop pipeline.Stop) error {
	defer g.Loop.Wait()
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		var err error
		select {
		case id := <-g.Plans:
			err = g.decide(stop, id)
		case <-tick.C:
			err = g.Tick(stop.Hard)
		case <-stop.Soft:
			return nil
		case <-stop.Hard.Done():
			return nil
		}
		if err != nil {
			return stop.Done(err)
		}
	}
}

// decide judges one plan, and tells apply.
func (g *Stage) decide(stop pipeline.Stop, id ledger.PlanID) error {
	if err := g.Judge(stop.Hard, id); err != nil {
		return err
	}
	select {
	case g.Permits <- id:
	case <-stop.Soft: // Apply has gone: the plan ends with the next start.
	case <-stop.Hard.Done():
	}
	return nil
}

// Judge puts a verdict on a plan on record. A plan that ended in the meantime gets none: it would be void.
func (g *Stage) Judge(hard context.Context, id ledger.PlanID) error {
	if err := g.Tick(hard); err != nil {
		return err
	}
	return g.Loop.Do(hard, func(s *ledger.State, now time.Time) (step pipeline.Step[ledger.Event, struct{}]) {
		if p := s.Plans[id]; p != nil && !p.Outcome.Final() {
			step.Events = []ledger.Event{&ledger.GovernorDecided{ID: id, Verdicts: Decide(g.Rules(p.Proposal.Symbol), s, p, now)}}
		}
		return step
	})
}

// Tick looks whether the chain must be disarmed.
func (g *Stage) Tick(hard context.Context) error {
	return g.Loop.Do(hard, func(s *ledger.State, now time.Time) (step pipeline.Step[ledger.Event, struct{}]) {
		if e, yes := Disarm(g.Global, s, now); yes {
			step.Events = []ledger.Event{e}
		}
		return step
	})
}
