// Package store keeps a ledger in one bbolt file, and is the only door to it.
//
// Contract: one goroutine, the owner, holds the ledger.State of a running process.
// It runs every decision alone, numbers and folds the events at once, and queues
// them; one other goroutine, the committer, writes whatever is queued in one
// transaction. Records become durable in the order they were decided, and all
// events of one decision at once. A commit that fails may be visible all the same,
// so nothing is tried again: the store halts, and the process with it. A file is
// never written before its pages, and after a crash all of its records, have been
// checked.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"permitchain/ledger"
	"permitchain/pipeline"
)

// What can be wrong with a ledger file or its owner; every error of this package
// that is one of them wraps it, and names the file.
var (
	ErrLocked    = errors.New("another process holds the ledger")
	ErrHalted    = errors.New("the ledger has halted")
	ErrClosed    = errors.New("the ledger is closed")
	ErrDamaged   = errors.New("the ledger is damaged")
	ErrUnwritten = errors.New("the ledger cannot be written")
	ErrForeign   = errors.New("the ledger belongs to something else")
	ErrNotFound  = errors.New("not on record")
	ErrAmbiguous = errors.New("more than one is on record")
)

// DamagedError names the place of the damage. It is an ErrDamaged.
type DamagedError struct {
	Path   string
	Bucket string // "" where the file as a whole, or one of its pages, is meant
	Key    string // of the entry; a journal record's is its sequence
	What   string
}

func (e *DamagedError) Error() string {
	place := ""
	if e.Bucket != "" {
		place = " at " + e.Bucket + " " + e.Key
	}
	return fmt.Sprintf("ledger %s is damaged%s: %s", e.Path, place, e.What)
}

// Is makes errors.Is(err, ErrDamaged) true.
func (e *DamagedError) Is(target error) bool { return target == ErrDamaged }

// Options say whose ledger a file is, and how it is kept.
type Options struct {
	Mode    ledger.Mode
	Host    string // of the exchange's base URL; "" is any, but no ledger is made then
	Account string // the tail that names the account; the same
	// Now is the local clock; nil is time.Now.
	Now func() time.Time
	// Keep is how long ended plans stay in memory; 0 is keepDefault. Older ones are
	// read back from the file when a decision names them again.
	Keep time.Duration
	// Verify checks a file that was not closed properly, best in a process of its
	// own: a damaged file can then take nothing else down. Nil checks it in this one.
	Verify func(path string) error
}

// keepDefault is SPEC's dedupe_ttl.
const keepDefault = 6 * time.Hour

// Store owns a ledger file and the state that is its fold.
type Store struct {
	path    string
	options Options
	db      *bolt.DB

	// The owner's; nobody else touches them while Run runs.
	state *ledger.State
	head  head
	last  <-chan struct{} // closed when all that is queued is durable

	ops   chan func()
	queue chan *batch

	closed   chan struct{} // the owner takes no more
	halted   chan struct{}
	haltOnce sync.Once
	haltErr  error // read after halted is closed

	durable atomic.Uint64 // the last record known to be on the disk
	tails   sync.WaitGroup
	ending  chan struct{} // closed when tails must end
	// mu orders new tails before endTails, and guards grown, which every commit replaces.
	mu    sync.Mutex
	grown chan struct{} // closed when durable has grown
}

var _ pipeline.Journal[*ledger.State, ledger.Event] = (*Store)(nil)

// queueMax bounds the decisions that wait for the disk, and those that share one
// transaction. It is about a second of work for a slow disk; when it is full, the
// owner waits, and with it whoever wants to decide.
const queueMax = 256

// Open opens a ledger for writing, and makes it where there is none. Run must follow.
func Open(path string, o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Keep == 0 {
		o.Keep = keepDefault
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if o.Host == "" || o.Account == "" {
			return nil, fmt.Errorf("open ledger: %w", err)
		}
		if err := Create(path, o); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	found, err := inspect(path, o)
	if err != nil {
		return nil, err
	}
	if found.clean == nil {
		if err := o.verify(path); err != nil {
			return nil, fmt.Errorf("verify after an unclean end: %w", err)
		}
	}
	db, err := openBolt(path, false)
	if err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	close(ready)
	s := &Store{
		path: path, options: o, db: db, last: ready, ops: make(chan func()), queue: make(chan *batch, queueMax),
		closed: make(chan struct{}), halted: make(chan struct{}), ending: make(chan struct{}), grown: make(chan struct{}),
	}
	if err := guard(path, func() error { return s.begin(found) }); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func (o Options) verify(path string) error {
	if o.Verify != nil {
		return o.Verify(path)
	}
	_, err := Verify(path)
	return err
}

// inspect reads a file's meta without changing anything, and refuses what is not ours.
func inspect(path string, o Options) (found meta, err error) {
	db, err := openBolt(path, true)
	if err != nil {
		return found, err
	}
	err = guard(path, func() error {
		return db.View(func(tx *bolt.Tx) error {
			found, err = readMeta(tx)
			return err
		})
	})
	if err == nil {
		err = found.identity.mustBe(path, o)
	}
	return found, errors.Join(err, db.Close())
}

// begin loads the live state and takes the mark of a clean end off, so that a crash from here on shows.
func (s *Store) begin(found meta) error {
	err := s.db.View(func(tx *bolt.Tx) error {
		now, err := readMeta(tx)
		if err != nil {
			return err
		}
		if now.head != found.head || (now.clean == nil) != (found.clean == nil) {
			return fmt.Errorf("open ledger %s: %w: it changed while it was checked", s.path, ErrLocked)
		}
		s.head = now.head
		s.state, err = loadLive(tx, now, s.options.Keep)
		return err
	})
	if err != nil {
		return err
	}
	s.state.Forget(s.now().Add(-s.options.Keep))
	s.durable.Store(s.head.Seq)
	err = s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Delete(cleanKey) })
	if err != nil {
		return fmt.Errorf("mark ledger %s as in use: %w: %w", s.path, ErrUnwritten, err)
	}
	return nil
}

// Create makes an empty ledger. It appears under its name complete or not at all:
// a power cut during bbolt's first writes would leave a file nobody can open.
func Create(path string, o Options) error {
	dir, fresh := filepath.Dir(path), path+".new"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create ledger: %w", err)
	}
	db, err := createBolt(path, fresh)
	if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, ErrLocked) {
		err = fmt.Errorf("create ledger %s: %w: %w", path, ErrUnwritten, err)
	}
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error { return writeFresh(tx, o) })
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("create ledger %s: %w: %w", path, ErrUnwritten, err)
	}
	return nil
}

// syncDir makes a rename in dir survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
