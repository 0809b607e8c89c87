package apply

import (
	"context"
	"maps"
	"slices"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// A Driver gives a stage its turns one at a time, where Run would wait for what comes in: it is for a simulation, which
// is its own scheduler, and calls the same handlers.
type Driver struct {
	a    *Stage
	hard context.Context
}

// Drive begins the stage, which must have Now and Spawn, as Run does.
func (a *Stage) Drive(hard context.Context) (Driver, error) {
	a.begin()
	return Driver{a, hard}, a.recover(hard)
}

// Offer takes a proposal.
func (d Driver) Offer(o Offer) error { return d.a.plan(d.hard, o) }

// Flatten takes the operator's order to close.
func (d Driver) Flatten(f Flatten) error { return d.a.flatten(d.hard, f) }

// Settle takes the operator's evidence.
func (d Driver) Settle(o Settle) error { return d.a.settle(d.hard, o) }

// Hear takes one event of the account's stream.
func (d Driver) Hear(e exchange.StreamEvent) error { return d.a.hear(d.hard, e) }

// Permitted takes the word that a verdict is on record.
func (d Driver) Permitted(id ledger.PlanID) error { return d.a.permitted(d.hard, id) }

// Refresh looks at what a new snapshot may let go on.
func (d Driver) Refresh() error { return d.a.refresh(d.hard) }

// Wake does what is due; Next tells when that is.
func (d Driver) Wake() error { return d.a.wake(d.hard) }

// Next is when Wake is wanted.
func (d Driver) Next() time.Time { return d.a.next() }

// Take takes one answer of the exchange's that has come; it tells whether there was one.
func (d Driver) Take() (bool, error) {
	select {
	case res := <-d.a.answers:
		return true, d.a.answered(d.hard, res)
	default:
	}
	select {
	case l := <-d.a.lookups:
		return true, d.a.learn(d.hard, l)
	default:
	}
	select {
	case g := <-d.a.gone:
		return true, d.a.stopGone(d.hard, g)
	default:
		return false, nil
	}
}

// Outbox are the plans to be judged by governor and reconcile, which are taken with it.
func (d Driver) Outbox() (governor, reconcile []ledger.PlanID) {
	governor, reconcile = d.a.outbox[0], d.a.outbox[1]
	d.a.outbox = [2][]ledger.PlanID{}
	return governor, reconcile
}

// now is the local clock.
func (a *Stage) now() time.Time {
	if a.Now == nil {
		return time.Now()
	}
	return a.Now()
}

// spawn runs what waits for the exchange.
func (a *Stage) spawn(question func()) {
	if a.Spawn == nil {
		a.asking.Go(question)
		return
	}
	a.Spawn(question)
}

// sorted are the plans that are waited for, in order: what is done about them must not depend on luck.
func sorted[V any](plans map[ledger.PlanID]V) []ledger.PlanID {
	return slices.Sorted(maps.Keys(plans))
}
