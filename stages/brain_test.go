package stages

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// script is an exchange whose market says what the test says; the account is the paper exchange's.
type script struct {
	exchange.Exchange
	mu     sync.Mutex
	past   []ledger.Bar
	emit   func(exchange.StreamEvent)
	begun  chan struct{}
	asked  int
	closes func(n int) string // the n-th close of the past, 0 the oldest
}

func newScript(x exchange.Exchange) *script {
	return &script{Exchange: x, begun: make(chan struct{}), closes: func(n int) string {
		p := ledger.MustPrice("80000").Add(ledger.MustPrice([]string{"0", "40", "10", "60"}[n%4]))
		for range n / 4 {
			p = p.Add(ledger.MustPrice("100")) // A trend that is plain to see, so that nothing but R_net speaks.
		}
		return p.String()
	}}
}

func (s *script) Bars(_ context.Context, symbol string, limit int) ([]ledger.Bar, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if symbol != "BTCUSDT" {
		return nil, nil
	}
	if s.past == nil {
		end := time.Now().Truncate(time.Minute)
		for n := range 300 {
			close := ledger.MustPrice(s.closes(n))
			at := end.Add(time.Duration(n-300) * time.Minute)
			s.past = append(s.past, ledger.Bar{Symbol: symbol, OpenAt: at, CloseAt: at.Add(time.Minute), High: close, Low: close, Close: close})
		}
	}
	return s.past[max(0, len(s.past)-limit):], nil
}

func (s *script) Stream(ctx context.Context, emit func(exchange.StreamEvent)) error {
	s.emit = emit
	close(s.begun)
	return s.Exchange.Stream(ctx, func(e exchange.StreamEvent) {
		if e.Changed != nil {
			emit(e)
		}
	})
}

// mark says a mark price, as the exchange does.
func (s *script) mark(price string) {
	s.emit(exchange.StreamEvent{Mark: &ledger.Mark{Symbol: "BTCUSDT", Price: ledger.MustPrice(price), At: time.Now()}})
	synctest.Wait()
}

// bar closes the next bar, or one that is shifted by as many minutes.
func (s *script) bar(price string, shift int) {
	s.mu.Lock()
	last := s.past[len(s.past)-1]
	p := ledger.MustPrice(price)
	b := ledger.Bar{
		Symbol: "BTCUSDT", OpenAt: last.CloseAt.Add(time.Duration(shift) * time.Minute),
		CloseAt: last.CloseAt.Add(time.Duration(shift+1) * time.Minute), High: p, Low: p, Close: p,
	}
	if shift == 0 {
		s.past = append(s.past, b)
	}
	s.mu.Unlock()
	s.emit(exchange.StreamEvent{Bar: &b})
	synctest.Wait()
}

// brainRig runs a chain whose brain is on, on a scripted market.
func brainRig(t *testing.T, dir, config string, change ...func(*script)) (*rig, *script) {
	var s *script
	r := start(t, dir, config, func(h *hostile) {
		s = newScript(h.Exchange)
		for _, c := range change {
			c(s)
		}
		h.Exchange = s
	})
	<-s.begun
	r.wait(settled)
	return r, s
}

// proposed are the actions that the brain's plans had, in order.
func proposed(r *rig) (actions []ledger.Action) {
	var plans []*ledger.Plan
	r.view(func(s *ledger.State) {
		for _, p := range s.Plans {
			if p.Proposal.Source == ledger.FromBrain {
				plans = append(plans, p)
			}
		}
		for range plans {
			first := 0
			for i, p := range plans {
				if p != nil && (plans[first] == nil || p.Journal[0] < plans[first].Journal[0]) {
					first = i
				}
			}
			actions = append(actions, plans[first].Proposal.Action)
			plans[first] = nil
		}
	})
	return actions
}

func wantProposed(r *rig, want ...ledger.Action) {
	r.t.Helper()
	got := proposed(r)
	same := len(got) == len(want)
	for i := range want {
		same = same && got[i] == want[i]
	}
	if !same {
		r.t.Fatalf("proposed %v, wanted %v; the brain says:\n%s", got, want, strings.Join(r.views.Of("BTCUSDT"), "\n"))
	}
}

// calm is a brain that nothing but R_net moves; the entry of the seeded position is 87000 and its R 1740 USD.
const calm = wide + "exit_brain: {enabled: true, kill_threshold: 0.99, lock_r: 100}\nsymbols: [BTCUSDT]\n"

func inBrain(t *testing.T, config string, fn func(r *rig, s *script), change ...func(*script)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r, s := brainRig(t, dir, config, change...)
		fn(r, s)
	})
}

// TestATrancheIsProposedAtItsTick: between two bars, once, and at once.
func TestATrancheIsProposedAtItsTick(t *testing.T) {
	inBrain(t, calm, func(r *rig, s *script) {
		s.mark("88000")
		wantProposed(r)
		r.wait(time.Second)
		s.mark("90600") // R_net 2.02
		wantProposed(r, ledger.Partial25)
		for range 5 {
			r.wait(time.Second)
			s.mark("90610")
		}
		wantProposed(r, ledger.Partial25)
		r.wait(20 * time.Second)
		s.bar("90610", 0)
		s.mark("94100") // R_net 4.03: it tightens, so no gap has to pass
		wantProposed(r, ledger.Partial25, ledger.Partial50)
		r.wait(settled)
		r.agree()
		if q := held(r, btc); q.String() != "0.018" {
			r.t.Errorf("%s is left", q)
		}
	})
}

// TestATrancheIsOnceInAnEpoch: across a restart, and again in the next epoch.
func TestATrancheIsOnceInAnEpoch(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r, s := brainRig(t, dir, calm)
		s.mark("90600")
		r.wait(20 * time.Second)
		s.mark("90600")
		wantProposed(r, ledger.Partial25)
		r.stop()

		r, s = brainRig(t, dir, calm)
		for range 3 {
			s.mark("90600")
			r.wait(61 * time.Second)
			s.bar("90600", 0)
		}
		wantProposed(r, ledger.Partial25)

		r.trade("BTCUSDT", "-0.035") // Flat, and a new position at another price.
		r.trade("BTCUSDT", "0.05")
		var up ledger.Price
		r.view(func(st *ledger.State) {
			up = st.Positions[btc].Entry.Add(st.Positions[btc].Entry.Of(ledger.MustPercent("4.2")))
		})
		s.mark(up.String())
		wantProposed(r, ledger.Partial25, ledger.Partial25)
	})
}

// TestTheProfitLockBecomesAStop: and a tighter one is not asked for again.
func TestTheProfitLockBecomesAStop(t *testing.T) {
	// The venue's own market stands at the entry, so the lock must be below it to be accepted there.
	inBrain(t, wide+"exit_brain: {enabled: true, kill_threshold: 0.99, lock_margin: -0.1}\nsymbols: [BTCUSDT]\n", func(r *rig, s *script) {
		s.mark("89800") // R_net 1.56
		wantProposed(r, ledger.UpdateSL)
		r.wait(settled)
		s.mark("89900")
		wantProposed(r, ledger.UpdateSL)
		r.view(func(st *ledger.State) {
			if stop := st.Positions[btc].Stop; stop == nil || stop.Trigger.String() != "78300" {
				r.t.Errorf("stop %+v", stop)
			}
		})
	})
}

// TestAKillIsSaidUntilItIsDone: every close_interval, while something keeps it from happening.
func TestAKillIsSaidUntilItIsDone(t *testing.T) {
	inBrain(t, wide+"exit_brain: {enabled: true, kill_threshold: 0.4}\nsymbols: [BTCUSDT]\n", func(r *rig, s *script) {
		r.put(btc, ledger.HoldOperator)
		for range 12 {
			s.mark("88000")
			r.wait(time.Second)
		}
		wantProposed(r, ledger.FullClose, ledger.FullClose, ledger.FullClose)
	})
}

// TestWhatIsDoubtfulIsNoOpinion: each doubt has its own words, and no proposal.
func TestWhatIsDoubtfulIsNoOpinion(t *testing.T) {
	says := func(r *rig, want string) {
		r.t.Helper()
		wantProposed(r)
		if text := strings.Join(r.views.Of("BTCUSDT"), "\n"); !strings.Contains(text, want) {
			r.t.Errorf("the brain says %q, wanted %q", text, want)
		}
	}
	t.Run("too little history", func(t *testing.T) {
		inBrain(t, calm, func(r *rig, s *script) {
			s.mark("95000")
			says(r, "257 are needed")
		}, func(s *script) {
			at := time.Now().Truncate(time.Minute).Add(-time.Minute)
			p := ledger.MustPrice("87000")
			s.past = []ledger.Bar{{Symbol: "BTCUSDT", OpenAt: at, CloseAt: at.Add(time.Minute), High: p, Low: p, Close: p}}
		})
	})
	t.Run("zero price", func(t *testing.T) {
		inBrain(t, calm, func(r *rig, s *script) {
			s.mark("0")
			says(r, "the mark price is 0")
		})
	})
	t.Run("absurd price", func(t *testing.T) {
		inBrain(t, calm, func(r *rig, s *script) {
			s.mark("200000")
			says(r, "too far from the last close")
		})
	})
	t.Run("bars stop", func(t *testing.T) {
		inBrain(t, calm, func(r *rig, s *script) {
			r.wait(5 * time.Minute)
			s.mark("95000")
			says(r, "no bar since")
		})
	})
	t.Run("a gap is read again", func(t *testing.T) {
		inBrain(t, calm, func(r *rig, s *script) {
			before := s.asked
			s.bar("87500", 1) // The one before it never came.
			if s.asked != before+1 {
				r.t.Errorf("the past was asked for %d times", s.asked-before)
			}
			s.mark("90600")
			wantProposed(r, ledger.Partial25)
		})
	})
	t.Run("duplicate and late bars change nothing", func(t *testing.T) {
		inBrain(t, calm, func(r *rig, s *script) {
			view := strings.Join(r.views.Of("BTCUSDT"), "\n")
			s.bar("50000", -1)
			s.bar("50000", -3)
			if after := strings.Join(r.views.Of("BTCUSDT"), "\n"); after != view || s.asked != 1 {
				r.t.Errorf("%s became %s", view, after)
			}
		})
	})
}

// TestAFlappingMarkKeepsTheGap: crossing a threshold to and fro is not tightening each time.
func TestAFlappingMarkKeepsTheGap(t *testing.T) {
	inBrain(t, wide+"exit_brain: {enabled: true, kill_threshold: 0.99, lock_margin: -0.1}\nsymbols: [BTCUSDT]\n", func(r *rig, s *script) {
		r.put(btc, ledger.HoldOperator)
		for range 20 {
			s.mark("89800")
			r.wait(100 * time.Millisecond)
			s.mark("89000")
			r.wait(100 * time.Millisecond)
		}
		if n := len(proposed(r)); n != 2 {
			r.t.Errorf("%d proposals in 4 s, two are wanted", n)
		}
	})
}

// stuck holds back answers with bars while it is told to.
type stuck struct {
	*script
	hold atomic.Bool
	free chan struct{}
}

func (s *stuck) Bars(ctx context.Context, symbol string, limit int) ([]ledger.Bar, error) {
	if s.hold.Load() {
		select {
		case <-s.free:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s.script.Bars(ctx, symbol, limit)
}

// TestBarsThatDoNotCome: they keep neither a stop waiting, nor the brain blind when the rules were changed meanwhile.
func TestBarsThatDoNotCome(t *testing.T) {
	begin := func(t *testing.T) (*rig, *stuck) {
		var s *stuck
		r := start(t, t.TempDir(), calm, func(h *hostile) {
			s = &stuck{script: newScript(h.Exchange), free: make(chan struct{})}
			h.Exchange = s
		})
		<-s.begun
		r.wait(settled)
		s.hold.Store(true)
		s.bar("87500", 1) // A gap: the past is asked for.
		return r, s
	}
	t.Run("a stop does not wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, _ := begin(t)
			at := time.Now()
			if r.stop(); time.Since(at) > 0 {
				t.Errorf("the stop took %s", time.Since(at))
			}
		})
	})
	t.Run("an answer to an older question is not believed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, s := begin(t)
			if _, err := r.reload(strings.Replace(calm, "lock_r: 100", "lock_r: 100, vol_window: 280", 1)); err != nil {
				t.Fatal(err)
			}
			s.hold.Store(false)
			close(s.free)
			r.wait(6 * time.Second)
			s.mark("90600")
			wantProposed(r, ledger.Partial25)
		})
	})
}
