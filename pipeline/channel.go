package pipeline

import "context"

// Send gives v to ch unless stop comes first; it tells which.
func Send[T any](stop context.Context, ch chan<- T, v T) bool {
	select {
	case ch <- v:
		return true
	case <-stop.Done():
		return false
	}
}

// Bell wakes its one listener: rings that come before it has looked are one ring.
type Bell chan struct{}

// NewBell returns a silent bell.
func NewBell() Bell { return make(chan struct{}, 1) }

// Ring never waits.
func (b Bell) Ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

// Request is a value that is owed an answer. The obligation travels with it: whoever
// takes it answers once, or hands it on. Reply has room for the answer, so answering never waits.
type Request[Q, A any] struct {
	Value Q
	Reply chan A
}

// Ask makes a request.
func Ask[Q, A any](v Q) Request[Q, A] { return Request[Q, A]{v, make(chan A, 1)} }
