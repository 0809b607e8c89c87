package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/pipeline"
)

// Bounds of lists.
const (
	listDefault = 50
	listMax     = 1000
)

// routes is the API. What is only for the control socket reaches files, or is no business of other programs'.
func (o *Stage) routes(control bool) http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]handler{
		"GET /healthz": func(w http.ResponseWriter, _ *http.Request) error {
			return writeJSON(w, http.StatusOK, map[string]bool{"ok": true})
		},
		"GET /readyz":    o.ready,
		"GET /v1/status": o.live(func(s *ledger.State, snap *ledger.Snapshot, at, _ time.Time) any { return o.status(s, snap, at) }),
		"GET /v1/positions": o.live(func(s *ledger.State, snap *ledger.Snapshot, at, now time.Time) any {
			return o.positions(s, snap, at, now)
		}),
		"GET /v1/ledger":  o.live(func(s *ledger.State, _ *ledger.Snapshot, _, _ time.Time) any { return ledgers(s) }),
		"GET /v1/holds":   o.live(func(s *ledger.State, _ *ledger.Snapshot, _, _ time.Time) any { return holds(s) }),
		"GET /v1/limits":  o.live(func(s *ledger.State, _ *ledger.Snapshot, _, now time.Time) any { return o.limits(s, now) }),
		"GET /v1/markets": o.live(func(s *ledger.State, _ *ledger.Snapshot, _, _ time.Time) any { return o.markets(s) }),
		"GET /v1/orders":  o.listOrders, "GET /v1/plans": o.listPlans, "GET /v1/plans/{id}": o.showPlan, "GET /v1/why": o.why,
		"GET /v1/ledger/history": o.history, "GET /v1/events": o.events, "GET /v1/config": o.config,
		"POST /v1/proposals": o.proposals, "POST /v1/kill": o.kill, "POST /v1/disarm": o.disarm, "POST /v1/rearm": o.rearm,
		"POST /v1/holds": o.hold, "POST /v1/ledger/sync": o.sync, "POST /v1/flatten": o.flatten, "POST /v1/orders/settle": o.settle, "POST /v1/config/reload": o.reload,
	} {
		mux.Handle(pattern, h)
	}
	if control {
		mux.Handle("POST /v1/ledger/backup", handler(o.backup))
		mux.Handle("GET /v1/ledger/export", handler(func(w http.ResponseWriter, _ *http.Request) error { return o.read().Reader().Export(w) }))
		mux.Handle("POST /v1/paper/trade", handler(o.trade))
	}
	return mux
}

// live answers with a view of the state.
func (o *Stage) live(view func(s *ledger.State, snap *ledger.Snapshot, at, now time.Time) any) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		snap, at := o.seen()
		var v any
		if err := o.read().View(r.Context(), func(s *ledger.State, now time.Time) { v = view(s, snap, at, now) }); err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, v)
	}
}

func (o *Stage) limits(s *ledger.State, now time.Time) []LimitView {
	if views := o.Limits(s, now); views != nil {
		return views
	}
	return []LimitView{}
}

// MarketView is what amounts and prices of a symbol are counted in; a tick of 0 is not known.
type MarketView struct {
	Step ledger.Qty   `json:"step"`
	Tick ledger.Price `json:"tick"`
}

// markets are for tables: those of the exchange, or else those that plans were decided with.
func (o *Stage) markets(s *ledger.State) map[string]MarketView {
	markets := map[string]MarketView{}
	for _, p := range s.Plans {
		if step := p.Basis.Lot.Step; !step.IsZero() {
			markets[p.Proposal.Symbol] = MarketView{Step: step}
		}
	}
	if o.Board != nil {
		for symbol, m := range o.Board.Markets {
			markets[symbol] = MarketView{m.Lot.Step, m.Tick}
		}
	}
	return markets
}

// ready tells whether plans can be permitted: a snapshot is there, and none of ours is on hold for want of one.
func (o *Stage) ready(w http.ResponseWriter, r *http.Request) error {
	snap, _ := o.seen()
	blind := snap == nil
	err := o.read().View(r.Context(), func(s *ledger.State, _ time.Time) {
		for _, set := range s.Holds {
			blind = blind || set.Has(ledger.HoldMissingExchange) || set.Has(ledger.HoldStaleExchange)
		}
	})
	if err != nil {
		return err
	}
	if blind {
		return Failed(Unhealthy, "no fresh snapshot of the exchange")
	}
	return writeJSON(w, http.StatusOK, map[string]bool{"ready": true})
}

func (o *Stage) config(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, map[string]string{"digest": o.Digest, "config": o.Config})
}

func (o *Stage) listOrders(w http.ResponseWriter, r *http.Request) error {
	limit, err := count(r, "limit", listDefault)
	if err != nil {
		return err
	}
	return o.live(func(s *ledger.State, _ *ledger.Snapshot, _, _ time.Time) any { return orders(s, limit) })(w, r)
}

// count is a number in the query, bounded.
func count(r *http.Request, name string, otherwise int) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > listMax {
		return 0, Failed(BadRequest, "%s %.20q: 1 to %d is wanted", name, text, listMax)
	}
	return n, nil
}

// outcomes are those that plans can be listed by.
var outcomes = []string{
	string(ledger.Executed), string(ledger.PartlyExecuted), string(ledger.Denied), string(ledger.WouldExecute), string(ledger.Failed),
	string(ledger.OutcomeUnknown), string(ledger.Pending), string(ledger.NoOutcome),
}

func (o *Stage) listPlans(w http.ResponseWriter, r *http.Request) error {
	limit, err := count(r, "limit", listDefault)
	if err != nil {
		return err
	}
	symbol, outcome := r.URL.Query().Get("symbol"), r.URL.Query().Get("outcome")
	if outcome != "" && !slices.Contains(outcomes, outcome) {
		return Failed(BadRequest, "outcome %.20q: one of %s is wanted", outcome, strings.Join(outcomes, ", "))
	}
	plans, err := o.read().Reader().Plans(func(p *ledger.Plan) bool {
		return (symbol == "" || p.Proposal.Symbol == symbol) && (outcome == "" || string(p.Outcome) == outcome)
	}, limit)
	if err != nil {
		return err
	}
	views := []PlanView{}
	for _, p := range plans {
		views = append(views, planView(p))
	}
	return writeJSON(w, http.StatusOK, views)
}

func (o *Stage) showPlan(w http.ResponseWriter, r *http.Request) error {
	p, err := o.read().Reader().Plan(r.PathValue("id"))
	if err != nil {
		return err
	}
	d := planDetail(p)
	if r.URL.Query().Get("told") == "true" {
		if d.Told, err = o.tell(r.Context(), p); err != nil && d.Told == nil {
			return err
		}
	}
	return writeJSON(w, http.StatusOK, d)
}

// Entry is one entry of a position's ledger.
type Entry struct {
	Seq    uint64      `json:"seq"`
	At     time.Time   `json:"at"`
	Kind   ledger.Kind `json:"kind"`
	Symbol string      `json:"symbol"`
	Side   ledger.Side `json:"side"`
	Change ledger.Qty  `json:"change"`
	Amount ledger.Qty  `json:"amount"` // after it
	What   string      `json:"what"`
}

// entryOf turns a record into an entry; amounts are those before it, and become those after it.
func entryOf(r ledger.Record, amounts map[ledger.Key]ledger.Qty) (Entry, bool) {
	var k ledger.Key
	var after ledger.Qty
	var what string
	switch e := r.Event.(type) {
	case *ledger.LedgerOpened:
		k, after, what = e.Holding.Key, e.Holding.Amount, "opened, "+e.By
	case *ledger.LedgerAdjusted:
		k, after, what = e.Holding.Key, e.Holding.Amount, fmt.Sprintf("taken over from the exchange by %s: %s", e.Who, e.Why)
	case *ledger.LedgerResidual:
		k, what = e.Key, "the position is flat: the rest is written off"
	case *ledger.LedgerReconciled:
		k, after, what = e.Key, amounts[e.Key], fmt.Sprintf("agrees with the exchange up to trade %d", e.Cursor)
	case *ledger.FillBooked:
		k = e.Trade.Key
		after = amounts[k].Add(e.Trade.Direction.Signed(e.Trade.Qty))
		what = fmt.Sprintf("trade %d: %s %s at %s, order %s", e.Trade.ID, e.Trade.Direction, e.Trade.Qty, e.Trade.Price, e.Trade.ClientOrderID)
		if e.External {
			what = fmt.Sprintf("trade %d of others: %s %s at %s", e.Trade.ID, e.Trade.Direction, e.Trade.Qty, e.Trade.Price)
		}
	default:
		return Entry{}, false
	}
	change := after.Sub(amounts[k])
	amounts[k] = after
	return Entry{r.Seq, r.At, r.Event.Kind(), k.Symbol, k.Side, change, after, what}, true
}

// history is every entry that led to a position, the last ones of it.
func (o *Stage) history(w http.ResponseWriter, r *http.Request) error {
	limit, err := count(r, "limit", listDefault)
	if err != nil {
		return err
	}
	symbol, entries, amounts := r.URL.Query().Get("symbol"), []Entry{}, map[ledger.Key]ledger.Qty{}
	err = o.read().Reader().Records(1, 0, func(record ledger.Record, _ string) error {
		if e, ok := entryOf(record, amounts); ok && (symbol == "" || e.Symbol == symbol) {
			entries = append(entries, e)
			entries = entries[max(0, len(entries)-limit):]
		}
		return r.Context().Err()
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, entries)
}

// heartbeat keeps an idle stream from being taken for dead.
const heartbeat = 15 * time.Second

// events streams the journal, from the record after the one named, or from now on.
func (o *Stage) events(w http.ResponseWriter, r *http.Request) error {
	if o.books != nil {
		return ErrNotRunning
	}
	from := r.URL.Query().Get("from")
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		from = last
	}
	after, err := strconv.ParseUint(from, 10, 64)
	if from != "" && err != nil {
		return Failed(BadRequest, "from %.20q: the sequence of a record is wanted", from)
	}
	if from == "" {
		if err := o.Store.View(r.Context(), func(s *ledger.State, _ time.Time) { after = s.Control.Seq }); err != nil {
			return err
		}
	}
	records, cancel := o.Store.Tail(after)
	defer cancel()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for text := ": from here\n\n"; ; {
		// A reader that takes nothing for a while is cut off; it begins again at its last id.
		if err := out.SetWriteDeadline(time.Now().Add(heartbeat)); err != nil {
			return err
		}
		if _, err := w.Write([]byte(text)); err != nil || out.Flush() != nil {
			return nil
		}
		select {
		case record, ok := <-records:
			if !ok {
				return nil
			}
			if text, err = eventText(record); err != nil {
				return nil
			}
		case <-beat.C:
			text = ": still here\n\n"
		case <-o.stopping:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

func eventText(r ledger.Record) (string, error) {
	data, err := json.Marshal(struct {
		Seq   uint64       `json:"seq"`
		At    time.Time    `json:"at"`
		Kind  ledger.Kind  `json:"kind"`
		Event ledger.Event `json:"event"`
	}{r.Seq, r.At, r.Event.Kind(), r.Event})
	return fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", r.Seq, r.Event.Kind(), data), err
}

func (o *Stage) backup(w http.ResponseWriter, r *http.Request) error {
	body, err := parseOrder(r.Body, false, "path")
	if err != nil {
		return err
	}
	if !filepath.IsAbs(body.Path) {
		return Failed(BadRequest, "path %q: an absolute path is wanted", body.Path)
	}
	if err := o.read().Reader().Backup(r.Context(), body.Path); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]string{"path": body.Path})
}

// file is a ledger that no process writes, as books.
type file struct {
	reader *store.Reader
	state  *ledger.State
}

func (f file) Reader() *store.Reader { return f.reader }

func (f file) View(_ context.Context, fn func(*ledger.State, time.Time)) error {
	fn(f.state, time.Now().UTC())
	return nil
}

// OnFile serves the views of a file that no process writes: they are made by the code that serves a chain's.
func OnFile(o Stage, reader *store.Reader) (http.Handler, error) {
	state, err := reader.State()
	o.books = file{reader, state}
	return o.routes(true), err
}

// OnStore serves what is possible on a ledger without a chain, which is to stop things; close ends the ledger.
func OnStore(o Stage, s *store.Store) (h http.Handler, closeStore func() error) {
	o.Store = s
	soft, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- s.Run(pipeline.Stop{Soft: soft, Hard: context.Background()}) }()
	return o.routes(true), func() error { close(soft); return <-ended }
}
