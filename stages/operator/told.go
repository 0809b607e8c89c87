package operator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"permitchain/ledger"
)

// Told is a plan's whole story as its journal has it: what it was judged by, what happened, and what would have changed it.
type Told struct {
	Gates   []Gate   `json:"gates"`
	Records []Moment `json:"records"`
	Nearest []Flip   `json:"nearest"` // the least change of one input each, or of a few at once, that was tried and turns the outcome
	Margin  *Flip    `json:"margin"`  // of a plan that both permits allowed: what would have stopped it soonest
}

// Gate is one gate that a step was before, in the order in which they are tried.
type Gate struct {
	Step    int           `json:"step"` // from 1; 0: the plan as a whole
	Stage   ledger.Stage  `json:"stage"`
	Name    string        `json:"name"`
	Value   string        `json:"value"`
	Bound   string        `json:"bound"`
	Passed  bool          `json:"passed"`
	Reached bool          `json:"reached"` // false: an earlier one had decided
	Reason  ledger.Reason `json:"reason"`  // what it denies with
}

// Moment is one record that speaks of the plan.
type Moment struct {
	Seq  uint64      `json:"seq"`
	At   time.Time   `json:"at"`
	Kind ledger.Kind `json:"kind"`
	Text string      `json:"text"`
}

// Flip is a change of inputs, decided again with it by the kernels themselves.
type Flip struct {
	Step   int           `json:"step"`
	Stage  ledger.Stage  `json:"stage"`
	Gate   ledger.Reason `json:"gate"`   // the reason it does away with, or brings about
	Change string        `json:"change"` // in words
	Still  string        `json:"still"`  // what denies the plan all the same, elsewhere; "" where nothing does
}

// Teller decides a plan again, gate by gate, from a journal's records in order; records that speak of the plan are not its to tell.
type Teller func(journal func(fn func(ledger.Record) error) error, p *ledger.Plan) (*Told, error)

// tell is a plan's story. With an error it is what can be told all the same: the records.
func (o *Stage) tell(ctx context.Context, p *ledger.Plan) (*Told, error) {
	if o.Tell == nil {
		return nil, nil
	}
	reader := o.read().Reader()
	told, err := o.Tell(func(fn func(ledger.Record) error) error {
		return reader.Records(1, 0, func(rec ledger.Record, _ string) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fn(rec)
		})
	}, p)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if told == nil {
		told = &Told{Gates: []Gate{}, Nearest: []Flip{}}
	}
	told.Records = []Moment{}
	for _, seq := range p.Journal {
		wrong := reader.Records(seq, seq, func(rec ledger.Record, _ string) error {
			told.Records = append(told.Records, MomentOf(rec))
			return nil
		})
		if wrong != nil {
			return nil, wrong
		}
	}
	return told, err
}

// MomentOf tells of one record in a line, "" where it says nothing of the plan.
func MomentOf(rec ledger.Record) Moment {
	m := Moment{Seq: rec.Seq, At: rec.At, Kind: rec.Event.Kind()}
	switch e := rec.Event.(type) {
	case *ledger.PlanDecided:
		m.Text = decidedWords(e)
	case *ledger.PlanRepeated:
		m.Text = "proposed again: answered from the record"
		if e.Difference != "" {
			m.Text += ", though it came with another " + e.Difference
		}
	case *ledger.GovernorDecided:
		m.Text = "governor: " + permits(e.Verdicts, rec.At)
	case *ledger.PositionDecided:
		m.Text = fmt.Sprintf("position: %s; exchange %s, snapshot %s old, mark %s", permits(e.Verdicts, rec.At), e.Holding.Amount, ago(e.SnapshotAt, e.At), e.Mark)
	case *ledger.StepGranted:
		m.Text = fmt.Sprintf("step %d: both permits used for a grant of %s, good for %s", e.Step+1, e.Qty, e.Expires.Sub(rec.At).Round(time.Millisecond))
	case *ledger.IntentOpened:
		i := e.Intent
		m.Text = fmt.Sprintf("promised %s: %s %s %s of %s, ledger %s, not signed after %s, fence %s", i.ClientOrderID, i.Kind, i.Direction, i.Qty, i.Exchange, i.Ledger, clock(i.SendBefore), clock(i.Fence))
		if !i.Trigger.IsZero() {
			m.Text += ", trigger " + i.Trigger.String()
		}
	case *ledger.IntentAnswered:
		m.Text = answerWords(e)
	case *ledger.StopGone:
		m.Text = fmt.Sprintf("stop %s is gone: %s", e.ClientOrderID, e.Why)
	case *ledger.FillBooked:
		m.Text = fmt.Sprintf("trade %d: %s %s at %s, fee %s, by %s", e.Trade.ID, e.Trade.Direction, e.Trade.Qty, e.Trade.Price, e.Trade.FeeUSD, e.Trade.ClientOrderID)
	case *ledger.StepEnded:
		m.Text = strings.TrimSpace(fmt.Sprintf("step %d ended: %s %s %s", e.Step+1, e.Outcome, e.Stage, e.Reason))
	case *ledger.PlanEnded:
		m.Text = strings.TrimSpace(fmt.Sprintf("plan ended: %s %s %s %s", e.Outcome, e.Stage, e.Reason, e.Error))
	}
	return m
}

func decidedWords(e *ledger.PlanDecided) string {
	p, b := e.Proposal, e.Basis
	text := fmt.Sprintf("planned: %s, from %s, kill score %.6f, R %.3f, computed %s before", strings.TrimSpace(string(e.Decision)+" "+string(e.Reason)), p.Source, p.KillScore, p.RNet, ago(p.ComputedAt, b.At))
	for _, name := range slices.Sorted(maps.Keys(p.KComponents)) {
		text += fmt.Sprintf(", %s %.4g", name, p.KComponents[name])
	}
	if len(p.ReasonCodes) > 0 {
		text += ", because of " + strings.Join(p.ReasonCodes, " ")
	}
	text += fmt.Sprintf("; exchange %s, snapshot %s old, mark %s %s old, lot %s from %s", b.Exchange, ago(b.SnapshotAt, b.At), b.Mark, ago(b.MarkAt, b.At), b.Lot.Step, b.Lot.Min)
	if e.Protective {
		text += "; protective"
	}
	return text
}

func answerWords(e *ledger.IntentAnswered) string {
	text := fmt.Sprintf("%s is %s", e.ClientOrderID, e.State)
	if e.OrderID != 0 {
		text += fmt.Sprintf(", order %d", e.OrderID)
	}
	if e.Status != "" {
		text += ", " + e.Status
	}
	if e.Executed.Sign() > 0 {
		text += ", executed " + e.Executed.String()
	}
	if said := answered(e.Code, e.Message); said != "" {
		text += fmt.Sprintf(" (%s)", said)
	}
	if e.Evidence != "" {
		text += "; evidence: " + e.Evidence
	}
	return text
}

// permits are verdicts with what is left of their time.
func permits(vs []ledger.Verdict, at time.Time) string {
	var all []string
	for _, v := range vs {
		text := string(v.Ruling) + " " + string(v.Reason)
		if v.Ruling == ledger.Allow && v.SafeCloseQty.Sign() > 0 {
			text += " of " + v.SafeCloseQty.String()
		}
		if v.Capped {
			text += ", no more than " + v.Qty.String()
		}
		if !v.Expires.IsZero() {
			text += ", good for " + v.Expires.Sub(at).String()
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

func ago(then, now time.Time) string {
	if then.IsZero() {
		return "never"
	}
	return now.Sub(then).Round(time.Millisecond).String()
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// Words are a flip in one line.
func (f Flip) Words() string {
	text := f.Change
	if f.Still != "" {
		text += " (" + f.Still + " all the same)"
	}
	return text
}
