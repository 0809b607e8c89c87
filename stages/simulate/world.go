// Package simulate is the whole chain in one thread and virtual time: the stages' own handlers, the fold and the routing
// between them, on a model of the exchange, with every misfortune that RELIABILITY knows drawn from one seed.
//
// Contract: the same seed and rules give the same trace to the byte. Nothing here asks a clock, starts what runs by itself,
// or iterates a map where order matters. The invariants are judged after every event, by the fold's own checks and by a
// judge that counts what the exchange received and did, and shares nothing with the chain but the journal's records.
package simulate

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"permitchain/exchange"
	"permitchain/exchange/synthetic"
	"permitchain/exchange/venue"
	"permitchain/ledger"
	"permitchain/stages/apply"
	"permitchain/stages/governor"
	"permitchain/stages/reconcile"
)

// Rules are what is simulated: a user's own configuration.
type Rules struct {
	Mode       ledger.Mode
	Symbols    []string
	Config     string // its digest
	Apply      func(symbol string) apply.Rules
	Governor   func(symbol string) governor.Rules
	Global     governor.Config
	Reconcile  func(symbol string) reconcile.Config
	Interval   time.Duration // between snapshots
	RecvWindow time.Duration
	Timeout    time.Duration
	Hedge      bool
	Positions  map[ledger.Key]ledger.Qty // that the account begins with
	Ledger     map[ledger.Key]ledger.Qty // that the chain believes to hold at first
}

// Virtual time is counted in nanoseconds since start.
const (
	us  int64 = 1e3
	ms  int64 = 1e6
	sec int64 = 1e9
)

// start is the instant at which every simulation begins: half an hour before midnight, so that a day's limits begin anew in it.
var start = time.Date(2026, 1, 24, 23, 30, 0, 0, time.UTC)

// afterwards is how long the phase without faults lasts: every fence and what follows it within 60 s has passed.
const afterwards = 100 * sec

// world is everything that is not the process, and the process.
type world struct {
	rules   *Rules
	seed    uint64
	luck    *rand.Rand
	crew    *crew
	now     int64 // true time, which is the exchange's
	ended   bool
	queue   events
	issued  uint64
	running *routine

	on        map[Class]float64
	quiet     bool // the phase without faults
	still     bool // its last part: prices stand, so that no stop triggers in the last instant
	venue     *venue.Venue
	markets   map[string]exchange.Market
	prices    map[string]int64 // mark prices in ticks
	past      []view           // what was held when, for positions that lag
	banned    int64            // until then every call is refused
	deaf      int64            // until then the streams say nothing
	namesakes map[string]bool

	p        *process
	disk     []written
	births   int
	judge    *judge
	tracer   *tracer
	result   *Result
	offered  []ledger.Proposal
	proposed int
}

// busyMax is how much may happen in one instant.
const busyMax = 20000

// view is what was held from an instant on.
type view struct {
	at       int64
	holdings []ledger.Holding
}

// event is something that happens at an instant.
type event struct {
	at    int64
	order uint64 // of those at the same instant, the one that was wanted first comes first
	do    func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(e any)   { *q = append(*q, e.(event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return e
}

// after has something happen a while from now.
func (w *world) after(ns int64, do func()) {
	w.issued++
	heap.Push(&w.queue, event{w.now + max(ns, 0), w.issued, do})
}

// between is a while drawn from luck, short ones more often than long ones.
func (w *world) between(from, to int64) int64 {
	f := w.luck.Float64()
	return from + int64(f*f*float64(to-from))
}

// at is true time as an instant.
func (w *world) at() time.Time { return start.Add(time.Duration(w.now)) }

// newWorld draws everything that a seed decides before anything happens.
func newWorld(r *Rules, seed uint64, hours float64, f Faults, c *crew, t *tracer) *world {
	w := &world{
		rules: r, seed: seed, luck: rand.New(rand.NewPCG(seed, 0x5eed)), crew: c, on: map[Class]float64{}, markets: map[string]exchange.Market{},
		prices: map[string]int64{}, namesakes: map[string]bool{}, tracer: t,
		result: &Result{Seed: seed, Hours: hours, Faults: map[Class]int{}, Violations: []Violation{}, Denied: map[string]int{}, Outcomes: map[ledger.Outcome]int{}, Allowed: map[string]int{}, Refused: map[string]int{}},
	}
	w.judge = newJudge(w)
	f.draw(w)
	hedge := r.Hedge || f.Swarm && len(r.Positions) == 0 && w.luck.IntN(3) == 0
	odds := venue.Odds{}
	if f.Name != "none" {
		odds.Split = 0.3
	}
	w.venue = venue.New(venue.Options{Seed: w.luck.Uint64(), Hedge: hedge, Fee: ledger.MustPercent("0.04"), Odds: odds})
	for _, symbol := range r.Symbols {
		spec := synthetic.Of(seed, symbol)
		w.markets[symbol] = spec.Market
		w.venue.List(spec.Market)
		w.prices[symbol] = int64(spec.Price(0).Float()/spec.Tick.Float() + 0.5)
		w.venue.Mark(w.at(), symbol, w.price(symbol))
	}
	w.open(hedge)
	w.look()
	return w
}

// open gives the account its first positions: those of the configuration, and where it has none of a symbol, by luck.
func (w *world) open(hedge bool) {
	for _, symbol := range w.rules.Symbols {
		for _, side := range sides(hedge) {
			k := ledger.Key{Symbol: symbol, Side: side}
			q, told := w.rules.Positions[k]
			if !told && w.luck.IntN(3) > 0 {
				q = w.amount(k)
			}
			if !q.IsZero() {
				w.happened(w.venue.Trade(w.at(), k, q))
			}
		}
	}
}

func sides(hedge bool) []ledger.Side {
	if hedge {
		return []ledger.Side{ledger.Long, ledger.Short}
	}
	return []ledger.Side{ledger.Both}
}

// amount is a position of a size that people hold: some hundred to some thousand dollars, now and then dust, or more than one order may be.
func (w *world) amount(k ledger.Key) ledger.Qty {
	m := w.markets[k.Symbol]
	usd := 200 + 4000*w.luck.Float64()
	steps := int64(usd / (w.price(k.Symbol).Float() * m.Lot.Step.Float()))
	switch w.luck.IntN(12) {
	case 0:
		steps = 1 + w.luck.Int64N(3)
	case 1:
		steps = int64(m.Lot.Max.Float()/m.Lot.Step.Float()) + w.luck.Int64N(1000)
	}
	q := times(m.Lot.Step, max(1, steps))
	if k.Side == ledger.Short || k.Side == ledger.Both && w.luck.IntN(2) == 0 {
		q = q.Neg()
	}
	return q
}

// times is a step so many times.
func times(step ledger.Qty, n int64) ledger.Qty {
	return step.Of(ledger.MustPercent(fmt.Sprint(n * 100)))
}

// price is a symbol's mark price.
func (w *world) price(symbol string) ledger.Price {
	return w.markets[symbol].Tick.Of(ledger.MustPercent(fmt.Sprint(w.prices[symbol] * 100)))
}

// live runs the world: hours with faults, and then a while without.
func (w *world) live(hours float64) {
	until := int64(hours * 3600 * float64(sec))
	w.birth()
	for _, symbol := range w.rules.Symbols {
		w.after(w.luck.Int64N(sec), func() { w.tickMarket(symbol) })
	}
	w.after(w.between(sec, 10*sec), w.others)
	w.after(w.between(5*sec, 60*sec), w.operate)
	w.after(3*sec, w.propose)
	w.after(until, w.calmDown)
	w.after(until+afterwards, func() { w.ended = true })
	busy := 0
	for !w.ended && len(w.result.Violations) == 0 {
		e := heap.Pop(&w.queue).(event)
		if busy++; e.at > w.now {
			busy = 0
		}
		w.now = e.at
		if e.do(); busy > busyMax {
			w.violated("L1", "the chain works without end and time does not pass")
		}
	}
	if len(w.result.Violations) == 0 {
		w.judge.end()
	}
	if w.p != nil {
		w.p.sum()
		w.p.die()
	}
	w.result.VirtualSeconds = float64(w.now) / float64(sec)
	w.result.Trace = w.tracer.sum()
}

// calmDown begins the phase without faults.
func (w *world) calmDown() {
	w.quiet = true
	w.banned, w.deaf = 0, 0
	w.trace("world", "no more faults")
	w.after(30*sec, w.tidy)
	w.after(60*sec, w.tidy)
	w.after(70*sec, func() { w.still = true })
}

// tickMarket moves a mark price, and tells it.
func (w *world) tickMarket(symbol string) {
	if n := w.prices[symbol]; !w.still {
		w.prices[symbol] = max(10, n+int64(float64(n)*0.0008*w.luck.NormFloat64()))
	}
	w.happened(w.venue.Mark(w.at(), symbol, w.price(symbol)), nil)
	w.say(exchange.StreamEvent{Mark: &ledger.Mark{Symbol: symbol, Price: w.price(symbol), At: w.at()}})
	w.after(2*sec+w.luck.Int64N(3*sec), func() { w.tickMarket(symbol) })
}

// happened takes note of what changed on the account, and has the streams tell of it.
func (w *world) happened(c venue.Change, err error) {
	if err != nil || c.Empty() {
		return
	}
	w.traceChange(c)
	w.judge.changed(c)
	if len(c.Trades) > 0 {
		w.look()
	}
	for _, s := range c.Stops {
		if s.Status == venue.StatusNew || s.Status == venue.StatusCanceled {
			o := s.Shown()
			w.say(exchange.StreamEvent{Order: &o})
		}
	}
	for _, t := range c.Trades {
		w.say(exchange.StreamEvent{Trade: &t})
	}
	for _, o := range c.Orders {
		said := o.Shown(ledger.Price{})
		said.CreatedAt = time.Time{}
		w.say(exchange.StreamEvent{Order: &said})
	}
	for _, k := range c.Keys() {
		w.say(exchange.StreamEvent{Changed: &k})
	}
	w.reopen(c)
}

// look keeps what is held, for positions that lag.
func (w *world) look() {
	w.past = append(w.past, view{w.now, w.venue.Holdings()})
	if len(w.past) > 64 {
		w.past = slices.Delete(w.past, 0, 32)
	}
}

// reopen may have somebody open a position again that was just closed by us.
func (w *world) reopen(c venue.Change) {
	for _, o := range c.Orders {
		if !ledger.OfOurForm(o.ClientOrderID) || w.amountOf(o.Key).Sign() != 0 || !w.strikes(Reopened) {
			continue
		}
		w.after(w.between(0, 8*sec), func() {
			if w.amountOf(o.Key).IsZero() {
				w.happened(w.venue.Trade(w.at(), o.Key, w.amount(o.Key)))
			}
		})
	}
}

// amountOf is what is truly held under a key.
func (w *world) amountOf(k ledger.Key) ledger.Qty {
	for _, h := range w.venue.Holdings() {
		if h.Key == k {
			return h.Amount
		}
	}
	return ledger.Qty{}
}

// say has the streams tell of something, some time after it happened.
func (w *world) say(e exchange.StreamEvent) {
	if e.Mark == nil && w.strikes(StreamLoss) {
		return
	}
	p := w.p
	if p == nil {
		return
	}
	// In the order in which it happened, unless the network has it otherwise.
	at := max(p.spoken, w.now+20*ms+w.luck.Int64N(60*ms))
	if e.Mark == nil && w.strikes(StreamOrder) {
		at = w.now + w.between(0, 3*sec)
	} else {
		p.spoken = at
	}
	w.after(at-w.now, func() { p.told(e) })
	if e.Mark == nil && w.strikes(StreamTwice) {
		w.after(at-w.now+w.between(ms, 5*sec), func() { p.told(e) })
	}
}
