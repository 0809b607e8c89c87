package paper

import (
	"context"
	"math"
	"time"

	"permitchain/exchange"
	"permitchain/exchange/synthetic"
	"permitchain/ledger"
)

// barOf is the bar of a number: the n-th interval of market time, which may lie before the book began.
// Its times are of the day, at the pace of now.
func (p *Paper) barOf(symbol string, n int64) ledger.Bar {
	begin := float64(n) * p.bar
	return synthetic.Of(p.opening.Seed, symbol).Bar(p.pace, begin, begin+p.bar)
}

// newest is the number of the newest bar that has closed.
func (p *Paper) newest(now time.Time) int64 {
	return int64(math.Floor(p.pace.Market(now)/p.bar)) - 1
}

// closeBars tells the subscribers of the bars that have closed since it was last asked.
func (p *Paper) closeBars(now time.Time) {
	for newest := p.newest(now); p.barred < newest; {
		p.barred = max(p.barred+1, newest-barsKept+1)
		for _, symbol := range p.venue.Symbols() {
			for s := range p.subs {
				s.closed(p.barOf(symbol, p.barred))
			}
		}
	}
}

// Bars implements exchange.Exchange.
func (p *Paper) Bars(ctx context.Context, symbol string, limit int) ([]ledger.Bar, error) {
	limit = min(limit, exchange.BarsPage)
	return query(ctx, p, "read bars", func(now time.Time) []ledger.Bar {
		var bars []ledger.Bar
		for n := p.newest(now) - int64(limit) + 1; n <= p.newest(now); n++ {
			bars = append(bars, p.barOf(symbol, n))
		}
		return bars
	})
}
