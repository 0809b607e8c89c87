// Package stages knows the whole graph: it makes every channel, starts every stage and
// ends them in order. No stage knows another.
//
//	channel    from → to                        capacity  when full
//	external   operator → exit-brain            16        the API answers 429
//	offers     exit-brain → apply               0         the brain waits; a newer proposal supersedes
//	flattens   operator → apply                 0         the operator waits
//	syncs      operator → reconcile             0         the operator waits
//	settles    operator → apply                 0         the operator waits
//	governed   apply → governor                 0         apply goes on with other work, and takes no more proposals past a bound
//	reconciled apply → reconcile                0         the same
//	permits    governor, reconcile → apply      0         the issuer waits
//	heard      stream → apply                   256       dropped: apply asks by REST all the same, only later
//	ask        apply, stream → reconcile        bell      rings before a look are one
//	arrived    reconcile → apply                bell      the same
//	bars       stream → exit-brain              256       dropped: the brain sees the gap and reads the past again
//	marked     stream → exit-brain              bell      rings before a look are one
//	changed    every stage's folded events → exit-brain  bell  the same
//	reloads    operator → exit-brain            0         the operator waits
//	board      stream, reconcile → all          latest    the old value is replaced; every reader checks its age
//	commits    every stage → ledger/store       256       the stage waits; group commit drains it
//	tail       ledger/store → operator          1,024     a slow subscriber is cut off and reads again
package stages

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"

	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/pipeline"
	"permitchain/stages/apply"
	"permitchain/stages/exitbrain"
	"permitchain/stages/governor"
	"permitchain/stages/operator"
	"permitchain/stages/reconcile"
)

// ErrExchange tells that the exchange, or the key to it, is what failed.
var ErrExchange = errors.New("exchange")

// Options are what a chain is started with.
type Options struct {
	Config  *Config
	Version string
	Log     zerolog.Logger
	Load    func() (*Config, error) // reads the configuration again, for a reload
	Hangup  <-chan os.Signal        // asks for a reload
	Point   func(string)            // crash points of a test; nil in production
	Verify  func(path string) error // checks a ledger that was not closed cleanly, in a process of its own
}

// Files of a mode, all in state_dir/<mode>.
const (
	LedgerFile = "ledger.db"
	BookFile   = "book.jsonl"
	SocketFile = "control.sock"
)

// ForeignLedger is what to do about a ledger of another mode, host or account.
const ForeignLedger = "a ledger is of one mode, host and account: go back to those, or take another state_dir"

// Dir is where a configuration keeps its state.
func (c *Config) Dir() string { return filepath.Join(c.StateDir, string(c.Mode)) }

// StoreOptions are how the ledger of a configuration is opened by who only reads it, or stops what runs on it: of
// which account it is, only the chain has to know.
func (c *Config) StoreOptions() store.Options {
	o := store.Options{Mode: c.Mode, Keep: c.Apply.DedupeTTL}
	if c.Mode == ledger.Paper {
		o.Host, o.Account = "paper", "paper"
	}
	return o
}

// The capacity of external proposals, and the bounds of a stop.
const (
	externalMax  = 16
	barsMax      = 256             // bars that the brain has not looked at; of more it is told by a gap
	heardMax     = 256             // orders and trades that apply has not looked at
	stopDeadline = 2 * time.Second // paper answers at once; a real exchange needs recv_window more
)

// Run starts the chain and returns when it has stopped: after ctx is done, or with what failed first.
func Run(ctx context.Context, o Options) error {
	cfg := o.Config
	a, err := accountOf(cfg)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Dir(), 0o700); err != nil {
		return fmt.Errorf("make state folder: %w", err)
	}
	so := cfg.StoreOptions()
	so.Host, so.Account, so.Verify = a.host, a.tail, o.Verify
	st, err := store.Open(filepath.Join(cfg.Dir(), LedgerFile), so)
	if errors.Is(err, store.ErrForeign) {
		return fmt.Errorf("%w: %s", err, ForeignLedger)
	}
	if err != nil {
		return err
	}
	x, err := a.open(ctx, o)
	if err != nil {
		return errors.Join(fmt.Errorf("%w: %w", ErrExchange, err), closeStore(st))
	}
	markets, err := o.markets(ctx, x)
	if err != nil {
		return errors.Join(fmt.Errorf("%w: %w", ErrExchange, err), closeStore(st), x.Close())
	}
	c := newChain(o, st, x, markets, x.trade)
	c.health = x.view
	err = c.group(c.operator().Run).Run(ctx)
	return errors.Join(err, x.Close())
}

// markets are the rules of the symbols. One that the exchange doesn't trade keeps nobody else from being closed, all of them do.
func (o Options) markets(ctx context.Context, x exchange.Exchange) (map[string]exchange.Market, error) {
	markets, err := x.Markets(ctx, o.Config.SymbolNames())
	if err == nil && len(markets) == 0 {
		err = fmt.Errorf("it trades none of %s", strings.Join(o.Config.SymbolNames(), ", "))
	}
	for _, symbol := range o.Config.SymbolNames() {
		if _, traded := markets[symbol]; err == nil && !traded {
			o.Log.Error().Str("symbol", symbol).Msg("the exchange does not trade this symbol: nothing of it will be closed; correct symbols, or look at the exchange")
		}
	}
	return markets, err
}

// closeStore ends a store that no chain will run.
func closeStore(st *store.Store) error {
	soft := make(chan struct{})
	close(soft)
	return st.Run(pipeline.Stop{Soft: soft, Hard: context.Background()})
}

// chain is what the stages are made of: what they share, and the channels by which work enters.
type chain struct {
	Options
	store      *store.Store
	exchange   exchange.Exchange
	board      *exchange.Board
	paperTrade func(context.Context, string, ledger.Side, ledger.Qty) error
	health     func() *operator.ExchangeView // nil in mode paper
	booted     chan struct{}                 // closed when the ledger knows of this process
	external   chan exitbrain.Offer
	flattens   chan apply.Flatten
	syncs      chan reconcile.Sync
	settles    chan apply.Settle
	reloads    chan exitbrain.Reload
	asked      chan reloadRequest // for a reload, by the operator
	deaf       chan struct{}      // closed when no reload is taken up any more
	inForce    *Config            // the configuration since the last reload; only serveReloads looks at it
	bars       chan ledger.Bar
	heard      chan exchange.StreamEvent
	marked     pipeline.Bell
	changed    pipeline.Bell
	views      exitbrain.Views
}

func newChain(o Options, st *store.Store, x exchange.Exchange, markets map[string]exchange.Market,
	trade func(context.Context, string, ledger.Side, ledger.Qty) error,
) *chain {
	return &chain{
		Options: o, inForce: o.Config, store: st, exchange: x, board: exchange.NewBoard(markets), paperTrade: trade, booted: make(chan struct{}),
		external: make(chan exitbrain.Offer, externalMax), flattens: make(chan apply.Flatten), syncs: make(chan reconcile.Sync), settles: make(chan apply.Settle),
		reloads: make(chan exitbrain.Reload), asked: make(chan reloadRequest), deaf: make(chan struct{}), bars: make(chan ledger.Bar, barsMax),
		heard: make(chan exchange.StreamEvent, heardMax), marked: pipeline.NewBell(), changed: pipeline.NewBell(),
	}
}

// group makes the stages and the channels between them, in the order in which the stages stop.
func (c *chain) group(operate func(pipeline.Stop) error) *pipeline.Group {
	offers := make(chan apply.Offer)
	governed, reconciled, permits := make(chan ledger.PlanID), make(chan ledger.PlanID), make(chan ledger.PlanID)
	ask, arrived := pipeline.NewBell(), pipeline.NewBell()
	brain := &exitbrain.Stage{
		Configs: c.Config.brains(), Exchange: c.exchange, Board: c.board, Loop: loop[struct{}](c, nil), External: c.external, Offers: offers,
		Bars: c.bars, Marked: c.marked, Changed: c.changed, Reloads: c.reloads, Views: &c.views, Log: c.log("exit-brain"),
	}
	app := &apply.Stage{
		Rules: c.Config.ApplyRules, Exchange: c.exchange, Board: c.board, Offers: offers, Flattens: c.flattens, Settles: c.settles, Heard: c.heard, Governor: governed,
		Reconcile: reconciled, Permits: permits, Arrived: arrived, Ask: ask, Log: c.log("apply"),
	}
	app.Loop = loop(c, app.Perform)
	gov := &governor.Stage{Rules: c.Config.GovernorRules, Global: c.Config.Governor, Loop: loop[struct{}](c, nil), Plans: governed, Permits: permits}
	rec := &reconcile.Stage{
		Config:   func(symbol string) reconcile.Config { return c.Config.For(symbol).Reconcile },
		Interval: c.Config.Reconcile.SnapshotInterval, Symbols: c.Config.SymbolNames(), Exchange: c.exchange, Board: c.board,
		Plans: reconciled, Permits: permits, Syncs: c.syncs, Ask: ask, Arrived: arrived, Log: c.log("reconcile"),
	}
	rec.Loop = loop(c, rec.Perform)

	g := &pipeline.Group{Deadline: stopDeadline}
	if c.Config.Mode != ledger.Paper {
		g.Deadline += c.Config.Exchange.RecvWindow
	}
	g.Add("boot", c.boot)
	g.Add("operator", c.after(operate))     // first: no new orders of the operator's, no new proposals
	g.Add("exit-brain", c.after(brain.Run)) // then its own proposals
	g.Add("apply", c.after(app.Run))        // while its permits still come, and until its orders are answered
	g.Add("governor", c.after(gov.Run))     // nobody asks it any more
	g.Add("reconcile", c.after(rec.Run))
	g.Add("stream", c.after(func(stop pipeline.Stop) error { return c.stream(stop, ask) }))
	narrator := &operator.Narrator{Store: c.store, Log: c.log("journal")}
	g.Add("narrator", c.after(narrator.Run)) // it says what all before it did
	g.Add("ledger", c.store.Run)             // last: every stage before it may still append
	return g
}

// operator is the stage that people and programs talk to.
func (c *chain) operator() *operator.Stage {
	return &operator.Stage{
		Mode: c.Config.Mode, Version: c.Version, Config: string(c.Config.Effective()), Digest: c.Config.Digest(), Symbols: c.Config.SymbolNames(),
		Store: c.store, Board: c.board, Clock: c.exchange.Now, Offers: c.external, Flattens: c.flattens, Syncs: c.syncs, Settles: c.settles,
		Limits: c.Config.Limits, Tell: Tell, Brain: c.views.Of, Exchange: c.health, Reload: c.Reload, PaperTrade: c.paperTrade, Listen: c.Config.HTTP.Listen, TokenFile: c.Config.HTTP.TokenFile,
		Socket: filepath.Join(c.Config.Dir(), SocketFile), Log: c.log("operator"),
	}
}

func (c *chain) log(stage string) zerolog.Logger { return c.Log.With().Str("stage", stage).Logger() }

// loop is a stage's loop on the chain's ledger.
func loop[F any](c *chain, perform func(context.Context, F)) *pipeline.Loop[*ledger.State, ledger.Event, F] {
	return &pipeline.Loop[*ledger.State, ledger.Event, F]{
		Journal: c.store, Perform: perform, Point: c.Point, Name: func(e ledger.Event) string { return string(e.Kind()) }, Folded: c.folded,
	}
}

// folded wakes the brain when what it judges may have changed.
func (c *chain) folded(events []ledger.Event) {
	for _, e := range events {
		switch e.Kind() {
		case ledger.KindFillBooked, ledger.KindLedgerOpened, ledger.KindLedgerAdjusted, ledger.KindLedgerResidual, ledger.KindStepGranted,
			ledger.KindStepEnded, ledger.KindIntentAnswered, ledger.KindStopGone:
			c.changed.Ring()
		default: // Says nothing about what is held.
		}
	}
}

// after holds a stage back until the ledger knows of this process.
func (c *chain) after(run func(pipeline.Stop) error) func(pipeline.Stop) error {
	return func(stop pipeline.Stop) error {
		select {
		case <-c.booted:
			if err := run(stop); !errors.Is(err, store.ErrHalted) {
				return err
			}
			return nil // The ledger itself says why it halted, once.
		case <-stop.Soft:
			return nil
		}
	}
}

// boot writes down that this process has begun, and with what, before any stage decides.
func (c *chain) boot(stop pipeline.Stop) error {
	opening, err := c.opening(stop.Hard)
	if err != nil {
		return stop.Done(err)
	}
	commit, err := c.store.Decide(stop.Hard, func(s *ledger.State, _ time.Time) []ledger.Event {
		var events []ledger.Event
		digest := c.Config.Digest()
		if s.Control.Config != digest {
			events = append(events, &ledger.ConfigUsed{Digest: digest, Text: string(c.Config.Effective())})
		}
		fresh := s.Control.Instance == 0
		events = append(events, &ledger.Started{Instance: s.Control.Instance + 1, Version: c.Version, Mode: c.Config.Mode, Config: digest})
		if fresh && c.Config.Mode == ledger.Live && s.Control.RunState == ledger.Armed {
			events = append(events, &ledger.RunStateChanged{
				From: ledger.Armed, To: ledger.Disarmed, Who: "permitchain",
				Why: "a new live ledger starts disarmed: look at status, then rearm --to armed",
			})
		}
		return append(events, opening...)
	})
	if err == nil {
		err = commit.Wait(stop.Hard)
	}
	if err != nil {
		return stop.Done(err)
	}
	close(c.booted)
	return c.serveReloads(stop)
}

// opening is the ledger that paper.ledger gives a new one, so that drift can be shown.
func (c *chain) opening(ctx context.Context) ([]ledger.Event, error) {
	begun := false
	if err := c.store.View(ctx, func(s *ledger.State, _ time.Time) { begun = s.Control.Instance > 0 }); err != nil || begun {
		return nil, err
	}
	if c.Config.Mode != ledger.Paper || len(c.Config.Paper.Ledger) == 0 {
		return nil, nil
	}
	snap, err := c.exchange.Snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrExchange, err)
	}
	var events []ledger.Event
	for _, k := range slices.SortedFunc(maps.Keys(c.Config.Paper.Ledger), ledger.Key.Compare) {
		cursor, err := c.exchange.LastTradeID(ctx, k.Symbol)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrExchange, err)
		}
		holding := ledger.Holding{Key: k, Amount: c.Config.Paper.Ledger[k], Entry: snap.Of(k).Entry}
		events = append(events, &ledger.LedgerOpened{Holding: holding, Cursor: cursor, By: "paper.ledger"})
	}
	return events, nil
}

// stream puts what the exchange says unasked on the board.
func (c *chain) stream(stop pipeline.Stop, ask pipeline.Bell) error {
	ctx, cancel := context.WithCancel(stop.Hard)
	defer cancel()
	go func() {
		select {
		case <-stop.Soft:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := c.exchange.Stream(ctx, func(e exchange.StreamEvent) {
		if e.Mark != nil {
			c.board.PutMark(*e.Mark)
			c.marked.Ring()
		}
		if e.Bar != nil {
			select {
			case c.bars <- *e.Bar:
			default:
			}
		}
		if e.Order != nil || e.Trade != nil {
			select {
			case c.heard <- e:
			default:
			}
		}
		if e.Changed != nil {
			ask.Ring()
		}
	})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrExchange, err)
}
