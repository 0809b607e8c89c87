// Package pipeline is the engine that stages run on: a loop that makes events
// durable and only then performs effects, a group that starts and stops stages in
// order, and the few shapes of channel they are joined by. It knows no noun of the
// domain.
package pipeline

import (
	"context"
	"strings"
	"sync"
	"time"
)

// Step is what a kernel decided: what to write down, and what to do once it is written.
type Step[E, F any] struct {
	Events  []E
	Effects []F
}

// Commit is a promise that events will be durable.
type Commit interface {
	// Wait returns once they are, or with the error that halts the process.
	Wait(ctx context.Context) error
}

// Journal owns the state of type S and makes events of type E durable.
type Journal[S, E any] interface {
	// Decide runs fn alone with the state, folds the events it returns and queues
	// them for the disk, all in one order. It returns when that is done: the next
	// Decide sees the change, the disk may not yet.
	Decide(ctx context.Context, fn func(state S, now time.Time) []E) (Commit, error)
}

// Loop turns decisions into durable events and then into effects. Whatever leaves
// the process is an effect, so nothing leaves that is not in the journal first.
type Loop[S, E, F any] struct {
	Journal Journal[S, E]
	Perform func(ctx context.Context, effect F) // called on a goroutine of its own, after the events are durable
	Name    func(E) string                      // names an event in a crash point
	Folded  func(events []E)                    // told of events that are in the state; nil: nobody
	Point   func(point string)                  // crash points of a test; nil in production
	Spawn   func(func())                        // runs what waits; nil: on a goroutine of its own, for which Wait waits

	running sync.WaitGroup // steps whose effects are not finished
}

// Do runs decide on the state and returns when its events are folded. Its effects
// follow on their own, as soon as the events are durable: in the order of the step,
// and not at all once hard is done or the journal has failed.
func (l *Loop[S, E, F]) Do(hard context.Context, decide func(state S, now time.Time) Step[E, F]) error {
	var step Step[E, F]
	commit, err := l.Journal.Decide(hard, func(state S, now time.Time) []E {
		step = decide(state, now)
		l.point("before append", step.Events)
		return step.Events
	})
	if err != nil {
		return err
	}
	if l.Folded != nil && len(step.Events) > 0 {
		l.Folded(step.Events)
	}
	if len(step.Effects) == 0 && l.Point == nil {
		return nil
	}
	spawn := l.Spawn
	if spawn == nil {
		spawn = l.running.Go
	}
	spawn(func() { l.finish(hard, step, commit) })
	return nil
}

func (l *Loop[S, E, F]) finish(hard context.Context, step Step[E, F], commit Commit) {
	if commit.Wait(hard) != nil {
		return // Whoever owns the journal halts the process, and says why.
	}
	l.point("after append", step.Events)
	for _, effect := range step.Effects {
		if hard.Err() != nil {
			return
		}
		l.point("before effect", step.Events)
		l.Perform(hard, effect)
		l.point("after effect", step.Events)
	}
}

// Wait returns when every effect begun is finished.
func (l *Loop[S, E, F]) Wait() { l.running.Wait() }

func (l *Loop[S, E, F]) point(where string, events []E) {
	if l.Point == nil || len(events) == 0 {
		return
	}
	names := make([]string, len(events))
	for i, e := range events {
		names[i] = l.Name(e)
	}
	l.Point(where + " " + strings.Join(names, "+"))
}
