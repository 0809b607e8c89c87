package binance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// What a socket may take, and how long.
const (
	handshakeMax = 10 * time.Second
	messageMax   = 1 << 20 // bytes
	replyMax     = 5 * time.Second
	overlap      = 5 * time.Second  // for which a socket that was replaced still delivers
	stable       = time.Minute      // a socket that lived so long starts the waiting between attempts anew
	waitFirst    = time.Second / 2  // between attempts; doubled each time
	waitMost     = 30 * time.Second //
)

// line is a socket that stays up: it is dialled again when it dies, and replaced before it is too old, the new one
// first. What was said in between is lost, and it says so.
type line struct {
	name   string
	dialer *websocket.Dialer
	facts  *facts
	target func(context.Context) (string, error) // where to; asked before each dialling
	life   time.Duration                         // of one socket
	quiet  time.Duration                         // a socket that proved nothing for so long is dead
	ping   time.Duration                         // how often the other end is asked whether it lives; 0: never
	proof  func(raw []byte) bool                 // the messages that prove a socket useful; nil: any frame does
	fatal  func(error) bool                      // the errors after which no attempt will ever do
	renew  chan struct{}                         // of capacity 1: replace the socket now
	out    chan<- heard
}

// heard is what a line tells its owner.
type heard struct {
	line *line
	raw  []byte // a message; nil: the socket has come up, or has gone
	up   bool
}

// run keeps the line up until ctx is done, or an error that is fatal.
func (l *line) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	var serving *link
	for attempt := 0; backOff(ctx, attempt); attempt++ {
		began := time.Now()
		select {
		case <-l.renew: // What was asked for is about to happen.
		default:
		}
		next, err := l.connect(ctx)
		if err != nil && ctx.Err() == nil {
			l.facts.failed(l.name, err)
			if l.fatal(err) {
				return err
			}
		}
		if err != nil {
			continue // The one that serves still does, if it lives.
		}
		readers.Go(func() { next.read(ctx) })
		if serving != nil {
			serving.retire()
		}
		serving = next
		if l.tell(ctx, heard{line: l, up: true}) {
			l.stay(ctx, serving)
		}
		if time.Since(began) >= stable {
			attempt = -1
		}
	}
	return ctx.Err()
}

// stay returns when it is time for another socket: this one died, is old, or was asked to be replaced.
func (l *line) stay(ctx context.Context, k *link) {
	old := time.NewTimer(l.life - rand.N(l.life/20)) // Not all sockets of the world at once.
	defer old.Stop()
	select {
	case <-ctx.Done():
	case <-k.dead:
	case <-old.C:
		l.facts.rolled(l.name)
	case <-l.renew:
		l.facts.rolled(l.name)
	}
}

// backOff waits before another attempt: not at all before the first, and then up to twice as long each time.
func backOff(ctx context.Context, attempt int) bool {
	if attempt == 0 {
		return ctx.Err() == nil
	}
	most := min(waitFirst<<min(attempt, 10), waitMost)
	t := time.NewTimer(most/2 + rand.N(most/2))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (l *line) tell(ctx context.Context, h heard) bool {
	select {
	case l.out <- h:
		return true
	case <-ctx.Done():
		return false
	}
}

// again asks for another socket.
func (l *line) again() {
	select {
	case l.renew <- struct{}{}:
	default: // It was asked already.
	}
}

// link is one socket.
type link struct {
	line    *line
	conn    *websocket.Conn
	dead    chan struct{}
	retired chan struct{} // it was replaced: that it ends is no news
	quiet   time.Duration // the reader's
	proven  time.Time     // the reader's: when it last was
}

func (l *line) connect(ctx context.Context) (*link, error) {
	target, err := l.target(ctx)
	if err != nil {
		return nil, err
	}
	conn, answer, err := l.dialer.DialContext(ctx, target, nil)
	if answer != nil {
		defer func() { _ = answer.Body.Close() }()
	}
	if errors.Is(err, websocket.ErrBadHandshake) {
		err = fmt.Errorf("%w: status %d", err, answer.StatusCode)
	}
	if err != nil {
		return nil, fmt.Errorf("dial the %s stream: %w", l.name, redact(err))
	}
	return &link{line: l, conn: conn, dead: make(chan struct{}), retired: make(chan struct{})}, nil
}

// retire lets the socket deliver a little longer, and then ends it.
func (k *link) retire() {
	close(k.retired)
	time.AfterFunc(overlap, func() { _ = k.conn.Close() })
}

// read passes on what the socket says until it ends. The end of ctx closes it at once.
func (k *link) read(ctx context.Context) {
	defer close(k.dead)
	closing := context.AfterFunc(ctx, func() { _ = k.conn.Close() })
	defer closing()
	defer func() { _ = k.conn.Close() }()
	k.line.facts.up(k.line.name)
	err := k.listen(ctx)
	k.line.facts.down(k.line.name)
	select {
	case <-k.retired:
	case <-ctx.Done():
	default:
		k.line.facts.failed(k.line.name, err)
		k.line.facts.lost(k.line.name)
		k.line.tell(ctx, heard{line: k.line})
	}
}

func (k *link) listen(ctx context.Context) error {
	l := k.line
	k.conn.SetReadLimit(messageMax)
	k.quiet, k.proven = max(l.quiet, firstPong), time.Now()
	k.conn.SetPingHandler(func(data string) error {
		k.frame()
		err := k.conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(replyMax))
		if errors.Is(err, websocket.ErrCloseSent) || isTimeout(err) {
			return nil // Whether the other end still listens is for the silence to tell.
		}
		return err
	})
	k.conn.SetPongHandler(func(string) error {
		k.quiet = l.quiet
		k.frame()
		return nil
	})
	if l.ping > 0 {
		pinging, stop := context.WithCancel(ctx)
		var pinger sync.WaitGroup
		defer pinger.Wait()
		defer stop()
		defer func() { _ = k.conn.Close() }() // A pinger that is writing ends with it.
		pinger.Go(func() { k.pinging(pinging) })
	} else {
		k.quiet = l.quiet
	}
	for {
		if err := k.conn.SetReadDeadline(k.proven.Add(k.quiet)); err != nil {
			return err
		}
		_, raw, err := k.conn.ReadMessage()
		if err != nil {
			return err
		}
		if !l.tell(ctx, heard{line: l, raw: raw}) {
			return ctx.Err()
		}
		if l.proof == nil || l.proof(raw) {
			k.proven = time.Now()
		}
	}
}

// firstPong is how long a socket may be silent before its other end has once answered a ping: the exchange sends a
// ping of its own every three minutes, and one that does not answer ours is not dead.
const firstPong = 4 * time.Minute

// frame is called by the reader's handlers: any frame but a message came.
func (k *link) frame() {
	if k.line.proof == nil {
		k.proven = time.Now()
		_ = k.conn.SetReadDeadline(k.proven.Add(k.quiet)) // A connection that takes no deadline is closed, and the next read tells.
	}
}

// pinging asks the other end whether it is there: at once, and then again and again, and never in step with the pings
// of the other end: two that cross on a path that holds nothing would wait for each other.
func (k *link) pinging(ctx context.Context) {
	for {
		if k.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(replyMax)) != nil {
			return // The silence that follows tells.
		}
		t := time.NewTimer(k.line.ping - rand.N(k.line.ping/5))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// newDialer makes sockets by way of dial.
func newDialer(dial func(context.Context, string, string) (net.Conn, error)) *websocket.Dialer {
	return &websocket.Dialer{HandshakeTimeout: handshakeMax, NetDialContext: dial}
}
