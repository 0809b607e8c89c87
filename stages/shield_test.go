package stages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/exchange/paper"
	"permitchain/exchange/venue"
	"permitchain/ledger"
	"permitchain/pipeline"
)

// bare is for how long the position had not the stop that was wanted, and whether that is so now.
func (r *rig) bare() (d time.Duration, now bool) {
	r.t.Helper()
	r.view(func(s *ledger.State) {
		d, now = s.Positions[btc].Unprotected(time.Now()), !s.Positions[btc].BareSince.IsZero()
	})
	return d, now
}

// TestUnprotectedSeconds: measured from the grant of a stop until one stands, and from the loss of one until the position is gone.
func TestUnprotectedSeconds(t *testing.T) {
	var refuse atomic.Bool
	inBubble(t, wide, func(r *rig) {
		near := func(what string, want time.Duration, isNow bool) {
			r.t.Helper()
			if d, now := r.bare(); now != isNow || d < want-200*time.Millisecond || d > want+2500*time.Millisecond {
				r.t.Errorf("%s: %s, now %v; wanted %s, %v", what, d, now, want, isNow)
			}
		}
		r.wait(settled)
		near("no stop was ever wanted", 0, false)
		refuse.Store(true)
		r.want(r.decide(proposal(ledger.UpdateSL, withSL("50000"))), ledger.Failed, atExecution, ledger.OrderNotPlaced)
		r.wait(20 * time.Second)
		near("refused", 20*time.Second, true)
		refuse.Store(false)
		r.executed(proposal(ledger.UpdateSL, withSL("50000")))
		near("it stands", 20*time.Second, false)
		r.executed(proposal(ledger.UpdateSL, withSL("51000"))) // The old one stands until the new one does.
		near("moved", 20*time.Second, false)
		r.wait(settled)
		var standing string
		r.view(func(s *ledger.State) { standing = s.Positions[btc].Stop.ClientOrderID })
		if err := r.paper.CancelStop(r.t.Context(), btc, standing); err != nil {
			r.t.Fatal(err)
		}
		r.tell([]exchange.StreamEvent{{Order: &exchange.OrderState{ClientOrderID: standing, Key: btc, Direction: ledger.Sell, Status: "CANCELED", Qty: ledger.MustQty("0.046")}}})
		r.wait(40 * time.Second)
		near("cancelled by hand", 60*time.Second, true) // The stream told at once, so all of the time counts.
		r.executed(proposal(ledger.FullClose))
		r.wait(30 * time.Second)
		near("closed", 60*time.Second, false)
		r.trade("BTCUSDT", "0.046")
		near("another life", 0, false)
	}, func(h *hostile) {
		h.place = func(o exchange.Order, real func() exchange.Answer) exchange.Answer {
			if refuse.Load() {
				return exchange.Answer{Outcome: exchange.NotPlaced, Code: -2021, Message: "Order would immediately trigger."}
			}
			return real()
		}
	})
}

// TestAStopIsHeardBeforeItsAnswer: whatever the answer then says, it stands, and nothing is closed for want of it.
func TestAStopIsHeardBeforeItsAnswer(t *testing.T) {
	for _, outcome := range []exchange.Outcome{exchange.Placed, exchange.NotPlaced, exchange.Unknown} {
		t.Run(string(outcome), func(t *testing.T) {
			var r *rig
			inBubble(t, wide+"apply: {on_stop_failure: close}", func(rr *rig) {
				r = rr
				r.wait(settled)
				plan := r.decide(proposal(ledger.UpdateSL, withSL("50000")))
				r.want(plan, ledger.Executed, "", "")
				r.wait(2 * time.Minute)
				if ids := stands(r); len(ids) != 1 || ids[0] != plan.Orders()[0] || len(r.hostile.orders()) != 1 {
					r.t.Errorf("%v stands after %d orders", ids, len(r.hostile.orders()))
				}
				r.agree()
			}, func(h *hostile) {
				h.place = func(o exchange.Order, real func() exchange.Answer) exchange.Answer {
					a := real()
					r.tell([]exchange.StreamEvent{{Order: &exchange.OrderState{ClientOrderID: o.ClientOrderID, OrderID: a.OrderID, Key: o.Key, Direction: o.Direction, Status: "NEW", Qty: o.Qty, Trigger: o.Trigger}}})
					<-time.After(300 * time.Millisecond)
					return exchange.Answer{Outcome: outcome, OrderID: a.OrderID, Status: "NEW", Code: -1000}
				}
			})
		})
	}
}

// TestTheOldStopStaysWhenTheNewOneIsRefused: a stop that can't be moved protects where it was.
func TestTheOldStopStaysWhenTheNewOneIsRefused(t *testing.T) {
	inBubble(t, wide, func(r *rig) {
		r.wait(settled)
		first := r.decide(proposal(ledger.UpdateSL, withSL("50000")))
		r.want(r.decide(proposal(ledger.UpdateSL, withSL("51000"))), ledger.Failed, atExecution, ledger.OrderNotPlaced)
		r.wait(time.Minute)
		if ids := stands(r); len(ids) != 1 || ids[0] != first.Orders()[0] {
			r.t.Errorf("%v stands", ids)
		}
		if _, err := r.paper.Find(r.t.Context(), btc, first.Orders()[0]); err != nil {
			r.t.Error(err)
		}
		if d, now := r.bare(); now || d > time.Second {
			r.t.Errorf("unprotected for %s, now %v", d, now)
		}
	}, func(h *hostile) {
		h.place = func(o exchange.Order, real func() exchange.Answer) exchange.Answer {
			if len(h.orders()) > 1 {
				return exchange.Answer{Outcome: exchange.NotPlaced, Code: -2021, Message: "Order would immediately trigger."}
			}
			return real()
		}
	})
}

// TestAStopIsRoundedTowardTighter: what comes off the market's tick goes to the exchange on it.
func TestAStopIsRoundedTowardTighter(t *testing.T) {
	for config, want := range map[string][2]string{
		"": {"50000.01", "50000.1"},
		"paper: {positions: {BTCUSDT: '-0.046'}}": {"100000.09", "100000"},
	} {
		inBubble(t, wide+config, func(r *rig) {
			r.wait(settled)
			r.executed(proposal(ledger.UpdateSL, withSL(want[0])))
			if o := r.hostile.orders()[0]; o.Trigger.String() != want[1] {
				r.t.Errorf("%s became %s, wanted %s", want[0], o.Trigger, want[1])
			}
			r.want(r.decide(proposal(ledger.UpdateSL, withSL(want[0]))), none, atPlan, ledger.StopNotTighter)
		})
	}
}

// TestACancelThatFailsIsNotRepeatedAtEverySnapshot: it backs off, and succeeds in the end.
func TestACancelThatFailsIsNotRepeatedAtEverySnapshot(t *testing.T) {
	var tries atomic.Int64
	var fail atomic.Bool
	fail.Store(true)
	x := &oracle{cancel: func(real func() error) error {
		tries.Add(1)
		if fail.Load() {
			return errors.New("the line is dead")
		}
		return real()
	}}
	inBubble(t, wide, func(r *rig) {
		r.wait(settled)
		r.executed(proposal(ledger.UpdateSL, withSL("50000")))
		r.executed(proposal(ledger.UpdateSL, withSL("51000")))
		r.wait(10 * time.Minute) // 120 snapshots
		if n := tries.Load(); n < 5 || n > 20 {
			r.t.Errorf("%d tries", n)
		}
		fail.Store(false)
		r.wait(2 * time.Minute)
		if ids := stands(r); len(ids) != 1 {
			r.t.Errorf("%v stands", ids)
		}
	}, consult(x))
}

// TestAStopThatTriggeredWhileNobodyLooked: the next process finds it as the order it became, and books it as ours.
func TestAStopThatTriggeredWhileNobodyLooked(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, dir, wide)
		r.wait(settled)
		trigger := r.board.Mark("BTCUSDT").Price.Sub(ledger.MustPrice("2")).FloorTo(ledger.MustPrice("0.1"))
		plan := r.decide(proposal(ledger.UpdateSL, withSL(trigger.String())))
		r.want(plan, ledger.Executed, "", "")
		r.stop()
		x, err := paper.Open(filepath.Join(dir, BookFile), paper.Options{Seed: 1, Symbols: []string{"BTCUSDT"}})
		if err != nil {
			t.Fatal(err)
		}
		for range 24 * 60 { // Until the market falls by two dollars.
			<-time.After(time.Minute)
			if o, err := x.Find(t.Context(), btc, plan.Orders()[0]); err != nil || o.Status == "FILLED" {
				break
			}
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
		r = start(t, dir, wide)
		r.wait(time.Minute)
		r.agree()
		fills := r.recorded(ledger.KindFillBooked)
		if q := held(r, btc); !q.IsZero() || len(fills) == 0 || len(stands(r)) != 0 {
			t.Fatalf("%s is left, %d fills, standing %v", q, len(fills), stands(r))
		}
		for _, f := range fills {
			if e := f.Event.(*ledger.FillBooked); e.External || e.Trade.ClientOrderID != plan.Orders()[0] {
				t.Errorf("%+v", e)
			}
		}
		if bad := r.recorded(ledger.KindHoldPut, ledger.KindLedgerResidual); len(bad) != 0 {
			t.Errorf("%+v", bad[0].Event)
		}
		r.stop()
	})
}

// TestAStopThatCannotFollowIsSeen: a position has grown and its new stop is refused, so that a part of it is unprotected.
func TestAStopThatCannotFollowIsSeen(t *testing.T) {
	var log syncBuffer
	inBubble(t, wide, func(r *rig) {
		r.wait(settled)
		r.executed(proposal(ledger.UpdateSL, withSL("50000")))
		r.wait(settled)
		if d, now := r.bare(); now || d > time.Second {
			r.t.Errorf("covered, and bare for %s, now %v", d, now)
		}
		r.trade("BTCUSDT", "0.01")
		r.wait(time.Minute)
		if d, now := r.bare(); !now || d < 50*time.Second {
			r.t.Errorf("bare for %s, now %v", d, now)
		}
		if !strings.Contains(log.String(), "covers 0.046 of a position of 0.056") {
			r.t.Errorf("nobody was told: %s", log.String())
		}
		r.trade("BTCUSDT", "-0.02") // Less than it covers: this part needs nothing new.
		r.wait(time.Minute)
		if d, now := r.bare(); now || d > 75*time.Second {
			r.t.Errorf("covered again, and bare for %s, now %v", d, now)
		}
	}, func(h *hostile) {
		h.log = zerolog.New(zerolog.SyncWriter(&log))
		h.place = func(_ exchange.Order, real func() exchange.Answer) exchange.Answer {
			if len(h.orders()) == 1 {
				return real()
			}
			return exchange.Answer{Outcome: exchange.NotPlaced, Code: -4045}
		}
	})
}

// TestATriggeredStopThatLeavesARest: what it did not close is closed, or at least told, once its trades are known.
func TestATriggeredStopThatLeavesARest(t *testing.T) {
	for policy, left := range map[string]string{"close": "0", "alert": "0.036"} {
		t.Run(policy, func(t *testing.T) {
			var log bytes.Buffer
			inBubble(t, wide+"apply: {on_stop_failure: "+policy+"}", func(r *rig) {
				r.wait(settled)
				act := func(fn func(*venue.Venue, time.Time) (venue.Change, error)) {
					if err := r.paper.Do(r.t.Context(), "act", fn); err != nil {
						r.t.Fatal(err)
					}
				}
				depth := func(q *ledger.Qty) {
					act(func(v *venue.Venue, _ time.Time) (venue.Change, error) {
						v.Depth("BTCUSDT", q)
						return venue.Change{}, nil
					})
				}
				trigger := r.board.Mark("BTCUSDT").Price.Of(ledger.MustPercent("98")).FloorTo(ledger.MustPrice("0.1"))
				r.executed(proposal(ledger.UpdateSL, withSL(trigger.String())))
				some := ledger.MustQty("0.01")
				depth(&some)
				act(func(v *venue.Venue, now time.Time) (venue.Change, error) {
					return v.Mark(now, "BTCUSDT", trigger.Sub(ledger.MustPrice("1"))), nil
				})
				depth(nil)
				r.wait(time.Minute)
				if q := held(r, btc); q.String() != left {
					r.t.Errorf("%s is left, wanted %s", q, left)
				}
				r.agree()
			}, func(h *hostile) { h.log = zerolog.New(zerolog.SyncWriter(&log)) })
			if !strings.Contains(log.String(), "0.036 is left without protection") {
				t.Errorf("nobody was told: %s", &log)
			}
		})
	}
}

// TestAnOrderOfAnotherInstance: it holds the position before it has moved anything, until the operator has looked.
func TestAnOrderOfAnotherInstance(t *testing.T) {
	const id = "pc-0123456789abcdef-s1-1"
	inBubble(t, wide, func(r *rig) {
		r.wait(settled)
		a := r.paper.Place(r.t.Context(), exchange.Order{ClientOrderID: id, Key: btc, Direction: ledger.Sell, Qty: ledger.MustQty("0.01"), Trigger: ledger.MustPrice("40000"), SendBefore: time.Now().Add(time.Second)})
		if a.Outcome != exchange.Placed {
			r.t.Fatalf("%+v", a)
		}
		r.wait(61 * time.Second)
		holds := func() (h ledger.HoldSet) {
			r.view(func(s *ledger.State) { h = s.HoldsOn(btc) })
			return h
		}
		if h := holds(); !h.Has(ledger.HoldForeignInstance) || !strings.Contains(h[0].Evidence, id) {
			r.t.Fatalf("holds %+v", h)
		}
		r.want(r.decide(proposal(ledger.FullClose)), denied, atPosition, ledger.HoldActive)
		sync := func() {
			order := pipeline.Ask[ledger.SyncOrder, ledger.SyncResult](ledger.SyncOrder{Key: btc, Who: "test", Why: "test"})
			r.syncs <- order
			if res := <-order.Reply; res.Error != "" {
				r.t.Fatal(res.Error)
			}
		}
		sync()
		if h := holds(); len(h) != 0 {
			r.t.Fatalf("holds %+v", h)
		}
		r.wait(61 * time.Second)
		if h := holds(); !h.Has(ledger.HoldForeignInstance) {
			r.t.Fatal("it rests still, and there is no hold")
		}
		if err := r.paper.CancelStop(r.t.Context(), btc, id); err != nil {
			r.t.Fatal(err)
		}
		sync()
		r.wait(3 * time.Minute)
		if h := holds(); len(h) != 0 {
			r.t.Errorf("holds %+v", h)
		}
	})
}

// partial is an exchange that does not list the orders of one symbol.
type partial struct {
	exchange.Exchange
	mute string
	mu   sync.Mutex
	list map[string]time.Time // since when the orders of a symbol were asked for last
}

func (p *partial) OrdersSince(ctx context.Context, symbol string, since time.Time) ([]exchange.OrderState, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.list[symbol] = since; symbol == p.mute {
		return nil, errors.New("-1121 Invalid symbol")
	}
	return p.Exchange.OrdersSince(ctx, symbol, since)
}

// TestOneSymbolHidesNoOthersOrders: its list fails, the others are looked through.
func TestOneSymbolHidesNoOthersOrders(t *testing.T) {
	const id = "pc-0123456789abcdef-s1-1"
	p := &partial{mute: "BTCUSDT", list: map[string]time.Time{}}
	eth := ledger.Key{Symbol: "ETHUSDT", Side: ledger.Both}
	inBubble(t, wide+"paper: {positions: {ETHUSDT: '1'}}", func(r *rig) {
		r.wait(settled)
		a := r.paper.Place(r.t.Context(), exchange.Order{ClientOrderID: id, Key: eth, Direction: ledger.Sell, Qty: ledger.MustQty("0.5"), Trigger: ledger.MustPrice("1"), SendBefore: time.Now().Add(time.Second)})
		if a.Outcome != exchange.Placed {
			r.t.Fatalf("%+v", a)
		}
		r.wait(3 * time.Minute)
		r.view(func(s *ledger.State) {
			if !s.HoldsOn(eth).Has(ledger.HoldForeignInstance) {
				r.t.Errorf("holds %+v", s.HoldsOn(eth))
			}
		})
		p.mu.Lock()
		defer p.mu.Unlock()
		if d := p.list["ETHUSDT"].Sub(p.list["BTCUSDT"]); d < 90*time.Second {
			r.t.Errorf("what failed is asked for since %s, and what did not only %s later", p.list["BTCUSDT"], d)
		}
	}, func(h *hostile) { p.Exchange, h.Exchange = h.Exchange, p })
}

// TestOurOwnOrdersAreNotForeign: through closes, stops and their ends, nothing of ours is taken for another's.
func TestOurOwnOrdersAreNotForeign(t *testing.T) {
	inBubble(t, wide, func(r *rig) {
		r.wait(settled)
		for _, price := range []string{"50000", "51000", "52000"} {
			r.executed(proposal(ledger.UpdateSL, withSL(price)))
			r.wait(50 * time.Second)
			r.executed(proposal(ledger.Partial25))
			r.trade("BTCUSDT", "0.02")
			r.wait(50 * time.Second)
		}
		r.executed(proposal(ledger.FullClose))
		r.wait(5 * time.Minute)
		if bad := r.recorded(ledger.KindHoldPut); len(bad) != 0 {
			r.t.Errorf("%+v", bad[0].Event)
		}
	})
}

// syncBuffer is what the stages' logs are written to, by many at once.
type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// TestTheLogTellsOfATimeWithoutAStop: when it begins, and how long it was when it ends.
func TestTheLogTellsOfATimeWithoutAStop(t *testing.T) {
	var log syncBuffer
	inBubble(t, wide, func(r *rig) {
		r.wait(settled)
		r.want(r.decide(proposal(ledger.UpdateSL, withSL("50000"))), ledger.Failed, atExecution, ledger.OrderNotPlaced)
		r.wait(30 * time.Second)
		r.executed(proposal(ledger.UpdateSL, withSL("50000")))
		r.wait(settled)
		var seconds float64
		for _, line := range strings.Split(log.String(), "\n") {
			if _, rest, ok := strings.Cut(line, `"unprotected_s":`); ok && strings.Contains(line, "stands again") {
				if _, err := fmt.Sscanf(rest, "%g", &seconds); err != nil {
					r.t.Error(err)
				}
			}
		}
		if seconds < 30 || seconds > 36 || strings.Count(log.String(), "without its wanted stop") != 1 {
			r.t.Errorf("%g seconds; %s", seconds, log.String())
		}
	}, func(h *hostile) { h.log = zerolog.New(zerolog.SyncWriter(&log)) }, func(h *hostile) {
		h.place = func(_ exchange.Order, real func() exchange.Answer) exchange.Answer {
			if len(h.orders()) == 1 {
				return exchange.Answer{Outcome: exchange.NotPlaced, Code: -2021}
			}
			return real()
		}
	})
}

// TestTheLogSaysWhatAPersonMustDo: an order that stays unknown is told of again and again, with the command that settles it.
func TestTheLogSaysWhatAPersonMustDo(t *testing.T) {
	var log syncBuffer
	inBubble(t, "", func(r *rig) {
		r.wait(settled)
		r.hostile.noSnapshots.Store(true)
		r.propose(proposal(ledger.Partial75))
		r.wait(3 * time.Minute)
		if n := strings.Count(log.String(), "orders settle"); n < 2 || n > 4 {
			r.t.Errorf("told %d times:\n%s", n, log.String())
		}
	}, neverAnswers, func(h *hostile) { h.log = zerolog.New(zerolog.SyncWriter(&log)) })
}
