package exitbrain

import (
	"math"
	"math/big"
	"slices"
	"sort"
	"testing"

	"pgregory.net/rapid"
)

// numbers draws slices of all kinds: with ties, with jumps of many magnitudes, and of one value only.
func numbers(t *rapid.T, least, most int) []float64 {
	value := rapid.OneOf(
		rapid.Float64Range(-1, 1),
		rapid.Map(rapid.IntRange(-3, 3), func(i int) float64 { return float64(i) / 8 }),
		rapid.SampledFrom([]float64{0, 1e-12, -27.6, 1e6, -1e-300}),
	)
	if rapid.Bool().Draw(t, "equal") {
		value = rapid.Just(rapid.Float64Range(-1, 1).Draw(t, "value"))
	}
	return rapid.SliceOfN(value, least, most).Draw(t, "numbers")
}

func TestNthIsThatOfASort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := numbers(t, 1, 200)
		k := rapid.IntRange(0, len(x)-1).Draw(t, "k")
		want := slices.Sorted(slices.Values(x))
		if got := nth(x, k); got != want[k] || x[k] != want[k] {
			t.Fatalf("nth %d is %v, want %v", k, got, want[k])
		}
		for i, v := range x {
			if i < k && v > x[k] || i > k && v < x[k] {
				t.Fatalf("%v at %d is on the wrong side of %v at %d", v, i, x[k], k)
			}
		}
		if slices.Sort(x); !slices.Equal(x, want) {
			t.Fatal("other values than before")
		}
	})
}

// dumbMedian sorts a copy.
func dumbMedian(x []float64) float64 {
	s := append([]float64{}, x...)
	sort.Float64s(s)
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

func TestQuantileIsTheWeightedMeanOfNeighbours(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := numbers(t, 1, 60)
		q := rapid.OneOf(rapid.Float64Range(0, 1), rapid.SampledFrom([]float64{0, 0.01, 0.5, 0.99, 1})).Draw(t, "q")
		slices.Sort(x)
		at := q * float64(len(x)-1)
		below, above := x[int(math.Floor(at))], x[int(math.Ceil(at))]
		f := at - math.Floor(at)
		if got, want := quantile(x, q), below*(1-f)+above*f; !near(got, want, 1e-9) {
			t.Fatalf("quantile %v is %v, want %v", q, got, want)
		}
	})
}

func TestDeviationIsTheMedianOfDistances(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := numbers(t, 1, 80)
		m := dumbMedian(x)
		distances := make([]float64, len(x))
		for i, v := range x {
			distances[i] = math.Abs(v - m)
		}
		slices.Sort(x)
		if got, want := deviation(x), dumbMedian(distances); got != want || medianOf(x) != m {
			t.Fatalf("deviation %v of %v, want %v", got, x, want)
		}
	})
}

func TestTheilSenIsTheMedianOfAllSlopes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y := numbers(t, 2, 40)
		var all []float64
		for j := range y {
			for i := range j {
				all = append(all, (y[j]-y[i])/float64(j-i))
			}
		}
		if got, want := slope(TheilSen, y), dumbMedian(all); got != want {
			t.Fatalf("slope %v, want %v", got, want)
		}
	})
}

func TestLeastSquaresSolvesTheNormalEquations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y := rapid.SliceOfN(rapid.Float64Range(-10, 10), 2, 60).Draw(t, "y")
		var sx, sy, sxx, sxy float64
		for i, v := range y {
			x := float64(i)
			sx, sy, sxx, sxy = sx+x, sy+v, sxx+x*x, sxy+x*v
		}
		n := float64(len(y))
		if got, want := slope(LeastSquares, y), (n*sxy-sx*sy)/(n*sxx-sx*sx); !near(got, want, 1e-10) {
			t.Fatalf("slope %v, want %v", got, want)
		}
	})
}

// exactVariance has no rounding to speak of.
func exactVariance(x []float64) float64 {
	const precision = 2400 // bits, enough for any sum of squares of doubles here
	number := func() *big.Float { return new(big.Float).SetPrec(precision) }
	n, sum, squares := number().SetInt64(int64(len(x))), number(), number()
	for _, v := range x {
		b := number().SetFloat64(v)
		sum.Add(sum, b)
		squares.Add(squares, number().Mul(b, b))
	}
	squares.Mul(squares, n).Sub(squares, number().Mul(sum, sum)).Quo(squares, number().Mul(n, n))
	f, _ := squares.Float64()
	return f
}

func TestVarianceAndVarianceRatioAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := numbers(t, 1, 100)
		if got, want := variance(x), exactVariance(x); !near(got, want, 1e-12) {
			t.Fatalf("variance %v of %v, want %v", got, x, want)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		p := specMarketParams()
		p.TrendWindow1, p.TrendWindow2, p.TrendWindow3, p.VolWindow = 2, 3, 4, 12
		p.RegimeWindow, p.VRLag = rapid.IntRange(8, 30).Draw(t, "window"), rapid.IntRange(1, 8).Draw(t, "lag")
		closes := rapid.SliceOfN(rapid.Float64Range(1, 2), p.Closes(), p.Closes()).Draw(t, "closes")
		var r, sums []float64
		for i := len(closes) - p.RegimeWindow; i < len(closes); i++ {
			r = append(r, math.Log(closes[i]+1e-12)-math.Log(closes[i-1]+1e-12))
		}
		same := 0
		for i := range r {
			if i > 0 && (r[i] > 0) == (r[i-1] > 0) && (r[i] < 0) == (r[i-1] < 0) {
				same++
			}
			if i >= p.VRLag-1 {
				sum := 0.0
				for _, v := range r[i-p.VRLag+1 : i+1] {
					sum += v
				}
				sums = append(sums, sum)
			}
		}
		s, err := StateOf(&p, closes)
		if err != nil {
			t.Fatal(err)
		}
		vr, dp := exactVariance(sums)/(float64(p.VRLag)*exactVariance(r)+1e-12), float64(same)/float64(len(r)-1)
		if !near(s.VR, vr, 1e-9) || s.DP != dp {
			t.Fatalf("vr %v, dp %v; want %v, %v", s.VR, s.DP, vr, dp)
		}
	})
}
