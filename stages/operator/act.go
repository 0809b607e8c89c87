package operator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
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
	// errUnanswered is no NotRunning: what was asked for was taken, and may have been done.
	errUnanswered = errors.New("the chain took it and has not answered")
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
		return answer, fmt.Errorf("%w within %s; see the log", errUnanswered, outcomeWait)
	case <-ctx.Done():
		return answer, fmt.Errorf("%w, because it is stopping", errUnanswered)
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

// listed refuses a symbol that is not the configuration's.
func (o *Stage) listed(symbol string) error {
	if slices.Contains(o.Symbols, symbol) {
		return nil
	}
	return Failed(BadRequest, "symbol %q: one of %s is wanted", symbol, strings.Join(o.Symbols, ", "))
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
	if body.Op != "set" && body.Op != "clear" {
		return Failed(BadRequest, "op %q: set or clear is wanted", body.Op)
	}
	if err := o.listed(body.Symbol); err != nil {
		return err
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

// Settled tells what the operator's evidence made of an order.
type Settled struct {
	ID    string             `json:"client_order_id"`
	State ledger.IntentState `json:"state"`
}

// settle hands the operator's evidence to apply, which looks once more before it takes it.
func (o *Stage) settle(w http.ResponseWriter, r *http.Request) error {
	body, err := parseOrder(r.Body, true, "id", "order_id", "not_placed")
	if err != nil {
		return err
	}
	order := ledger.SettleOrder{ClientOrderID: body.ID, Who: body.By, Why: body.Reason}
	if body.OrderID != "" {
		order.OrderID, err = strconv.ParseInt(body.OrderID, 10, 64)
	}
	switch {
	case !ledger.OfOurForm(body.ID):
		return Failed(BadRequest, "id %q: the client order id of an order of ours is wanted, as permitchain orders ls shows it", body.ID)
	case err != nil || order.OrderID < 0 || (body.OrderID != "" && order.OrderID == 0):
		return Failed(BadRequest, "order_id %q: the exchange's number of an order is wanted", body.OrderID)
	case (order.OrderID != 0) == body.NotPlaced:
		return Failed(BadRequest, "either order_id or not_placed is wanted")
	}
	res, err := ask(r.Context(), o, o.Settles, order, outcomeWait)
	if err != nil {
		return err
	}
	if res.Error != "" {
		return Failed(Refused, "%s", res.Error)
	}
	return writeJSON(w, http.StatusOK, Settled{body.ID, res.State})
}

// flatten answers with the outcome of a plan for each position.
func (o *Stage) flatten(w http.ResponseWriter, r *http.Request) error {
	body, err := parseOrder(r.Body, true, "symbol", "force")
	if err != nil {
		return err
	}
	if body.Symbol != "" {
		if err := o.listed(body.Symbol); err != nil {
			return err
		}
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

// Reloaded tells what reading the configuration again did.
type Reloaded struct {
	Result string `json:"result"`
}

// reload has the configuration read again. A Failure keeps its kind, so that an error in the file is the caller's to correct.
func (o *Stage) reload(w http.ResponseWriter, r *http.Request) error {
	switch {
	case o.Store == nil:
		return ErrNotRunning
	case o.Reload == nil:
		return Failed(Refused, "this chain reads its configuration only when it starts")
	}
	result, err := o.Reload(r.Context())
	if err != nil {
		f := *failure(err)
		if f.Kind == Internal {
			f.Kind = Refused
		}
		return &f
	}
	return writeJSON(w, http.StatusOK, Reloaded{result})
}
