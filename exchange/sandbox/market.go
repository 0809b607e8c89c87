package sandbox

import (
	"strings"
	"time"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// exchangeInfo is everything about the markets. It knows no parameters, as the real one does not.
func (s *Sandbox) exchangeInfo(c *call) (any, error) {
	limit := func(kind, interval string, n, most int) map[string]any {
		return map[string]any{"rateLimitType": kind, "interval": interval, "intervalNum": n, "limit": most}
	}
	symbols := []any{}
	for _, symbol := range s.venue.Symbols() {
		symbols = append(symbols, s.symbolInfo(symbol))
	}
	return map[string]any{
		"timezone": "UTC", "serverTime": c.now.UnixMilli(), "futuresType": "U_MARGINED",
		"rateLimits":      []any{limit("REQUEST_WEIGHT", "MINUTE", 1, s.o.Weight), limit("ORDERS", "MINUTE", 1, ordersPerMinute), limit("ORDERS", "SECOND", 10, ordersPerTen)},
		"exchangeFilters": []any{}, "assets": []any{map[string]any{"asset": "USDT", "marginAvailable": true, "autoAssetExchange": "0"}},
		"symbols": symbols,
	}, nil
}

func (s *Sandbox) symbolInfo(symbol string) map[string]any {
	m := s.markets[symbol]
	lot := func(kind string, most ledger.Qty) map[string]any {
		return map[string]any{"filterType": kind, "minQty": m.Lot.Min.String(), "stepSize": m.Lot.Step.String(), "maxQty": most.String()}
	}
	largest := m.Lot.Max
	if largest.Sign() <= 0 {
		largest = ledger.MustQty("1000000000")
	}
	base := strings.TrimSuffix(symbol, "USDT")
	return map[string]any{
		"symbol": symbol, "pair": symbol, "contractType": "PERPETUAL", "deliveryDate": 4133404800000, "onboardDate": 1567965300000, "status": "TRADING",
		"maintMarginPercent": "2.5000", "requiredMarginPercent": "5.0000", "baseAsset": base, "quoteAsset": "USDT", "marginAsset": "USDT",
		// The precisions are not the steps, and Binance says so.
		"pricePrecision": places(m.Tick.String()) + 1, "quantityPrecision": places(m.Lot.Step.String()), "baseAssetPrecision": 8, "quotePrecision": 8,
		"underlyingType": "COIN", "underlyingSubType": []string{"PoW"}, "triggerProtect": "0.0500", "liquidationFee": "0.012500", "marketTakeBound": "0.05", "maxMoveOrderLimit": 10000,
		"filters": []any{
			map[string]any{"filterType": "PRICE_FILTER", "minPrice": m.Tick.String(), "maxPrice": "100000000", "tickSize": m.Tick.String()},
			lot("LOT_SIZE", largest.Of(ledger.MustPercent("1000"))), // What is at a limit may be larger than what is at market.
			lot("MARKET_LOT_SIZE", largest),
			map[string]any{"filterType": "MAX_NUM_ORDERS", "limit": 200},
			map[string]any{"filterType": "MIN_NOTIONAL", "notional": s.o.MinNotional.String()},
			map[string]any{"filterType": "PERCENT_PRICE", "multiplierUp": "1.0500", "multiplierDown": "0.9500", "multiplierDecimal": "4"},
			map[string]any{"filterType": "POSITION_RISK_CONTROL", "positionControlSide": "NONE"},
		},
		"orderTypes":     []string{"LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"},
		"timeInForce":    []string{"GTC", "IOC", "FOK", "GTX", "GTD"},
		"permissionSets": []string{"GRID", "COPY", "DCA", "PSB"},
	}
}

// places is how many digits an amount has after the point.
func places(amount string) int {
	_, fraction, _ := strings.Cut(amount, ".")
	return len(fraction)
}

func (s *Sandbox) premiumIndex(c *call) (any, error) {
	one, err := s.symbol(c, true)
	if err != nil {
		return nil, err
	}
	symbols, _ := s.symbolsOf(c) // The symbol has just been judged.
	all := []any{}
	for _, symbol := range symbols {
		price := s.venue.Price(symbol).Fixed(8)
		all = append(all, map[string]any{
			"symbol": symbol, "markPrice": price, "indexPrice": price, "estimatedSettlePrice": price, "lastFundingRate": "0.00008972", "interestRate": "0.00010000",
			"nextFundingTime": c.now.Truncate(8 * time.Hour).Add(8 * time.Hour).UnixMilli(), "time": c.now.UnixMilli(),
		})
	}
	if one != "" {
		return all[0], nil
	}
	return all, nil
}

// kline is the bar of an interval that begins at Open. It is closed once its Close is over.
type kline struct {
	Symbol                  string
	Interval                string
	Open, Close             time.Time // Close is the last millisecond
	First, High, Low, Last  ledger.Price
	Closed                  bool
	Volume                  ledger.Qty
	Trades, FirstID, LastID int64
}

// intervals are those that klines can be of.
func intervals() map[string]time.Duration {
	return map[string]time.Duration{
		"1m": time.Minute, "3m": 3 * time.Minute, "5m": 5 * time.Minute, "15m": 15 * time.Minute, "30m": 30 * time.Minute, "1h": time.Hour,
		"2h": 2 * time.Hour, "4h": 4 * time.Hour, "6h": 6 * time.Hour, "8h": 8 * time.Hour, "12h": 12 * time.Hour, "1d": 24 * time.Hour,
	}
}

func (s *Sandbox) kline(symbol string, open time.Time, length time.Duration, now time.Time) kline {
	end := open.Add(length)
	k := kline{Symbol: symbol, Open: open, Close: end.Add(-time.Millisecond), Closed: !now.Before(end)}
	if !k.Closed {
		end = now
	}
	spec := s.markets[symbol]
	from, to := s.clock.Market(open), s.clock.Market(end)
	b := spec.Bar(s.clock, from, to)
	k.First, k.High, k.Low, k.Last = spec.Price(from), b.High, b.Low, b.Close
	k.Trades = int64(end.Sub(open)/time.Second) * 10
	k.FirstID = 1 + (open.Unix()%1e8)*10
	k.LastID = k.FirstID + max(k.Trades, 1) - 1
	k.Volume = spec.Lot.Step.Of(ledger.MustPercent("100000"))
	for name, d := range intervals() {
		if d == length {
			k.Interval = name
		}
	}
	return k
}

const klinesMax = 1000

func klineWeight(c *call) int {
	switch n, _ := c.integer("limit", 500, 1, klinesMax); { // What is wrong with it is said when the call is served.
	case n < 100:
		return 1
	case n < 500:
		return 2
	default:
		return 5
	}
}

func (s *Sandbox) klines(c *call) (any, error) {
	symbol, err := s.symbol(c, false)
	if err != nil {
		return nil, err
	}
	length, ok := intervals()[c.params.Get("interval")]
	if !ok {
		return nil, venue.Reject{Code: -1120, Msg: "Invalid interval."}
	}
	limit, err := c.integer("limit", 500, 1, klinesMax)
	if err != nil {
		return nil, err
	}
	start, end, err := c.times()
	if err != nil {
		return nil, err
	}
	last := c.now
	if !end.IsZero() && end.Before(last) {
		last = end
	}
	last = last.Truncate(length)
	first := last.Add(-time.Duration(limit-1) * length)
	if !start.IsZero() {
		first = start.Add(length - time.Millisecond).Truncate(length)
		if most := first.Add(time.Duration(limit-1) * length); most.Before(last) {
			last = most
		}
	}
	rows := []any{}
	for open := first; !open.After(last); open = open.Add(length) {
		k, m := s.kline(symbol, open, length, c.now), s.markets[symbol]
		quote := ledger.Notional(k.Volume, k.Last).Fixed(5)
		rows = append(rows, []any{
			k.Open.UnixMilli(), k.First.Padded(m.Tick), k.High.Padded(m.Tick), k.Low.Padded(m.Tick), k.Last.Padded(m.Tick), k.Volume.Padded(m.Lot.Step),
			k.Close.UnixMilli(), quote, k.Trades, k.Volume.Padded(m.Lot.Step), quote, "0",
		})
	}
	return rows, nil
}

// times are startTime and endTime; zero where they are not given.
func (c *call) times() (start, end time.Time, err error) {
	const far = 1 << 45
	from, err := c.integer("startTime", 0, 0, far)
	if err != nil {
		return start, end, err
	}
	to, err := c.integer("endTime", 0, 0, far)
	if err != nil {
		return start, end, err
	}
	if c.params.Get("startTime") != "" {
		start = time.UnixMilli(from).UTC()
	}
	if c.params.Get("endTime") != "" {
		end = time.UnixMilli(to).UTC()
	}
	return start, end, nil
}
