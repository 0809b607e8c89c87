package exitbrain

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// MarketParams are the constants of the market state (SPEC §3.1). The keys are flat, because a section of the
// configuration has one level; the defaults stand in config.yaml and nowhere else.
type MarketParams struct {
	VolWindow    int     `yaml:"vol_window"`    // returns that sigma is of
	WinsorLow    float64 `yaml:"winsor_low"`    // quantile, 0 to 1, below which returns are clipped to it
	WinsorHigh   float64 `yaml:"winsor_high"`   // quantile above which returns are clipped to it
	EWMASeed     int     `yaml:"ewma_seed"`     // returns whose variance the moving average starts from
	EWMALambda   float64 `yaml:"ewma_lambda"`   // what the moving average keeps of itself at each return, 0 to 1
	MADScale     float64 `yaml:"mad_scale"`     // makes a median deviation a standard deviation
	SpikeCap     float64 `yaml:"spike_cap"`     // the most that spike, a ratio of two sigmas, can be
	SpikeCenter  float64 `yaml:"spike_center"`  // spike at which both sigmas count half
	SpikeScale   float64 `yaml:"spike_scale"`   // change of spike that turns the weights by one unit of the sigmoid
	SpikeClip    float64 `yaml:"spike_clip"`    // bound of the sigmoid's argument on either side
	SigmaMin     float64 `yaml:"sigma_min"`     // the least that sigma can be, per bar
	TrendMethod  Slope   `yaml:"trend_method"`  // how the slope of log prices is estimated
	TrendWindow1 int     `yaml:"trend_window1"` // log prices of the first slope
	TrendWindow2 int     `yaml:"trend_window2"`
	TrendWindow3 int     `yaml:"trend_window3"`
	TrendWeight1 float64 `yaml:"trend_weight1"` // share of the first slope in mu; the three are scaled to a sum of 1
	TrendWeight2 float64 `yaml:"trend_weight2"`
	TrendWeight3 float64 `yaml:"trend_weight3"`
	RegimeWindow int     `yaml:"regime_window"` // returns that dp and vr are of
	VRLag        int     `yaml:"vr_lag"`        // returns in one overlapping sum of the variance ratio
	RegimeTemp   float64 `yaml:"regime_temp"`   // softmax temperature of the regimes: higher is less decided
	A1           float64 `yaml:"a1"`            // trend = a1·ts + a2·dp − a3·|vr − 1|
	A2           float64 `yaml:"a2"`
	A3           float64 `yaml:"a3"`
	B1           float64 `yaml:"b1"` // mr = b1·|vr − 1| − b2·ts − b3·|dp|
	B2           float64 `yaml:"b2"`
	B3           float64 `yaml:"b3"`
	C1           float64 `yaml:"c1"` // chop = c1·(1 − |dp|) + c2·(1 − min(ts, 1)) − c3·|vr − 1|
	C2           float64 `yaml:"c2"`
	C3           float64 `yaml:"c3"`
	Epsilon      float64 `yaml:"epsilon"` // added to prices before their logarithm, and to divisors
}

// Slope is how the slope of a window of log prices is estimated.
type Slope string

// The estimates: the median of all pairwise slopes, or least squares.
const (
	TheilSen     Slope = "theil_sen"
	LeastSquares Slope = "ols"
)

// windowMax bounds windows: a Theil–Sen window keeps half its square of slopes.
const windowMax = 2048

func (p *MarketParams) windows() [3]int {
	return [3]int{p.TrendWindow1, p.TrendWindow2, p.TrendWindow3}
}

// weights are the shares of the three slopes in mu; their sum is 1.
func (p *MarketParams) weights() [3]float64 {
	sum := p.TrendWeight1 + p.TrendWeight2 + p.TrendWeight3
	return [3]float64{p.TrendWeight1 / sum, p.TrendWeight2 / sum, p.TrendWeight3 / sum}
}

// Closes is how many closes a market state needs; with fewer there is none.
func (p *MarketParams) Closes() int {
	return max(p.VolWindow+1, p.RegimeWindow+1, p.TrendWindow1, p.TrendWindow2, p.TrendWindow3)
}

// HarvestParams are the constants of the harvest kernel (SPEC §3.2). R is a multiple of the risk unit.
// The names in JSON are those of the vectors, by which eval's theta overrides them.
type HarvestParams struct {
	FallbackStop    float64       `yaml:"fallback_stop" json:"fallback_stop_pct"`   // stop distance where none is known, as a share of the entry price
	RiskUnitMin     float64       `yaml:"risk_unit_min" json:"risk_unit_min"`       // the least a risk unit can be, in the quote asset
	CostBps         float64       `yaml:"cost_bps" json:"cost_bps"`                 // cost of leaving, in basis points of the entry price
	Partial25R      float64       `yaml:"partial_25_r" json:"T1_R"`                 // R_net from which a quarter is taken off
	Partial50R      float64       `yaml:"partial_50_r" json:"T2_R"`                 // R_net from which half is
	Partial75R      float64       `yaml:"partial_75_r" json:"T3_R"`                 // R_net from which three quarters are
	LockR           float64       `yaml:"lock_r" json:"lock_R"`                     // R_net from which a stop locks the profit
	LockMargin      float64       `yaml:"lock_margin" json:"be_plus_pct"`           // how far beyond the entry that stop is, as a share of it
	TrendMin        float64       `yaml:"trend_min" json:"trend_min"`               // p_trend below which the regime may have flipped …
	NoTrendMin      float64       `yaml:"no_trend_min" json:"no_trend_min"`         // … if p_chop + p_mr is above this
	SigmaRef        float64       `yaml:"sigma_ref" json:"sigma_ref"`               // sigma per bar that is ordinary
	SigmaSpikeMax   float64       `yaml:"sigma_spike_max" json:"sigma_spike_cap"`   // the most that sigma / sigma_ref − 1 counts
	TSRef           float64       `yaml:"ts_ref" json:"ts_ref"`                     // ts below which the trend is weak
	TSDropMax       float64       `yaml:"ts_drop_max" json:"ts_drop_cap"`           // the most that ts_ref − ts counts
	MaxAge          time.Duration `yaml:"max_age" json:"-"`                         // age at which the age penalty is full
	KRegimeFlip     float64       `yaml:"k_regime_flip" json:"k_regime_flip"`       // weights of the components in the kill score
	KSigmaSpike     float64       `yaml:"k_sigma_spike" json:"k_sigma_spike"`       //
	KTSDrop         float64       `yaml:"k_ts_drop" json:"k_ts_drop"`               //
	KAgePenalty     float64       `yaml:"k_age_penalty" json:"k_age_penalty"`       //
	KillThreshold   float64       `yaml:"kill_threshold" json:"kill_threshold"`     // kill score, 0 to 1, from which everything is closed
	NameRegimeFlip  float64       `yaml:"name_regime_flip" json:"name_regime_flip"` // component above which it is named as a reason of a kill
	NameSigmaSpike  float64       `yaml:"name_sigma_spike" json:"name_sigma_spike"` //
	NameTSDrop      float64       `yaml:"name_ts_drop" json:"name_ts_drop"`         //
	NameAgePenalty  float64       `yaml:"name_age_penalty" json:"name_age_penalty"` //
	TrancheUtility1 float64       `yaml:"tranche_utility1" json:"u1"`               // tranche weights are their softmax, for the audit only
	TrancheUtility2 float64       `yaml:"tranche_utility2" json:"u2"`               //
	TrancheUtility3 float64       `yaml:"tranche_utility3" json:"u3"`               //
	TrancheTemp     float64       `yaml:"tranche_temp" json:"softmax_temp"`         // its temperature
}

// Problem is a parameter that its kernel cannot work with.
type Problem struct {
	Key  string // as in config.yaml
	Text string
}

func (p Problem) Error() string { return p.Key + " " + p.Text }

// problems collects what is wrong with parameters.
type problems []Problem

func (ps *problems) want(ok bool, key, format string, args ...any) {
	if !ok {
		*ps = append(*ps, Problem{key, fmt.Sprintf(format, args...)})
	}
}

// numbers wants positive ones above 0, and the others finite.
func (ps *problems) numbers(positive, others map[string]float64) {
	for key, v := range positive {
		ps.want(v > 0 && !math.IsInf(v, 0), key, "must be above 0 (got %v)", v)
	}
	for key, v := range others {
		ps.want(!math.IsNaN(v) && !math.IsInf(v, 0), key, "must be a finite number (got %v)", v)
	}
}

// sorted are the problems in an order that is always the same.
func (ps problems) sorted() []Problem {
	slices.SortStableFunc(ps, func(a, b Problem) int { return strings.Compare(a.Key, b.Key) })
	return ps
}

func (ps *problems) window(key string, n, least int) {
	ps.want(n >= least && n <= windowMax, key, "must be from %d to %d (got %d)", least, windowMax, n)
}

// Problems are the parameters no market state can be computed with.
func (p *MarketParams) Problems() []Problem {
	var ps problems
	ps.window("ewma_seed", p.EWMASeed, 1)
	ps.window("vol_window", p.VolWindow, max(2, p.EWMASeed))
	ps.window("vr_lag", p.VRLag, 1)
	ps.window("regime_window", p.RegimeWindow, max(2, p.VRLag))
	for i, w := range p.windows() {
		ps.window(fmt.Sprintf("trend_window%d", i+1), w, 2)
	}
	for i, w := range []float64{p.TrendWeight1, p.TrendWeight2, p.TrendWeight3} {
		ps.want(w >= 0 && !math.IsInf(w, 0), fmt.Sprintf("trend_weight%d", i+1), "must not be below 0 (got %v)", w)
	}
	ps.want(p.TrendWeight1+p.TrendWeight2+p.TrendWeight3 > 0, "trend_weight1", "and the others must not all be 0")
	ps.want(p.TrendMethod == TheilSen || p.TrendMethod == LeastSquares, "trend_method", "must be %s or %s (got %q)", TheilSen, LeastSquares, p.TrendMethod)
	ps.want(p.WinsorLow >= 0 && p.WinsorLow <= 1, "winsor_low", "must be from 0 to 1 (got %v)", p.WinsorLow)
	ps.want(p.WinsorHigh >= p.WinsorLow && p.WinsorHigh <= 1, "winsor_high", "must be from winsor_low to 1 (got %v)", p.WinsorHigh)
	ps.want(p.EWMALambda >= 0 && p.EWMALambda <= 1, "ewma_lambda", "must be from 0 to 1 (got %v)", p.EWMALambda)
	ps.numbers(map[string]float64{
		"mad_scale": p.MADScale, "spike_cap": p.SpikeCap, "spike_scale": p.SpikeScale, "spike_clip": p.SpikeClip,
		"sigma_min": p.SigmaMin, "regime_temp": p.RegimeTemp, "epsilon": p.Epsilon,
	}, map[string]float64{
		"spike_center": p.SpikeCenter, "a1": p.A1, "a2": p.A2, "a3": p.A3, "b1": p.B1, "b2": p.B2, "b3": p.B3, "c1": p.C1, "c2": p.C2, "c3": p.C3,
	})
	return ps.sorted()
}

// Problems are the parameters no position can be judged with. Any order of the tranches, and any
// threshold, is possible: a researcher may ask for one that never triggers.
func (p *HarvestParams) Problems() []Problem {
	var ps problems
	ps.want(p.MaxAge > 0, "max_age", "must be above 0 (got %v)", p.MaxAge)
	ps.numbers(map[string]float64{
		"fallback_stop": p.FallbackStop, "risk_unit_min": p.RiskUnitMin, "sigma_ref": p.SigmaRef, "tranche_temp": p.TrancheTemp,
	}, map[string]float64{
		"cost_bps": p.CostBps, "partial_25_r": p.Partial25R, "partial_50_r": p.Partial50R, "partial_75_r": p.Partial75R,
		"lock_r": p.LockR, "lock_margin": p.LockMargin, "trend_min": p.TrendMin, "no_trend_min": p.NoTrendMin,
		"sigma_spike_max": p.SigmaSpikeMax, "ts_ref": p.TSRef, "ts_drop_max": p.TSDropMax, "k_regime_flip": p.KRegimeFlip,
		"k_sigma_spike": p.KSigmaSpike, "k_ts_drop": p.KTSDrop, "k_age_penalty": p.KAgePenalty, "kill_threshold": p.KillThreshold,
		"name_regime_flip": p.NameRegimeFlip, "name_sigma_spike": p.NameSigmaSpike, "name_ts_drop": p.NameTSDrop, "name_age_penalty": p.NameAgePenalty,
		"tranche_utility1": p.TrancheUtility1, "tranche_utility2": p.TrancheUtility2, "tranche_utility3": p.TrancheUtility3,
	})
	return ps.sorted()
}
