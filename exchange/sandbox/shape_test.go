package sandbox

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// TestShapes compares the fields of answers with those of captures and of the documentation.
func TestShapes(t *testing.T) {
	b := newBench(t, Options{})
	placed := b.closing("pc-1", "0.001")
	stop := b.call("POST", "/fapi/v1/algoOrder", "algoType", "CONDITIONAL", "symbol", "BTCUSDT", "side", "SELL", "type", "STOP_MARKET", "quantity", "0.01", "reduceOnly", "true", "triggerPrice", "70000", "clientAlgoId", "pc-s1")
	const order = "clientOrderId,closePosition,executedQty,goodTillDate,orderId,origQty,origType,positionSide,price,priceMatch,priceProtect,reduceOnly,selfTradePreventionMode,side,status,stopPrice,symbol,timeInForce,type,updateTime,workingType"
	const algo = "activatePrice,algoId,algoStatus,algoType,callbackRate,clientAlgoId,closePosition,createTime,goodTillDate,icebergQuantity,orderType,positionSide,price,priceMatch,priceProtect,quantity,reduceOnly,selfTradePreventionMode,side,symbol,timeInForce,triggerPrice,triggerTime,updateTime,workingType"
	for name, c := range map[string]struct {
		got  said
		want string
	}{
		"POST order":      {placed, order + ",cumQty"},
		"GET order":       {b.call("GET", "/fapi/v1/order", "symbol", "BTCUSDT", "origClientOrderId", "pc-1"), order + ",avgPrice,cumQuote,time,pair"},
		"allOrders":       {b.call("GET", "/fapi/v1/allOrders", "symbol", "BTCUSDT"), order + ",avgPrice,cumQuote,time,pair"},
		"POST algoOrder":  {stop, algo},
		"GET algoOrder":   {b.call("GET", "/fapi/v1/algoOrder", "clientAlgoId", "pc-s1"), algo + ",actualOrderId,actualPrice"},
		"userTrades":      {b.call("GET", "/fapi/v1/userTrades", "symbol", "BTCUSDT"), "baseQty,buyer,commission,commissionAsset,id,maker,marginAsset,orderId,pair,positionSide,price,qty,quoteQty,realizedPnl,side,symbol,time"},
		"positionRisk v3": {b.call("GET", "/fapi/v3/positionRisk"), "adl,askNotional,bidNotional,breakEvenPrice,entryPrice,initialMargin,isolatedMargin,isolatedWallet,liquidationPrice,maintMargin,marginAsset,markPrice,notional,openOrderInitialMargin,positionAmt,positionInitialMargin,positionSide,symbol,unRealizedProfit,updateTime"},
		"positionRisk v2": {b.call("GET", "/fapi/v2/positionRisk"), "breakEvenPrice,entryPrice,isAutoAddMargin,isolatedMargin,isolatedWallet,leverage,liquidationPrice,marginType,markPrice,maxNotionalValue,notional,positionAmt,positionSide,symbol,unRealizedProfit,updateTime"},
		"premiumIndex":    {b.raw("GET", "/fapi/v1/premiumIndex?symbol=BTCUSDT", "", ""), "estimatedSettlePrice,indexPrice,interestRate,lastFundingRate,markPrice,nextFundingTime,symbol,time"},
		"accountConfig":   {b.call("GET", "/fapi/v1/accountConfig"), "canDeposit,canTrade,canWithdraw,dualSidePosition,feeTier,multiAssetsMargin,tradeGroupId,updateTime"},
		"exchangeInfo":    {b.raw("GET", "/fapi/v1/exchangeInfo", "", ""), "assets,exchangeFilters,futuresType,rateLimits,serverTime,symbols,timezone"},
		"an error":        {b.closing("pc-1", "x"), "code,msg"},
		"DELETE algo":     {b.call("DELETE", "/fapi/v1/algoOrder", "clientAlgoId", "pc-s1"), "algoId,clientAlgoId,code,msg"},
	} {
		text := c.got.text
		if strings.HasPrefix(text, "[") {
			text = text[1 : len(text)-1]
		}
		var object map[string]any
		if err := json.Unmarshal([]byte(text), &object); err != nil {
			t.Errorf("%s: %v: %s", name, err, c.got.text)
			continue
		}
		want := strings.Split(c.want, ",")
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(object)); !slices.Equal(got, want) {
			t.Errorf("%s has\n%v, want\n%v", name, got, want)
		}
	}
	// A precision is not a step: Binance says so, and gives one that is finer.
	info := b.raw("GET", "/fapi/v1/exchangeInfo", "", "").text
	if !strings.Contains(info, `"pricePrecision":2`) || !strings.Contains(info, `"tickSize":"0.1"`) {
		t.Error(info)
	}
}

func TestMoney(t *testing.T) {
	for amount, gains := range map[string]bool{"1": false, "-1": true} {
		b := newBench(t, Options{Positions: map[ledger.Key]ledger.Qty{btc: ledger.MustQty(amount)}})
		entry := b.venue.Holdings()[0].Entry
		lower := entry.Of(ledger.MustPercent("90")).FloorTo(ledger.MustPrice("0.1"))
		err := b.Do(func(v *venue.Venue, now time.Time) (venue.Change, error) {
			v.Mark(now, "BTCUSDT", lower)
			return v.Trade(now, btc, ledger.MustQty(amount).Neg())
		})
		if err != nil {
			t.Fatal(err)
		}
		trade := b.call("GET", "/fapi/v1/userTrades", "symbol", "BTCUSDT").rows(t)[0]
		price, realized := ledger.MustPrice(trade["price"].(string)), ledger.MustUSD(trade["realizedPnl"].(string))
		one := ledger.MustQty("1")
		want := ledger.Notional(one, price).Sub(ledger.Notional(one, entry))
		if gains {
			want = want.Neg()
		}
		if !realized.Equal(want) || (realized.Sign() > 0) != gains {
			t.Errorf("closing %s from %s at %s earned %s, want %s", amount, entry, price, realized, want)
		}
		fee := ledger.Notional(one, price).Of(ledger.MustPercent(feePercent))
		wallet := ledger.MustUSD(b.call("GET", "/fapi/v3/account").field("totalWalletBalance"))
		if !wallet.Equal(ledger.MustUSD("100000").Add(realized).Sub(fee)) || trade["commission"] != fee.Fixed(8) {
			t.Errorf("wallet %s after %s and a fee of %s (%v)", wallet, realized, fee, trade["commission"])
		}
	}
}

// TestSomeonesOrderGoes: the order that was in the way is canceled after a while, and a close passes.
func TestSomeonesOrderGoes(t *testing.T) {
	b := newBench(t, Options{})
	b.arm(Fault{Kind: RestFirst, For: 3 * time.Second})
	for i, want := range []int64{-4118, -4118, -4118, 0} {
		if got := b.closing("pc-"+id(int64(i)), "0.01"); got.code() != want {
			t.Errorf("second %d: %s", i, got.text)
		}
		b.pass(time.Second)
	}
}

// TestSteps tells what the streams are told of orders, step by step.
func TestSteps(t *testing.T) {
	b := newBench(t, Options{Odds: venue.Odds{Split: 1}, Positions: map[ledger.Key]ledger.Qty{btc: ledger.MustQty("10")}})
	f := b.subscribe()
	b.closing("pc-1", "4")
	b.arm(Fault{Kind: PartOnly, Qty: ledger.MustQty("1")})
	b.closing("pc-2", "2")
	if err := b.Do(func(v *venue.Venue, now time.Time) (venue.Change, error) { return v.Liquidate(now, btc) }); err != nil {
		t.Fatal(err)
	}
	messages, _ := b.take(f)
	var told []string
	held := ledger.MustQty("10")
	for _, m := range messages {
		var executed ledger.Qty
		for _, x := range m.Execs {
			told = append(told, x.Order.ClientOrderID[:4]+" "+x.Type+" "+string(x.Order.Status))
			if x.Trade != nil {
				executed, held = executed.Add(x.Trade.Qty), held.Sub(x.Trade.Qty)
			}
			if !x.Order.Executed.Equal(executed) {
				t.Errorf("%s says %s executed after trades of %s", x.Type, x.Order.Executed, executed)
			}
		}
		if len(m.Execs) > 0 && (len(m.Holdings) != 1 || !m.Holdings[0].Amount.Equal(held)) {
			t.Errorf("holdings %v, want %s", m.Holdings, held)
		}
	}
	told = slices.Compact(told)
	if got := strings.Join(told, ", "); got != "pc-1 NEW NEW, pc-1 TRADE PARTIALLY_FILLED, pc-1 TRADE FILLED, pc-2 NEW NEW, pc-2 TRADE PARTIALLY_FILLED, pc-2 EXPIRED EXPIRED, auto NEW NEW, auto CALCULATED FILLED" {
		t.Error(got)
	}
}
