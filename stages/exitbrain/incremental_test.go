package exitbrain

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// apart names the first field in which two states are more than 1e-12 apart, relative or absolute.
func apart(a, b MarketState) string {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range x.NumField() {
		if g, w := x.Field(i).Float(), y.Field(i).Float(); !near(g, w, 1e-12) || math.IsNaN(g) {
			return fmt.Sprintf("%s %v, want %v", x.Type().Field(i).Name, g, w)
		}
	}
	return ""
}

// markets make a price from the one before; each is a way to go wrong.
var markets = map[string]func(rng *rand.Rand, bar int, price float64) float64{
	"walk":     func(rng *rand.Rand, _ int, p float64) float64 { return p * math.Exp(0.001*rng.NormFloat64()) },
	"trend":    func(rng *rand.Rand, _ int, p float64) float64 { return p * math.Exp(0.0005+0.0003*rng.NormFloat64()) },
	"constant": func(_ *rand.Rand, _ int, p float64) float64 { return p },
	"ticks": func(rng *rand.Rand, _ int, p float64) float64 {
		return max(0.01, math.Round(p*100+rng.NormFloat64()*0.7)/100)
	},
	"alternating": func(_ *rand.Rand, bar int, _ float64) float64 { return 100 + float64(bar%2) },
	"geometric":   func(_ *rand.Rand, _ int, p float64) float64 { return p * 1.0001 },
	"zeros": func(rng *rand.Rand, _ int, p float64) float64 {
		if rng.IntN(50) == 0 {
			return 0
		}
		return max(p, 1) * math.Exp(0.002*rng.NormFloat64())
	},
	"jumps": func(rng *rand.Rand, _ int, p float64) float64 {
		if rng.IntN(100) == 0 {
			return p * math.Exp(3*rng.NormFloat64())
		}
		return p
	},
	"storms": func(rng *rand.Rand, bar int, p float64) float64 {
		return p * math.Exp(rng.NormFloat64()*[]float64{1e-6, 0.01, 1e-4, 0.1}[bar/300%4])
	},
	"regimes": func(rng *rand.Rand, bar int, p float64) float64 {
		drift := []float64{0.002, 0, -0.002, 0}[bar/400%4]
		return p * math.Exp(drift+0.001*rng.NormFloat64())
	},
	"huge": func(rng *rand.Rand, _ int, p float64) float64 {
		return min(1e308, max(1e-308, p)*math.Exp(50*rng.NormFloat64()))
	},
	"stop and go": func(rng *rand.Rand, bar int, p float64) float64 {
		if bar/300%2 == 0 {
			return p
		}
		return p * math.Exp(0.001*rng.NormFloat64())
	},
}

func prices(name string, n int, seed uint64) []float64 {
	rng, step := rand.New(rand.NewPCG(seed, 7)), markets[name]
	closes := make([]float64, n)
	p := 100.0
	for i := range closes {
		p = step(rng, i, p)
		closes[i] = p
		p = min(1e300, max(1e-300, p))
	}
	return closes
}

// TestMarketIsTheBatchOverLongRuns follows each market for tens of thousands of bars.
func TestMarketIsTheBatchOverLongRuns(t *testing.T) {
	const bars, every = 20_000, 89
	p := specMarketParams()
	for name := range markets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			closes, m := prices(name, bars, 1), NewMarket(p)
			for i, c := range closes {
				if err := m.Add(c); err != nil {
					t.Fatal(err)
				}
				if i%every != 0 && i != bars-1 {
					continue
				}
				want, batchErr := StateOf(&p, closes[max(0, i-p.Closes()):i+1])
				got, err := m.State()
				if d := apart(got, want); d != "" || !errors.Is(err, batchErr) {
					t.Fatalf("bar %d: %s (%v, batch %v)", i, d, err, batchErr)
				}
			}
		})
	}
}

// TestMarketIsTheBatch follows markets of changing kinds with windows of any size, bar by bar.
func TestMarketIsTheBatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := specMarketParams()
		size := rapid.IntRange(2, 24)
		p.TrendWindow1, p.TrendWindow2, p.TrendWindow3 = size.Draw(t, "w1"), size.Draw(t, "w2"), size.Draw(t, "w3")
		p.EWMASeed, p.VRLag = rapid.IntRange(1, 5).Draw(t, "seed"), rapid.IntRange(1, 5).Draw(t, "lag")
		p.VolWindow, p.RegimeWindow = rapid.IntRange(5, 20).Draw(t, "vol"), rapid.IntRange(5, 20).Draw(t, "regime")
		p.WinsorLow, p.WinsorHigh = rapid.Float64Range(0, 0.4).Draw(t, "low"), rapid.Float64Range(0.6, 1).Draw(t, "high")
		p.TrendMethod = rapid.SampledFrom([]Slope{TheilSen, TheilSen, LeastSquares}).Draw(t, "method")
		if ps := p.Problems(); len(ps) > 0 {
			t.Fatal(ps)
		}
		names := []string{"walk", "constant", "ticks", "alternating", "zeros", "jumps", "storms", "geometric"}
		var closes []float64
		for _, name := range rapid.SliceOfN(rapid.SampledFrom(names), 1, 4).Draw(t, "markets") {
			closes = append(closes, prices(name, rapid.IntRange(1, 120).Draw(t, "bars"), rapid.Uint64().Draw(t, "seed"))...)
		}
		m := NewMarket(p)
		for i, c := range closes {
			if err := m.Add(c); err != nil {
				t.Fatal(err)
			}
			want, batchErr := StateOf(&p, closes[:i+1])
			got, err := m.State()
			if d := apart(got, want); d != "" || !errors.Is(err, batchErr) {
				t.Fatalf("bar %d: %s (%v, batch %v)", i, d, err, batchErr)
			}
		}
	})
}

func TestMarketRefusesWhatIsNoPrice(t *testing.T) {
	p, m := specMarketParams(), NewMarket(specMarketParams())
	closes := prices("walk", 300, 2)
	for i, c := range closes {
		for _, bad := range []float64{-1, math.NaN(), math.Inf(1), math.Inf(-1)} {
			if i%50 == 0 && m.Add(bad) == nil {
				t.Fatalf("%v was taken for a price", bad)
			}
		}
		if err := m.Add(c); err != nil {
			t.Fatal(err)
		}
		if _, err := m.State(); errors.Is(err, ErrTooFew) != (i < 256) {
			t.Fatalf("after %d closes: %v", i+1, err)
		}
	}
	got, _ := m.State()
	if want, err := StateOf(&p, closes); err != nil || apart(got, want) != "" {
		t.Fatalf("a refused price left a trace: %s (%v)", apart(got, want), err)
	}
	if _, err := StateOf(&p, append(closes, math.NaN())); err == nil || errors.Is(err, ErrTooFew) {
		t.Fatalf("batch took NaN for a price: %v", err)
	}
}

func TestMarketAllocatesNothing(t *testing.T) {
	for name := range markets {
		closes, m := prices(name, 4000, 3), NewMarket(specMarketParams())
		for _, c := range closes[:1000] {
			if err := m.Add(c); err != nil {
				t.Fatal(err)
			}
		}
		at := 1000
		if n := testing.AllocsPerRun(2000, func() { _ = m.Add(closes[at]); at++ }); n != 0 {
			t.Errorf("%s: %v allocations a bar", name, n)
		}
	}
}
