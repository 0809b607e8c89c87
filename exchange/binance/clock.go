package binance

import (
	"context"
	"fmt"
	"time"

	"github.com/adshao/go-binance/v2/futures"
)

// reading is one measurement of the exchange's clock against our monotonic one, which no step of the host's clock moves.
type reading struct {
	local, server time.Time // the same instant
	half          time.Duration
}

func (r *reading) now() time.Time { return r.server.Add(time.Since(r.local)).UTC() }

// doubt is how far now may be off: half the probe's round trip, the millisecond the exchange counts in, and what
// two clocks drift apart, at most 200 parts in a million.
func (r *reading) doubt() time.Duration { return r.half + time.Millisecond + time.Since(r.local)/5000 }

// How the clock is measured, and how well it must be known to send an order: the fence behind which an order is
// believed never to have been placed leaves it a second.
const (
	clockProbes = 3
	clockEvery  = 3 * time.Minute
	clockAgain  = 10 * time.Second // after a failure, or a reading that is nearly too vague
	clockDoubt  = 500 * time.Millisecond
)

// Now implements exchange.Exchange.
func (b *Binance) Now() time.Time {
	if r := b.reading.Load(); r != nil {
		return r.now()
	}
	return time.Now().UTC()
}

// agrees tells whether two readings can both be right.
func (r *reading) agrees(o *reading) bool {
	return r.now().Sub(o.now()).Abs() <= r.doubt()+o.doubt()
}

// measure reads the exchange's clock a few times and keeps the reading with the least round trip. A good older one
// stays while the new one, made on a slow network, does not contradict it.
func (b *Binance) measure(ctx context.Context) error {
	var best *reading
	for range clockProbes {
		var server int64
		c := &call{what: "GET /fapi/v1/time", weight: 1, essential: true}
		e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) (err error) {
			server, err = f.NewServerTimeService().Do(ctx)
			return err
		})
		took := time.Since(c.begun) // Without the wait for the weight budget, which says nothing about the clock.
		if e != nil {
			return fmt.Errorf("measure the exchange's clock: %w", e)
		}
		r := &reading{local: c.begun.Add(took / 2), server: time.UnixMilli(server).UTC(), half: took / 2}
		if server <= 0 || r.server.Year() < 2000 || r.server.Year() > 2199 {
			return fmt.Errorf("measure the exchange's clock: it says %d", server)
		}
		if best == nil || r.half < best.half {
			best = r
		}
	}
	if old := b.reading.Load(); old == nil || best.doubt() < old.doubt() || !best.agrees(old) {
		b.reading.Store(best)
	}
	return nil
}

// keepTime measures the clock every few minutes, and when it is in doubt.
func (b *Binance) keepTime(hard context.Context) {
	wait := clockEvery
	for {
		timer := time.NewTimer(wait)
		select {
		case <-hard.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-b.remeasure:
			timer.Stop()
		}
		wait = clockEvery
		if err := b.measure(hard); err != nil && hard.Err() == nil {
			b.log.Warn().Err(err).Msg("the exchange's clock could not be read; tried again")
			wait = clockAgain
		} else if b.reading.Load().doubt() > clockDoubt/2 {
			wait = clockAgain
		}
	}
}

// doubtClock has the clock measured soon.
func (b *Binance) doubtClock() {
	select {
	case b.remeasure <- struct{}{}:
	default: // It is already going to be.
	}
}
