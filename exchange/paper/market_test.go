package paper

import (
	"context"
	"errors"
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
