package exitbrain

import (
	"math"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/ledger"
)

// marked is a stage with one position in a market that is known, as it stands between two bars.
func marked(tb testing.TB) (*Stage, *symbol, ledger.Mark) {
	tb.Helper()
	now := time.Date(2026, 1, 25, 0, 26, 8, 0, time.UTC)
	c := Config{Enabled: true, Interval: time.Hour, CloseInterval: time.Hour, MinGap: time.Second, MaxMove: 0.2, MarketParams: specMarketParams(), HarvestParams: specHarvestParams()}
	m := NewMarket(c.MarketParams)
	for i := range 300 {
		if err := m.Add(87000 * math.Exp(0.0005*float64(i)+0.0003*float64(i%3))); err != nil {
			tb.Fatal(err)
		}
	}
	k := ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}
	price := ledger.MustPrice("91350.1")
	s := &symbol{
		name: "BTCUSDT", config: c, tick: ledger.MustPrice("0.1"), market: m,
		lastBar: ledger.Bar{OpenAt: now.Add(-time.Minute), CloseAt: now, Close: price},
		held:    []*position{newPosition(&Held{Key: k, Amount: ledger.MustQty("0.046"), Entry: ledger.MustPrice("87000"), Epoch: 1, OpenedAt: now.Add(-time.Hour)}, nil)},
	}
	b := &Stage{Board: exchange.NewBoard(map[string]exchange.Market{"BTCUSDT": {}}), Exchange: clockOnly{now: now}, Views: &Views{}, Log: zerolog.Nop(), symbols: map[string]*symbol{"BTCUSDT": s}}
	mark := ledger.Mark{Symbol: "BTCUSDT", Price: price, At: now}
	if len(b.judge(s, mark)) != 1 {
		tb.Fatalf("no proposal: %s", s.blind)
	}
	return b, s, mark
}

// clockOnly is an exchange that only knows the time.
type clockOnly struct {
	exchange.Exchange
	now time.Time
}

func (c clockOnly) Now() time.Time { return c.now }

// TestAMarkCostsNoAllocation: the ordinary mark, which changes nothing.
func TestAMarkCostsNoAllocation(t *testing.T) {
	b, s, mark := marked(t)
	if n := testing.AllocsPerRun(1000, func() {
		if len(b.judge(s, mark)) != 0 {
			t.Error("said again")
		}
	}); n != 0 {
		t.Errorf("%v allocations a mark", n)
	}
}

func BenchmarkMark(b *testing.B) {
	stage, s, mark := marked(b)
	for b.Loop() {
		stage.judge(s, mark)
	}
}
