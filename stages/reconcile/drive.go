package reconcile

import (
	"context"
	"time"

	"permitchain/ledger"
)

// A Driver gives a stage its turns one at a time, where Run would wait for what comes in: it is for a simulation, which
// is its own scheduler, and calls the same handlers.
type Driver struct {
	r    *Stage
	hard context.Context
}

// Drive begins the stage, which must have Now and Spawn, as Run does.
func (r *Stage) Drive(hard context.Context) Driver {
	r.begin()
	r.wantSnapshot(hard)
	return Driver{r, hard}
}

// Judge puts a verdict on a plan on record.
func (d Driver) Judge(id ledger.PlanID) error { return d.r.judge(d.hard, id) }

// Sync takes the operator's word that the exchange is right.
func (d Driver) Sync(order Sync) { d.r.sync(d.hard, order) }

// Ask wants a snapshot: when somebody rang for one, and every Interval.
func (d Driver) Ask() { d.r.wantSnapshot(d.hard) }

// Tick does what is due; it is wanted every second.
func (d Driver) Tick() error { return d.r.tick(d.hard) }

// Take takes one answer of the exchange's that has come; it tells whether there was one.
func (d Driver) Take() (bool, error) {
	select {
	case res := <-d.r.results:
		return true, d.r.take(d.hard, res)
	default:
		return false, nil
	}
}

// now is the local clock.
func (r *Stage) now() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}

// spawn runs what waits for the exchange.
func (r *Stage) spawn(question func()) {
	if r.Spawn == nil {
		r.asking.Go(question)
		return
	}
	r.Spawn(question)
}
