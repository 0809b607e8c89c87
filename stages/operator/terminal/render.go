package terminal

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"permitchain/ledger"
	"permitchain/stages/operator"
)

// colored paints the words that tell good from bad.
func (t *Terminal) colored(word string) string {
	if !t.Color {
		return word
	}
	switch first, _, _ := strings.Cut(word, " "); first {
	case string(ledger.Executed), string(ledger.Armed), string(ledger.Settled):
		return text.FgGreen.Sprint(word)
	case string(ledger.Denied), string(ledger.Failed), string(ledger.Killed), string(ledger.OutcomeUnknown), string(ledger.Blocked):
		return text.FgRed.Sprint(word)
	case string(ledger.Pending), string(ledger.PartlyExecuted), string(ledger.Disarmed), string(ledger.ProtectiveOnly), string(ledger.WouldExecute):
		return text.FgYellow.Sprint(word)
	}
	return word
}

const unknownCell = "-"

// placesMax are the decimals of a price whose tick is not known.
const placesMax = 8

// price is shown a little finer than the exchange counts: an average of trades has no end of decimals.
func (t *Terminal) price(symbol string, p ledger.Price) string {
	if p.IsZero() {
		return unknownCell
	}
	places := placesMax
	if tick := t.markets[symbol].Tick; !tick.IsZero() {
		_, decimals, _ := strings.Cut(tick.String(), ".")
		places = len(decimals) + 2
	}
	if _, decimals, _ := strings.Cut(p.String(), "."); len(decimals) <= places {
		return p.String()
	}
	return p.Fixed(int32(places))
}

func (t *Terminal) amount(symbol string, q *ledger.Qty) string {
	if q == nil {
		return unknownCell
	}
	return q.Padded(t.markets[symbol].Step)
}

func instant(at time.Time) string {
	if at.IsZero() {
		return unknownCell
	}
	return at.UTC().Format("01-02 15:04:05")
}

func orNone(s string) string {
	if s == "" {
		return unknownCell
	}
	return s
}

var positionColumns = columns{names: []string{"symbol", "side", "exchange", "ledger", "drift", "hold", "snapshot age"}, spare: []string{"snapshot age", "side"}}

func (t *Terminal) positionRow(p operator.PositionStatus) []string {
	hold, age := unknownCell, unknownCell
	if p.Hold != nil {
		hold = *p.Hold
	}
	if p.SnapshotAgeS != nil {
		age = fmt.Sprintf("%.1f s", *p.SnapshotAgeS)
	}
	return []string{p.Symbol, string(p.Side), t.amount(p.Symbol, p.Exchange), t.amount(p.Symbol, p.Ledger), t.amount(p.Symbol, p.Drift), hold, age}
}

func (t *Terminal) status(s operator.Status) error {
	up := "no chain is running; this is its file"
	if s.Running {
		up = "up " + (time.Duration(s.UptimeS) * time.Second).String()
	}
	t.say("permitchain %s, mode %s, %s", s.Version, s.Mode, up)
	state := t.colored(string(s.RunState))
	if s.RunStateBy != "" {
		state += fmt.Sprintf(" since %s, by %s: %s", operator.Stamp(s.Since), s.RunStateBy, s.RunStateWhy)
	}
	t.say("run state %s", state)
	if s.Exchange != nil {
		t.say("exchange %s", s.Exchange.Summary())
	}
	c := s.Plans
	t.say("plans %d: %d executed, %d denied, %d skipped, %d errors, %d would execute, %d pending; %d duplicates; %d open orders",
		c.Total, c.Executed, c.Denied, c.Skipped, c.Errors, c.WouldExecute, c.Pending, c.Duplicates, s.OpenIntents)
	rows := [][]string{}
	for _, p := range s.Symbols {
		rows = append(rows, t.positionRow(p))
	}
	if err := t.table(positionColumns, rows); err != nil {
		return err
	}
	for _, p := range s.Problems {
		t.say("! %s", p)
	}
	return nil
}

// Positions shows every position in full.
func (t *Terminal) Positions(ctx context.Context) error {
	c := columns{
		names: slices.Concat(positionColumns.names, []string{"entry", "mark", "usd", "epoch", "tranches done", "stop"}),
		spare: slices.Concat([]string{"epoch", "usd"}, positionColumns.spare, []string{"tranches done", "entry", "mark"}),
	}
	return list(ctx, t, "/v1/positions", "no position is known", c, func(p operator.Position) []string {
		var done []string
		for _, a := range ledger.Tranches {
			if p.Tranches[a].Done {
				done = append(done, strings.TrimPrefix(string(a), "PARTIAL_"))
			}
		}
		stop := stopCell(p)
		usd := unknownCell
		if !p.Mark.IsZero() {
			usd = p.Notional.Fixed(2)
		}
		return append(t.positionRow(p.PositionStatus), t.price(p.Symbol, p.Entry), t.price(p.Symbol, p.Mark), usd, strconv.FormatInt(p.Epoch, 10),
			orNone(strings.Join(done, ",")), stop)
	})
}

// stopCell is the stop of a position, with its quantity where that is not the position's.
func stopCell(p operator.Position) string {
	cell := unknownCell
	switch {
	case p.Stop != nil && p.Ledger != nil && !p.Stop.Qty.Equal(p.Ledger.Abs()):
		cell = fmt.Sprintf("%s for %s", p.Stop.Trigger, p.Stop.Qty)
	case p.Stop != nil:
		cell = p.Stop.Trigger.String()
	}
	switch {
	case p.Unprotected && p.Stop != nil:
		return fmt.Sprintf("%s, the rest MISSING for %.0fs", cell, p.UnprotectedS)
	case p.Unprotected:
		return fmt.Sprintf("MISSING for %.0fs", p.UnprotectedS)
	}
	return cell
}

// Limits shows what is used of each limit.
func (t *Terminal) Limits(ctx context.Context) error {
	return list(ctx, t, "/v1/limits", "no limits", columns{names: []string{"symbol", "limit", "used", "bound", "frees at"}}, func(l operator.LimitView) []string {
		return []string{l.Symbol, l.Limit, l.Used, l.Bound, instant(l.FreesAt)}
	})
}

// Orders shows the orders of late, the newest first.
func (t *Terminal) Orders(ctx context.Context, limit int) error {
	c := columns{
		names: []string{"at", "client order id", "symbol", "side", "order", "qty", "executed", "state", "status", "message"},
		spare: []string{"side", "status", "qty"},
	}
	return list(ctx, t, "/v1/orders?limit="+strconv.Itoa(limit), "no orders", c, func(i operator.OrderView) []string {
		what := string(i.Direction)
		if i.Kind == ledger.StopStep {
			what += " stop " + i.Trigger.String()
		}
		return []string{
			instant(i.At), i.ClientOrderID, i.Symbol, string(i.Side), what, t.amount(i.Symbol, &i.Qty), t.amount(i.Symbol, &i.Executed),
			string(i.State), orNone(i.Status), orNone(i.Message),
		}
	})
}

var planColumns = columns{
	names: []string{"at", "plan", "symbol", "side", "action", "kill score", "decision", "outcome", "stage", "reason", "qty", "avg price", "duplicates"},
	spare: []string{"duplicates", "avg price", "kill score", "decision", "side", "stage", "at", "qty"},
}

func (t *Terminal) planRow(p operator.PlanView) []string {
	qty, avg := t.amount(p.Symbol, &p.Qty), unknownCell
	if !p.AvgPrice.IsZero() {
		avg = p.AvgPrice.Fixed(2)
	} else if p.Action == ledger.UpdateSL {
		qty = unknownCell // It closes nothing.
	}
	return []string{
		instant(p.DecidedAt), p.ID.Short(), p.Symbol, string(p.Side), string(p.Action), fmt.Sprintf("%.3f", p.KillScore), string(p.Decision), string(p.Outcome),
		orNone(string(p.Stage)), orNone(string(p.Reason)), qty, avg, strconv.Itoa(p.Duplicates),
	}
}

// Plans shows plans, the newest first.
func (t *Terminal) Plans(ctx context.Context, symbol, outcome string, limit int) error {
	query := url.Values{"limit": {strconv.Itoa(limit)}, "symbol": {strings.ToUpper(symbol)}, "outcome": {outcome}}
	return list(ctx, t, "/v1/plans?"+query.Encode(), "no plans", planColumns, t.planRow)
}

// Ledger shows what we believe we hold.
func (t *Terminal) Ledger(ctx context.Context) error {
	c := columns{names: []string{"symbol", "side", "amount", "entry", "last trade", "version", "updated"}, spare: []string{"version", "side"}}
	return list(ctx, t, "/v1/ledger", "the ledger is empty", c, func(l operator.LedgerView) []string {
		return []string{
			l.Symbol, string(l.Side), t.amount(l.Symbol, &l.Amount), t.price(l.Symbol, l.Entry), strconv.FormatInt(l.LastTradeID, 10), strconv.FormatUint(l.Version, 10), instant(l.UpdatedAt),
		}
	})
}

// History shows the entries that led to what we believe.
func (t *Terminal) History(ctx context.Context, symbol string, limit int) error {
	query := url.Values{"limit": {strconv.Itoa(limit)}, "symbol": {strings.ToUpper(symbol)}}
	c := columns{names: []string{"record", "at", "symbol", "side", "change", "amount", "what"}, spare: []string{"side", "record"}}
	return list(ctx, t, "/v1/ledger/history?"+query.Encode(), "no entries", c, func(e operator.Entry) []string {
		return []string{strconv.FormatUint(e.Seq, 10), instant(e.At), e.Symbol, string(e.Side), t.amount(e.Symbol, &e.Change), t.amount(e.Symbol, &e.Amount), e.What}
	})
}

// Holds shows what is on hold, and what clears it.
func (t *Terminal) Holds(ctx context.Context) error {
	c := columns{names: []string{"symbol", "side", "reason", "owner", "since", "evidence", "what clears it"}, spare: []string{"owner", "side", "since"}}
	return list(ctx, t, "/v1/holds", "nothing is on hold", c, func(h operator.HoldView) []string {
		return []string{h.Symbol, orNone(string(h.Side)), string(h.Reason), h.Owner, instant(h.At), h.Evidence, h.Frees}
	})
}

// told shows a plan's gates, what would have turned it, and its records.
func (t *Terminal) told(told *operator.Told) error {
	if told == nil || t.JSON {
		return nil
	}
	rows := [][]string{}
	for _, g := range told.Gates {
		passed := "passed"
		switch {
		case g.Reached && !g.Passed:
			passed = string(ledger.Denied)
		case !g.Reached:
			passed = map[bool]string{true: "unreached", false: "would deny"}[g.Passed]
		}
		step := unknownCell
		if g.Step > 0 {
			step = strconv.Itoa(g.Step)
		}
		rows = append(rows, []string{step, string(g.Stage), g.Name, g.Value, g.Bound, passed})
	}
	if len(rows) > 0 {
		t.say("")
		if err := t.table(columns{names: []string{"step", "stage", "gate", "value", "bound", "result"}}, rows); err != nil {
			return err
		}
	}
	if len(told.Nearest)+len(rows) > 0 {
		t.say("")
	}
	heading := ""
	for _, f := range told.Nearest {
		if head := fmt.Sprintf("  it would have passed %s (%s) with any of", f.Stage, f.Gate); head != heading {
			heading = head
			t.say("%s", head)
		}
		t.item("    - ", f.Words())
	}
	if told.Margin != nil {
		t.item(fmt.Sprintf("  nearest to stopping it, %s: ", told.Margin.Stage), told.Margin.Words())
	}
	t.say("")
	rows = rows[:0]
	for _, m := range told.Records {
		rows = append(rows, []string{strconv.FormatUint(m.Seq, 10), m.At.UTC().Format("15:04:05.000"), m.Text})
	}
	return t.table(columns{names: []string{"record", "at", "what"}}, rows)
}
