package exitbrain

import (
	"math"
	"slices"
)

// Market is the market state of one symbol, kept up to date close by close. What it knows is what StateOf would
// compute of the same closes; nothing is added up over time, so that no rounding gathers. It is not for
// several goroutines.
type Market struct {
	params  MarketParams
	count   int       // closes so far, counted up to what is needed
	logs    tail      // log prices
	returns tail      // their differences
	sums    tail      // overlapping sums of returns
	sorted  []float64 // the returns of the volatility window, ascending
	clipped []float64 // room for the same, clipped
	weights []float64 // of each squared return in the moving average, oldest first, …
	seed    float64   // … and of the variance it starts from
	equal   int       // neighbouring returns of equal sign in the regime window
	medians [3]slopeMedian
	room    []float64
	state   MarketState
}

// NewMarket is a market without closes. The parameters must have no Problems.
func NewMarket(p MarketParams) *Market {
	m := &Market{
		params: p, logs: newTail(p.Closes() + 1), returns: newTail(p.Closes() - 1), sums: newTail(p.RegimeWindow - p.VRLag + 1),
		sorted: make([]float64, 0, p.VolWindow), clipped: make([]float64, p.VolWindow), weights: make([]float64, p.VolWindow),
	}
	m.seed = 1
	for i := range m.weights {
		m.seed *= p.EWMALambda
		m.weights[i] = (1 - p.EWMALambda) * math.Pow(p.EWMALambda, float64(p.VolWindow-1-i))
	}
	if p.TrendMethod == TheilSen {
		for i, w := range p.windows() {
			m.medians[i] = newSlopeMedian(w)
		}
		widest := max(p.TrendWindow1, p.TrendWindow2, p.TrendWindow3)
		m.room = make([]float64, widest*(widest-1)/2)
	}
	return m
}

// Add takes in the close of a bar. One that is no price is an error and changes nothing.
func (m *Market) Add(price float64) error {
	if err := checkClose(price); err != nil {
		return err
	}
	y := math.Log(price + m.params.Epsilon)
	if m.count > 0 {
		m.addReturn(y - m.logs.last(1)[0])
	}
	m.logs.push(y)
	if m.params.TrendMethod == TheilSen {
		for i := range m.medians {
			m.medians[i].slide(m.logs.all(), m.room)
		}
	}
	if m.count++; m.count < m.params.Closes() {
		return nil
	}
	m.count = m.params.Closes()
	var mu [3]float64
	for i, w := range m.params.windows() {
		if m.params.TrendMethod == TheilSen {
			mu[i] = m.medians[i].median
		} else {
			mu[i] = leastSquares(m.logs.last(w))
		}
	}
	ewma, mad := m.volatility()
	m.state = blend(&m.params, ewma, mad, mu, m.equal, variance(m.returns.last(m.params.RegimeWindow)), variance(m.sums.all()))
	return nil
}

// State is the market state at the last close, ErrTooFew while there is none.
func (m *Market) State() (MarketState, error) {
	if m.count < m.params.Closes() {
		return MarketState{}, ErrTooFew
	}
	return m.state, nil
}

func (m *Market) addReturn(r float64) {
	p, old := &m.params, m.returns.all()
	at, _ := slices.BinarySearch(m.sorted, r)
	if n := len(old); n < p.VolWindow {
		m.sorted = slices.Insert(m.sorted, at, r) // There is room.
	} else {
		gone, _ := slices.BinarySearch(m.sorted, old[n-p.VolWindow])
		if gone < at {
			at--
			copy(m.sorted[gone:at], m.sorted[gone+1:])
		} else {
			copy(m.sorted[at+1:gone+1], m.sorted[at:])
		}
		m.sorted[at] = r
	}
	if n := len(old); n > 0 && sign(r) == sign(old[n-1]) {
		m.equal++
	}
	if n := len(old) - p.RegimeWindow; n >= 0 && p.RegimeWindow > 1 && sign(old[n]) == sign(old[n+1]) {
		m.equal--
	}
	m.returns.push(r)
	if len(m.returns.all()) >= p.VRLag {
		m.sums.push(inOrder(m.returns.last(p.VRLag)))
	}
}

// volatility is that of the batch, with the moving average as a sum of weighted squares, which needs no waiting for
// the one before.
func (m *Market) volatility() (ewma, mad float64) {
	p, n := &m.params, len(m.sorted)
	lo, hi := quantile(m.sorted, p.WinsorLow), quantile(m.sorted, p.WinsorHigh)
	room, w := m.clipped, m.weights
	for i, r := range m.returns.last(n) {
		room[i] = clip(r, lo, hi)
	}
	ewma = m.seed * variance(room[:p.EWMASeed])
	var a, b float64
	i := 0
	for ; i+1 < n; i += 2 {
		a += w[i] * room[i] * room[i]
		b += w[i+1] * room[i+1] * room[i+1]
	}
	if i < n {
		a += w[i] * room[i] * room[i]
	}
	copy(room, m.sorted)
	for i := 0; i < n && room[i] < lo; i++ {
		room[i] = lo
	}
	for i := n - 1; i >= 0 && room[i] > hi; i-- {
		room[i] = hi
	}
	return ewma + (a + b), deviation(room)
}

// tail is the last n of a series, side by side in memory.
type tail struct {
	n   int
	buf []float64
}

func newTail(n int) tail { return tail{n, make([]float64, 0, 4*n)} }

func (t *tail) push(v float64) {
	if len(t.buf) == cap(t.buf) {
		t.buf = t.buf[:copy(t.buf, t.last(t.n-1))]
	}
	t.buf = append(t.buf, v)
}

func (t *tail) last(n int) []float64 { return t.buf[len(t.buf)-n:] }

// all are the last n, fewer before there were n.
func (t *tail) all() []float64 { return t.last(min(t.n, len(t.buf))) }
