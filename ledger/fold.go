package ledger

import (
	"fmt"
	"slices"
	"time"
)

// journalMax bounds how many records a plan remembers; a plan repeated for ever must not grow for ever.
const journalMax = 64

// Apply folds one record. It first checks every invariant the event could break
// and changes nothing when one would be: the error names the invariant.
func (s *State) Apply(r Record) error {
	if r.Seq != s.Control.Seq+1 {
		return broken("S14", "record %d follows record %d", r.Seq, s.Control.Seq)
	}
	if r.At.Before(s.Control.At) {
		return broken("S14", "record %d is dated %s, before its predecessor's %s", r.Seq, stamp(r.At), stamp(s.Control.At))
	}
	if err := s.check(r); err != nil {
		return fmt.Errorf("record %d (%s): %w", r.Seq, r.Event.Kind(), err)
	}
	s.fold(r)
	s.Control.Seq, s.Control.At = r.Seq, r.At
	s.touch(ControlRef, "")
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func (s *State) touch(k RefKind, name string) { s.touched[Ref{k, name}] = struct{}{} }

func (s *State) fold(r Record) {
	switch e := r.Event.(type) {
	case *Started:
		s.Control.Instance, s.Control.Mode, s.Control.Config = e.Instance, e.Mode, e.Config
		if s.Control.Since.IsZero() {
			s.Control.Since = r.At
		}
	case *ConfigUsed:
		s.Control.Config = e.Digest
	case *RunStateChanged:
		s.Control.RunState, s.Control.Who, s.Control.Why, s.Control.Since = e.To, e.Who, e.Why, r.At
	case *PlanDecided:
		s.foldPlan(e, r)
	case *PlanRepeated:
		p := s.plan(e.ID, r.Seq)
		p.Repeats++
		s.Control.Counts.Duplicates++
	case *GovernorDecided:
		s.foldGovernor(e, r)
	case *PositionDecided:
		p := s.plan(e.ID, r.Seq)
		for i := range p.Steps {
			p.Steps[i].Position = &e.Verdicts[i]
		}
	case *StepGranted:
		s.foldGrant(e, r)
	case *IntentOpened:
		s.foldIntent(e.Intent, r)
	case *IntentAnswered:
		s.foldAnswer(e, r)
	case *StopGone:
		s.foldStopGone(e, r.At)
	case *FillBooked:
		s.foldFill(e, r)
	case *StepEnded:
		s.foldStepEnd(e, r)
	case *PlanEnded:
		s.foldPlanEnd(e, r)
	default:
		s.foldBook(r)
	}
}

// foldBook folds the events of the reconciler.
func (s *State) foldBook(r Record) {
	switch e := r.Event.(type) {
	case *LedgerOpened:
		p := &Position{Key: e.Holding.Key, Cursor: e.Cursor}
		s.Positions[p.Key] = p
		s.setAmount(p, e.Holding.Amount, e.Holding.Entry, r.At, true)
	case *LedgerReconciled:
		p := s.Positions[e.Key]
		p.moveCursor(e.Cursor)
		s.touch(PositionRef, e.Key.String())
	case *LedgerAdjusted:
		p := s.Positions[e.Holding.Key]
		if p == nil {
			p = &Position{Key: e.Holding.Key}
			s.Positions[p.Key] = p
		}
		p.moveCursor(e.Cursor)
		s.setAmount(p, e.Holding.Amount, e.Holding.Entry, r.At, true)
	case *LedgerResidual:
		p := s.Positions[e.Key]
		s.setAmount(p, Qty{}, Price{}, r.At, false)
	case *PositionRanged:
		p := s.Positions[e.Key]
		p.High, p.Low = e.High, e.Low
		s.touch(PositionRef, e.Key.String())
	case *HoldPut:
		s.foldHold(e, r.At)
	case *HoldCleared:
		holds := s.Holds[e.Key]
		s.Holds[e.Key] = slices.Delete(slices.Clone(holds), holds.index(e.Reason), holds.index(e.Reason)+1)
		if len(s.Holds[e.Key]) == 0 {
			delete(s.Holds, e.Key)
		}
		s.touch(HoldRef, e.Key.String())
	}
}

func (s *State) foldHold(e *HoldPut, at time.Time) {
	holds := slices.Clone(s.Holds[e.Key])
	i := holds.index(e.Reason)
	if i < 0 {
		holds = append(holds, Stopped{Reason: e.Reason})
		slices.SortFunc(holds, func(a, b Stopped) int {
			if a.Reason < b.Reason {
				return -1
			}
			return 1
		})
		i = holds.index(e.Reason)
	}
	holds[i] = Stopped{e.Reason, e.Owner, at, e.Evidence}
	s.Holds[e.Key] = holds
	s.touch(HoldRef, e.Key.String())
}

// plan is a plan that a record speaks of.
func (s *State) plan(id PlanID, seq uint64) *Plan {
	p := s.Plans[id]
	if p.Journal[len(p.Journal)-1] != seq {
		p.Journal = append(p.Journal, seq)
	}
	if len(p.Journal) > journalMax { // The first and the latest tell most.
		p.Journal = slices.Delete(p.Journal, 1, 2)
	}
	s.touch(PlanRef, string(id))
	return p
}

func (s *State) foldPlan(e *PlanDecided, r Record) {
	p := &Plan{
		ID: e.ID, Proposal: e.Proposal, Basis: e.Basis, Protective: e.Protective, Decision: e.Decision,
		Reason: e.Reason, Context: e.Context, Outcome: Pending, DecidedAt: r.At, Journal: []uint64{r.Seq}, Config: s.Control.Config,
	}
	for _, k := range e.Steps {
		p.Steps = append(p.Steps, Step{Kind: k, Outcome: Pending})
	}
	switch e.Decision {
	case Execute:
	case Blocked:
		p.Outcome, p.Stage, p.EndedAt = Denied, StagePlan, r.At
	default:
		p.Outcome, p.Stage, p.EndedAt = NoOutcome, StagePlan, r.At
	}
	s.Plans[e.ID] = p
	s.Control.Counts.Total++
	*s.Control.Counts.of(p)++
	s.touch(PlanRef, string(e.ID))
}

func (s *State) foldGovernor(e *GovernorDecided, r Record) {
	p := s.plan(e.ID, r.Seq)
	for i := range p.Steps {
		v := &e.Verdicts[i]
		p.Steps[i].Governor = v
		s.release(p, i) // What an earlier verdict reserved, if there was one.
		if v.Ruling == Allow && v.Budget != Unbudgeted && !p.Steps[i].Outcome.Final() {
			s.use(p.Proposal.Symbol, Use{Plan: e.ID, Step: i, Budget: v.Budget, At: r.At, Notional: v.Notional})
		}
	}
}

func (s *State) use(symbol string, u Use) {
	usage := s.Usage[symbol]
	if usage == nil {
		usage = &Usage{Symbol: symbol}
		s.Usage[symbol] = usage
	}
	usage.Uses = slices.DeleteFunc(usage.Uses, func(old Use) bool { return old.Spent && u.At.Sub(old.At) > usageKept })
	usage.Uses = append(usage.Uses, u)
	s.touch(UsageRef, symbol)
}

// useOf is the use of a step, or nil; the pointer is good until the next change.
func (s *State) useOf(p *Plan, step int) *Use {
	usage := s.Usage[p.Proposal.Symbol]
	if usage == nil {
		return nil
	}
	i := slices.IndexFunc(usage.Uses, func(u Use) bool { return u.Plan == p.ID && u.Step == step })
	if i < 0 {
		return nil
	}
	s.touch(UsageRef, p.Proposal.Symbol)
	return &usage.Uses[i]
}

func (s *State) foldGrant(e *StepGranted, r Record) {
	p := s.plan(e.ID, r.Seq)
	step := &p.Steps[e.Step]
	step.Grant = &Grant{Qty: e.Qty, Expires: e.Expires, Seq: r.Seq}
	if u := s.useOf(p, e.Step); u != nil {
		u.Spent, u.At = true, r.At
	}
	pos := s.Positions[p.Key()]
	if step.Kind == StopStep && pos != nil && (pos.Stop == nil || pos.Stop.Epoch != pos.Epoch) {
		pos.bare(r.At)
		s.touch(PositionRef, pos.Key.String())
	}
	if a := p.Proposal.Action; step.Kind == CloseStep && a.IsTranche() && pos != nil {
		if pos.Tranches == nil {
			pos.Tranches = map[Action]Tranche{}
		}
		claim := Tranche{Amount: step.Position.Exchange.Abs(), Plan: p.ID}
		if was, ok := pos.Tranches[a]; ok && was.Done {
			claim.Was = &was
		} else if ok {
			claim.Was = was.Was
		}
		pos.Tranches[a] = claim
		s.touch(PositionRef, pos.Key.String())
	}
}

// Version counts the changes of a ledger; that of a missing one is 0.
func (s *State) Version(k Key) uint64 {
	if p := s.Positions[k]; p != nil {
		return p.Version
	}
	return 0
}

func (s *State) foldIntent(i Intent, r Record) {
	p := s.plan(i.Plan, r.Seq)
	p.Steps[i.Step].Orders = append(p.Steps[i.Step].Orders, i.ClientOrderID)
	i.State, i.At = Sending, r.At
	s.Intents[i.ClientOrderID] = &i
	s.touch(IntentRef, i.ClientOrderID)
	if pos := s.Positions[i.Key]; pos != nil && i.Kind == CloseStep {
		pos.LastOrderAt = r.At
		s.touch(PositionRef, i.Key.String())
	}
}

func (s *State) foldAnswer(e *IntentAnswered, r Record) {
	i := s.Intents[e.ClientOrderID]
	p := s.plan(i.Plan, r.Seq)
	if (e.State == Unknown || e.State == NotPlaced) && i.State == Sending && !e.RateLimited && e.Evidence == "" {
		s.Control.Failures = append(slices.DeleteFunc(s.Control.Failures, func(t time.Time) bool {
			return r.At.Sub(t) > failuresKept
		}), r.At)
	}
	i.State, i.Status, i.Code, i.Message, i.AnsweredAt = e.State, e.Status, e.Code, e.Message, r.At
	if e.OrderID != 0 {
		i.OrderID = e.OrderID
	}
	i.Executed = i.Executed.Max(e.Executed)
	s.settle(i)
	if e.State == Standing {
		s.stopStands(i, r.At)
	}
	switch {
	case p.Outcome == OutcomeUnknown && e.State != Unknown:
		s.recount(p, func() { p.Outcome = Pending })
	case e.State == Unknown && !p.Outcome.Final():
		s.recount(p, func() { p.Outcome = OutcomeUnknown })
	}
	s.touch(IntentRef, i.ClientOrderID)
}

// failuresKept is the window in which failed attempts count toward auto-disarm.
const failuresKept = 10 * time.Minute

// settle ends an intent whose every trade is booked.
func (s *State) settle(i *Intent) {
	if i.State == Placed && TerminalStatus(i.Status) && !i.Booked.Less(i.Executed) {
		i.State = Settled
	}
}

// TerminalStatus tells whether the exchange will change an order no more. A word
// nobody knows is not terminal.
func TerminalStatus(status string) bool {
	return slices.Contains([]string{"FILLED", "CANCELED", "REJECTED", "EXPIRED", "EXPIRED_IN_MATCH"}, status)
}

func (s *State) stopStands(i *Intent, at time.Time) {
	pos := s.Positions[i.Key]
	if pos.Stop != nil && pos.Stop.ClientOrderID != i.ClientOrderID {
		pos.OldStops = append(pos.OldStops, pos.Stop.ClientOrderID)
	}
	pos.Stop = &Stop{ClientOrderID: i.ClientOrderID, Trigger: i.Trigger, Qty: i.Qty, Epoch: i.Epoch}
	s.guard(pos, at)
	s.touch(PositionRef, i.Key.String())
}

func (s *State) foldStopGone(e *StopGone, at time.Time) {
	i := s.Intents[e.ClientOrderID]
	i.State, i.Status = Settled, e.Why
	pos := s.Positions[i.Key]
	pos.OldStops = slices.DeleteFunc(pos.OldStops, func(id string) bool { return id == e.ClientOrderID })
	if pos.Stop != nil && pos.Stop.ClientOrderID == e.ClientOrderID {
		if pos.Stop.Epoch == pos.Epoch {
			pos.bare(at)
		}
		pos.Stop = nil
	}
	s.touch(IntentRef, e.ClientOrderID)
	s.touch(PositionRef, i.Key.String())
}

func (s *State) foldStepEnd(e *StepEnded, r Record) {
	p := s.plan(e.ID, r.Seq)
	step := &p.Steps[e.Step]
	step.Outcome, step.Stage, step.Reason = e.Outcome, e.Stage, e.Reason
	s.release(p, e.Step)
	pos := s.Positions[p.Key()]
	if pos == nil || step.Kind != CloseStep {
		return
	}
	a := p.Proposal.Action
	if t, ok := pos.Tranches[a]; ok && !t.Done && t.Plan == p.ID {
		if delete(pos.Tranches, a); t.Was != nil {
			pos.Tranches[a] = *t.Was
		}
		s.touch(PositionRef, pos.Key.String())
	}
	if e.Reason == QtyBelowMin && a.IsTranche() && step.Position != nil {
		if pos.Tranches == nil {
			pos.Tranches = map[Action]Tranche{}
		}
		pos.Tranches[a] = Tranche{Amount: step.Position.Exchange.Abs(), Plan: p.ID}
		pos.completeTranches(a)
		s.touch(PositionRef, pos.Key.String())
	}
}

// release gives back what a step reserved and did not fill, and corrects the rest to what it filled.
func (s *State) release(p *Plan, step int) {
	u := s.useOf(p, step)
	if u == nil {
		return
	}
	st := &p.Steps[step]
	if u.Spent && (st.Filled.Sign() > 0 || (st.Kind == StopStep && st.Outcome == Executed)) {
		u.Notional = st.Quote
		return
	}
	usage := s.Usage[p.Proposal.Symbol]
	usage.Uses = slices.DeleteFunc(usage.Uses, func(o Use) bool { return o.Plan == p.ID && o.Step == step })
}

func (s *State) foldPlanEnd(e *PlanEnded, r Record) {
	p := s.plan(e.ID, r.Seq)
	s.recount(p, func() {
		p.Outcome, p.Stage, p.Reason, p.Error, p.EndedAt = e.Outcome, e.Stage, e.Reason, e.Error, r.At
	})
}

func (s *State) recount(p *Plan, change func()) {
	*s.Control.Counts.of(p)--
	change()
	*s.Control.Counts.of(p)++
	s.touch(PlanRef, string(p.ID))
}
