package replay

import (
	"slices"
	"strings"
	"time"

	"permitchain/ledger"
	"permitchain/stages/apply"
	"permitchain/stages/governor"
	"permitchain/stages/reconcile"
)

// inputs are what one decision is taken on. A nil amount is one that the logs do not hold.
type inputs struct {
	rules      Rules
	at         time.Time
	proposal   ledger.Proposal
	held, own  *ledger.Qty
	snapshotAt time.Time // zero: no snapshot
	aged       bool      // the log says how old the snapshot was
	mark       ledger.Price
	markAt     time.Time
	lot        ledger.Lot
}

// judged is what the kernels say of a plan's first step; the rest only where planning lets it through.
type judged struct {
	decision ledger.Decision
	reason   ledger.Reason
	governor ledger.Verdict
	position ledger.Verdict
	state    *ledger.State
	plan     *ledger.Plan
	see      apply.Sight
}

// judge asks the kernels, in a world that holds just what the inputs say. A plan that the fold refuses is one that
// no chain could have had; its verdicts are left as recorded.
func judge(in inputs) (j judged, ok bool) {
	k := in.proposal.Key()
	m := NewMemory()
	events := []ledger.Event{&ledger.Started{Instance: 1, Mode: in.rules.Governor.Mode}}
	if in.own != nil {
		events = append(events, &ledger.LedgerOpened{Holding: ledger.Holding{Key: k, Amount: *in.own}, By: "log"})
	}
	basis := ledger.Basis{At: in.at, SnapshotAt: in.snapshotAt, Mark: in.mark, MarkAt: in.markAt, Lot: in.lot}
	j.see = apply.Sight{At: in.at, Mark: in.mark, Lot: in.lot}
	if !in.snapshotAt.IsZero() {
		j.see.Snapshot = &ledger.Snapshot{SentAt: in.snapshotAt}
		if in.held != nil {
			basis.Exchange = *in.held
			j.see.Snapshot.Holdings = []ledger.Holding{{Key: k, Amount: *in.held}}
		}
	}
	if m.Append(in.at, events...) != nil {
		return j, false
	}
	planned, receipt := apply.Plan(in.rules.Apply, m.State, in.proposal, basis, in.at)
	j.decision, j.reason = receipt.Decision, receipt.Reason
	if m.Append(in.at, planned) != nil || receipt.Decision != ledger.Execute {
		return j, false
	}
	j.state, j.plan = m.State, m.State.Plans[receipt.ID]
	j.governor = governor.Decide(in.rules.Governor, j.state, j.plan, in.at)[0]
	seen := reconcile.Seen{At: in.at, Snapshot: j.see.Snapshot, Mark: in.mark, Lot: in.lot}
	if seen.Mark.IsZero() {
		seen.Mark = almostNothing()
	}
	j.position = reconcile.Permit(in.rules.Reconcile, j.state, j.plan, seen, in.at).Verdicts[0]
	return j, true
}

// almostNothing is the mark where a log has none: the USD bound of the tolerance, which can't be known then, does not
// bind, and the percentage alone does, as in the reported system.
func almostNothing() ledger.Price { return ledger.MustPrice("0.00000001") }

// decide settles what a plan is shown with.
func (b *book) decide(p *plan) {
	switch {
	case p.folded: // The journal it is from has.
	case p.proposed != nil:
		b.decideProposed(p)
	default:
		b.decideRecorded(p)
	}
}

// decideProposed decides a plan that is known from its proposal alone: nothing was recorded of it.
func (b *book) decideProposed(p *plan) {
	in := *p.proposed
	b.override(&in, p.mode)
	j, ok := judge(in)
	p.planned, p.reason = j.decision, j.reason
	if !ok {
		return
	}
	p.rule(byPosition, heard{}, positionHeard(j.position, true), in.settles(j.position))
	p.rule(byGovernor, heard{}, governorHeard(j.governor), !lacksInput(j.governor))
	p.grant(in.rules.Apply, j, in.at)
}

// decideRecorded decides the verdicts that a text log, or a part of an export, records.
func (b *book) decideRecorded(p *plan) {
	for stage, recorded := range []*[]heard{&p.governor, &p.position} {
		if len(*recorded) == 0 { // Nothing but a list may have said how it was ruled.
			*recorded = []heard{{ruling: p.listed[stage]}}
		}
		if p.planned == "" && (*recorded)[0].ruling != "" {
			p.planned = ledger.Execute // Only such a plan gets before a permit stage.
		}
	}
	var j judged
	var ok bool
	var in inputs
	for _, h := range p.position {
		var aged bool
		in, aged = b.inputsOf(p, h)
		j, ok = judge(in)
		p.rule(byPosition, h, positionHeard(j.position, aged), ok && in.settles(j.position) && !excused(h, j.position))
	}
	auto := slices.Contains(in.rules.Governor.AutoApprove, in.rules.Governor.Mode)
	for _, h := range p.governor {
		settled := ok && p.acts() && in.rules.Governor.Mode != "" && !lacksInput(j.governor)
		if !auto && (p.partial || h.ruling == ledger.Deny) { // What was used of limits is not known, or was too much.
			settled = settled && j.governor.Reason == ledger.KillScoreCritical
		}
		p.rule(byGovernor, h, governorHeard(j.governor), settled)
	}
	if ok && p.acts() {
		p.grant(in.rules.Apply, j, in.at)
	}
}

// acts tells whether the log says what the plan was to do.
func (p *plan) acts() bool { return p.action.Known() }

// inputsOf are what a recorded position verdict was decided on; aged tells that its snapshot's age is known.
func (b *book) inputsOf(p *plan, h heard) (in inputs, aged bool) {
	in = inputs{rules: b.o.Rules(p.symbol), at: virtual(p.order), lot: p.lot}
	if in.lot.Step.IsZero() {
		p.lot = b.lotOf(p.symbol)
		in.lot = p.lot
	}
	in.rules.Apply.Listed = true
	in.held, in.own = amountIn(h, "exchange_amt"), amountIn(h, "ledger_amt")
	if in.held != nil {
		in.snapshotAt = in.at
	}
	if age := amountIn(h, "age_seconds"); age != nil {
		if d, err := time.ParseDuration(age.String() + "s"); err == nil {
			in.snapshotAt, in.aged = in.at.Add(-d), true
		}
	}
	if p.approved && !b.o.Overrides.AutoApprove {
		in.rules.Governor.AutoApprove = append(slices.Clone(in.rules.Governor.AutoApprove), p.mode)
	}
	in.proposal = ledger.Proposal{Symbol: p.symbol, Side: p.side, Action: p.action, NewSL: p.newSL, ComputedAt: in.at, Source: ledger.FromBrain}
	if p.score != nil {
		in.proposal.KillScore = *p.score
	}
	if !p.acts() {
		in.proposal.Action = ledger.FullClose // Whether we know what we hold does not depend on the share to close.
	}
	b.override(&in, p.mode)
	return in, in.aged
}

// override lays what was set over what was recorded.
func (b *book) override(in *inputs, recorded ledger.Mode) {
	mode := recorded
	if b.o.Overrides.Mode != "" {
		mode = b.o.Overrides.Mode
	}
	in.rules.Apply.Mode, in.rules.Governor.Mode = mode, mode
	k := in.proposal.Key()
	if own, ok := b.o.Overrides.Ledger[k]; ok {
		in.own = &own
		b.used["ledger."+k.String()] = true
	}
	if mark, ok := b.o.Overrides.Mark[k.Symbol]; ok {
		in.mark, in.markAt = mark, in.at
		b.used["mark."+k.Symbol] = true
	}
}

// lotOf is how a symbol counts where the log does not say.
func (b *book) lotOf(symbol string) ledger.Lot {
	if m, ok := b.o.Markets[symbol]; ok {
		return m.Lot
	}
	return ledger.Lot{Step: ledger.MustQty("0.001"), Min: ledger.MustQty("0.001")}
}

// virtual is an instant to decide at: a log without years is decided in some.
func virtual(at time.Time) time.Time {
	if at.Year() < unixYear {
		return at.AddDate(2*unixYear, 0, 0)
	}
	return at
}

func amountIn(h heard, name string) *ledger.Qty {
	q, ok := decimalOf(h.facts.Get(name))
	if !ok {
		return nil
	}
	return &q
}

// settles tells whether the inputs that a verdict rests on are all there.
func (in inputs) settles(v ledger.Verdict) bool {
	switch v.Reason {
	case ledger.NoExchangeSnapshot:
		return false
	case ledger.StaleExchangeState:
		return in.aged
	case ledger.NoPosition:
		return in.held != nil
	default:
		return in.held != nil && in.own != nil
	}
}

// excused tells that a recorded denial rests on a hold or an order in flight, which the log names and does not show,
// and nothing before it denies.
func excused(h heard, v ledger.Verdict) bool {
	return (h.reason == ledger.HoldActive || h.reason == ledger.CooldownInFlight) && (v.Ruling == ledger.Allow || v.Reason == ledger.QtyBelowMin)
}

// lacksInput tells that the governor found nothing to size the close with: the log does not hold it.
func lacksInput(v ledger.Verdict) bool {
	return v.Reason == ledger.PositionUnknown || v.Reason == ledger.PriceUnknown
}

// rule sets one verdict beside the recorded one; the last is what is shown, all count for agreement.
func (p *plan) rule(stage int, recorded, now heard, settled bool) {
	if !settled {
		now = recorded
	} else if recorded.ruling != "" {
		p.compared(same(recorded, now))
	}
	p.shown[stage] = ruled{now, recorded, settled}
}

func (p *plan) compared(same bool) {
	p.decided = true
	p.differs = p.differs || !same
}

// grant is what would be sent, where both verdicts that are shown allow it. A verdict that is only recorded is
// taken at its word.
func (p *plan) grant(r apply.Rules, j judged, now time.Time) {
	g, x := p.shown[byGovernor], p.shown[byPosition]
	if p.granted = g.ruling == ledger.Allow && x.ruling == ledger.Allow; !p.granted {
		return
	}
	if !x.decided {
		safe := amountIn(x.heard, "safe_qty")
		if p.granted = safe != nil; p.granted {
			p.qty = *safe
		}
		return
	}
	if !g.decided {
		j.governor = ledger.Verdict{Ruling: ledger.Allow, Expires: j.position.Expires}
	}
	p.qty, p.granted = sized(r, j, now)
}

// sized asks apply how much of what both permits allow it would send.
func sized(r apply.Rules, j judged, now time.Time) (ledger.Qty, bool) {
	p := *j.plan
	p.Steps = slices.Clone(p.Steps)
	p.Steps[0].Governor, p.Steps[0].Position = &j.governor, &j.position
	r.Mode = ledger.Paper // In dry_run nothing is sized, and what would be sent is the question.
	for _, e := range apply.Join(r, j.state, &p, j.see, now).Events {
		if e, ok := e.(*ledger.StepGranted); ok && e.Step == 0 {
			return e.Qty, true
		}
	}
	return ledger.Qty{}, false
}

// governorHeard is a verdict of the kernel in the form of a recorded one.
func governorHeard(v ledger.Verdict) heard {
	h := heard{ruling: v.Ruling, reason: v.Reason}
	if v.Ruling == ledger.Allow {
		qty, notional := v.Qty.String(), v.Notional.String()
		if strings.HasSuffix(string(v.Reason), "_auto_approve") { // Uncapped; the report shows it so.
			qty, notional = v.Qty.Fixed(4), v.Notional.Fixed(2)
		}
		h.facts = ledger.Facts{{Name: "qty", Value: qty}, {Name: "notional", Value: notional}}
	}
	h.facts = append(h.facts, v.Context...)
	return h
}

// positionHeard is the same for the position permit; a snapshot's age that nobody recorded is left out.
func positionHeard(v ledger.Verdict, aged bool) heard {
	h := heard{v.Ruling, v.Reason, v.Context}
	if !aged {
		h.facts = without(h.facts, "snapshot_age")
	}
	if v.Ruling == ledger.Allow && v.SafeCloseQty.Sign() > 0 {
		h.facts = append(h.facts, ledger.Fact{Name: "safe_qty", Value: v.SafeCloseQty.String()})
	}
	return h
}

// same tells whether a decision is the recorded one: ruling, reason and every recorded number that it has too.
func same(recorded, now heard) bool {
	if recorded.ruling != now.ruling || recorded.reason != "" && recorded.reason != now.reason {
		return false
	}
	for _, f := range recorded.facts {
		if value := now.facts.Get(f.Name); value != "" && !sameNumber(f.Value, value) {
			return false
		}
	}
	return true
}

// sameNumber compares values, not texts. The recording system calculated in floating point, so what is less than any
// market's step apart is the same.
func sameNumber(a, b string) bool {
	if a == b {
		return true
	}
	x, xok := decimalOf(a)
	y, yok := decimalOf(b)
	if !xok || !yok {
		return false
	}
	return x.Sub(y).Abs().Less(ledger.MustQty("0.000000000001"))
}
