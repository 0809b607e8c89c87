package apply

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// Rules are what the kernels decide by, for one symbol.
type Rules struct {
	Config
	Listed     bool // the symbol is on the allowlist
	Mode       ledger.Mode
	Tolerance  ledger.Tolerance
	StaleAfter time.Duration
	RecvWindow time.Duration
}

// Plan is planning's word on a proposal: the plan's record, or the repeat of one. b is what
// is known of the position; now is the local clock.
func Plan(r Rules, s *ledger.State, p ledger.Proposal, b ledger.Basis, now time.Time) (ledger.Event, ledger.Receipt) {
	id := p.ID()
	if known := s.Plans[id]; known != nil {
		differs, became := difference(known.Proposal, p), known.Fate()
		if differs != "" {
			became += " (on record with another " + differs + ")"
		}
		return &ledger.PlanRepeated{ID: id, Difference: differs},
			ledger.Receipt{ID: id, Decision: ledger.Skip, Reason: ledger.DuplicatePlan, Became: became}
	}
	e := &ledger.PlanDecided{ID: id, Proposal: p, Basis: b}
	e.Decision, e.Reason = decide(r, s, p, b, now)
	e.Context = numbers(r, s, p, e.Reason, now)
	if e.Decision == ledger.Execute {
		e.Steps = p.Steps()
		e.Protective = protective(r, p)
	}
	return e, ledger.Receipt{ID: id, Decision: e.Decision, Reason: e.Reason}
}

// decide tries the rules of planning in order; the first that speaks is the decision.
func decide(r Rules, s *ledger.State, p ledger.Proposal, b ledger.Basis, now time.Time) (ledger.Decision, ledger.Reason) {
	flatten := p.Source == ledger.FromOperator && p.Action == ledger.FullClose
	age := now.Sub(p.ComputedAt)
	switch {
	case s.Control.RunState == ledger.Killed && !flatten:
		return ledger.Blocked, ledger.KillSwitchActive
	case !p.Action.Known():
		return ledger.Errored, ledger.UnknownAction
	case !r.Listed:
		return ledger.Skip, ledger.NotInAllowlist
	case p.Action == ledger.Hold:
		return ledger.Skip, ledger.ActionHold
	case p.Action == ledger.UpdateSL && p.NewSL.IsZero():
		return ledger.Errored, ledger.MissingNewSL
	case p.Action == ledger.UpdateSL && !s.Tightens(p.Key(), b.Exchange, p.NewSL):
		return ledger.Skip, ledger.StopNotTighter
	case age > r.ProposalTTL || age < -maxAhead || otherEpoch(s, p):
		return ledger.Skip, ledger.StaleProposal
	case trancheDone(r, s, p, b):
		return ledger.Skip, ledger.TrancheDone
	default:
		return ledger.Execute, ""
	}
}

// numbers are what a refusal rests on: what was seen, against which bound.
func numbers(r Rules, s *ledger.State, p ledger.Proposal, reason ledger.Reason, now time.Time) ledger.Facts {
	pos := s.Positions[p.Key()]
	switch {
	case reason == ledger.KillSwitchActive:
		c := s.Control
		return ledger.Facts{{Name: "since", Value: c.Since.UTC().Format(time.RFC3339)}, {Name: "who", Value: c.Who}, {Name: "why", Value: c.Why}}
	case reason == ledger.UnknownAction:
		return ledger.Facts{{Name: "action", Value: string(p.Action)}}
	case reason == ledger.StopNotTighter:
		return ledger.Facts{{Name: "new_sl", Value: p.NewSL.String()}, {Name: "standing", Value: pos.Stop.Trigger.String()}}
	case reason == ledger.StaleProposal && otherEpoch(s, p):
		return ledger.Facts{{Name: "epoch", Value: strconv.FormatInt(p.Epoch, 10)}, {Name: "position_epoch", Value: strconv.FormatInt(pos.Epoch, 10)}}
	case reason == ledger.StaleProposal:
		return ledger.Facts{
			{Name: "age", Value: now.Sub(p.ComputedAt).Round(time.Millisecond).String()},
			{Name: "proposal_ttl", Value: r.ProposalTTL.String()},
			{Name: "ahead_max", Value: maxAhead.String()},
		}
	case reason == ledger.TrancheDone:
		t := pos.Tranches[p.Action]
		return ledger.Facts{{Name: "by_plan", Value: t.Plan.Short()}, {Name: "amount_then", Value: t.Amount.String()}, {Name: "amount", Value: pos.Amount.Abs().String()}}
	default:
		return nil
	}
}

// maxAhead is how far a proposal's clock may be ahead of ours.
const maxAhead = time.Second

// otherEpoch tells whether a proposal speaks of a life of the position that is over.
func otherEpoch(s *ledger.State, p ledger.Proposal) bool {
	pos := s.Positions[p.Key()]
	return p.Epoch != 0 && pos != nil && pos.Epoch != p.Epoch
}

// trancheDone tells whether this partial close was done in this epoch, at a size the position has not outgrown since.
func trancheDone(r Rules, s *ledger.State, p ledger.Proposal, b ledger.Basis) bool {
	pos := s.Positions[p.Key()]
	if pos == nil || !p.Action.IsTranche() {
		return false
	}
	t, ok := pos.Tranches[p.Action]
	grown := t.Amount.Add(r.Tolerance.Of(b.Lot, t.Amount, b.Mark)).Less(pos.Amount.Abs())
	return ok && t.Done && !grown
}

// protective tells whether a limit must not be what keeps the position open.
func protective(r Rules, p ledger.Proposal) bool {
	if p.Source == ledger.FromExternal && !r.ExternalProtective {
		return false
	}
	return p.Action == ledger.FullClose || p.Action == ledger.UpdateSL // Only a tightening one gets here.
}

// difference names the fields outside the id in which a repeat differs from what is on record.
func difference(known, p ledger.Proposal) string {
	var fields []string
	add := func(name string, differs bool) {
		if differs {
			fields = append(fields, name)
		}
	}
	add("r_net", known.RNet != p.RNet)
	add("k_components", !maps.Equal(known.KComponents, p.KComponents))
	add("reason_codes", !slices.Equal(known.ReasonCodes, p.ReasonCodes))
	add("source", known.Source != p.Source)
	return strings.Join(fields, ", ")
}

// Basis is what is attached to a plan: the newest snapshot and mark, with their times.
func Basis(b *exchange.Board, k ledger.Key, at time.Time) ledger.Basis {
	basis := ledger.Basis{At: at, Lot: b.Markets[k.Symbol].Lot}
	if snap := b.Snapshot(); snap != nil {
		basis.SnapshotAt, basis.Exchange = snap.SentAt, snap.Of(k).Amount
	}
	m := b.Mark(k.Symbol)
	basis.Mark, basis.MarkAt = m.Price, m.At
	return basis
}

// Limits of what a proposal may carry: it is recorded whole.
const (
	reasonCodesMax = 16
	textMax        = 64
)

// Validate refuses a proposal that must not become a plan, naming the field.
func Validate(p ledger.Proposal) error {
	switch {
	case p.Symbol == "" || len(p.Symbol) > textMax:
		return fmt.Errorf("symbol %.80q: 1 to %d characters are wanted", p.Symbol, textMax)
	case !p.Side.Valid():
		return fmt.Errorf("side %.80q: BOTH, LONG or SHORT is wanted", p.Side)
	case p.Action == "" || len(p.Action) > textMax:
		return fmt.Errorf("action %.80q: 1 to %d characters are wanted", p.Action, textMax)
	case !(p.KillScore >= 0 && p.KillScore <= 1):
		return fmt.Errorf("kill_score %v: 0 to 1 is wanted", p.KillScore)
	case p.NewSL.Sign() < 0:
		return fmt.Errorf("new_sl %s: a price above 0 is wanted", p.NewSL)
	case p.ComputedAt.IsZero():
		return fmt.Errorf("computed_at is missing")
	case len(p.ReasonCodes) > reasonCodesMax || len(p.KComponents) > reasonCodesMax:
		return fmt.Errorf("more than %d reason_codes or k_components", reasonCodesMax)
	}
	for _, c := range slices.Concat(p.ReasonCodes, slices.Collect(maps.Keys(p.KComponents))) {
		if len(c) > textMax {
			return fmt.Errorf("reason code or component %.80q is longer than %d characters", c, textMax)
		}
	}
	return nil
}
