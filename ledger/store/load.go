package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"permitchain/ledger"
)

// loadLive builds the state of a running process from the derived buckets. After a
// clean end it holds what was in memory then and must have the same hash; otherwise
// whatever is younger than keep or not final, of a file that Verify has passed.
func loadLive(tx *bolt.Tx, m meta, keep time.Duration) (*ledger.State, error) {
	if err := checkLast(tx, m); err != nil {
		return nil, err
	}
	state, err := loadCommon(tx)
	if err != nil {
		return nil, err
	}
	if state.Control.Seq != m.head.Seq {
		return nil, damaged(tx, "control", controlName, "it stands at record %d, the journal at %d", state.Control.Seq, m.head.Seq)
	}
	if m.clean == nil {
		return state, loadRecent(tx, state, keep)
	}
	for _, id := range m.clean.Plans {
		if found, err := loadPlan(tx, state, id); err != nil {
			return nil, err
		} else if !found {
			return nil, damaged(tx, "plans", string(id), "it is missing, and was there at the last clean end")
		}
	}
	if sum := stateHash(state); m.clean.head != m.head || m.clean.State != sum {
		return nil, damaged(tx, "meta", string(cleanKey), "the state is %s at record %d, and was %s at %d when the ledger was closed",
			sum, m.head.Seq, m.clean.State, m.clean.Seq)
	}
	return state, nil
}

// checkLast holds the last record against the head of the chain.
func checkLast(tx *bolt.Tx, m meta) error {
	key, value := tx.Bucket(journalBucket).Cursor().Last()
	last := head{Chain: m.genesis}
	if key != nil {
		e, err := parseEntry(key, value)
		if err != nil {
			return damaged(tx, "journal", fmt.Sprintf("record %x", key), "%v", err)
		}
		last = head{e.seq, sha256.Sum256(value)}
	}
	if last != m.head {
		return damaged(tx, "meta", string(headKey), "it is record %d %s, and the last in the journal is %d %s",
			m.head.Seq, m.head.Chain, last.Seq, last.Chain)
	}
	return nil
}

// loadCommon reads everything but plans and intents.
func loadCommon(tx *bolt.Tx) (*ledger.State, error) {
	state := ledger.NewState()
	if value := tx.Bucket([]byte(ledger.ControlRef)).Get([]byte(controlName)); value != nil {
		if err := decode(tx, ledger.ControlRef, controlName, value, &state.Control); err != nil {
			return nil, err
		}
	}
	// A thing is known by the name of its entry, so that a wrong one shows in the state's hash.
	err := each(tx, ledger.PositionRef, func(name string, p *ledger.Position) error {
		k, err := ledger.ParseKey(name)
		state.Positions[k] = p
		return err
	})
	if err != nil {
		return nil, err
	}
	err = each(tx, ledger.UsageRef, func(name string, u *ledger.Usage) error {
		state.Usage[name] = u
		return nil
	})
	if err != nil {
		return nil, err
	}
	return state, each(tx, ledger.HoldRef, func(name string, h *ledger.HoldSet) error {
		k, err := ledger.ParseKey(name)
		state.Holds[k] = *h
		return err
	})
}

// each decodes every entry of a derived bucket.
func each[T any](tx *bolt.Tx, kind ledger.RefKind, add func(name string, v *T) error) error {
	return tx.Bucket([]byte(kind)).ForEach(func(key, value []byte) error {
		v := new(T)
		if err := decode(tx, kind, string(key), value, v); err != nil {
			return err
		}
		err := add(string(key), v)
		if err != nil && !errors.Is(err, ErrDamaged) {
			return damaged(tx, string(kind), string(key), "%v", err)
		}
		return err
	})
}

// loadPlan adds one plan and its intents to the state.
func loadPlan(tx *bolt.Tx, state *ledger.State, id ledger.PlanID) (found bool, err error) {
	value := tx.Bucket([]byte(ledger.PlanRef)).Get([]byte(id))
	if value == nil {
		return false, nil
	}
	p := new(ledger.Plan)
	if err := decode(tx, ledger.PlanRef, string(id), value, p); err != nil {
		return false, err
	}
	return true, addPlan(tx, state, id, p)
}

func addPlan(tx *bolt.Tx, state *ledger.State, id ledger.PlanID, p *ledger.Plan) error {
	for _, order := range p.Orders() {
		i := new(ledger.Intent)
		value := tx.Bucket([]byte(ledger.IntentRef)).Get([]byte(order))
		if value == nil {
			return damaged(tx, "intents", order, "it is missing, and plan %s names it", id)
		}
		if err := decode(tx, ledger.IntentRef, order, value, i); err != nil {
			return err
		}
		state.Intents[order] = i
	}
	state.Plans[id] = p
	return nil
}

// recentStep is how many plans are read before those that need not stay are dropped.
const recentStep = 4096

func loadRecent(tx *bolt.Tx, state *ledger.State, keep time.Duration) error {
	cut, n := state.Control.At.Add(-keep), 0
	defer state.Forget(cut)
	return each(tx, ledger.PlanRef, func(name string, p *ledger.Plan) error {
		if n++; n%recentStep == 0 {
			state.Forget(cut)
		}
		return addPlan(tx, state, ledger.PlanID(name), p)
	})
}

func decode(tx *bolt.Tx, kind ledger.RefKind, name string, value []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return damaged(tx, string(kind), name, "%v", err)
	}
	return nil
}

func damaged(tx *bolt.Tx, bucket, key, format string, args ...any) error {
	return &DamagedError{tx.DB().Path(), bucket, key, fmt.Sprintf(format, args...)}
}

// refs names everything a state holds, in a fixed order.
func refs(state *ledger.State) []ledger.Ref {
	all := []ledger.Ref{}
	if state.Control.Seq > 0 {
		all = append(all, ledger.Ref{Kind: ledger.ControlRef})
	}
	add := func(kind ledger.RefKind, names []string) {
		slices.Sort(names)
		for _, name := range names {
			all = append(all, ledger.Ref{Kind: kind, Name: name})
		}
	}
	add(ledger.PositionRef, names(state.Positions))
	add(ledger.HoldRef, names(state.Holds))
	add(ledger.UsageRef, names(state.Usage))
	add(ledger.PlanRef, names(state.Plans))
	add(ledger.IntentRef, names(state.Intents))
	return all
}

func names[K comparable, V any](m map[K]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, fmt.Sprint(k))
	}
	return out
}

// stateHash is the SHA-256 over everything a state holds.
func stateHash(state *ledger.State) (sum digest) {
	h := sha256.New()
	for _, ref := range refs(state) {
		value, err := derived(state, ref)
		if err != nil {
			panic(err) // It was marshalled when it was folded.
		}
		fmt.Fprintf(h, "%s %s %d\n%s\n", ref.Kind, ref.Name, len(value), value)
	}
	return digest(h.Sum(nil))
}

// mark makes the checkpoint of a clean end.
func mark(state *ledger.State, at head) checkpoint {
	return checkpoint{head: at, State: stateHash(state), Plans: slices.Sorted(maps.Keys(state.Plans))}
}
