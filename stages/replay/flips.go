package replay

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"permitchain/ledger"
	"permitchain/stages/governor"
)

// flips are the changes that could lead past a refusal, the likeliest first.
func (c *Case) flips(reason ledger.Reason) []flip {
	switch c.Stage {
	case ledger.StagePlan:
		return c.planFlips(reason)
	case ledger.StageGovernor:
		return c.governorFlips(reason)
	case ledger.StagePosition:
		return c.positionFlips(reason)
	default:
		return c.executionFlips(reason)
	}
}

func rearmed() flip {
	return flip{"run state armed (permitchain rearm --to armed --reason …)", func(c *Case) { c.State.Control.RunState = ledger.Armed }}
}

// later is a change of the time of the decision and nothing else.
func (c *Case) later(at time.Time) flip {
	return flip{fmt.Sprintf("%s later: it frees at %s", at.Sub(c.Now), at.UTC().Format("2006-01-02 15:04:05.000")+" UTC"), func(c *Case) { c.Now = at }}
}

// released is the case without the holds on its position.
func (c *Case) released() flip {
	var names []string
	for _, h := range c.State.HoldsOn(c.Plan.Key()) {
		names = append(names, string(h.Reason))
	}
	return flip{"without the hold " + strings.Join(names, ", ") + " (permitchain hold ls tells what clears it)", func(c *Case) {
		k := c.Plan.Key()
		delete(c.State.Holds, k)
		delete(c.State.Holds, ledger.Key{Symbol: k.Symbol, Side: ledger.AnySide})
	}}
}

func (c *Case) planFlips(reason ledger.Reason) []flip {
	p, pos := c.Plan.Proposal, c.State.Positions[c.Plan.Key()]
	switch reason {
	case ledger.KillSwitchActive:
		return []flip{rearmed()}
	case ledger.NotInAllowlist:
		return []flip{{p.Symbol + " among symbols", func(c *Case) { c.Rules.Apply.Listed = true }}}
	case ledger.StopNotTighter:
		return c.tighter()
	case ledger.StaleProposal:
		age := c.Now.Sub(p.ComputedAt)
		flips := []flip{
			{fmt.Sprintf("apply.proposal_ttl ≥ %s (%s)", age, c.Rules.Apply.ProposalTTL), func(c *Case) { c.Rules.Apply.ProposalTTL = age }},
			{"computed when it was decided", func(c *Case) { c.Plan.Proposal.ComputedAt = c.Now }},
		}
		if pos != nil && p.Epoch != 0 {
			flips = append(flips, flip{fmt.Sprintf("epoch %d, the position's life by now (%d)", pos.Epoch, p.Epoch), func(c *Case) { c.Plan.Proposal.Epoch = pos.Epoch }})
		}
		return flips
	case ledger.TrancheDone:
		if pos == nil {
			return nil
		}
		b := c.Plan.Basis
		then := pos.Tranches[p.Action].Amount
		grown := then.Add(c.Rules.Apply.Tolerance.Of(b.Lot, then, b.Mark)).Add(b.Lot.Step)
		return append([]flip{{fmt.Sprintf("a position of %s: it re-arms the tranche (%s)", grown, pos.Amount.Abs()), func(c *Case) {
			c.State.Positions[c.Plan.Key()].Amount = withSign(grown, pos.Amount)
		}}}, c.actions()...)
	case ledger.ActionHold:
		return c.actions()
	default:
		return nil
	}
}

func withSign(q, like ledger.Qty) ledger.Qty {
	if like.Sign() < 0 {
		return q.Neg()
	}
	return q
}

// actions are larger closes than the proposed one.
func (c *Case) actions() []flip {
	var flips []flip
	for _, a := range []ledger.Action{ledger.Partial50, ledger.Partial75, ledger.FullClose} {
		if c.Plan.Proposal.Action.Share().Less(a.Share()) {
			flips = append(flips, flip{"action " + string(a), func(c *Case) { c.Plan.Proposal.Action = a }})
		}
	}
	return flips
}

// tighter is the stop that is just tighter than the standing one.
func (c *Case) tighter() []flip {
	pos := c.State.Positions[c.Plan.Key()]
	if pos == nil || pos.Stop == nil {
		return nil
	}
	return c.stopAt(pos.Stop.Trigger, pos.Amount.Sign() < 0, "the standing one")
}

// stopAt is a stop next to a price, below or above it.
func (c *Case) stopAt(price ledger.Price, below bool, name string) []flip {
	side, next := "above", price.Add(unitOf(price))
	if below {
		side, next = "below", price.Sub(unitOf(price))
	}
	return []flip{{fmt.Sprintf("new_sl %s, just %s %s (%s)", next, side, name, c.Plan.Proposal.NewSL), func(c *Case) { c.Plan.Proposal.NewSL = next }}}
}

// unitOf is one in the last place of a price.
func unitOf(p ledger.Price) ledger.Price {
	_, decimals, _ := strings.Cut(p.String(), ".")
	if decimals == "" {
		return ledger.MustPrice("1")
	}
	return ledger.MustPrice("0." + strings.Repeat("0", len(decimals)-1) + "1")
}

func (c *Case) governorFlips(reason ledger.Reason) []flip {
	var flips []flip
	switch reason {
	case ledger.KillSwitchActive, ledger.OnlyProtective:
		return []flip{rearmed()}
	case ledger.KillScoreCritical, ledger.StopNotTighter:
		return c.tighter()
	default: // A limit.
	}
	if frees := c.frees(); !frees.IsZero() {
		flips = append(flips, c.later(frees))
	}
	count := func(name string, limit int, set func(*Case, int)) {
		for n := limit + 1; n <= limit+countsTried; n++ {
			tried := c.copied()
			if set(&tried, n); tried.ruled() != reason {
				flips = append(flips, flip{fmt.Sprintf("governor.%s ≥ %d (%d)", name, n, limit), func(c *Case) { set(c, n) }})
				return
			}
		}
	}
	g := c.Rules.Governor
	switch reason {
	case ledger.SymbolCooldown:
		used := governor.Times(c.State, c.Plan.Proposal.Symbol, ledger.Normal, time.Time{})
		passed := c.Now.Sub(used[len(used)-1])
		flips = append(flips, flip{fmt.Sprintf("governor.cooldown ≤ %s (%s)", passed, g.Cooldown), func(c *Case) { c.Rules.Governor.Cooldown = passed }})
	case ledger.HourlyLimit:
		count("max_per_hour", g.MaxPerHour, func(c *Case, n int) { c.Rules.Governor.MaxPerHour = n })
	case ledger.BurstLimit:
		count("max_per_5min", g.MaxPer5Min, func(c *Case, n int) { c.Rules.Governor.MaxPer5Min = n })
	case ledger.ProtectiveLimit:
		count("protective_per_hour", g.ProtectivePerHour, func(c *Case, n int) { c.Rules.Governor.ProtectivePerHour = n })
	case ledger.StopLimit:
		count("stops_per_hour", g.StopsPerHour, func(c *Case, n int) { c.Rules.Governor.StopsPerHour = n })
	case ledger.PortfolioHourlyLimit:
		count("portfolio_per_hour", g.PortfolioPerHour, func(c *Case, n int) { c.Rules.Governor.PortfolioPerHour = n })
	default:
		flips = append(flips, c.sizeFlips(reason)...)
	}
	return flips
}

// countsTried bounds the search for a limit that would do: more than that may have been used at once.
const countsTried = 64

// frees is when the kernel says that its denial ends, zero where it does not.
func (c *Case) frees() time.Time { return c.verdict().FreesAt }

func (c *Case) sizeFlips(reason ledger.Reason) []flip {
	b, g := c.Plan.Basis, c.Rules.Governor
	var flips []flip
	switch reason {
	case ledger.PositionUnknown:
		flips = append(flips, flip{fmt.Sprintf("a snapshot no older than %s", g.StaleAfter), func(c *Case) { c.Plan.Basis.SnapshotAt = c.Plan.Basis.At.Add(-g.StaleAfter) }})
		flips = append(flips, c.patience(b.At.Sub(b.SnapshotAt), b.SnapshotAt, func(c *Case, d time.Duration) { c.Rules.Governor.StaleAfter = d })...)
	case ledger.PriceUnknown:
		flips = append(flips, flip{fmt.Sprintf("a mark price no older than %s", g.StaleAfter), func(c *Case) { c.Plan.Basis.MarkAt = c.Plan.Basis.At.Add(-g.StaleAfter) }})
		if b.Mark.Sign() > 0 {
			flips = append(flips, c.patience(b.At.Sub(b.MarkAt), b.MarkAt, func(c *Case, d time.Duration) { c.Rules.Governor.StaleAfter = d })...)
		}
	case ledger.DailyLimit, ledger.PortfolioDailyLimit:
		v := c.verdict()
		used, err := ledger.ParseUSD(v.Context.Get("used_usd"))
		this, wrong := ledger.ParseUSD(v.Context.Get("this_usd"))
		if err != nil || wrong != nil {
			return flips
		}
		need := used.Add(this).Add(ledger.MustUSD("0.01")) // Both are rounded to cents.
		if reason == ledger.DailyLimit {
			return append(flips, flip{fmt.Sprintf("governor.daily_notional ≥ %s (%s)", need.Fixed(2), g.DailyNotional), func(c *Case) { c.Rules.Governor.DailyNotional = need }},
				flip{"governor.on_daily_limit: trim, for what is left", func(c *Case) { c.Rules.Governor.OnDailyLimit = "trim" }})
		}
		return append(flips, flip{fmt.Sprintf("governor.portfolio_daily_notional ≥ %s (%s)", need.Fixed(2), g.PortfolioDailyNotional), func(c *Case) { c.Rules.Governor.PortfolioDailyNotional = need }})
	default: // Nothing of its size leads past it.
	}
	return flips
}

// patience is a stale_after under which an observation would have been young enough.
func (c *Case) patience(age time.Duration, at time.Time, set func(*Case, time.Duration)) []flip {
	if at.IsZero() || age <= 0 {
		return nil
	}
	return []flip{{fmt.Sprintf("reconcile.stale_after ≥ %s", age), func(c *Case) { set(c, age) }}}
}

func (c *Case) positionFlips(reason ledger.Reason) []flip {
	k, x := c.Plan.Key(), c.Rules.Reconcile
	held := ledger.Holding{Key: k}
	if c.Seen.Snapshot != nil {
		held = c.Seen.Snapshot.Of(k)
	}
	switch reason {
	case ledger.NoExchangeSnapshot:
		return []flip{{"a snapshot that shows what the ledger has", func(c *Case) {
			ours, _ := c.State.Amount(k)
			c.Seen.Snapshot = &ledger.Snapshot{SentAt: c.Seen.At, Holdings: []ledger.Holding{{Key: k, Amount: ours}}}
		}}}
	case ledger.StaleExchangeState:
		age := c.Seen.At.Sub(c.Seen.Snapshot.SentAt)
		fresh := flip{fmt.Sprintf("a snapshot no older than %s (%s)", x.StaleAfter, age.Round(time.Millisecond)), func(c *Case) { c.Seen.Snapshot.SentAt = c.Seen.At.Add(-x.StaleAfter) }}
		return append([]flip{fresh}, c.patience(age, c.Seen.Snapshot.SentAt, func(c *Case, d time.Duration) { c.Rules.Reconcile.StaleAfter = d })...)
	case ledger.SideMismatch:
		return []flip{c.synced(held.Amount)}
	case ledger.QtyMismatch:
		return append([]flip{c.synced(held.Amount)}, c.tolerant(held.Amount)...)
	case ledger.HoldActive:
		return []flip{c.released()}
	case ledger.CooldownInFlight:
		return c.settledFlips()
	case ledger.StopWouldTrigger:
		return c.stopAt(c.Seen.Mark, held.Amount.Sign() > 0, "the mark price")
	case ledger.StopBeyondLiq:
		return c.stopAt(held.Liquidation, held.Amount.Sign() < 0, "the liquidation price")
	case ledger.QtyBelowMin:
		return c.actions()
	default:
		return nil
	}
}

// synced is a ledger that has the exchange's amount.
func (c *Case) synced(amount ledger.Qty) flip {
	k := c.Plan.Key()
	ours, known := c.State.Amount(k)
	was := ours.String()
	if !known {
		was = "none"
	}
	return flip{fmt.Sprintf("ledger_amt %s (%s): permitchain ledger sync %s --reason …", amount, was, k.Symbol), func(c *Case) {
		own := ledger.Position{Key: k}
		if pos := c.State.Positions[k]; pos != nil {
			own = *pos
		}
		own.Amount = amount
		c.State.Positions[k] = &own
		c.clear(ledger.HoldQtyMismatch, ledger.HoldSideMismatch, ledger.HoldNoLedger, ledger.HoldExternalTrades, ledger.HoldForeignInstance, ledger.HoldPositionMoving)
	}}
}

// clear takes those holds off that a sync, or a wider tolerance, answers.
func (c *Case) clear(reasons ...ledger.Reason) {
	k := c.Plan.Key()
	c.State.Holds[k] = slices.DeleteFunc(slices.Clone(c.State.Holds[k]), func(h ledger.Stopped) bool { return slices.Contains(reasons, h.Reason) })
}

// tolerant is a tolerance as wide as the difference.
func (c *Case) tolerant(held ledger.Qty) []flip {
	ours, _ := c.State.Amount(c.Plan.Key())
	diff := held.Abs().Sub(ours.Abs()).Abs()
	x := c.Rules.Reconcile
	now := x.Tolerance().Of(c.Seen.Lot, held, c.Seen.Mark)
	wide := flip{fmt.Sprintf("tolerance ≥ %s (%s)", diff, now), nil}
	var parts []string
	pct, usd := x.TolerancePct, x.ToleranceUSD
	hundredths := func(n int) ledger.Percent { return ledger.MustPercent(fmt.Sprintf("%d.%02d", n/100, n%100)) }
	if held.Abs().Of(pct).Less(diff) {
		n := sort.Search(100_00, func(n int) bool { return !held.Abs().Of(hundredths(n)).Less(diff) })
		if pct = hundredths(n); n == 100_00 {
			return nil // The share would have to be the whole, and more.
		}
		parts = append(parts, fmt.Sprintf("reconcile.tolerance_pct %s (%s)", pct, x.TolerancePct))
	}
	if need := ledger.Notional(diff, c.Seen.Mark); usd.Less(need) {
		usd = need
		parts = append(parts, fmt.Sprintf("reconcile.tolerance_usd %s (%s)", need.Fixed(2), x.ToleranceUSD))
	}
	if len(parts) > 0 {
		wide.change += ": " + strings.Join(parts, " and ")
	}
	wide.apply = func(c *Case) {
		c.Rules.Reconcile.TolerancePct, c.Rules.Reconcile.ToleranceUSD = pct, usd
		c.clear(ledger.HoldQtyMismatch) // It rests on the same tolerance.
	}
	return []flip{wide}
}

// settledFlips lead past what is in flight: an order, a trade that no snapshot knows of, or the pause after the last.
func (c *Case) settledFlips() []flip {
	k := c.Plan.Key()
	var flips []flip
	for _, kind := range []ledger.StepKind{ledger.CloseStep, ledger.StopStep} {
		if i := c.State.UnresolvedOn(k, kind); i != nil {
			flips = append(flips, flip{fmt.Sprintf("with order %s settled (%s)", i.ClientOrderID, i.State), func(c *Case) {
				done := *i
				done.State = ledger.Settled
				c.State.Intents[i.ClientOrderID] = &done
			}})
		}
	}
	pos := c.State.Positions[k]
	if pos == nil {
		return flips
	}
	if snap := c.Seen.Snapshot; snap != nil && !snap.SentAt.After(pos.LastTradeAt) {
		flips = append(flips, flip{fmt.Sprintf("a snapshot of after the last trade, %s later, that shows the ledger's %s", pos.LastTradeAt.Sub(snap.SentAt)+time.Millisecond, pos.Amount), func(c *Case) {
			c.Seen.Snapshot.SentAt = pos.LastTradeAt.Add(time.Millisecond)
			c.Seen.At = c.Seen.At.Add(max(0, c.Seen.Snapshot.SentAt.Sub(c.Seen.At)))
			c.Seen.Snapshot.Holdings = []ledger.Holding{{Key: k, Amount: pos.Amount}}
		}})
	}
	if frees := c.frees(); !frees.IsZero() {
		age := c.Now.Sub(pos.LastOrderAt)
		flips = append(flips, c.later(frees),
			flip{fmt.Sprintf("reconcile.cooldown ≤ %s (%s)", age.Truncate(time.Millisecond), c.Rules.Reconcile.Cooldown), func(c *Case) { c.Rules.Reconcile.Cooldown = age }})
	}
	if c.Stage == ledger.StageExecution {
		flips = append(flips, flip{"decided again on the ledger as it was by then: a new proposal", func(c *Case) {
			v := c.Position
			v.Version = pos.Version
			c.Plan.Steps[c.Step].Position = &v
		}})
	}
	return flips
}

func (c *Case) executionFlips(reason ledger.Reason) []flip {
	switch reason {
	case ledger.PermitExpired:
		ends := c.Governor.Expires
		if c.Position.Expires.Before(ends) {
			ends = c.Position.Expires
		}
		return []flip{{fmt.Sprintf("%s sooner: the permits ended at %s", c.Now.Sub(ends)+time.Nanosecond, ends.UTC().Format("15:04:05.000")), func(c *Case) { c.Now = ends.Add(-time.Nanosecond) }}}
	case ledger.RunStateForbids, ledger.RunDisarmed:
		return []flip{rearmed()}
	case ledger.ModeDryRun:
		return []flip{{"mode testnet or live", func(c *Case) { c.Rules.Apply.Mode = ledger.Testnet }}}
	case ledger.HoldActive:
		return []flip{c.released()}
	case ledger.CooldownInFlight:
		return c.settledFlips()
	case ledger.StopNotTighter:
		return c.tighter()
	default:
		return nil
	}
}
