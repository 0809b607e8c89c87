package store

import (
	"fmt"
	"sync"

	bolt "go.etcd.io/bbolt"

	"permitchain/ledger"
)

// put is one entry to write; a nil value deletes it.
type put struct{ bucket, key, value []byte }

// batch is what one decision writes. It is durable as a whole or not at all.
type batch struct {
	puts    []put
	head    head
	durable chan struct{}
}

// commitAll writes the queue until it is closed: as many batches as wait, in one
// transaction. After a failure it only empties the queue, because the failed
// transaction may be visible and nothing may be built on it.
func (s *Store) commitAll() {
	failed := false
	for first := range s.queue {
		group := s.gather(first)
		if failed {
			continue
		}
		if err := s.commit(group); err != nil {
			failed = true
			_ = s.halt(err) // Run returns it.
			continue
		}
		s.durable.Store(group[len(group)-1].head.Seq)
		for _, b := range group {
			close(b.durable)
		}
		s.wakeTails()
	}
}

// gather takes what else waits, without waiting for more.
func (s *Store) gather(first *batch) []*batch {
	group := []*batch{first}
	for len(group) < queueMax {
		select {
		case b, ok := <-s.queue:
			if !ok {
				return group
			}
			group = append(group, b)
		default:
			return group
		}
	}
	return group
}

func (s *Store) commit(group []*batch) error {
	end := group[len(group)-1].head
	err := s.db.Update(func(tx *bolt.Tx) error {
		tx.Bucket(journalBucket).FillPercent = journalFill
		for _, b := range group {
			for _, p := range b.puts {
				if err := write(tx.Bucket(p.bucket), p); err != nil {
					return err
				}
			}
		}
		return tx.Bucket(metaBucket).Put(headKey, seal(headKey, end))
	})
	if err != nil {
		return fmt.Errorf("commit up to record %d to ledger %s: %w", end.Seq, s.path, err)
	}
	return nil
}

func write(b *bolt.Bucket, p put) error {
	if p.value == nil {
		return b.Delete(p.key)
	}
	return b.Put(p.key, p.value)
}

// markClean writes the checkpoint from which the next start need not read the journal.
func (s *Store) markClean() error {
	s.state.Forget(s.now().Add(-s.options.Keep))
	err := s.db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(metaBucket).Put(cleanKey, seal(cleanKey, mark(s.state, s.head)))
	})
	if err != nil {
		return s.halt(fmt.Errorf("mark ledger %s as cleanly ended: %w", s.path, err))
	}
	return nil
}

// tailBuffer is how far a subscriber's channel runs ahead of it. When it is full,
// its own reading of the file waits, and nothing else does.
const tailBuffer = 1024

// Tail delivers the records after from, in order, each once it is durable. It reads
// the file at the subscriber's pace. The channel is closed by cancel, when the ledger
// ends, or when a record cannot be read; who wants more begins again at its last sequence.
func (s *Store) Tail(from uint64) (records <-chan ledger.Record, cancel func()) {
	out, stop := make(chan ledger.Record, tailBuffer), make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.ending:
		close(out)
	default:
		s.tails.Go(func() {
			defer close(out)
			s.follow(from, out, stop)
		})
	}
	return out, sync.OnceFunc(func() { close(stop) })
}

// follow reads no further than what is durable: what is visible in the file beyond
// that belongs to a commit that has not succeeded yet, and perhaps never will.
func (s *Store) follow(from uint64, out chan<- ledger.Record, stop <-chan struct{}) {
	reader := s.Reader()
	for {
		s.mu.Lock()
		grown := s.grown
		s.mu.Unlock()
		for end := s.durable.Load(); from < end; {
			found, err := reader.chunk(from+1, end)
			if err != nil || len(found) == 0 {
				return
			}
			for _, f := range found {
				record, err := f.record()
				if err != nil {
					return
				}
				select {
				case out <- record:
				case <-stop:
					return
				case <-s.ending:
					return
				}
			}
			from = found[len(found)-1].seq
		}
		select {
		case <-grown:
		case <-stop:
			return
		case <-s.ending:
			return
		}
	}
}

func (s *Store) wakeTails() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.grown)
	s.grown = make(chan struct{})
}

// endTails ends every tail: the file cannot be closed while one reads it.
func (s *Store) endTails() {
	s.mu.Lock()
	close(s.ending)
	s.mu.Unlock()
	s.tails.Wait()
}
