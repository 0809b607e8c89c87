package governor

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"permitchain/ledger"
)

// Rules are what the kernel decides by, for one symbol.
type Rules struct {
	Config
	Mode       ledger.Mode
	StaleAfter time.Duration // how old a snapshot or mark may be and still size a close
}

// Decide gives a verdict for each step of a plan. Gates are tried in order; the first
// to fail is the reason.
func Decide(r Rules, s *ledger.State, p *ledger.Plan, now time.Time) []ledger.Verdict {
	verdicts := make([]ledger.Verdict, len(p.Steps))
	for i, step := range p.Steps {
		j := judge{r, s, p, step.Kind, now}
		v := j.decide()
		if v.Ruling == ledger.Allow {
			v.Expires = now.Add(r.PermitTTL)
		}
		verdicts[i] = v
	}
	return verdicts
}

// judge is one step before the governor.
type judge struct {
	Rules
	state *ledger.State
	plan  *ledger.Plan
	kind  ledger.StepKind
	now   time.Time
}

func (j judge) decide() ledger.Verdict {
	if j.plan.IsFlatten() {
		return allow(ledger.OperatorFlatten)
	}
	if v, stop := j.runState(); stop {
		return v
	}
	v := j.limits()
	if slices.Contains(j.AutoApprove, j.Mode) {
		approved := allow(autoApproved(j.Mode))
		approved.Shadow = v.Reason
		approved.Context = v.Context
		return approved
	}
	return v
}

func autoApproved(m ledger.Mode) ledger.Reason {
	switch m {
	case ledger.Testnet:
		return ledger.TestnetAutoApprove
	case ledger.DryRun:
		return ledger.DryRunAutoApprove
	default: // Live is a configuration error.
		return ledger.PaperAutoApprove
	}
}

// runState is gate 1.
func (j judge) runState() (ledger.Verdict, bool) {
	c := j.state.Control
	facts := ledger.Facts{{Name: "run_state", Value: string(c.RunState)}, {Name: "since", Value: stamp(c.Since)}, {Name: "who", Value: c.Who}, {Name: "why", Value: c.Why}}
	switch {
	case c.RunState == ledger.Killed:
		return deny(ledger.KillSwitchActive, time.Time{}, facts...), true
	case c.RunState == ledger.ProtectiveOnly && !j.protective():
		return deny(ledger.OnlyProtective, time.Time{}, facts...), true
	}
	return ledger.Verdict{}, false
}

// protective tells whether the step is: a plan that is, or a stop that tightens.
func (j judge) protective() bool {
	return j.plan.Protective || (j.kind == ledger.StopStep && j.tightens())
}

func (j judge) tightens() bool {
	return j.state.Tightens(j.plan.Key(), j.plan.Basis.Exchange, j.plan.Proposal.NewSL)
}

// limits are gates 3 to 9, and the budgets of what skips them.
func (j judge) limits() ledger.Verdict {
	switch {
	case j.kind == ledger.StopStep && !j.tightens():
		return j.looseStop()
	case j.kind == ledger.StopStep:
		return j.budget(ledger.StopBudget, time.Hour, j.StopsPerHour, ledger.StopLimit, ledger.WithinLimits)
	case j.plan.Protective:
		return j.budget(ledger.Protective, time.Hour, j.ProtectivePerHour, ledger.ProtectiveLimit, ledger.WithinProtectiveBudget)
	}
	if v, stop := j.pace(); stop {
		return v
	}
	return j.size()
}

// looseStop is gate 3 for the only step that can fail it: a stop that would not tighten.
func (j judge) looseStop() ledger.Verdict {
	facts := []ledger.Fact{{Name: "new_sl", Value: j.plan.Proposal.NewSL.String()}, {Name: "kill_score", Value: fmt.Sprintf("%.6f", j.plan.Proposal.KillScore)}}
	if pos := j.state.Positions[j.plan.Key()]; pos != nil && pos.Stop != nil {
		facts = append(facts, ledger.Fact{Name: "standing", Value: pos.Stop.Trigger.String()})
	}
	if j.plan.Proposal.KillScore >= j.KillScoreCritical {
		return deny(ledger.KillScoreCritical, time.Time{}, append(facts, ledger.Fact{Name: "bound", Value: fmt.Sprintf("%.6f", j.KillScoreCritical)})...)
	}
	return deny(ledger.StopNotTighter, time.Time{}, facts...)
}

// budget is a rolling count of one budget of the symbol.
func (j judge) budget(b ledger.Budget, window time.Duration, limit int, denied, allowed ledger.Reason) ledger.Verdict {
	used := j.times(j.plan.Proposal.Symbol, b, window)
	if len(used) >= limit {
		return tooMany(denied, used, limit, window)
	}
	v := allow(allowed)
	v.Budget = b
	return v
}

// pace is gates 4 to 6.
func (j judge) pace() (ledger.Verdict, bool) {
	symbol := j.plan.Proposal.Symbol
	if last := j.times(symbol, ledger.Normal, j.Cooldown); len(last) > 0 {
		frees := last[len(last)-1].Add(j.Cooldown)
		return deny(ledger.SymbolCooldown, frees, ledger.Fact{Name: "last", Value: stamp(last[len(last)-1])}, ledger.Fact{Name: "cooldown", Value: j.Cooldown.String()}), true
	}
	gates := []struct {
		reason ledger.Reason
		limit  int
		window time.Duration
	}{{ledger.HourlyLimit, j.MaxPerHour, time.Hour}, {ledger.BurstLimit, j.MaxPer5Min, 5 * time.Minute}}
	for _, g := range gates {
		if used := j.times(symbol, ledger.Normal, g.window); len(used) >= g.limit {
			return tooMany(g.reason, used, g.limit, g.window), true
		}
	}
	return ledger.Verdict{}, false
}

// size is gates 7 to 9.
func (j judge) size() ledger.Verdict {
	b := j.plan.Basis
	if !ledger.Fresh(b.SnapshotAt, b.At, j.StaleAfter) {
		return deny(ledger.PositionUnknown, time.Time{}, ledger.Fact{Name: "snapshot_at", Value: stamp(b.SnapshotAt)}, ledger.Fact{Name: "stale_after", Value: j.StaleAfter.String()})
	}
	usdLimit := j.DailyNotional.Sign() > 0 || j.PortfolioDailyNotional.Sign() > 0
	if usdLimit && (b.Mark.Sign() <= 0 || !ledger.Fresh(b.MarkAt, b.At, j.StaleAfter)) {
		return deny(ledger.PriceUnknown, time.Time{}, ledger.Fact{Name: "mark_at", Value: stamp(b.MarkAt)}, ledger.Fact{Name: "stale_after", Value: j.StaleAfter.String()})
	}
	v := allow(ledger.WithinLimits)
	v.Budget = ledger.Normal
	v.Qty = b.Exchange.Abs().Of(j.plan.Proposal.Action.Share()).FloorTo(b.Lot.Step)
	v.Notional = ledger.Notional(v.Qty, b.Mark)
	if denied, stop := j.daily(&v); stop {
		return denied
	}
	return j.portfolio(v)
}

// daily is gate 8. It caps v at what is left of the limit: the position may have grown since it was sized.
func (j judge) daily(v *ledger.Verdict) (ledger.Verdict, bool) {
	if j.DailyNotional.Sign() <= 0 {
		return ledger.Verdict{}, false
	}
	b, used := j.plan.Basis, j.today(j.plan.Proposal.Symbol)
	left := j.DailyNotional.Sub(used).Max(ledger.USD{})
	fits := ledger.QtyFor(left, b.Mark, b.Lot.Step)
	if !left.Less(v.Notional) {
		v.Capped, v.Qty = true, fits
		return ledger.Verdict{}, false
	}
	facts := ledger.Facts{
		{Name: "used_usd", Value: used.Fixed(2)},
		{Name: "this_usd", Value: v.Notional.Fixed(2)},
		{Name: "limit_usd", Value: j.DailyNotional.String()},
		{Name: "left_usd", Value: left.Fixed(2)},
	}
	if j.OnDailyLimit != TrimTo || fits.Sign() <= 0 || fits.Less(b.Lot.Min) {
		return deny(ledger.DailyLimit, Tomorrow(j.now), facts...), true
	}
	v.Reason, v.Context = ledger.TrimmedToDailyLimit, facts
	v.Capped, v.Qty, v.Notional = true, fits, ledger.Notional(fits, b.Mark)
	return ledger.Verdict{}, false
}

// portfolio is gate 9.
func (j judge) portfolio(v ledger.Verdict) ledger.Verdict {
	all, sum := Portfolio(j.state, j.now)
	if j.PortfolioPerHour > 0 && len(all) >= j.PortfolioPerHour {
		return tooMany(ledger.PortfolioHourlyLimit, all, j.PortfolioPerHour, time.Hour)
	}
	if j.PortfolioDailyNotional.Sign() > 0 && j.PortfolioDailyNotional.Less(sum.Add(v.Notional)) {
		return deny(ledger.PortfolioDailyLimit, Tomorrow(j.now), ledger.Fact{Name: "used_usd", Value: sum.Fixed(2)},
			ledger.Fact{Name: "this_usd", Value: v.Notional.Fixed(2)}, ledger.Fact{Name: "limit_usd", Value: j.PortfolioDailyNotional.String()})
	}
	return v
}

// times are the instants of a budget's uses within a rolling window, oldest first: reserved ones count like spent ones.
func (j judge) times(symbol string, b ledger.Budget, window time.Duration) []time.Time {
	return Times(j.state, symbol, b, j.now.Add(-window))
}

func (j judge) today(symbol string) ledger.USD { return Today(j.state, symbol, j.now) }

// Times are the instants after since at which a symbol used a budget, oldest first.
func Times(s *ledger.State, symbol string, b ledger.Budget, since time.Time) []time.Time {
	var times []time.Time
	if usage := s.Usage[symbol]; usage != nil {
		for _, u := range usage.Uses {
			if u.Budget == b && u.At.After(since) {
				times = append(times, u.At)
			}
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	return times
}

// Today is what a symbol's normal closes reduced, or reserved, in now's UTC day.
func Today(s *ledger.State, symbol string, now time.Time) ledger.USD {
	var sum ledger.USD
	day := now.UTC().Truncate(24 * time.Hour)
	if usage := s.Usage[symbol]; usage != nil {
		for _, u := range usage.Uses {
			if u.Budget == ledger.Normal && !u.At.Before(day) {
				sum = sum.Add(u.Notional)
			}
		}
	}
	return sum
}

// Portfolio is what all symbols together used: the instants of the last hour, oldest first, and today's sum.
func Portfolio(s *ledger.State, now time.Time) (times []time.Time, sum ledger.USD) {
	for symbol := range s.Usage {
		times = append(times, Times(s, symbol, ledger.Normal, now.Add(-time.Hour))...)
		sum = sum.Add(Today(s, symbol, now))
	}
	slices.SortFunc(times, time.Time.Compare)
	return times, sum
}

// Tomorrow is when the next UTC day begins.
func Tomorrow(now time.Time) time.Time { return now.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour) }

func tooMany(reason ledger.Reason, used []time.Time, limit int, window time.Duration) ledger.Verdict {
	frees := used[len(used)-limit].Add(window) // When this one leaves the window, there is room for one.
	return deny(reason, frees, ledger.Fact{Name: "used", Value: fmt.Sprint(len(used))}, ledger.Fact{Name: "limit", Value: fmt.Sprint(limit)}, ledger.Fact{Name: "window", Value: window.String()})
}

func allow(reason ledger.Reason) ledger.Verdict {
	return ledger.Verdict{Ruling: ledger.Allow, Reason: reason}
}

func deny(reason ledger.Reason, frees time.Time, facts ...ledger.Fact) ledger.Verdict {
	return ledger.Verdict{Ruling: ledger.Deny, Reason: reason, FreesAt: frees, Context: facts}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// Disarm tells whether the chain must be disarmed: on a runaway, or on too many failed
// attempts since the operator last said otherwise. It only ever makes the run state stricter.
func Disarm(c Config, s *ledger.State, now time.Time) (ledger.Event, bool) {
	state := s.Control.RunState
	if state == c.DisarmTo || state == ledger.Disarmed || state == ledger.Killed {
		return nil, false
	}
	moved := func(reason ledger.Reason, why string) (ledger.Event, bool) {
		return &ledger.RunStateChanged{From: state, To: c.DisarmTo, Who: "governor", Why: why, Reason: reason}, true
	}
	since := now.Add(-10 * time.Minute)
	if s.Control.Since.After(since) {
		since = s.Control.Since
	}
	failed := 0
	for _, t := range s.Control.Failures {
		if t.After(since) {
			failed++
		}
	}
	if failed >= c.DisarmErrors {
		return moved(ledger.AttemptErrors, fmt.Sprintf("%d order attempts failed or stayed unknown since %s", failed, stamp(since)))
	}
	// The fold refuses an order beyond its grant, so a runaway shows as orders of our form that this ledger never promised.
	for _, k := range slices.SortedFunc(maps.Keys(s.Holds), ledger.Key.Compare) {
		for _, h := range s.Holds[k] {
			if h.Reason == ledger.HoldForeignInstance && h.At.After(s.Control.Since) {
				return moved(ledger.RunawayOrders, fmt.Sprintf("%s: %s", k.Label(), h.Evidence))
			}
		}
	}
	return nil, false
}
