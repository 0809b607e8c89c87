package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	berrors "go.etcd.io/bbolt/errors"

	"permitchain/ledger"
	"permitchain/pipeline"
)

func stopOn(soft <-chan struct{}) pipeline.Stop { return pipeline.Stop{Soft: soft} }

// A commit that fails halts the store: whoever waits is told, nothing more is decided or
// delivered, and what was durable before is on the disk.
func TestFailedCommitHalts(t *testing.T) {
	breaks := map[string]func(s *Store){
		"full": func(s *Store) { s.db.MaxSize, s.db.AllocSize = 1, 1 },
		"gone": func(s *Store) { _ = s.db.Close() },
	}
	for name, breakIt := range breaks {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			s, err := Open(path, testOptions)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- s.Run(stopOn(nil)) }()
			r := &running{Store: s}
			r.must(t, opened())
			early, err := r.Decide(t.Context(), func(*ledger.State, time.Time) []ledger.Event { return close25(1)[0] })
			if err != nil || early.Wait(t.Context()) != nil {
				t.Fatal(err)
			}
			tail, cancel := s.Tail(0)
			defer cancel()
			breakIt(s)
			var last pipeline.Commit
			for i := range 10000 { // Until the file would have to grow.
				c, err := s.Decide(t.Context(), func(*ledger.State, time.Time) []ledger.Event {
					return []ledger.Event{&ledger.ConfigUsed{Digest: fmt.Sprint(i), Text: string(make([]byte, 4096))}}
				})
				if err != nil {
					if !errors.Is(err, ErrHalted) {
						t.Fatal(err)
					}
					break
				}
				last = c
			}
			if last == nil {
				t.Fatal("nothing could be decided")
			}
			if err := last.Wait(t.Context()); !errors.Is(err, ErrHalted) {
				t.Errorf("the last decision: %v", err)
			}
			if err := <-ended; !errors.Is(err, ErrHalted) {
				t.Errorf("Run: %v", err)
			} else if name == "full" && !errors.Is(err, berrors.ErrMaxSizeReached) {
				t.Errorf("Run does not say why: %v", err)
			}
			if err := early.Wait(t.Context()); !errors.Is(err, ErrHalted) {
				t.Errorf("a commit from before lets its effect through: %v", err)
			}
			if err := s.View(t.Context(), func(*ledger.State, time.Time) { t.Error("View ran") }); !errors.Is(err, ErrHalted) {
				t.Errorf("View: %v", err)
			}
			_, err = s.Decide(t.Context(), func(*ledger.State, time.Time) []ledger.Event { t.Error("Decide ran"); return nil })
			if !errors.Is(err, ErrHalted) {
				t.Errorf("Decide: %v", err)
			}
			for rec := range tail {
				if rec.Seq > s.durable.Load() {
					t.Errorf("record %d is delivered and %d is durable", rec.Seq, s.durable.Load())
				}
			}
			if report := fsck(t, path); report.Records < 2 {
				t.Errorf("%d records are left", report.Records)
			}
			if err := tryOpen(t, path); err != nil {
				t.Errorf("it does not open again: %v", err)
			}
		})
	}
}

// An event that breaks an invariant halts; nothing of its decision is written, and all before it is.
func TestBrokenInvariantHalts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s, err := Open(path, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(stopOn(nil)) }()
	if _, err := s.Decide(t.Context(), func(*ledger.State, time.Time) []ledger.Event { return []ledger.Event{opened()} }); err != nil {
		t.Fatal(err)
	}
	_, err = s.Decide(t.Context(), func(*ledger.State, time.Time) []ledger.Event {
		return []ledger.Event{&ledger.ConfigUsed{Digest: "x"}, opened()}
	})
	var broken *ledger.BrokenError
	if !errors.Is(err, ErrHalted) || !errors.As(err, &broken) || broken.Invariant != "S10" {
		t.Errorf("Decide: %v", err)
	}
	if err := <-ended; !errors.Is(err, ErrHalted) || !errors.As(err, &broken) {
		t.Errorf("Run: %v", err)
	}
	if report := fsck(t, path); report.Records != 1 {
		t.Errorf("%d records are left, not 1", report.Records)
	}
}
