package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// Stop is how a stage is asked to end. Soft is closed first: finish what you have,
// take no more. Hard is done later, if it comes to that: leave now.
type Stop struct {
	Soft <-chan struct{}
	Hard context.Context
}

// Done is what a stage returns of an error it met: none when it was told to leave, since
// then everything it waits for gives up.
func (s Stop) Done(err error) error {
	if s.Hard.Err() != nil {
		return nil
	}
	return err
}

// Group runs stages side by side and ends them in the order they were added: the
// first stage to fail, or the end of the context, stops them all. Run returns only
// when every stage has returned, or has proved that it never will.
type Group struct {
	// Deadline bounds the whole stop; at three quarters of it Hard is given to all.
	Deadline time.Duration
	stages   []*member
}

type member struct {
	name string
	run  func(Stop) error
	soft chan struct{}
	done chan struct{}
	err  error
}

// Add appends a stage. It is stopped after those before it and before those after it.
func (g *Group) Add(name string, run func(Stop) error) {
	g.stages = append(g.stages, &member{name: name, run: run, soft: make(chan struct{}), done: make(chan struct{})})
}

// ErrHung tells that a stage did not return by the deadline; the error's text holds every goroutine's stack.
var ErrHung = errors.New("stages did not stop")

// Run starts every stage and returns when all have ended, with what they failed of.
func (g *Group) Run(ctx context.Context) error {
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	ended := make(chan struct{}, len(g.stages))
	for _, m := range g.stages {
		go func() {
			defer func() { close(m.done); ended <- struct{}{} }()
			if err := m.run(Stop{m.soft, hard}); err != nil {
				m.err = fmt.Errorf("%s: %w", m.name, err)
			}
		}()
	}
	select {
	case <-ctx.Done():
	case <-ended: // A stage that ends unasked, even without an error, leaves a chain that is not whole.
	}
	hung := g.stop(cancel)
	var errs []error
	for _, m := range g.stages {
		select {
		case <-m.done:
			errs = append(errs, m.err)
		default:
		}
	}
	return errors.Join(append(errs, hung)...)
}

// stop gives Soft to one stage after the other, Hard to all when grace is over, and waits.
func (g *Group) stop(cancel func()) error {
	grace := time.NewTimer(g.Deadline * 3 / 4)
	defer grace.Stop()
	end := time.NewTimer(g.Deadline)
	defer end.Stop()
	late := grace.C
	for _, m := range g.stages {
		close(m.soft)
		for stopped := false; !stopped; {
			select {
			case <-m.done:
				stopped = true
			case <-late:
				cancel()
				late = nil
			case <-end.C:
				stacks := make([]byte, 1<<20)
				return fmt.Errorf("%w: %s still runs\n%s", ErrHung, m.name, stacks[:runtime.Stack(stacks, true)])
			}
		}
	}
	return nil
}
