package replay

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"permitchain/ledger"
	"permitchain/stages/apply"
	"permitchain/stages/governor"
	"permitchain/stages/reconcile"
)

// journal is an export being read. While it is whole, from its first record on, every decision in it is taken again on
// the state before it, so that usage, holds, cooldowns and tranches are the recorded ones. A part of one
// is read for its verdicts and the numbers in them.
type journal struct {
	*book
	memory  *Memory
	whole   bool
	next    uint64
	mode    ledger.Mode
	texts   map[string]string // configurations, by digest
	rules   func(symbol string) Rules
	verdict map[ledger.PlanID]*[2]*ledger.Verdict // of open plans, as decided now
}

func newJournal(b *book) *journal {
	return &journal{
		book: b, memory: NewMemory(), whole: true, next: 1, texts: map[string]string{}, rules: b.o.Rules,
		verdict: map[ledger.PlanID]*[2]*ledger.Verdict{},
	}
}

// take reads the next record.
func (j *journal) take(rec ledger.Record) error {
	j.whole = j.whole && rec.Seq == j.next
	j.next = rec.Seq + 1
	if err := j.configure(rec.Event); err != nil {
		return err
	}
	if !j.whole {
		j.glean(rec)
		return nil
	}
	j.decideAgain(rec)
	if err := j.memory.State.Apply(rec); err != nil {
		j.whole = false
		return &stray{err.Error()}
	}
	return nil
}

// configure follows what the decisions are taken under.
func (j *journal) configure(event ledger.Event) error {
	switch e := event.(type) {
	case *ledger.ConfigUsed:
		j.texts[e.Digest] = e.Text
	case *ledger.Started:
		j.mode = e.Mode
		text, known := j.texts[e.Config]
		if j.o.Recorded == nil || !known {
			return nil
		}
		rules, err := j.o.Recorded(text)
		if err != nil {
			return fmt.Errorf("recorded configuration: %w", err)
		}
		j.rules = rules
	}
	return nil
}

// rulesOf are the rules in force for a symbol.
func (j *journal) rulesOf(symbol string) Rules {
	r := j.rules(symbol)
	mode := j.mode
	if j.o.Overrides.Mode != "" {
		mode = j.o.Overrides.Mode
	}
	r.Apply.Mode, r.Governor.Mode = mode, mode
	return r
}

// meet is the plan a record speaks of.
func (j *journal) meet(id ledger.PlanID, at time.Time) *plan {
	p := j.find(string(id))
	if p.at.IsZero() {
		p.at, p.order = at, at
	}
	return p
}

func (j *journal) introduce(e *ledger.PlanDecided, at time.Time) *plan {
	p := j.meet(e.ID, at)
	k := e.Proposal.Key()
	p.symbol, p.side, p.action, p.score, p.newSL = k.Symbol, k.Side, e.Proposal.Action, &e.Proposal.KillScore, e.Proposal.NewSL
	p.planned, p.reason, p.mode, p.lot = e.Decision, e.Reason, j.mode, e.Basis.Lot
	return p
}

// decideAgain takes a recorded decision on the state that its record has not yet changed.
func (j *journal) decideAgain(rec ledger.Record) {
	switch e := rec.Event.(type) {
	case *ledger.PlanDecided:
		p := j.introduce(e, rec.At)
		p.folded = true
		now, _ := apply.Plan(j.rulesOf(p.symbol).Apply, j.view(), e.Proposal, j.marked(p.symbol, e.Basis), rec.At)
		if again, ok := now.(*ledger.PlanDecided); ok {
			p.planned, p.reason = again.Decision, again.Reason
			p.compared(again.Decision == e.Decision && again.Reason == e.Reason)
		}
	case *ledger.PlanRepeated:
		j.meet(e.ID, rec.At).duplicates++
	case *ledger.GovernorDecided:
		j.governAgain(e, rec.At)
	case *ledger.PositionDecided:
		j.positionAgain(e, rec.At)
	case *ledger.PlanEnded:
		delete(j.verdict, e.ID)
	}
}

func (j *journal) governAgain(e *ledger.GovernorDecided, now time.Time) {
	state := j.view()
	lp := state.Plans[e.ID]
	if lp == nil || len(lp.Steps) != len(e.Verdicts) {
		return // The fold says so in a moment.
	}
	judged := *lp
	judged.Basis = j.marked(lp.Proposal.Symbol, lp.Basis)
	p, rules := j.meet(e.ID, now), j.rulesOf(lp.Proposal.Symbol)
	verdicts := governor.Decide(rules.Governor, state, &judged, now)
	for i := range slices.Backward(verdicts) { // The first step is what is shown.
		p.rule(byGovernor, governorHeard(e.Verdicts[i]), governorHeard(verdicts[i]), true)
	}
	j.ruled(e.ID)[byGovernor] = &verdicts[0]
	j.size(p, lp, state, rules, apply.Sight{At: lp.Basis.At, Mark: lp.Basis.Mark, Lot: lp.Basis.Lot}, now)
}

func (j *journal) positionAgain(e *ledger.PositionDecided, now time.Time) {
	state := j.view()
	lp := state.Plans[e.ID]
	if lp == nil || len(lp.Steps) != len(e.Verdicts) {
		return
	}
	p, rules := j.meet(e.ID, now), j.rulesOf(lp.Proposal.Symbol)
	p.lot = e.Lot
	seen := reconcile.Seen{At: e.At, Mark: e.Mark, Lot: e.Lot}
	if !e.SnapshotAt.IsZero() {
		seen.Snapshot = &ledger.Snapshot{SentAt: e.SnapshotAt, Holdings: []ledger.Holding{e.Holding}}
	}
	if mark, ok := j.o.Overrides.Mark[lp.Proposal.Symbol]; ok {
		seen.Mark = mark
	}
	verdicts := reconcile.Permit(rules.Reconcile, state, lp, seen, now).Verdicts
	for i := range slices.Backward(verdicts) {
		p.rule(byPosition, positionHeard(e.Verdicts[i], true), positionHeard(verdicts[i], true), true)
	}
	j.ruled(e.ID)[byPosition] = &verdicts[0]
	j.size(p, lp, state, rules, apply.Sight{At: e.At, Snapshot: seen.Snapshot, Mark: seen.Mark, Lot: e.Lot}, now)
}

func (j *journal) ruled(id ledger.PlanID) *[2]*ledger.Verdict {
	if j.verdict[id] == nil {
		j.verdict[id] = new([2]*ledger.Verdict)
	}
	return j.verdict[id]
}

// size settles what would be sent once both permits are decided.
func (j *journal) size(p *plan, lp *ledger.Plan, state *ledger.State, rules Rules, see apply.Sight, now time.Time) {
	v := j.verdict[lp.ID]
	if v[byGovernor] == nil || v[byPosition] == nil || p.planned != ledger.Execute {
		return
	}
	p.grant(rules.Apply, judged{governor: *v[byGovernor], position: *v[byPosition], state: state, plan: lp, see: see}, now)
}

// view is the state to decide on: the folded one, with the ledger amounts that were set.
func (j *journal) view() *ledger.State {
	if len(j.o.Overrides.Ledger) == 0 {
		return j.memory.State
	}
	v := *j.memory.State
	v.Positions = maps.Clone(v.Positions)
	for k, amount := range j.o.Overrides.Ledger {
		position := ledger.Position{Key: k}
		if p := v.Positions[k]; p != nil {
			position = *p
			j.used["ledger."+k.String()] = true
		}
		position.Amount = amount
		v.Positions[k] = &position
	}
	return &v
}

// marked is a basis with the mark that was set.
func (j *journal) marked(symbol string, b ledger.Basis) ledger.Basis {
	if mark, ok := j.o.Overrides.Mark[symbol]; ok {
		b.Mark, b.MarkAt = mark, b.At
		j.used["mark."+symbol] = true
	}
	return b
}

// glean reads a record for what it says by itself.
func (j *journal) glean(rec ledger.Record) {
	switch e := rec.Event.(type) {
	case *ledger.PlanDecided:
		j.introduce(e, rec.At).partial = true
	case *ledger.PlanRepeated:
		j.meet(e.ID, rec.At).duplicates++
	case *ledger.GovernorDecided:
		if len(e.Verdicts) > 0 {
			p := j.meet(e.ID, rec.At)
			p.hear(byGovernor, &p.governor, governorHeard(e.Verdicts[0]))
		}
	case *ledger.PositionDecided:
		if len(e.Verdicts) > 0 {
			p := j.meet(e.ID, rec.At)
			p.symbol, p.side, p.lot = e.Holding.Symbol, e.Holding.Side, e.Lot
			p.hear(byPosition, &p.position, positionHeard(e.Verdicts[0], true))
		}
	}
}

// hear keeps a verdict of a part of an export; a plan that began in a whole one shows it as it was recorded.
func (p *plan) hear(stage int, list *[]heard, h heard) {
	if p.folded {
		p.rule(stage, h, heard{}, false)
		return
	}
	p.partial = true
	*list = append(*list, h)
}
