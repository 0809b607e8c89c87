// Package reconcile knows whether we know what we hold: pure kernels for the position
// permit and for drift (SPEC §6), and the stage that feeds them with snapshots and trades.
// It never places an order: drift makes a hold and a report, never a trade.
package reconcile

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/pipeline"
)

type (
	// Sync is the operator's request to take the exchange's amount over.
	Sync = pipeline.Request[ledger.SyncOrder, ledger.SyncResult]
	// Loop is reconcile's loop; its only effects are answers to the operator.
	Loop = pipeline.Loop[*ledger.State, ledger.Event, Reply]
	step = pipeline.Step[ledger.Event, Reply]
)

// Reply is an answer that may be given once what it tells is durable.
type Reply struct {
	To     Sync
	Result ledger.SyncResult
}

// Stage gives position permits and keeps the ledger true to the exchange.
type Stage struct {
	Config   func(symbol string) Config
	Interval time.Duration // between snapshots
	Symbols  []string
	Exchange exchange.Exchange
	Board    *exchange.Board
	Loop     *Loop
	Plans    <-chan ledger.PlanID // from apply
	Permits  chan<- ledger.PlanID // to apply: a verdict is on record
	Syncs    <-chan Sync          // from the operator
	Ask      pipeline.Bell        // someone wants a snapshot now
	Arrived  pipeline.Bell        // to apply: a snapshot is on the board
	Log      zerolog.Logger
	Now      func() time.Time // the local clock; nil: time.Now
	Spawn    func(func())     // runs what waits for the exchange; nil: on a goroutine of its own

	watches   map[ledger.Key]*Watch
	strays    map[string]bool      // orders that the last list showed open though the ledger has them as ended
	ordersAt  time.Time            // when the orders of our form are looked through next; local clock
	listing   bool                 // that is under way
	listedAt  map[string]time.Time // exchange clock; a symbol's orders since then have not been looked through
	results   chan result
	asking    sync.WaitGroup
	startedAt time.Time // exchange clock
	pending   bool      // a snapshot is on its way
	again     bool      // and another is wanted after it
	spent     int       // snapshots lately, one less with each tick
	failing   bool      // the last snapshot failed: said once
}

// result is what a question to the exchange brought; need tells which of its parts are set.
type result struct {
	key      ledger.Key
	snapshot *ledger.Snapshot
	trades   []ledger.Trade
	orders   []exchange.OrderState
	listed   map[string]time.Time // until when the orders of these symbols have been looked through
	cursor   int64
	taking   *taking // what the cursor was asked for
	need     Need
	err      error
}

const (
	tickEvery   = time.Second
	spentMax    = 20 // snapshots in quick succession; beyond it there is one a second, because each costs the exchange's patience
	ordersEvery = time.Minute
	syncWithin  = 20 * time.Second // less than the operator waits for the answer
)

// Run works until it is stopped.
func (r *Stage) Run(stop pipeline.Stop) error {
	r.begin()
	asking, cancel := context.WithCancel(stop.Hard)
	defer r.Loop.Wait()
	defer r.asking.Wait()
	defer cancel()
	tick, poll := time.NewTicker(tickEvery), time.NewTicker(r.Interval)
	defer tick.Stop()
	defer poll.Stop()
	r.wantSnapshot(asking)
	for {
		var err error
		select {
		case id := <-r.Plans:
			err = r.permit(stop, id)
		case res := <-r.results:
			err = r.take(asking, res)
		case order := <-r.Syncs:
			r.sync(asking, order)
		case <-r.Ask:
			r.wantSnapshot(asking)
		case <-poll.C:
			r.spent = max(0, r.spent-1) // These are not rationed.
			r.wantSnapshot(asking)
		case <-tick.C:
			err = r.tick(asking)
		case <-stop.Soft:
			return nil
		case <-stop.Hard.Done():
			return nil
		}
		if err != nil {
			return stop.Done(err)
		}
	}
}

func (r *Stage) begin() {
	r.watches, r.results, r.startedAt = map[ledger.Key]*Watch{}, make(chan result, 1), r.Exchange.Now()
	r.listedAt = map[string]time.Time{}
	for _, symbol := range r.Symbols {
		r.listedAt[symbol] = r.startedAt
	}
}

func (r *Stage) permit(stop pipeline.Stop, id ledger.PlanID) error {
	if err := r.judge(stop.Hard, id); err != nil {
		return err
	}
	select {
	case r.Permits <- id:
	case <-stop.Soft: // Apply has gone: the plan ends with the next start.
	case <-stop.Hard.Done():
	}
	return nil
}

// judge puts a verdict on a plan on record.
func (r *Stage) judge(hard context.Context, id ledger.PlanID) error {
	return r.Loop.Do(hard, func(s *ledger.State, now time.Time) (st step) {
		p := s.Plans[id]
		if p == nil || p.Outcome.Final() {
			return st
		}
		symbol := p.Proposal.Symbol
		seen := Seen{r.Exchange.Now(), r.Board.Snapshot(), r.mark(symbol), r.Board.Markets[symbol].Lot}
		st.Events = []ledger.Event{Permit(r.Config(symbol), s, p, seen, now)}
		return st
	})
}

func (r *Stage) mark(symbol string) ledger.Price { return r.Board.Mark(symbol).Price }

// wantSnapshot asks for a snapshot, and for one more after it when one is on its way already:
// that one may have left too early to know what is asked for. On an account that changes all the time they are rationed.
func (r *Stage) wantSnapshot(ctx context.Context) {
	if r.pending || r.spent >= spentMax {
		r.again = true
		return
	}
	r.pending, r.spent = true, r.spent+1
	r.ask(ctx, func() result {
		snap, err := r.Exchange.Snapshot(ctx)
		return result{need: NeedSnapshot, snapshot: &snap, err: err}
	})
}

// ask puts one question to the exchange; the answer comes back as a result.
func (r *Stage) ask(ctx context.Context, question func() result) {
	r.spawn(func() { pipeline.Send(ctx, r.results, question()) })
}

func (r *Stage) take(ctx context.Context, res result) error {
	switch res.need {
	case NeedSnapshot:
		return r.onSnapshot(ctx, res)
	case NeedTrades:
		return r.onTrades(ctx, res)
	case NeedOrders:
		return r.onOrders(ctx, res)
	default:
		return r.onCursor(ctx, res)
	}
}

func (r *Stage) onSnapshot(ctx context.Context, res result) error {
	r.pending = false
	if r.again {
		r.again = false
		defer r.wantSnapshot(ctx)
	}
	if res.err != nil {
		if !r.failing {
			r.Log.Warn().Err(res.err).Msg("no snapshot from the exchange; positions go on hold when the last one is stale")
		}
		r.failing = true
		return nil
	}
	r.failing = false
	r.Board.PutSnapshot(*res.snapshot)
	r.Arrived.Ring()
	return r.decide(ctx, func(s *ledger.State, k ledger.Key, now time.Time) finding {
		return r.watch(k).look(r.Config(k.Symbol), s, k, res.snapshot, r.Exchange.Now())
	})
}

func (r *Stage) watch(k ledger.Key) *Watch {
	if r.watches[k] == nil {
		r.watches[k] = &Watch{}
	}
	return r.watches[k]
}

// traded tells whether the exchange trades a symbol; of another it answers no question.
func (r *Stage) traded(symbol string) bool {
	_, ok := r.Board.Markets[symbol]
	return ok
}

// keys are the positions to be judged: those of our symbols that are traded, in the account's mode, and those that are held or
// have a ledger.
func (r *Stage) keys(s *ledger.State, snap *ledger.Snapshot) []ledger.Key {
	all := map[ledger.Key]bool{}
	if snap != nil {
		for _, symbol := range r.Symbols {
			for _, k := range snap.Keys(symbol) {
				if r.traded(symbol) || !snap.Of(k).Amount.IsZero() {
					all[k] = true
				}
			}
		}
	}
	for _, k := range s.Keys() {
		if slices.Contains(r.Symbols, k.Symbol) {
			all[k] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), ledger.Key.Compare)
}

// decide runs the kernel on every position, or on those named, in one transaction, and asks for what it needs.
func (r *Stage) decide(ctx context.Context, kernel func(*ledger.State, ledger.Key, time.Time) finding, only ...ledger.Key) error {
	keys, found := only, []finding{}
	err := r.Loop.Do(ctx, func(s *ledger.State, now time.Time) (st step) {
		if len(keys) == 0 {
			keys = r.keys(s, r.Board.Snapshot())
		}
		for _, k := range keys {
			f := kernel(s, k, now)
			st.Events = append(st.Events, f.Events...)
			if f.Reply != nil {
				st.Effects = append(st.Effects, *f.Reply)
			}
			found = append(found, f)
		}
		return st
	})
	if err != nil {
		return err
	}
	for i, f := range found {
		r.find(ctx, keys[i], f)
	}
	return nil
}

// find asks the exchange for what the kernel needs.
func (r *Stage) find(ctx context.Context, k ledger.Key, f finding) {
	switch f.Need {
	case NeedSnapshot:
		r.wantSnapshot(ctx)
	case NeedCursor:
		t := r.watch(k).taking
		r.ask(ctx, func() result {
			id, err := r.Exchange.LastTradeID(ctx, k.Symbol)
			return result{need: NeedCursor, key: k, taking: t, cursor: id, err: err}
		})
	case NeedTrades:
		r.ask(ctx, func() result {
			trades, err := exchange.TradesAfter(ctx, r.Exchange, k.Symbol, f.After)
			return result{need: NeedTrades, key: k, trades: trades, err: err}
		})
	default: // Nothing, or what this stage asks for by itself.
	}
}

func (r *Stage) onTrades(ctx context.Context, res result) error {
	if res.err != nil {
		r.watch(res.key).fetching = false // The next snapshot tries again.
		r.Log.Warn().Err(res.err).Str("symbol", res.key.Symbol).Msg("no trades to explain drift with")
		return nil
	}
	err := r.decide(ctx, func(s *ledger.State, k ledger.Key, now time.Time) finding {
		m := r.Board.Markets[k.Symbol]
		return r.watch(k).explain(r.Config(k.Symbol), s, k, res.trades, m.Lot, r.mark(k.Symbol))
	}, res.key)
	r.Arrived.Ring() // Fills of ours may have been booked.
	return err
}

// onCursor goes on with taking an amount over: the second snapshot must leave after this.
func (r *Stage) onCursor(ctx context.Context, res result) error {
	w, t := r.watch(res.key), res.taking
	if w.taking != t {
		return nil // It was given up, or another one has taken its place.
	}
	if res.err != nil {
		w.taking = nil // Adoption begins anew with the next snapshot.
		if t.sync != nil {
			t.sync.Reply <- ledger.SyncResult{Error: res.err.Error()}
		}
		return nil
	}
	t.cursor, t.cursorAt = res.cursor, r.Exchange.Now()
	r.wantSnapshot(ctx)
	return nil
}

// sync takes an amount over on the operator's word; the position must have been seen at least once.
func (r *Stage) sync(ctx context.Context, order Sync) {
	snap := r.Board.Snapshot()
	w := r.watch(order.Value.Key)
	switch {
	case snap == nil:
		order.Reply <- ledger.SyncResult{Error: string(ledger.NoExchangeSnapshot) + ": try again when one has arrived"}
	case !slices.Contains(snap.Keys(order.Value.Key.Symbol), order.Value.Key) || !slices.Contains(r.Symbols, order.Value.Key.Symbol):
		order.Reply <- ledger.SyncResult{Error: order.Value.Key.Label() + " is not a position of this account's symbols and position mode"}
	case w.taking != nil && w.taking.sync != nil:
		order.Reply <- ledger.SyncResult{Error: "another sync of this position is under way"}
	default:
		w.taking = &taking{first: snap.Of(order.Value.Key), firstAt: snap.SentAt, sync: &order, until: r.now().Add(syncWithin)}
		r.find(ctx, order.Value.Key, finding{Need: NeedCursor})
	}
}

// tick does what is due.
func (r *Stage) tick(ctx context.Context) error {
	if r.spent = max(0, r.spent-1); r.again && !r.pending {
		r.again = false
		r.wantSnapshot(ctx)
	}
	r.giveUp(r.now())
	r.wantOrders(ctx, r.now())
	return r.watchSilence(ctx)
}

// giveUp ends the syncs that the exchange has kept waiting for too long: their operators soon stop waiting, and what
// they asked for must not be done behind their backs.
func (r *Stage) giveUp(now time.Time) {
	for _, w := range r.watches {
		if t := w.taking; t != nil && t.sync != nil && !now.Before(t.until) {
			w.taking = nil
			t.sync.Reply <- ledger.SyncResult{Error: fmt.Sprintf("the exchange did not answer within %s: nothing was changed", syncWithin)}
		}
	}
}

// watchSilence sets holds where snapshots stay away.
func (r *Stage) watchSilence(hard context.Context) error {
	snap, now := r.Board.Snapshot(), r.Exchange.Now()
	if snap != nil && ledger.Fresh(snap.SentAt, now, r.Interval) {
		return nil
	}
	return r.decide(hard, func(s *ledger.State, k ledger.Key, _ time.Time) finding {
		return silent(r.Config(k.Symbol), s, k, snap, r.startedAt, now)
	})
}

// Perform answers the operator.
func (r *Stage) Perform(_ context.Context, reply Reply) { reply.To.Reply <- reply.Result }
