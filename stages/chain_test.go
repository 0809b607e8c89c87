package stages

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/exchange/paper"
	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/pipeline"
)

// rig is the whole chain on the paper exchange, in virtual time, without the operator's sockets.
type rig struct {
	*chain
	t       *testing.T
	paper   *paper.Paper
	hostile *hostile
	cancel  context.CancelFunc
	ended   chan error
	path    string
	stopped bool
}

// hostile is an exchange between the chain and the real one that can be told to misbehave.
type hostile struct {
	exchange.Exchange
	noSnapshots, noMarks atomic.Bool
	log                  zerolog.Logger                                               // of the whole chain; it says nothing unless a test wants it
	place                func(exchange.Order, func() exchange.Answer) exchange.Answer // nil: as it is

	mu   sync.Mutex // orders are sent on goroutines of their own
	sent []exchange.Order
}

// orders are what was sent so far.
func (h *hostile) orders() []exchange.Order {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.sent)
}

func (h *hostile) Snapshot(ctx context.Context) (ledger.Snapshot, error) {
	if h.noSnapshots.Load() {
		return ledger.Snapshot{}, errors.New("the line is dead")
	}
	return h.Exchange.Snapshot(ctx)
}

func (h *hostile) Stream(ctx context.Context, emit func(exchange.StreamEvent)) error {
	return h.Exchange.Stream(ctx, func(e exchange.StreamEvent) {
		if e.Mark == nil || !h.noMarks.Load() {
			emit(e)
		}
	})
}

func (h *hostile) Place(ctx context.Context, o exchange.Order) exchange.Answer {
	h.mu.Lock()
	h.sent = append(h.sent, o)
	h.mu.Unlock()
	if h.place != nil {
		return h.place(o, func() exchange.Answer { return h.Exchange.Place(ctx, o) })
	}
	return h.Exchange.Place(ctx, o)
}

func defaults(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("../config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// quietBrain keeps the paper source out of a test.
const quietBrain = "exit_brain: {enabled: false}\n"

// start runs a chain on a state folder; a second start on the same folder is a restart.
func start(t *testing.T, dir, config string, prepare ...func(*hostile)) *rig {
	t.Helper()
	if !strings.Contains(config, "exit_brain:") {
		config = quietBrain + config
	}
	c, err := ParseConfig(defaults(t), "test.yaml", []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	x, err := paper.Open(filepath.Join(dir, BookFile), paper.Options{Seed: 1, Symbols: c.SymbolNames(), Positions: c.Paper.Positions, Hedge: c.Paper.Hedge})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, LedgerFile)
	options := c.StoreOptions()
	options.Host, options.Account = "test", "test" // Also of modes that are another exchange's.
	st, err := store.Open(path, options)
	if err != nil {
		t.Fatal(err)
	}
	markets, err := x.Markets(t.Context(), c.SymbolNames())
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{Exchange: x}
	for _, p := range prepare {
		p(h)
	}
	r := &rig{t: t, paper: x, hostile: h, ended: make(chan error, 1), path: path}
	r.chain = newChain(Options{Config: c, Version: "test", Log: h.log}, st, h, markets, x.Trade)
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	t.Cleanup(r.stop)
	go func() {
		r.ended <- r.group(func(stop pipeline.Stop) error { <-stop.Soft; return nil }).Run(ctx)
	}()
	return r
}

// stop ends the chain, once, and checks what every test ends with: the ledger is whole.
func (r *rig) stop() {
	r.t.Helper()
	if r.stopped {
		return
	}
	r.stopped = true
	r.cancel()
	if err := errors.Join(<-r.ended, r.paper.Close()); err != nil {
		r.t.Errorf("stop: %v", err)
	}
	if report, err := store.Verify(r.path); err != nil || report.Chain != "ok" || report.Fold != "ok" {
		r.t.Errorf("verify: %+v %v", report, err)
	}
	wantAgain(r.t, r.path)
}

func (r *rig) wait(d time.Duration) { <-time.After(d) }

// view shows the state; fn runs on the ledger's own goroutine and so must not end the test.
func (r *rig) view(fn func(*ledger.State)) {
	r.t.Helper()
	if err := r.store.View(r.t.Context(), func(s *ledger.State, _ time.Time) { fn(s) }); err != nil {
		r.t.Fatal(err)
	}
}

// proposal is one that is fine in every respect; change makes it otherwise.
func proposal(action ledger.Action, change ...func(*ledger.Proposal)) ledger.Proposal {
	p := ledger.Proposal{
		Symbol: "BTCUSDT", Side: ledger.Both, Action: action, KillScore: 0.54, Source: ledger.FromExternal,
		ComputedAt: time.Now().UTC().Truncate(time.Millisecond),
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

// propose sends a proposal and waits for planning's word.
func (r *rig) propose(p ledger.Proposal) ledger.Receipt {
	r.t.Helper()
	o := pipeline.Ask[ledger.Proposal, ledger.Receipt](p)
	r.external <- o
	return <-o.Reply
}

// decide sends a proposal and waits for what becomes of its plan.
func (r *rig) decide(p ledger.Proposal) ledger.Plan {
	r.t.Helper()
	receipt := r.propose(p)
	if receipt.ID == "" {
		r.t.Fatalf("no plan: %s", receipt.Error)
	}
	return r.outcome(receipt.ID)
}

// outcome waits, for at most half a virtual minute, until a plan's outcome is final.
func (r *rig) outcome(id ledger.PlanID) ledger.Plan {
	r.t.Helper()
	var plan ledger.Plan
	for range 300 {
		r.view(func(s *ledger.State) { plan = *s.Plans[id] })
		if plan.Outcome.Final() {
			return plan
		}
		r.wait(100 * time.Millisecond)
	}
	return plan
}

func (r *rig) want(p ledger.Plan, outcome ledger.Outcome, stage ledger.Stage, reason ledger.Reason) {
	r.t.Helper()
	if p.Outcome != outcome || p.Stage != stage || p.Reason != reason {
		var facts ledger.Facts
		for _, s := range p.Steps {
			if s.Governor != nil {
				facts = append(facts, s.Governor.Context...)
			}
			if s.Position != nil {
				facts = append(facts, s.Position.Context...)
			}
		}
		r.t.Fatalf("%s %s is %s %s/%s (%s) %v, wanted %s %s/%s", p.Proposal.Symbol, p.Proposal.Action, p.Outcome, p.Stage, p.Reason, p.Error, facts, outcome, stage, reason)
	}
}

// agree checks that ledger and exchange say the same about every symbol.
func (r *rig) agree() {
	r.t.Helper()
	snap, err := r.paper.Snapshot(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	r.view(func(s *ledger.State) {
		for k, p := range s.Positions {
			if held := snap.Of(k).Amount; !held.Equal(p.Amount) {
				r.t.Errorf("%s: exchange %s, ledger %s", k, held, p.Amount)
			}
		}
	})
}

// settled is long enough for the ledger to be adopted.
const settled = 12 * time.Second

func inBubble(t *testing.T, config string, fn func(r *rig), prepare ...func(*hostile)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		fn(start(t, dir, config, prepare...))
	})
}

func TestAPlanExecutesOnceAndIsBooked(t *testing.T) {
	inBubble(t, "", func(r *rig) {
		r.wait(settled)
		p := proposal(ledger.Partial75)
		plan := r.decide(p)
		r.want(plan, ledger.Executed, "", "")
		if filled, _ := plan.Filled(); filled.String() != "0.034" || len(plan.Orders()) != 1 {
			r.t.Fatalf("filled %s by %v", filled, plan.Orders())
		}
		if again := r.propose(p); again.Reason != ledger.DuplicatePlan || again.ID != plan.ID || !strings.HasPrefix(again.Became, "executed") {
			r.t.Fatalf("the same proposal again: %+v", again)
		}
		r.wait(settled)
		r.agree()
		if sent := r.hostile.orders(); len(sent) != 1 {
			r.t.Fatalf("sent %v", sent)
		}
	})
}

// TestTheReportsRemedyWorks is the report's own story: drift is denied, a sync lifts it, the next plan executes.
func TestTheReportsRemedyWorks(t *testing.T) {
	inBubble(t, "paper: {ledger: {BTCUSDT: '0.002'}}", func(r *rig) {
		r.wait(settled)
		plan := r.decide(proposal(ledger.Partial75))
		r.want(plan, ledger.Denied, ledger.StagePosition, ledger.QtyMismatch)
		for name, want := range map[string]string{"exchange_amt": "0.046", "ledger_amt": "0.002", "diff": "0.044", "tolerance": "0.001"} {
			if got := plan.Steps[0].Position.Context.Get(name); got != want {
				r.t.Errorf("%s is %s, wanted %s", name, got, want)
			}
		}
		r.view(func(s *ledger.State) {
			if !s.HoldsOn(plan.Key()).Has(ledger.HoldQtyMismatch) {
				r.t.Error("no hold for drift that nothing explains")
			}
		})
		order := pipeline.Ask[ledger.SyncOrder, ledger.SyncResult](ledger.SyncOrder{Key: plan.Key(), Who: "test", Why: "the exchange is right"})
		r.syncs <- order
		if res := <-order.Reply; res.Error != "" || res.From.String() != "0.002" || res.To.String() != "0.046" {
			r.t.Fatalf("sync: %+v", res)
		}
		plan = r.decide(proposal(ledger.Partial75))
		r.want(plan, ledger.Executed, "", "")
		if filled, _ := plan.Filled(); filled.String() != "0.034" {
			r.t.Fatalf("filled %s", filled)
		}
		r.wait(settled)
		r.agree()
		r.view(func(s *ledger.State) {
			if pos := s.Positions[plan.Key()]; pos.LastTradeID() == 0 || len(s.Holds) != 0 {
				r.t.Errorf("position %+v, holds %v", pos, s.Holds)
			}
		})
	})
}

// mover trades by hand between the first snapshot and the second.
type mover struct {
	exchange.Exchange
	moved bool
}

func (m *mover) LastTradeID(ctx context.Context, symbol string) (int64, error) {
	id, err := m.Exchange.LastTradeID(ctx, symbol)
	if symbol == "BTCUSDT" && !m.moved {
		m.moved = true
		err = errors.Join(err, m.Exchange.(*paper.Paper).Trade(ctx, symbol, ledger.Both, ledger.MustQty("0.01")))
	}
	return id, err
}
