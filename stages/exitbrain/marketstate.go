package exitbrain

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// MarketState is what the recent closes of a symbol say (SPEC §3.1), per bar.
type MarketState struct {
	Sigma  float64 // blend of the two sigmas below
	Mu     float64 // slope of the log price
	TS     float64 // |mu| / sigma
	PTrend float64 // share of each regime; the three sum to 1
	PMR    float64
	PChop  float64
	DP     float64 // share of neighbouring returns of the same sign
	VR     float64 // variance ratio
	Spike  float64 // SigmaMAD / SigmaEWMA, capped

	SigmaEWMA float64 // of the moving average
	SigmaMAD  float64 // of the median deviation
	Blend     float64 // weight of SigmaMAD in Sigma
}

// ErrTooFew says that there are not enough closes for a market state.
var ErrTooFew = errors.New("too few closes for a market state")

// StateOf computes the market state of the last closes, oldest first, from nothing. Market does the same by steps.
func StateOf(p *MarketParams, closes []float64) (MarketState, error) {
	return stateOf(p, closes, slope)
}

// stateOf is StateOf with a way to compute slopes: slope, or what gives the same.
func stateOf(p *MarketParams, closes []float64, slope func(Slope, []float64) float64) (MarketState, error) {
	n := p.Closes()
	if len(closes) < n {
		return MarketState{}, ErrTooFew
	}
	y := make([]float64, n)
	for i, c := range closes[len(closes)-n:] {
		if err := checkClose(c); err != nil {
			return MarketState{}, err
		}
		y[i] = math.Log(c + p.Epsilon)
	}
	r := make([]float64, n-1)
	for i := range r {
		r[i] = y[i+1] - y[i]
	}
	regime := r[len(r)-p.RegimeWindow:]
	sums := make([]float64, p.RegimeWindow-p.VRLag+1)
	for i := range sums {
		sums[i] = inOrder(regime[i : i+p.VRLag])
	}
	v, mad := volatility(p, r[len(r)-p.VolWindow:])
	var mu [3]float64
	for i, w := range p.windows() {
		mu[i] = slope(p.TrendMethod, y[n-w:])
	}
	return blend(p, v, mad, mu, persistence(regime), variance(regime), variance(sums)), nil
}

// checkClose refuses what no price can be. Zero can: a feed may say so, and its logarithm is still finite.
func checkClose(c float64) error {
	if !(c >= 0 && c <= math.MaxFloat64) {
		return fmt.Errorf("close %v is no price", c)
	}
	return nil
}

// inOrder sums from the first to the last, however few.
func inOrder(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum
}

// volatility is the moving average of the squares of the returns, clipped to their own quantiles, and their
// median deviation.
func volatility(p *MarketParams, r []float64) (ewma, mad float64) {
	sorted := slices.Sorted(slices.Values(r))
	lo, hi := quantile(sorted, p.WinsorLow), quantile(sorted, p.WinsorHigh)
	clipped := make([]float64, len(r))
	for i := range r {
		clipped[i], sorted[i] = clip(r[i], lo, hi), clip(sorted[i], lo, hi)
	}
	ewma = variance(clipped[:p.EWMASeed])
	for _, c := range clipped {
		ewma = p.EWMALambda*ewma + (1-p.EWMALambda)*c*c
	}
	return ewma, deviation(sorted)
}

func slope(method Slope, y []float64) float64 {
	if method == LeastSquares {
		return leastSquares(y)
	}
	return middle(slopes(make([]float64, 0, len(y)*(len(y)-1)/2), y))
}

// blend makes the state of its ingredients: moving average, median deviation and slopes of the windows, equal
// neighbouring signs, and the variances of the returns and of their overlapping sums.
func blend(p *MarketParams, ewma, mad float64, slopes [3]float64, equal int, single, summed float64) MarketState {
	s := MarketState{SigmaEWMA: math.Sqrt(ewma), SigmaMAD: p.MADScale * mad}
	s.Spike = clip(s.SigmaMAD/(s.SigmaEWMA+p.Epsilon), 0, p.SpikeCap)
	s.Blend = sigmoid(clip((s.Spike-p.SpikeCenter)/p.SpikeScale, -p.SpikeClip, p.SpikeClip))
	s.Sigma = max(p.SigmaMin, (1-s.Blend)*s.SigmaEWMA+s.Blend*s.SigmaMAD)
	w := p.weights()
	s.Mu = w[0]*slopes[0] + w[1]*slopes[1] + w[2]*slopes[2]
	s.TS = math.Abs(s.Mu) / (s.Sigma + p.Epsilon)
	s.DP = float64(equal) / float64(p.RegimeWindow-1)
	s.VR = summed / (float64(p.VRLag)*single + p.Epsilon)
	off := math.Abs(s.VR - 1)
	shares := softmax([3]float64{
		p.A1*s.TS + p.A2*s.DP - p.A3*off,
		p.B1*off - p.B2*s.TS - p.B3*s.DP,
		p.C1*(1-s.DP) + p.C2*(1-min(s.TS, 1)) - p.C3*off,
	}, p.RegimeTemp)
	s.PTrend, s.PMR, s.PChop = shares[0], shares[1], shares[2]
	return s
}
