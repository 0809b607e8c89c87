// Package operator is where people and programs meet the chain: the control API with its
// views, the words for what happens, and the client and tables of the command line.
//
// Contract: it decides nothing about plans. What it changes are run state and operator's holds,
// as events decided on the state, and it answers only when they are durable. Everything else
// it hands to the stage that owns it. Views are pure functions of the state or of one plan,
// so that a running process and a file that nobody writes give the same answers.
package operator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/pipeline"
)

type (
	// Offer is a proposal that is owed planning's answer.
	Offer = pipeline.Request[ledger.Proposal, ledger.Receipt]
	// Flatten is the order to close what is held; it is answered with one receipt per position.
	Flatten = pipeline.Request[ledger.FlattenOrder, []ledger.Receipt]
	// Sync is the order to take the exchange's amount over.
	Sync = pipeline.Request[ledger.SyncOrder, ledger.SyncResult]
	// Settle is the operator's evidence about an order whose outcome is unknown.
	Settle = pipeline.Request[ledger.SettleOrder, ledger.SettleResult]
)

// ErrServe tells that the API cannot be served as configured.
var ErrServe = errors.New("the API cannot be served")

// Stage serves the control API on a unix socket and, where Listen is set, over TCP.
type Stage struct {
	Mode       ledger.Mode
	Version    string
	Config     string // the effective configuration
	Digest     string // and what identifies it
	Symbols    []string
	Store      *store.Store
	Board      *exchange.Board
	Clock      func() time.Time // the exchange's
	Offers     chan<- Offer     // to the exit-brain
	Flattens   chan<- Flatten   // to apply
	Syncs      chan<- Sync      // to reconcile
	Settles    chan<- Settle    // to apply
	Limits     func(*ledger.State, time.Time) []LimitView
	Tell       Teller                                                                           // decides a plan's gates again; nil: nobody does
	Brain      func(symbol string) []string                                                     // what the exit-brain says of a symbol, in words
	Exchange   func() *ExchangeView                                                             // how the way to it is; nil in mode paper
	Reload     func(ctx context.Context) (string, error)                                        // brings a changed configuration into force
	PaperTrade func(ctx context.Context, symbol string, side ledger.Side, qty ledger.Qty) error // nil unless the mode is paper
	Listen     string                                                                           // "": no TCP
	TokenFile  string                                                                           // "": no token
	Socket     string
	Elsewhere  string // of a file's views: the chains of other modes that run beside it
	Log        zerolog.Logger

	books     books // instead of Store: a file that nobody writes
	startedAt time.Time
	token     string
	pace      *pace
	stopping  <-chan struct{} // what only watches, or waits for an outcome, ends on it
}

// books is where views are taken from.
type books interface {
	View(ctx context.Context, fn func(*ledger.State, time.Time)) error
	Reader() *store.Reader
}

func (o *Stage) read() books {
	if o.books != nil {
		return o.books
	}
	return o.Store
}

// Limits of what one client may do to the process.
const (
	bodyMax       = 1 << 20
	headerMax     = 16 << 10
	requestsMax   = 128 // at once, per listener; the socket has its own, so that nobody keeps a kill out
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 2 * outcomeWait
	idleTimeout   = time.Minute
)

// Run works until it is stopped: softly, it takes no more requests and finishes those it has.
func (o *Stage) Run(stop pipeline.Stop) error {
	control, err := listenControl(o.Socket)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrServe, err)
	}
	listeners := map[net.Listener]http.Handler{control: o.begin(stop.Soft)}
	if o.Listen != "" {
		tcp, handler, err := o.listenTCP()
		if err != nil {
			return errors.Join(fmt.Errorf("%w: %w", ErrServe, err), control.Close())
		}
		listeners[tcp] = handler
		o.Log.Info().Str("address", tcp.Addr().String()).Msg("API listens over TCP")
	}
	o.Log.Info().Str("socket", o.Socket).Msg("API listens")
	failed := make(chan error, len(listeners))
	var servers []*http.Server
	var running sync.WaitGroup
	for l, handler := range listeners {
		s := o.server(stop.Hard, handler)
		servers = append(servers, s)
		running.Go(func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
		})
	}
	select {
	case <-stop.Soft:
	case <-stop.Hard.Done():
	case err = <-failed:
	}
	for _, s := range servers {
		if s.Shutdown(stop.Hard) != nil {
			_ = s.Close() // Told to leave now: what is still open is cut off.
		}
	}
	running.Wait()
	return err
}

// begin makes the handler of the control socket; stopping ends whoever only watches.
func (o *Stage) begin(stopping <-chan struct{}) http.Handler {
	o.startedAt, o.stopping, o.pace = time.Now(), stopping, &pace{last: map[string]time.Time{}}
	return limited(o.routes(true))
}

func (o *Stage) server(ctx context.Context, h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: headerMax, ErrorLog: log.New(o.Log.Level(zerolog.WarnLevel), "", 0),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
}

// listenControl opens the socket, and removes one that an earlier process left: only when nobody answers there.
func listenControl(path string) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		return nil, errors.Join(fmt.Errorf("control socket %s: another process answers there", path), conn.Close())
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove stale control socket: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open control socket (a path of %d bytes; 107 are possible): %w", len(path), err)
	}
	// The folder is 0700, so nobody else could have connected in between.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect control socket: %w", err), l.Close())
	}
	return l, nil
}

func (o *Stage) listenTCP() (net.Listener, http.Handler, error) {
	if o.TokenFile != "" {
		text, err := os.ReadFile(o.TokenFile)
		if err != nil {
			return nil, nil, fmt.Errorf("read http.token_file: %w", err)
		}
		if o.token = strings.TrimSpace(string(text)); o.token == "" {
			return nil, nil, fmt.Errorf("http.token_file %s is empty", o.TokenFile)
		}
	}
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, nil, fmt.Errorf("http.listen %s: %w", o.Listen, err)
	}
	return l, limited(o.guard(o.routes(false))), nil
}
