package replay

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"permitchain/ledger"
	"permitchain/stages/apply"
	"permitchain/stages/operator"
)

// storyMax bounds how many records are folded to tell of one plan; beyond it a question would keep a running chain busy.
const storyMax = 500_000

// ErrLong tells that a plan lies too far down its journal.
var ErrLong = fmt.Errorf("more than %d records come before it; permitchain replay --journal decides them all", storyMax)

// errTold ends the reading of a journal.
var errTold = errors.New("told")

// Tell decides a plan of a journal again, gate by gate, each on the fold of the records before it, and looks for the least that
// would have turned its outcome. Only the journal's records up to the plan's last are read.
func Tell(o AgainOptions, j Journal, p *ledger.Plan) (*operator.Told, error) {
	if len(p.Journal) == 0 || p.Journal[0] > storyMax {
		return nil, ErrLong
	}
	t := &telling{again: again{o: o, state: ledger.NewState(), texts: map[string]string{}}, id: p.ID, margin: 1}
	t.told = &operator.Told{Gates: []operator.Gate{}, Records: []operator.Moment{}, Nearest: []operator.Flip{}}
	last := p.Journal[len(p.Journal)-1]
	err := j(func(rec ledger.Record) error {
		t.configure(rec.Event)
		if planOf(rec.Event) == t.id && t.cannot == "" && t.rules != nil {
			t.look(rec)
		}
		if rec.Seq >= last || rec.Seq > storyMax {
			return errTold
		}
		return t.fold(rec)
	})
	if errors.Is(err, errTold) {
		err = nil
	}
	if err == nil && t.cannot != "" {
		err = errors.New(t.cannot)
	}
	t.weigh()
	return t.told, err
}

// telling is a journal being read for the sake of one plan.
type telling struct {
	again
	id     ledger.PlanID
	told   *operator.Told
	denied []operator.Gate // by step: what denies it, in one stage or in both
	margin float64
}

// look judges what a record of the plan decides, on the state before it.
func (t *telling) look(rec ledger.Record) {
	if e, ok := rec.Event.(*ledger.PlanDecided); ok {
		p := &ledger.Plan{ID: e.ID, Proposal: e.Proposal, Basis: e.Basis}
		t.weighed(Case{Rules: t.rulesOf(e.Proposal.Symbol), State: t.state, Plan: p, Step: -1, Stage: ledger.StagePlan, Now: rec.At})
		return
	}
	p := t.state.Plans[t.id]
	if p == nil {
		return
	}
	c := Case{Rules: t.rulesOf(p.Proposal.Symbol), State: t.state, Plan: p, Now: rec.At}
	switch e := rec.Event.(type) {
	case *ledger.GovernorDecided:
		c.Stage = ledger.StageGovernor
	case *ledger.PositionDecided:
		c.Stage, c.Seen = ledger.StagePosition, seenBy(e)
	case *ledger.StepEnded:
		if step := p.Steps[e.Step]; e.Stage == ledger.StageExecution && step.Grant == nil && e.Step == p.Current() && step.Allowed() {
			see := apply.Recorded(e.Seen, p.Key())
			c.Stage, c.Step, c.Governor, c.Position = ledger.StageExecution, e.Step, *step.Governor, *step.Position
			c.Seen.At, c.Seen.Snapshot, c.Seen.Mark, c.Seen.Lot = see.At, see.Snapshot, see.Mark, see.Lot
			t.weighed(c)
		}
		return
	default:
		return
	}
	for i := range p.Steps {
		c.Step = i
		t.weighed(c)
	}
}

// weighed keeps a case's gates and what would turn it.
func (t *telling) weighed(c Case) {
	for _, g := range c.gates() {
		t.told.Gates = append(t.told.Gates, g.Gate)
	}
	if reason := c.ruled(); reason != "" {
		t.denied = append(t.denied, operator.Gate{Step: c.Step + 1, Stage: c.Stage, Reason: reason})
		t.told.Nearest = append(t.told.Nearest, Nearest(c)...)
		return
	}
	if least, room := Margin(c); least != nil && room < t.margin {
		t.told.Margin, t.margin = least, room
	}
}

// weigh says of each change what it does not do away with.
func (t *telling) weigh() {
	for i := range t.told.Nearest {
		f := &t.told.Nearest[i]
		for _, d := range t.denied {
			if d.Step == f.Step && d.Stage != f.Stage {
				f.Still = fmt.Sprintf("%s denies %s", d.Stage, d.Reason)
			}
		}
	}
	if len(t.denied) > 0 {
		t.told.Margin = nil
	}
	stages := []ledger.Stage{ledger.StagePlan, ledger.StageGovernor, ledger.StagePosition, ledger.StageExecution} // Their records may have come in either order.
	slices.SortStableFunc(t.told.Gates, func(a, b operator.Gate) int {
		return cmp.Or(a.Step-b.Step, slices.Index(stages, a.Stage)-slices.Index(stages, b.Stage))
	})
}
