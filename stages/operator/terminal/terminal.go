package terminal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"

	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/stages/operator"
)

// Terminal runs commands: it asks through the door, and shows the answer as a table, or as the JSON it is.
type Terminal struct {
	In    io.Reader
	Out   io.Writer
	JSON  bool
	Width int // of the terminal; 0: there is none, and tables are for programs
	Color bool
	Door  Door
	By    string // the user
	// Unconfirmed refuses every action, where the mode wants a word that was not given.
	Unconfirmed error

	markets map[string]operator.MarketView // what amounts and prices are shown in
}

// call asks once and decodes the answer into out; with JSON the answer is the output.
func (t *Terminal) call(ctx context.Context, need Need, method, path string, in, out any) (err error) {
	client, err := t.Door.Open(ctx, need)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	body, err := client.Do(ctx, method, path, in)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if t.JSON {
		_, err = t.Out.Write(body)
		return err
	}
	markets, err := client.Do(ctx, http.MethodGet, "/v1/markets", nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(markets, &t.markets)
}

// say writes words that JSON output has no need for.
func (t *Terminal) say(format string, args ...any) {
	if !t.JSON {
		fmt.Fprintf(t.Out, format+"\n", args...)
	}
}

// item is a line of a list, folded within a terminal's width.
func (t *Terminal) item(head, line string) {
	if t.Width > 0 {
		lines := strings.Split(text.WrapSoft(line, max(wrapFrom, t.Width-len(head))), "\n")
		for i := range lines {
			lines[i] = strings.TrimRight(lines[i], " ")
		}
		line = strings.Join(lines, "\n"+strings.Repeat(" ", len(head)))
	}
	t.say("%s%s", head, line)
}

// list shows a list as a table.
func list[T any](ctx context.Context, t *Terminal, path, none string, c columns, row func(T) []string) error {
	var items []T
	if err := t.call(ctx, ToRead, http.MethodGet, path, nil, &items); err != nil || t.JSON {
		return err
	}
	rows := [][]string{}
	for _, item := range items {
		rows = append(rows, row(item))
	}
	if len(rows) == 0 {
		t.say("%s", none)
		return nil
	}
	return t.table(c, rows)
}

// Status shows how things stand; with check, anything that is wrong is a failure.
func (t *Terminal) Status(ctx context.Context, check bool) error {
	var s operator.Status
	if err := t.call(ctx, ToRead, http.MethodGet, "/v1/status", nil, &s); err != nil {
		return err
	}
	if !t.JSON {
		if err := t.status(s); err != nil {
			return err
		}
	}
	if check && len(s.Problems) > 0 {
		return operator.Failed(operator.Unhealthy, "not healthy: %s", strings.Join(s.Problems, "; "))
	}
	return nil
}

// Why explains a plan, a symbol, or every symbol.
func (t *Terminal) Why(ctx context.Context, subject string) error {
	var explained []operator.Explanation
	if err := t.call(ctx, ToRead, http.MethodGet, "/v1/why?subject="+url.QueryEscape(subject), nil, &explained); err != nil {
		return err
	}
	for _, e := range explained {
		t.say("%s", e.Subject)
		for _, l := range e.Lines {
			t.item("  - ", l)
		}
		for _, l := range e.Brain {
			t.say("  %s", l)
		}
		if err := t.told(e.Told); err != nil {
			return err
		}
	}
	return nil
}

// Plan shows one plan in full.
func (t *Terminal) Plan(ctx context.Context, id string) error {
	var d operator.PlanDetail
	whole := ""
	if t.JSON {
		whole = "?told=true" // A table has it from why.
	}
	if err := t.call(ctx, ToRead, http.MethodGet, "/v1/plans/"+url.PathEscape(strings.ToLower(id))+whole, nil, &d); err != nil || t.JSON {
		return err
	}
	if err := t.table(planColumns, [][]string{t.planRow(d.PlanView)}); err != nil {
		return err
	}
	t.say("journal records %v, configuration %.12s", d.Journal, d.Config)
	return t.Why(ctx, string(d.ID))
}

// Move changes the run state: what is kill, disarm or rearm.
func (t *Terminal) Move(ctx context.Context, what string, o operator.Order) error {
	need := ToWrite
	if what == "rearm" {
		need = Chain
	}
	var m operator.Moved
	if err := t.act(ctx, need, "/v1/"+what, o, &m); err != nil {
		return err
	}
	if !m.Changed {
		t.say("the run state was %s already", m.RunState)
		return nil
	}
	t.say("run state: %s (was %s)", m.RunState, m.Was)
	return nil
}

func (t *Terminal) act(ctx context.Context, need Need, path string, o operator.Order, out any) error {
	if o.By = t.By; t.Unconfirmed != nil && need != ToRead {
		return t.Unconfirmed
	}
	err := t.call(ctx, need, http.MethodPost, path, o, out)
	if err == nil && need == ToWrite {
		if elsewhere := t.Door.elsewhere(); elsewhere != "" {
			t.say("! this was done to mode %s, of which no chain is running%s", t.Door.Stage.Mode, elsewhere)
		}
	}
	if errors.Is(err, errCut) {
		return fmt.Errorf("it may have been done all the same; permitchain status tells: %w", err)
	}
	return err
}

// Hold sets or clears the operator's hold.
func (t *Terminal) Hold(ctx context.Context, o operator.Order) error {
	var h operator.Held
	if err := t.act(ctx, ToWrite, "/v1/holds", o, &h); err != nil {
		return err
	}
	label, words := ledger.Key{Symbol: h.Symbol, Side: h.Side}.Label(), map[bool]string{true: "on hold by the operator", false: "not on hold by the operator"}
	t.say("%s is %s%s", label, words[h.Hold], map[bool]string{false: ", as it was already"}[h.Changed])
	for _, other := range h.Others {
		t.say("%s is also on hold: %s by %s (%s): %s", label, other.Reason, other.Owner, other.Evidence, other.Frees)
	}
	return nil
}

// Sync makes the ledger take the exchange's amount.
func (t *Terminal) Sync(ctx context.Context, o operator.Order) error {
	var s operator.Synced
	if err := t.act(ctx, Chain, "/v1/ledger/sync", o, &s); err != nil {
		return err
	}
	step := t.markets[s.Symbol].Step
	t.say("ledger of %s: %s (was %s)", ledger.Key{Symbol: s.Symbol, Side: s.Side}.Label(), s.To.Padded(step), s.From.Padded(step))
	return nil
}

// Settle gives evidence about an order whose outcome is unknown.
func (t *Terminal) Settle(ctx context.Context, o operator.Order) error {
	var s operator.Settled
	if err := t.act(ctx, Chain, "/v1/orders/settle", o, &s); err != nil {
		return err
	}
	t.say("order %s is %s, by the operator's evidence", s.ID, s.State)
	return nil
}

// Flatten closes what is held.
func (t *Terminal) Flatten(ctx context.Context, o operator.Order) error {
	var results []operator.Result
	if err := t.act(ctx, Chain, "/v1/flatten", o, &results); err != nil {
		return err
	}
	if len(results) == 0 {
		t.say("nothing is held")
	}
	for _, r := range results {
		t.tell(r)
	}
	return judge(results)
}

// Reload has the chain read its configuration again.
func (t *Terminal) Reload(ctx context.Context) error {
	var r operator.Reloaded
	if err := t.act(ctx, Chain, "/v1/config/reload", operator.Order{}, &r); err != nil {
		return err
	}
	t.say("%s", r.Result)
	return nil
}

// Trade trades on the paper exchange as somebody else would.
func (t *Terminal) Trade(ctx context.Context, o operator.Order) error {
	var done operator.Order
	if err := t.act(ctx, Chain, "/v1/paper/trade", o, &done); err != nil {
		return err
	}
	t.say("traded %s %s on the paper exchange, as somebody else", done.Qty, done.Symbol)
	return nil
}

// Backup copies the ledger while the chain goes on, or while none runs.
func (t *Terminal) Backup(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	var done operator.Order
	if err := t.act(ctx, ToRead, "/v1/ledger/backup", operator.Order{Path: path}, &done); err != nil {
		return err
	}
	t.say("ledger copied to %s; permitchain ledger verify --file %s checks it", done.Path, done.Path)
	return nil
}

// Export writes the journal as JSON lines.
func (t *Terminal) Export(ctx context.Context) (err error) {
	client, err := t.Door.Open(ctx, ToRead)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	body, err := client.Do(ctx, http.MethodGet, "/v1/ledger/export", nil)
	if err != nil {
		return err
	}
	_, err = t.Out.Write(body)
	return err
}

// Verify checks a ledger file; without one, a hot copy of the running chain's, or the file of the chain that doesn't run.
func (t *Terminal) Verify(ctx context.Context, path string) error {
	var report store.Report
	check := func(path string) (err error) {
		report, err = store.Verify(path)
		return err
	}
	var err error
	if path == "" {
		path = t.Door.Ledger
		var client *Client
		if client, err = t.Door.Open(ctx, Chain); err == nil {
			if path, err = filepath.Abs(path); err == nil {
				err = client.hotCopy(ctx, path, check)
			}
		} else if running := (*operator.Failure)(nil); errors.As(err, &running) && running.Kind == operator.NotRunning {
			err = check(path)
		}
	} else {
		err = check(path)
	}
	if err != nil {
		return err
	}
	if t.JSON {
		return json.NewEncoder(t.Out).Encode(report)
	}
	t.say("%s: %d records, chain %s, fold %s, head %s", path, report.Records, report.Chain, report.Fold, report.Head)
	return nil
}
