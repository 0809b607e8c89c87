package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	berrors "go.etcd.io/bbolt/errors"

	"permitchain/ledger"
	"permitchain/pipeline"
)

func stopOn(soft <-chan struct{}) pipeline.Stop { return pipeline.Stop{Soft: soft} }

const sector = 512

// A power cut leaves any subset of a commit's data sectors with the old meta page, or
// all of them with a torn new one: the file is then what it was before the
// commit, or after it, and whole.
func TestPowerLossImages(t *testing.T) {
	dir := t.TempDir()
	path, image := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "image.db")
	s, err := Open(path, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, s)
	r.must(t, opened())
	random := rand.New(rand.NewPCG(5, 6))
	images, older := 0, 0
	for i := range 12 {
		for _, events := range close25(i + 1) {
			before, from := read(t, path), r.durable.Load()
			r.must(t, events...)
			after, to := read(t, path), r.durable.Load()
			for _, cut := range crashImages(random, before, after) {
				replace(t, image, cut)
				report, err := Verify(image)
				if err != nil || report.Records != from && report.Records != to {
					t.Fatalf("commit of records %d to %d: %+v, %v", from+1, to, report, err)
				}
				images++
				if report.Records == from {
					older++
				}
			}
		}
	}
	t.Logf("%d images, %d of them the state before the commit", images, older)
	if older == 0 || older == images {
		t.Error("the images do not reach both sides of a commit")
	}
}

// crashImages are some of the files that a power cut during a commit may leave.
func crashImages(random *rand.Rand, before, after []byte) (images [][]byte) {
	if len(before) < len(after) { // The file is grown, and that is synced, before anything is written.
		before = append(bytes.Clone(before), make([]byte, len(after)-len(before))...)
	}
	var data []int
	meta := -1
	for at := 0; at < len(after); at += sector {
		if bytes.Equal(before[at:at+sector], after[at:at+sector]) {
			continue
		}
		if at < 2*pageBytes {
			meta = at
			continue
		}
		data = append(data, at)
	}
	for range 4 {
		cut := bytes.Clone(before)
		for _, at := range data {
			if random.IntN(2) == 0 {
				copy(cut[at:at+sector], after[at:])
			}
		}
		images = append(images, cut)
	}
	for range 4 {
		cut := bytes.Clone(after)
		torn := meta + random.IntN(sector+1)
		copy(cut[torn:meta+sector], before[torn:])
		images = append(images, cut)
	}
	return images
}

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
