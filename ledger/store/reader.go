package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"permitchain/ledger"
)

// Reader answers questions from the file alone. Every answer is one transaction's,
// or for long ones a run of short transactions over the journal, which only grows:
// no reader keeps the committer waiting.
type Reader struct {
	path string
	db   *bolt.DB
	keep time.Duration
	own  bool // opened for this reader, and closed with it
}

// OpenReader opens a file that no process writes.
func OpenReader(path string, o Options) (*Reader, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	db, err := openBolt(path, true)
	if err != nil {
		return nil, err
	}
	r := &Reader{path, db, keepDefault, true}
	err = r.view(func(tx *bolt.Tx) error {
		m, err := readMeta(tx)
		if err != nil {
			return err
		}
		return m.identity.mustBe(path, o)
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return r, nil
}

// Reader reads the running ledger; it is good until Run returns.
func (s *Store) Reader() *Reader { return &Reader{s.path, s.db, s.options.Keep, false} }

// Close ends a reader that was opened by itself.
func (r *Reader) Close() error {
	if !r.own {
		return nil
	}
	return r.db.Close()
}

func (r *Reader) view(fn func(*bolt.Tx) error) error {
	return guard(r.path, func() error { return r.db.View(fn) })
}

// chunkMax bounds the records read in one transaction.
const chunkMax = 256

// stored is a journal record and the hash that chains the next one to it.
type stored struct {
	entry
	hash digest
}

// chunk reads records from a sequence on, at most up to another; fewer than chunkMax mean there are no more.
func (r *Reader) chunk(from, to uint64) (found []stored, err error) {
	err = r.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(journalBucket).Cursor()
		for k, v := c.Seek(seqKey(from)); k != nil && len(found) < chunkMax; k, v = c.Next() {
			e, err := parseEntry(k, v)
			if err != nil {
				return damaged(tx, "journal", fmt.Sprintf("record %x", k), "%v", err)
			}
			if e.seq > to {
				return nil
			}
			found = append(found, stored{e, sha256.Sum256(v)})
		}
		return nil
	})
	return found, err
}

// stored calls fn with each record of a range, both ends included; 0 as the end means the last there is.
func (r *Reader) stored(from, to uint64, fn func(stored) error) error {
	if to == 0 {
		to = ^uint64(0)
	}
	for {
		found, err := r.chunk(from, to)
		if err != nil {
			return err
		}
		for _, s := range found {
			if err := fn(s); err != nil {
				return err
			}
			from = s.seq + 1
		}
		if len(found) < chunkMax {
			return nil
		}
	}
}

// Records calls fn with each record of a range and its chain hash, in order. Both
// ends are included; to = 0 means the last there is.
func (r *Reader) Records(from, to uint64, fn func(record ledger.Record, hash string) error) error {
	return r.stored(from, to, func(s stored) error {
		record, err := s.record()
		if err != nil {
			return &DamagedError{r.path, "journal", fmt.Sprintf("record %d", s.seq), err.Error()}
		}
		return fn(record, s.hash.String())
	})
}

// Plans returns the plans that pass filter, the newest first, at most limit of them (0: all).
// The journal is its own index of when plans were decided.
func (r *Reader) Plans(filter func(*ledger.Plan) bool, limit int) (plans []*ledger.Plan, err error) {
	err = r.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(journalBucket).Cursor()
		for k, v := c.Last(); k != nil && (limit <= 0 || len(plans) < limit); k, v = c.Prev() {
			if kindOf(v) != ledger.KindPlanDecided {
				continue
			}
			e, err := parseEntry(k, v)
			if err != nil {
				return damaged(tx, "journal", fmt.Sprintf("record %x", k), "%v", err)
			}
			record, err := e.record()
			if err != nil {
				return damaged(tx, "journal", fmt.Sprintf("record %d", e.seq), "%v", err)
			}
			p, err := readPlan(tx, record.Event.(*ledger.PlanDecided).ID)
			if err != nil {
				return err
			}
			if filter == nil || filter(p) {
				plans = append(plans, p)
			}
		}
		return nil
	})
	return plans, err
}

// kindOf reads a record's kind without checking the rest.
func kindOf(value []byte) ledger.Kind {
	if len(value) < entryFixed {
		return ""
	}
	end := min(entryFixed+int(value[entryFixed-1]), len(value))
	return ledger.Kind(value[entryFixed:end])
}

func readPlan(tx *bolt.Tx, id ledger.PlanID) (*ledger.Plan, error) {
	value := tx.Bucket([]byte(ledger.PlanRef)).Get([]byte(id))
	if value == nil {
		return nil, damaged(tx, "plans", string(id), "it is missing, and the journal decides it")
	}
	p := new(ledger.Plan)
	return p, decode(tx, ledger.PlanRef, string(id), value, p)
}

// Plan returns the one plan whose id begins with prefix: an ErrNotFound or an ErrAmbiguous where there is not one.
func (r *Reader) Plan(prefix string) (p *ledger.Plan, err error) {
	err = r.view(func(tx *bolt.Tx) error {
		c := tx.Bucket([]byte(ledger.PlanRef)).Cursor()
		key, _ := c.Seek([]byte(prefix))
		if prefix == "" || !bytes.HasPrefix(key, []byte(prefix)) {
			return fmt.Errorf("plan %q: %w", prefix, ErrNotFound)
		}
		id := ledger.PlanID(key)
		if next, _ := c.Next(); bytes.HasPrefix(next, []byte(prefix)) {
			return fmt.Errorf("plan %q: %w: %s and %s", prefix, ErrAmbiguous, id, next)
		}
		p, err = readPlan(tx, id)
		return err
	})
	return p, err
}

// State loads the state as a process would that begins to work on the file.
func (r *Reader) State() (state *ledger.State, err error) {
	err = r.view(func(tx *bolt.Tx) error {
		m, err := readMeta(tx)
		if err != nil {
			return err
		}
		state, err = loadLive(tx, m, r.keep)
		return err
	})
	return state, err
}

// exportFormat and exportVersion name the JSON lines that Export writes.
const (
	exportFormat  = "permitchain-journal"
	exportVersion = 1
)

// Export writes the journal as JSON lines: one with format, version and identity, then one per record.
func (r *Reader) Export(w io.Writer) error {
	out := json.NewEncoder(w)
	var m meta
	err := r.view(func(tx *bolt.Tx) (err error) {
		m, err = readMeta(tx)
		return err
	})
	if err != nil {
		return err
	}
	err = out.Encode(struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
		identity
		Genesis digest `json:"genesis"`
	}{exportFormat, exportVersion, m.identity, m.genesis})
	if err != nil {
		return fmt.Errorf("export ledger: %w", err)
	}
	return r.stored(1, 0, func(s stored) error {
		err := out.Encode(struct {
			Seq     uint64          `json:"seq"`
			At      time.Time       `json:"at"`
			Kind    ledger.Kind     `json:"kind"`
			Version int             `json:"version"`
			Event   json.RawMessage `json:"event"`
			Hash    digest          `json:"hash"`
		}{s.seq, s.at, s.kind, s.version, s.payload, s.hash})
		if err != nil {
			return fmt.Errorf("export record %d: %w", s.seq, err)
		}
		return nil
	})
}

// Backup makes a hot copy at path, complete or not at all; it never overwrites. The
// copy is a ledger like any other, not marked as cleanly ended.
func (s *Store) Backup(ctx context.Context, path string) error { return s.Reader().Backup(ctx, path) }

// Backup is Store.Backup for a file that no process writes.
func (r *Reader) Backup(ctx context.Context, path string) error {
	dir, base := filepath.Split(path)
	dir = filepath.Clean(dir)
	f, err := os.CreateTemp(dir, base+".*.new")
	if err != nil {
		return fmt.Errorf("back up ledger: %w", err)
	}
	defer os.Remove(f.Name()) // After the rename there is nothing under that name.
	err = r.view(func(tx *bolt.Tx) error {
		if _, err := tx.WriteTo(&cancellable{ctx, f}); err != nil {
			return cmp.Or(ctx.Err(), err) // bbolt does not wrap what a write returned.
		}
		return nil
	})
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("back up ledger to %s: %w", path, err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("back up ledger to %s: %w", path, fs.ErrExist)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("back up ledger: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("back up ledger to %s: %w", path, err)
	}
	return nil
}

// cancellable stops a long copy at its next write.
type cancellable struct {
	ctx context.Context
	w   io.Writer
}

func (c *cancellable) Write(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(b)
}
