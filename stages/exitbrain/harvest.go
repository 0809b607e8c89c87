package exitbrain

import (
	"errors"
	"fmt"
	"math"

	"permitchain/ledger"
)

// Position is what the harvest kernel knows of a position.
type Position struct {
	Side   ledger.Side // LONG or SHORT, also in one-way mode
	Entry  float64
	PnL    float64 // unrealised, per unit of the base asset
	Stop   float64 // price of the standing stop; 0: none
	AgeSec float64
}

// Harvest is the kernel's answer.
type Harvest struct {
	Action    ledger.Action // HOLD, a tranche or FULL_CLOSE_PROPOSED
	NewStop   float64       // with the reason ProfitLock
	RNet      float64
	RiskUnit  float64
	Cost      float64
	KillScore float64
	Parts     Components
	Weights   [3]float64 // of the tranches, for the audit
	Reasons   Reasons
}

// Components are what the kill score is made of, before their weights.
type Components struct {
	RegimeFlip float64 `json:"regime_flip"`
	SigmaSpike float64 `json:"sigma_spike"`
	TSDrop     float64 `json:"ts_drop"`
	AgePenalty float64 `json:"age_penalty"`
}

// Map is the form a proposal has them in.
func (c Components) Map() map[string]float64 {
	return map[string]float64{"regime_flip": c.RegimeFlip, "sigma_spike": c.SigmaSpike, "ts_drop": c.TSDrop, "age_penalty": c.AgePenalty}
}

// Reasons is a set of reason codes.
type Reasons uint16

// The reasons, in the order in which they are given.
const (
	HarvestPartial25 Reasons = 1 << iota
	HarvestPartial50
	HarvestPartial75
	ProfitLock
	KillTriggered
	RegimeFlip
	SigmaSpike
	TSDrop
	AgePenalty
)

var reasonCodes = [...]string{
	"harvest_partial_25", "harvest_partial_50", "harvest_partial_75", "profit_lock",
	"kill_score_triggered", "regime_flip", "sigma_spike", "ts_drop", "age_penalty",
}

// Has tells whether all of other are in r.
func (r Reasons) Has(other Reasons) bool { return r&other == other }

// Codes are the reasons as a proposal gives them; not nil.
func (r Reasons) Codes() []string {
	codes := []string{}
	for i, code := range reasonCodes {
		if r.Has(1 << i) {
			codes = append(codes, code)
		}
	}
	return codes
}

// Proposed is what the answer asks of the chain: a stop without a close is UPDATE_SL (SPEC §4).
func (h *Harvest) Proposed() ledger.Action {
	if h.Action == ledger.Hold && h.Reasons.Has(ProfitLock) {
		return ledger.UpdateSL
	}
	return h.Action
}

// What the kernel cannot answer.
var (
	ErrSide   = errors.New("the side must be LONG or SHORT")
	ErrParams = errors.New("sigma_ref, max_age and tranche_temp must be above 0")
	ErrRange  = errors.New("a number is out of range")
)

// Judge is the harvest kernel (SPEC §3.2): what to do with a position in a market. stopDist is the stop's distance as
// a share of the entry price, 0 where none is known. What it cannot compute is an error, never a guess.
func Judge(p *HarvestParams, pos *Position, m *MarketState, stopDist float64) (Harvest, error) {
	h := Harvest{Action: ledger.Hold}
	switch inputs := pos.Entry + pos.PnL + pos.Stop + pos.AgeSec + m.Sigma + m.TS + m.PTrend + m.PMR + m.PChop + stopDist; {
	case pos.Side != ledger.Long && pos.Side != ledger.Short:
		return h, ErrSide
	case !(p.SigmaRef > 0 && p.MaxAge > 0 && p.TrancheTemp > 0):
		return h, ErrParams
	case math.IsNaN(inputs) || math.IsInf(inputs, 0):
		return h, fmt.Errorf("read position and market: %w", ErrRange)
	}
	h.RiskUnit, h.Cost = p.risk(pos.Entry, stopDist)
	h.RNet = (pos.PnL - h.Cost) / h.RiskUnit
	switch {
	case h.RNet >= p.Partial75R:
		h.Action, h.Reasons = ledger.Partial75, HarvestPartial75
	case h.RNet >= p.Partial50R:
		h.Action, h.Reasons = ledger.Partial50, HarvestPartial50
	case h.RNet >= p.Partial25R:
		h.Action, h.Reasons = ledger.Partial25, HarvestPartial25
	}
	if stop := p.lockStop(pos); h.RNet >= p.LockR && tightens(pos, stop) {
		h.NewStop, h.Reasons = stop, h.Reasons|ProfitLock
	}
	h.Parts = p.components(pos.AgeSec, m)
	h.KillScore = sigmoid(p.pressure(&h.Parts))
	if h.KillScore >= p.KillThreshold {
		h.Action, h.Reasons = ledger.FullClose, h.Reasons|KillTriggered|p.named(&h.Parts)
	}
	h.Weights = softmax([3]float64{p.TrancheUtility1, p.TrancheUtility2, p.TrancheUtility3}, p.TrancheTemp)
	steepest := max(p.TrancheUtility1, p.TrancheUtility2, p.TrancheUtility3) / p.TrancheTemp
	if outcome := h.RNet + h.NewStop + h.KillScore + h.Weights[0]; math.IsNaN(outcome) || math.IsInf(outcome, 0) || steepest > expMax || h.KillScore == 0 {
		return h, fmt.Errorf("judge position: %w", ErrRange)
	}
	return h, nil
}

// expMax is the largest number with an exponential. Parameters that go beyond it say nothing.
const expMax = 709.782712893384

// risk is what one R is worth, and the cost of leaving. Here and below a conversion to float64 keeps products from being
// fused with the sums around them, which some processors do: a threshold would be met a bit too early or late.
func (p *HarvestParams) risk(entry, stopDist float64) (unit, cost float64) {
	if stopDist == 0 {
		stopDist = p.FallbackStop
	}
	return max(p.RiskUnitMin, entry*stopDist), float64(entry * (p.CostBps / 10_000))
}

// lockStop is where a stop locks the profit in.
func (p *HarvestParams) lockStop(pos *Position) float64 {
	if pos.Side == ledger.Long {
		return pos.Entry * (1 + p.LockMargin)
	}
	return pos.Entry * (1 - p.LockMargin)
}

// tightens tells whether a stop is nearer to the market than the standing one.
func tightens(pos *Position, stop float64) bool {
	return pos.Stop <= 0 || pos.Side == ledger.Long && stop > pos.Stop || pos.Side == ledger.Short && stop < pos.Stop
}

func (p *HarvestParams) components(ageSec float64, m *MarketState) Components {
	c := Components{
		SigmaSpike: clip(m.Sigma/p.SigmaRef-1, 0, p.SigmaSpikeMax),
		TSDrop:     clip(p.TSRef-m.TS, 0, p.TSDropMax),
		AgePenalty: clip(ageSec/p.MaxAge.Seconds(), 0, 1),
	}
	if m.PTrend < p.TrendMin && m.PChop+m.PMR > p.NoTrendMin {
		c.RegimeFlip = 1
	}
	return c
}

// pressure is the sum whose sigmoid is the kill score.
func (p *HarvestParams) pressure(c *Components) float64 {
	return float64(p.KRegimeFlip*c.RegimeFlip) + float64(p.KSigmaSpike*c.SigmaSpike) + float64(p.KTSDrop*c.TSDrop) + float64(p.KAgePenalty*c.AgePenalty)
}

// named are the components that are given as reasons of a kill.
func (p *HarvestParams) named(c *Components) Reasons {
	var r Reasons
	if c.RegimeFlip > p.NameRegimeFlip {
		r |= RegimeFlip
	}
	if c.SigmaSpike > p.NameSigmaSpike {
		r |= SigmaSpike
	}
	if c.TSDrop > p.NameTSDrop {
		r |= TSDrop
	}
	if c.AgePenalty > p.NameAgePenalty {
		r |= AgePenalty
	}
	return r
}
