package ledger

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// State is the fold of the journal: everything the chain knows for sure. It has
// one owner; only Apply changes it.
type State struct {
	Control   Control
	Plans     map[PlanID]*Plan
	Intents   map[string]*Intent // by client order id
	Positions map[Key]*Position
	Usage     map[string]*Usage // by symbol
	Holds     map[Key]HoldSet

	touched map[Ref]struct{}
}

// Control is the state that belongs to no symbol.
type Control struct {
	Seq      uint64      `json:"seq"` // of the last record folded
	At       time.Time   `json:"at"`
	Mode     Mode        `json:"mode"`
	RunState RunState    `json:"run_state"`
	Who      string      `json:"who"` // moved the run state last
	Why      string      `json:"why"`
	Since    time.Time   `json:"since"`
	Instance uint64      `json:"instance"`
	Config   string      `json:"config"`             // digest in force
	Failures []time.Time `json:"failures,omitempty"` // attempts that ended Unknown or NotPlaced, for auto-disarm
	Counts   PlanCounts  `json:"counts"`
}

// PlanCounts counts every plan there ever was, by what became of it.
type PlanCounts struct {
	Total        int `json:"total"`
	Executed     int `json:"executed"`
	Denied       int `json:"denied"`
	Skipped      int `json:"skipped"`
	Errors       int `json:"errors"`
	WouldExecute int `json:"would_execute"`
	Pending      int `json:"pending"`
	Duplicates   int `json:"duplicates"`
}

// of is the counter a plan stands under.
func (c *PlanCounts) of(p *Plan) *int {
	switch {
	case p.Decision == Skip:
		return &c.Skipped
	case p.Decision == Blocked:
		return &c.Denied
	case p.Decision == Errored:
		return &c.Errors
	}
	switch p.Outcome {
	case Executed, PartlyExecuted:
		return &c.Executed
	case Denied:
		return &c.Denied
	case WouldExecute:
		return &c.WouldExecute
	case Failed:
		return &c.Errors
	case NoOutcome:
		return &c.Skipped
	default:
		return &c.Pending
	}
}

// Position is what we believe we hold under one key.
type Position struct {
	Key         Key                `json:"key"`
	Amount      Qty                `json:"amount"`
	Entry       Price              `json:"entry_price"`
	Cursor      int64              `json:"last_trade_id"`       // every trade up to here is in Amount
	Beyond      []int64            `json:"beyond,omitempty"`    // booked trades above Cursor, ascending
	Version     uint64             `json:"version"`             // counts changes
	UpdatedAt   time.Time          `json:"updated_at"`          // local clock
	LastTradeAt time.Time          `json:"last_trade_at"`       // exchange clock; judges which snapshots know of it
	LastOrderAt time.Time          `json:"last_order_at"`       // local clock; of our last close
	Epoch       int64              `json:"epoch"`               // which life of the position
	OpenedAt    time.Time          `json:"opened_at,omitzero"`  // of this epoch
	High        Price              `json:"high,omitzero"`       // extremes of the mark in this epoch, at bar closes
	Low         Price              `json:"low,omitzero"`        //
	Tranches    map[Action]Tranche `json:"tranches,omitempty"`  // of this epoch
	Stop        *Stop              `json:"stop,omitempty"`      // the wanted stop of this epoch
	OldStops    []string           `json:"old_stops,omitempty"` // standing still, and no longer wanted

	BareSince time.Time     `json:"bare_since,omitzero"` // since then a stop is wanted in this epoch and none stands, or none for all of the amount; zero: not so
	Bare      time.Duration `json:"bare_ns,omitzero"`    // how long that was so earlier in this epoch
}

// Tranche is the memory of one partial close.
type Tranche struct {
	Amount Qty      `json:"amount"` // |position| when it was claimed
	Plan   PlanID   `json:"plan_id"`
	Done   bool     `json:"done"`
	Was    *Tranche `json:"was,omitempty"` // what was done before, at a size since outgrown: it holds again if this claim fills nothing
}

// Stop is the stop that should stand for a position.
type Stop struct {
	ClientOrderID string `json:"client_order_id"`
	Trigger       Price  `json:"trigger"`
	Qty           Qty    `json:"qty"`
	Epoch         int64  `json:"epoch"`
}

// Unprotected is for how long a wanted stop did not stand in the present epoch, or in the last one where the position is flat.
func (p *Position) Unprotected(now time.Time) time.Duration {
	if p.BareSince.IsZero() {
		return p.Bare
	}
	return p.Bare + max(0, now.Sub(p.BareSince))
}

// HasBooked tells whether a trade is in the amount already.
func (p *Position) HasBooked(id int64) bool {
	return id <= p.Cursor || slices.Contains(p.Beyond, id)
}

// LastTradeID is the highest trade id booked.
func (p *Position) LastTradeID() int64 {
	if n := len(p.Beyond); n > 0 {
		return max(p.Cursor, p.Beyond[n-1])
	}
	return p.Cursor
}

// Usage is what a symbol used of its limits lately.
type Usage struct {
	Symbol string `json:"symbol"`
	Uses   []Use  `json:"uses,omitempty"`
}

// Use is one execution, reserved or spent.
type Use struct {
	Plan     PlanID    `json:"plan_id"`
	Step     int       `json:"step"`
	Budget   Budget    `json:"budget,omitzero"`
	At       time.Time `json:"at"`
	Notional USD       `json:"notional"`
	Spent    bool      `json:"spent,omitzero"` // an order was sent on it
}

// usageKept is how long a use can matter: a UTC day, and the longest rolling window.
const usageKept = 25 * time.Hour

// Stopped is one reason why a position may not be touched.
type Stopped struct {
	Reason   Reason    `json:"reason"`
	Owner    string    `json:"owner"`
	At       time.Time `json:"at"`
	Evidence string    `json:"evidence"`
}

// HoldSet is every reason at once, one entry per reason, in order of reason.
type HoldSet []Stopped

// Has tells whether the set holds a reason.
func (h HoldSet) Has(r Reason) bool { return h.index(r) >= 0 }

func (h HoldSet) index(r Reason) int {
	return slices.IndexFunc(h, func(s Stopped) bool { return s.Reason == r })
}

// RefKind is a kind of thing that State keeps under a name of its own.
type RefKind string

// The kinds of things.
const (
	PlanRef     RefKind = "plans"
	IntentRef   RefKind = "intents"
	PositionRef RefKind = "positions"
	UsageRef    RefKind = "usage"
	HoldRef     RefKind = "holds"
	ControlRef  RefKind = "control"
)

// Ref names one thing in State, as a derived record of it is stored.
type Ref struct {
	Kind RefKind
	Name string
}

// RefKinds lists the kinds in the order a reader should meet them.
var RefKinds = [...]RefKind{ControlRef, PositionRef, HoldRef, UsageRef, PlanRef, IntentRef}

// NewState is the state before the first record.
func NewState() *State {
	return &State{
		Control: Control{RunState: Armed},
		Plans:   map[PlanID]*Plan{}, Intents: map[string]*Intent{}, Positions: map[Key]*Position{},
		Usage: map[string]*Usage{}, Holds: map[Key]HoldSet{}, touched: map[Ref]struct{}{},
	}
}

// Touched returns what changed since it was last asked, in a fixed order, and forgets it.
func (s *State) Touched() []Ref {
	refs := slices.SortedFunc(maps.Keys(s.touched), func(a, b Ref) int {
		return cmp.Or(slices.Index(RefKinds[:], a.Kind)-slices.Index(RefKinds[:], b.Kind), strings.Compare(a.Name, b.Name))
	})
	clear(s.touched)
	return refs
}

// Get is the thing behind a ref, nil where there is none (any more).
func (s *State) Get(r Ref) any {
	switch r.Kind {
	case ControlRef:
		return &s.Control
	case PlanRef:
		if p := s.Plans[PlanID(r.Name)]; p != nil {
			return p
		}
	case IntentRef:
		if i := s.Intents[r.Name]; i != nil {
			return i
		}
	case PositionRef:
		if k, err := ParseKey(r.Name); err == nil && s.Positions[k] != nil {
			return s.Positions[k]
		}
	case UsageRef:
		if u := s.Usage[r.Name]; u != nil {
			return u
		}
	case HoldRef:
		if k, err := ParseKey(r.Name); err == nil && len(s.Holds[k]) > 0 {
			return s.Holds[k]
		}
	}
	return nil
}

// HoldsOn are the reasons that stop a position, those of its whole symbol included.
func (s *State) HoldsOn(k Key) HoldSet {
	return append(slices.Clone(s.Holds[k]), s.Holds[Key{k.Symbol, AnySide}]...)
}

// Amount is what the ledger says we hold; a missing ledger is 0, and says so.
func (s *State) Amount(k Key) (Qty, bool) {
	p := s.Positions[k]
	if p == nil {
		return Qty{}, false
	}
	return p.Amount, true
}

// UnresolvedOn is the open intent of one kind under a key, or nil.
func (s *State) UnresolvedOn(k Key, kind StepKind) *Intent {
	for _, id := range s.openIntents() {
		if i := s.Intents[id]; i.Key == k && i.Kind == kind {
			return i
		}
	}
	return nil
}

// Unresolved are all open intents, in order of their ids.
func (s *State) Unresolved() []*Intent {
	var open []*Intent
	for _, id := range s.openIntents() {
		open = append(open, s.Intents[id])
	}
	return open
}

func (s *State) openIntents() []string {
	var ids []string
	for id, i := range s.Intents {
		if i.State.Unresolved() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// OpenPlans are the plans whose outcome is not final, oldest first.
func (s *State) OpenPlans() []*Plan {
	var open []*Plan
	for _, p := range s.Plans {
		if !p.Outcome.Final() {
			open = append(open, p)
		}
	}
	slices.SortFunc(open, func(a, b *Plan) int { return int(a.Journal[0]) - int(b.Journal[0]) })
	return open
}

// Keys are the positions that have a ledger, in order.
func (s *State) Keys() []Key {
	return slices.SortedFunc(maps.Keys(s.Positions), Key.Compare)
}

// Forget drops ended plans decided before t, and their intents, from memory: they
// stay in the journal and its index. Whoever calls it must keep ids for as long as
// a repeat of them could still be accepted.
func (s *State) Forget(t time.Time) {
	for id, p := range s.Plans {
		if p.Outcome.Final() && p.DecidedAt.Before(t) && !s.holdsOrders(p) {
			for _, o := range p.Orders() {
				delete(s.Intents, o)
			}
			delete(s.Plans, id)
		}
	}
}

// holdsOrders tells whether an order of the plan may still trade.
func (s *State) holdsOrders(p *Plan) bool {
	return slices.ContainsFunc(p.Orders(), func(id string) bool {
		i := s.Intents[id]
		return i != nil && (i.State.Unresolved() || i.State == Standing)
	})
}

// Tightens tells whether a stop at trigger protects more than the one that stands:
// any stop does where there is none. held tells the position's sign.
func (s *State) Tightens(k Key, held Qty, trigger Price) bool {
	p := s.Positions[k]
	if p == nil || p.Stop == nil || p.Stop.Epoch != p.Epoch {
		return true
	}
	if held.Sign() == 0 {
		held = p.Amount
	}
	if held.Sign() < 0 {
		return trigger.Less(p.Stop.Trigger)
	}
	return p.Stop.Trigger.Less(trigger)
}
