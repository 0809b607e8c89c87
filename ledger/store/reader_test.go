package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"permitchain/ledger"
)

func TestReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	const n = 400 // More records than one chunk holds.
	fill(t, path, n, true)
	r, err := OpenReader(path, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	plans, err := r.Plans(func(p *ledger.Plan) bool { return p.Outcome == ledger.Executed }, 7)
	if err != nil || len(plans) != 7 {
		t.Fatalf("%d plans: %v", len(plans), err)
	}
	for i, p := range plans {
		if want := close25(n - i)[0][0].(*ledger.PlanDecided).ID; p.ID != want {
			t.Errorf("plan %d from the end is %s, not %s", i, p.ID, want)
		}
	}
	if all, err := r.Plans(nil, 0); err != nil || len(all) != n {
		t.Errorf("%d of %d plans: %v", len(all), n, err)
	}
	if p, err := r.Plan(string(plans[3].ID[:12])); err != nil || p.ID != plans[3].ID {
		t.Errorf("by prefix: %v, %v", p, err)
	}
	for prefix, want := range map[string]error{"": ErrNotFound, "zz": ErrNotFound, string(plans[0].ID[:1]): ErrAmbiguous} {
		if _, err := r.Plan(prefix); !errors.Is(err, want) {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
	seen, prev := uint64(9), ""
	err = r.Records(10, 700, func(rec ledger.Record, hash string) error {
		if seen++; rec.Seq != seen || hash == prev || rec.Event == nil {
			t.Errorf("record %d %s follows %d %s", rec.Seq, hash, seen-1, prev)
		}
		prev = hash
		return nil
	})
	if err != nil || seen != 700 {
		t.Errorf("the last of 700 records is %d: %v", seen, err)
	}
	state, err := r.State()
	if err != nil || len(state.Positions) != 1 || state.Control.Counts.Executed != n {
		t.Errorf("state %+v: %v", state, err)
	}
}

func TestExport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	fill(t, path, 2, true)
	r, err := OpenReader(path, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out bytes.Buffer
	if err := r.Export(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 1+3+2*10 {
		t.Fatalf("%d lines", len(lines))
	}
	if !strings.HasPrefix(lines[0], `{"format":"permitchain-journal","version":1,"schema":1,"mode":"paper"`) {
		t.Errorf("header %s", lines[0])
	}
	fold := ledger.NewState()
	for _, line := range lines[1:] {
		var l struct {
			Seq     uint64
			At      time.Time
			Kind    ledger.Kind
			Version int
			Event   json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		event, err := ledger.DecodeEvent(l.Kind, l.Version, l.Event)
		if err == nil {
			err = fold.Apply(ledger.Record{Seq: l.Seq, At: l.At, Event: event})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	state, err := r.State()
	if err != nil || stateHash(state) != stateHash(fold) {
		t.Errorf("the export folds to something else: %v", err)
	}
}

func TestBackup(t *testing.T) {
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "backup.db")
	r := start(t, path, testOptions)
	r.must(t, opened())
	if err := r.Backup(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	r.must(t, close25(1)[0]...)
	if report := fsck(t, copied); report.Records != 1 {
		t.Errorf("the copy has %d records", report.Records)
	}
	if err := tryOpen(t, copied); err != nil {
		t.Errorf("the copy does not open: %v", err)
	}
	if err := r.Backup(t.Context(), copied); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), copied) {
		t.Errorf("over an existing file: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Backup(ctx, filepath.Join(dir, "never.db")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

// A tail delivers every durable record after its start once, in order, however slowly it is read, and ends with the ledger.
func TestTail(t *testing.T) {
	r := start(t, filepath.Join(t.TempDir(), "ledger.db"), testOptions)
	const early, late, from = 1500, 1500, 100
	some := func(n int) {
		for range n / 100 {
			events := make([]ledger.Event, 100)
			for i := range events {
				events[i] = &ledger.ConfigUsed{Digest: "x"}
			}
			r.must(t, events...)
		}
	}
	some(early)
	tail, cancel := r.Tail(from)
	defer cancel()
	gone, stop := r.Tail(0)
	stop()
	stop()
	some(late)
	for want := uint64(from + 1); want <= early+late; want++ {
		if rec := <-tail; rec.Seq != want {
			t.Fatalf("record %d comes where %d should", rec.Seq, want)
		}
	}
	select {
	case rec := <-tail:
		t.Fatalf("record %d comes of itself", rec.Seq)
	default:
	}
	for range gone { // It is closed, after what was in its buffer.
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if rec, open := <-tail; open {
		t.Errorf("record %d comes after the end", rec.Seq)
	}
	if _, open := <-first(r.Tail(0)); open {
		t.Error("a tail begins after the end")
	}
}

func first[A, B any](a A, _ B) A { return a }
