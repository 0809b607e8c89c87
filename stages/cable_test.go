package stages

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"permitchain/exchange/sandbox"
	"permitchain/pipeline"
)

// cable is the network between a chain and its sandbox in a bubble: it can be cut, as when a process is gone.
type cable struct {
	wire  *sandbox.Wire
	takes time.Duration // until what was said is heard

	mu    sync.Mutex // held for moments only
	conns []net.Conn
	down  bool
}

func (l *cable) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	l.mu.Lock()
	down := l.down
	l.mu.Unlock()
	if down {
		return nil, errors.New("the line is cut")
	}
	c, err := l.wire.Dial(ctx, network, addr)
	if err == nil {
		c = distant{c, l.takes}
		l.mu.Lock()
		l.conns = append(l.conns, c)
		l.mu.Unlock()
	}
	return c, err
}

func (l *cable) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for _, c := range l.conns {
		_ = c.Close() // What was written before has arrived, and nothing else will.
	}
	l.conns = nil
}

// distant is a connection on which answers take a while: a process may die with an order on its way.
type distant struct {
	net.Conn
	takes time.Duration
}

func (d distant) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	<-time.After(d.takes)
	return n, err
}

// inMemory is a sandbox in a bubble; the function it returns ends it.
func inMemory(dir string, o sandbox.Options) (w *wired, wire *sandbox.Wire, end func()) {
	o.Key, o.Secret = wiredKey, wiredSecret
	wire = sandbox.NewWire()
	w = &wired{sandbox: sandbox.New(o), path: filepath.Join(dir, LedgerFile)}
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{Handler: w.sandbox.Handler()}
	var served sync.WaitGroup
	served.Go(func() { _ = w.sandbox.Run(ctx) })
	served.Go(func() { _ = server.Serve(wire) })
	return w, wire, func() {
		cancel()
		_ = server.Close()
		served.Wait()
	}
}

// killer kills a chain as kill -9 would. The dead chain's goroutines can't be taken away: they go on, as ghosts, on a line
// that leads nowhere and a ledger that nobody will read.
type killer struct {
	cable   *cable
	of      string        // it strikes at points of such events; "": of any
	after   int           // those that are passed before it strikes; negative: it never does
	later   time.Duration // it strikes so long after the point; 0: whoever passes it stands still there
	reached chan struct{} // closed when it strikes
	release chan struct{} // closed when the ghost may go on
	mu      sync.Mutex
}

func newKiller(c *cable) *killer {
	return &killer{cable: c, after: -1, reached: make(chan struct{}), release: make(chan struct{})}
}

// point is the chain's crash point.
func (k *killer) point(name string) {
	if !strings.Contains(name, k.of) {
		return
	}
	k.mu.Lock()
	k.after--
	strikes, later := k.after == 0, k.later
	k.mu.Unlock()
	switch {
	case strikes && later > 0:
		time.AfterFunc(later, func() { close(k.reached) })
	case strikes:
		close(k.reached)
		<-k.release
	}
}

// kill takes the chain away: what its disk held, and what had arrived at the exchange, is all that is left.
func (w *wired) kill(k *killer, to string) error {
	synctest.Wait() // Nobody is in the middle of a write.
	image, err := os.ReadFile(w.path)
	k.cable.cut()
	close(k.release)
	w.cancel()
	if ghost := <-w.ended; errors.Is(ghost, pipeline.ErrHung) {
		err = errors.Join(err, ghost)
	}
	_ = w.binance.Close() // Nobody hears a ghost.
	w.path = to
	return errors.Join(err, os.WriteFile(to, image, 0o600))
}
