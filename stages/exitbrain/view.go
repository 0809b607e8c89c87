package exitbrain

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"permitchain/ledger"
)

// Views are what the brain shows of itself, in words, for whoever asks why.
type Views struct{ bySymbol sync.Map } // string → []string, replaced whole

// Of are the lines about a symbol; none before the brain has seen it.
func (v *Views) Of(symbol string) []string {
	if lines, ok := v.bySymbol.Load(symbol); ok {
		return lines.([]string)
	}
	return nil
}

func (b *Stage) show(s *symbol) { b.Views.bySymbol.Store(s.name, s.describe()) }

// describe is what the brain thinks of a symbol, with each number's bound and how far each trigger is.
func (s *symbol) describe() []string {
	if !s.config.Enabled {
		return []string{"exit-brain: off (exit_brain.enabled)"}
	}
	if s.blind != "" {
		return []string{"exit-brain: no opinion: " + s.blind}
	}
	m, err := s.market.State()
	if err != nil {
		return []string{"exit-brain: no opinion: " + err.Error()}
	}
	lines := []string{fmt.Sprintf("exit-brain: market at %s: trend %.2f, mean reversion %.2f, chop %.2f; sigma %.5f, ts %.2f",
		clock(s.lastBar.CloseAt), m.PTrend, m.PMR, m.PChop, m.Sigma, m.TS)}
	for _, p := range s.held {
		lines = append(lines, p.describe(s, &m)...)
	}
	return lines
}

func (p *position) describe(s *symbol, m *MarketState) []string {
	h, c := &p.last, &s.config
	if h.RiskUnit == 0 {
		return nil // No mark has been judged yet.
	}
	lines := []string{
		fmt.Sprintf("  %s %s: %s; R_net %.2f (risk unit %.4g, since the entry at %s)", p.Key.Label(), p.Amount, h.Proposed(), h.RNet, h.RiskUnit, p.Entry),
		fmt.Sprintf("  kill score %.3f of %.2f: regime_flip %.0f × %g, sigma_spike %.2f × %g, ts_drop %.2f × %g, age_penalty %.2f × %g", h.KillScore, c.KillThreshold,
			h.Parts.RegimeFlip, c.KRegimeFlip, h.Parts.SigmaSpike, c.KSigmaSpike, h.Parts.TSDrop, c.KTSDrop, h.Parts.AgePenalty, c.KAgePenalty),
	}
	t := TriggersOf(&c.HarvestParams, &p.kernel, m, c.StopDist)
	price := func(v float64) string { return priceAt(v, s.tick).String() }
	next := []string{
		fmt.Sprintf("PARTIAL_25 at %s", price(t.Partial25)), fmt.Sprintf("PARTIAL_50 at %s", price(t.Partial50)),
		fmt.Sprintf("PARTIAL_75 at %s", price(t.Partial75)), fmt.Sprintf("profit lock at %s", price(t.Lock)),
	}
	reach := func(r Reach, format string, value any) {
		if r.Possible {
			next = append(next, fmt.Sprintf("kill score reaches %.2f if ", c.KillThreshold)+fmt.Sprintf(format, value))
		}
	}
	reach(t.Sigma, "sigma passes %.4f", t.Sigma.At)
	reach(t.TS, "ts falls to %.2f", t.TS.At)
	reach(t.AgeSec, "it is held for %s", time.Duration(t.AgeSec.At*float64(time.Second)).Round(time.Minute))
	reach(Reach{Possible: t.Regime}, "%s", "the regime flips")
	return append(lines, "  next: "+strings.Join(next, "; "))
}

// priceAt is a kernel's price on the market's tick, rounded down; 0 for what is no price.
func priceAt(v float64, tick ledger.Price) ledger.Price {
	p, err := ledger.ParsePrice(strconv.FormatFloat(v, 'f', 8, 64))
	if err != nil || p.Sign() <= 0 {
		return ledger.Price{}
	}
	return p.FloorTo(tick)
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05") }
