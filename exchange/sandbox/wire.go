package sandbox

import (
	"context"
	"net"
	"sync"
)

// Wire is a network in memory: the listener of one server, and the way to it. On it a
// sandbox and its client run in a synctest bubble, where a real socket would stop the clock.
type Wire struct {
	calls chan net.Conn
	gone  chan struct{}
	once  sync.Once
}

// NewWire makes a network to which nobody has connected yet.
func NewWire() *Wire { return &Wire{calls: make(chan net.Conn), gone: make(chan struct{})} }

// Accept implements net.Listener.
func (w *Wire) Accept() (net.Conn, error) {
	select {
	case c := <-w.calls:
		return c, nil
	case <-w.gone:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections live on.
func (w *Wire) Close() error {
	w.once.Do(func() { close(w.gone) })
	return nil
}

// Addr implements net.Listener.
func (w *Wire) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

// Dial connects to whoever accepts, whatever the address.
func (w *Wire) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case w.calls <- far:
		return near, nil
	case <-w.gone:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
