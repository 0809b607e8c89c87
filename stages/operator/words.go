package operator

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"permitchain/ledger"
	"permitchain/ledger/store"
)

// numbers are what a verdict was decided on, in one line.
func numbers(facts ledger.Facts) string {
	var parts []string
	for _, f := range facts {
		parts = append(parts, f.Name+" "+f.Value)
	}
	return strings.Join(parts, ", ")
}

// advice is what a reason means, when it ends by itself and what to do.
func advice(r ledger.Reason, freesAt, now time.Time) string {
	info, _ := r.Explain()
	parts := []string{info.Meaning, "", info.Frees}
	if !freesAt.IsZero() {
		parts[1] = "frees at " + Stamp(freesAt)
		if left := freesAt.Sub(now); left > 0 {
			parts[1] += fmt.Sprintf(" (in %s)", left.Round(time.Second))
		}
		if general, rest, _ := strings.Cut(info.Frees, "; "); strings.HasPrefix(general, "frees") {
			parts[2] = rest // The instant says more.
		}
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "; ")
}

// decisive is the verdict that a plan's reason comes from, or nil: not every reason is a verdict's.
func decisive(p *ledger.Plan) *ledger.Verdict {
	for _, s := range p.Steps {
		for _, v := range []*ledger.Verdict{s.Governor, s.Position} {
			if v != nil && v.Ruling == ledger.Deny && v.Reason == p.Reason {
				return v
			}
		}
	}
	return nil
}

// fate is what became of a plan in one line: why, on which numbers, when it frees, what to do.
func fate(p *ledger.Plan, s *ledger.State, now time.Time) string {
	q, quote := p.Filled()
	if p.Outcome == ledger.Executed {
		if q.IsZero() {
			return "executed: the stop stands at " + p.Proposal.NewSL.String()
		}
		return fmt.Sprintf("executed: %s at %s", q.Padded(p.Basis.Lot.Step), ledger.AveragePrice(quote, q).Fixed(2))
	}
	if p.Reason == "" {
		return string(p.Outcome)
	}
	text := fmt.Sprintf("%s by %s, %s", p.Outcome, where(p), p.Reason)
	if p.Outcome == ledger.NoOutcome {
		text = fmt.Sprintf("%s, %s", p.Decision, p.Reason)
	}
	if q.Sign() > 0 {
		text += fmt.Sprintf(", filled %s at %s", q.Padded(p.Basis.Lot.Step), ledger.AveragePrice(quote, q).Fixed(2))
	}
	if q := wouldClose(p); q.Sign() > 0 {
		text += fmt.Sprintf(", a close of up to %s", q.Padded(p.Basis.Lot.Step))
	}
	var frees time.Time
	if v := decisive(p); v != nil {
		frees = v.FreesAt
		if len(v.Context) > 0 {
			text += " (" + numbers(v.Context) + ")"
		}
	}
	if len(p.Context) > 0 {
		text += " (" + numbers(p.Context) + ")"
	}
	if p.Error != "" {
		text += " [" + p.Error + "]"
	}
	if sides := sidesHeld(p, s); sides != "" {
		return text + ": the account's position mode has no such side; propose one of " + sides
	}
	return text + ": " + named(advice(p.Reason, frees, now), p.Proposal.Symbol)
}

// wouldClose is what both permits of a plan that was decided and not sent allowed to close.
func wouldClose(p *ledger.Plan) (q ledger.Qty) {
	for _, s := range p.Steps {
		if p.Outcome != ledger.WouldExecute || s.Kind != ledger.CloseStep || s.Governor == nil || s.Position == nil {
			continue
		}
		if q = s.Position.SafeCloseQty; s.Governor.Capped {
			q = q.Min(s.Governor.Qty)
		}
	}
	return q
}

// answered is an exchange's code, where there is one, and what it said.
func answered(code int64, message string) string {
	if code == 0 {
		return message
	}
	return fmt.Sprintf("%d %s", code, message)
}

// sidesHeld are the sides that a symbol has in the account's position mode, as the ledger knows them, where a plan was
// denied for want of a position on another one: that side will never hold anything.
func sidesHeld(p *ledger.Plan, s *ledger.State) string {
	if p.Reason != ledger.NoPosition || s == nil || s.Positions[p.Key()] != nil {
		return ""
	}
	var sides []string
	for _, k := range s.Keys() {
		if k.Symbol == p.Proposal.Symbol {
			sides = append(sides, string(k.Side))
		}
	}
	return strings.Join(sides, ", ")
}

// named puts the symbol meant into advice, so that it can be typed as it stands.
func named(advice, symbol string) string {
	return strings.ReplaceAll(advice, " SYMBOL ", " "+symbol+" ")
}

// where is the gate or check that a plan ended at, with its number in SPEC.
func where(p *ledger.Plan) string {
	if info, ok := p.Reason.Explain(); ok && strings.HasPrefix(info.Where, string(p.Stage)) {
		return info.Where
	}
	return string(p.Stage)
}

// headline is a plan in a few words.
func headline(p ledger.Proposal) string {
	text := fmt.Sprintf("%s %s, kill score %.3f", p.Key().Label(), p.Action, p.KillScore)
	if !p.NewSL.IsZero() {
		text += ", stop " + p.NewSL.String()
	}
	return text
}

// Explanation is the answer to why.
type Explanation struct {
	Subject string   `json:"subject"`
	Lines   []string `json:"lines"`
	Brain   []string `json:"brain,omitzero"` // of a symbol: what the exit-brain thinks of it
	Told    *Told    `json:"told,omitzero"`  // of a plan: the rest, as its journal has it
}

// story is everything about a plan, in the order in which it happened.
func story(p *ledger.Plan, s *ledger.State, now time.Time) Explanation {
	e := Explanation{Subject: "plan " + string(p.ID)}
	say := func(format string, args ...any) { e.Lines = append(e.Lines, fmt.Sprintf(format, args...)) }
	say("proposed by %s at %s: %s", p.Proposal.Source, Stamp(p.Proposal.ComputedAt), headline(p.Proposal))
	if p.Proposal.Operator != "" {
		say("ordered by %s", p.Proposal.Operator)
	}
	if p.Decision == ledger.Execute {
		say("planning: %s", p.Decision)
	} else {
		say("planning: %s %s", p.Decision, p.Reason)
	}
	for n, step := range p.Steps {
		for _, v := range []struct {
			who string
			*ledger.Verdict
		}{{"governor", step.Governor}, {"position", step.Position}} {
			if v.Verdict == nil {
				say("step %d (%s), %s: no verdict", n+1, step.Kind, v.who)
				continue
			}
			text := fmt.Sprintf("step %d (%s), %s: %s %s", n+1, step.Kind, v.who, v.Ruling, v.Reason)
			if len(v.Context) > 0 {
				text += " (" + numbers(v.Context) + ")"
			}
			if v.Ruling == ledger.Allow && step.Kind == ledger.CloseStep {
				switch {
				case v.Verdict == step.Position:
					text += fmt.Sprintf(": %s may be closed", v.SafeCloseQty)
				case v.Capped:
					text += fmt.Sprintf(": no more than %s", v.Qty)
				}
			}
			if v.Ruling == ledger.Deny {
				text += ": " + named(advice(v.Reason, v.FreesAt, now), p.Proposal.Symbol)
			}
			say("%s", text)
		}
		if step.Grant != nil {
			say("step %d (%s): both permits used for a grant of %s", n+1, step.Kind, step.Grant.Qty)
		}
		for _, id := range step.Orders {
			if i := s.Intents[id]; i != nil {
				text := fmt.Sprintf("order %s: %s %s, %s, executed %s", id, i.Direction, i.Qty, i.State, i.Executed)
				if i.Code != 0 || i.Message != "" {
					text += " (" + answered(i.Code, i.Message) + ")"
				}
				say("%s", text)
			}
		}
	}
	if p.Repeats > 0 {
		say("proposed again %d times, and each time answered from this record", p.Repeats)
	}
	say("outcome: %s", fate(p, s, now))
	return e
}

// situation is why a symbol can or cannot be closed now.
func (o *Stage) situation(symbol string, s *ledger.State, snap *ledger.Snapshot, at, now time.Time) Explanation {
	e := Explanation{Subject: symbol}
	say := func(format string, args ...any) { e.Lines = append(e.Lines, fmt.Sprintf(format, args...)) }
	if s.Control.RunState != ledger.Armed {
		say("run state %s since %s, by %s: %s; permitchain rearm --to armed --reason … changes it", s.Control.RunState, Stamp(s.Control.Since), s.Control.Who, s.Control.Why)
	}
	for _, k := range o.keys(s, snap) {
		if k.Symbol != symbol {
			continue
		}
		switch p := positionStatus(s, k, snap, at); {
		case p.Exchange == nil && p.Ledger == nil:
			say("%s: nothing is known of it yet", k.Label())
		case p.Exchange == nil:
			say("%s: the ledger says %s; the exchange is not looked at", k.Label(), p.Ledger)
		case p.Ledger == nil:
			say("%s: the exchange says %s, and there is no ledger yet", k.Label(), p.Exchange)
		case p.Drift.IsZero():
			say("%s: exchange and ledger agree on %s (snapshot %.1f s old)", k.Label(), p.Ledger, *p.SnapshotAgeS)
		case s.UnresolvedOn(k, ledger.CloseStep) != nil || s.UnresolvedOn(k, ledger.StopStep) != nil:
			say("%s: the exchange says %s, the ledger %s, drift %s (snapshot %.1f s old); an order below may be why", k.Label(), p.Exchange, p.Ledger, p.Drift, *p.SnapshotAgeS)
		default:
			say("%s: the exchange says %s, the ledger %s, drift %s (snapshot %.1f s old); permitchain ledger sync %s --reason … makes the ledger take the exchange's amount",
				k.Label(), p.Exchange, p.Ledger, p.Drift, *p.SnapshotAgeS, symbol)
		}
	}
	for _, h := range holds(s) {
		if h.Symbol == symbol {
			say("on hold: %s since %s by %s (%s): %s", h.Reason, Stamp(h.At), h.Owner, h.Evidence, h.Frees)
		}
	}
	for _, i := range s.Unresolved() {
		if i.Key.Symbol == symbol {
			text := fmt.Sprintf("order %s is %s: nothing else is sent for it meanwhile", i.ClientOrderID, i.State)
			if i.State == ledger.Unknown {
				text += fmt.Sprintf("; it is looked up until it is found, or until it is certain that it was not placed. If that does not end, look at the exchange: "+
					"permitchain orders settle %s --order-id N, or --not-placed, with --reason …", i.ClientOrderID)
			}
			say("%s", text)
		}
	}
	for _, l := range o.limits(s, now) {
		if l.Symbol == symbol && !l.FreesAt.IsZero() {
			say("limit %s is used up: %s of %s; frees at %s", l.Limit, l.Used, l.Bound, Stamp(l.FreesAt))
		}
	}
	if p := latest(s, symbol); p != nil {
		say("last plan %s (%s): %s", p.ID.Short(), headline(p.Proposal), fate(p, s, now))
	} else {
		say("no plan lately")
	}
	return e
}

func latest(s *ledger.State, symbol string) (last *ledger.Plan) {
	for _, p := range s.Plans {
		if p.Proposal.Symbol == symbol && (last == nil || p.Journal[0] > last.Journal[0]) {
			last = p
		}
	}
	return last
}

// why explains a plan, a symbol, or all symbols.
func (o *Stage) why(w http.ResponseWriter, r *http.Request) error {
	subject := r.URL.Query().Get("subject")
	explained := []Explanation{}
	if subject == "" || slices.Contains(o.Symbols, strings.ToUpper(subject)) {
		snap, at := o.seen()
		err := o.read().View(r.Context(), func(s *ledger.State, now time.Time) {
			for _, symbol := range o.Symbols {
				if subject == "" || strings.EqualFold(symbol, subject) {
					explained = append(explained, o.situation(symbol, s, snap, at, now))
				}
			}
		})
		if err != nil {
			return err
		}
		for i := range explained {
			if o.Brain != nil {
				explained[i].Brain = o.Brain(explained[i].Subject)
			}
		}
		if o.Exchange != nil {
			explained = append(explained, o.Exchange().explained())
		}
		return writeJSON(w, http.StatusOK, explained)
	}
	p, err := o.read().Reader().Plan(strings.ToLower(subject))
	if errors.Is(err, store.ErrNotFound) {
		return Failed(NotFound, "%.80q is neither a symbol (%s) nor a plan on record", subject, strings.Join(o.Symbols, ", "))
	}
	if err != nil {
		return err
	}
	err = o.read().View(r.Context(), func(s *ledger.State, now time.Time) { explained = append(explained, story(p, s, now)) })
	if err != nil {
		return err
	}
	told, err := o.tell(r.Context(), p)
	if err != nil {
		explained[0].Lines = append(explained[0].Lines, "its gates and what would have turned it can't be told: "+err.Error())
	}
	explained[0].Told = told
	return writeJSON(w, http.StatusOK, explained)
}

// Stamp is an instant for people.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") + " UTC" }
