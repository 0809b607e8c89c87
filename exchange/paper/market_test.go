package paper

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

func float(t *testing.T, p ledger.Price) float64 {
	t.Helper()
	f, err := strconv.ParseFloat(p.String(), 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestMarksEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustOpen(t, bookPath(t), options())
		ctx, cancel := context.WithCancel(t.Context())
		marks := map[string][]ledger.Mark{}
		done := make(chan error)
		go func() {
			done <- p.Stream(ctx, func(e exchange.StreamEvent) {
				if e.Mark != nil {
					marks[e.Mark.Symbol] = append(marks[e.Mark.Symbol], *e.Mark)
				}
			})
		}()
		<-time.After(60*time.Second + 1)
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("stream ended with %v", err)
		}
		for _, symbol := range []string{"BTCUSDT", "ETHUSDT"} {
			all := marks[symbol]
			if len(all) != 61 {
				t.Fatalf("%d marks of %s in a minute, want the present one and 60", len(all), symbol)
			}
			moved := 0
			for i := 1; i < len(all); i++ {
				if all[i].At.Sub(all[i-1].At) != time.Second {
					t.Errorf("%s: marks at %v and %v", symbol, all[i-1].At, all[i].At)
				}
				if !all[i].Price.Equal(all[i-1].Price) {
					moved++
				}
			}
			if moved < 50 {
				t.Errorf("%s moved %d times in a minute", symbol, moved)
			}
		}
	})
}

func TestTraderReopensWithinAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := options()
		o.Trader = true
		path := bookPath(t)
		p := mustOpen(t, path, o)
		ctx, cancel := context.WithCancel(t.Context())
		changes := 0
		done := make(chan error)
		go func() {
			done <- p.Stream(ctx, func(e exchange.StreamEvent) {
				if e.Changed != nil && *e.Changed == btc {
					changes++
				}
			})
		}()
		synctest.Wait()
		// What is closed in part stays as it is.
		p.Place(t.Context(), closing(p, "pc-1", "0.034"))
		<-time.After(5 * time.Minute)
		if got := held(t, p, btc); got != "0.012" {
			t.Fatalf("after a part was closed %s is held", got)
		}
		p.Place(t.Context(), closing(p, "pc-2", "0.012"))
		<-time.After(19 * time.Second)
		if got := held(t, p, btc); got != "0" {
			t.Errorf("%s is held 19 s after the close", got)
		}
		<-time.After(41 * time.Second)
		synctest.Wait()
		if got := held(t, p, btc); got != "0.046" {
			t.Errorf("%s is held a minute after the close, want 0.046 again", got)
		}
		cancel()
		<-done
		if changes != 3 {
			t.Errorf("%d changes were told, want 3", changes)
		}
		trades, err := p.Trades(t.Context(), "BTCUSDT", 0)
		if last := trades[len(trades)-1]; err != nil || ledger.OfOurForm(last.ClientOrderID) || last.Direction != ledger.Buy {
			t.Errorf("it was reopened by %+v", last)
		}
		// The next time it takes its time again, and a restart meanwhile does not make it forget.
		p.Place(t.Context(), closing(p, "pc-3", "0.046"))
		<-time.After(19 * time.Second)
		if got := held(t, p, btc); got != "0" {
			t.Errorf("%s is held 19 s after the second close", got)
		}
		p.Close()
		again := mustOpen(t, path, o)
		<-time.After(time.Minute)
		synctest.Wait()
		if got := held(t, again, btc); got != "0.046" {
			t.Errorf("%s is held a minute after the restart", got)
		}
	})
}

// The price continues where it was: over a restart, a change of speed, and a book written anew.
func TestPriceDoesNotJumpAtARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := bookPath(t)
		o := options()
		var last float64
		for i, speed := range []float64{1, 1, 600, 600, 1} {
			o.Speed = speed
			p := mustOpen(t, path, o)
			now := func() float64 {
				m, err := query(t.Context(), p, "", func(time.Time) ledger.Mark { return p.marks["BTCUSDT"] })
				if err != nil {
					t.Fatal(err)
				}
				return float(t, m.Price)
			}
			if first := now(); i > 0 && first != last {
				t.Errorf("opened at %v, closed at %v", first, last)
			}
			<-time.After(100 * time.Second)
			synctest.Wait()
			last = now()
			if _, _, err := ask(t.Context(), p, func(now time.Time) error { return p.compact(now) }); err != nil {
				t.Fatal(err)
			}
			p.Close()
		}
	})
}

func TestPricesAreThoseOfAMarket(t *testing.T) {
	for _, symbol := range []string{"BTCUSDT", "DOGEUSDT", "NOBODYKNOWSUSDT"} {
		s := specOf(7, symbol)
		at := func(seconds float64) float64 { return float(t, s.price(7, seconds)) }
		// minutes measures returns over a part of many rounds: sigma, drift, and how often neighbours have the same sign.
		minutes := func(from, to float64) (sigma, drift, same float64) {
			var n, last float64
			for round := range 20 {
				for m := from; m < to; m += 60 {
					t := m - startS + float64(round+1)*roundS
					r := math.Log(at(t+60) / at(t))
					n, drift, sigma = n+1, drift+r, sigma+r*r
					if r*last > 0 {
						same++
					}
					last = r
				}
			}
			return math.Sqrt(sigma / n), drift / n, same / n
		}
		if sigma, drift, same := minutes(0, upS); sigma < 0.0006 || sigma > 0.0012 || drift < 0.0004 || same < 0.6 {
			t.Errorf("%s, trend up: sigma %.5f, drift %.5f, same sign %.2f", symbol, sigma, drift, same)
		}
		if sigma, drift, same := minutes(upS, quietS); sigma < 0.0005 || sigma > 0.0007 || math.Abs(drift) > 0.0001 || same < 0.4 || same > 0.6 {
			t.Errorf("%s, quiet: sigma %.5f, drift %.5f, same sign %.2f", symbol, sigma, drift, same)
		}
		if sigma, _, _ := minutes(quietS, spikeS); sigma < 0.0018 || sigma > 0.003 {
			t.Errorf("%s, spike: sigma %.5f, four times the ordinary are wanted", symbol, sigma)
		}
		if _, drift, same := minutes(spikeS, roundS); drift > -0.0004 || same < 0.6 {
			t.Errorf("%s, trend down: drift %.5f, same sign %.2f", symbol, drift, same)
		}
		if math.Abs(at(0)/s.start-1) > 0.001 {
			t.Errorf("%s begins at %v, want %v", symbol, at(0), s.start)
		}
		for _, far := range []float64{-1e5, 1e3, 1e6, 1e9, 1e12, 1e15, 1e300} {
			p := s.price(7, far)
			if p.Sign() <= 0 || !p.FloorTo(s.Tick).Equal(p) || math.Abs(math.Log(float(t, p)/s.start)) > farthest+0.01 {
				t.Errorf("%s after %g s: %s", symbol, far, p)
			}
		}
	}
	if specOf(1, "BTCUSDT").price(1, 500).Equal(specOf(2, "BTCUSDT").price(2, 500)) {
		t.Error("two seeds, one price")
	}
}

func TestAnySymbolHasSaneRules(t *testing.T) {
	for _, symbol := range []string{"AUSDT", "BUSDT", "CUSDT", "DUSDT", "1000PEPEUSDT", "X"} {
		for seed := range uint64(50) {
			s := specOf(seed, symbol)
			value := float(t, s.Tick) / s.start
			cost, _ := strconv.ParseFloat(s.Lot.Step.String(), 64)
			cost *= s.start
			if value > 0.00011 || value < 0.000005 || cost < 0.99 || cost > 10.01 || s.Lot.Max.Less(s.Lot.Min) {
				t.Errorf("seed %d: %s costs %v, %+v", seed, symbol, s.start, s.Market)
			}
		}
	}
}

// TestBarsAreThePricesOfTheStream: what is asked for and what is told are the same bars, without gaps, across a restart.
func TestBarsAreThePricesOfTheStream(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(dir, "book.jsonl")
		var told []ledger.Bar
		for range 2 {
			p, err := Open(path, Options{Seed: 3, Symbols: []string{"BTCUSDT"}, Speed: 30})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				done <- p.Stream(ctx, func(e exchange.StreamEvent) {
					if e.Bar != nil {
						told = append(told, *e.Bar)
					}
				})
			}()
			<-time.After(21*time.Second + 500*time.Millisecond)
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			bars, err := p.Bars(t.Context(), "BTCUSDT", 300)
			if err != nil || len(bars) != 300 {
				t.Fatalf("%d bars: %v", len(bars), err)
			}
			for i, b := range bars {
				if i > 0 && !b.OpenAt.Equal(bars[i-1].CloseAt) || b.CloseAt.Sub(b.OpenAt) != 2*time.Second || b.Close.Less(b.Low) || b.High.Less(b.Close) || b.CloseAt.After(p.Now()) {
					t.Fatalf("bar %d: %+v after %+v", i, b, bars[max(i-1, 0)])
				}
			}
			if n := len(told); n < 9 || !reflect.DeepEqual(told[n-9:], bars[len(bars)-9:]) {
				t.Fatalf("told %+v\nasked %+v", told, bars[len(bars)-9:])
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if len(told) != 21 {
			t.Errorf("%d bars in 43 seconds at speed 30", len(told))
		}
	})
}
