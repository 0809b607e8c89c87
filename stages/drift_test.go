package stages

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/exchange/paper"
	"permitchain/ledger"
	"permitchain/pipeline"
	"permitchain/stages/governor"
	"permitchain/stages/reconcile"
)

// meddler trades by hand around the questions of the chain, and can be slow to answer them.
type meddler struct {
	exchange.Exchange
	slow         atomic.Int64 // how long a snapshot takes to come back
	beforeTrades atomic.Pointer[ledger.Qty]
	afterTrades  atomic.Pointer[ledger.Qty]
}

func (m *meddler) Snapshot(ctx context.Context) (ledger.Snapshot, error) {
	snap, err := m.Exchange.Snapshot(ctx)
	select {
	case <-time.After(time.Duration(m.slow.Load())):
	case <-ctx.Done():
	}
	return snap, err
}

// Trades is asked for after the snapshot that it is to explain, and a moment before its answer is judged.
func (m *meddler) Trades(ctx context.Context, symbol string, after int64) ([]ledger.Trade, error) {
	m.trade(ctx, &m.beforeTrades)
	trades, err := m.Exchange.Trades(ctx, symbol, after)
	m.trade(ctx, &m.afterTrades)
	return trades, err
}

// trade trades once, so that it is told from what came before and after by the clock.
func (m *meddler) trade(ctx context.Context, qty *atomic.Pointer[ledger.Qty]) {
	if q := qty.Swap(nil); q != nil {
		<-time.After(10 * time.Millisecond)
		_ = m.Exchange.(*paper.Paper).Trade(ctx, "BTCUSDT", ledger.Both, *q) // Refused, it leaves the test nothing to see.
		<-time.After(10 * time.Millisecond)
	}
}

func meddled(m *meddler) func(*hostile) {
	return func(h *hostile) { m.Exchange, h.Exchange = h.Exchange, m }
}

func qty(text string) *ledger.Qty {
	q := ledger.MustQty(text)
	return &q
}

// TestTradesAroundTheFetch: somebody who trades while drift is being explained makes no hold, and is booked.
func TestTradesAroundTheFetch(t *testing.T) {
	for name, meddle := range map[string]func(*meddler){
		"before":                func(m *meddler) { m.beforeTrades.Store(qty("0.02")) },
		"after":                 func(m *meddler) { m.afterTrades.Store(qty("0.02")) },
		"until nothing is left": func(m *meddler) { m.afterTrades.Store(qty("-0.03")) },
	} {
		t.Run(name, func(t *testing.T) {
			m := &meddler{}
			inBubble(t, "", func(r *rig) {
				r.wait(settled)
				meddle(m)
				r.trade("BTCUSDT", "-0.016")
				r.wait(settled)
				r.agree()
				r.trade("BTCUSDT", "0.05")
				r.agree()
				records := r.recorded(ledger.KindHoldPut, ledger.KindLedgerResidual)
				if len(records) > 0 {
					r.t.Errorf("%d holds and residuals, the first %+v", len(records), records[0].Event)
				}
			}, meddled(m))
		})
	}
}

// recorded are the journal's records of these kinds.
func (r *rig) recorded(kinds ...ledger.Kind) []ledger.Record {
	r.t.Helper()
	var found []ledger.Record
	if err := r.store.Reader().Records(1, 0, func(record ledger.Record, _ string) error {
		if slices.Contains(kinds, record.Event.Kind()) {
			found = append(found, record)
		}
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
	return found
}

// TestSlowSnapshotsAreStale: an answer that is old when it comes does not clear the hold for having none.
func TestSlowSnapshotsAreStale(t *testing.T) {
	m := &meddler{}
	inBubble(t, "", func(r *rig) {
		r.wait(settled)
		m.slow.Store(int64(15 * time.Second))
		r.wait(settled + 15*time.Second)
		if puts := r.recorded(ledger.KindHoldPut); len(puts) == 0 {
			r.t.Error("no hold, though no snapshot is fresh")
		}
		r.wait(time.Minute)
		if cleared := r.recorded(ledger.KindHoldCleared); len(cleared) > 0 {
			r.t.Errorf("a snapshot that is 15 s old cleared %+v", cleared[0].Event)
		}
		m.slow.Store(0)
		r.wait(time.Minute)
		r.view(func(s *ledger.State) {
			if len(s.Holds) > 0 {
				r.t.Errorf("holds %v", s.Holds)
			}
		})
	}, meddled(m))
}

// TestASyncThatIsGivenUpIsForgotten: the operator is told in time, and nothing is done when the exchange comes back.
func TestASyncThatIsGivenUpIsForgotten(t *testing.T) {
	inBubble(t, "paper: {ledger: {BTCUSDT: '0.002'}}", func(r *rig) {
		r.wait(settled)
		r.hostile.noSnapshots.Store(true)
		k := ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}
		sync := func() ledger.SyncResult {
			order := pipeline.Ask[ledger.SyncOrder, ledger.SyncResult](ledger.SyncOrder{Key: k, Who: "test", Why: "test"})
			r.syncs <- order
			select {
			case res := <-order.Reply:
				return res
			case <-time.After(25 * time.Second):
				return ledger.SyncResult{}
			}
		}
		if res := sync(); res.Error == "" {
			r.t.Errorf("the operator was told %+v", res)
		}
		r.hostile.noSnapshots.Store(false)
		r.wait(settled)
		r.view(func(s *ledger.State) {
			if amount := s.Positions[k].Amount; amount.String() != "0.002" {
				r.t.Errorf("what was given up was done: the ledger says %s", amount)
			}
		})
		if res := sync(); res.Error != "" || res.To.String() != "0.046" {
			r.t.Errorf("the next sync: %+v", res)
		}
	})
}

// TestOnlyAPermitExpires: neither stage's denial is a permit that could.
func TestOnlyAPermitExpires(t *testing.T) {
	inBubble(t, "governor: {daily_notional: '1000'}\npaper: {ledger: {BTCUSDT: '0.002'}}", func(r *rig) {
		r.wait(settled)
		for _, action := range []ledger.Action{ledger.Partial75, ledger.FullClose} {
			step := r.decide(proposal(action)).Steps[0]
			for _, v := range []*ledger.Verdict{step.Governor, step.Position} {
				if v.Expires.IsZero() != (v.Ruling == ledger.Deny) {
					r.t.Errorf("%s: %s %s expires %s", action, v.Ruling, v.Reason, v.Expires)
				}
			}
		}
	})
}

// memory is a journal without a disk.
type memory struct{ *ledger.State }

func (m memory) Decide(_ context.Context, fn func(*ledger.State, time.Time) []ledger.Event) (pipeline.Commit, error) {
	for _, e := range fn(m.State, time.Now()) {
		if err := m.Apply(ledger.Record{Seq: m.Control.Seq + 1, At: time.Now(), Event: e}); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (memory) Wait(context.Context) error { return nil }

// TestPermitsThatNobodyTakes: when apply has gone, a stage that holds a verdict for it ends with its soft stop.
func TestPermitsThatNobodyTakes(t *testing.T) {
	c, err := ParseConfig(defaults(t), "test.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	plans := make(chan ledger.PlanID)
	permits := make(chan ledger.PlanID)
	runs := map[string]func(memory) func(pipeline.Stop) error{
		"governor": func(m memory) func(pipeline.Stop) error {
			loop := &governor.Loop{Journal: m}
			return (&governor.Stage{Rules: c.GovernorRules, Global: c.Governor, Loop: loop, Plans: plans, Permits: permits}).Run
		},
		"reconcile": func(m memory) func(pipeline.Stop) error {
			loop := &reconcile.Loop{Journal: m}
			return (&reconcile.Stage{
				Config: func(symbol string) reconcile.Config { return c.For(symbol).Reconcile }, Interval: time.Hour, Exchange: absent{},
				Board: exchange.NewBoard(nil), Loop: loop, Plans: plans, Permits: permits, Log: zerolog.Nop(),
			}).Run
		},
	}
	for name, stage := range runs {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				plans = make(chan ledger.PlanID)
				permits = make(chan ledger.PlanID)
				m := memory{ledger.NewState()}
				p := proposal(ledger.FullClose)
				if _, err := m.Decide(t.Context(), func(*ledger.State, time.Time) []ledger.Event {
					return []ledger.Event{&ledger.PlanDecided{ID: p.ID(), Proposal: p, Decision: ledger.Execute, Steps: []ledger.StepKind{ledger.CloseStep}}}
				}); err != nil {
					t.Fatal(err)
				}
				g := &pipeline.Group{Deadline: time.Minute}
				g.Add(name, stage(m))
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- g.Run(ctx) }()
				plans <- p.ID()
				synctest.Wait()
				asked := time.Now()
				cancel()
				if err := <-ended; err != nil || time.Since(asked) > 0 {
					t.Errorf("it took %s to stop: %v", time.Since(asked), err)
				}
				if step := m.Plans[p.ID()].Steps[0]; step.Governor == nil && step.Position == nil {
					t.Error("the verdict is not on record")
				}
			})
		})
	}
}

// absent is an exchange that answers nothing.
type absent struct{ exchange.Exchange }

func (absent) Now() time.Time { return time.Now() }

func (absent) Snapshot(ctx context.Context) (ledger.Snapshot, error) {
	<-ctx.Done()
	return ledger.Snapshot{}, ctx.Err()
}

// chatty is an exchange on which others change the account all the time.
type chatty struct {
	exchange.Exchange
	snapshots *atomic.Int64
}

func (c *chatty) Snapshot(ctx context.Context) (ledger.Snapshot, error) {
	c.snapshots.Add(1)
	return c.Exchange.Snapshot(ctx)
}

func (c *chatty) Stream(ctx context.Context, emit func(exchange.StreamEvent)) error {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() {
		for ctx.Err() == nil {
			emit(exchange.StreamEvent{Changed: &btc})
			<-time.After(10 * time.Millisecond)
		}
	})
	return c.Exchange.Stream(ctx, emit)
}

// TestABusyAccountIsNotSnapshotForEver: others' orders change the account a hundred times a second.
func TestABusyAccountIsNotSnapshotForEver(t *testing.T) {
	var snapshots atomic.Int64
	inBubble(t, "", func(r *rig) {
		r.wait(settled)
		before := snapshots.Load()
		r.wait(time.Minute)
		if n := snapshots.Load() - before; n < 55 || n > 100 {
			r.t.Errorf("%d snapshots in a minute", n)
		}
		r.executed(proposal(ledger.FullClose))
		r.wait(settled)
		r.agree()
	}, func(h *hostile) { h.Exchange = &chatty{h.Exchange, &snapshots} })
}
