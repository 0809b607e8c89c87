package simulate

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/pipeline"
	"permitchain/stages/apply"
	"permitchain/stages/governor"
	"permitchain/stages/reconcile"
)

// process is one life of the chain: the stages' own handlers, and the routing that channels do live.
type process struct {
	w        *world
	alive    bool
	hard     context.Context
	cancel   func()
	journal  *journal
	board    *exchange.Board
	skew     int64 // of the local clock
	stepped  int64 // what it has stepped since
	offset   int64 // of its idea of the exchange's clock
	spoken   int64 // when the last event of the streams that is on its way arrives
	routines []*routine
	served   map[time.Time]ledger.Snapshot // that the exchange answered with, by when they were asked for

	running  bool // its stages have begun
	apply    apply.Driver
	governor *governor.Stage
	rec      reconcile.Driver
	ask      pipeline.Bell
	arrived  pipeline.Bell
	asking   bool // a ring is on its way
	arriving bool
	wakeAt   int64
}

// birth starts a process on what the disk holds.
func (w *world) birth() {
	state, err := refold(w.disk)
	if err != nil {
		w.violated("S14", "the journal cannot be folded again: %v", err)
		return
	}
	w.births++
	p := &process{w: w, alive: true, board: exchange.NewBoard(w.markets), ask: pipeline.NewBell(), arrived: pipeline.NewBell(), served: map[time.Time]ledger.Snapshot{}}
	p.hard, p.cancel = context.WithCancel(context.Background())
	p.journal = &journal{w: w, p: p, state: state, durable: state.Control.Seq}
	if w.on[Skew] > 0 {
		p.skew = w.luck.Int64N(60*sec) - 30*sec
	}
	p.guessClock()
	w.p = p
	w.judge.begin(state)
	w.trace("world", "a process begins")
	p.turn(func() error {
		_, err := p.journal.Decide(p.hard, func(s *ledger.State, _ time.Time) []ledger.Event {
			events := []ledger.Event{&ledger.Started{Instance: s.Control.Instance + 1, Version: "simulate", Mode: w.rules.Mode, Config: w.rules.Config}}
			if s.Control.Instance == 0 {
				events = append(events, w.opening()...)
			}
			return events
		})
		return err
	})
	w.after(10*ms, p.begin)
}

// opening is the ledger that the configuration gives a new journal.
func (w *world) opening() []ledger.Event {
	var events []ledger.Event
	for _, symbol := range w.rules.Symbols {
		for _, side := range []ledger.Side{ledger.Both, ledger.Long, ledger.Short} {
			k := ledger.Key{Symbol: symbol, Side: side}
			if q, told := w.rules.Ledger[k]; told {
				events = append(events, &ledger.LedgerOpened{Holding: ledger.Holding{Key: k, Amount: q, Entry: w.price(symbol)}, Cursor: w.venue.LastTradeID(symbol), By: "paper.ledger"})
			}
		}
	}
	return events
}

// begin makes the stages, once the journal knows of the process.
func (p *process) begin() {
	w := p.w
	if !p.alive {
		return
	}
	if p.journal.durable == 0 || len(p.journal.open) > 0 {
		w.after(10*ms, p.begin)
		return
	}
	x, log := &face{w, p}, zerolog.Nop()
	rec := &reconcile.Stage{
		Config: w.rules.Reconcile, Interval: w.rules.Interval, Symbols: w.rules.Symbols, Exchange: x, Board: p.board,
		Ask: p.ask, Arrived: p.arrived, Log: log, Now: p.wall, Spawn: p.spawn,
	}
	rec.Loop = &reconcile.Loop{Journal: p.journal, Perform: rec.Perform, Spawn: p.spawn}
	p.governor = &governor.Stage{Rules: w.rules.Governor, Global: w.rules.Global}
	p.governor.Loop = &governor.Loop{Journal: p.journal, Spawn: p.spawn}
	app := &apply.Stage{Rules: w.rules.Apply, Exchange: x, Board: p.board, Arrived: p.arrived, Ask: p.ask, Log: log, Now: p.wall, Spawn: p.spawn}
	app.Loop = &apply.Loop{Journal: p.journal, Perform: app.Perform, Spawn: p.spawn}
	p.running = true
	p.turn(func() (err error) {
		p.rec = rec.Drive(p.hard)
		p.apply, err = app.Drive(p.hard)
		return err
	})
	p.every(sec, func() error { return p.governor.Tick(p.hard) })
	p.every(sec, p.rec.Tick)
	p.every(int64(w.rules.Interval), func() error { p.rec.Ask(); return nil })
	p.every(20*sec, func() error { p.guessClock(); return nil })
}

// every has a stage's ticker tick.
func (p *process) every(ns int64, tick func() error) {
	var again func()
	again = func() {
		if p.alive {
			p.turn(tick)
			p.w.after(ns, again)
		}
	}
	p.w.after(p.w.luck.Int64N(ns), again)
}

// guessClock asks the exchange for its time: the answer is off by as much as its way may have taken.
func (p *process) guessClock() {
	p.offset = 0
	if p.w.on[Skew] > 0 {
		p.offset = p.w.luck.Int64N(800*ms) - 400*ms
		if p.w.strikes(Skew) {
			p.stepped += p.w.luck.Int64N(10*sec) - 5*sec
		}
	}
}

// wall is the local clock.
func (p *process) wall() time.Time { return start.Add(time.Duration(p.w.now + p.skew + p.stepped)) }

// turn runs a handler of a stage, and then whatever has come in for one.
func (p *process) turn(handler func() error) {
	if !p.alive {
		return
	}
	if handler != nil {
		p.heed(handler())
	}
	for took := true; took && p.alive && p.running; {
		var err error
		if took, err = p.rec.Take(); !took {
			took, err = p.apply.Take()
		}
		p.heed(err)
	}
	if p.alive && p.running {
		p.route()
	}
}

// heed judges what a handler returned.
func (p *process) heed(err error) {
	var broken *ledger.BrokenError
	switch {
	case err == nil, errors.Is(err, errDead), !p.alive:
	case errors.As(err, &broken):
		p.w.violated(broken.Invariant, "%v", err)
	default:
		p.w.violated("S18", "a stage failed: %v", err)
	}
}

// route takes messages from stage to stage, each after a while of its own.
func (p *process) route() {
	governor, rec := p.apply.Outbox()
	for _, id := range governor {
		p.w.after(p.delay(), func() { p.judged(id, func() error { return p.governor.Judge(p.hard, id) }) })
	}
	for _, id := range rec {
		p.w.after(p.delay(), func() { p.judged(id, func() error { return p.rec.Judge(id) }) })
	}
	p.ring(p.ask, &p.asking, func() error { p.rec.Ask(); return nil })
	p.ring(p.arrived, &p.arriving, func() error { return p.apply.Refresh() })
	if at := p.w.now + int64(p.apply.Next().Sub(p.wall())); at < p.wakeAt || p.wakeAt <= p.w.now {
		p.wakeAt = at
		p.w.after(at-p.w.now, func() {
			if p.alive && p.wakeAt == at {
				p.wakeAt = 0
				p.turn(p.apply.Wake)
			}
		})
	}
}

func (p *process) judged(id ledger.PlanID, judge func() error) {
	p.turn(func() error {
		err := judge()
		if err == nil {
			p.w.after(p.delay(), func() { p.turn(func() error { return p.apply.Permitted(id) }) })
		}
		return err
	})
}

// ring takes a bell's ring to its listener.
func (p *process) ring(bell pipeline.Bell, under *bool, heard func() error) {
	if *under || len(bell) == 0 {
		return
	}
	*under = true
	p.w.after(p.delay(), func() {
		*under = false
		select {
		case <-bell:
			p.turn(heard)
		default:
		}
	})
}

// delay is how long a message takes from stage to stage.
func (p *process) delay() int64 {
	if p.w.strikes(SlowStage) {
		return p.w.between(ms, 1500*ms)
	}
	return p.w.luck.Int64N(200 * us)
}

// told is an event of the streams arriving.
func (p *process) told(e exchange.StreamEvent) {
	w := p.w
	if !p.alive || !p.running || w.now < w.deaf {
		return
	}
	switch {
	case e.Mark != nil:
		p.board.PutMark(*e.Mark)
	case e.Changed != nil:
		p.ask.Ring()
		p.route()
	default:
		p.turn(func() error { return p.apply.Hear(e) })
	}
}

// crashes tells whether the process dies here.
func (w *world) crashes(share float64) bool {
	odds := w.on[Crash]
	if odds == 0 || w.quiet || !w.p.alive || w.luck.Float64() >= odds*share {
		return false
	}
	w.crash()
	return true
}

// crash ends the process: what it had not made durable is gone, but for a commit that was under way, of which nobody can tell.
func (w *world) crash() {
	p := w.p
	w.struck(Crash)
	w.result.Crashes++
	if p.journal.taken > 0 && w.luck.IntN(2) == 0 {
		p.journal.flush(p.journal.taken)
	}
	if w.seed%8 == 0 {
		w.judge.compare(p.journal)
	}
	p.die()
	w.after(w.between(100*ms, 20*sec), w.birth)
}

func (p *process) die() {
	p.alive = false
	p.cancel()
	p.bury()
}
