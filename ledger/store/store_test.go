package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"permitchain/ledger"
	"permitchain/pipeline"
)

// A ledger comes back as it was: after a clean end, and from a copy taken while it ran.
func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "deep", "ledger.db")
	r := start(t, path, testOptions)
	r.must(t, opened())
	for i := range 20 {
		for _, events := range close25(i + 1) {
			r.must(t, events...)
		}
	}
	want := hashOf(t, r)
	copied := filepath.Join(dir, "copy.db")
	replace(t, copied, read(t, path))
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, copied} {
		again := start(t, p, testOptions)
		if got := hashOf(t, again); got != want {
			t.Errorf("%s: state %s, was %s", p, got, want)
		}
		again.must(t, &ledger.RunStateChanged{From: ledger.Armed, To: ledger.Killed, Who: "test", Why: "test"})
		if err := again.end(); err != nil {
			t.Fatal(err)
		}
		if report := fsck(t, p); report.Records != 20*10+2 {
			t.Errorf("%s: %d records", p, report.Records)
		}
	}
}

// An unclean file is verified by whoever Options names, before it is opened for writing, and a clean one is not.
func TestUncleanIsVerified(t *testing.T) {
	for _, clean := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		fill(t, path, 2, clean)
		asked, o := 0, testOptions
		o.Verify = func(p string) error {
			asked++
			_, err := Verify(p) // It must not be locked yet.
			return err
		}
		if err := start(t, path, o).end(); err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{true: 0, false: 1}[clean]; asked != want {
			t.Errorf("clean %v: verified %d times", clean, asked)
		}
		o.Verify = func(string) error { return errors.New("no good") }
		fill2 := filepath.Join(t.TempDir(), "ledger.db")
		fill(t, fill2, 1, clean)
		if s, err := Open(fill2, o); (err == nil) != clean {
			t.Errorf("clean %v: Open with a failing verify: %v", clean, err)
		} else if err == nil {
			_ = run(t, s).end()
		}
	}
}

// Decisions are durable in their order, and what is queued shares transactions.
func TestGroupCommitKeepsOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	r := start(t, path, testOptions)
	const deciders, each = 16, 50
	before := r.db.Stats()
	done := make(chan error, deciders)
	for d := range deciders {
		go func() {
			done <- func() error {
				for i := range each {
					var seq uint64
					c, err := r.Decide(t.Context(), func(s *ledger.State, _ time.Time) []ledger.Event {
						seq = s.Control.Seq + 1
						return []ledger.Event{&ledger.ConfigUsed{Digest: fmt.Sprint(d), Text: fmt.Sprint(i)}}
					})
					if err != nil {
						return err
					}
					if err := c.Wait(t.Context()); err != nil {
						return err
					}
					if got := r.durable.Load(); got < seq {
						return fmt.Errorf("record %d is durable and the head is %d", seq, got)
					}
				}
				return nil
			}()
		}()
	}
	for range deciders {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	after := r.db.Stats()
	commits := after.TxStats.GetWrite() - before.TxStats.GetWrite()
	t.Logf("%d decisions, %d page writes", deciders*each, commits)
	next := map[string]int{}
	err := r.Reader().Records(1, 0, func(record ledger.Record, _ string) error {
		e := record.Event.(*ledger.ConfigUsed)
		if e.Text != fmt.Sprint(next[e.Digest]) {
			return fmt.Errorf("record %d of %s is %s", record.Seq, e.Digest, e.Text)
		}
		next[e.Digest]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A decision without events waits for what it may rest on.
func TestEmptyDecisionWaitsForEarlierOnes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s, err := Open(path, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	// Without a committer nothing becomes durable: the owner's part alone.
	written, err := s.decide(func(*ledger.State, time.Time) []ledger.Event { return []ledger.Event{opened()} })
	if err != nil {
		t.Fatal(err)
	}
	empty, err := s.decide(func(*ledger.State, time.Time) []ledger.Event { return nil })
	if err != nil || empty != written {
		t.Fatalf("the empty decision waits for %v, not %v: %v", empty, written, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&commit{s, empty}).Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("it is durable before the disk saw it: %v", err)
	}
	r := run(t, s)
	if err := (&commit{s, empty}).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
}

func TestSecondOpenerIsRefusedWithinASecond(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	start(t, path, testOptions)
	for name, open := range map[string]func() error{
		"Open":       func() error { _, err := Open(path, testOptions); return err },
		"OpenReader": func() error { _, err := OpenReader(path, testOptions); return err },
		"Verify":     func() error { _, err := Verify(path); return err },
	} {
		begun := time.Now()
		err := open()
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(begun); took > 1500*time.Millisecond {
			t.Errorf("%s took %s", name, took)
		}
	}
}

// Without the key one can read a ledger and stop what runs on it, and never begin one.
func TestWhoNamesNoAccountMayOpenAndNotBegin(t *testing.T) {
	path, nameless := filepath.Join(t.TempDir(), "ledger.db"), Options{Mode: ledger.Paper}
	if _, err := Open(path, nameless); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a ledger of nobody: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	fill(t, path, 0, true)
	reader, err := OpenReader(path, nameless)
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path, nameless)
	if err != nil {
		t.Fatal(err)
	}
	soft := make(chan struct{})
	close(soft)
	if err := s.Run(pipeline.Stop{Soft: soft, Hard: context.Background()}); err != nil {
		t.Error(err)
	}
}

func TestForeignLedgerIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	fill(t, path, 0, true)
	for want, o := range map[string]Options{
		"its mode is paper, not live":          {Mode: ledger.Live, Host: "paper", Account: "book"},
		`its exchange is "paper", not "other"`: {Mode: ledger.Paper, Host: "other", Account: "book"},
		`its account ends in "book", not "x"`:  {Mode: ledger.Paper, Host: "paper", Account: "x"},
	} {
		if _, err := Open(path, o); !errors.Is(err, ErrForeign) || !strings.Contains(fmt.Sprint(err), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", want, err)
		}
	}
	edit(t, path, func(tx *bolt.Tx) error {
		return tx.Bucket(metaBucket).Put(identityKey, seal(identityKey, identity{Schema: schema + 1, Mode: ledger.Paper}))
	})
	if _, err := Open(path, testOptions); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "schema is 2") {
		t.Errorf("newer schema: %v", err)
	}
	fsckFails(t, path)
	other := filepath.Join(t.TempDir(), "other.db")
	db, err := bolt.Open(other, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(other, testOptions); !errors.Is(err, ErrForeign) {
		t.Errorf("somebody else's bbolt file: %v", err)
	}
}

func fsckFails(t testing.TB, path string) {
	t.Helper()
	if report, err := Verify(path); err == nil {
		t.Errorf("fsck found nothing: %+v", report)
	}
}

// edit changes a file behind the store's back, with bbolt, so that its pages stay in order.
func edit(t testing.TB, path string, change func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(change), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// A forgotten plan that is decided again is recalled, and the decision made anew with it.
func TestForgottenPlanIsRecalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "ledger.db")
		o := testOptions
		o.Keep = time.Hour
		r := start(t, path, o)
		r.must(t, opened())
		var id ledger.PlanID
		for _, events := range close25(1) {
			r.must(t, events...)
			if e, ok := events[0].(*ledger.PlanDecided); ok {
				id = e.ID
			}
		}
		<-time.After(2 * time.Hour) // Virtual.
		synctest.Wait()
		runs := 0
		decide := func(s *ledger.State, _ time.Time) []ledger.Event {
			runs++
			if s.Plans[id] != nil {
				return []ledger.Event{&ledger.PlanRepeated{ID: id}}
			}
			return close25(1)[0]
		}
		c, err := r.Decide(t.Context(), decide)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(t.Context()); err != nil || runs != 2 {
			t.Fatalf("the plan was decided after %d runs: %v", runs, err)
		}
		plan, err := r.Reader().Plan(id.Short())
		if err != nil || plan.Repeats != 1 || plan.Outcome != ledger.Executed {
			t.Fatalf("on record: %+v, %v", plan, err)
		}
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
	})
}

// The clock may go back; the journal's does not.
func TestTimeNeverGoesBack(t *testing.T) {
	now := began
	o := testOptions
	o.Now = func() time.Time { now = now.Add(-time.Minute); return now }
	r := start(t, filepath.Join(t.TempDir(), "ledger.db"), o)
	for range 5 {
		r.must(t, &ledger.ConfigUsed{Digest: "x"})
	}
	var at []time.Time
	if err := r.Reader().Records(1, 0, func(rec ledger.Record, _ string) error { at = append(at, rec.At); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(at, time.Time.Compare) {
		t.Errorf("records are dated %v", at)
	}
}

// What a crash left of an earlier creation is no obstacle, and an existing ledger is never made anew.
func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	replace(t, path+".new", []byte("half a page"))
	r := start(t, path, testOptions)
	r.must(t, opened())
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unfinished file is still there: %v", err)
	}
	before := read(t, path)
	if err := Create(path, testOptions); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over a ledger: %v", err)
	}
	if !slices.Equal(before, read(t, path)) {
		t.Error("Create changed the ledger")
	}
	if _, err := OpenReader(path+"x", testOptions); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a reader of nothing: %v", err)
	}
}

// Of many who open a ledger that is not there yet, one gets it.
func TestOpenersRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	type result struct {
		*Store
		error
	}
	results := make(chan result)
	for range 8 {
		go func() {
			s, err := Open(path, testOptions)
			results <- result{s, err}
		}()
	}
	won := 0
	for range 8 {
		switch r := <-results; {
		case r.error == nil:
			won++
			run(t, r.Store)
		case !errors.Is(r.error, ErrLocked):
			t.Errorf("a loser is told %v", r.error)
		}
	}
	if won != 1 {
		t.Errorf("%d have it", won)
	}
}

// TestAReaderKnowsWhoseLedgerItReads: another mode's file is not shown as this one's.
func TestAReaderKnowsWhoseLedgerItReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := Create(path, testOptions); err != nil {
		t.Fatal(err)
	}
	other := testOptions
	other.Mode = ledger.Testnet
	if _, err := OpenReader(path, other); !errors.Is(err, ErrForeign) {
		t.Fatalf("error %v", err)
	}
}
