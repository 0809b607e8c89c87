package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"permitchain/pipeline"
)

// journal is a Journal whose disk takes as long as the test says.
type journal struct {
	state   []string
	durable chan struct{}
	err     error
}

func (j *journal) Decide(_ context.Context, fn func(*journal, time.Time) []string) (pipeline.Commit, error) {
	j.state = append(j.state, fn(j, time.Now())...)
	return j, nil
}

func (j *journal) Wait(ctx context.Context) error {
	select {
	case <-j.durable:
		return j.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func decide(effects ...string) func(*journal, time.Time) pipeline.Step[string, string] {
	return func(*journal, time.Time) pipeline.Step[string, string] {
		return pipeline.Step[string, string]{Events: []string{"decided"}, Effects: effects}
	}
}

func TestNoEffectBeforeItsEventsAreDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{durable: make(chan struct{})}
		var done []string
		l := &pipeline.Loop[*journal, string, string]{Journal: j, Perform: func(_ context.Context, e string) { done = append(done, e) }}
		if err := l.Do(t.Context(), decide("one", "two")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(j.state) != 1 || len(done) != 0 {
			t.Fatalf("folded %v, done %v before the disk answered", j.state, done)
		}
		close(j.durable)
		l.Wait()
		if !slices.Equal(done, []string{"one", "two"}) {
			t.Fatalf("done %v", done)
		}
	})
}

func TestNoEffectAfterAFailedCommitOrAHardStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		perform := func(_ context.Context, e string) { t.Errorf("%s was done", e) }
		failed := &journal{durable: make(chan struct{}), err: errors.New("disk")}
		close(failed.durable)
		l := &pipeline.Loop[*journal, string, string]{Journal: failed, Perform: perform}
		if err := l.Do(t.Context(), decide("after failure")); err != nil {
			t.Fatal(err)
		}
		l.Wait()
		hard, cancel := context.WithCancel(t.Context())
		l = &pipeline.Loop[*journal, string, string]{Journal: &journal{durable: make(chan struct{})}, Perform: perform}
		if err := l.Do(hard, decide("after stop")); err != nil {
			t.Fatal(err)
		}
		cancel()
		l.Wait()
	})
}

func TestEveryStepPassesFourPoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{durable: make(chan struct{})}
		close(j.durable)
		var points []string
		l := &pipeline.Loop[*journal, string, string]{
			Journal: j, Perform: func(context.Context, string) { points = append(points, "EFFECT") },
			Name: func(e string) string { return e }, Point: func(p string) { points = append(points, p) },
		}
		if err := l.Do(t.Context(), decide("x")); err != nil {
			t.Fatal(err)
		}
		l.Wait()
		want := []string{"before append decided", "after append decided", "before effect decided", "EFFECT", "after effect decided"}
		if !slices.Equal(points, want) {
			t.Fatalf("points %q", points)
		}
	})
}

// member is a stage that notes when it is told to stop and takes its time over it.
func member(log *[]string, name string, takes time.Duration) func(pipeline.Stop) error {
	return func(stop pipeline.Stop) error {
		<-stop.Soft
		*log = append(*log, "soft "+name)
		select {
		case <-time.After(takes):
			*log = append(*log, "end "+name)
		case <-stop.Hard.Done():
			*log = append(*log, "hard "+name)
		}
		return nil
	}
}

func TestGroupStopsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		g := &pipeline.Group{Deadline: 4 * time.Second}
		g.Add("a", member(&log, "a", time.Second))
		g.Add("b", member(&log, "b", time.Hour))
		g.Add("c", member(&log, "c", 0))
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		time.AfterFunc(time.Minute, cancel)
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
		want := []string{"soft a", "end a", "soft b", "hard b", "soft c"}
		if !slices.Equal(log[:5], want) {
			t.Fatalf("stopped as %v", log)
		}
		if took := time.Since(began) - time.Minute; took != 3*time.Second {
			t.Fatalf("the stop took %s, three quarters of the deadline are 3s", took)
		}
	})
}

func TestFirstFailureStopsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		g := &pipeline.Group{Deadline: time.Second}
		g.Add("a", member(&log, "a", 0))
		g.Add("b", func(pipeline.Stop) error { return fmt.Errorf("broken") })
		err := g.Run(t.Context())
		if err == nil || err.Error() != "b: broken" || !slices.Contains(log, "soft a") {
			t.Fatalf("error %v, log %v", err, log)
		}
	})
}

func TestAStageThatHangsIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		g := &pipeline.Group{Deadline: time.Second}
		g.Add("stuck", func(pipeline.Stop) error { <-release; return nil })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := g.Run(ctx)
		close(release)
		if !errors.Is(err, pipeline.ErrHung) || !strings.Contains(err.Error(), "stuck still runs") {
			t.Fatalf("error %v", err)
		}
	})
}

func TestBellRingsOnce(t *testing.T) {
	b := pipeline.NewBell()
	b.Ring()
	b.Ring()
	<-b
	select {
	case <-b:
		t.Fatal("two rings before a look were two")
	default:
	}
}
