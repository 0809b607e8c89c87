package store

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"permitchain/ledger"
	"permitchain/pipeline"
)

// forgetEvery is how often ended plans leave memory. Nothing depends on when.
const forgetEvery = time.Minute

// Run owns the ledger until the soft stop; then it commits what is queued, marks the
// file as cleanly ended and closes it. It does not heed the hard stop: those who
// append leave on that one, before it is stopped itself. After a failed commit
// or a broken invariant it returns an ErrHalted, and the file stays unmarked.
func (s *Store) Run(stop pipeline.Stop) error {
	committed := make(chan struct{})
	go func() {
		defer close(committed)
		s.commitAll()
	}()
	s.own(stop.Soft)
	close(s.closed)
	close(s.queue)
	<-committed
	err := s.failure()
	if err == nil {
		err = s.markClean()
	}
	s.endTails()
	if closed := s.db.Close(); closed != nil {
		err = errors.Join(err, fmt.Errorf("close ledger %s: %w", s.path, closed))
	}
	return err
}

func (s *Store) own(soft <-chan struct{}) {
	forget := time.NewTicker(forgetEvery)
	defer forget.Stop()
	for {
		select {
		case op := <-s.ops:
			op()
		case <-forget.C:
			s.forget()
		case <-soft:
			return
		case <-s.halted:
			return
		}
	}
}

// Decide runs fn alone with the state, folds the events it returns and queues them
// for the disk. When it returns, the next decision sees the change; Commit.Wait returns when
// it is durable, and for no events when all before it is. A nil error with no events is a
// decision, too. fn may be run again, on a state that then holds plans it names and
// had been forgotten; it must not block, and must not keep the state.
func (s *Store) Decide(ctx context.Context, fn func(*ledger.State, time.Time) []ledger.Event) (pipeline.Commit, error) {
	var durable <-chan struct{}
	err := s.ask(ctx, func() (err error) {
		durable, err = s.decide(fn)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &commit{s, durable}, nil
}

// View runs fn alone with the state, and returns when what it saw is durable: nothing is
// told that a restart could forget. fn must be quick, and copy what it keeps.
func (s *Store) View(ctx context.Context, fn func(*ledger.State, time.Time)) error {
	var seen <-chan struct{}
	err := s.ask(ctx, func() error {
		fn(s.state, s.now())
		seen = s.last
		return nil
	})
	if err != nil {
		return err
	}
	return (&commit{s, seen}).Wait(ctx)
}

// ask has the owner run something. Once taken it is waited for, whatever ctx says:
// it may use memory of the caller's.
func (s *Store) ask(ctx context.Context, run func() error) error {
	done := make(chan error, 1)
	op := func() {
		if err := s.failure(); err != nil {
			done <- err
			return
		}
		done <- run()
	}
	select {
	case s.ops <- op:
		return <-done
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closed:
		if err := s.failure(); err != nil {
			return err
		}
		return fmt.Errorf("ask ledger %s: %w", s.path, ErrClosed)
	}
}

// commit is the promise of one decision.
type commit struct {
	store   *Store
	durable <-chan struct{}
}

// Wait returns an ErrHalted also when its own events are durable and later ones
// failed: after that no effect may follow.
func (c *commit) Wait(ctx context.Context) error {
	select {
	case <-c.durable:
	case <-c.store.halted:
	default:
		select {
		case <-c.durable:
		case <-c.store.halted:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return c.store.failure()
}

// decide, on the owner.
func (s *Store) decide(fn func(*ledger.State, time.Time) []ledger.Event) (<-chan struct{}, error) {
	now := s.now()
	events := fn(s.state, now)
	for {
		again, err := s.recall(events)
		if err != nil {
			return nil, s.halt(err)
		}
		if !again {
			break
		}
		events = fn(s.state, now)
	}
	if len(events) == 0 {
		return s.last, nil
	}
	b, err := s.fold(events, now)
	if err != nil {
		return nil, s.halt(fmt.Errorf("fold into ledger %s: %w", s.path, err))
	}
	select {
	case s.queue <- b:
	case <-s.halted:
		return nil, s.failure()
	}
	s.last = b.durable
	return b.durable, nil
}

// now is the clock, which never goes back behind the last record.
func (s *Store) now() time.Time {
	now := time.Unix(0, s.options.Now().UnixNano()).UTC()
	if now.Before(s.state.Control.At) {
		return s.state.Control.At
	}
	return now
}

// fold applies events and makes the batch that writes them. What is folded is
// decoded from what will be written, so the fold of the file is this fold.
func (s *Store) fold(events []ledger.Event, now time.Time) (*batch, error) {
	b := &batch{durable: make(chan struct{})}
	for _, event := range events {
		payload, err := ledger.EncodeEvent(event)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", event.Kind(), err)
		}
		e := entry{s.head.Seq + 1, now, event.Kind(), ledger.PayloadVersion, s.head.Chain, payload}
		record, err := e.record()
		if err != nil {
			return nil, fmt.Errorf("read record %d back: %w", e.seq, err)
		}
		if err := s.state.Apply(record); err != nil {
			return nil, err
		}
		value := e.encode()
		s.head = head{e.seq, sha256.Sum256(value)}
		b.puts = append(b.puts, put{journalBucket, seqKey(e.seq), value})
	}
	for _, ref := range s.state.Touched() {
		value, err := derived(s.state, ref)
		if err != nil {
			return nil, err
		}
		b.puts = append(b.puts, put{[]byte(ref.Kind), nameKey(ref), value})
	}
	b.head = s.head
	return b, nil
}

// recall brings plans back that events decide again though they are on record: they
// had left memory. It tells whether it did, and then the decision must be made anew.
func (s *Store) recall(events []ledger.Event) (again bool, err error) {
	for _, event := range events {
		e, ok := event.(*ledger.PlanDecided)
		if !ok || s.state.Plans[e.ID] != nil {
			continue
		}
		err := s.db.View(func(tx *bolt.Tx) error {
			found, err := loadPlan(tx, s.state, e.ID)
			again = again || found
			return err
		})
		if err != nil {
			return false, fmt.Errorf("recall plan %s from ledger %s: %w", e.ID, s.path, err)
		}
	}
	return again, nil
}

// forget waits until all that is queued is on the disk: what leaves memory must be there to be recalled.
func (s *Store) forget() {
	select {
	case <-s.last:
		s.state.Forget(s.now().Add(-s.options.Keep))
	default:
	}
}

// failure is the error that halted the store, or nil.
func (s *Store) failure() error {
	select {
	case <-s.halted:
		return s.haltErr
	default:
		return nil
	}
}

// halt makes err the end of everything, unless something was already, and returns what is.
func (s *Store) halt(err error) error {
	s.haltOnce.Do(func() {
		s.haltErr = fmt.Errorf("%w: %w", ErrHalted, err)
		close(s.halted)
	})
	return s.haltErr
}

func derived(state *ledger.State, ref ledger.Ref) ([]byte, error) {
	thing := state.Get(ref)
	if thing == nil {
		return nil, nil
	}
	value, err := json.Marshal(thing)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", ref.Kind, ref.Name, err)
	}
	return value, nil
}

func nameKey(ref ledger.Ref) []byte {
	if ref.Kind == ledger.ControlRef {
		return []byte(controlName)
	}
	return []byte(ref.Name)
}
