package exitbrain

import (
	"math"
	"slices"
)

// slopeMedian is the median of all pairwise slopes of a window that slides by one value at a time: w − 1 slopes
// leave and as many come, of w·(w − 1)/2.
//
// Slopes are counted in bins that ascend with them: one below all, some up to a slope that was the median once, one
// for exactly that slope (in a market that stands still there are many equal ones), some beyond it, one above all. The
// median is found in the bin that the counts point to. Only the bins between know their slopes; a slope that
// leaves is taken off the count alone, and out of the bin's list when the median next looks into it. When the median
// comes to where nothing is known, or a list has grown long, or the room for them is full, the bins are laid out anew.
type slopeMedian struct {
	median float64

	w, size int // values, and slopes of them
	started bool
	steps   int32 // since the bins were laid out
	crowded bool  // the median's bin was long

	grid
	count   []int32 // slopes in each bin
	head    []int32 // first entry of each bin's list, −1 for none
	rows    []uint16
	entries []slopeEntry

	cursor int // bin of the median
	before int // slopes in the bins before it
}

// grid is where the bins are.
type grid struct {
	side               int     // bins on either side of the middle one
	low, mid, high     float64 // bounds of the bins with lists
	lowScale, midScale float64 // bins per unit of slope from low, and from mid
}

// slopeEntry is a slope in the list of its bin.
type slopeEntry struct {
	slope float64
	until int32 // step at which the earlier of its two values leaves, and the slope with it
	next  int32
}

// Sizes: a list is a few slopes long where they are evenly spread, and bins that have become too wide
// are borne for a while before they are laid out anew.
const (
	perBin       = 2
	crowd        = 32 * perBin
	crowdedSteps = 64
	sampleSize   = 128
	sideMax      = 1 << 14 // so that a bin's number fits into 16 bits
)

func newSlopeMedian(w int) slopeMedian {
	size := w * (w - 1) / 2
	side := min(size/(2*perBin)+1, sideMax)
	return slopeMedian{
		w: w, size: size, grid: grid{side: side}, count: make([]int32, 2*side+3), head: make([]int32, 2*side+3),
		rows: make([]uint16, w*w), entries: make([]slopeEntry, 0, 3*size+w),
	}
}

// slide brings the median up to date. The last of y is the value that comes, and the one before the last w is that
// which leaves; with fewer than w there is no median yet. room is for all slopes.
func (m *slopeMedian) slide(y, room []float64) {
	if len(y) < m.w {
		return
	}
	if m.started {
		m.exchange(y[len(y)-m.w-1:])
	}
	y = y[len(y)-m.w:]
	full := len(m.entries)+m.w > cap(m.entries)
	if !m.started || full || m.crowded && m.steps > crowdedSteps {
		m.layOut(y, room, false)
	}
	m.started = true
	if m.find(room) {
		return
	}
	if m.layOut(y, room, false); m.find(room) {
		return
	}
	if m.layOut(y, room, true); !m.find(room) { // A sample can mislead; all slopes cannot.
		panic("exitbrain: the median slope is outside of all slopes")
	}
}

// exchange takes out the slopes of the first of y and puts in those of the last.
func (m *slopeMedian) exchange(y []float64) {
	g, count, cursor, before := m.grid, m.count, m.cursor, m.before
	for _, bin := range m.row(0)[:m.w-1] {
		count[bin]--
		if int(bin) < cursor {
			before--
		}
	}
	m.steps++
	last, at := y[len(y)-1], int(m.steps)%m.w*m.w+m.w-2
	y = y[1 : len(y)-1]
	for i, v := range y {
		s := (last - v) / float64(len(y)-i)
		bin := g.bin(s)
		m.put(bin, s, i)
		m.rows[at] = uint16(bin) // The last of the i-th row, which is one shorter than the row before.
		if at += m.w - 1; at >= len(m.rows) {
			at -= len(m.rows)
		}
		if bin < cursor {
			before++
		}
	}
	m.before = before
}

// row is for the bins of the slopes that the i-th value has with those after it. When the window slides, the row of the
// value that leaves becomes that of the one that comes.
func (m *slopeMedian) row(i int) []uint16 {
	at := (int(m.steps) + i) % m.w * m.w
	return m.rows[at : at+m.w]
}

// bin is where s belongs. Of two slopes the larger never has the smaller bin, whatever is rounded.
func (g *grid) bin(s float64) int {
	switch {
	case s < g.mid:
		if s < g.low {
			return 0
		}
		return 1 + min(int((s-g.low)*g.lowScale), g.side-1)
	case s > g.mid:
		if s > g.high {
			return 2*g.side + 2
		}
		return g.side + 2 + min(int((s-g.mid)*g.midScale), g.side-1)
	default:
		return g.side + 1
	}
}

// listed tells whether bin knows its slopes.
func (g *grid) listed(bin int) bool { return bin != 0 && bin != g.side+1 && bin != 2*g.side+2 }

// put counts a slope of the i-th value and one after it.
func (m *slopeMedian) put(bin int, s float64, i int) {
	m.count[bin]++
	if m.listed(bin) {
		m.entries = append(m.entries, slopeEntry{s, m.steps + int32(i) + 1, m.head[bin]})
		m.head[bin] = int32(len(m.entries) - 1)
	}
}

// find sets the median, and tells whether it could.
func (m *slopeMedian) find(room []float64) bool {
	k := (m.size - 1) / 2
	for m.before > k {
		m.cursor--
		m.before -= int(m.count[m.cursor])
	}
	for m.before+int(m.count[m.cursor]) <= k {
		m.before += int(m.count[m.cursor])
		m.cursor++
	}
	m.crowded = m.listed(m.cursor) && m.count[m.cursor] > crowd
	low, high, ok := m.ranked(m.cursor, k-m.before, room)
	if m.size%2 == 1 {
		high = low
	}
	if ok && math.IsInf(high, 1) {
		next := m.cursor + 1
		for m.count[next] == 0 { // There is one: k is not the last rank.
			next++
		}
		high, _, ok = m.ranked(next, 0, room)
	}
	m.median = (low + high) / 2
	return ok
}

// ranked are the k-th smallest slope in a bin, from 0, and the one after it, infinite where that is in another bin;
// not ok where the bin does not know its slopes. The bin's list is rid of those that have left.
func (m *slopeMedian) ranked(bin, k int, room []float64) (low, high float64, ok bool) {
	high = math.Inf(1)
	if !m.listed(bin) {
		if k+1 < int(m.count[bin]) {
			high = m.mid
		}
		return m.mid, high, bin == m.side+1
	}
	n := 0
	link := &m.head[bin]
	for at := *link; at >= 0; at = *link {
		e := &m.entries[at]
		if e.until <= m.steps {
			*link = e.next
			continue
		}
		room[n] = e.slope
		n++
		link = &e.next
	}
	low = nth(room[:n], k)
	for _, s := range room[k+1 : n] {
		high = min(high, s)
	}
	return low, high, true
}

// layOut makes new bins for the window y: around the middle five sixths of a sample of the slopes, or of all.
func (m *slopeMedian) layOut(y, room []float64, exact bool) {
	all := slopes(room[:0], y)
	if exact {
		slices.Sort(all)
		m.bounds(all)
		all = slopes(room[:0], y)
	} else {
		var sample [sampleSize]float64
		for i := range sample {
			sample[i] = all[i*len(all)/sampleSize]
		}
		slices.Sort(sample[:])
		m.bounds(sample[:])
	}
	m.steps, m.cursor, m.before, m.entries = 0, 0, 0, m.entries[:0]
	clear(m.count)
	for i := range m.head {
		m.head[i] = -1
	}
	for i := range y {
		n, row := len(y)-1-i, m.row(i)
		for k, s := range all[:n] {
			bin := m.bin(s)
			m.put(bin, s, i)
			row[k] = uint16(bin)
		}
		all = all[n:]
	}
}

// bounds lays the bins around the middle of an ascending slice. Where many slopes are equal to the median, as a crowd
// suggests, it gets the bin that only counts.
func (m *slopeMedian) bounds(sorted []float64) {
	n := len(sorted)
	m.low, m.mid, m.high = sorted[n/12], sorted[(n-1)/2], sorted[n-1-n/12]
	if m.crowded && m.low <= m.median && m.median <= m.high {
		m.mid = m.median
	}
	m.lowScale = min(float64(m.side)/(m.mid-m.low), math.MaxFloat64)
	m.midScale = min(float64(m.side)/(m.high-m.mid), math.MaxFloat64)
	m.crowded = false
}
