// Package venue is a model of one account on a USD-M futures exchange: its positions,
// orders, trades and stops, and the rules by which Binance accepts or refuses.
//
// Contract: it is pure. It asks for no time and does no I/O; every instant is an
// argument, and luck comes from one seeded source, so the same calls give the same
// answers. What a call did to the account is returned as a Change, which holds facts
// and no luck: Redo of every Change in order makes the same account again.
//
// It shares no rule with the chain it judges: positions, reduce-only and filters are
// written here a second time, from the exchange's documentation. A Venue has one owner.
package venue

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// Options are what a venue is made with. The zero value is a kind exchange: one-way
// mode, no fee, every order filled at once, whole, in one trade.
type Options struct {
	Seed  uint64
	Hedge bool
	Fee   ledger.Percent // of a trade's value
	Odds  Odds

	MinNotional ledger.USD // that an order must be worth unless it reduces
}

// Odds are how often, from 0 to 1, the exchange does what few programs expect of it.
type Odds struct {
	Split  float64 // an order fills in several trades, each a little worse than the one before
	Expire float64 // an order fills in part, perhaps not at all, and the rest expires
	Rest   float64 // an order fills in part, perhaps not at all, and stays open until the next mark price
}

// Venue is the account and the markets it trades on.
type Venue struct {
	luck  *rand.Rand
	fee   ledger.Percent
	odds  Odds
	hedge bool

	minNotional ledger.USD

	books map[string]*book
	held  map[ledger.Key]*position
}

// book is everything of one symbol.
type book struct {
	symbol    string
	market    *exchange.Market // nil: not traded here
	mark      ledger.Price     // zero: not known yet
	depth     *ledger.Qty      // what an order finds; nil: all it wants
	lastID    int64            // given to an order or a stop
	lastTrade int64
	orders    []Order        // in order of their ids
	stops     []Stop         // in order of their ids
	trades    []ledger.Trade // in order of their ids
}

// New makes an account that holds nothing, on an exchange that lists markets.
func New(o Options, markets ...exchange.Market) *Venue {
	v := &Venue{
		luck: rand.New(rand.NewPCG(o.Seed, 0)), fee: o.Fee, odds: o.Odds, hedge: o.Hedge, minNotional: o.MinNotional,
		books: map[string]*book{}, held: map[ledger.Key]*position{},
	}
	for _, m := range markets {
		v.List(m)
	}
	return v
}

// List makes a symbol tradable, or changes its rules.
func (v *Venue) List(m exchange.Market) { v.book(m.Symbol).market = &m }

func (v *Venue) book(symbol string) *book {
	b := v.books[symbol]
	if b == nil {
		b = &book{symbol: symbol}
		v.books[symbol] = b
	}
	return b
}

// SetHedge switches the position mode of the whole account, which must be flat and without open orders.
func (v *Venue) SetHedge(now time.Time, hedge bool) (Change, error) {
	if v.hedge == hedge {
		return Change{}, reject(-4059, "No need to change position side.")
	}
	for _, b := range v.books {
		if slices.ContainsFunc(b.orders, Order.open) || slices.ContainsFunc(b.stops, Stop.standing) {
			return Change{}, reject(-4067, "Position side cannot be changed if there exists open orders.")
		}
	}
	if len(v.held) > 0 {
		return Change{}, reject(-4068, "Position side cannot be changed if there exists position.")
	}
	return v.did(Change{At: now, Hedge: &hedge}), nil
}

// Change is what one call did to the account. Orders and stops are as they are after it.
type Change struct {
	At     time.Time      `json:"at"`
	Orders []Order        `json:"orders,omitempty"`
	Trades []ledger.Trade `json:"trades,omitempty"`
	Stops  []Stop         `json:"stops,omitempty"`
	Hedge  *bool          `json:"hedge,omitempty"`
}

// Empty tells whether nothing changed.
func (c Change) Empty() bool {
	return len(c.Orders) == 0 && len(c.Trades) == 0 && len(c.Stops) == 0 && c.Hedge == nil
}

// Keys are the positions that c is about, each once.
func (c Change) Keys() []ledger.Key {
	var keys []ledger.Key
	for _, o := range c.Orders {
		keys = append(keys, o.Key)
	}
	for _, s := range c.Stops {
		keys = append(keys, s.Key)
	}
	slices.SortFunc(keys, compareKeys)
	return slices.Compact(keys)
}

// join is c and then d as one change.
func (c Change) join(d Change) Change {
	c.Orders = append(c.Orders, d.Orders...)
	c.Trades = append(c.Trades, d.Trades...)
	c.Stops = append(c.Stops, d.Stops...)
	return c
}

// Redo does again what a change says was done. It refuses a change that does not fit
// the account: then the record is not this account's, or not whole.
func (v *Venue) Redo(c Change) error {
	if err := v.fits(c); err != nil {
		return err
	}
	if c.Hedge != nil {
		v.hedge = *c.Hedge
	}
	for _, o := range c.Orders {
		b := v.book(o.Symbol)
		b.orders = upsert(b.orders, o, Order.id)
		b.lastID = max(b.lastID, o.OrderID)
	}
	for _, s := range c.Stops {
		b := v.book(s.Symbol)
		b.stops = upsert(b.stops, s, Stop.id)
		b.lastID = max(b.lastID, s.AlgoID)
	}
	for _, t := range c.Trades {
		b := v.book(t.Symbol)
		b.trades = append(b.trades, t)
		b.lastTrade = t.ID
		v.move(t.Key, t.Direction.Signed(t.Qty), t.Price)
	}
	return nil
}

// fits compares the two tellings of a change: what orders executed, and what was traded.
func (v *Venue) fits(c Change) error {
	executed := map[ledger.Key]map[int64]ledger.Qty{}
	last := map[string]int64{}
	for _, t := range c.Trades {
		if t.ID <= max(v.book(t.Symbol).lastTrade, last[t.Symbol]) {
			return fmt.Errorf("trade %d of %s does not follow the one before", t.ID, t.Symbol)
		}
		last[t.Symbol] = t.ID
		if executed[t.Key] == nil {
			executed[t.Key] = map[int64]ledger.Qty{}
		}
		executed[t.Key][t.OrderID] = executed[t.Key][t.OrderID].Add(t.Qty)
	}
	for _, o := range c.Orders {
		was, _ := find(v.book(o.Symbol).orders, o.OrderID, Order.id)
		traded := executed[o.Key][o.OrderID]
		if !o.Executed.Sub(was.Executed).Equal(traded) || o.Qty.Less(o.Executed) {
			return fmt.Errorf("order %d of %s executed %s after %s, but traded %s", o.OrderID, o.Symbol, o.Executed, was.Executed, traded)
		}
		delete(executed[o.Key], o.OrderID)
	}
	for k, rest := range executed {
		if len(rest) > 0 {
			return fmt.Errorf("trades of %s belong to no order of this change", k)
		}
	}
	return nil
}

// did does what was decided, and returns it. A decision that does not fit is a bug of this package.
func (v *Venue) did(c Change) Change {
	if err := v.Redo(c); err != nil {
		panic(err)
	}
	return c
}

// upsert replaces the item of the same id, or appends it: ids only ever grow.
func upsert[T any](items []T, item T, id func(T) int64) []T {
	i, ok := slices.BinarySearchFunc(items, id(item), func(t T, want int64) int { return cmp.Compare(id(t), want) })
	if ok {
		items[i] = item
		return items
	}
	return slices.Insert(items, i, item)
}

func find[T any](items []T, want int64, id func(T) int64) (item T, ok bool) {
	i, ok := slices.BinarySearchFunc(items, want, func(t T, want int64) int { return cmp.Compare(id(t), want) })
	if ok {
		item = items[i]
	}
	return item, ok
}

func compareKeys(a, b ledger.Key) int {
	return cmp.Or(cmp.Compare(a.Symbol, b.Symbol), cmp.Compare(a.Side, b.Side))
}

// State is the whole account as data, to be written down.
type State struct {
	Hedge    bool             `json:"hedge,omitzero"`
	Holdings []ledger.Holding `json:"holdings,omitempty"`
	Symbols  []SymbolState    `json:"symbols,omitempty"`
}

// SymbolState is what there is of one symbol beside its position.
type SymbolState struct {
	Symbol    string         `json:"symbol"`
	LastID    int64          `json:"last_id,omitzero"`
	LastTrade int64          `json:"last_trade_id,omitzero"`
	Orders    []Order        `json:"orders,omitempty"`
	Stops     []Stop         `json:"stops,omitempty"`
	Trades    []ledger.Trade `json:"trades,omitempty"`
}

// State is the account now, without what ended before keep: an exchange forgets too.
func (v *Venue) State(keep time.Time) State {
	s := State{Hedge: v.hedge, Holdings: v.Holdings()}
	for _, symbol := range v.Symbols() {
		b := v.books[symbol]
		s.Symbols = append(s.Symbols, SymbolState{
			Symbol: symbol, LastID: b.lastID, LastTrade: b.lastTrade,
			Orders: kept(b.orders, func(o Order) bool { return o.open() || !o.UpdatedAt.Before(keep) }),
			Stops:  kept(b.stops, func(s Stop) bool { return s.standing() || !s.UpdatedAt.Before(keep) }),
			Trades: kept(b.trades, func(t ledger.Trade) bool { return !t.At.Before(keep) }),
		})
	}
	return s
}

func kept[T any](items []T, keep func(T) bool) []T {
	var some []T
	for _, item := range items {
		if keep(item) {
			some = append(some, item)
		}
	}
	return some
}

// Restore makes the account that s tells of; of o the position mode is not used. No
// symbol is listed and no mark price known yet.
func Restore(o Options, s State) *Venue {
	v := New(o)
	v.hedge = s.Hedge
	for _, h := range s.Holdings {
		v.held[h.Key] = &position{h.Amount, h.Entry}
	}
	for _, sym := range s.Symbols {
		v.books[sym.Symbol] = &book{
			symbol: sym.Symbol, lastID: sym.LastID, lastTrade: sym.LastTrade,
			orders: slices.Clone(sym.Orders), stops: slices.Clone(sym.Stops), trades: slices.Clone(sym.Trades),
		}
	}
	return v
}

// Symbols are all symbols that are listed, or that the account has to do with, in order.
func (v *Venue) Symbols() []string {
	all := slices.Collect(maps.Keys(v.books))
	for k := range v.held {
		all = append(all, k.Symbol)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
