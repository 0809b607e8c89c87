// Package binance is the port on Binance USD-M futures, through go-binance, which no other package may use.
//
// Contract: one request of ours is at most one order there. Nothing that could act is ever sent twice, by us, the
// library or the transport; an answer that is not understood to its last field is Unknown; a query that is not
// answered whole is an error. Neither key nor signature appears in what it returns or logs.
package binance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/adshao/go-binance/v2/futures"
	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/ledger"
)

var _ exchange.Exchange = (*Binance)(nil)

// Options are all that the adapter is told.
type Options struct {
	RESTURL, StreamURL  string // without a slash at the end; see Hosts
	Credentials         Credentials
	RecvWindow, Timeout time.Duration // of a request: how late it may be executed, and how long it is waited for
	Patience            time.Duration // how long Open may wait where the exchange limits us
	ReadOnly            bool          // Place and CancelStop refuse before anything is signed
	Symbols             []string
	Bar                 time.Duration // see Interval
	Dial                func(ctx context.Context, network, addr string) (net.Conn, error)
	Log                 zerolog.Logger
}

// Where Binance is. The documentation named the demo stream host below in May 2026 and wss://demo-fstream.binance.com
// was seen in September; whether it serves the routed paths is unconfirmed, which doctor's stream check shows.
const (
	liveREST      = "https://fapi.binance.com"
	liveStream    = "wss://fstream.binance.com"
	liveAccount   = "https://api.binance.com"
	testnetREST   = "https://demo-fapi.binance.com"
	testnetStream = "wss://fstream.binancefuture.com"
)

// Hosts are the base URLs of a mode. A dry run reads the account that live would trade.
func Hosts(mode ledger.Mode) (rest, stream string) {
	switch mode {
	case ledger.Live, ledger.DryRun:
		return liveREST, liveStream
	case ledger.Testnet:
		return testnetREST, testnetStream
	default:
		return "", ""
	}
}

// RealMoney tells whether a base URL is one of Binance's own that is no demo.
func RealMoney(rest string) bool {
	u, err := url.Parse(rest)
	if err != nil {
		return true // Nobody knows.
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	return strings.HasSuffix("."+host, ".binance.com") && !strings.HasPrefix(host, "demo-")
}

// Interval is Binance's name of a bar's length, "" where it has no such bars.
func Interval(bar time.Duration) string {
	for _, name := range []string{"1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h"} {
		if d, err := time.ParseDuration(name); err == nil && d == bar {
			return name
		}
	}
	if bar == 24*time.Hour {
		return "1d"
	}
	return ""
}

// Binance is one account there.
type Binance struct {
	opt       Options
	log       zerolog.Logger
	interval  string
	transport *http.Transport
	http      *http.Client
	budget    *budget
	reading   atomic.Pointer[reading]
	remeasure chan struct{} // of one: the clock is in doubt
	rules     rules
	owners    *owners
	streams   *streams
	refusal   atomic.Pointer[Error] // the last answer that says: stop trading
	silence   atomic.Pointer[Error] // the last call, where it had no answer
	stop      context.CancelFunc
	running   sync.WaitGroup
}

// Open measures the clock, reads the markets' rules and proves the key. Its errors wrap ErrKey where the key is to blame.
func Open(ctx context.Context, opt Options) (*Binance, error) {
	b, err := build(opt)
	if err != nil {
		return nil, fmt.Errorf("open binance: %w", err)
	}
	if err := b.patient(ctx); err != nil {
		b.transport.CloseIdleConnections()
		return nil, fmt.Errorf("open binance: %w", err)
	}
	hard, stop := context.WithCancel(context.WithoutCancel(ctx))
	b.stop = stop
	b.running.Go(func() { b.keepTime(hard) })
	return b, nil
}

// build checks what was asked for; it does nothing that could be seen from outside.
func build(opt Options) (*Binance, error) {
	interval := Interval(opt.Bar)
	switch {
	case opt.RESTURL == "" || strings.HasSuffix(opt.RESTURL, "/"):
		return nil, fmt.Errorf("base URL %q is empty or ends in a slash", opt.RESTURL)
	case opt.Credentials.reveal == nil:
		return nil, fmt.Errorf("%w: there is none", ErrKey)
	case interval == "":
		return nil, fmt.Errorf("binance has no bars of %s", opt.Bar)
	case opt.RecvWindow <= 0 || opt.RecvWindow > time.Minute || opt.Timeout <= 0:
		return nil, errors.New("recvWindow and timeout must be positive, recvWindow at most a minute")
	}
	if opt.Dial == nil {
		opt.Dial = (&net.Dialer{Timeout: 3 * time.Second}).DialContext
	}
	b := &Binance{opt: opt, log: opt.Log, interval: interval, transport: newTransport(opt.Dial), remeasure: make(chan struct{}, 1)}
	b.http = newClient(b.transport)
	b.budget, b.owners = newBudget(b.Now), newOwners()
	b.streams = newStreams(streamOptions{
		base: opt.StreamURL, symbols: opt.Symbols, interval: interval, dial: opt.Dial, account: b, now: b.Now, log: opt.Log,
	})
	return b, nil
}

// patient begins, and where the exchange limits us waits for the end of that: a process that ends at once, and is started again
// and again, would feed the ban.
func (b *Binance) patient(ctx context.Context) error {
	until, told := time.Now().Add(b.opt.Patience), false
	for {
		err := b.begin(ctx)
		left, pause := time.Until(until), b.budget.health().PausedUntil.Sub(b.Now())
		if !errors.Is(err, ErrLimited) || left <= 0 {
			return err
		}
		if !told {
			told = true
			b.log.Warn().Err(err).Msgf("binance limits this address; the start waits for the end of it, at most %s", b.opt.Patience)
		}
		timer := time.NewTimer(min(left, max(pause, time.Second)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

func (b *Binance) begin(ctx context.Context) error {
	if err := b.measure(ctx); err != nil {
		return err
	}
	if _, err := b.Markets(ctx, b.opt.Symbols); err != nil {
		return err
	}
	_, err := b.account(ctx)
	return err
}

// Close ends the goroutines and the idle connections. What is being asked is still answered.
func (b *Binance) Close() error {
	b.stop()
	b.running.Wait()
	b.transport.CloseIdleConnections()
	return nil
}

// Health is how the adapter itself is.
type Health struct {
	Offset      time.Duration // exchange clock minus ours
	Uncertainty time.Duration // of the exchange clock
	MeasuredAt  time.Time     // exchange clock
	UsedWeight  int           // of this minute and address, as the exchange counts, others' requests included
	WeightLimit int
	OrderCount  string    // of the account in the last 10 s and minute, as the exchange counts
	PausedUntil time.Time // exchange clock: nothing is asked before; zero: it is
	Banned      bool      // the exchange named PausedUntil; otherwise it only refused, and we pause by ourselves
	Refusal     string    // the last answer that says: stop trading; "" where there was none
	Silence     string    // why the last call had no answer at all; "" where it had one
	Stream      StreamFacts

	NoOrdersUntil time.Time // exchange clock: orders alone are not sent before; zero: they are
	ClockInDoubt  bool      // too vague to send an order by
}

// Health tells it as of now.
func (b *Binance) Health() Health {
	h := b.budget.health()
	if r := b.reading.Load(); r != nil {
		h.Offset, h.Uncertainty, h.MeasuredAt = time.Until(r.now()), r.doubt(), r.server
	}
	h.ClockInDoubt = h.MeasuredAt.IsZero() || h.Uncertainty > clockDoubt
	if e := b.refusal.Load(); e != nil {
		h.Refusal = e.Error()
	}
	if e := b.silence.Load(); e != nil {
		h.Silence = e.Error()
	}
	h.Stream = b.streams.facts.read()
	return h
}

// client is a go-binance client for one call: the library reads its time offset without a lock, and a step of the
// host's clock between two calls must not matter.
func (b *Binance) client() *futures.Client {
	key, secret := b.opt.Credentials.reveal()
	c := futures.NewClient(key, secret)
	c.KeyType, c.BaseURL, c.HTTPClient = b.opt.Credentials.kind, b.opt.RESTURL, b.http
	c.TimeOffset = time.Now().UnixMilli() - b.Now().UnixMilli()
	return c
}

// do makes one call. It is nil only when the exchange answered 2xx, the answer was read whole, has the shape that
// was expected, and is no error in disguise; run's own opinion does not matter then.
func (b *Binance) do(ctx context.Context, c *call, run func(context.Context, *futures.Client) error) *Error {
	if err := b.budget.take(ctx, c, b.opt.Timeout); err != nil {
		return &Error{Call: c.what, limited: errors.Is(err, ErrLimited), cause: redact(err)}
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, callKey{}, c), b.opt.Timeout)
	defer cancel()
	c.now = b.Now
	err := run(ctx, b.client())
	e := c.outcome(err)
	b.budget.learn(c, e)
	b.answers(c, e)
	if e == nil {
		if r := b.refusal.Load(); r != nil && (c.order || r.Call == c.what) {
			b.refusal.CompareAndSwap(r, nil) // Whatever it was is over.
		}
		return nil
	}
	switch v := e.verdict(); {
	case v.stop:
		b.refusal.Store(e)
	case v.clock:
		b.doubtClock()
	}
	return e
}

// answers notes whether the exchange answers at all. What we did not send, or gave up ourselves, says nothing about it.
func (b *Binance) answers(c *call, e *Error) {
	switch {
	case c.status != 0:
		b.silence.Store(nil)
	case e != nil && c.refused == nil && !errors.Is(e, context.Canceled):
		b.silence.Store(e)
	}
}
