package exitbrain

import (
	"math"
	"slices"
)

// The statistics of the market state. The batch and the incremental computation share them, so that
// they can differ only in how they come by their windows.

// clip is x, but not below lo or above hi.
func clip(x, lo, hi float64) float64 {
	if x > hi {
		x = hi
	}
	if x < lo {
		x = lo
	}
	return x
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// total sums in four strands: the processor adds them side by side.
func total(x []float64) float64 {
	var a, b, c, d float64
	for len(x) >= 4 {
		a, b, c, d = a+x[0], b+x[1], c+x[2], d+x[3]
		x = x[4:]
	}
	for _, v := range x {
		a += v
	}
	return a + b + (c + d)
}

// variance is that of a population.
func variance(x []float64) float64 {
	mean := total(x) / float64(len(x))
	n := float64(len(x))
	var a, b, c, d float64
	for len(x) >= 4 {
		p, q, r, s := x[0]-mean, x[1]-mean, x[2]-mean, x[3]-mean
		a, b, c, d = a+p*p, b+q*q, c+r*r, d+s*s
		x = x[4:]
	}
	for _, v := range x {
		a += (v - mean) * (v - mean)
	}
	return (a + b + (c + d)) / n
}

// quantile interpolates linearly between the values of an ascending slice.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i >= len(sorted)-1 {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (sorted[i+1]-sorted[i])*(at-float64(i))
}

// medianOf is the median of an ascending slice.
func medianOf(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// deviation is the median of |x − median of x|. In an ascending slice the h values nearest to the median stand
// side by side, so that the place where they begin can be searched by halves.
func deviation(sorted []float64) float64 {
	n, m := len(sorted), medianOf(sorted)
	h := (n-1)/2 + 1
	lo, hi := 0, n-h
	for lo < hi {
		mid := (lo + hi) / 2
		if m-sorted[mid] > sorted[mid+h]-m {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	nearest := max(m-sorted[lo], sorted[lo+h-1]-m)
	if n%2 == 1 {
		return nearest
	}
	next := math.Inf(1)
	if lo > 0 {
		next = m - sorted[lo-1]
	}
	if lo+h < n {
		next = min(next, sorted[lo+h]-m)
	}
	return (nearest + next) / 2
}

// nth puts the k-th smallest value of x, from 0, in its place, smaller ones before and larger ones after it.
// Equal values are parted evenly, so that ties do not slow it down.
func nth(x []float64, k int) float64 {
	for lo, hi := 0, len(x)-1; lo < hi; {
		a, b, c := x[lo], x[lo+(hi-lo)/2], x[hi]
		pivot := max(min(a, b), min(max(a, b), c))
		i, j := lo, hi
		for i <= j {
			for x[i] < pivot {
				i++
			}
			for x[j] > pivot {
				j--
			}
			if i <= j {
				x[i], x[j] = x[j], x[i]
				i++
				j--
			}
		}
		switch {
		case k <= j:
			hi = j
		case k >= i:
			lo = i
		default:
			return x[k]
		}
	}
	return x[k]
}

// middle is the median of x, which it reorders.
func middle(x []float64) float64 {
	n := len(x)
	low := nth(x, (n-1)/2)
	if n%2 == 1 {
		return low
	}
	return (low + slices.Min(x[n/2:])) / 2
}

// slopes appends the slope between every two of y, by the earlier one.
func slopes(to, y []float64) []float64 {
	for i := range y {
		for j := i + 1; j < len(y); j++ {
			to = append(to, (y[j]-y[i])/float64(j-i))
		}
	}
	return to
}

// leastSquares is the slope of the line nearest to y.
func leastSquares(y []float64) float64 {
	n := float64(len(y))
	mean, center, sum := total(y)/n, (n-1)/2, 0.0
	for i, v := range y {
		sum += (float64(i) - center) * (v - mean)
	}
	return sum / (n * (n*n - 1) / 12)
}

// sign is −1, 0 or 1.
func sign(x float64) int {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	default:
		return 0
	}
}

// persistence is how many neighbours in r have the same sign.
func persistence(r []float64) int {
	n := 0
	for i := 1; i < len(r); i++ {
		if sign(r[i]) == sign(r[i-1]) {
			n++
		}
	}
	return n
}

// softmax turns scores into shares that sum to 1.
func softmax(scores [3]float64, temp float64) [3]float64 {
	top := max(scores[0], scores[1], scores[2])
	var e [3]float64
	sum := 0.0
	for i, s := range scores {
		e[i] = math.Exp((s - top) / temp)
		sum += e[i]
	}
	for i := range e {
		e[i] /= sum
	}
	return e
}
