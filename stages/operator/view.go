package operator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"permitchain/ledger"
)

// Status is how things stand.
type Status struct {
	Mode        ledger.Mode       `json:"mode"`
	RunState    ledger.RunState   `json:"run_state"`
	UptimeS     int64             `json:"uptime_s"` // 0 where no process runs
	Symbols     []PositionStatus  `json:"symbols"`
	Plans       ledger.PlanCounts `json:"plans"`
	OpenIntents int               `json:"open_intents"`
	Running     bool              `json:"running"`
	Version     string            `json:"version"`
	RunStateBy  string            `json:"run_state_by"`
	RunStateWhy string            `json:"run_state_why"`
	Since       time.Time         `json:"run_state_since,omitzero"`
	Exchange    *ExchangeView     `json:"exchange"` // null in mode paper, and where no process runs
	Problems    []string          `json:"problems"` // what status --check finds
}

// PositionStatus is one position as the exchange and as the ledger know it. What is not known is null.
type PositionStatus struct {
	Symbol       string      `json:"symbol"`
	Side         ledger.Side `json:"side"`
	Exchange     *ledger.Qty `json:"exchange_amt"`
	Ledger       *ledger.Qty `json:"ledger_amt"`
	Drift        *ledger.Qty `json:"drift"`
	Hold         *string     `json:"hold"` // reasons, joined by commas
	SnapshotAgeS *float64    `json:"snapshot_age_s"`
}

// Position is a position in full.
type Position struct {
	PositionStatus
	Entry    ledger.Price                     `json:"entry_price"`
	Mark     ledger.Price                     `json:"mark"`
	Notional ledger.USD                       `json:"notional"` // of the ledger's amount, at the mark
	Epoch    int64                            `json:"epoch"`
	OpenedAt time.Time                        `json:"opened_at,omitzero"`
	Tranches map[ledger.Action]ledger.Tranche `json:"tranches"`
	Stop     *ledger.Stop                     `json:"stop"`

	UnprotectedS float64 `json:"unprotected_s"` // of this epoch: for how long a wanted stop did not stand
	Unprotected  bool    `json:"unprotected"`   // so it is now
}

// LimitView is one limit of a symbol, and how much of it is used.
type LimitView struct {
	Symbol  string    `json:"symbol"`
	Limit   string    `json:"limit"`
	Used    string    `json:"used"`
	Bound   string    `json:"bound"`
	FreesAt time.Time `json:"frees_at,omitzero"`
}

// HoldView is one reason why a position may not be touched.
type HoldView struct {
	Symbol   string        `json:"symbol"`
	Side     ledger.Side   `json:"side"` // "": the whole symbol
	Reason   ledger.Reason `json:"reason"`
	Owner    string        `json:"owner"`
	At       time.Time     `json:"at"`
	Evidence string        `json:"evidence"`
	Frees    string        `json:"frees"`
}

// PlanView is one line of plans ls.
type PlanView struct {
	ID         ledger.PlanID   `json:"plan_id"`
	Symbol     string          `json:"symbol"`
	Side       ledger.Side     `json:"side"`
	Action     ledger.Action   `json:"action"`
	KillScore  float64         `json:"kill_score"`
	Decision   ledger.Decision `json:"decision"`
	Outcome    ledger.Outcome  `json:"outcome"`
	Reason     ledger.Reason   `json:"reason"`
	Stage      ledger.Stage    `json:"stage"`
	Executed   bool            `json:"executed"`
	Qty        ledger.Qty      `json:"qty"`
	AvgPrice   ledger.Price    `json:"avg_price"`
	Orders     []string        `json:"client_order_ids"`
	DecidedAt  time.Time       `json:"at"`
	Source     ledger.Source   `json:"source"`
	Duplicates int             `json:"duplicates"`
}

// PlanDetail is plans show.
type PlanDetail struct {
	PlanView
	Governor *ledger.Verdict `json:"governor"` // of the first step; each step has its own
	Position *ledger.Verdict `json:"position"`
	Steps    []ledger.Step   `json:"steps"`
	Journal  []uint64        `json:"journal"`
	Error    string          `json:"error,omitzero"`
	Proposal ledger.Proposal `json:"proposal"`
	Basis    ledger.Basis    `json:"basis"`
	Config   string          `json:"config"`
	Told     *Told           `json:"told,omitzero"` // what ?told=true asks for
}

// LedgerView is one line of ledger show.
type LedgerView struct {
	Symbol      string       `json:"symbol"`
	Side        ledger.Side  `json:"side"`
	Amount      ledger.Qty   `json:"amount"`
	Entry       ledger.Price `json:"entry_price"`
	LastTradeID int64        `json:"last_trade_id"`
	Version     uint64       `json:"version"`
	UpdatedAt   time.Time    `json:"updated_at"`
}

// keys are the positions to show: what the ledger or the exchange knows of our symbols, and each symbol at least once.
func (o *Stage) keys(s *ledger.State, snap *ledger.Snapshot) []ledger.Key {
	keys := s.Keys()
	for _, symbol := range o.Symbols {
		if snap != nil {
			keys = append(keys, snap.Keys(symbol)...)
		} else if !slices.ContainsFunc(keys, func(k ledger.Key) bool { return k.Symbol == symbol }) {
			keys = append(keys, ledger.Key{Symbol: symbol, Side: ledger.Both})
		}
	}
	slices.SortFunc(keys, ledger.Key.Compare)
	return slices.Compact(keys)
}

// seen is what the exchange shows; nil where no process looks.
func (o *Stage) seen() (*ledger.Snapshot, time.Time) {
	if o.Board == nil {
		return nil, time.Time{}
	}
	return o.Board.Snapshot(), o.Clock()
}

func positionStatus(s *ledger.State, k ledger.Key, snap *ledger.Snapshot, now time.Time) PositionStatus {
	v := PositionStatus{Symbol: k.Symbol, Side: k.Side}
	if amount, known := s.Amount(k); known {
		v.Ledger = &amount
	}
	if snap != nil {
		held, age := snap.Of(k).Amount, float64(now.Sub(snap.SentAt).Milliseconds())/1000
		v.Exchange, v.SnapshotAgeS = &held, &age
		if v.Ledger != nil {
			drift := held.Sub(*v.Ledger)
			v.Drift = &drift
		}
	}
	if holds := holdNames(s.HoldsOn(k)); holds != "" {
		v.Hold = &holds
	}
	return v
}

func holdNames(holds ledger.HoldSet) string {
	var names []string
	for _, h := range holds {
		names = append(names, string(h.Reason))
	}
	return strings.Join(names, ",")
}

func (o *Stage) status(s *ledger.State, snap *ledger.Snapshot, at time.Time) Status {
	c := s.Control
	v := Status{
		Mode: o.Mode, RunState: c.RunState, Plans: c.Counts, OpenIntents: len(s.Unresolved()), Running: o.books == nil, Version: o.Version,
		RunStateBy: c.Who, RunStateWhy: c.Why, Since: c.Since, Symbols: []PositionStatus{}, Problems: []string{},
	}
	problem := func(where, what string) { v.Problems = append(v.Problems, strings.TrimPrefix(where+": "+what, ": ")) }
	if v.Running {
		v.UptimeS = int64(time.Since(o.startedAt).Seconds())
	} else {
		problem("", "no chain is running"+o.Elsewhere)
	}
	if c.RunState != ledger.Armed {
		problem("", "the run state is "+string(c.RunState)+" ("+c.Who+": "+c.Why+")")
	}
	if v.Running && snap == nil {
		problem("", "no snapshot of the exchange yet")
	}
	if o.Exchange != nil {
		v.Exchange = o.Exchange()
		for _, what := range v.Exchange.Problems() {
			problem("exchange", what)
		}
	}
	for _, i := range s.Unresolved() {
		if i.State == ledger.Unknown {
			problem(i.Key.Label(), "order "+i.ClientOrderID+" is unknown")
		}
	}
	for _, k := range o.keys(s, snap) {
		p := positionStatus(s, k, snap, at)
		v.Symbols = append(v.Symbols, p)
		if p.Hold != nil {
			problem(k.Label(), "on hold: "+*p.Hold)
		}
		// Before a snapshot that knows of the last trade, a difference is no drift.
		pos := s.Positions[k]
		if pos != nil && !pos.BareSince.IsZero() {
			problem(k.Label(), unprotected(pos))
		}
		if p.Drift != nil && !p.Drift.IsZero() && snap.SentAt.After(pos.LastTradeAt) && s.UnresolvedOn(k, ledger.CloseStep) == nil {
			problem(k.Label(), "drift of "+p.Drift.String())
		}
	}
	return v
}

// unprotected says which part of a position has not its wanted stop, and since when.
func unprotected(pos *ledger.Position) string {
	what := "without its wanted stop"
	if pos.Stop != nil && pos.Stop.Epoch == pos.Epoch {
		what = fmt.Sprintf("%s of %s without its wanted stop, which covers %s", pos.Amount.Abs().Sub(pos.Stop.Qty), pos.Amount.Abs(), pos.Stop.Qty)
	}
	return what + " since " + pos.BareSince.UTC().Format(time.RFC3339)
}

func (o *Stage) positions(s *ledger.State, snap *ledger.Snapshot, at, now time.Time) []Position {
	views := []Position{}
	for _, k := range o.keys(s, snap) {
		v := Position{PositionStatus: positionStatus(s, k, snap, at), Tranches: map[ledger.Action]ledger.Tranche{}}
		if o.Board != nil {
			v.Mark = o.Board.Mark(k.Symbol).Price
		}
		if p := s.Positions[k]; p != nil {
			v.UnprotectedS, v.Unprotected = p.Unprotected(now).Seconds(), !p.BareSince.IsZero()
			v.Entry, v.Epoch, v.OpenedAt, v.Notional = p.Entry, p.Epoch, p.OpenedAt, ledger.Notional(p.Amount, v.Mark)
			for a, t := range p.Tranches {
				v.Tranches[a] = t
			}
			if p.Stop != nil {
				stop := *p.Stop
				v.Stop = &stop
			}
		}
		views = append(views, v)
	}
	return views
}

func ledgers(s *ledger.State) []LedgerView {
	views := []LedgerView{}
	for _, k := range s.Keys() {
		p := s.Positions[k]
		views = append(views, LedgerView{k.Symbol, k.Side, p.Amount, p.Entry, p.LastTradeID(), p.Version, p.UpdatedAt})
	}
	return views
}

// OrderView is one order; its symbol and side stand where every other view has them.
type OrderView struct {
	Symbol string      `json:"symbol"`
	Side   ledger.Side `json:"side"`
	ledger.Intent
	Nested *ledger.Key `json:"key,omitempty"` // always nil: it keeps Intent's own from being written
}

// orders are the newest first.
func orders(s *ledger.State, limit int) []OrderView {
	views := []OrderView{}
	for _, i := range s.Intents {
		views = append(views, OrderView{Symbol: i.Key.Symbol, Side: i.Key.Side, Intent: *i})
	}
	slices.SortFunc(views, func(a, b OrderView) int {
		return cmp.Or(b.At.Compare(a.At), strings.Compare(a.ClientOrderID, b.ClientOrderID))
	})
	return views[:min(limit, len(views))]
}

func holds(s *ledger.State) []HoldView {
	views := []HoldView{}
	for k, set := range s.Holds {
		for _, h := range set {
			info, _ := h.Reason.Explain()
			views = append(views, HoldView{k.Symbol, k.Side, h.Reason, h.Owner, h.At, h.Evidence, named(info.Frees, k.Symbol)})
		}
	}
	slices.SortFunc(views, func(a, b HoldView) int {
		return cmp.Or(strings.Compare(a.Symbol, b.Symbol), strings.Compare(string(a.Side), string(b.Side)), strings.Compare(string(a.Reason), string(b.Reason)))
	})
	return views
}

func planView(p *ledger.Plan) PlanView {
	q, quote := p.Filled()
	return PlanView{
		ID: p.ID, Symbol: p.Proposal.Symbol, Side: p.Proposal.Side, Action: p.Proposal.Action, KillScore: p.Proposal.KillScore, Decision: p.Decision,
		Outcome: p.Outcome, Reason: p.Reason, Stage: p.Stage, Executed: p.Outcome == ledger.Executed || p.Outcome == ledger.PartlyExecuted,
		Qty: q, AvgPrice: ledger.AveragePrice(quote, q), Orders: p.Orders(), DecidedAt: p.DecidedAt, Source: p.Proposal.Source, Duplicates: p.Repeats,
	}
}

func planDetail(p *ledger.Plan) PlanDetail {
	d := PlanDetail{
		PlanView: planView(p), Steps: append([]ledger.Step{}, p.Steps...), Journal: p.Journal, Error: p.Error, Proposal: p.Proposal, Basis: p.Basis, Config: p.Config,
	}
	if len(p.Steps) > 0 {
		d.Governor, d.Position = p.Steps[0].Governor, p.Steps[0].Position
	}
	return d
}
