package operator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"permitchain/ledger"
	"permitchain/pipeline"
)

// How long an answer is awaited.
const (
	outcomeWait = 30 * time.Second
	outcomePoll = 50 * time.Millisecond
	busyWait    = time.Second // for room in the channel to the exit-brain
	linesMax    = 1000
	lineMax     = 64 << 10
)

var (
	// ErrNotRunning answers what only a running chain can do.
	ErrNotRunning = Failed(NotRunning, "no chain is running: start it with permitchain run")
	errStopping   = Failed(NotRunning, "the chain is stopping")
)

// ask hands a request to the stage that owns it, and waits for the answer.
func ask[Q, A any](ctx context.Context, o *Stage, to chan<- pipeline.Request[Q, A], v Q, patience time.Duration) (answer A, err error) {
	if to == nil {
		return answer, ErrNotRunning
	}
	request, full := pipeline.Ask[Q, A](v), time.NewTimer(patience)
	defer full.Stop()
	select {
	case to <- request:
	case <-full.C:
		return answer, Failed(Busy, "the chain is busy: try again")
	case <-o.stopping:
		return answer, errStopping
	case <-ctx.Done():
		return answer, ctx.Err()
	}
	late := time.NewTimer(outcomeWait)
	defer late.Stop()
	select {
	case answer = <-request.Reply:
		return answer, nil
	case <-late.C:
		return answer, Failed(Internal, "no answer within %s; see the log", outcomeWait)
	case <-ctx.Done():
		return answer, errStopping
	}
}

// Result is planning's answer to one proposal, and later its outcome.
type Result struct {
	ID       *ledger.PlanID  `json:"plan_id"`
	Decision ledger.Decision `json:"decision"`
	Reason   ledger.Reason   `json:"reason"`
	Outcome  ledger.Outcome  `json:"outcome,omitzero"`
	Became   string          `json:"became,omitzero"`  // of a duplicate: what is on record
	Explain  string          `json:"explain,omitzero"` // of an outcome: why, and what to do
	Error    string          `json:"error,omitzero"`
}

func invalid(reason ledger.Reason, err error) Result {
	return Result{Decision: ledger.Errored, Reason: reason, Error: err.Error()}
}

func resultOf(r ledger.Receipt) Result {
	res := Result{Decision: r.Decision, Reason: r.Reason, Became: r.Became, Error: r.Error}
	if r.ID != "" {
		res.ID = &r.ID
	}
	return res
}

// proposals takes one object, or one a line, and answers each in its place.
func (o *Stage) proposals(w http.ResponseWriter, r *http.Request) error {
	if o.Offers == nil {
		return ErrNotRunning
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	lines := [][]byte{bytes.TrimSpace(body)}
	if !json.Valid(body) {
		lines = slices.DeleteFunc(bytes.Split(body, []byte("\n")), func(l []byte) bool { return len(bytes.TrimSpace(l)) == 0 })
	}
	if len(lines) == 0 || len(lines) > linesMax {
		return Failed(BadRequest, "1 to %d proposals are wanted, one a line", linesMax)
	}
	results, status := make([]Result, len(lines)), http.StatusBadRequest
	for i, line := range lines {
		res, err := o.submit(r.Context(), line)
		if busy := (*Failure)(nil); errors.As(err, &busy) && busy.Kind == Busy && len(lines) > 1 {
			res, err = invalid(ledger.RateLimited, err), nil
		}
		if err != nil {
			return err
		}
		if results[i] = res; res.Reason != ledger.InvalidProposal {
			status = http.StatusOK
		}
	}
	if r.URL.Query().Get("wait") == "outcome" {
		until := time.Now().Add(outcomeWait)
		for i := range results {
			if err := o.await(r.Context(), &results[i], until); err != nil {
				return err
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	out := json.NewEncoder(w)
	for _, res := range results {
		if err := out.Encode(res); err != nil {
			return nil // The client has gone.
		}
	}
	return nil
}

// submit hands one proposal on; a Busy failure says that it may be sent again.
func (o *Stage) submit(ctx context.Context, line []byte) (Result, error) {
	if len(line) > lineMax {
		return invalid(ledger.InvalidProposal, fmt.Errorf("a proposal of %d bytes is too long (at most %d)", len(line), lineMax)), nil
	}
	p, err := ParseProposal(line)
	if err != nil {
		return invalid(ledger.InvalidProposal, err), nil
	}
	if !o.pace.take(p.Symbol, time.Now()) {
		return Result{}, Failed(Busy, "%s: one proposal a second is taken from outside", p.Symbol)
	}
	receipt, err := ask(ctx, o, o.Offers, p, busyWait)
	return resultOf(receipt), err
}

// pace lets one proposal a second through per symbol.
type pace struct {
	mu   sync.Mutex // guards last, which handlers share
	last map[string]time.Time
}

const (
	paceEvery = time.Second
	paceMax   = 1024 // symbols remembered; more within a second are refused
)

func (p *pace) take(symbol string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.last[symbol]) < paceEvery {
		return false
	}
	for known, at := range p.last {
		if now.Sub(at) >= paceEvery {
			delete(p.last, known)
		}
	}
	if len(p.last) >= paceMax {
		return false
	}
	p.last[symbol] = now
	return true
}

// await adds the outcome, once it is final and durable; at until it tells the one that stands then.
func (o *Stage) await(ctx context.Context, res *Result, until time.Time) error {
	if res.ID == nil {
		return nil
	}
	poll, late := time.NewTicker(outcomePoll), time.NewTimer(time.Until(until))
	defer poll.Stop()
	defer late.Stop()
	for waited := false; ; {
		commit, err := o.Store.Decide(ctx, func(s *ledger.State, now time.Time) []ledger.Event {
			if p := s.Plans[*res.ID]; p != nil {
				res.Outcome, res.Explain = p.Outcome, fate(p, now)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if waited || res.Outcome.Final() {
			return commit.Wait(ctx)
		}
		select {
		case <-poll.C:
		case <-late.C:
			waited = true
		case <-o.stopping:
			waited = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Moved tells what an action did to the run state.
type Moved struct {
	RunState ledger.RunState `json:"run_state"`
	Was      ledger.RunState `json:"was"`
	Changed  bool            `json:"changed"`
}

func (o *Stage) kill(w http.ResponseWriter, r *http.Request) error {
	return o.move(w, r, ledger.Killed)
}

// disarm never loosens: from killed only rearm leads.
func (o *Stage) disarm(w http.ResponseWriter, r *http.Request) error {
	return o.move(w, r, ledger.Disarmed)
}

func (o *Stage) rearm(w http.ResponseWriter, r *http.Request) error { return o.move(w, r, "") }

func (o *Stage) move(w http.ResponseWriter, r *http.Request, to ledger.RunState) error {
	keys := []string{}
	if to == "" {
		keys = append(keys, "to")
	}
	body, err := parseOrder(r.Body, true, keys...)
	if err != nil {
		return err
	}
	if to == "" {
		if to = ledger.RunState(body.To); to == ledger.Killed || !to.Valid() {
			return Failed(BadRequest, "to %q: armed, protective_only or disarmed is wanted", body.To)
		}
	}
	var moved Moved
	var refused error
	err = o.change(r.Context(), func(s *ledger.State) []ledger.Event {
		was := s.Control.RunState
		moved, refused = Moved{to, was, was != to}, nil
		switch {
		case was == to:
			return nil
		case to == ledger.Disarmed && was == ledger.Killed && len(keys) == 0:
			refused = Failed(Refused, "the run state is killed, which is stricter: rearm --to disarmed leads there")
			return nil
		}
		return []ledger.Event{&ledger.RunStateChanged{From: was, To: to, Who: body.By, Why: body.Reason}}
	})
	if err = errors.Join(err, refused); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, moved)
}

// change writes events down and returns when they are durable.
func (o *Stage) change(ctx context.Context, decide func(*ledger.State) []ledger.Event) error {
	if o.Store == nil {
		return ErrNotRunning
	}
	commit, err := o.Store.Decide(ctx, func(s *ledger.State, _ time.Time) []ledger.Event { return decide(s) })
	if err != nil {
		return err
	}
	return commit.Wait(ctx)
}

// Held tells what an action did to the operator's hold of a symbol, and what else holds it.
type Held struct {
	Symbol  string      `json:"symbol"`
	Side    ledger.Side `json:"side"`
	Hold    bool        `json:"hold"`
	Changed bool        `json:"changed"`
	Others  []HoldView  `json:"others"`
}

// hold sets or clears the operator's hold: of a side, or without one of the whole symbol.
func (o *Stage) hold(w http.ResponseWriter, r *http.Request) error {
	body, err := parseOrder(r.Body, true, "op", "symbol", "side")
	if err != nil {
		return err
	}
	if body.Op != "set" && body.Op != "clear" || !slices.Contains(o.Symbols, body.Symbol) {
		return Failed(BadRequest, "op %q, symbol %q: set or clear is wanted, and one of %s", body.Op, body.Symbol, strings.Join(o.Symbols, ", "))
	}
	k := ledger.Key{Symbol: body.Symbol, Side: body.Side}
	var held Held
	err = o.change(r.Context(), func(s *ledger.State) (events []ledger.Event) {
		has := s.Holds[k].Has(ledger.HoldOperator)
		held = Held{k.Symbol, k.Side, body.Op == "set", has != (body.Op == "set"), []HoldView{}}
		for _, h := range holds(s) {
			if h.Symbol == k.Symbol && !(h.Reason == ledger.HoldOperator && h.Side == k.Side) {
				held.Others = append(held.Others, h)
			}
		}
		switch {
		case !held.Changed:
		case held.Hold:
			events = append(events, &ledger.HoldPut{Key: k, Reason: ledger.HoldOperator, Owner: body.By, Evidence: body.Reason})
		default:
			events = append(events, &ledger.HoldCleared{Key: k, Reason: ledger.HoldOperator, Owner: body.By, Evidence: body.Reason})
		}
		return events
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, held)
}

// Synced tells what ledger sync did.
type Synced struct {
	Symbol string      `json:"symbol"`
	Side   ledger.Side `json:"side"`
	From   ledger.Qty  `json:"from"`
	To     ledger.Qty  `json:"to"`
}

func (o *Stage) sync(w http.ResponseWriter, r *http.Request) error {
	body, err := parseOrder(r.Body, true, "symbol", "side")
	if err != nil {
		return err
	}
	if body.Side == ledger.AnySide {
		body.Side = ledger.Both
	}
	k := ledger.Key{Symbol: body.Symbol, Side: body.Side}
	res, err := ask(r.Context(), o, o.Syncs, ledger.SyncOrder{Key: k, Who: body.By, Why: body.Reason}, outcomeWait)
	if err != nil {
		return err
	}
	if res.Error != "" {
		return Failed(Refused, "%s", res.Error)
	}
	return writeJSON(w, http.StatusOK, Synced{k.Symbol, k.Side, res.From, res.To})
}

// flatten answers with the outcome of a plan for each position.
func (o *Stage) flatten(w http.ResponseWriter, r *http.Request) error {
	body, err := parseOrder(r.Body, true, "symbol", "force")
	if err != nil {
		return err
	}
	if body.Symbol != "" && !slices.Contains(o.Symbols, body.Symbol) {
		return Failed(BadRequest, "symbol %q: one of %s is wanted", body.Symbol, strings.Join(o.Symbols, ", "))
	}
	receipts, err := ask(r.Context(), o, o.Flattens, ledger.FlattenOrder{Symbol: body.Symbol, Force: body.Force, Who: body.By, Why: body.Reason}, outcomeWait)
	if err != nil {
		return err
	}
	results, until := []Result{}, time.Now().Add(outcomeWait)
	for _, receipt := range receipts {
		res := resultOf(receipt)
		if err := o.await(r.Context(), &res, until); err != nil {
			return err
		}
		results = append(results, res)
	}
	return writeJSON(w, http.StatusOK, results)
}

func (o *Stage) trade(w http.ResponseWriter, r *http.Request) error {
	body, err := parseOrder(r.Body, false, "symbol", "side", "qty")
	if err != nil {
		return err
	}
	if body.Side == ledger.AnySide {
		body.Side = ledger.Both
	}
	qty, err := ledger.ParseQty(strings.TrimPrefix(body.Qty, "+"))
	switch {
	case o.Store == nil:
		return ErrNotRunning
	case o.PaperTrade == nil:
		return Failed(Refused, "only the paper exchange can be traded on by hand")
	case err != nil || qty.IsZero():
		return Failed(BadRequest, "qty %q: an amount like 0.01 or -0.01 is wanted", body.Qty)
	}
	if err := o.PaperTrade(r.Context(), body.Symbol, body.Side, qty); err != nil {
		return Failed(Refused, "%v", err)
	}
	return writeJSON(w, http.StatusOK, map[string]string{"symbol": body.Symbol, "side": string(body.Side), "qty": qty.String()})
}
