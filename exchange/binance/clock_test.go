package binance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"permitchain/exchange"
)

// The clock is the exchange's, within what it says it may be off, and orders are signed by it.
func TestClockFollowsTheExchange(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Hour, -30 * 24 * time.Hour, 250 * time.Millisecond} {
		f := newFake(t)
		f.on("GET /fapi/v1/time", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"serverTime":%d}`, time.Now().Add(ahead).UnixMilli())
		})
		b := f.open()
		h, off := b.Health(), time.Until(b.Now())-ahead
		if off.Abs() > h.Uncertainty+time.Millisecond || (h.Offset-ahead).Abs() > h.Uncertainty+time.Millisecond || h.Uncertainty <= 0 {
			t.Errorf("%s ahead: off by %s, %+v", ahead, off, h)
		}
		f.says(postOrder, 200, bodyFilled)
		before := b.Now().Truncate(time.Millisecond)
		if a := b.Place(context.Background(), anOrder(b)); a.Outcome != exchange.Placed {
			t.Errorf("%s ahead: %+v", ahead, a)
		}
		_, q := f.times(postOrder)
		signed := instant(mustQuery(t, q.query), "timestamp")
		if signed.Before(before.Add(-2*time.Millisecond)) || signed.After(b.Now().Add(2*time.Millisecond)) {
			t.Errorf("%s ahead: signed at %s, it was %s to %s", ahead, signed, before, b.Now())
		}
	}
}

// A reading of a slow network does not replace a better one, unless one of them must be wrong.
func TestTheBetterReadingStays(t *testing.T) {
	f := newFake(t)
	b := f.open()
	good := b.reading.Load()
	slow := func(ahead, delay time.Duration) {
		f.on("GET /fapi/v1/time", func(w http.ResponseWriter, r *http.Request) {
			said := time.Now().Add(ahead)
			select {
			case <-time.After(delay):
			case <-r.Context().Done():
			}
			fmt.Fprintf(w, `{"serverTime":%d}`, said.UnixMilli())
		})
	}
	var probes atomic.Int32
	f.on("GET /fapi/v1/time", func(w http.ResponseWriter, _ *http.Request) {
		if probes.Add(1) == 1 { // Only the first is slow, and it is behind by half of that.
			<-time.After(400 * time.Millisecond)
		}
		fmt.Fprintf(w, `{"serverTime":%d}`, time.Now().UnixMilli())
	})
	if h := f.open().Health(); h.Uncertainty > 100*time.Millisecond || h.Offset.Abs() > 100*time.Millisecond {
		t.Errorf("the best of three readings is off by %s ± %s", h.Offset, h.Uncertainty)
	}
	slow(0, 100*time.Millisecond)
	if err := b.measure(context.Background()); err != nil || b.reading.Load() != good {
		t.Errorf("a worse reading replaced a better one (%v)", err)
	}
	slow(time.Minute, 100*time.Millisecond)
	if err := b.measure(context.Background()); err != nil || b.reading.Load() == good || b.Health().Offset < 59*time.Second {
		t.Errorf("a reading that contradicts the old one was not taken (%v)", err)
	}
	if u := b.Health().Uncertainty; u < 50*time.Millisecond {
		t.Errorf("half of a round trip of 100 ms is in doubt, not %s", u)
	}
	for _, body := range []string{`{}`, `{"serverTime":0}`, `{"serverTime":17}`, `[]`, ``, bodyDisguised} {
		f.says("GET /fapi/v1/time", 200, body)
		if err := b.measure(context.Background()); err == nil {
			t.Errorf("%s was taken for a time", body)
		}
	}
	f.says("GET /fapi/v1/time", 418, `{"code":-1003,"msg":"banned"}`)
	if err := b.measure(context.Background()); !errors.Is(err, ErrLimited) {
		t.Error(err)
	}
}

// A wait for the weight budget is no part of a probe's round trip.
func TestAWaitForWeightDoesNotBlurTheClock(t *testing.T) {
	f := newFake(t)
	b := f.open()
	b.reading.Store(nil)
	b.budget.all.SetBurst(1)
	b.budget.all.SetLimit(4)
	begun := time.Now()
	if err := b.measure(context.Background()); err != nil || time.Since(begun) < 400*time.Millisecond {
		t.Fatalf("%v after %s: no probe has waited", err, time.Since(begun))
	}
	if u := b.Health().Uncertainty; u > 100*time.Millisecond {
		t.Errorf("the clock is known to %s", u)
	}
}
