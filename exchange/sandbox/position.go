package sandbox

import (
	"slices"
	"time"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// lagDefault is how far queries lag when a fault does not say.
const lagDefault = 5 * time.Second

// holdings are the positions as a query tells them: now, or as they were a while ago.
func (s *Sandbox) holdings(c *call) []ledger.Holding {
	held := s.venue.Holdings()
	f, lags := s.strike(c.now, c.name, c.params.Get("symbol"), PositionLag)
	if !lags {
		return held
	}
	since := c.now.Add(-f.forOr(lagDefault))
	for _, fills := range s.account.fills {
		for _, t := range fills {
			if !t.At.After(since) {
				continue
			}
			i := slices.IndexFunc(held, func(h ledger.Holding) bool { return h.Key == t.Key })
			if i < 0 {
				i = len(held)
				held = append(held, ledger.Holding{Key: t.Key, Entry: t.Price})
			}
			held[i].Amount = held[i].Amount.Sub(t.Direction.Signed(t.Qty))
		}
	}
	return slices.DeleteFunc(held, func(h ledger.Holding) bool { return h.Amount.IsZero() })
}

// wanted tells whether a position is one that the call asks for.
func (c *call) wanted(symbol string) bool {
	one := c.params.Get("symbol")
	return one == "" || one == symbol
}

// worth is what a position is worth now, negative when short, and what it has gained.
func (s *Sandbox) worth(h ledger.Holding) (notional, gain ledger.USD) {
	notional = ledger.Notional(h.Amount, s.venue.Price(h.Symbol))
	gain = notional.Sub(ledger.Notional(h.Amount, h.Entry))
	if h.Amount.Sign() < 0 {
		return notional.Neg(), gain.Neg()
	}
	return notional, gain
}

func (s *Sandbox) positionRiskV3(c *call) (any, error) {
	if _, err := s.symbol(c, true); err != nil {
		return nil, err
	}
	held := s.holdings(c)
	orders, _ := s.venue.Open()
	for _, o := range orders {
		if !slices.ContainsFunc(held, func(h ledger.Holding) bool { return h.Key == o.Key }) {
			held = append(held, ledger.Holding{Key: o.Key})
		}
	}
	rows := []any{}
	for _, h := range held {
		if !c.wanted(h.Symbol) {
			continue
		}
		notional, gain := s.worth(h)
		margin := notional.Abs().Of(ledger.MustPercent("5")).Fixed(8)
		maint := notional.Abs().Of(ledger.MustPercent("0.65")).Fixed(8)
		rows = append(rows, map[string]any{
			"symbol": h.Symbol, "positionSide": h.Side, "positionAmt": h.Amount.Padded(s.markets[h.Symbol].Lot.Step), "entryPrice": h.Entry.String(), "breakEvenPrice": h.Entry.String(),
			"markPrice": s.venue.Price(h.Symbol).Fixed(8), "unRealizedProfit": gain.Fixed(8), "liquidationPrice": h.Liquidation.String(), "isolatedMargin": "0",
			"notional": notional.Fixed(8), "marginAsset": "USDT", "isolatedWallet": "0", "initialMargin": margin, "maintMargin": maint, "positionInitialMargin": margin,
			"openOrderInitialMargin": "0", "adl": 2, "bidNotional": "0", "askNotional": "0", "updateTime": s.touched(h.Key),
		})
	}
	return rows, nil
}

func (s *Sandbox) touched(k ledger.Key) int64 {
	if at, ok := s.account.touched[k]; ok {
		return at.UnixMilli()
	}
	return 0
}

// positionRiskV2 has a row for every position there could be.
func (s *Sandbox) positionRiskV2(c *call) (any, error) {
	symbols, err := s.symbolsOf(c)
	if err != nil {
		return nil, err
	}
	held := s.holdings(c)
	sides := []ledger.Side{ledger.Both}
	if s.venue.Hedge() {
		sides = []ledger.Side{ledger.Long, ledger.Short}
	}
	rows := []any{}
	for _, symbol := range symbols {
		for _, side := range sides {
			h := holdingOf(held, ledger.Key{Symbol: symbol, Side: side})
			notional, gain := s.worth(h)
			rows = append(rows, map[string]any{
				"symbol": symbol, "positionAmt": h.Amount.Padded(s.markets[symbol].Lot.Step), "entryPrice": h.Entry.String(), "breakEvenPrice": "0.0",
				"markPrice": s.venue.Price(symbol).Fixed(8), "unRealizedProfit": gain.Fixed(8), "liquidationPrice": h.Liquidation.String(), "leverage": "20",
				"maxNotionalValue": "100000000", "marginType": "cross", "isolatedMargin": "0.00000000", "isAutoAddMargin": "false", "positionSide": side,
				"notional": notional.Fixed(8), "isolatedWallet": "0", "updateTime": s.touched(h.Key),
			})
		}
	}
	return rows, nil
}

func (s *Sandbox) gains() ledger.USD {
	var sum ledger.USD
	for _, h := range s.venue.Holdings() {
		_, gain := s.worth(h)
		sum = sum.Add(gain)
	}
	return sum
}

func (s *Sandbox) accountV3(c *call) (any, error) {
	positions := []any{}
	for _, h := range s.holdings(c) {
		notional, gain := s.worth(h)
		positions = append(positions, map[string]any{
			"symbol": h.Symbol, "positionSide": h.Side, "positionAmt": h.Amount.Padded(s.markets[h.Symbol].Lot.Step), "unrealizedProfit": gain.Fixed(8),
			"isolatedMargin": "0", "notional": notional.Fixed(8), "isolatedWallet": "0", "initialMargin": "0", "maintMargin": "0", "updateTime": s.touched(h.Key),
		})
	}
	wallet, gains := s.account.wallet, s.gains()
	margin := wallet.Add(gains).Fixed(8)
	totals := map[string]any{
		"totalInitialMargin": "0", "totalMaintMargin": "0", "totalWalletBalance": wallet.Fixed(8), "totalUnrealizedProfit": gains.Fixed(8), "totalMarginBalance": margin,
		"totalPositionInitialMargin": "0", "totalOpenOrderInitialMargin": "0", "totalCrossWalletBalance": wallet.Fixed(8), "totalCrossUnPnl": gains.Fixed(8),
		"availableBalance": margin, "maxWithdrawAmount": margin, "positions": positions,
		"assets": []any{map[string]any{
			"asset": "USDT", "walletBalance": wallet.Fixed(8), "unrealizedProfit": gains.Fixed(8), "marginBalance": margin, "maintMargin": "0", "initialMargin": "0",
			"positionInitialMargin": "0", "openOrderInitialMargin": "0", "crossWalletBalance": wallet.Fixed(8), "crossUnPnl": gains.Fixed(8),
			"availableBalance": margin, "maxWithdrawAmount": margin, "updateTime": c.now.UnixMilli(),
		}},
	}
	return totals, nil
}

func (s *Sandbox) balanceV3(c *call) (any, error) {
	wallet, gains := s.account.wallet, s.gains()
	return []any{map[string]any{
		"accountAlias": "SgsR", "asset": "USDT", "balance": wallet.Fixed(8), "crossWalletBalance": wallet.Fixed(8), "crossUnPnl": gains.Fixed(8),
		"availableBalance": wallet.Add(gains).Fixed(8), "maxWithdrawAmount": wallet.Fixed(8), "marginAvailable": true, "updateTime": c.now.UnixMilli(),
	}}, nil
}

func (s *Sandbox) accountConfig(*call) (any, error) {
	return map[string]any{
		"feeTier": 0, "canTrade": true, "canDeposit": true, "canWithdraw": s.o.Withdrawals, "dualSidePosition": s.venue.Hedge(), "updateTime": 0, "multiAssetsMargin": false, "tradeGroupId": -1,
	}, nil
}

func (s *Sandbox) symbolConfig(c *call) (any, error) {
	symbols, err := s.symbolsOf(c)
	rows := []any{}
	for _, symbol := range symbols {
		rows = append(rows, map[string]any{"symbol": symbol, "marginType": "CROSSED", "isAutoAddMargin": false, "leverage": 20, "maxNotionalValue": "100000000"})
	}
	return rows, err
}

func (s *Sandbox) getMode(*call) (any, error) {
	return map[string]bool{"dualSidePosition": s.venue.Hedge()}, nil
}

func (s *Sandbox) setMode(c *call) (any, error) {
	dual := c.params.Get("dualSidePosition")
	if dual != "true" && dual != "false" {
		return nil, malformed("dualSidePosition")
	}
	change, err := s.venue.SetHedge(c.now, dual == "true")
	if err != nil {
		return nil, err
	}
	s.commit(change)
	return map[string]any{"code": 200, "msg": "success"}, nil
}

func (s *Sandbox) leverageBracket(c *call) (any, error) {
	symbols, err := s.symbolsOf(c)
	rows := []any{}
	for _, symbol := range symbols {
		rows = append(rows, map[string]any{"symbol": symbol, "notionalCoef": 1.5, "brackets": []any{map[string]any{
			"bracket": 1, "initialLeverage": 75, "notionalCap": 100000000, "notionalFloor": 0, "maintMarginRatio": 0.0065, "cum": 0.0,
		}}})
	}
	if err == nil && c.params.Get("symbol") != "" {
		return rows[0], nil // The documentation shows a bare object here.
	}
	return rows, err
}

func (s *Sandbox) apiRestrictions(*call) (any, error) {
	return map[string]any{
		"ipRestrict": false, "createTime": 1698645219000, "enableReading": true, "enableFutures": true, "enableWithdrawals": s.o.Withdrawals, "enableInternalTransfer": false,
		"enableMargin": false, "permitsUniversalTransfer": false, "enableVanillaOptions": false, "enableFixApiTrade": false, "enableFixReadOnly": false,
		"enableSpotAndMarginTrading": false, "enablePortfolioMarginTrading": false,
	}, nil
}

func (s *Sandbox) postListenKey(c *call) (any, error) {
	return map[string]string{"listenKey": s.openListenKey(c.now)}, nil
}

func (s *Sandbox) putListenKey(c *call) (any, error) {
	if s.listen.key == "" {
		return nil, venue.Reject{Code: -1125, Msg: "This listenKey does not exist."}
	}
	return s.postListenKey(c)
}

func (s *Sandbox) deleteListenKey(c *call) (any, error) {
	if s.listen.key == "" {
		return nil, venue.Reject{Code: -1125, Msg: "This listenKey does not exist."}
	}
	s.closeListenKey(c.now)
	return map[string]any{}, nil
}
