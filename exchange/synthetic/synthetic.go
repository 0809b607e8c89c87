// Package synthetic is a market that nobody trades on: rules, prices and bars of any
// symbol, as a function of a seed and of the market's own time.
//
// Contract: it is pure. The same seed, symbol and second give the same price for ever,
// so a market needs no memory, and its past can be asked for.
package synthetic

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"permitchain/exchange"
	"permitchain/ledger"
)

// Spec is a symbol's rules and the law of its price.
type Spec struct {
	exchange.Market
	own   uint64  // the seed of this symbol alone
	start float64 // about what it costs
}

// Of is a symbol of a seed: with Binance's rules for a few, and for any other what its name makes of the seed. It is always the same.
func Of(seed uint64, symbol string) Spec {
	own := ownSeed(seed, symbol)
	switch symbol {
	case "BTCUSDT":
		return newSpec(own, symbol, "0.001", "120", "0.1", 87000)
	case "ETHUSDT":
		return newSpec(own, symbol, "0.001", "2000", "0.01", 2900)
	case "SOLUSDT":
		return newSpec(own, symbol, "0.1", "8000", "0.01", 125)
	case "BNBUSDT":
		return newSpec(own, symbol, "0.01", "2000", "0.01", 850)
	case "XRPUSDT":
		return newSpec(own, symbol, "0.1", "2000000", "0.0001", 1.9)
	case "DOGEUSDT":
		return newSpec(own, symbol, "1", "30000000", "0.00001", 0.13)
	}
	price := math.Pow(10, 4*luckOf(own, 0).Float64()-1) // 0.1 to 1,000 USD
	magnitude := int(math.Floor(math.Log10(price)))
	// A step costs 1 to 10 USD, the largest order is a hundred thousand steps, and a tick is a ten-thousandth of the price or less.
	return newSpec(own, symbol, power(-magnitude), power(5-magnitude), power(magnitude-4), price)
}

func newSpec(own uint64, symbol, step, largest, tick string, start float64) Spec {
	lot := ledger.Lot{Step: ledger.MustQty(step), Min: ledger.MustQty(step), Max: ledger.MustQty(largest)}
	return Spec{exchange.Market{Symbol: symbol, Lot: lot, Tick: ledger.MustPrice(tick)}, own, start}
}

// power is ten to the n, as an amount.
func power(n int) string {
	if n < 0 {
		return "0." + strings.Repeat("0", -n-1) + "1"
	}
	return "1" + strings.Repeat("0", n)
}

// The shape of the market: about 0.06 % a minute around a round of regimes that an
// exit-brain should tell apart: eight hours of a trend up, quiet, a spike of volatility, and eight hours of a trend down.
const (
	sigmaPerRootSecond = 0.0006 / 7.745966692414834 // √60
	roundS             = 1095 * 60
	upS                = 480 * 60 // the trend up ends
	quietS             = 600 * 60 // the quiet ends, and the spike begins
	spikeS             = 615 * 60 // the spike ends, and the trend down begins
	climb              = 0.28     // of the log price, up and down again
	spikeVariance      = 16       // times the ordinary
	startS             = 300 * 60 // where in a round a new book begins: the trend is old enough to be seen
	farthest           = 1.5      // log of how far the price may ever be from its start
)

// Price is the mark price after so many seconds of market. It depends on nothing else, so
// it needs no memory, a restart continues it without a jump, and its past can be asked for.
//
// It is a Brownian motion, whose time runs faster in a spike, on the slope of the regime.
func (s Spec) Price(seconds float64) ledger.Price {
	x := sigmaPerRootSecond*(brownian(s.own, busy(seconds))-brownian(s.own, busy(0))) + slope(seconds) - slope(0)
	x = farthest * math.Tanh(x/farthest)
	_, fraction, _ := strings.Cut(s.Tick.String(), ".")
	p := ledger.MustPrice(strconv.FormatFloat(s.start*math.Exp(x), 'f', len(fraction), 64))
	return p.Max(s.Tick)
}

// inRound is where in its round a market stands, and how many rounds are behind it.
func inRound(seconds float64) (at, rounds float64) {
	rounds = math.Floor((seconds + startS) / roundS)
	return seconds + startS - rounds*roundS, rounds
}

// busy is the time by the market's own reckoning: it passes faster while the market is wild.
func busy(seconds float64) float64 {
	at, rounds := inRound(seconds)
	const extra = (spikeVariance - 1) * (spikeS - quietS)
	return seconds + rounds*extra + (spikeVariance-1)*min(max(at-quietS, 0), spikeS-quietS)
}

// slope is the log price that the regimes alone would make.
func slope(seconds float64) float64 {
	switch at, _ := inRound(seconds); {
	case at < upS:
		return climb * at / upS
	case at < spikeS:
		return climb
	default:
		return climb * (roundS - at) / (roundS - spikeS)
	}
}

// brownian is a Brownian motion at a time in seconds, found by halving: the value in the
// middle of an interval is the mean of its ends and a normal deviation that belongs to
// that middle alone. The interval reaches 17,000 years to both sides of 0.
func brownian(own uint64, at float64) float64 {
	const reach = 1 << 39
	lo, hi := -float64(reach), float64(reach)
	at = max(lo, min(at, hi))
	var left, right float64
	source := rand.NewPCG(0, 0)
	luck := rand.New(source)
	for node := uint64(2); hi-lo > 1 && at > lo; {
		source.Seed(own, spread(node))
		mid := (lo + hi) / 2
		value := (left+right)/2 + math.Sqrt(hi-lo)/2*luck.NormFloat64()
		if at < mid {
			hi, right, node = mid, value, 2*node
		} else {
			lo, left, node = mid, value, 2*node+1
		}
	}
	return left + (right-left)*(at-lo)/(hi-lo)
}

// ownSeed belongs to a symbol of an exchange.
func ownSeed(seed uint64, symbol string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(symbol))
	return seed ^ h.Sum64()
}

// luckOf is a source that belongs to a number.
func luckOf(own, n uint64) *rand.Rand { return rand.New(rand.NewPCG(own, spread(n))) }

// spread sends neighbouring numbers far apart, so that their sources have nothing in common.
func spread(n uint64) uint64 { return n * 0x9e3779b97f4a7c15 }
