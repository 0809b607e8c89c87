package replay

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"permitchain/ledger"
	"permitchain/stages/apply"
	"permitchain/stages/governor"
	"permitchain/stages/operator"
	"permitchain/stages/reconcile"
)

// Case is everything that one stage decides one step of a plan on.
type Case struct {
	Rules    Rules
	State    *ledger.State
	Plan     *ledger.Plan // of a plan that planning refuses, only its proposal and basis
	Step     int
	Stage    ledger.Stage
	Seen     reconcile.Seen // the position permit's
	Governor ledger.Verdict // execution's
	Position ledger.Verdict
	Now      time.Time
}

// ruled asks the kernel of the case's stage: "" where it lets the step pass.
func (c *Case) ruled() ledger.Reason {
	switch c.Stage {
	case ledger.StagePlan:
		_, receipt := apply.Plan(c.Rules.Apply, c.State, c.Plan.Proposal, c.Plan.Basis, c.Now)
		return receipt.Reason
	case ledger.StageGovernor, ledger.StagePosition:
		if v := c.verdict(); v.Ruling == ledger.Deny {
			return v.Reason
		}
	default:
		return c.joined()
	}
	return ""
}

// verdict is the permit stage's on the step; another stage has none.
func (c *Case) verdict() ledger.Verdict {
	switch c.Stage {
	case ledger.StageGovernor:
		return governor.Decide(c.Rules.Governor, c.State, c.Plan, c.Now)[c.Step]
	case ledger.StagePosition:
		return reconcile.Permit(c.Rules.Reconcile, c.State, c.Plan, c.Seen, c.Now).Verdicts[c.Step]
	default:
		return ledger.Verdict{}
	}
}

// joined asks apply whether it would grant the step.
func (c *Case) joined() ledger.Reason {
	see := apply.Sight{At: c.Seen.At, Snapshot: c.Seen.Snapshot, Mark: c.Seen.Mark, Lot: c.Seen.Lot}
	for _, e := range apply.Join(c.Rules.Apply, c.State, c.Plan, see, c.Now).Events {
		switch e := e.(type) {
		case *ledger.StepGranted:
			return ""
		case *ledger.StepEnded:
			return e.Reason
		}
	}
	return ""
}

// gate is a gate and what turns it.
type gate struct {
	operator.Gate
	// room is the share of the bound that is left, from 0 to 1; below 0: it can't be put so.
	room float64
	// least is the change of a bound that just closes the gate, and words what it is.
	least func(*Case)
	words string
}

func yes(stage ledger.Stage, name, value, bound string, passed bool, reason ledger.Reason) gate {
	return gate{Gate: operator.Gate{Stage: stage, Name: name, Value: value, Bound: bound, Passed: passed, Reason: reason}, room: -1}
}

func share(left, bound float64) float64 {
	if bound <= 0 {
		return -1
	}
	return max(0, left/bound)
}

// gates are those of the case's stage, in the order in which its kernel tries them; whether one passes is told by
// its own value and bound, so that the first that does not has to be the kernel's reason.
func (c *Case) gates() []gate {
	var all []gate
	switch c.Stage {
	case ledger.StageGovernor:
		all = c.governorGates()
	case ledger.StagePosition:
		all = c.positionGates()
	case ledger.StagePlan:
		all = c.planGates()
	default:
		all = c.executionGates()
	}
	reached := true
	for i := range all {
		all[i].Step, all[i].Reached = c.Step+1, reached
		reached = reached && all[i].Passed
	}
	return all
}

func (c *Case) planGates() []gate {
	r, p, s, b := c.Rules.Apply, c.Plan.Proposal, c.State, c.Plan.Basis
	pos, age := s.Positions[p.Key()], c.Now.Sub(p.ComputedAt)
	flatten := p.Source == ledger.FromOperator && p.Action == ledger.FullClose
	all := []gate{
		yes(ledger.StagePlan, "run state", string(s.Control.RunState), "not killed", s.Control.RunState != ledger.Killed || flatten, ledger.KillSwitchActive),
		yes(ledger.StagePlan, "action", string(p.Action), "a known one", p.Action.Known(), ledger.UnknownAction),
		yes(ledger.StagePlan, "symbol", p.Symbol, "among symbols", r.Listed, ledger.NotInAllowlist),
		yes(ledger.StagePlan, "action", string(p.Action), "not HOLD", p.Action != ledger.Hold, ledger.ActionHold),
	}
	if p.Action == ledger.UpdateSL {
		all = append(all, yes(ledger.StagePlan, "new_sl", p.NewSL.String(), "given", !p.NewSL.IsZero(), ledger.MissingNewSL),
			yes(ledger.StagePlan, "stop tightens", p.NewSL.String(), standing(s, p.Key()), s.Tightens(p.Key(), b.Exchange, p.NewSL), ledger.StopNotTighter))
	}
	other := p.Epoch != 0 && pos != nil && pos.Epoch != p.Epoch
	fresh := yes(ledger.StagePlan, "age", age.Round(time.Millisecond).String(), "at most "+r.ProposalTTL.String(), age <= r.ProposalTTL && age >= -time.Second && !other, ledger.StaleProposal)
	if other {
		fresh.Name, fresh.Value, fresh.Bound = "epoch", fmt.Sprint(p.Epoch), fmt.Sprint(pos.Epoch)
	}
	all = append(all, fresh)
	if p.Action.IsTranche() && pos != nil {
		t := pos.Tranches[p.Action]
		grown := t.Amount.Add(r.Tolerance.Of(b.Lot, t.Amount, b.Mark))
		g := yes(ledger.StagePlan, "tranche", "not done yet", "not done at this size", true, ledger.TrancheDone)
		if t.Done {
			g.Value, g.Bound, g.Passed = fmt.Sprintf("done at %s, now %s", t.Amount, pos.Amount.Abs()), "above "+grown.String(), grown.Less(pos.Amount.Abs())
		}
		all = append(all, g)
	}
	return all
}

// executionGates are the instants at which permits are used; what else execution asks has its own words in its reason.
func (c *Case) executionGates() []gate {
	if c.Governor.Expires.IsZero() || c.Position.Expires.IsZero() {
		return nil
	}
	ends := c.Governor.Expires
	if c.Position.Expires.Before(ends) {
		ends = c.Position.Expires
	}
	reason := c.ruled()
	all := []gate{yes(ledger.StageExecution, "permits", ends.Sub(c.Now).String()+" left", "above 0s", c.Now.Before(ends), ledger.PermitExpired)}
	if reason != "" && reason != ledger.PermitExpired {
		all = append(all, yes(ledger.StageExecution, "as things stand", string(c.State.Control.RunState), "nothing against it", false, reason))
	}
	return all
}

func (c *Case) kind() ledger.StepKind { return c.Plan.Steps[c.Step].Kind }

func (c *Case) governorGates() []gate {
	r, p, s := c.Rules.Governor, c.Plan, c.State
	if p.IsFlatten() {
		return []gate{yes(ledger.StageGovernor, "the operator's order", "flatten", "no limit", true, ledger.OperatorFlatten)}
	}
	tightens := c.kind() == ledger.StopStep && s.Tightens(p.Key(), p.Basis.Exchange, p.Proposal.NewSL)
	state := s.Control.RunState
	killed := state != ledger.Killed
	forbids, bound := ledger.KillSwitchActive, "not killed"
	if killed {
		forbids, bound = ledger.OnlyProtective, "protective, or not protective_only"
	}
	all := []gate{yes(ledger.StageGovernor, "1 run state", string(state), bound, killed && (state != ledger.ProtectiveOnly || p.Protective || tightens), forbids)}
	switch {
	case c.kind() == ledger.StopStep:
		reason := ledger.StopNotTighter
		if p.Proposal.KillScore >= r.KillScoreCritical {
			reason = ledger.KillScoreCritical
		}
		all = append(all, yes(ledger.StageGovernor, "3 stop tightens", p.Proposal.NewSL.String(), standing(s, p.Key()), tightens, reason),
			c.counted("stops_per_hour", ledger.StopBudget, time.Hour, r.StopsPerHour, ledger.StopLimit, func(c *Case, n int) { c.Rules.Governor.StopsPerHour = n }))
	case p.Protective:
		all = append(all, c.counted("protective_per_hour", ledger.Protective, time.Hour, r.ProtectivePerHour, ledger.ProtectiveLimit, func(c *Case, n int) { c.Rules.Governor.ProtectivePerHour = n }))
	default:
		all = append(append(all, c.paceGates()...), c.sizeGates()...)
	}
	if approved(r) { // The rest is a shadow: it does not decide.
		for i := range all[1:] {
			g := &all[i+1]
			g.Name, g.room = g.Name+" (shadow)", -1
			g.Passed = true
		}
		all = slices.Insert(all, 1, yes(ledger.StageGovernor, "2 auto_approve", string(r.Mode), "named there", true, ""))
	}
	return all
}

func approved(r governor.Rules) bool { return slices.Contains(r.AutoApprove, r.Mode) }

func standing(s *ledger.State, k ledger.Key) string {
	if pos := s.Positions[k]; pos != nil && pos.Stop != nil && pos.Stop.Epoch == pos.Epoch {
		return "tighter than " + pos.Stop.Trigger.String()
	}
	return "none stands"
}

// counted is a gate that counts uses in a rolling window.
func (c *Case) counted(name string, b ledger.Budget, window time.Duration, limit int, reason ledger.Reason, set func(*Case, int)) gate {
	used := len(governor.Times(c.State, c.Plan.Proposal.Symbol, b, c.Now.Add(-window)))
	return count(name, used, limit, reason, set)
}

func count(name string, used, limit int, reason ledger.Reason, set func(*Case, int)) gate {
	g := yes(ledger.StageGovernor, name, fmt.Sprintf("%d used", used), fmt.Sprintf("below %d", limit), used < limit, reason)
	g.room = share(float64(limit-used), float64(limit))
	if used > 0 { // A limit is at least 1.
		g.least, g.words = func(c *Case) { set(c, used) }, fmt.Sprintf("governor.%s ≤ %d", strings.TrimLeft(name, "0123456789 "), used)
	}
	return g
}

func (c *Case) paceGates() []gate {
	r := c.Rules.Governor
	cooldown := yes(ledger.StageGovernor, "4 cooldown", "never before", "at least "+r.Cooldown.String()+" ago", true, ledger.SymbolCooldown)
	if used := governor.Times(c.State, c.Plan.Proposal.Symbol, ledger.Normal, time.Time{}); len(used) > 0 {
		age := c.Now.Sub(used[len(used)-1])
		cooldown.Value, cooldown.Passed = "last "+age.Round(time.Millisecond).String()+" ago", age >= r.Cooldown
		cooldown.room = share(float64(age-r.Cooldown), float64(age))
		cooldown.least, cooldown.words = func(c *Case) { c.Rules.Governor.Cooldown = age + time.Nanosecond }, "governor.cooldown > "+age.Round(time.Millisecond).String()
	}
	return []gate{
		cooldown,
		c.counted("5 max_per_hour", ledger.Normal, time.Hour, r.MaxPerHour, ledger.HourlyLimit, func(c *Case, n int) { c.Rules.Governor.MaxPerHour = n }),
		c.counted("6 max_per_5min", ledger.Normal, 5*time.Minute, r.MaxPer5Min, ledger.BurstLimit, func(c *Case, n int) { c.Rules.Governor.MaxPer5Min = n }),
	}
}

func (c *Case) sizeGates() []gate {
	r, b := c.Rules.Governor, c.Plan.Basis
	all := []gate{c.aged(ledger.StageGovernor, "7 snapshot", b.SnapshotAt, b.At, r.StaleAfter, ledger.PositionUnknown, func(c *Case, d time.Duration) { c.Rules.Governor.StaleAfter = d })}
	qty := b.Exchange.Abs().Of(c.Plan.Proposal.Action.Share()).FloorTo(b.Lot.Step)
	notional := ledger.Notional(qty, b.Mark)
	if r.DailyNotional.Sign() > 0 || r.PortfolioDailyNotional.Sign() > 0 {
		mark := c.aged(ledger.StageGovernor, "7 mark price", b.MarkAt, b.At, r.StaleAfter, ledger.PriceUnknown, func(c *Case, d time.Duration) { c.Rules.Governor.StaleAfter = d })
		mark.Passed = mark.Passed && b.Mark.Sign() > 0
		all = append(all, mark)
	}
	if r.DailyNotional.Sign() > 0 {
		used := governor.Today(c.State, c.Plan.Proposal.Symbol, c.Now)
		left := r.DailyNotional.Sub(used).Max(ledger.USD{})
		fits := ledger.QtyFor(left, b.Mark, b.Lot.Step)
		trims := r.OnDailyLimit == governor.TrimTo && fits.Sign() > 0 && !fits.Less(b.Lot.Min)
		g := c.spent("8 daily_notional", used, notional, r.DailyNotional, ledger.DailyLimit, func(c *Case, usd ledger.USD) { c.Rules.Governor.DailyNotional = usd })
		g.Passed = !left.Less(notional) // A close of nothing passes a limit that is used up.
		if !g.Passed && trims {
			g.Passed, notional = true, ledger.Notional(fits, b.Mark)
			g.Bound += ", trimmed to " + fits.String()
		}
		all = append(all, g)
	}
	times, sum := governor.Portfolio(c.State, c.Now)
	if r.PortfolioPerHour > 0 {
		all = append(all, count("9 portfolio_per_hour", len(times), r.PortfolioPerHour, ledger.PortfolioHourlyLimit, func(c *Case, n int) { c.Rules.Governor.PortfolioPerHour = n }))
	}
	if r.PortfolioDailyNotional.Sign() > 0 {
		all = append(all, c.spent("9 portfolio_daily_notional", sum, notional, r.PortfolioDailyNotional, ledger.PortfolioDailyLimit, func(c *Case, usd ledger.USD) { c.Rules.Governor.PortfolioDailyNotional = usd }))
	}
	return all
}

// spent is a gate on a sum of USD.
func (c *Case) spent(name string, used, this, limit ledger.USD, reason ledger.Reason, set func(*Case, ledger.USD)) gate {
	all := used.Add(this)
	g := yes(ledger.StageGovernor, name, used.Fixed(2)+" used + "+this.Fixed(2), "at most "+limit.String(), !limit.Less(all), reason)
	g.room = share(limit.Sub(all).Float(), limit.Float())
	cent := ledger.MustUSD("0.01")
	if cent.Less(all) {
		g.least, g.words = func(c *Case) { set(c, all.Sub(cent)) }, fmt.Sprintf("governor.%s < %s", strings.TrimLeft(name, "0123456789 "), all.Fixed(2))
	}
	return g
}

// aged is a gate on how old an observation is.
func (c *Case) aged(stage ledger.Stage, name string, at, now time.Time, bound time.Duration, reason ledger.Reason, set func(*Case, time.Duration)) gate {
	g := yes(stage, name, "none", "at most "+bound.String()+" old", ledger.Fresh(at, now, bound), reason)
	if !at.IsZero() {
		age := now.Sub(at)
		g.Value = age.Round(time.Millisecond).String() + " old"
		if age > 0 {
			g.room = share(float64(bound-age), float64(bound))
			g.least, g.words = func(c *Case) { set(c, age-time.Nanosecond) }, "reconcile.stale_after < "+age.Round(time.Millisecond).String()
		}
	}
	return g
}

func (c *Case) positionGates() []gate {
	x, p, s := c.Rules.Reconcile, c.Plan, c.State
	held, at := ledger.Holding{Key: p.Key()}, time.Time{}
	if c.Seen.Snapshot != nil {
		held, at = c.Seen.Snapshot.Of(p.Key()), c.Seen.Snapshot.SentAt
	}
	stale := ledger.StaleExchangeState
	if at.IsZero() {
		stale = ledger.NoExchangeSnapshot
	}
	all := []gate{
		c.aged(ledger.StagePosition, "1 snapshot", at, c.Seen.At, x.StaleAfter, stale, func(c *Case, d time.Duration) { c.Rules.Reconcile.StaleAfter = d }),
		yes(ledger.StagePosition, "2 position", held.Amount.String(), "not flat", !held.Amount.IsZero(), ledger.NoPosition),
	}
	if !p.Proposal.Force {
		all = append(all, c.agreeing(held, at)...)
		var holds []string
		for _, h := range s.HoldsOn(p.Key()) {
			holds = append(holds, string(h.Reason))
		}
		all = append(all, yes(ledger.StagePosition, "5 holds", orNothing(strings.Join(holds, ",")), "none", len(holds) == 0, ledger.HoldActive))
	}
	if c.kind() == ledger.StopStep {
		why := held.Useless(p.Proposal.NewSL, c.Seen.Mark)
		g := yes(ledger.StagePosition, "stop protects", p.Proposal.NewSL.String(), fmt.Sprintf("mark %s, liquidation %s", c.Seen.Mark, held.Liquidation), why == "", why)
		return append(all, g)
	}
	return append(all, c.flying(held, at), c.sized(held))
}

func orNothing(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// agreeing are the gates that hold exchange and ledger against each other.
func (c *Case) agreeing(held ledger.Holding, at time.Time) []gate {
	ours, known := c.State.Amount(c.Plan.Key())
	value := "ledger " + ours.String()
	if !known {
		value = "no ledger"
	}
	diff := held.Amount.Abs().Sub(ours.Abs()).Abs()
	tolerance := c.Rules.Reconcile.Tolerance().Of(c.Seen.Lot, held.Amount, c.Seen.Mark)
	reason := ledger.QtyMismatch
	if pos := c.State.Positions[c.Plan.Key()]; pos != nil && !at.After(pos.LastTradeAt) {
		reason = ledger.CooldownInFlight
	}
	amounts := yes(ledger.StagePosition, "4 difference", fmt.Sprintf("%s (%s)", diff, value), "at most "+tolerance.String(), !tolerance.Less(diff), reason)
	amounts.room = share(tolerance.Sub(diff).Float(), tolerance.Float())
	if diff.Sign() == 0 {
		amounts.room = -1 // They agree: there is nothing to be near to.
	}
	return []gate{
		yes(ledger.StagePosition, "3 sides", fmt.Sprintf("exchange %s, %s", held.Amount, value), "not opposite", ours.Sign()*held.Amount.Sign() >= 0, ledger.SideMismatch), amounts,
	}
}

// flying is the gate on orders in flight and the pause after the last.
func (c *Case) flying(held ledger.Holding, at time.Time) gate {
	bound := c.Rules.Reconcile.Cooldown
	g := yes(ledger.StagePosition, "6 in flight", "no order before", "none, and the last "+bound.String()+" ago", true, ledger.CooldownInFlight)
	pos := c.State.Positions[c.Plan.Key()]
	switch i := c.State.UnresolvedOn(c.Plan.Key(), ledger.CloseStep); {
	case i != nil:
		g.Value, g.Passed = i.ClientOrderID+" is "+string(i.State), false
	case pos != nil && !pos.LastOrderAt.IsZero():
		age := c.Now.Sub(pos.LastOrderAt)
		shownIn := c.Plan.Protective && at.After(pos.LastTradeAt) && held.Amount.Abs().Equal(pos.Amount.Abs())
		g.Value, g.Passed = "last "+age.Round(time.Millisecond).String()+" ago", age >= bound || shownIn
		if !shownIn {
			g.room = share(float64(age-bound), float64(age))
			g.least, g.words = func(c *Case) { c.Rules.Reconcile.Cooldown = age + time.Nanosecond }, "reconcile.cooldown > "+age.Round(time.Millisecond).String()
		}
	}
	return g
}

// sized is the gate on what is left to order.
func (c *Case) sized(held ledger.Holding) gate {
	lot, want := c.Seen.Lot, held.Amount.Abs().Of(c.Plan.Proposal.Action.Share())
	floored := want.FloorTo(lot.Step)
	g := yes(ledger.StagePosition, "7 quantity", want.String(), "at least "+lot.Min.String(), floored.Sign() > 0 && !floored.Less(lot.Min), ledger.QtyBelowMin)
	g.room = share(floored.Sub(lot.Min).Float(), floored.Float())
	if g.Passed {
		g.least, g.words = func(c *Case) { c.Seen.Lot.Min = floored.Add(lot.Step) }, "a market minimum > "+floored.String()
	}
	return g
}
