package exitbrain

import (
	"math"
	"slices"
)

// slopeSelector finds the median of all pairwise slopes without computing most of them, and keeps its room from one
// window to the next. It gives what the plain median of slopes gives, bit for bit. Eval uses it, for which every line
// is a new window; StateOf stays plain, so that there is one computation that can be checked by reading it.
//
// Two values of y are in the order of y − m·x, or not, by whether their slope is below m. So the inversions of that
// order, which a merge sort counts, are the slopes below m; and the pairs that change places when m is moved are
// the slopes between the old m and the new. The selector sorts by a guess, moves m towards the median by the
// number of slopes still missing, and in the end chooses among the few slopes it passed last.
type slopeSelector struct {
	order, spare []residual
	passed       []uint32 // pairs that the last move passed, two numbers of 16 bits
	found        []float64
}

// residual is the i-th value of a window less m·i.
type residual struct {
	z float64
	i int32
}

const (
	plainMost    = 32  // values up to which computing all slopes is faster
	nearMost     = 200 // slopes between m and the median that are few enough to be noted …
	nearExtra    = 40  // … and how many to pass beyond it, as no guess is exact
	movesMost    = 12  // moves, after which all slopes are computed
	farMovesMost = 5   // moves after which any number of slopes is few enough: many are equal, or nearly so
)

// slope is the function of that name.
func (s *slopeSelector) slope(method Slope, y []float64) float64 {
	if method == LeastSquares {
		return leastSquares(y)
	}
	if len(y) > plainMost {
		if m, ok := s.median(y); ok {
			return m
		}
	}
	s.found = slopes(s.found[:0], y)
	return middle(s.found)
}

// median is not ok where rounding could have put a slope on the wrong side of m, as where nearly all are equal.
func (s *slopeSelector) median(y []float64) (median float64, ok bool) {
	size := len(y) * (len(y) - 1) / 2
	k := (size - 1) / 2
	m, perSlope := s.guess(y, size)
	below, ties := s.sort(y, m)
	if m == 0 && below <= k && size-below-ties <= k {
		return 0, true // A market that stands still. Here alone ties are exact: nothing was subtracted.
	}
	largest := max(math.Abs(slices.Max(y)), math.Abs(slices.Min(y)))
	for moves := range movesMost {
		by := k - below
		last := max(by, -by) < nearMost || moves >= farMovesMost
		if last && by >= 0 {
			by += by/4 + nearExtra
		} else if last {
			by += by/4 - nearExtra
		}
		from, was := m, below
		m += float64(by) * perSlope
		n, ok := s.move(y, m, m > from, last)
		if below += n; !ok || m == from {
			return 0, false
		}
		if least := min(was, below); last && least <= k && k+1 < least+len(s.passed) {
			// Residuals are rounded, and a slope this near to m may have been taken for one on the other side of it.
			margin := 0x1p-49 * (largest + 2*float64(len(y))*max(math.Abs(from), math.Abs(m)))
			return s.choose(y, k-least, size%2 == 0, min(from, m)+margin, max(from, m)-margin)
		}
		if n != 0 {
			perSlope = (m - from) / float64(n)
		} else {
			perSlope *= 4
		}
	}
	return 0, false
}

// guess is the median of some slopes, and how far apart slopes are around it, were all of size evenly spread.
func (s *slopeSelector) guess(y []float64, size int) (m, perSlope float64) {
	n, random := uint64(len(y)), uint64(1)
	s.found = s.found[:0]
	for len(s.found) < len(y) {
		random = random*6364136223846793005 + 1442695040888963407
		i, j := int(random>>48*n>>16), int(random>>32&0xffff*n>>16)
		if i != j { // Either order gives the same slope.
			s.found = append(s.found, (y[j]-y[i])/float64(j-i))
		}
	}
	half, part := len(y)/2, len(y)/8
	m = nth(s.found, half)
	high := nth(s.found[half:], part)
	low := nth(s.found[:half], half-part)
	return m, (high - low) / float64(2*part) * float64(len(y)) / float64(size)
}

// sort puts the residuals of y in order, and counts the pairs that were not in it, and those that are equal.
func (s *slopeSelector) sort(y []float64, m float64) (below, ties int) {
	const run = 8
	s.order, s.spare = slices.Grow(s.order[:0], len(y))[:len(y)], slices.Grow(s.spare[:0], len(y))[:len(y)]
	for i, v := range y {
		e := residual{v - m*float64(i), int32(i)}
		at := i
		for ; at > i&^(run-1) && s.order[at-1].z > e.z; at-- {
			s.order[at] = s.order[at-1]
		}
		s.order[at] = e
		below += i - at
	}
	for width := run; width < len(y); width *= 2 {
		for lo := 0; lo < len(y); lo += 2 * width {
			mid, hi := min(lo+width, len(y)), min(lo+2*width, len(y))
			below += merge(s.spare[lo:hi], s.order[lo:mid], s.order[mid:hi])
		}
		s.order, s.spare = s.spare, s.order
	}
	equal := 0
	for i := 1; i < len(s.order); i++ {
		if s.order[i].z == s.order[i-1].z {
			equal++
		} else {
			equal = 0
		}
		ties += equal
	}
	return below, ties
}

// merge merges two ordered halves, and counts the pairs of which the later is smaller.
func merge(to, a, b []residual) (below int) {
	at := 0
	for len(a) > 0 && len(b) > 0 {
		if b[0].z < a[0].z {
			to[at] = b[0]
			b = b[1:]
			below += len(a)
		} else {
			to[at] = a[0]
			a = a[1:]
		}
		at++
	}
	copy(to[at+copy(to[at:], a):], b)
	return below
}

// move orders the residuals for another m, and counts the slopes passed, below 0 downwards; it notes their pairs if
// asked to. Upwards each is to put the later value first; a pair that does the opposite has been rounded, and is not ok.
func (s *slopeSelector) move(y []float64, m float64, up, note bool) (n int, ok bool) {
	order, wrong := s.order, int32(0)
	s.passed = s.passed[:0]
	for at := range order {
		i := order[at].i
		e := residual{y[i] - m*float64(i), i}
		to := at
		for ; to > 0 && order[to-1].z > e.z; to-- {
			p := order[to-1]
			order[to] = p
			if up {
				wrong |= i - p.i
			} else {
				wrong |= p.i - i
			}
			if note {
				s.passed = append(s.passed, uint32(p.i)<<16|uint32(i))
			}
		}
		order[to] = e
		n += at - to
	}
	if !up {
		n = -n
	}
	return n, wrong >= 0
}

// choose is the k-th of the slopes passed, from 0, or the mean of it and the next, if both are surely between lo and hi.
func (s *slopeSelector) choose(y []float64, k int, even bool, lo, hi float64) (median float64, ok bool) {
	s.found = s.found[:0]
	for _, pair := range s.passed {
		i, j := int(pair>>16), int(pair&0xffff)
		s.found = append(s.found, (y[j]-y[i])/float64(j-i))
	}
	low := nth(s.found, k)
	high := low
	if even {
		high = slices.Min(s.found[k+1:])
		median = (low + high) / 2
	} else {
		median = low
	}
	return median, lo <= low && high <= hi
}
