package exitbrain

import (
	"math"

	"permitchain/ledger"
)

// Triggers are how far a position is from what would take it off: each for itself, with all else as it is.
type Triggers struct {
	Partial25 float64 // the mark price from which R_net is enough for each tranche, …
	Partial50 float64
	Partial75 float64
	Lock      float64 // … and for the profit lock
	Killed    bool    // the kill score has reached its threshold; what follows is then 0
	Sigma     Reach   // sigma at and above which it would
	TS        Reach   // ts at and below which it would
	AgeSec    Reach   // age from which it would
	Regime    bool    // it would if the regime flipped
}

// Reach is a value that would bring something about, where any can.
type Reach struct {
	At       float64
	Possible bool
}

// TriggersOf computes them; the side must be LONG or SHORT, and the parameters without Problems.
func TriggersOf(p *HarvestParams, pos *Position, m *MarketState, stopDist float64) Triggers {
	unit, cost := p.risk(pos.Entry, stopDist)
	price := func(r float64) float64 {
		if pos.Side == ledger.Short {
			return pos.Entry - (r*unit + cost)
		}
		return pos.Entry + (r*unit + cost)
	}
	t := Triggers{Partial25: price(p.Partial25R), Partial50: price(p.Partial50R), Partial75: price(p.Partial75R), Lock: price(p.LockR)}
	c := p.components(pos.AgeSec, m)
	z := p.pressure(&c)
	if t.Killed = sigmoid(z) >= p.KillThreshold; t.Killed {
		return t
	}
	wanted := math.Log(p.KillThreshold / (1 - p.KillThreshold)) // z of the threshold; beyond 1 no number
	missing := wanted - z
	t.Regime = c.RegimeFlip == 0 && p.KRegimeFlip >= missing
	reach := func(weight, now, most float64, value func(component float64) float64) Reach {
		component := now + missing/weight
		if !(weight > 0 && component <= most) {
			return Reach{}
		}
		return Reach{value(component), true}
	}
	t.Sigma = reach(p.KSigmaSpike, c.SigmaSpike, p.SigmaSpikeMax, func(x float64) float64 { return p.SigmaRef * (1 + x) })
	t.TS = reach(p.KTSDrop, c.TSDrop, p.TSDropMax, func(x float64) float64 { return p.TSRef - x })
	t.AgeSec = reach(p.KAgePenalty, c.AgePenalty, 1, func(x float64) float64 { return x * p.MaxAge.Seconds() })
	return t
}
