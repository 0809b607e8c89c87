package operator

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/pipeline"
)

// Narrator tells what happens, in words, by the journal's tail: whatever it says is durable.
type Narrator struct {
	Store *store.Store
	Log   zerolog.Logger

	decisions, executions int // since the start

	quiet map[string]ledger.Reason // by symbol, why its last plan was skipped: the same is not said all the time
}

// Run works until it is stopped, which is when nobody appends any more; it says the rest before it leaves.
func (n *Narrator) Run(stop pipeline.Stop) error {
	n.quiet = map[string]ledger.Reason{}
	from, err := n.beginning(stop.Hard)
	if err != nil {
		return stop.Done(err)
	}
	records, cancel := n.Store.Tail(from)
	defer cancel()
	for last, soft := ^uint64(0), stop.Soft; from < last; {
		select {
		case r, ok := <-records:
			if !ok {
				return stop.Done(fmt.Errorf("follow the journal: it ended after record %d", from))
			}
			from = r.Seq
			n.tell(stop.Hard, r)
			if r.Event.Kind() == ledger.KindStarted {
				if err := n.unresolved(stop.Hard, "was left open by an earlier process: it is looked up until found"); err != nil {
					return stop.Done(err)
				}
			}
		case <-soft:
			soft = nil
			if last, err = n.head(stop.Hard); err != nil {
				return stop.Done(err)
			}
		case <-stop.Hard.Done():
			return nil
		}
	}
	n.Log.Info().Msgf("stopped: plans decided since the start %d, executed %d", n.decisions, n.executions)
	return stop.Done(n.unresolved(stop.Hard, "is left open: the next start looks it up first"))
}

// unresolved tells of every order whose end is not known when a process begins, or ends.
func (n *Narrator) unresolved(ctx context.Context, what string) error {
	return n.Store.View(ctx, func(s *ledger.State, _ time.Time) {
		for _, i := range s.Unresolved() {
			n.Log.Warn().Str("symbol", i.Key.Symbol).Str("plan", i.Plan.Short()).Msgf("order %s, %s, %s", i.ClientOrderID, i.State, what)
		}
	})
}

func (n *Narrator) head(ctx context.Context) (seq uint64, err error) {
	err = n.Store.View(ctx, func(s *ledger.State, _ time.Time) { seq = s.Control.Seq })
	return seq, err
}

// openingMax is more than the records that a process begins with.
const openingMax = 256

// beginning is the record before the one that says this process began.
func (n *Narrator) beginning(ctx context.Context) (uint64, error) {
	head, err := n.head(ctx)
	if err != nil {
		return 0, err
	}
	from := head
	err = n.Store.Reader().Records(max(head, openingMax)-openingMax+1, 0, func(r ledger.Record, _ string) error {
		if r.Event.Kind() == ledger.KindStarted {
			from = r.Seq - 1
		}
		return nil
	})
	return from, err
}

// symbolsMax bounds what senders of unknown symbols can make the narrator remember.
const symbolsMax = 1024

// line is what is said of a record.
type line struct {
	level  zerolog.Level
	symbol string
	plan   ledger.PlanID
	text   string
}

func (n *Narrator) tell(ctx context.Context, r ledger.Record) {
	l := n.line(ctx, r)
	if l.text == "" {
		return
	}
	e := n.Log.WithLevel(l.level)
	if l.symbol != "" {
		e = e.Str("symbol", l.symbol)
	}
	if l.plan != "" {
		e = e.Str("plan", l.plan.Short())
	}
	e.Msg(l.text)
}

func (n *Narrator) line(ctx context.Context, r ledger.Record) line {
	switch e := r.Event.(type) {
	case *ledger.Started:
		return line{zerolog.InfoLevel, "", "", fmt.Sprintf("ready: process %d of this ledger, mode %s, version %s", e.Instance, e.Mode, e.Version)}
	case *ledger.RunStateChanged:
		text := fmt.Sprintf("RUN STATE %s → %s by %s: %s", e.From, e.To, e.Who, e.Why)
		if e.Reason != "" {
			return line{zerolog.ErrorLevel, "", "", text + ": " + advice(e.Reason, time.Time{}, r.At)}
		}
		return line{zerolog.WarnLevel, "", "", text}
	case *ledger.PlanDecided:
		return n.decided(e)
	case *ledger.PlanRepeated:
		return n.repeated(e)
	case *ledger.StepGranted:
		return n.about(e.ID, zerolog.DebugLevel, "both permits allow: granted "+e.Qty.String())
	case *ledger.IntentOpened:
		i := e.Intent
		text := fmt.Sprintf("order %s %s, reduce only, of %s held: sending %s", i.Direction, i.Qty, i.Exchange.Abs(), i.ClientOrderID)
		if i.Kind == ledger.StopStep {
			text = fmt.Sprintf("stop %s %s at %s: sending %s", i.Direction, i.Qty, i.Trigger, i.ClientOrderID)
		}
		return line{zerolog.InfoLevel, i.Key.Label(), i.Plan, text}
	case *ledger.IntentAnswered:
		return n.answered(e)
	case *ledger.PlanEnded:
		return n.ended(ctx, e, r.At)
	case *ledger.HoldPut:
		info, _ := e.Reason.Explain()
		return line{zerolog.WarnLevel, e.Key.Label(), "", fmt.Sprintf("HOLD %s by %s (%s): %s", e.Reason, e.Owner, e.Evidence, named(info.Frees, e.Key.Symbol))}
	case *ledger.HoldCleared:
		return line{zerolog.InfoLevel, e.Key.Label(), "", fmt.Sprintf("hold %s cleared by %s: %s", e.Reason, e.Owner, e.Evidence)}
	default:
		return booked(r)
	}
}

// booked are the ledger's own records.
func booked(r ledger.Record) line {
	switch e := r.Event.(type) {
	case *ledger.FillBooked:
		t := e.Trade
		if e.External {
			return line{zerolog.InfoLevel, t.Label(), "", fmt.Sprintf("booked a trade of others: %s %s at %s (trade %d)", t.Direction, t.Qty, t.Price, t.ID)}
		}
		return line{zerolog.InfoLevel, t.Label(), planOf(t.ClientOrderID), fmt.Sprintf("filled %s %s at %s (trade %d)", t.Direction, t.Qty, t.Price, t.ID)}
	case *ledger.LedgerOpened:
		return line{zerolog.InfoLevel, e.Holding.Label(), "", fmt.Sprintf("ledger opened with %s: %s", e.Holding.Amount, e.By)}
	case *ledger.LedgerReconciled:
		if len(e.Trades) > 0 {
			return line{zerolog.InfoLevel, e.Key.Label(), "", fmt.Sprintf("REPAIRED: ledger equals exchange again, by %d trades up to id %d", len(e.Trades), e.Cursor)}
		}
		return line{zerolog.DebugLevel, e.Key.Label(), "", fmt.Sprintf("ledger equals exchange up to trade %d", e.Cursor)}
	case *ledger.LedgerAdjusted:
		return line{zerolog.WarnLevel, e.Holding.Label(), "", fmt.Sprintf("LEDGER ADJUSTED from %s to %s by %s: %s", e.From, e.Holding.Amount, e.Who, e.Why)}
	case *ledger.LedgerResidual:
		return line{zerolog.WarnLevel, e.Key.Label(), "", fmt.Sprintf("the position is flat on the exchange: %s written off the ledger", e.Amount)}
	case *ledger.StopGone:
		return line{zerolog.InfoLevel, "", planOf(e.ClientOrderID), fmt.Sprintf("stop %s is gone: %s", e.ClientOrderID, e.Why)}
	default:
		return line{}
	}
}

// planOf is the plan in a client order id of ours.
func planOf(clientOrderID string) ledger.PlanID {
	parts := strings.Split(clientOrderID, "-")
	if len(parts) < 2 || !ledger.OfOurForm(clientOrderID) {
		return ""
	}
	return ledger.PlanID(parts[1])
}

func (n *Narrator) decided(e *ledger.PlanDecided) line {
	n.decisions++
	symbol, p := e.Proposal.Key().Label(), e.Proposal
	text := fmt.Sprintf("%s, kill score %.3f, from %s: %s", p.Action, p.KillScore, p.Source, e.Decision)
	level := zerolog.InfoLevel
	if e.Decision == ledger.Execute {
		delete(n.quiet, symbol)
		return line{level, symbol, e.ID, text + ", asks for its permits"}
	}
	if e.Decision != ledger.Skip {
		level = zerolog.WarnLevel
	}
	if n.quiet[symbol] == e.Reason {
		level = zerolog.DebugLevel
	} else if len(n.quiet) < symbolsMax {
		n.quiet[symbol] = e.Reason
	}
	return line{level, symbol, e.ID, text + " " + string(e.Reason) + ": " + advice(e.Reason, time.Time{}, time.Time{})}
}

func (n *Narrator) repeated(e *ledger.PlanRepeated) line {
	p, err := n.Store.Reader().Plan(string(e.ID))
	if err != nil {
		return line{zerolog.WarnLevel, "", e.ID, "proposed again; its record cannot be read: " + err.Error()}
	}
	level := zerolog.InfoLevel
	if p.Repeats > 1 {
		level = zerolog.DebugLevel
	}
	return line{level, p.Key().Label(), e.ID, "duplicate: decided and " + p.Fate()}
}

// about is a line on a plan that the record does not describe.
func (n *Narrator) about(id ledger.PlanID, level zerolog.Level, text string) line {
	l := line{level: level, plan: id, text: text}
	if p, err := n.Store.Reader().Plan(string(id)); err == nil {
		l.symbol = p.Key().Label()
	}
	return l
}

func (n *Narrator) answered(e *ledger.IntentAnswered) line {
	switch e.State {
	case ledger.Unknown:
		return n.about(planOf(e.ClientOrderID), zerolog.ErrorLevel, fmt.Sprintf("order %s is UNKNOWN (%s): looked up until found, never sent again", e.ClientOrderID, answered(e.Code, e.Message)))
	case ledger.NotPlaced:
		return n.about(planOf(e.ClientOrderID), zerolog.WarnLevel, fmt.Sprintf("order %s was not placed: %s", e.ClientOrderID, answered(e.Code, e.Message)))
	case ledger.Standing:
		return n.about(planOf(e.ClientOrderID), zerolog.InfoLevel, fmt.Sprintf("stop %s stands", e.ClientOrderID))
	default:
		return n.about(planOf(e.ClientOrderID), zerolog.DebugLevel, fmt.Sprintf("order %s is %s: %s, executed %s", e.ClientOrderID, e.State, e.Status, e.Executed))
	}
}

// ended tells a plan's outcome from its own record, which by now holds all of it.
func (n *Narrator) ended(ctx context.Context, e *ledger.PlanEnded, at time.Time) line {
	if e.Outcome == ledger.Executed || e.Outcome == ledger.PartlyExecuted {
		n.executions++
	}
	p, err := n.Store.Reader().Plan(string(e.ID))
	text := ""
	if err == nil {
		err = n.Store.View(ctx, func(s *ledger.State, _ time.Time) { text = fate(p, s, at) })
	}
	if err != nil {
		return line{zerolog.WarnLevel, "", e.ID, fmt.Sprintf("%s %s; its record cannot be read: %v", e.Outcome, e.Reason, err)}
	}
	level := zerolog.InfoLevel
	switch e.Outcome {
	case ledger.Denied, ledger.PartlyExecuted:
		level = zerolog.WarnLevel
	case ledger.Failed:
		level = zerolog.ErrorLevel
	default: // As it should be, or not yet known.
	}
	word, rest, _ := strings.Cut(text, " ")
	return line{level, p.Key().Label(), e.ID, fmt.Sprintf("%s %s %s", strings.ToUpper(strings.TrimSuffix(word, ":")), p.Proposal.Action, rest)}
}
