package synthetic

import (
	"math"
	"testing"
)

func TestPricesAreThoseOfAMarket(t *testing.T) {
	for _, symbol := range []string{"BTCUSDT", "DOGEUSDT", "NOBODYKNOWSUSDT"} {
		s := Of(7, symbol)
		at := func(seconds float64) float64 { return s.Price(seconds).Float() }
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
			p := s.Price(far)
			if p.Sign() <= 0 || !p.FloorTo(s.Tick).Equal(p) || math.Abs(math.Log(p.Float()/s.start)) > farthest+0.01 {
				t.Errorf("%s after %g s: %s", symbol, far, p)
			}
		}
	}
	if Of(1, "BTCUSDT").Price(500).Equal(Of(2, "BTCUSDT").Price(500)) {
		t.Error("two seeds, one price")
	}
}

func TestAnySymbolHasSaneRules(t *testing.T) {
	for _, symbol := range []string{"AUSDT", "BUSDT", "CUSDT", "DUSDT", "1000PEPEUSDT", "X"} {
		for seed := range uint64(50) {
			s := Of(seed, symbol)
			value := s.Tick.Float() / s.start
			cost := s.Lot.Step.Float()
			cost *= s.start
			if value > 0.00011 || value < 0.000005 || cost < 0.99 || cost > 10.01 || s.Lot.Max.Less(s.Lot.Min) {
				t.Errorf("seed %d: %s costs %v, %+v", seed, symbol, s.start, s.Market)
			}
		}
	}
}
