package terminal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/stages/operator"
)

// Terminal runs commands: it asks through the door, and shows the answer as a table, or as the JSON it is.
type Terminal struct {
	In    io.Reader
	Out   io.Writer
	JSON  bool
	Fancy bool // a terminal: drawn tables
	Color bool
	Door  Door
	By    string // the user
	// Unconfirmed refuses every action, where the mode wants a word that was not given.
	Unconfirmed error

	steps map[string]ledger.Qty // amounts of a symbol are padded to them
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
	steps, err := client.Do(ctx, http.MethodGet, "/v1/markets", nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(steps, &t.steps)
}

// say writes words that JSON output has no need for.
func (t *Terminal) say(format string, args ...any) {
	if !t.JSON {
		fmt.Fprintf(t.Out, format+"\n", args...)
	}
}

// list shows a list as a table.
func list[T any](ctx context.Context, t *Terminal, path, none string, header []string, row func(T) []string) error {
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
	return t.table(header, rows)
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
			t.say("  - %s", l)
		}
	}
	return nil
}

// Plan shows one plan in full.
func (t *Terminal) Plan(ctx context.Context, id string) error {
	var d operator.PlanDetail
	if err := t.call(ctx, ToRead, http.MethodGet, "/v1/plans/"+url.PathEscape(strings.ToLower(id)), nil, &d); err != nil || t.JSON {
		return err
	}
	if err := t.table(planHeader, [][]string{t.planRow(d.PlanView)}); err != nil {
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
	return t.call(ctx, need, http.MethodPost, path, o, out)
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
	step := t.steps[s.Symbol]
	t.say("ledger of %s: %s (was %s)", ledger.Key{Symbol: s.Symbol, Side: s.Side}.Label(), s.To.Padded(step), s.From.Padded(step))
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
	return t.results(results)
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

// results says what became of proposals, and fails unless all executed.
func (t *Terminal) results(results []operator.Result) error {
	bad, refused := 0, 0
	for _, r := range results {
		id := "no plan"
		if r.ID != nil {
			id = r.ID.Short()
		}
		// What became of it says it all, decision and reason included.
		text := strings.TrimSpace(string(r.Decision) + " " + string(r.Reason) + " " + r.Became)
		if r.Explain != "" {
			text = r.Explain
		}
		if r.Reason == ledger.DuplicatePlan {
			text = "duplicate of a plan on record: " + text
		}
		if r.Error != "" {
			text += ": " + r.Error
		}
		t.say("%s: %s", id, text)
		switch {
		case r.Reason == ledger.InvalidProposal:
			bad++
		case r.Outcome == "" && r.Decision == ledger.Execute, r.Outcome == ledger.Executed, r.Outcome == ledger.WouldExecute:
		default:
			refused++
		}
	}
	switch {
	case bad > 0:
		return operator.Failed(operator.BadRequest, "%d of %d proposals are malformed", bad, len(results))
	case refused > 0:
		return operator.Failed(operator.Refused, "%d of %d did not execute", refused, len(results))
	}
	return nil
}

// Submit proposes what a file says, one object or one a line, each when its symbol's pace allows it.
func (t *Terminal) Submit(ctx context.Context, path string, wait bool) error {
	text, err := t.readAll(path)
	if err != nil {
		return err
	}
	lines := [][]byte{bytes.TrimSpace(text)}
	if !json.Valid(text) {
		lines = bytes.Split(text, []byte("\n"))
	}
	if t.Unconfirmed != nil {
		return t.Unconfirmed
	}
	client, err := t.Door.Open(ctx, Chain)
	if err != nil {
		return err
	}
	target := "/v1/proposals"
	if wait {
		target += "?wait=outcome"
	}
	var results []operator.Result
	for _, line := range lines {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		res, err := t.submit(ctx, client, target, line)
		if err != nil {
			return errors.Join(err, client.Close())
		}
		results = append(results, res)
	}
	if len(results) == 0 {
		return errors.Join(operator.Failed(operator.BadRequest, "%s holds no proposal", path), client.Close())
	}
	return errors.Join(t.results(results), client.Close())
}

// readAll reads a file, or standard input for "-".
func (t *Terminal) readAll(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(io.LimitReader(t.In, proposalsMax))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, operator.Failed(operator.BadRequest, "read proposals: %v", err)
	}
	return text, nil
}

// proposalsMax bounds what is read from standard input.
const proposalsMax = 1 << 20

// submitTries bounds how often a proposal that came too soon is sent again.
const submitTries = 10

func (t *Terminal) submit(ctx context.Context, client *Client, target string, line []byte) (res operator.Result, err error) {
	for try := 0; ; try++ {
		body, err := client.Do(ctx, http.MethodPost, target, line)
		if busy := (*operator.Failure)(nil); errors.As(err, &busy) && busy.Kind == operator.Busy && try < submitTries {
			select {
			case <-time.After(time.Second):
				continue
			case <-ctx.Done():
				return res, ctx.Err()
			}
		}
		if err != nil {
			return res, err
		}
		if t.JSON {
			if _, err := t.Out.Write(body); err != nil {
				return res, err
			}
		}
		return res, json.Unmarshal(body, &res)
	}
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
