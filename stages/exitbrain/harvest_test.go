package exitbrain

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"permitchain/ledger"
)

// calm is a market that nothing speaks against.
func calm() MarketState { return MarketState{Sigma: 0.005, TS: 0.5, PTrend: 0.6, PMR: 0.2, PChop: 0.2} }

func TestJudge(t *testing.T) {
	p := specHarvestParams()
	long := Position{Side: ledger.Long, Entry: 100, PnL: 3.2, AgeSec: 60} // R_net 1.55
	for name, c := range map[string]struct {
		change  func(*Position, *MarketState)
		want    ledger.Action
		asked   ledger.Action
		stop    float64
		reasons []string
	}{
		"a lock":            {func(*Position, *MarketState) {}, ledger.Hold, ledger.UpdateSL, 100.2, []string{"profit_lock"}},
		"a standing lock":   {func(p *Position, _ *MarketState) { p.Stop = 100.2 }, ledger.Hold, ledger.Hold, 0, []string{}},
		"a looser stop":     {func(p *Position, _ *MarketState) { p.Stop = 95 }, ledger.Hold, ledger.UpdateSL, 100.2, []string{"profit_lock"}},
		"a loss":            {func(p *Position, _ *MarketState) { p.PnL = -1 }, ledger.Hold, ledger.Hold, 0, []string{}},
		"a short":           {func(p *Position, _ *MarketState) { p.Side, p.Stop = ledger.Short, 101 }, ledger.Hold, ledger.UpdateSL, 99.8, []string{"profit_lock"}},
		"a tighter short":   {func(p *Position, _ *MarketState) { p.Side, p.Stop = ledger.Short, 99 }, ledger.Hold, ledger.Hold, 0, []string{}},
		"a quarter":         {func(p *Position, _ *MarketState) { p.PnL, p.Stop = 5, 101 }, ledger.Partial25, ledger.Partial25, 0, []string{"harvest_partial_25"}},
		"half":              {func(p *Position, _ *MarketState) { p.PnL, p.Stop = 9, 101 }, ledger.Partial50, ledger.Partial50, 0, []string{"harvest_partial_50"}},
		"three quarters":    {func(p *Position, _ *MarketState) { p.PnL = 13 }, ledger.Partial75, ledger.Partial75, 100.2, []string{"harvest_partial_75", "profit_lock"}},
		"a flip of regime":  {func(p *Position, m *MarketState) { p.PnL, m.PTrend, m.PMR, m.PChop = 0, 0.2, 0.4, 0.4 }, ledger.FullClose, ledger.FullClose, 0, []string{"kill_score_triggered", "regime_flip"}},
		"a spike and decay": {func(p *Position, m *MarketState) { p.PnL, p.AgeSec, m.Sigma, m.TS = 0, 90_000, 0.04, 0 }, ledger.FullClose, ledger.FullClose, 0, []string{"kill_score_triggered", "sigma_spike", "ts_drop", "age_penalty"}},
	} {
		pos, m := long, calm()
		c.change(&pos, &m)
		h, err := Judge(&p, &pos, &m, 0)
		if err != nil || h.Action != c.want || h.Proposed() != c.asked || !near(h.NewStop, c.stop, 1e-12) || !slices.Equal(h.Reasons.Codes(), c.reasons) {
			t.Errorf("%s: %+v %v (%v), asks for %s", name, h, h.Reasons.Codes(), err, h.Proposed())
		}
	}
	if len(reasonCodes) != 9 || !AgePenalty.Has(1<<8) {
		t.Error("the reasons and their codes do not go together")
	}
}

func TestJudgeRefusesToGuess(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for name, change := range map[string]func(*HarvestParams, *Position, *MarketState){
		"no side":      func(_ *HarvestParams, pos *Position, _ *MarketState) { pos.Side = ledger.Both },
		"no entry":     func(_ *HarvestParams, pos *Position, _ *MarketState) { pos.Entry = nan },
		"endless PnL":  func(_ *HarvestParams, pos *Position, _ *MarketState) { pos.PnL = inf },
		"no stop":      func(_ *HarvestParams, pos *Position, _ *MarketState) { pos.Stop = nan },
		"no age":       func(_ *HarvestParams, pos *Position, _ *MarketState) { pos.AgeSec = nan },
		"no sigma":     func(_ *HarvestParams, _ *Position, m *MarketState) { m.Sigma = nan },
		"endless ts":   func(_ *HarvestParams, _ *Position, m *MarketState) { m.TS = inf },
		"no regime":    func(_ *HarvestParams, _ *Position, m *MarketState) { m.PChop = nan },
		"no reference": func(p *HarvestParams, _ *Position, _ *MarketState) { p.SigmaRef = 0 },
		"no age limit": func(p *HarvestParams, _ *Position, _ *MarketState) { p.MaxAge = 0 },
		"no heat":      func(p *HarvestParams, _ *Position, _ *MarketState) { p.TrancheTemp = 0 },
		"steep":        func(p *HarvestParams, _ *Position, _ *MarketState) { p.TrancheUtility1 = 800 },
		"far below":    func(p *HarvestParams, pos *Position, _ *MarketState) { p.KAgePenalty, pos.AgeSec = -800, 90_000 },
	} {
		p, pos, m := specHarvestParams(), Position{Side: ledger.Long, Entry: 100, PnL: 1, AgeSec: 60}, calm()
		change(&p, &pos, &m)
		if h, err := Judge(&p, &pos, &m, 0); err == nil || h.Action == ledger.FullClose && errors.Is(err, ErrSide) {
			t.Errorf("%s: %+v, want an error", name, h)
		}
	}
}

func TestProblemsNameTheirKeys(t *testing.T) {
	m, h := specMarketParams(), specHarvestParams()
	if ps := append(m.Problems(), h.Problems()...); len(ps) != 0 {
		t.Fatalf("the spec's own constants: %v", ps)
	}
	m.VRLag, m.TrendWindow2, m.TrendMethod, m.Epsilon, m.A2 = 300, 4096, "", 0, math.NaN()
	m.WinsorLow, m.WinsorHigh, m.TrendWeight1, m.TrendWeight2, m.TrendWeight3 = 0.6, 0.5, 0, 0, 0
	h.MaxAge, h.SigmaRef, h.LockR = -time.Second, math.Inf(1), math.Inf(-1)
	var keys []string
	for _, p := range append(m.Problems(), h.Problems()...) {
		keys = append(keys, p.Key)
	}
	if want := []string{"a2", "epsilon", "regime_window", "trend_method", "trend_weight1", "trend_window2", "winsor_high", "lock_r", "max_age", "sigma_ref"}; !slices.Equal(keys, want) {
		t.Errorf("problems of %v, want %v", keys, want)
	}
}

// TestTriggersTrigger puts each trigger to the kernel, just before and just beyond.
func TestTriggersTrigger(t *testing.T) {
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		p := specHarvestParams()
		pos := Position{Side: rapid.SampledFrom([]ledger.Side{ledger.Long, ledger.Short}).Draw(t, "side"), Entry: rapid.Float64Range(0.01, 90_000).Draw(t, "entry"), AgeSec: rapid.Float64Range(0, 100_000).Draw(t, "age")}
		m := MarketState{Sigma: rapid.Float64Range(0.001, 0.05).Draw(t, "sigma"), TS: rapid.Float64Range(0, 1).Draw(t, "ts"), PTrend: rapid.Float64Range(0, 1).Draw(t, "trend")}
		m.PMR, m.PChop = (1-m.PTrend)/2, (1-m.PTrend)/2
		stopDist := rapid.SampledFrom([]float64{0, 0.01, 0.05}).Draw(t, "stop")
		p.KillThreshold = rapid.SampledFrom([]float64{0.55, 0.6, 0.7, 0.9, 1}).Draw(t, "threshold")
		judge := func(change func(pos *Position, m *MarketState)) Harvest {
			pos, m := pos, m
			change(&pos, &m)
			h, err := Judge(&p, &pos, &m, stopDist)
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		flips := func(name string, want Reasons, change func(beyond float64, pos *Position, m *MarketState)) {
			seen[name]++
			for _, beyond := range []float64{-1e-7, 1e-7} {
				h := judge(func(pos *Position, m *MarketState) { change(beyond, pos, m) })
				if h.Reasons.Has(want) != (beyond > 0) {
					t.Fatalf("%s, %v beyond its trigger: %v, K %v", name, beyond, h.Reasons.Codes(), h.KillScore)
				}
			}
		}
		tr := TriggersOf(&p, &pos, &m, stopDist)
		sign := 1.0
		if pos.Side == ledger.Short {
			sign = -1
		}
		for reason, price := range map[Reasons]float64{HarvestPartial25: tr.Partial25, HarvestPartial50: tr.Partial50, HarvestPartial75: tr.Partial75, ProfitLock: tr.Lock} {
			flips("price", reason, func(beyond float64, pos *Position, _ *MarketState) {
				pos.PnL = sign * (price*(1+sign*beyond) - pos.Entry)
			})
		}
		if killed := judge(func(*Position, *MarketState) {}).Reasons.Has(KillTriggered); killed != tr.Killed {
			t.Fatalf("killed %v, want %v", tr.Killed, killed)
		} else if killed {
			seen["killed"]++
			return
		}
		most := map[string]struct {
			reach  Reach
			extent float64 // the most that this alone can do
			set    func(x float64, pos *Position, m *MarketState)
		}{
			"sigma": {tr.Sigma, 1, func(x float64, _ *Position, m *MarketState) { m.Sigma = x }},
			"ts":    {tr.TS, -9, func(x float64, _ *Position, m *MarketState) { m.TS = x }},
			"age":   {tr.AgeSec, 1e9, func(x float64, pos *Position, _ *MarketState) { pos.AgeSec = x }},
		}
		for name, c := range most {
			reached := judge(func(pos *Position, m *MarketState) { c.set(c.extent, pos, m) }).Reasons.Has(KillTriggered)
			if reached != c.reach.Possible {
				t.Fatalf("%s can reach the kill: %v, want %v", name, c.reach, reached)
			}
			if reached {
				flips(name, KillTriggered, func(beyond float64, pos *Position, m *MarketState) {
					if name == "ts" {
						beyond = -beyond
					}
					c.set(c.reach.At+beyond*max(1e-2, math.Abs(c.reach.At)), pos, m)
				})
			}
		}
		flipped := judge(func(_ *Position, m *MarketState) { m.PTrend, m.PMR, m.PChop = 0, 0.5, 0.5 })
		if flipped.Reasons.Has(KillTriggered) != tr.Regime {
			t.Fatalf("a flip of the regime would kill: %v", tr.Regime)
		}
	})
	for _, name := range []string{"price", "killed", "sigma", "ts", "age"} {
		if seen[name] == 0 {
			t.Errorf("%s was never tried", name)
		}
	}
}
