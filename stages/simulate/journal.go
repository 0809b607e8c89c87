package simulate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"permitchain/ledger"
	"permitchain/pipeline"
)

// errDead is what a process that has crashed gets of everything it asks for.
var errDead = errors.New("the process has crashed")

// written is a record as it is on the disk.
type written struct {
	seq     uint64
	at      time.Time
	kind    ledger.Kind
	payload []byte
	event   ledger.Event // as it was read back; nil: it has not been yet
}

// journal is the ledger of a running process. What it folds is in the state at once, and durable when the commit that
// takes it is done: commits follow each other, and each takes all that waits when it begins. A crash drops the rest.
type journal struct {
	w       *world
	p       *process
	state   *ledger.State
	durable uint64    // the last sequence on the disk
	open    []written // those after it
	taken   int       // so many of them are in the commit under way; 0: there is none
	waiters []waiter
}

type waiter struct {
	seq  uint64
	r    *routine
	turn uint64
}

// promise is the Commit of one decision.
type promise struct {
	j   *journal
	seq uint64
}

// Decide implements pipeline.Journal.
func (j *journal) Decide(_ context.Context, fn func(*ledger.State, time.Time) []ledger.Event) (pipeline.Commit, error) {
	if !j.p.alive {
		return nil, errDead
	}
	now := j.now()
	for _, e := range fn(j.state, now) {
		if err := j.append(e, now); err != nil {
			return nil, err
		}
	}
	j.commit()
	if j.w.crashes(0.02) { // Between two writes of one handler.
		return nil, errDead
	}
	return &promise{j, j.state.Control.Seq}, nil
}

// now is the clock, which never goes back behind the last record.
func (j *journal) now() time.Time {
	if now := j.p.wall(); now.After(j.state.Control.At) {
		return now
	}
	return j.state.Control.At
}

func (j *journal) append(e ledger.Event, now time.Time) error {
	payload, err := ledger.EncodeEvent(e)
	if err != nil {
		return fmt.Errorf("encode %s: %w", e.Kind(), err)
	}
	r := ledger.Record{Seq: j.state.Control.Seq + 1, At: now, Event: e}
	j.w.traceRecord(r, payload)
	j.w.judge.before(j.state, e)
	if err := j.state.Apply(r); err != nil {
		return err
	}
	j.open = append(j.open, written{r.Seq, now, e.Kind(), payload, nil})
	j.w.judge.folded(j.p, e)
	return nil
}

// commit begins one, unless one is under way or there is nothing to commit.
func (j *journal) commit() {
	if j.taken > 0 || len(j.open) == 0 {
		return
	}
	j.taken = len(j.open)
	took := j.w.between(100*us, 3*ms)
	if j.w.strikes(SlowDisk) {
		took = j.w.between(20*ms, 2500*ms)
	}
	j.w.after(took, func() {
		if j.p.alive {
			j.committed()
		}
	})
}

func (j *journal) committed() {
	j.flush(j.taken)
	j.taken = 0
	if j.w.crashes(0.01) { // Durable, and nobody was told.
		return
	}
	rest := j.waiters[:0]
	var ready []waiter
	for _, v := range j.waiters {
		if v.seq <= j.durable {
			ready = append(ready, v)
		} else {
			rest = append(rest, v)
		}
	}
	j.waiters = rest
	for _, v := range ready {
		j.w.after(0, func() { j.w.resume(v.r, v.turn) })
	}
	j.commit()
}

// flush makes the first n open records durable.
func (j *journal) flush(n int) {
	for _, r := range j.open[:n] {
		j.durable = r.seq
		j.w.judge.durable(&r)
		j.w.disk = append(j.w.disk, r)
	}
	j.open = slices.Delete(j.open, 0, n)
}

// Wait implements pipeline.Commit.
func (c *promise) Wait(context.Context) error {
	for c.seq > c.j.durable {
		if !c.j.w.park(func(r *routine, turn uint64) { c.j.waiters = append(c.j.waiters, waiter{c.seq, r, turn}) }) {
			return errDead
		}
	}
	if !c.j.p.alive {
		return errDead
	}
	return nil
}

// refold is the state that the records on the disk add up to, read as they were written.
func refold(disk []written) (*ledger.State, error) {
	s := ledger.NewState()
	for n := range disk {
		r := &disk[n]
		err := r.read()
		if err == nil {
			err = s.Apply(ledger.Record{Seq: r.seq, At: r.at, Event: r.event})
		}
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", r.seq, err)
		}
	}
	return s, nil
}

// read decodes a record, once.
func (r *written) read() (err error) {
	if r.event == nil {
		r.event, err = ledger.DecodeEvent(r.kind, ledger.PayloadVersion, r.payload)
	}
	return err
}

// digest is everything that a state holds.
func digest(s *ledger.State) []byte {
	text, err := json.Marshal(struct {
		Control   ledger.Control
		Plans     map[ledger.PlanID]*ledger.Plan
		Intents   map[string]*ledger.Intent
		Positions map[string]*ledger.Position
		Usage     map[string]*ledger.Usage
		Holds     map[string]ledger.HoldSet
	}{s.Control, s.Plans, s.Intents, named(s.Positions), s.Usage, named(s.Holds)})
	if err != nil {
		panic(err) // The same types are written to every journal.
	}
	return text
}

func named[V any](m map[ledger.Key]V) map[string]V {
	all := map[string]V{}
	for k, v := range m {
		all[k.String()] = v
	}
	return all
}
