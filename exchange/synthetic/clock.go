package synthetic

import (
	"time"

	"permitchain/ledger"
)

// Clock maps the time of day to the time of the market, whatever speed was chosen when.
type Clock struct {
	At         time.Time `json:"at"`
	SyntheticS float64   `json:"synthetic_s"`
	Speed      float64   `json:"speed"`
}

// Market is where the market's clock stands at a time of day, in seconds.
func (c Clock) Market(now time.Time) float64 { return c.SyntheticS + now.Sub(c.At).Seconds()*c.Speed }

// Wall is the time of day at which the market's clock stands at seconds, to the microsecond.
func (c Clock) Wall(seconds float64) time.Time {
	return c.At.Add(time.Duration((seconds - c.SyntheticS) / c.Speed * float64(time.Second))).Round(time.Microsecond)
}

// samples is in how many places a bar looks at the price for its high and low.
const samples = 12

// Bar is the bar between two instants of the market, in seconds; its times of day are Wall's.
func (s Spec) Bar(c Clock, from, to float64) ledger.Bar {
	b := ledger.Bar{Symbol: s.Symbol, OpenAt: c.Wall(from), CloseAt: c.Wall(to), Close: s.Price(to)}
	b.High, b.Low = b.Close, b.Close
	for i := range samples {
		at := s.Price(from + (to-from)*float64(i)/samples)
		b.High, b.Low = b.High.Max(at), b.Low.Min(at)
	}
	return b
}
