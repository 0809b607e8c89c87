package binance

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/adshao/go-binance/v2/futures"

	"permitchain/exchange"
	"permitchain/ledger"
)

// Bars implements exchange.Exchange. Its bars are of traded prices, as those of the stream are. The one that is still
// open is left out, and so is everything before a gap.
func (b *Binance) Bars(ctx context.Context, symbol string, limit int) ([]ledger.Bar, error) {
	if limit <= 0 {
		return nil, nil
	}
	ask := min(limit+1, exchange.BarsPage)
	c := &call{what: "GET /fapi/v1/klines", weight: klinesWeight(ask), list: true}
	e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) error {
		_, err := f.NewKlinesService().Symbol(symbol).Interval(b.interval).Limit(ask).Do(ctx)
		return err
	})
	if e != nil {
		return nil, fmt.Errorf("read bars: %w", e)
	}
	var rows [][]json.RawMessage
	if err := json.Unmarshal(c.body, &rows); err != nil {
		return nil, fmt.Errorf("read bars: %w: they are no lists", errMalformed)
	}
	now := b.Now()
	if r := b.reading.Load(); r != nil {
		now = now.Add(-r.doubt())
	}
	var bars []ledger.Bar
	for _, row := range rows {
		bar, err := b.readBar(symbol, row)
		if err != nil {
			return nil, fmt.Errorf("read bars: %w", err)
		}
		if n := len(bars); n > 0 && bar.OpenAt.Before(bars[n-1].CloseAt) {
			return nil, fmt.Errorf("read bars: %w: they are out of order", errMalformed)
		} else if n > 0 && !bar.OpenAt.Equal(bars[n-1].CloseAt) {
			bars = nil
		}
		if bar.CloseAt.After(now) {
			break
		}
		bars = append(bars, bar)
	}
	return bars[max(0, len(bars)-limit):], nil
}

// klinesWeight is what the exchange counts for so many.
func klinesWeight(limit int) int {
	switch {
	case limit < 100:
		return 1
	case limit < 500:
		return 2
	default:
		return 5
	}
}

// readBar reads open time, open, high, low, close, volume and close time, which is a millisecond before the next begins.
func (b *Binance) readBar(symbol string, row []json.RawMessage) (ledger.Bar, error) {
	f := &fields{members: map[string]json.RawMessage{}}
	for i, name := range []string{"t", "o", "h", "l", "c", "v", "T"} {
		if i < len(row) {
			f.members[name] = row[i]
		}
	}
	bar := ledger.Bar{
		Symbol: symbol, OpenAt: f.at("t"), CloseAt: f.at("T").Add(time.Millisecond),
		High: f.price("h"), Low: f.price("l"), Close: f.price("c"),
	}
	if bar.CloseAt.Sub(bar.OpenAt) != b.opt.Bar || bar.Low.Sign() <= 0 || bar.High.Less(bar.Close) || bar.Close.Less(bar.Low) {
		f.fail("it is no bar of %s", b.opt.Bar)
	}
	return bar, f.err
}
