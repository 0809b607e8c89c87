package replay

import (
	"bytes"
	"fmt"
	"reflect"
	"time"

	"permitchain/ledger"
	"permitchain/stages/apply"
	"permitchain/stages/governor"
	"permitchain/stages/reconcile"
)

// Journal calls fn with every record of a whole journal, in order, and ends at fn's first error.
type Journal func(fn func(ledger.Record) error) error

// AgainOptions are what a journal is decided again with.
type AgainOptions struct {
	Recorded func(text string) (func(symbol string) Rules, error) // makes rules of a recorded configuration
	With     func(symbol string) Rules                            // decides instead of every recorded one; nil: none does
}

// Again takes every decision of a journal again, each on the fold of the records before it, under the configuration that was
// in force, and lays what comes out beside what is on record, byte for byte. Amounts, usage and permits stay the recorded
// ones: under other rules each decision stands by itself.
//
// It reads the journal once. Ended plans leave its memory when they are older than rememberFor.
func Again(o AgainOptions, j Journal) (*AgainReport, error) {
	a := &again{o: o, state: ledger.NewState(), texts: map[string]string{}, report: newAgainReport(o.With != nil), open: map[ledger.PlanID]*pair{}}
	err := j(func(rec ledger.Record) error {
		if a.held == nil {
			a.held = &rec
			return nil
		}
		err := a.take(*a.held, &rec)
		a.held = &rec
		return err
	})
	if err == nil && a.held != nil {
		err = a.take(*a.held, nil)
	}
	a.missed()
	a.report.finish()
	return a.report, err
}

// rememberFor is how long an ended plan stays in memory, and forgetEvery how many records pass before that is looked at.
const (
	rememberFor = 2 * time.Hour
	forgetEvery = 512
)

// again is a journal being decided again.
type again struct {
	o      AgainOptions
	state  *ledger.State
	held   *ledger.Record    // read and not yet taken: some decisions show what they saw in their second record
	texts  map[string]string // configurations, by digest
	mode   ledger.Mode
	rules  func(symbol string) Rules
	cached map[string]Rules
	cannot string // why nothing can be decided now
	batch  batch
	open   map[ledger.PlanID]*pair
	report *AgainReport
}

// batch is one decision of several records: they were written together, and decided on the state before the first.
type batch struct {
	expected []ledger.Event // those that must still come
	at       time.Time
	seq      uint64 // the last record of it
	plan     ledger.PlanID
	many     bool // a restart's: it speaks of many plans
	differs  bool // what still comes of it was compared with its first difference
}

// pair is what both permits said of a plan's first step, on record and now.
type pair struct{ recorded, now [2]ledger.Ruling }

// take decides one record again and folds it; next is the one after it, nil at the end.
func (a *again) take(rec ledger.Record, next *ledger.Record) error {
	a.configure(rec.Event)
	a.count(rec, next)
	if err := a.fold(rec); err != nil {
		return err
	}
	if e, ok := rec.Event.(*ledger.PlanEnded); ok {
		a.settle(e.ID)
	}
	return nil
}

// fold takes a record into the state, and has what is long over leave it.
func (a *again) fold(rec ledger.Record) error {
	if e, ok := rec.Event.(*ledger.PlanRepeated); ok && a.state.Plans[e.ID] == nil { // It has left memory: only its place is needed.
		a.state.Plans[e.ID] = &ledger.Plan{ID: e.ID, Outcome: ledger.NoOutcome, Journal: []uint64{rec.Seq}}
		defer delete(a.state.Plans, e.ID)
	}
	if err := a.state.Apply(rec); err != nil {
		return err
	}
	if rec.Seq%forgetEvery == 0 {
		a.state.Forget(rec.At.Add(-rememberFor))
		a.state.Touched() // Nobody writes what is touched here: it is forgotten.
	}
	return nil
}

// configure follows what decisions are taken under: what a reload brings into force is none of a kernel's rules here.
func (a *again) configure(event ledger.Event) {
	switch e := event.(type) {
	case *ledger.ConfigUsed:
		a.texts[e.Digest] = e.Text
	case *ledger.Started:
		a.mode, a.cached, a.cannot = e.Mode, map[string]Rules{}, ""
		if a.rules = a.o.With; a.rules != nil {
			return
		}
		text, known := a.texts[e.Config]
		if !known {
			a.cannot = "the configuration in force is not on record"
			return
		}
		var err error
		if a.rules, err = a.o.Recorded(text); err != nil {
			a.cannot = fmt.Sprintf("the recorded configuration can't be read: %v", err)
		}
	}
}

// rulesOf are the rules in force for a symbol, in the recorded mode.
func (a *again) rulesOf(symbol string) Rules {
	r, ok := a.cached[symbol]
	if !ok {
		r = a.rules(symbol)
		r.Apply.Mode, r.Governor.Mode = a.mode, a.mode
		a.cached[symbol] = r
	}
	return r
}

// Why a record is not decided again.
const (
	isInput      = "an input, not a decision"
	noEvidence   = "the snapshots and trades it rests on are not in the journal"
	noProposal   = "the proposal that came again is not in the journal, only in what it differs"
	noPlan       = "its plan ended longer ago than is kept in memory"
	noSight      = "recorded without what the exchange showed (seen), by an older version"
	ofDifferent  = "a further record of a decision that differs"
	ofNoDecision = "no record before it tells what it was decided on"
	noRules      = "no process's beginning comes before it"
)

// count decides a record again, and counts what comes of it.
func (a *again) count(rec ledger.Record, next *ledger.Record) {
	plan := planOf(rec.Event)
	if len(a.batch.expected) > 0 {
		if rec.At.Equal(a.batch.at) && (plan == a.batch.plan || a.batch.many) {
			now := a.batch.expected[0]
			a.batch.expected = a.batch.expected[1:]
			a.compare(rec, plan, now)
			return
		}
		a.missed()
	}
	if a.batch.differs && rec.At.Equal(a.batch.at) && plan == a.batch.plan && isOfExecution(rec.Event) {
		a.report.undecided(rec, ofDifferent)
		return
	}
	a.batch = batch{}
	if a.rules == nil && a.cannot == "" {
		a.cannot = noRules
	}
	now, why := a.decide(rec, next)
	switch {
	case why != "":
		a.report.undecided(rec, why)
	case len(now) == 0:
		a.batch = batch{at: rec.At, seq: rec.Seq, plan: plan}
		a.compare(rec, plan, nil)
	default:
		a.batch = batch{expected: now[1:], at: rec.At, seq: rec.Seq, plan: plan, many: isRestart(rec.Event)}
		a.compare(rec, plan, now[0])
	}
}

// decide asks the kernel whose word a record is; why tells that it can't be asked.
func (a *again) decide(rec ledger.Record, next *ledger.Record) (now []ledger.Event, why string) {
	switch e := rec.Event.(type) {
	case *ledger.FillBooked:
		return a.attribute(e), ""
	case *ledger.LedgerOpened, *ledger.LedgerReconciled, *ledger.LedgerResidual, *ledger.HoldPut, *ledger.HoldCleared, *ledger.PositionRanged:
		return nil, noEvidence
	case *ledger.IntentAnswered:
		if !isRestart(e) {
			return nil, isInput
		}
		return apply.Restart(a.state).Events, ""
	case *ledger.RunStateChanged:
		if e.Who != "governor" {
			return nil, isInput
		}
	case *ledger.PlanDecided, *ledger.PlanRepeated, *ledger.GovernorDecided, *ledger.PositionDecided,
		*ledger.StepGranted, *ledger.IntentOpened, *ledger.StepEnded, *ledger.PlanEnded:
	default:
		return nil, isInput
	}
	if a.cannot != "" {
		return nil, a.cannot
	}
	return a.judge(rec, next)
}

// isRestart tells whether a record is apply.Restart's word on what an earlier process left.
func isRestart(event ledger.Event) bool {
	switch e := event.(type) {
	case *ledger.StepEnded:
		return e.Reason == ledger.Restarted
	case *ledger.IntentAnswered:
		return e.Evidence == "restart"
	default:
		return false
	}
}

// judge asks the kernels that need rules.
func (a *again) judge(rec ledger.Record, next *ledger.Record) ([]ledger.Event, string) {
	switch e := rec.Event.(type) {
	case *ledger.RunStateChanged:
		if moved, yes := governor.Disarm(a.rulesOf("").Governor.Config, a.state, rec.At); yes {
			return []ledger.Event{moved}, ""
		}
		return nil, ""
	case *ledger.PlanDecided:
		now, _ := apply.Plan(a.rulesOf(e.Proposal.Symbol).Apply, a.state, e.Proposal, e.Basis, rec.At)
		return []ledger.Event{now}, ""
	case *ledger.PlanRepeated:
		p := a.state.Plans[e.ID]
		switch {
		case p == nil:
			return nil, noPlan
		case e.Difference != "":
			return nil, noProposal
		}
		now, _ := apply.Plan(a.rulesOf(p.Proposal.Symbol).Apply, a.state, p.Proposal, p.Basis, rec.At)
		return []ledger.Event{now}, ""
	}
	p := a.state.Plans[planOf(rec.Event)]
	if p == nil {
		return nil, "" // The fold says so in a moment.
	}
	r := a.rulesOf(p.Proposal.Symbol)
	switch e := rec.Event.(type) {
	case *ledger.GovernorDecided:
		return []ledger.Event{&ledger.GovernorDecided{ID: e.ID, Verdicts: governor.Decide(r.Governor, a.state, p, rec.At)}}, ""
	case *ledger.PositionDecided:
		return []ledger.Event{reconcile.Permit(r.Reconcile, a.state, p, seenBy(e), rec.At)}, ""
	}
	return a.execute(r.Apply, p, rec, next)
}

// seenBy is what reconcile saw when it gave a verdict.
func seenBy(e *ledger.PositionDecided) reconcile.Seen {
	seen := reconcile.Seen{At: e.At, Mark: e.Mark, Lot: e.Lot}
	if !e.SnapshotAt.IsZero() {
		seen.Snapshot = &ledger.Snapshot{SentAt: e.SnapshotAt, Holdings: []ledger.Holding{e.Holding}}
	}
	return seen
}

// execute asks apply what it would do with a plan: all its records of one decision carry what it saw, but the first
// of a grant, which its intent follows.
func (a *again) execute(r apply.Rules, p *ledger.Plan, rec ledger.Record, next *ledger.Record) ([]ledger.Event, string) {
	var seen ledger.Sight
	switch e := rec.Event.(type) {
	case *ledger.StepGranted:
		if next != nil {
			if opened, ok := next.Event.(*ledger.IntentOpened); ok {
				seen = opened.Seen
			}
		}
	case *ledger.StepEnded:
		if isRestart(e) {
			return apply.Restart(a.state).Events, ""
		}
		seen = e.Seen
	case *ledger.IntentOpened:
		seen = e.Seen
		if i := e.Intent; i.Kind == ledger.StopStep && i.Attempt > 1 && !seen.At.IsZero() {
			if pos := a.state.Positions[i.Key]; pos != nil && pos.Stop != nil {
				return apply.Tend(r, a.state, pos, apply.Recorded(seen, i.Key), rec.At).Events, ""
			}
			return nil, ""
		}
	default:
		return nil, ofNoDecision
	}
	n := p.Current()
	switch {
	case seen.At.IsZero():
		return nil, noSight
	case n < 0:
		return nil, ""
	case p.Steps[n].Grant == nil:
		return apply.Join(r, a.state, p, apply.Recorded(seen, p.Key()), rec.At).Events, ""
	default:
		st, _ := apply.Advance(r, a.state, p, apply.Recorded(seen, p.Key()), rec.At)
		return st.Events, ""
	}
}

// attribute asks the books whose trade one is.
func (a *again) attribute(e *ledger.FillBooked) []ledger.Event {
	own, others := a.state.Unbooked(e.Trade.Key, []ledger.Trade{e.Trade})
	switch {
	case len(own) > 0:
		return []ledger.Event{&ledger.FillBooked{Trade: own[0]}}
	case len(others) > 0:
		return []ledger.Event{&ledger.FillBooked{Trade: others[0], External: true}}
	default:
		return nil // It is booked already.
	}
}

// compare lays a decision beside its record; nil is the decision to write nothing.
func (a *again) compare(rec ledger.Record, plan ledger.PlanID, now ledger.Event) {
	a.batch.seq = rec.Seq
	a.pair(rec.Event, now)
	if reflect.DeepEqual(rec.Event, now) { // What is deeply equal is written equally; the converse is not so.
		a.report.equal(rec)
		return
	}
	recorded, err := ledger.EncodeEvent(rec.Event)
	var again []byte
	if err == nil && now != nil {
		again, err = ledger.EncodeEvent(now)
	}
	switch {
	case err != nil:
		a.report.undecided(rec, "it can't be written: "+err.Error())
	case now != nil && now.Kind() == rec.Event.Kind() && bytes.Equal(recorded, again):
		a.report.equal(rec)
	default:
		a.batch.expected, a.batch.differs = nil, true
		a.report.differ(rec, plan, a.state, recorded, again, now)
	}
}

// missed tells of records that a decision would have had and that did not come.
func (a *again) missed() {
	if len(a.batch.expected) > 0 {
		a.report.miss(a.batch, a.state)
	}
	a.batch.expected = nil
}

// pair keeps what both permits say of a plan's first step.
func (a *again) pair(recorded, now ledger.Event) {
	switch e := recorded.(type) {
	case *ledger.GovernorDecided:
		a.note(e.ID, byGovernor, e.Verdicts, now)
	case *ledger.PositionDecided:
		a.note(e.ID, byPosition, e.Verdicts, now)
	}
}

func (a *again) note(id ledger.PlanID, stage int, recorded []ledger.Verdict, now ledger.Event) {
	p := a.open[id]
	if p == nil {
		p = &pair{}
		a.open[id] = p
	}
	again := []ledger.Verdict(nil)
	switch e := now.(type) {
	case *ledger.GovernorDecided:
		again = e.Verdicts
	case *ledger.PositionDecided:
		again = e.Verdicts
	}
	if len(recorded) > 0 && len(again) > 0 {
		p.recorded[stage], p.now[stage] = recorded[0].Ruling, again[0].Ruling
	}
}

// settle counts what would have become of a plan whose permits are all in.
func (a *again) settle(id ledger.PlanID) {
	p := a.open[id]
	if p == nil {
		return
	}
	delete(a.open, id)
	both := [2]ledger.Ruling{ledger.Allow, ledger.Allow}
	a.report.settle(id, p.recorded == both, p.now == both)
}
