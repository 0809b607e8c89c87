package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"permitchain/ledger"
)

// Report is what Verify found; every word in it is "ok", or there would be an error instead.
type Report struct {
	Records uint64 `json:"records"`
	Chain   string `json:"chain"`
	Fold    string `json:"fold"`
	Head    string `json:"head"`
}

// Verify reads a whole file that no writer holds: it walks the chain, folds every
// record from nothing, compares the fold with every derived entry both ways, and
// has bbolt check its pages. The first damage is the error, by name.
func Verify(path string) (Report, error) {
	db, err := openBolt(path, true)
	if err != nil {
		return Report{}, err
	}
	var r Report
	err = guard(path, func() error {
		return db.View(func(tx *bolt.Tx) error {
			r, err = verify(tx)
			return err
		})
	})
	return r, errors.Join(err, db.Close())
}

func verify(tx *bolt.Tx) (Report, error) {
	m, err := readMeta(tx)
	if err != nil {
		return Report{}, err
	}
	state, end, err := refold(tx, m.genesis)
	if err != nil {
		return Report{}, err
	}
	if end != m.head {
		return Report{}, damaged(tx, "meta", string(headKey), "it is record %d %s, and the journal ends with %d %s",
			m.head.Seq, m.head.Chain, end.Seq, end.Chain)
	}
	if err := compare(tx, state); err != nil {
		return Report{}, err
	}
	if err := checkMark(tx, m, state); err != nil {
		return Report{}, err
	}
	var bad error
	for err := range tx.Check() { // It must be drained: its goroutine works on the transaction.
		if bad == nil {
			bad = &DamagedError{Path: tx.DB().Path(), What: err.Error()}
		}
	}
	return Report{end.Seq, "ok", "ok", end.Chain.String()}, bad
}

// refold walks the chain and folds it.
func refold(tx *bolt.Tx, genesis digest) (*ledger.State, head, error) {
	state, end := ledger.NewState(), head{Chain: genesis}
	err := tx.Bucket(journalBucket).ForEach(func(key, value []byte) error {
		name := fmt.Sprintf("record %d", end.Seq+1)
		e, err := parseEntry(key, value)
		switch {
		case err != nil:
			return damaged(tx, "journal", name, "%v", err)
		case e.seq != end.Seq+1:
			return damaged(tx, "journal", name, "it is missing; record %d comes next", e.seq)
		case e.prev != end.Chain:
			return damaged(tx, "journal", name, "it follows %s, and the record before it is %s", e.prev, end.Chain)
		}
		record, err := e.record()
		if err == nil {
			err = state.Apply(record)
		}
		if err != nil {
			return damaged(tx, "journal", name, "%v", err)
		}
		end = head{e.seq, sha256.Sum256(value)}
		return nil
	})
	return state, end, err
}

// compare holds the fold against the derived buckets, both ways.
func compare(tx *bolt.Tx, state *ledger.State) error {
	count := map[ledger.RefKind]int{}
	for _, ref := range refs(state) {
		want, err := derived(state, ref)
		if err != nil {
			return err
		}
		have := tx.Bucket([]byte(ref.Kind)).Get(nameKey(ref))
		if !bytes.Equal(want, have) {
			at := differ(have, want)
			return damaged(tx, string(ref.Kind), string(nameKey(ref)), "from byte %d on it is %.80q, and the fold of the journal %.80q", at, have[at:], want[at:])
		}
		count[ref.Kind]++
	}
	for _, kind := range ledger.RefKinds {
		n := 0
		err := tx.Bucket([]byte(kind)).ForEach(func(key, _ []byte) error {
			name := string(key)
			if kind == ledger.ControlRef && name == controlName {
				name = ""
			}
			if state.Get(ledger.Ref{Kind: kind, Name: name}) == nil {
				return damaged(tx, string(kind), string(key), "the journal does not lead to it")
			}
			n++
			return nil
		})
		if err != nil {
			return err
		}
		if n != count[kind] {
			return damaged(tx, string(kind), "", "it has %d entries, and the fold of the journal %d", n, count[kind])
		}
	}
	return nil
}

// differ is where two values begin to, less a little that shows what is meant.
func differ(a, b []byte) int {
	at := 0
	for at < len(a) && at < len(b) && a[at] == b[at] {
		at++
	}
	return max(0, at-20)
}

// checkMark holds the checkpoint of a clean end against the fold.
func checkMark(tx *bolt.Tx, m meta, state *ledger.State) error {
	if m.clean == nil {
		return nil
	}
	live := *state
	live.Plans, live.Intents = map[ledger.PlanID]*ledger.Plan{}, map[string]*ledger.Intent{}
	for _, id := range m.clean.Plans {
		p := state.Plans[id]
		if p == nil {
			return damaged(tx, "meta", string(cleanKey), "it names plan %s, which is not on record", id)
		}
		live.Plans[id] = p
		for _, order := range p.Orders() {
			live.Intents[order] = state.Intents[order]
		}
	}
	if sum := stateHash(&live); m.clean.head != m.head || m.clean.State != sum {
		return damaged(tx, "meta", string(cleanKey), "it is %s at record %d, and the fold of the journal %s at %d",
			m.clean.State, m.clean.Seq, sum, m.head.Seq)
	}
	return nil
}
