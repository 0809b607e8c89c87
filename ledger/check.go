package ledger

import (
	"fmt"
	"time"
)

// BrokenError tells that an event would break an invariant. It is never a
// condition of the world, always a bug or a damaged journal: the owner halts.
type BrokenError struct {
	Invariant string // its id in the README
	What      string
}

func (e *BrokenError) Error() string { return "invariant " + e.Invariant + ": " + e.What }

func broken(id, format string, args ...any) error {
	return &BrokenError{Invariant: id, What: fmt.Sprintf(format, args...)}
}

// check holds an event against every invariant it could break. The writer, replay,
// simulation and verify all pass through it, because they all fold.
func (s *State) check(r Record) error {
	switch e := r.Event.(type) {
	case *Started:
		if e.Instance != s.Control.Instance+1 {
			return broken("S19", "instance %d follows instance %d", e.Instance, s.Control.Instance)
		}
	case *ConfigUsed:
	case *RunStateChanged:
		if e.From != s.Control.RunState || !e.To.Valid() || e.Who == "" {
			return broken("S12", "run state %s moves from %s to %q by %q", s.Control.RunState, e.From, e.To, e.Who)
		}
	case *PlanDecided:
		return s.checkPlan(e)
	case *PlanRepeated:
		return s.known(e.ID)
	case *GovernorDecided:
		return s.checkVerdicts(e.ID, e.Verdicts)
	case *PositionDecided:
		return s.checkVerdicts(e.ID, e.Verdicts)
	case *StepGranted:
		return s.checkGrant(e, r.At)
	case *IntentOpened:
		return s.checkIntent(&e.Intent, r.At)
	case *IntentAnswered:
		return s.checkAnswer(e)
	case *StopGone:
		if i := s.Intents[e.ClientOrderID]; i == nil || i.State != Standing {
			return broken("S2", "stop %s is gone and never stood", e.ClientOrderID)
		}
	case *FillBooked:
		return s.checkFill(e)
	case *StepEnded:
		return s.checkStepEnd(e)
	case *PlanEnded:
		return s.checkPlanEnd(e)
	default:
		return s.checkBook(r.Event)
	}
	return nil
}

func (s *State) checkBook(event Event) error {
	switch e := event.(type) {
	case *LedgerOpened:
		if s.Positions[e.Holding.Key] != nil {
			return broken("S10", "the ledger of %s is opened twice", e.Holding.Key)
		}
	case *LedgerReconciled:
		if p := s.Positions[e.Key]; p == nil || e.Cursor < p.Cursor {
			return broken("S10", "the cursor of %s moves back to %d", e.Key, e.Cursor)
		}
	case *LedgerAdjusted:
		if amount, _ := s.Amount(e.Holding.Key); !amount.Equal(e.From) || e.Who == "" {
			return broken("S10", "%s is adjusted from %s by %q and stands at %s", e.Holding.Key, e.From, e.Who, amount)
		}
	case *LedgerResidual:
		if p := s.Positions[e.Key]; p == nil || !p.Amount.Equal(e.Amount) {
			return broken("S10", "a residual of %s is written off %s, which does not stand there", e.Amount, e.Key)
		}
	case *PositionRanged:
		if p := s.Positions[e.Key]; p == nil || p.Epoch != e.Epoch || e.High.Less(p.High) || (!p.Low.IsZero() && p.Low.Less(e.Low)) {
			return broken("S10", "the extremes of %s become %s and %s, which is no wider", e.Key, e.High, e.Low)
		}
	case *HoldPut:
		if e.Owner == "" {
			return broken("S12", "a hold %s on %s has no owner", e.Reason, e.Key)
		}
	case *HoldCleared:
		if !s.Holds[e.Key].Has(e.Reason) || e.Owner == "" {
			return broken("S12", "a hold %s on %s is cleared and was not there", e.Reason, e.Key)
		}
	default:
		return broken("S14", "an event of type %T is not known", event)
	}
	return nil
}

func (s *State) known(id PlanID) error {
	if s.Plans[id] == nil {
		return broken("S14", "plan %s is not on record", id)
	}
	return nil
}

// open is a plan that may still change.
func (s *State) open(id PlanID) (*Plan, error) {
	p := s.Plans[id]
	if p == nil || p.Outcome.Final() {
		return nil, broken("S6", "plan %s is not open", id)
	}
	return p, nil
}

func (s *State) checkPlan(e *PlanDecided) error {
	if s.Plans[e.ID] != nil {
		return broken("S2", "plan %s is decided twice", e.ID)
	}
	if e.ID != e.Proposal.ID() {
		return broken("S2", "plan %s is not the id of its proposal, which is %s", e.ID, e.Proposal.ID())
	}
	if (e.Decision == Execute) != (len(e.Steps) > 0) {
		return broken("S6", "plan %s is %s with %d steps", e.ID, e.Decision, len(e.Steps))
	}
	return nil
}

func (s *State) checkVerdicts(id PlanID, vs []Verdict) error {
	p, err := s.open(id)
	if err != nil {
		return err
	}
	if len(vs) != len(p.Steps) {
		return broken("S6", "plan %s has %d steps and gets %d verdicts", id, len(p.Steps), len(vs))
	}
	for _, step := range p.Steps {
		if step.Grant != nil {
			return broken("S6", "plan %s is judged after its permits were used", id)
		}
	}
	return nil
}

// checkGrant: two permits, both allowing, both unexpired, used together and once; never more than either allows.
func (s *State) checkGrant(e *StepGranted, now time.Time) error {
	p, err := s.open(e.ID)
	if err != nil {
		return err
	}
	if e.Step < 0 || e.Step != p.Current() { // Current is -1 when every step has ended.
		return broken("S6", "step %d of plan %s is granted out of turn", e.Step, e.ID)
	}
	step := &p.Steps[e.Step]
	switch {
	case step.Grant != nil:
		return broken("S6", "the permits of plan %s are used twice", e.ID)
	case !step.Allowed():
		return broken("S6", "plan %s is granted without both permits", e.ID)
	case !now.Before(step.Governor.Expires) || !now.Before(step.Position.Expires):
		return broken("S6", "plan %s is granted on an expired permit", e.ID)
	case e.Expires.After(step.Governor.Expires) || e.Expires.After(step.Position.Expires):
		return broken("S6", "the grant of plan %s outlives its permits", e.ID)
	case step.Kind == CloseStep && step.Position.Version != s.Version(p.Key()):
		return broken("S5", "plan %s is granted on version %d of a ledger that has moved on to %d", e.ID, step.Position.Version, s.Version(p.Key()))
	case e.Qty.Sign() <= 0:
		return broken("S20", "plan %s is granted %s", e.ID, e.Qty)
	case step.Kind == CloseStep && step.Position.SafeCloseQty.Less(e.Qty),
		step.Kind == CloseStep && step.Governor.Capped && step.Governor.Qty.Less(e.Qty):
		return broken("S4", "plan %s is granted %s, more than its permits", e.ID, e.Qty)
	}
	return nil
}

// MaySend tells whether the run state lets an order of a plan go out; a stop protects, whatever its plan is.
func (s *State) MaySend(p *Plan, kind StepKind) bool {
	switch s.Control.RunState {
	case Armed:
		return true
	case ProtectiveOnly:
		return p.Protective || kind == StopStep
	default:
		return p.IsFlatten()
	}
}

func (s *State) checkIntent(i *Intent, now time.Time) error {
	if s.Intents[i.ClientOrderID] != nil {
		return broken("S2", "order %s is promised twice", i.ClientOrderID)
	}
	p := s.Plans[i.Plan]
	if p == nil || i.Step < 0 || i.Step >= len(p.Steps) || p.Steps[i.Step].Grant == nil {
		return broken("S6", "order %s rests on no grant", i.ClientOrderID)
	}
	if i.Key != p.Key() || i.Kind != p.Steps[i.Step].Kind {
		return broken("S6", "order %s is a %s of %s, and its plan's step a %s of %s",
			i.ClientOrderID, i.Kind, i.Key, p.Steps[i.Step].Kind, p.Key())
	}
	if id := OrderIDOf(i.Kind, i.Plan, i.Step+1, i.Attempt); i.ClientOrderID != id || i.Attempt != len(p.Steps[i.Step].Orders)+1 {
		return broken("S2", "order %s is attempt %d of its step, whose id is %s", i.ClientOrderID, i.Attempt, id)
	}
	if !s.MaySend(p, i.Kind) {
		return broken("S12", "order %s is promised while %s", i.ClientOrderID, s.Control.RunState)
	}
	if holds := s.HoldsOn(i.Key); len(holds) > 0 && !p.Proposal.Force {
		return broken("S12", "order %s is promised under hold %s", i.ClientOrderID, holds[0].Reason)
	}
	if other := s.UnresolvedOn(i.Key, i.Kind); other != nil {
		return broken("S3", "order %s is promised while %s is unresolved", i.ClientOrderID, other.ClientOrderID)
	}
	if i.Key.Side == Long && i.Direction != Sell || i.Key.Side == Short && i.Direction != Buy || i.SendBefore.IsZero() || !i.Fence.After(i.SendBefore) {
		return broken("S5", "order %s would %s a %s, or has no fence", i.ClientOrderID, i.Direction, i.Key.Side)
	}
	if i.Direction != Reducing(i.Exchange) || i.Exchange.Abs().Less(i.Qty) || i.Qty.Sign() <= 0 {
		return broken("S5", "order %s would %s %s of a position of %s", i.ClientOrderID, i.Direction, i.Qty, i.Exchange)
	}
	if i.Kind == StopStep {
		return s.checkStopIntent(i)
	}
	step := &p.Steps[i.Step]
	if p.Outcome.Final() || step.Outcome.Final() || !now.Before(step.Grant.Expires) {
		return broken("S6", "order %s rests on a grant that has ended", i.ClientOrderID)
	}
	if s.GrantRest(step).Less(i.Qty) {
		return broken("S4", "order %s of %s exceeds what is left of its grant, %s", i.ClientOrderID, i.Qty, s.GrantRest(step))
	}
	return nil
}

// checkStopIntent: a stop follows the amount of its position for as long as the epoch lives, so its grant does not expire.
func (s *State) checkStopIntent(i *Intent) error {
	if p := s.Positions[i.Key]; p == nil || i.Trigger.Sign() <= 0 || p.Amount.Sign() != i.Exchange.Sign() {
		return broken("S5", "stop %s has no ledger or no trigger", i.ClientOrderID)
	}
	return nil
}

// GrantRest is what the orders of a step may still take off: the grant less what
// is filled and what may yet fill.
func (s *State) GrantRest(step *Step) Qty {
	rest := step.Grant.Qty
	for _, id := range step.Orders {
		i := s.Intents[id]
		switch {
		case i.State == NotPlaced:
		case i.State == Settled:
			rest = rest.Sub(i.Executed)
		default:
			rest = rest.Sub(i.Qty)
		}
	}
	return rest
}

func (s *State) checkAnswer(e *IntentAnswered) error {
	i := s.Intents[e.ClientOrderID]
	if i == nil {
		return broken("S1", "order %s is answered and was never promised", e.ClientOrderID)
	}
	if i.State == Settled || i.State == NotPlaced || i.State == Standing {
		return broken("S8", "order %s is answered %s after it was %s", e.ClientOrderID, e.State, i.State)
	}
	if i.State == Unknown && e.State != Unknown && e.Evidence == "" {
		return broken("S8", "order %s leaves unknown without evidence", e.ClientOrderID)
	}
	if e.State == Settled && (i.State != Placed || e.Evidence == "" || !TerminalStatus(e.Status)) {
		return broken("S8", "order %s is said to have ended without having been placed, or without evidence", e.ClientOrderID)
	}
	if (i.State == Placed || i.Booked.Sign() > 0) && e.State == NotPlaced || i.State == Placed && e.State == Unknown {
		return broken("S9", "order %s was placed and is now said to be %s", e.ClientOrderID, e.State)
	}
	if i.State == Placed && TerminalStatus(i.Status) && !TerminalStatus(e.Status) {
		return broken("S9", "order %s was %s and is now said to be %q", e.ClientOrderID, i.Status, e.Status)
	}
	if i.Qty.Less(e.Executed) {
		return broken("S4", "order %s of %s executed %s", e.ClientOrderID, i.Qty, e.Executed)
	}
	if (e.State == Standing && i.Kind != StopStep) || (e.State == Placed && i.Kind != CloseStep) {
		return broken("S2", "order %s is a %s and answered %s", e.ClientOrderID, i.Kind, e.State)
	}
	return nil
}

func (s *State) checkFill(e *FillBooked) error {
	t := e.Trade
	p := s.Positions[t.Key]
	if p == nil {
		return broken("S10", "trade %d is booked on %s, which has no ledger", t.ID, t.Key)
	}
	if p.HasBooked(t.ID) {
		return broken("S10", "trade %d of %s is booked twice", t.ID, t.Key)
	}
	if t.Qty.Sign() <= 0 || t.Price.Sign() <= 0 {
		return broken("S10", "trade %d of %s is %s at %s", t.ID, t.Key, t.Qty, t.Price)
	}
	if e.External {
		return nil
	}
	i := s.Intents[t.ClientOrderID]
	if i == nil {
		return broken("S1", "trade %d belongs to order %s, which was never promised", t.ID, t.ClientOrderID)
	}
	if i.Qty.Less(i.Booked.Add(t.Qty)) || t.Direction != i.Direction || t.Key != i.Key || i.State == NotPlaced {
		return broken("S4", "trade %d (%s %s) does not fit order %s", t.ID, t.Direction, t.Qty, i.ClientOrderID)
	}
	return nil
}

func (s *State) checkStepEnd(e *StepEnded) error {
	p, err := s.open(e.ID)
	if err != nil {
		return err
	}
	if e.Step < 0 || e.Step != p.Current() || !e.Outcome.Final() {
		return broken("S6", "step %d of plan %s ends %s out of turn", e.Step, e.ID, e.Outcome)
	}
	for _, id := range p.Steps[e.Step].Orders {
		if i := s.Intents[id]; i.State.Unresolved() {
			return broken("S8", "plan %s ends while its order %s is %s", e.ID, id, i.State)
		}
	}
	return nil
}

func (s *State) checkPlanEnd(e *PlanEnded) error {
	p, err := s.open(e.ID)
	if err != nil {
		return err
	}
	if p.Current() >= 0 || !e.Outcome.Final() {
		return broken("S7", "plan %s ends %s before its steps", e.ID, e.Outcome)
	}
	return nil
}
