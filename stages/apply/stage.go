// Package apply turns proposals into plans, joins their permits, and sends their orders:
// pure kernels for planning (SPEC §4), execution (§7) and the settling of what is
// unknown, and the stage that runs them. It is the only stage that sends an order.
package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/pipeline"
)

type (
	// Offer is a proposal that is owed planning's answer.
	Offer = pipeline.Request[ledger.Proposal, ledger.Receipt]
	// Loop is apply's loop.
	Loop = pipeline.Loop[*ledger.State, ledger.Event, Effect]
)

// Stage plans, joins and executes.
type Stage struct {
	Rules     func(symbol string) Rules
	Exchange  exchange.Exchange
	Board     *exchange.Board
	Loop      *Loop
	Offers    <-chan Offer                // from the exit-brain
	Flattens  <-chan Flatten              // from the operator
	Settles   <-chan Settle               // the same
	Heard     <-chan exchange.StreamEvent // what the account's stream says of orders and trades of our form
	Governor  chan<- ledger.PlanID        // plans to be judged
	Reconcile chan<- ledger.PlanID        // the same
	Permits   <-chan ledger.PlanID        // from both: a verdict is on record
	Arrived   pipeline.Bell               // a snapshot is on the board
	Ask       pipeline.Bell               // to reconcile: a snapshot is wanted
	Log       zerolog.Logger
	Now       func() time.Time // the local clock; nil: time.Now
	Spawn     func(func())     // runs what waits for the exchange; nil: on a goroutine of its own

	waiting   map[ledger.PlanID]*wait // plans on their way to their permits
	due       map[ledger.PlanID]time.Time
	negatives map[string][]time.Time   // client order id → lookups after the fence that found nothing
	looking   map[string]bool          // lookups under way
	sending   int                      // orders and cancels whose answers are not in
	cancels   map[string]*cancelling   // stops that are no longer wanted, by client order id
	alerted   map[string]time.Time     // orders that stay unknown, and when that was told last; exchange clock
	bare      map[ledger.Key]time.Time // positions without their wanted stop, since when
	rests     map[ledger.Key]rest      // positions that triggered stops have left open, to be closed
	askedAt   time.Time                // when a snapshot was asked for last, for want of one
	standAt   time.Time                // when standing stops are looked up next
	placed    bool                     // an order was placed whose trades have not been asked for
	lookAt    time.Time                // when open orders are looked up next
	outbox    [2][]ledger.PlanID       // plans not yet taken by governor and reconcile
	answers   chan answer
	lookups   chan Lookup
	gone      chan gone
	asking    sync.WaitGroup
}

type wait struct {
	permits  int
	deadline time.Time
}

type answer struct {
	id string
	exchange.Answer
}

// gone is what came of cancelling a stop.
type gone struct {
	id  string
	err error
}

const (
	// outboxMax bounds how many plans may wait for permits; beyond it proposals are not taken, and their senders wait.
	outboxMax  = 256
	lookEvery  = time.Second
	standEvery = 30 * time.Second // between looks whether a stop still stands
	askEvery   = time.Second      // between requests for a snapshot that somebody waits for
	idle       = time.Minute      // a timer must be set to something
)

// Run works until it is stopped: softly, it takes no more proposals and stays until no order is in flight.
func (a *Stage) Run(stop pipeline.Stop) error {
	a.begin()
	defer a.Loop.Wait()
	defer a.asking.Wait()
	if err := a.recover(stop.Hard); err != nil {
		return stop.Done(err)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	soft := stop.Soft
	for soft != nil || !a.quiet() {
		offers, flattens := a.Offers, a.Flattens
		if soft == nil || len(a.outbox[0])+len(a.outbox[1]) > outboxMax || len(a.waiting) > outboxMax {
			offers, flattens = nil, nil
		}
		timer.Reset(a.next().Sub(a.now()))
		var err error
		select {
		case o := <-offers:
			err = a.plan(stop.Hard, o)
		case f := <-flattens:
			err = a.flatten(stop.Hard, f)
		case o := <-a.Settles:
			err = a.settle(stop.Hard, o)
		case e := <-a.Heard:
			err = a.hear(stop.Hard, e)
		case send(a.Governor, a.outbox[0]) <- first(a.outbox[0]):
			a.outbox[0] = a.outbox[0][1:]
		case send(a.Reconcile, a.outbox[1]) <- first(a.outbox[1]):
			a.outbox[1] = a.outbox[1][1:]
		case id := <-a.Permits:
			err = a.permitted(stop.Hard, id)
		case res := <-a.answers:
			err = a.answered(stop.Hard, res)
		case l := <-a.lookups:
			err = a.learn(stop.Hard, l)
		case g := <-a.gone:
			err = a.stopGone(stop.Hard, g)
		case <-a.Arrived:
			err = a.refresh(stop.Hard)
		case <-timer.C:
			err = a.wake(stop.Hard)
		case <-soft:
			soft = nil
		case <-stop.Hard.Done():
			return nil
		}
		if err != nil {
			return stop.Done(err)
		}
	}
	return nil
}

func (a *Stage) begin() {
	a.cancels, a.alerted, a.bare = map[string]*cancelling{}, map[string]time.Time{}, map[ledger.Key]time.Time{}
	a.rests = map[ledger.Key]rest{}
	a.waiting, a.due, a.negatives, a.looking = map[ledger.PlanID]*wait{}, map[ledger.PlanID]time.Time{}, map[string][]time.Time{}, map[string]bool{}
	a.answers, a.lookups, a.gone = make(chan answer, 1), make(chan Lookup, 1), make(chan gone, 1)
}

// send is ch while there is something to send, else nil, on which a select never fires.
func send(ch chan<- ledger.PlanID, queue []ledger.PlanID) chan<- ledger.PlanID {
	if len(queue) == 0 {
		return nil
	}
	return ch
}

func first(queue []ledger.PlanID) ledger.PlanID {
	if len(queue) == 0 {
		return ""
	}
	return queue[0]
}

// quiet tells whether nothing is in flight that the next process could not take up.
func (a *Stage) quiet() bool {
	return len(a.waiting) == 0 && a.sending == 0 && !a.placed && len(a.looking) == 0
}

// next is the earliest instant at which something has to be looked at.
func (a *Stage) next() time.Time {
	at := a.now().Add(idle)
	for _, w := range a.waiting {
		at = earlier(at, w.deadline)
	}
	for _, t := range a.due {
		at = earlier(at, t)
	}
	if !a.lookAt.IsZero() {
		at = earlier(at, a.lookAt)
	}
	return at
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// do runs a kernel, and counts the orders it sends.
func (a *Stage) do(hard context.Context, kernel func(*ledger.State, time.Time) step) error {
	return a.Loop.Do(hard, func(s *ledger.State, now time.Time) step {
		st := kernel(s, now)
		for _, e := range st.Effects {
			if e.Send != nil || e.Cancel != nil {
				a.sending++
			}
		}
		return st
	})
}

// see looks at the clock last: a snapshot that arrives in between would be of the future, which counts as stale.
func (a *Stage) see(symbol string) Sight {
	m, snap, mark := a.Board.Markets[symbol], a.Board.Snapshot(), a.Board.Mark(symbol).Price
	return Sight{a.Exchange.Now(), snap, mark, m.Lot, m.Tick}
}

// recover takes up what an earlier process left.
func (a *Stage) recover(hard context.Context) error {
	err := a.do(hard, func(s *ledger.State, now time.Time) step { return Restart(s) })
	a.lookAt = a.now()
	return errors.Join(err, a.resume(hard))
}

// resume looks at every open plan that has a grant.
func (a *Stage) resume(hard context.Context) error {
	return a.do(hard, func(s *ledger.State, _ time.Time) (st step) {
		for _, p := range s.OpenPlans() {
			if a.waiting[p.ID] == nil {
				a.due[p.ID] = a.now()
			}
		}
		return st
	})
}

func (a *Stage) plan(hard context.Context, o Offer) error {
	return a.decide(hard, o.Value, func(r ledger.Receipt) { o.Reply <- r })
}

// decide plans a proposal; reply is given planning's answer once that is durable.
func (a *Stage) decide(hard context.Context, p ledger.Proposal, reply func(ledger.Receipt)) error {
	if err := Validate(p); err != nil {
		reply(ledger.Receipt{Decision: ledger.Errored, Reason: ledger.InvalidProposal, Error: err.Error()})
		return nil
	}
	b := Basis(a.Board, p.Key(), a.Exchange.Now())
	var receipt ledger.Receipt
	err := a.do(hard, func(s *ledger.State, now time.Time) (st step) {
		var e ledger.Event
		e, receipt = Plan(a.Rules(p.Symbol), s, p, b, now)
		st.Events = []ledger.Event{e}
		st.Effects = []Effect{{Reply: func() { reply(receipt) }}}
		return st
	})
	if receipt.Decision == ledger.Execute && err == nil {
		a.outbox[0] = append(a.outbox[0], receipt.ID)
		a.outbox[1] = append(a.outbox[1], receipt.ID)
		a.waiting[receipt.ID] = &wait{deadline: a.now().Add(a.Rules(p.Symbol).PermitWait)}
	}
	return err
}

// permitted counts a plan's permits; with both it goes on.
func (a *Stage) permitted(hard context.Context, id ledger.PlanID) error {
	w := a.waiting[id]
	if w == nil {
		return nil // It came too late, and is void.
	}
	if w.permits++; w.permits < 2 {
		return nil
	}
	delete(a.waiting, id)
	return a.progress(hard, id)
}

// progress takes a plan as far as it can go now.
func (a *Stage) progress(hard context.Context, id ledger.PlanID) error {
	for more := true; more; {
		var key ledger.Key
		delete(a.due, id)
		err := a.do(hard, func(s *ledger.State, now time.Time) (st step) {
			p := s.Plans[id]
			more = p != nil && !p.Outcome.Final()
			if !more {
				return st
			}
			key = p.Key()
			r, see := a.Rules(key.Symbol), a.see(key.Symbol)
			if p.Steps[p.Current()].Grant == nil {
				st = Join(r, s, p, see, now)
			} else {
				var until time.Time
				if st, until = Advance(r, s, p, see, now); !until.IsZero() {
					a.due[id] = until
					a.ask()
				}
			}
			more = len(st.Events) > 0 && len(st.Effects) == 0
			return st
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ask wants a snapshot, but not at once again: each costs the exchange's patience.
func (a *Stage) ask() {
	if now := a.now(); now.Sub(a.askedAt) >= askEvery {
		a.askedAt = now
		a.Ask.Ring()
	}
}

// Perform does what a step decided; it runs on a goroutine of the loop's.
func (a *Stage) Perform(hard context.Context, e Effect) {
	switch {
	case e.Reply != nil:
		e.Reply()
	case e.Send != nil:
		res := a.Exchange.Place(hard, *e.Send)
		pipeline.Send(hard, a.answers, answer{e.Send.ClientOrderID, res})
		if res.Code == conflicting {
			a.nameOrders(hard, *e.Send)
		}
	case e.Cancel != nil:
		pipeline.Send(hard, a.gone, gone{e.Cancel.ClientOrderID, a.Exchange.CancelStop(hard, e.Cancel.Key, e.Cancel.ClientOrderID)})
	}
}

// conflicting is the exchange's refusal of a reduce-only order because of others that rest (Binance).
const conflicting = -4118

// nameOrders tells which orders are in o's way: they are what a person has to cancel. That its answer is on record does not wait for it.
func (a *Stage) nameOrders(hard context.Context, o exchange.Order) {
	open, err := a.Exchange.OpenOrders(hard)
	text := InTheWay(o, open)
	if err != nil {
		text = fmt.Sprintf("could not be read: %v", err)
	}
	a.Log.Error().Str("symbol", o.Key.Label()).Str("order", o.ClientOrderID).Msg("the orders that keep it from being taken: " + text)
}

func (a *Stage) answered(hard context.Context, res answer) error {
	a.sending--
	var i ledger.Intent
	err := a.do(hard, func(s *ledger.State, _ time.Time) (st step) {
		if known := s.Intents[res.id]; known != nil {
			i, st = *known, Answered(s, res.id, res.Answer)
		}
		return st
	})
	if err != nil || i.Plan == "" {
		return err
	}
	a.complain(i, res)
	if i.State == ledger.Sending && res.Outcome == exchange.NotPlaced || i.Kind == ledger.StopStep && res.Outcome == exchange.Placed {
		a.Ask.Ring()
		err := a.progress(hard, i.Plan)
		if i.Kind == ledger.StopStep && res.Outcome == exchange.NotPlaced {
			err = errors.Join(err, a.stopFailed(hard, i.Key))
		}
		return err
	}
	a.lookAt, a.placed = a.now(), a.placed || res.Outcome == exchange.Placed
	return nil
}

// complain tells of an answer that a person has to look at. What the exchange has shown already makes an unknown one
// harmless; that an order was not placed, which it has shown, is a contradiction.
func (a *Stage) complain(i ledger.Intent, res answer) {
	text, level := "", zerolog.ErrorLevel
	switch {
	case i.State != ledger.Sending && res.Outcome != exchange.Placed:
		if res.Outcome != exchange.NotPlaced || i.State == ledger.NotPlaced || i.State == ledger.Unknown {
			level = zerolog.WarnLevel
		}
		text = fmt.Sprintf("the order is %s by what the exchange has shown of it, though its answer is %s (%s): it is not sent again", i.State, res.Outcome, strings.TrimPrefix(fmt.Sprintf("%d %s", res.Code, res.Message), "0 "))
	case i.Qty.Less(res.Executed):
		text = fmt.Sprintf("its answer says that %s of %s executed, which cannot be: what became of it is asked for", res.Executed, i.Qty)
	case res.Code == conflicting:
		text = "orders that rest on the exchange keep a close or a stop of ours from being taken: " + res.Message
	default:
		return
	}
	a.Log.WithLevel(level).Str("symbol", i.Key.Label()).Str("order", i.ClientOrderID).Msg(text)
}

// wake does what is due.
func (a *Stage) wake(hard context.Context) error {
	now := a.now()
	for _, id := range sorted(a.waiting) {
		if w := a.waiting[id]; !now.Before(w.deadline) {
			delete(a.waiting, id)
			if err := a.progress(hard, id); err != nil {
				return err
			}
		}
	}
	for _, id := range sorted(a.due) {
		if at, still := a.due[id]; still && !now.Before(at) {
			if err := a.progress(hard, id); err != nil {
				return err
			}
		}
	}
	if !a.lookAt.IsZero() && !now.Before(a.lookAt) {
		return a.look(hard)
	}
	return nil
}

// refresh looks at what a new snapshot may let go on.
func (a *Stage) refresh(hard context.Context) error {
	if err := errors.Join(a.tend(hard), a.closeRests(hard)); err != nil {
		return err
	}
	return a.resume(hard)
}
