package stages

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange/binance"
	"permitchain/exchange/sandbox"
	"permitchain/exchange/venue"
	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/pipeline"
)

// wired is the whole chain on the real client, against a sandbox: in real time over real sockets, where what is between
// them is what is between the program and Binance, or over a line in a bubble. It reports by errors: hundreds of them run at once.
type wired struct {
	*chain
	sandbox *sandbox.Sandbox
	server  *httptest.Server // nil: dial leads to the sandbox
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	point   func(string) // crash points; nil: none
	binance *binance.Binance
	path    string
	cancel  context.CancelFunc
	ended   chan error
	end     context.CancelFunc // of the sandbox
}

const (
	wiredKey    = "wired-key-of-a-test-0001"
	wiredSecret = "wired-secret-of-a-test-0001"
)

// wiredConfig makes everything quick that the configuration can: a doubtful order is certain after three seconds of fence and three of asking.
const wiredConfig = `
mode: testnet
exchange: {recv_window: 500ms, timeout: 1s}
exit_brain: {enabled: false}
governor: {disarm_errors: 1000, max_per_hour: 1000, max_per_5min: 1000, protective_per_hour: 1000}
reconcile: {snapshot_interval: 1s, stale_after: 4s, cooldown: 1s}
`

// newWired makes the sandbox alone; begin starts a chain on it.
func newWired(dir string, o sandbox.Options) *wired {
	o.Key, o.Secret = wiredKey, wiredSecret
	s := sandbox.New(o)
	ctx, end := context.WithCancel(context.Background())
	go func() { _ = s.Run(ctx) }() // It ends when it is told to.
	return &wired{sandbox: s, server: httptest.NewServer(s.Handler()), path: filepath.Join(dir, LedgerFile), end: end}
}

// begin starts a chain on the sandbox, and on the ledger that an earlier one left.
func (w *wired) begin(defaults []byte, config string, log zerolog.Logger) error {
	c, err := ParseConfig(defaults, "test.yaml", []byte(wiredConfig))
	if err == nil && config != "" {
		c, err = ParseConfig(c.Effective(), "test.yaml", []byte(config))
	}
	if err != nil {
		return err
	}
	credentials, err := binance.NewCredentials(wiredKey, wiredSecret)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	url := "http://sandbox"
	if w.server != nil {
		url = w.server.URL
	}
	x, err := binance.Open(ctx, binance.Options{
		RESTURL: url, StreamURL: "ws" + strings.TrimPrefix(url, "http"), Credentials: credentials, Dial: w.dial,
		RecvWindow: c.Exchange.RecvWindow, Timeout: c.Exchange.Timeout, Symbols: c.SymbolNames(), Bar: c.ExitBrain.Bar, Log: log,
	})
	if err != nil {
		cancel()
		return err
	}
	markets, err := x.Markets(ctx, c.SymbolNames())
	if err != nil {
		cancel()
		return errors.Join(err, x.Close())
	}
	so := c.StoreOptions()
	so.Host, so.Account = "sandbox", "0001"
	st, err := store.Open(w.path, so)
	if err != nil {
		cancel()
		return errors.Join(err, x.Close())
	}
	w.chain = newChain(Options{Config: c, Version: "test", Log: log, Point: w.point}, st, x, markets, nil)
	w.binance, w.cancel, w.ended = x, cancel, make(chan error, 1)
	group := w.group(func(stop pipeline.Stop) error { <-stop.Soft; return nil })
	go func() { w.ended <- group.Run(ctx) }()
	return nil
}

// stop ends the chain as a signal would, and checks its ledger.
func (w *wired) stop() error {
	w.cancel()
	err := errors.Join(<-w.ended, w.binance.Close())
	report, broken := store.Verify(w.path)
	if broken == nil && (report.Chain != "ok" || report.Fold != "ok") {
		broken = fmt.Errorf("verify: %+v", report)
	}
	return errors.Join(err, broken, decidedAgain(w.path))
}

// close ends the sandbox.
func (w *wired) close() {
	w.end()
	w.server.CloseClientConnections()
	w.server.Close()
}

// until looks at the ledger until it pleases.
func (w *wired) until(within time.Duration, what string, pleases func(*ledger.State) bool) error {
	deadline := time.After(within)
	for {
		ok := false
		if err := w.store.View(context.Background(), func(s *ledger.State, _ time.Time) { ok = pleases(s) }); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if ok {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			return fmt.Errorf("not within %s: %s: %s", within, what, w.account())
		}
	}
}

// held is what the exchange holds.
func (w *wired) held() (held []ledger.Holding) {
	_ = w.sandbox.Do(func(v *venue.Venue, _ time.Time) (venue.Change, error) { // Looking changes nothing, and can't fail.
		held = v.Holdings()
		return venue.Change{}, nil
	})
	return held
}

// open are our orders and stops that could still execute on the exchange.
func (w *wired) open() (ids []string) {
	_ = w.sandbox.Do(func(v *venue.Venue, _ time.Time) (venue.Change, error) {
		orders, stops := v.Open()
		for _, o := range orders {
			if ledger.OfOurForm(o.ClientOrderID) {
				ids = append(ids, o.ClientOrderID)
			}
		}
		for _, s := range stops {
			ids = append(ids, s.ClientAlgoID)
		}
		return venue.Change{}, nil
	})
	return ids
}

// others are the open orders that somebody else sent.
func (w *wired) others() (others []venue.Order) {
	_ = w.sandbox.Do(func(v *venue.Venue, _ time.Time) (venue.Change, error) {
		orders, _ := v.Open()
		for _, o := range orders {
			if !ledger.OfOurForm(o.ClientOrderID) {
				others = append(others, o)
			}
		}
		return venue.Change{}, nil
	})
	return others
}

// account is what exchange and ledger hold, for messages.
func (w *wired) account() string {
	var b strings.Builder
	fmt.Fprintf(&b, "exchange %v;", w.held())
	_ = w.store.View(context.Background(), func(s *ledger.State, _ time.Time) { // A message tells what it can.
		for _, k := range s.Keys() {
			fmt.Fprintf(&b, " ledger %s %s", k, s.Positions[k].Amount)
		}
		for k, holds := range s.Holds {
			fmt.Fprintf(&b, " hold on %s: %v", k, holds)
		}
		for _, i := range s.Unresolved() {
			fmt.Fprintf(&b, " %s %s %s", i.ClientOrderID, i.State, i.Message)
		}
		for _, p := range s.Plans {
			fmt.Fprintf(&b, " %s %s %s %v", p.ID.Short(), p.Proposal.Action, p.Fate(), p.Error)
		}
		fmt.Fprintf(&b, " %s", s.Control.RunState)
	})
	return b.String()
}

// ask sends a proposal, computed now.
func (w *wired) ask(p ledger.Proposal) (ledger.PlanID, error) {
	p.ComputedAt = w.exchange.Now().Truncate(time.Millisecond)
	p.Source = ledger.FromExternal
	o := pipeline.Ask[ledger.Proposal, ledger.Receipt](p)
	select {
	case w.external <- o:
	case <-time.After(10 * time.Second):
		return "", errors.New("nobody takes proposals")
	}
	select {
	case r := <-o.Reply:
		return r.ID, nil
	case <-time.After(30 * time.Second):
		return "", errors.New("no receipt")
	}
}

// ended waits for what becomes of a plan.
func (w *wired) outcome(id ledger.PlanID, within time.Duration) error {
	return w.until(within, "the end of plan "+id.Short(), func(s *ledger.State) bool {
		p := s.Plans[id]
		return p == nil || p.Outcome.Final()
	})
}

// settled tells whether nothing is open, and ledger and exchange hold the same.
func (w *wired) settled(s *ledger.State) bool {
	if len(s.Unresolved()) > 0 || len(s.OpenPlans()) > 0 {
		return false
	}
	held := w.held()
	for _, h := range held {
		if pos := s.Positions[h.Key]; pos == nil || !pos.Amount.Equal(h.Amount) {
			return false
		}
	}
	for k, pos := range s.Positions {
		known := slices.ContainsFunc(held, func(h ledger.Holding) bool { return h.Key == k })
		if !known && !pos.Amount.IsZero() {
			return false
		}
	}
	return true
}

// verdict is what the sandbox's own order log says of ours, and what it says of each grant.
func (w *wired) verdict() []string {
	promised := map[string]ledger.Qty{}
	var wrong []string
	executed := w.sandbox.Executed()
	err := w.store.View(context.Background(), func(s *ledger.State, _ time.Time) {
		for id, i := range s.Intents {
			promised[id] = i.Qty
		}
		for _, p := range s.Plans {
			for _, step := range p.Steps {
				var took ledger.Qty
				for _, id := range step.Orders {
					took = took.Add(executed[id])
				}
				if step.Kind == ledger.CloseStep && step.Grant != nil && step.Grant.Qty.Less(took) {
					wrong = append(wrong, fmt.Sprintf("plan %s executed %s, granted %s", p.ID, took, step.Grant.Qty))
				}
			}
		}
	})
	if err != nil {
		wrong = append(wrong, err.Error())
	}
	for id := range executed {
		if _, known := promised[id]; ledger.OfOurForm(id) && !known {
			wrong = append(wrong, id+" executed, and the ledger never promised it")
		}
	}
	return append(wrong, w.sandbox.Verdict(promised)...)
}
