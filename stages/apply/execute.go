package apply

import (
	"fmt"
	"slices"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/pipeline"
)

// Effect is something that leaves the process; one of its parts is set.
type Effect struct {
	Send   *exchange.Order // an order whose intent is durable
	Reply  func()          // an answer to whoever proposed
	Cancel *Cancel         // a stop that is no longer wanted
}

// Cancel names a stop to be cancelled.
type Cancel struct {
	Key           ledger.Key
	ClientOrderID string
}

type step = pipeline.Step[ledger.Event, Effect]

// draft is a step being written.
type draft struct {
	step
	seen ledger.Sight // recorded with it, so that it can be decided again
}

// Sight is what the exchange shows when a decision about an order is taken.
type Sight struct {
	At       time.Time // exchange clock
	Snapshot *ledger.Snapshot
	Mark     ledger.Price
	Lot      ledger.Lot
	Tick     ledger.Price
}

// of is what a decision about k sees of it.
func (see Sight) of(k ledger.Key) ledger.Sight {
	seen := ledger.Sight{At: see.At, Mark: see.Mark, Lot: see.Lot, Tick: see.Tick}
	if see.Snapshot != nil {
		held := see.Snapshot.Of(k)
		seen.SnapshotAt, seen.Exchange, seen.Liquidation = see.Snapshot.SentAt, held.Amount, held.Liquidation
	}
	return seen
}

// Recorded is what was seen of k when a decision on record was taken.
func Recorded(seen ledger.Sight, k ledger.Key) Sight {
	see := Sight{At: seen.At, Mark: seen.Mark, Lot: seen.Lot, Tick: seen.Tick}
	if !seen.SnapshotAt.IsZero() {
		see.Snapshot = &ledger.Snapshot{SentAt: seen.SnapshotAt, Holdings: []ledger.Holding{{Key: k, Amount: seen.Exchange, Liquidation: seen.Liquidation}}}
	}
	return see
}

// Join decides what becomes of a plan once its permits are in, or the time for them is over:
// every step that can't go on ends, the first that can is granted and its order promised.
// Both verdicts are looked at before either is consumed.
func Join(r Rules, s *ledger.State, p *ledger.Plan, see Sight, now time.Time) step {
	st := draft{seen: see.of(p.Key())}
	for i := max(0, p.Current()); i < len(p.Steps); i++ {
		sp := &p.Steps[i]
		outcome, stage, reason := refuse(r, s, p, sp, see, now)
		if reason == "" {
			st.grant(r, s, p, i, see)
			return st.step
		}
		st.endStep(p, i, outcome, stage, reason)
	}
	st.endPlan(s, p)
	return st.step
}

// refuse says why a step that has not begun can't, "" where it can.
func refuse(r Rules, s *ledger.State, p *ledger.Plan, sp *ledger.Step, see Sight, now time.Time) (ledger.Outcome, ledger.Stage, ledger.Reason) {
	g, x := sp.Governor, sp.Position
	switch {
	case g != nil && g.Ruling == ledger.Deny:
		return ledger.Denied, ledger.StageGovernor, g.Reason
	case x != nil && x.Ruling == ledger.Deny && x.Reason == ledger.QtyBelowMin:
		return ledger.NoOutcome, ledger.StagePosition, x.Reason
	case x != nil && x.Ruling == ledger.Deny:
		return ledger.Denied, ledger.StagePosition, x.Reason
	case g == nil:
		return ledger.Denied, ledger.StageGovernor, ledger.GovernorTimeout
	case x == nil:
		return ledger.Denied, ledger.StagePosition, ledger.PositionTimeout
	case !now.Before(g.Expires) || !now.Before(x.Expires):
		return ledger.Denied, ledger.StageExecution, ledger.PermitExpired
	case see.Snapshot == nil || !ledger.Fresh(see.Snapshot.SentAt, see.At, r.StaleAfter): // The process may have stood still since the permits.
		return ledger.Denied, ledger.StageExecution, ledger.StaleExchangeState
	case r.Mode == ledger.DryRun:
		return ledger.WouldExecute, ledger.StageExecution, ledger.ModeDryRun
	case s.Control.RunState == ledger.Disarmed && !p.IsFlatten():
		return ledger.WouldExecute, ledger.StageExecution, ledger.RunDisarmed
	}
	if outcome, stage, reason := mayNotSend(s, p, sp.Kind); outcome != "" {
		return outcome, stage, reason
	}
	return movedOn(s, p, sp, see)
}

// movedOn says why a step can't rest on its position permit any more: the ledger has changed since, by
// another plan's fill or by somebody's trade; a stop need only still be on the right side, tighten, and protect.
func movedOn(s *ledger.State, p *ledger.Plan, sp *ledger.Step, see Sight) (ledger.Outcome, ledger.Stage, ledger.Reason) {
	pos := s.Positions[p.Key()]
	switch {
	case pos == nil: // Only the operator's force gets here: without a ledger its fill could not be booked.
		return ledger.Denied, ledger.StageExecution, ledger.HoldNoLedger
	case sp.Kind == ledger.CloseStep && pos.Version != sp.Position.Version:
		return ledger.Denied, ledger.StageExecution, ledger.CooldownInFlight
	case sp.Kind == ledger.StopStep && pos.Amount.Sign()*sp.Position.Exchange.Sign() < 0:
		return ledger.Denied, ledger.StageExecution, ledger.SideMismatch
	case sp.Kind == ledger.StopStep && !s.Tightens(p.Key(), pos.Amount, p.Proposal.NewSL):
		return ledger.Denied, ledger.StageExecution, ledger.StopNotTighter
	}
	if sp.Kind == ledger.StopStep && see.Snapshot != nil {
		held := see.Snapshot.Of(p.Key())
		if reason := held.Useless(triggerOf(p, held.Amount, see.Tick), see.Mark); reason != "" {
			return ledger.Denied, ledger.StageExecution, reason
		}
	}
	return "", "", ""
}

// triggerOf is a plan's stop on the market's tick: a stop only ever tightens, so it is rounded toward the mark price.
func triggerOf(p *ledger.Plan, held ledger.Qty, tick ledger.Price) ledger.Price {
	if held.Sign() < 0 {
		return p.Proposal.NewSL.FloorTo(tick)
	}
	return p.Proposal.NewSL.CeilTo(tick)
}

// mayNotSend says why no order of a plan may go out now, "" where one may.
func mayNotSend(s *ledger.State, p *ledger.Plan, kind ledger.StepKind) (ledger.Outcome, ledger.Stage, ledger.Reason) {
	switch {
	case !s.MaySend(p, kind):
		return ledger.Denied, ledger.StageExecution, ledger.RunStateForbids
	case len(s.HoldsOn(p.Key())) > 0 && !p.Proposal.Force:
		return ledger.Denied, ledger.StageExecution, ledger.HoldActive
	case s.UnresolvedOn(p.Key(), kind) != nil:
		return ledger.Denied, ledger.StageExecution, ledger.CooldownInFlight
	default:
		return "", "", ""
	}
}

// grant consumes a step's permits and promises its first order, in one transaction.
func (st *draft) grant(r Rules, s *ledger.State, p *ledger.Plan, i int, see Sight) {
	sp := &p.Steps[i]
	qty, held := sp.Position.SafeCloseQty, sp.Position.Exchange
	if sp.Kind == ledger.StopStep {
		held, _ = s.Amount(p.Key()) // The close before it may have changed what is left to protect.
		qty = stopQty(see.Lot, held)
	} else if sp.Governor.Capped && sp.Governor.Qty.Less(qty) {
		qty = exchange.Floor(see.Lot, sp.Governor.Qty) // Dust is never closed past a cap.
	}
	if qty.Sign() <= 0 {
		st.endStep(p, i, ledger.NoOutcome, ledger.StageExecution, ledger.NothingLeft)
		if i == len(p.Steps)-1 {
			st.endPlan(s, p)
		}
		return
	}
	expires := sp.Governor.Expires
	if sp.Position.Expires.Before(expires) {
		expires = sp.Position.Expires
	}
	st.Events = append(st.Events, &ledger.StepGranted{ID: p.ID, Step: i, Qty: qty, Expires: expires})
	st.promise(r, s, p, i, held, qty, see)
}

// promise opens the intent for the next order of a step, and sends it once that is durable.
func (st *draft) promise(r Rules, s *ledger.State, p *ledger.Plan, i int, held, qty ledger.Qty, see Sight) {
	sp := &p.Steps[i]
	intent := ledger.Intent{
		Plan: p.ID, Step: i, Attempt: len(sp.Orders) + 1, Key: p.Key(), Kind: sp.Kind, Direction: ledger.Reducing(held), Exchange: held,
		SendBefore: see.At.Add(ledger.SendWithin),
	}
	if pos := s.Positions[p.Key()]; pos != nil {
		intent.Ledger, intent.Epoch = pos.Amount, pos.Epoch
	}
	intent.ClientOrderID = ledger.OrderIDOf(sp.Kind, p.ID, i+1, intent.Attempt)
	intent.Fence = intent.SendBefore.Add(r.RecvWindow + time.Second)
	if sp.Kind == ledger.StopStep {
		intent.Qty, intent.Trigger = qty, triggerOf(p, held, see.Tick)
	} else {
		intent.Qty = exchange.Cut(see.Lot, qty)
	}
	st.Events = append(st.Events, &ledger.IntentOpened{Intent: intent, Seen: st.seen})
	st.Effects = append(st.Effects, Effect{Send: OrderOf(&intent)})
}

// OrderOf is the order an intent promises.
func OrderOf(i *ledger.Intent) *exchange.Order {
	return &exchange.Order{ClientOrderID: i.ClientOrderID, Key: i.Key, Direction: i.Direction, Qty: i.Qty, Trigger: i.Trigger, SendBefore: i.SendBefore}
}

func (st *draft) endStep(p *ledger.Plan, i int, outcome ledger.Outcome, stage ledger.Stage, reason ledger.Reason) {
	st.Events = append(st.Events, &ledger.StepEnded{ID: p.ID, Step: i, Outcome: outcome, Stage: stage, Reason: reason, Seen: st.seen})
}

// endPlan ends a plan all of whose steps have ended, those in st included.
func (st *draft) endPlan(s *ledger.State, p *ledger.Plan) {
	steps := slices.Clone(p.Steps)
	for _, e := range st.Events {
		if e, ok := e.(*ledger.StepEnded); ok && e.ID == p.ID {
			steps[e.Step].Outcome, steps[e.Step].Stage, steps[e.Step].Reason = e.Outcome, e.Stage, e.Reason
		}
	}
	end := &ledger.PlanEnded{ID: p.ID, Outcome: steps[0].Outcome}
	for _, sp := range steps {
		if end.Reason == "" { // The first thing that went wrong explains the plan.
			end.Stage, end.Reason = sp.Stage, sp.Reason
		}
		if (sp.Outcome == ledger.Executed) != (end.Outcome == ledger.Executed) {
			end.Outcome = ledger.PartlyExecuted
		}
	}
	for _, id := range p.Orders() {
		if i := s.Intents[id]; i.State == ledger.NotPlaced && end.Outcome != ledger.Executed {
			end.Error = fmt.Sprintf("%s: %d %s", id, i.Code, i.Message)
		}
	}
	st.Events = append(st.Events, end)
}

// Answered records what became of an order that was sent. Where the account's stream has shown the order before,
// an answer that says otherwise changes nothing: what has happened is the better witness.
func Answered(s *ledger.State, id string, a exchange.Answer) (st step) {
	i := s.Intents[id]
	if i == nil || i.State != ledger.Sending && (i.State != ledger.Placed || a.Outcome != exchange.Placed || !tells(i, a.Status, a.Executed)) {
		return st
	}
	e := &ledger.IntentAnswered{
		ClientOrderID: id, OrderID: a.OrderID, Status: a.Status, Executed: a.Executed, Code: a.Code, Message: a.Message, RateLimited: a.RateLimited,
	}
	if a.Status == "FILLED" && a.Executed.IsZero() {
		e.Executed = i.Qty // It says so itself; its trades will tell the rest.
	}
	switch more := i.Qty.Less(e.Executed); {
	case more && i.State == ledger.Placed:
		return st // It was placed, whatever this is: a lookup that says the same is a contradiction.
	case more:
		a.Outcome, e.Executed, e.Message = exchange.Unknown, ledger.Qty{}, fmt.Sprintf("the answer says that %s of %s executed", e.Executed, i.Qty)
	}
	switch {
	case a.Outcome == exchange.Placed && i.Kind == ledger.StopStep:
		e.State = ledger.Standing
	case a.Outcome == exchange.Placed:
		e.State = ledger.Placed
	case a.Outcome == exchange.NotPlaced:
		e.State = ledger.NotPlaced
	default:
		e.State = ledger.Unknown
	}
	st.Events = append(st.Events, e)
	return st
}

// Advance goes on with a plan whose order has been answered, booked or refused: the step ends,
// or its next order is promised, or it has to wait; until tells how long, where that is known.
func Advance(r Rules, s *ledger.State, p *ledger.Plan, see Sight, now time.Time) (_ step, until time.Time) {
	st := draft{seen: see.of(p.Key())}
	n := p.Current()
	if n < 0 || p.Steps[n].Grant == nil {
		return st.step, until
	}
	sp := &p.Steps[n]
	last := s.Intents[sp.Orders[len(sp.Orders)-1]]
	if last.State.Unresolved() {
		return st.step, until
	}
	var outcome ledger.Outcome
	var reason ledger.Reason
	if sp.Kind == ledger.StopStep {
		outcome, reason = stopEnd(last)
	} else {
		outcome, reason, until = next(r, s, p, sp, last, see, now)
	}
	switch {
	case !until.IsZero():
	case outcome == "":
		st.promise(r, s, p, n, see.Snapshot.Of(p.Key()).Amount, resize(s, sp, see, p.Key()), see)
	default:
		stage := ledger.StageExecution
		if reason == "" {
			stage = ""
		}
		st.endStep(p, n, outcome, stage, reason)
		if n == len(p.Steps)-1 {
			st.endPlan(s, p)
		}
	}
	return st.step, until
}

// stopEnd is what became of a step that places a stop: it stands, or it could not be placed.
func stopEnd(last *ledger.Intent) (ledger.Outcome, ledger.Reason) {
	if last.State == ledger.NotPlaced {
		return ledger.Failed, ledger.OrderNotPlaced
	}
	return ledger.Executed, ""
}

// next decides between ending a close (an outcome), waiting (a time) and one more order (neither).
func next(r Rules, s *ledger.State, p *ledger.Plan, sp *ledger.Step, last *ledger.Intent, see Sight, now time.Time) (ledger.Outcome, ledger.Reason, time.Time) {
	ended := func(reason ledger.Reason) (ledger.Outcome, ledger.Reason, time.Time) {
		if sp.Filled.Sign() > 0 {
			return ledger.PartlyExecuted, reason, time.Time{}
		}
		return ledger.Failed, reason, time.Time{}
	}
	refused, unfilled := tries(s, sp)
	rest := exchange.Floor(see.Lot, s.GrantRest(sp))
	switch {
	case rest.IsZero() && sp.Filled.Sign() > 0:
		return ledger.Executed, "", time.Time{}
	case rest.IsZero():
		return ended(ledger.OrderUnfilled)
	case last.State == ledger.NotPlaced && refused >= r.Attempts:
		return ended(ledger.AttemptsExhausted)
	case last.State == ledger.Settled && last.Executed.Less(last.Qty) && (!p.Protective || unfilled > len(restDelays)):
		return ended(ledger.OrderUnfilled)
	case !now.Before(sp.Grant.Expires):
		return ended(ledger.GrantExpired)
	}
	if outcome, _, reason := mayNotSend(s, p, sp.Kind); outcome != "" {
		return ended(reason)
	}
	if at := last.AnsweredAt.Add(delay(refused + unfilled)); now.Before(at) {
		return "", "", at
	}
	if !informed(r, s, p.Key(), last, see) {
		return "", "", now.Add(lookAgain)
	}
	if resize(s, sp, see, p.Key()).IsZero() {
		if sp.Filled.Sign() > 0 {
			return ledger.Executed, "", time.Time{} // Flat, or too little left for an order: done.
		}
		return ended(ledger.NothingLeft)
	}
	return "", "", time.Time{}
}

// lookAgain is how often a plan that waits for a snapshot looks whether it has come.
const lookAgain = 100 * time.Millisecond

// restDelays are the pauses before the orders for an unfilled rest, or after a refusal.
var restDelays = [...]time.Duration{200 * time.Millisecond, 500 * time.Millisecond, time.Second}

func delay(tries int) time.Duration {
	if tries == 0 {
		return 0 // The next part of a close above the market maximum.
	}
	return restDelays[min(tries, len(restDelays))-1]
}

// tries counts the orders of a step that were refused, and those that did not fill whole.
func tries(s *ledger.State, sp *ledger.Step) (refused, unfilled int) {
	for _, id := range sp.Orders {
		switch i := s.Intents[id]; {
		case i.State == ledger.NotPlaced:
			refused++
		case i.State == ledger.Settled && i.Executed.Less(i.Qty):
			unfilled++
		}
	}
	return refused, unfilled
}

// informed tells whether a snapshot sent after the last order's answer and fills is there, fresh, and agrees with the ledger.
func informed(r Rules, s *ledger.State, k ledger.Key, last *ledger.Intent, see Sight) bool {
	pos := s.Positions[k]
	if see.Snapshot == nil || pos == nil || !ledger.Fresh(see.Snapshot.SentAt, see.At, r.StaleAfter) {
		return false
	}
	return see.Snapshot.SentAt.After(last.SendBefore.Add(-ledger.SendWithin)) && agrees(r, pos, see)
}

// agrees tells whether a snapshot that is there knows of the ledger's last trade, and shows what the ledger says.
func agrees(r Rules, pos *ledger.Position, see Sight) bool {
	held := see.Snapshot.Of(pos.Key).Amount
	differs := r.Tolerance.Of(see.Lot, held, see.Mark).Less(held.Sub(pos.Amount).Abs())
	return see.Snapshot.SentAt.After(pos.LastTradeAt) && !differs
}

// resize is how much of the grant's rest the position still allows.
func resize(s *ledger.State, sp *ledger.Step, see Sight, k ledger.Key) ledger.Qty {
	held := see.Snapshot.Of(k).Amount
	if held.Sign()*sp.Position.Exchange.Sign() <= 0 {
		return ledger.Qty{} // Flat, or turned: not the position that was granted.
	}
	return exchange.CloseQty(see.Lot, held, s.GrantRest(sp), false)
}

// Restart decides about what an earlier process left: a plan without an order ends, an order
// whose answer was never seen is unknown.
func Restart(s *ledger.State) step {
	var st draft
	for _, p := range s.OpenPlans() {
		n := p.Current()
		if n >= 0 && p.Steps[n].Grant != nil {
			continue
		}
		for i := n; i >= 0 && i < len(p.Steps); i++ {
			st.endStep(p, i, ledger.Denied, ledger.StageExecution, ledger.Restarted)
		}
		st.endPlan(s, p)
	}
	for _, i := range s.Unresolved() {
		if i.State == ledger.Sending {
			st.Events = append(st.Events, &ledger.IntentAnswered{
				ClientOrderID: i.ClientOrderID, State: ledger.Unknown, Message: "the process ended before the answer", Evidence: "restart",
			})
		}
	}
	return st.step
}
