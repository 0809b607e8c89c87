package binance

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"permitchain/exchange/sandbox"
)

// memNet is a network in memory whose cables can be cut.
type memNet struct {
	*sandbox.Wire
	mu     sync.Mutex // guards cables
	cables []*cable
}

// cable is one connection. Once it is cut nothing arrives any more at either end, and neither is told.
type cable struct {
	cut  atomic.Bool
	asks atomic.Pointer[string] // the first line of what was sent on it
}

type memConn struct {
	net.Conn
	cable *cable
}

func (c *memConn) Write(b []byte) (int, error) {
	if c.cable.cut.Load() {
		return len(b), nil
	}
	if line, _, ok := bytes.Cut(b, []byte("\r\n")); ok {
		text := string(line)
		c.cable.asks.CompareAndSwap(nil, &text)
	}
	return c.Conn.Write(b)
}

// Read discards what arrives after the cut.
func (c *memConn) Read(b []byte) (int, error) {
	for {
		if n, err := c.Conn.Read(b); err != nil || !c.cable.cut.Load() {
			return n, err
		}
	}
}

func newMemNet() *memNet { return &memNet{Wire: sandbox.NewWire()} }

func (n *memNet) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	near, err := n.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := &cable{}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cables = append(n.cables, c)
	return &memConn{near, c}, nil
}

// cut cuts every connection that was opened by a request of some words.
func (n *memNet) cut(words string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.cables {
		if asks := c.asks.Load(); asks != nil && strings.Contains(*asks, words) {
			c.cut.Store(true)
		}
	}
}
