package simulate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"permitchain/exchange"
	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// judge counts what the exchange received and did, and holds it against the journal. Of the chain it knows the records
// alone: those that are durable say what may be sent, those that are folded what is believed.
type judge struct {
	w        *world
	promised map[string]*ledger.Intent // durable
	grants   map[string]ledger.Qty     // durable, by plan and step
	sends    map[string]*sending       // by client order id: what left the process
	held     map[ledger.Key]ledger.Qty // by every trade there was
	closed   map[string]ledger.Qty     // what was taken off on a grant, by plan and step
	traded   map[string]map[int64]*ledger.Trade

	run       ledger.RunState // by the records folded
	stops     map[ledger.Key]map[ledger.Reason]bool
	abandoned map[string]bool // believed not to have been placed
}

// sending is an order that left the process.
type sending struct {
	order   exchange.Order
	flying  bool // it may still land
	orders  []int64
	taken   ledger.Qty
	settled bool // its order at the exchange has ended
}

func newJudge(w *world) *judge {
	return &judge{
		w: w, promised: map[string]*ledger.Intent{}, grants: map[string]ledger.Qty{}, sends: map[string]*sending{}, held: map[ledger.Key]ledger.Qty{},
		closed: map[string]ledger.Qty{}, traded: map[string]map[int64]*ledger.Trade{},
	}
}

func stepName(id ledger.PlanID, step int) string { return fmt.Sprintf("%s/%d", id, step) }

// begin takes over what a refolded journal believes.
func (j *judge) begin(s *ledger.State) {
	j.run, j.stops, j.abandoned = s.Control.RunState, map[ledger.Key]map[ledger.Reason]bool{}, map[string]bool{}
	for k, holds := range s.Holds {
		for _, h := range holds {
			j.stop(k, h.Reason, true)
		}
	}
	for id, i := range s.Intents {
		j.abandoned[id] = i.State == ledger.NotPlaced
	}
}

func (j *judge) stop(k ledger.Key, r ledger.Reason, on bool) {
	if j.stops[k] == nil {
		j.stops[k] = map[ledger.Reason]bool{}
	}
	if on {
		j.stops[k][r] = true
	} else {
		delete(j.stops[k], r)
	}
}

// before judges an event on the state that it has not changed yet.
func (j *judge) before(s *ledger.State, e ledger.Event) {
	switch e := e.(type) {
	case *ledger.IntentOpened:
		j.opened(s, &e.Intent)
	case *ledger.FillBooked:
		j.booked(e)
	case *ledger.PlanDecided:
		j.planned(s, e)
	case *ledger.StepEnded:
		j.hasty(s, e)
	}
}

// opened: S12, S20 and S5, from the events alone.
func (j *judge) opened(s *ledger.State, i *ledger.Intent) {
	w, p := j.w, s.Plans[i.Plan]
	lot := w.markets[i.Key.Symbol].Lot
	flatten := p.Proposal.Source == ledger.FromOperator && p.Proposal.Action == ledger.FullClose
	switch {
	case j.run == ledger.Killed && !flatten, j.run == ledger.Disarmed && !flatten,
		j.run == ledger.ProtectiveOnly && !flatten && !p.Protective && i.Kind != ledger.StopStep:
		w.violated("S12", "order %s is promised while %s", i.ClientOrderID, j.run)
	case len(j.stops[i.Key])+len(j.stops[ledger.Key{Symbol: i.Key.Symbol}]) > 0 && !p.Proposal.Force:
		w.violated("S12", "order %s is promised under a hold", i.ClientOrderID)
	case !i.Qty.FloorTo(lot.Step).Equal(i.Qty) || i.Qty.Less(lot.Min) || lot.Max.Less(i.Qty):
		w.violated("S20", "order %s of %s does not fit the market: step %s, %s to %s", i.ClientOrderID, i.Qty, lot.Step, lot.Min, lot.Max)
	case w.rules.Mode == ledger.DryRun:
		w.violated("S17", "order %s is promised in dry_run", i.ClientOrderID)
	}
}

// booked: S10, against the exchange's own list of trades.
func (j *judge) booked(e *ledger.FillBooked) {
	t := j.traded[e.Trade.Symbol][e.Trade.ID]
	switch {
	case t == nil || t.Key != e.Trade.Key || !t.Qty.Equal(e.Trade.Qty) || t.Direction != e.Trade.Direction:
		j.w.violated("S10", "trade %d of %s %s is booked, and the exchange has no such trade", e.Trade.ID, e.Trade.Key, e.Trade.Qty)
	case !e.External && t.ClientOrderID != e.Trade.ClientOrderID:
		j.w.violated("S10", "trade %d of order %q is booked as one of %s", t.ID, t.ClientOrderID, e.Trade.ClientOrderID)
	}
}

// planned: S7, a partial close counts as done only by a plan that filled something, may still, or found too little to fill.
func (j *judge) planned(s *ledger.State, e *ledger.PlanDecided) {
	if e.Reason != ledger.TrancheDone {
		return
	}
	by := s.Plans[s.Positions[e.Proposal.Key()].Tranches[e.Proposal.Action].Plan]
	if by == nil || len(by.Steps) == 0 {
		return
	}
	if sp := by.Steps[0]; sp.Filled.IsZero() && sp.Outcome.Final() && sp.Reason != ledger.QtyBelowMin {
		j.w.violated("S7", "plan %s is skipped as done by plan %s, which was %s and filled nothing", e.ID, by.ID, sp.Outcome)
	}
}

// hasty: S6, a missing permit is waited for before it denies.
func (j *judge) hasty(s *ledger.State, e *ledger.StepEnded) {
	p := s.Plans[e.ID]
	if e.Reason != ledger.GovernorTimeout && e.Reason != ledger.PositionTimeout || j.w.on[Skew] > 0 {
		return // Where the clock steps, a while is not what it seems.
	}
	if waited := j.w.p.journal.now().Sub(p.DecidedAt); waited < j.w.rules.Apply(p.Proposal.Symbol).PermitWait {
		j.w.violated("S6", "plan %s is denied for want of a permit after %s", e.ID, waited)
	}
}

// folded takes note of an event, and judges what it claims.
func (j *judge) folded(p *process, event ledger.Event) {
	w := j.w
	switch e := event.(type) {
	case *ledger.RunStateChanged:
		j.run = e.To
	case *ledger.HoldPut:
		j.stop(e.Key, e.Reason, true)
		w.result.Refused["hold "+string(e.Reason)]++
	case *ledger.HoldCleared:
		j.stop(e.Key, e.Reason, false)
	case *ledger.IntentAnswered:
		if j.abandoned[e.ClientOrderID] = e.State == ledger.NotPlaced; e.State == ledger.NotPlaced {
			j.abandon(e)
		}
	case *ledger.PositionDecided:
		j.seen(p, e)
	case *ledger.GovernorDecided:
		for _, v := range e.Verdicts {
			w.count(v.Ruling == ledger.Allow, "governor", v.Reason)
		}
	case *ledger.PlanEnded:
		w.result.Outcomes[e.Outcome]++
		if e.Outcome != ledger.Executed {
			w.result.Denied[string(e.Stage)+" "+string(e.Reason)]++
		}
	case *ledger.PlanDecided:
		w.result.Plans++
		if e.Decision != ledger.Execute {
			w.result.Denied["plan "+string(e.Reason)]++
		}
	}
}

// count keeps how often each gate let something pass, and how often it did not.
func (w *world) count(allowed bool, stage string, r ledger.Reason) {
	if allowed {
		w.result.Allowed[stage+" "+string(r)]++
	} else {
		w.result.Refused[stage+" "+string(r)]++
	}
}

// abandon: S9, with the exchange's own truth.
func (j *judge) abandon(e *ledger.IntentAnswered) {
	switch f := j.sends[e.ClientOrderID]; {
	case f == nil:
	case len(f.orders) > 0:
		j.w.violated("S9", "order %s is said not to be placed, and the exchange has it as %v (%s)", e.ClientOrderID, f.orders, e.Message)
	case f.flying:
		j.w.violated("S9", "order %s is said not to be placed, and is still on its way (%s)", e.ClientOrderID, e.Message)
	}
}

// seen: S11, a position permit rests on an answer that the exchange gave, unchanged, and is young enough.
func (j *judge) seen(p *process, e *ledger.PositionDecided) {
	w := j.w
	for _, v := range e.Verdicts {
		w.count(v.Ruling == ledger.Allow, "position", v.Reason)
	}
	if !slices.ContainsFunc(e.Verdicts, func(v ledger.Verdict) bool { return v.Ruling == ledger.Allow }) {
		return
	}
	snap, served := p.served[e.SnapshotAt]
	switch age := e.At.Sub(e.SnapshotAt); {
	case !served:
		w.violated("S11", "plan %s is permitted on a snapshot that the exchange never gave", e.ID)
	case !snap.Of(e.Holding.Key).Amount.Equal(e.Holding.Amount):
		w.violated("S11", "plan %s is permitted on %s, and the exchange had said %s", e.ID, e.Holding.Amount, snap.Of(e.Holding.Key).Amount)
	case age < 0 || age > w.rules.Reconcile(e.Holding.Symbol).StaleAfter:
		w.violated("S11", "plan %s is permitted on a snapshot %s old", e.ID, age)
	}
}

// durable takes note of a record that has reached the disk.
func (j *judge) durable(r *written) {
	if r.kind != ledger.KindIntentOpened && r.kind != ledger.KindStepGranted {
		return
	}
	if err := r.read(); err != nil {
		j.w.violated("S14", "record %d cannot be read back: %v", r.seq, err)
		return
	}
	switch e := r.event.(type) {
	case *ledger.IntentOpened:
		j.promised[e.Intent.ClientOrderID] = &e.Intent
	case *ledger.StepGranted:
		j.grants[stepName(e.ID, e.Step)] = e.Qty
	}
}

// sent judges an order that leaves the process: S1, S2, S3, S17.
func (j *judge) sent(o exchange.Order) {
	w, i := j.w, j.promised[o.ClientOrderID]
	switch {
	case i == nil:
		w.violated("S1", "order %s is sent, and no durable record promises it", o.ClientOrderID)
	case i.Key != o.Key || i.Direction != o.Direction || !i.Qty.Equal(o.Qty) || !i.Trigger.Equal(o.Trigger) || !i.SendBefore.Equal(o.SendBefore):
		w.violated("S1", "order %s is sent as %s %s of %s, and promised as %s %s of %s", o.ClientOrderID, o.Direction, o.Qty, o.Key, i.Direction, i.Qty, i.Key)
	case j.sends[o.ClientOrderID] != nil:
		w.violated("S2", "order %s is sent twice", o.ClientOrderID)
	case w.rules.Mode == ledger.DryRun:
		w.violated("S17", "order %s is sent in dry_run", o.ClientOrderID)
	}
	if o.Trigger.IsZero() {
		j.alone(o)
	}
	j.sends[o.ClientOrderID] = &sending{order: o, flying: true}
}

// alone: S3, no other close of the position can still trade.
func (j *judge) alone(o exchange.Order) {
	for _, f := range j.sends {
		if f.order.Key == o.Key && f.order.Trigger.IsZero() && (f.flying || len(f.orders) > 0 && !f.settled) {
			j.w.violated("S3", "order %s is sent while another can still trade", o.ClientOrderID)
			return
		}
	}
}

// lost: an order will never land.
func (j *judge) lost(id string) { j.sends[id].flying = false }

// landed: an order has reached the engine, and was taken or refused.
func (j *judge) landed(id string) { j.sends[id].flying = false }

// refused: S20, the market's filters never refuse an order of ours.
func (j *judge) refused(o exchange.Order, r venue.Reject) {
	if slices.Contains([]int64{-1111, -4003, -4004, -4005, -4014, -4023, -1117, -4015}, r.Code) {
		j.w.violated("S20", "order %s of %s is refused by a filter: %v", o.ClientOrderID, o.Qty, r)
	}
}

// changed judges what happened on the account.
func (j *judge) changed(c venue.Change) {
	for _, t := range c.Trades {
		was := j.held[t.Key]
		is := was.Add(t.Direction.Signed(t.Qty))
		j.held[t.Key] = is
		if j.traded[t.Symbol] == nil {
			j.traded[t.Symbol] = map[int64]*ledger.Trade{}
		}
		j.traded[t.Symbol][t.ID] = &t
		if ledger.OfOurForm(t.ClientOrderID) && (!is.Abs().Less(was.Abs()) || is.Sign()*was.Sign() < 0) {
			j.w.violated("S5", "a trade of %s takes %s from %s to %s", t.ClientOrderID, t.Key, was, is)
		}
	}
	for _, o := range c.Orders {
		if ledger.OfOurForm(o.ClientOrderID) {
			j.ours(o)
		}
	}
}

// ours judges an order of ours at the exchange: S2, S4, S9.
func (j *judge) ours(o venue.Order) {
	w, f, i := j.w, j.sends[o.ClientOrderID], j.promised[o.ClientOrderID]
	if f == nil || i == nil {
		w.violated("S1", "the exchange has order %s, which was never sent", o.ClientOrderID)
		return
	}
	if !slices.Contains(f.orders, o.OrderID) {
		f.orders = append(f.orders, o.OrderID)
	}
	f.settled = o.Status != venue.StatusNew && o.Status != venue.StatusPartiallyFilled
	name := stepName(i.Plan, i.Step)
	j.closed[name] = j.closed[name].Add(o.Executed.Sub(f.taken))
	f.taken = o.Executed
	switch {
	case len(f.orders) > 1:
		w.violated("S2", "order %s came to be %d times: %v", o.ClientOrderID, len(f.orders), f.orders)
	case i.Qty.Less(o.Executed):
		w.violated("S4", "order %s of %s executed %s", o.ClientOrderID, i.Qty, o.Executed)
	case i.Kind == ledger.CloseStep && j.grants[name].Less(j.closed[name]):
		w.violated("S4", "the orders of %s executed %s on a grant of %s", name, j.closed[name], j.grants[name])
	case j.abandoned[o.ClientOrderID]:
		w.violated("S9", "order %s was said not to be placed, and is order %d: %s, executed %s", o.ClientOrderID, o.OrderID, o.Status, o.Executed)
	}
}

// compare: S14 and S15, the disk adds up to what the process believed. What is not on the disk is folded on top of it.
func (j *judge) compare(of *journal) {
	s, err := refold(append(slices.Clip(j.w.disk), of.open...))
	if err != nil {
		j.w.violated("S14", "the journal cannot be folded again: %v", err)
	} else if !bytes.Equal(digest(s), digest(of.state)) {
		j.w.violated("S14", "the journal folds to another state than the process had")
	}
}

// end: L1 and L2, after a while without faults.
func (j *judge) end() {
	w, s := j.w, j.w.p.journal.state
	if w.seed%8 == 0 {
		j.compare(w.p.journal)
	}
	j.standing(s)
	for _, i := range s.Unresolved() {
		w.violated("L1", "order %s is %s still, %s after its fence", i.ClientOrderID, i.State, w.at().Sub(i.Fence).Round(time.Second))
		return
	}
	for _, p := range s.OpenPlans() {
		w.violated("L1", "plan %s is %s still", p.ID, p.Outcome)
		return
	}
	for id, f := range j.sends {
		if f.flying {
			panic("order " + id + " is still on its way") // The world itself is wrong.
		}
	}
	for _, symbol := range w.rules.Symbols {
		for _, side := range []ledger.Side{ledger.Both, ledger.Long, ledger.Short} {
			k := ledger.Key{Symbol: symbol, Side: side}
			ours, _ := s.Amount(k)
			if diff := ours.Sub(w.amountOf(k)).Abs(); diff.Sign() > 0 && !j.tolerated(k, diff) || !j.held[k].Equal(w.amountOf(k)) {
				text, _ := json.Marshal(s.HoldsOn(k)) // For a reader; it always marshals.
				w.violated("L2", "the ledger holds %s of %s, and the exchange %s (holds %s)", ours, k, w.amountOf(k), text)
				return
			}
		}
	}
}

// tolerated tells whether a difference is one that the configuration tolerates, and that the chain cannot know of: where
// positions lag, an amount that was taken over may be older than the trades that count as being in it.
func (j *judge) tolerated(k ledger.Key, diff ledger.Qty) bool {
	w := j.w
	bound := w.rules.Apply(k.Symbol).Tolerance.Of(w.markets[k.Symbol].Lot, w.amountOf(k), w.price(k.Symbol))
	return w.on[PositionLag] > 0 && !bound.Less(diff)
}

// standing: L2, what of ours still can trade is what the ledger says stands, for a position there is.
func (j *judge) standing(s *ledger.State) {
	orders, stops := j.w.venue.Open()
	for _, o := range orders {
		if ledger.OfOurForm(o.ClientOrderID) {
			j.w.violated("L2", "order %s is still open", o.ClientOrderID)
		}
	}
	for _, stop := range stops {
		pos := s.Positions[stop.Key]
		if ledger.OfOurForm(stop.ClientAlgoID) && (pos == nil || pos.Stop == nil || pos.Stop.ClientOrderID != stop.ClientAlgoID || pos.Amount.IsZero()) {
			j.w.violated("L2", "stop %s stands still, and nothing wants it", stop.ClientAlgoID)
		}
	}
}

// violated notes that an invariant does not hold. The simulation ends there.
func (w *world) violated(invariant, format string, args ...any) {
	v := Violation{Seed: w.seed, At: w.at(), Invariant: invariant, What: fmt.Sprintf(format, args...)}
	w.trace("violation", invariant+" "+v.What)
	w.result.Violations = append(w.result.Violations, v)
}
