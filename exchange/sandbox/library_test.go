package sandbox

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adshao/go-binance/v2/common"
	"github.com/adshao/go-binance/v2/futures"

	"permitchain/ledger"
)

// TestGoBinance has the real client library talk to the sandbox.
func TestGoBinance(t *testing.T) {
	b := newBench(t, Options{Now: time.Now, Symbols: []string{"ETHUSDT"}})
	c := futures.NewClient(testKey, testSecret)
	c.SetApiEndpoint(b.url)
	ctx := t.Context()
	info, err := c.NewExchangeInfoService().Do(ctx)
	if err != nil || len(info.Symbols) != 2 {
		t.Fatalf("%+v: %v", info, err)
	}
	s := info.Symbols[0]
	if m := s.MarketLotSizeFilter(); m == nil || m.MaxQuantity != "120" || s.LotSizeFilter().MaxQuantity != "1200" || s.PriceFilter().TickSize != "0.1" || s.MinNotionalFilter().Notional != "5" {
		t.Errorf("filters of %s: %+v", s.Symbol, s.Filters)
	}
	placed, err := c.NewCreateOrderService().Symbol("BTCUSDT").Side(futures.SideTypeSell).Type(futures.OrderTypeMarket).Quantity("0.006").ReduceOnly(true).
		NewClientOrderID("pc-01J9Z:a1").NewOrderResponseType(futures.NewOrderRespTypeRESULT).Do(ctx, futures.WithRecvWindow(3000))
	if err != nil || placed.OrderID == 0 || placed.ClientOrderID != "pc-01J9Z:a1" || placed.Status != futures.OrderStatusTypeFilled || placed.ExecutedQuantity != "0.006" || placed.RateLimitOrder10s != "1" {
		t.Fatalf("%+v: %v", placed, err)
	}
	found, err := c.NewGetOrderService().Symbol("BTCUSDT").OrigClientOrderID("pc-01J9Z:a1").Do(ctx)
	if err != nil || found.OrderID != placed.OrderID || found.Time == 0 || found.AvgPrice == "" {
		t.Errorf("%+v: %v", found, err)
	}
	trades, err := c.NewListAccountTradeService().Symbol("BTCUSDT").OrderID(placed.OrderID).Do(ctx)
	if err != nil || len(trades) == 0 || trades[0].OrderID != placed.OrderID || trades[0].Side != futures.SideTypeSell {
		t.Errorf("%+v: %v", trades, err)
	}
	risk, err := c.NewGetPositionRiskV3Service().Do(ctx)
	if err != nil || len(risk) != 1 || risk[0].PositionAmt != "0.040" || risk[0].PositionSide != "BOTH" || ledger.MustPrice(risk[0].LiquidationPrice).Sign() <= 0 {
		t.Errorf("%+v: %v", risk, err)
	}
	if v2, err := c.NewGetPositionRiskService().Symbol("BTCUSDT").Do(ctx); err != nil || len(v2) != 1 || v2[0].PositionAmt != "0.040" {
		t.Errorf("%+v: %v", v2, err)
	}
	if account, err := c.NewGetAccountV3Service().Do(ctx); err != nil || account.TotalWalletBalance == "" || len(account.Positions) != 1 {
		t.Errorf("%+v: %v", account, err)
	}
	if balance, err := c.NewGetBalanceService().Do(ctx); err != nil || balance[0].Asset != "USDT" {
		t.Errorf("%+v: %v", balance, err)
	}
	if mode, err := c.NewGetPositionModeService().Do(ctx); err != nil || mode.DualSidePosition {
		t.Errorf("%+v: %v", mode, err)
	}
	if brackets, err := c.NewGetLeverageBracketService().Symbol("BTCUSDT").Do(ctx); err != nil || len(brackets) != 1 || brackets[0].Symbol != "BTCUSDT" {
		t.Errorf("%+v: %v", brackets, err)
	}
	if klines, err := c.NewKlinesService().Symbol("BTCUSDT").Interval("1m").Limit(10).Do(ctx); err != nil || len(klines) != 10 {
		t.Errorf("%+v: %v", klines, err)
	}
	key, err := c.NewStartUserStreamService().Do(ctx)
	if err != nil || !b.listening(key) || c.NewKeepaliveUserStreamService().ListenKey(key).Do(ctx) != nil || c.NewCloseUserStreamService().ListenKey(key).Do(ctx) != nil || b.listening(key) {
		t.Errorf("listen key %q: %v", key, err)
	}
	var api *common.APIError
	_, err = c.NewGetOrderService().Symbol("BTCUSDT").OrigClientOrderID("nobody").Do(ctx)
	if !errors.As(err, &api) || api.Code != -2013 {
		t.Errorf("an order that is not there: %v", err)
	}
	b.arm(Fault{Kind: Closed, Call: "POST /fapi/v1/order"})
	_, err = c.NewCreateOrderService().Symbol("BTCUSDT").Side(futures.SideTypeSell).Type(futures.OrderTypeMarket).Quantity("0.01").ReduceOnly(true).NewClientOrderID("pc-2").Do(ctx)
	if err == nil || len(b.Log()) != 2 || b.held(btc) != "0.03" {
		t.Errorf("a lost answer: %v, %s is held after %d requests", err, b.held(btc), len(b.Log()))
	}
}

func TestGoBinanceStops(t *testing.T) {
	b := newBench(t, Options{Now: time.Now})
	c := futures.NewClient(testKey, testSecret)
	c.SetApiEndpoint(b.url)
	ctx := t.Context()
	placed, err := c.NewCreateAlgoOrderService().AlgoType(futures.OrderAlgoTypeConditional).Symbol("BTCUSDT").Side(futures.SideTypeSell).Type(futures.AlgoOrderTypeStopMarket).
		Quantity("0.046").TriggerPrice("80000").WorkingType(futures.WorkingTypeMarkPrice).ReduceOnly(true).ClientAlgoId("pc-s1").Do(ctx)
	if err != nil || placed.AlgoId == 0 {
		t.Fatalf("%+v: %v", placed, err)
	}
	open, err := c.NewListOpenAlgoOrdersService().Do(ctx)
	if err != nil || len(open) != 1 || open[0].ClientAlgoId != "pc-s1" {
		t.Errorf("%+v: %v", open, err)
	}
	if _, err := c.NewCancelAlgoOrderService().ClientAlgoID("pc-s1").Do(ctx); err != nil {
		t.Error(err)
	}
	if got, err := c.NewGetAlgoOrderService().ClientAlgoID("pc-s1").Do(ctx); err != nil || string(got.AlgoStatus) != "CANCELED" {
		t.Errorf("%+v: %v", got, err)
	}
}

// TestRunInABubble: the sandbox lives in virtual time, and a day of it goes by.
func TestRunInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Seed: 1, Key: testKey, Secret: testSecret, Positions: map[ledger.Key]ledger.Qty{btc: ledger.MustQty("1")}})
		f := s.subscribe()
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- s.Run(ctx) }()
		marks, closed := 0, map[time.Time]int{}
		end := time.After(2*time.Hour + time.Millisecond)
		for running := true; running; {
			select {
			case <-f.wake:
			case <-end:
				running = false
			}
			messages, lost := s.take(f)
			if lost {
				t.Fatal("messages were lost")
			}
			for _, m := range messages {
				if m.Mark != nil {
					marks++
				}
				if m.Bar != nil && m.Bar.Closed {
					closed[m.Bar.Open]++
				}
			}
		}
		cancel()
		<-done
		if marks != 7200 || len(closed) != 120 {
			t.Errorf("%d marks and %d bars in two hours", marks, len(closed))
		}
		for at, n := range closed {
			if n != 1 {
				t.Errorf("the bar of %v closed %d times", at, n)
			}
		}
	})
}
