package reconcile

import (
	"strings"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// Seen is what the stage has observed when it decides.
type Seen struct {
	At       time.Time        // exchange clock
	Snapshot *ledger.Snapshot // nil: none yet
	Mark     ledger.Price     // 0: none
	Lot      ledger.Lot
}

// Permit gives a verdict for each step of a plan: do we know what we hold, and how much
// of it may safely be closed? Checks are tried in order; the first to fail is the reason.
func Permit(c Config, s *ledger.State, p *ledger.Plan, seen Seen, now time.Time) *ledger.PositionDecided {
	e := &ledger.PositionDecided{ID: p.ID, At: seen.At, Mark: seen.Mark, Lot: seen.Lot, Holding: ledger.Holding{Key: p.Key()}}
	if seen.Snapshot != nil {
		e.SnapshotAt, e.Holding = seen.Snapshot.SentAt, seen.Snapshot.Of(p.Key())
	}
	for _, step := range p.Steps {
		x := examiner{c, s, p, e, now}
		e.Verdicts = append(e.Verdicts, x.examine(step.Kind))
	}
	return e
}

// examiner is one plan before reconciliation.
type examiner struct {
	Config
	state *ledger.State
	plan  *ledger.Plan
	seen  *ledger.PositionDecided
	now   time.Time
}

func (x examiner) examine(kind ledger.StepKind) ledger.Verdict {
	checks := []func() (ledger.Verdict, bool){x.fresh, x.held}
	if !x.plan.Proposal.Force {
		checks = append(checks, x.sides, x.amounts, x.holds)
	}
	if kind == ledger.CloseStep {
		checks = append(checks, x.inFlight, x.quantity)
	} else {
		checks = append(checks, x.protects)
	}
	for _, check := range checks {
		if v, failed := check(); failed {
			return v
		}
	}
	held := x.seen.Holding.Amount
	v := ledger.Verdict{
		Ruling: ledger.Allow, Reason: ledger.PositionAgrees, Expires: x.now.Add(x.PermitTTL), Exchange: held, Context: x.facts(),
		Version: x.state.Version(x.plan.Key()),
	}
	if kind == ledger.CloseStep {
		v.SafeCloseQty = x.safeCloseQty()
	}
	return v
}

// fresh is check 1.
func (x examiner) fresh() (ledger.Verdict, bool) {
	if x.seen.SnapshotAt.IsZero() {
		return deny(ledger.NoExchangeSnapshot), true
	}
	if !ledger.Fresh(x.seen.SnapshotAt, x.seen.At, x.StaleAfter) {
		return deny(ledger.StaleExchangeState, ledger.Fact{Name: "snapshot_age", Value: x.age().String()}, ledger.Fact{Name: "stale_after", Value: x.StaleAfter.String()}), true
	}
	return ledger.Verdict{}, false
}

// held is check 2. A query that failed gave no snapshot, so it is never taken for a zero.
func (x examiner) held() (ledger.Verdict, bool) {
	return x.failed(x.seen.Holding.Amount.IsZero(), ledger.NoPosition)
}

// sides is check 3.
func (x examiner) sides() (ledger.Verdict, bool) {
	ours, _ := x.state.Amount(x.plan.Key())
	return x.failed(ours.Sign()*x.seen.Holding.Amount.Sign() < 0, ledger.SideMismatch)
}

// amounts is check 4; a missing ledger is a mismatch with zero. A snapshot that left before the last booked trade
// says nothing about a ledger that knows of it: the next one will.
func (x examiner) amounts() (ledger.Verdict, bool) {
	differ := x.tolerance().Less(x.diff())
	if pos := x.state.Positions[x.plan.Key()]; differ && pos != nil && !x.seen.SnapshotAt.After(pos.LastTradeAt) {
		return x.failed(true, ledger.CooldownInFlight, ledger.Fact{Name: "last_trade_after_snapshot", Value: pos.LastTradeAt.Sub(x.seen.SnapshotAt).Round(time.Millisecond).String()})
	}
	return x.failed(differ, ledger.QtyMismatch)
}

// holds is check 5.
func (x examiner) holds() (ledger.Verdict, bool) {
	var reasons []string
	for _, h := range x.state.HoldsOn(x.plan.Key()) {
		reasons = append(reasons, string(h.Reason))
	}
	return x.failed(len(reasons) > 0, ledger.HoldActive, ledger.Fact{Name: "holds", Value: strings.Join(reasons, ",")})
}

// failed denies, with the numbers that every check shares, where a check has failed.
func (x examiner) failed(yes bool, reason ledger.Reason, facts ...ledger.Fact) (ledger.Verdict, bool) {
	if !yes {
		return ledger.Verdict{}, false
	}
	return deny(reason, append(facts, x.facts()...)...), true
}

// protects is what only a stop is asked: that it would neither trigger at once nor come too late.
func (x examiner) protects() (ledger.Verdict, bool) {
	h, trigger := x.seen.Holding, x.plan.Proposal.NewSL
	reason := h.Useless(trigger, x.seen.Mark)
	return x.failed(reason != "", reason, ledger.Fact{Name: "new_sl", Value: trigger.String()},
		ledger.Fact{Name: "mark", Value: x.seen.Mark.String()}, ledger.Fact{Name: "liquidation", Value: h.Liquidation.String()})
}

// inFlight is check 6.
func (x examiner) inFlight() (ledger.Verdict, bool) {
	if i := x.state.UnresolvedOn(x.plan.Key(), ledger.CloseStep); i != nil {
		return deny(ledger.CooldownInFlight, ledger.Fact{Name: "order", Value: i.ClientOrderID}, ledger.Fact{Name: "state", Value: string(i.State)}), true
	}
	pos := x.state.Positions[x.plan.Key()]
	if pos == nil || pos.LastOrderAt.IsZero() || x.now.Sub(pos.LastOrderAt) >= x.Cooldown {
		return ledger.Verdict{}, false
	}
	if x.plan.Protective && x.seen.SnapshotAt.After(pos.LastTradeAt) && x.diff().IsZero() {
		return ledger.Verdict{}, false // The exchange itself has shown that the last fill is in both books.
	}
	v := deny(ledger.CooldownInFlight, ledger.Fact{Name: "last_order_age", Value: x.now.Sub(pos.LastOrderAt).Round(time.Millisecond).String()}, ledger.Fact{Name: "cooldown", Value: x.Cooldown.String()})
	v.FreesAt = pos.LastOrderAt.Add(x.Cooldown)
	return v, true
}

// quantity is check 7.
func (x examiner) quantity() (ledger.Verdict, bool) {
	share := x.seen.Holding.Amount.Abs().Of(x.plan.Proposal.Action.Share())
	v, failed := x.failed(x.safeCloseQty().IsZero(), ledger.QtyBelowMin, ledger.Fact{Name: "share", Value: share.String()},
		ledger.Fact{Name: "min_qty", Value: x.seen.Lot.Min.String()}, ledger.Fact{Name: "step", Value: x.seen.Lot.Step.String()})
	v.Exchange = x.seen.Holding.Amount // The tranche is done at this size: beyond it, it re-arms.
	return v, failed
}

func (x examiner) safeCloseQty() ledger.Qty {
	held := x.seen.Holding.Amount.Abs()
	return exchange.CloseQty(x.seen.Lot, held, held.Of(x.plan.Proposal.Action.Share()), x.Dust == DustCloseAll)
}

func (x examiner) diff() ledger.Qty {
	ours, _ := x.state.Amount(x.plan.Key())
	return x.seen.Holding.Amount.Abs().Sub(ours.Abs()).Abs()
}

func (x examiner) tolerance() ledger.Qty {
	return x.Tolerance().Of(x.seen.Lot, x.seen.Holding.Amount, x.seen.Mark)
}

// Tolerance is the rule by which exchange and ledger are compared.
func (c Config) Tolerance() ledger.Tolerance {
	return ledger.Tolerance{Pct: c.TolerancePct, USD: c.ToleranceUSD}
}

// age is for people: what it is judged by is exact.
func (x examiner) age() time.Duration {
	return x.seen.At.Sub(x.seen.SnapshotAt).Round(time.Millisecond)
}

func (x examiner) facts() ledger.Facts {
	ours, known := x.state.Amount(x.plan.Key())
	facts := ledger.Facts{
		{Name: "exchange_amt", Value: x.seen.Holding.Amount.String()},
		{Name: "ledger_amt", Value: ours.String()},
		{Name: "diff", Value: x.diff().String()},
		{Name: "tolerance", Value: x.tolerance().Readable(x.seen.Lot.Step)},
		{Name: "snapshot_age", Value: x.age().String()},
	}
	if !known {
		facts = append(facts, ledger.Fact{Name: "ledger", Value: "missing"})
	}
	return facts
}

func deny(reason ledger.Reason, facts ...ledger.Fact) ledger.Verdict {
	return ledger.Verdict{Ruling: ledger.Deny, Reason: reason, Context: facts}
}
