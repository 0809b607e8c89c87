package binance

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/adshao/go-binance/v2/futures"

	"permitchain/exchange"
	"permitchain/ledger"
)

// rules keeps exchangeInfo: it is 1 to 2 MB, and changes seldom.
type rules struct {
	mu      sync.Mutex
	at      time.Time
	symbols map[string]futures.Symbol // those that can be traded
}

// rulesAge is how long it is believed.
const rulesAge = 10 * time.Minute

// Markets implements exchange.Exchange. A symbol whose rules are not understood is left out like one that is not traded: it must
// not keep the others from being closed.
func (b *Binance) Markets(ctx context.Context, symbols []string) (map[string]exchange.Market, error) {
	listed, err := b.listed(ctx)
	if err != nil {
		return nil, err
	}
	all := map[string]exchange.Market{}
	for _, name := range symbols {
		s, ok := listed[name]
		if !ok {
			continue
		}
		m, err := market(s)
		if err != nil {
			b.log.Error().Err(err).Str("symbol", name).Msg("the symbol's rules are not understood: it is not traded")
			continue
		}
		all[name] = m
	}
	return all, nil
}

// listed are the symbols that can be traded now.
func (b *Binance) listed(ctx context.Context) (map[string]futures.Symbol, error) {
	b.rules.mu.Lock()
	defer b.rules.mu.Unlock()
	if b.rules.symbols != nil && time.Since(b.rules.at) < rulesAge {
		return b.rules.symbols, nil
	}
	var info *futures.ExchangeInfo
	c := &call{what: "GET /fapi/v1/exchangeInfo", weight: 1}
	e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) (err error) {
		info, err = f.NewExchangeInfoService().Do(ctx)
		return err
	})
	if e != nil {
		return nil, fmt.Errorf("read the markets' rules: %w", e)
	}
	if info == nil || len(info.Symbols) == 0 {
		return nil, fmt.Errorf("read the markets' rules: %w: it lists no symbol", errMalformed)
	}
	for _, l := range info.RateLimits {
		if l.RateLimitType == "REQUEST_WEIGHT" && l.Interval == "MINUTE" && l.IntervalNum == 1 && l.Limit < 1e6 {
			b.budget.setLimit(int(l.Limit))
		}
	}
	symbols := map[string]futures.Symbol{}
	for _, s := range info.Symbols {
		if s.Status == "TRADING" {
			symbols[s.Symbol] = s
		}
	}
	b.rules.symbols, b.rules.at = symbols, time.Now()
	return symbols, nil
}

// market reads a symbol's filters. An order at market must pass both lot filters, so the narrower of each bound counts.
func market(s futures.Symbol) (exchange.Market, error) {
	var m exchange.Market
	lot, err := lotOf(s, futures.SymbolFilterTypeMarketLotSize)
	if err != nil {
		return m, err
	}
	general, err := lotOf(s, futures.SymbolFilterTypeLotSize)
	if err != nil {
		return m, err
	}
	tick, err := ledger.ParsePrice(filter(s, futures.SymbolFilterTypePrice, "tickSize"))
	if err != nil || tick.Sign() <= 0 {
		return m, fmt.Errorf("its tick is %q", filter(s, futures.SymbolFilterTypePrice, "tickSize"))
	}
	lot = ledger.Lot{Step: lot.Step.Max(general.Step), Min: lot.Min.Max(general.Min), Max: lot.Max.Min(general.Max)}
	if !lot.Step.FloorTo(general.Step).Equal(lot.Step) || !lot.Min.FloorTo(lot.Step).Equal(lot.Min) || lot.Max.Less(lot.Min) {
		return m, fmt.Errorf("no quantity passes step %s, minimum %s and maximum %s", lot.Step, lot.Min, lot.Max)
	}
	return exchange.Market{Symbol: s.Symbol, Lot: lot, Tick: tick}, nil
}

func lotOf(s futures.Symbol, kind futures.SymbolFilterType) (ledger.Lot, error) {
	var lot ledger.Lot
	for _, f := range []struct {
		name string
		into *ledger.Qty
	}{{"stepSize", &lot.Step}, {"minQty", &lot.Min}, {"maxQty", &lot.Max}} {
		text := filter(s, kind, f.name)
		q, err := ledger.ParseQty(text)
		if err != nil || q.Sign() <= 0 {
			return lot, fmt.Errorf("%s of its %s is %q", f.name, kind, clip(text))
		}
		*f.into = q
	}
	return lot, nil
}

// filter is a filter's value, "" where there is no such text. The library's own helpers panic on one that is none.
func filter(s futures.Symbol, kind futures.SymbolFilterType, name string) string {
	for _, f := range s.Filters {
		if f["filterType"] == string(kind) {
			text, _ := f[name].(string)
			return text
		}
	}
	return ""
}
