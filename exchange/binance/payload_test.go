package binance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/ledger"
)

var btc = ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}

func TestMarkets(t *testing.T) {
	f := newFake(t)
	b := f.open()
	all, err := b.Markets(context.Background(), []string{"BTCUSDT", "OLDUSDT", "NOUSDT"})
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	m := all["BTCUSDT"]
	if m.Lot.Step.String() != "0.001" || m.Lot.Min.String() != "0.001" || m.Lot.Max.String() != "120" || m.Tick.String() != "0.1" {
		t.Errorf("the rules are %+v", m)
	}
	if n, _ := f.times("GET /fapi/v1/exchangeInfo"); n != 1 {
		t.Errorf("exchangeInfo was read %d times", n)
	}
	var log strings.Builder
	b = f.open(func(o *Options) { o.Log = zerolog.New(&log) })
	if all, err := b.Markets(context.Background(), []string{"ODDUSDT", "BTCUSDT"}); err != nil || len(all) != 1 || all["BTCUSDT"].Symbol == "" || !strings.Contains(log.String(), "ODDUSDT") {
		t.Errorf("filters that are no texts: %v, %v; told %s", all, err, &log)
	}
}

func TestMarketTakesTheNarrowerFilter(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{`"MARKET_LOT_SIZE","minQty":"0.001"`, `"MARKET_LOT_SIZE","minQty":"0.004"`, "{0.001 0.004 120}"},
		{`"LOT_SIZE","minQty":"0.001","stepSize":"0.001","maxQty":"1000"`, `"LOT_SIZE","minQty":"0.010","stepSize":"0.01","maxQty":"50"`, "{0.01 0.01 50}"},
		{`"MARKET_LOT_SIZE","minQty":"0.001","stepSize":"0.001"`, `"MARKET_LOT_SIZE","minQty":"0.001","stepSize":"0"`, ""},
		{`"MARKET_LOT_SIZE","minQty":"0.001","stepSize":"0.001"`, `"MARKET_LOT_SIZE","minQty":"0.0015","stepSize":"0.001"`, ""},
		{`"tickSize":"0.10"`, `"tickSize":0.1`, ""},
		{`"filterType":"MARKET_LOT_SIZE"`, `"filterType":"OTHER"`, ""},
	} {
		f := newFake(t)
		b := f.open()
		b.rules.at = time.Time{}
		f.says("GET /fapi/v1/exchangeInfo", 200, strings.Replace(bodyInfo, c.old, c.new, 1))
		all, err := b.Markets(context.Background(), []string{"BTCUSDT"})
		got := ""
		if l := all["BTCUSDT"].Lot; len(all) > 0 {
			got = fmt.Sprintf("{%s %s %s}", l.Step, l.Min, l.Max)
		}
		if got != c.want {
			t.Errorf("%s: %s, %v; want %s", c.new, got, err, c.want)
		}
	}
}

// A big exchangeInfo is read whole; it is the longest answer there is.
func TestBigExchangeInfo(t *testing.T) {
	f := newFake(t)
	row := bodyInfo[strings.Index(bodyInfo, `{"symbol":"BTCUSDT"`):strings.Index(bodyInfo, `{"symbol":"OLDUSDT"`)]
	f.says("GET /fapi/v1/exchangeInfo", 200, strings.Replace(strings.Replace(bodyInfo, `"limit":2400`, `"limit":6000`, 1), `{"symbol":"OLDUSDT"`, strings.Repeat(strings.ReplaceAll(row, "BTC", "XXX"), 2000)+`{"symbol":"OLDUSDT"`, 1))
	b := f.open()
	if all, err := b.Markets(context.Background(), []string{"BTCUSDT", "XXXUSDT"}); err != nil || len(all) != 2 {
		t.Errorf("%v, %v", all, err)
	}
	if limit := b.Health().WeightLimit; limit != 6000 {
		t.Errorf("the weight limit is %d", limit)
	}
}

func TestFindOrder(t *testing.T) {
	f := newFake(t)
	b := f.open()
	f.says("GET /fapi/v1/order", 200, bodyQueried)
	s, err := b.Find(context.Background(), btc, "pc-01J9Z:a1")
	want := exchange.OrderState{
		ClientOrderID: "pc-01J9Z:a1", OrderID: 4087922045, Key: btc, Direction: ledger.Sell, Status: "FILLED",
		Qty: s.Qty, Executed: s.Executed, Trigger: s.Trigger, CreatedAt: time.UnixMilli(1789478303090).UTC(),
	}
	if err != nil || s != want || s.Qty.String() != "0.001" || s.Executed.String() != "0.001" || !s.Trigger.IsZero() {
		t.Errorf("%+v, %v", s, err)
	}
	_, q := f.times("GET /fapi/v1/order")
	if !strings.HasPrefix(q.query, "origClientOrderId=pc-01J9Z%3Aa1&recvWindow=3000&symbol=BTCUSDT&timestamp=") {
		t.Errorf("the query is %s", q.query)
	}
	checkSignature(t, q)
	if id := b.orderName("BTCUSDT", 4087922045); id != "pc-01J9Z:a1" {
		t.Errorf("the order's trades would be %q's", id)
	}
}

const stopID = "pc-0123456789abcdef-s1-1"

// stopBody is a conditional order as a query shows it.
func stopBody(id, status, actual string, created time.Time) string {
	s := strings.NewReplacer(
		"6B2I9XVcJpCjqPAJ4YoFX7", id, "TAKE_PROFIT", "STOP_MARKET", "BNBUSDT", "BTCUSDT", `"algoStatus":"NEW"`, fmt.Sprintf(`"algoStatus":%q,"actualOrderId":%q,"actualPrice":"0.00"`, status, actual),
		`"createTime":1750485492076`, fmt.Sprintf(`"createTime":%d`, created.UnixMilli()), `"quantity":"0.01"`, `"quantity":"0.001"`,
	).Replace(bodyAlgo)
	return s
}

func TestPlaceFindAndCancelAStop(t *testing.T) {
	f := newFake(t)
	b := f.open()
	now := b.Now().Truncate(time.Millisecond)
	o := anOrder(b)
	o.ClientOrderID, o.Trigger = stopID, price("750")
	f.says(postAlgo, 200, stopBody(stopID, "NEW", "", now))
	if a := b.Place(context.Background(), o); a.Outcome != exchange.Placed || a.OrderID != 2146760 || a.Status != "NEW" {
		t.Errorf("the answer is %+v", a)
	}
	_, q := f.times(postAlgo)
	want := "algoType=CONDITIONAL clientAlgoId=pc-0123456789abcdef-s1-1 quantity=0.001 reduceOnly=true side=SELL symbol=BTCUSDT triggerPrice=750 type=STOP_MARKET workingType=MARK_PRICE"
	if got := strings.Join(form(t, q.body), " "); got != want {
		t.Errorf("the body is %s", got)
	}
	checkSignature(t, q)
	o.Trigger = price("750.1")
	if a := b.Place(context.Background(), o); a.Outcome != exchange.Unknown {
		t.Errorf("another trigger than sent: %+v", a)
	}

	o.Trigger = price("750")
	f.says(postAlgo, 200, stopBody(stopID, "REJECTED", "", now))
	if a := b.Place(context.Background(), o); a.Outcome != exchange.Unknown {
		t.Errorf("refused with a success: %+v", a)
	}

	f.says("GET /fapi/v1/algoOrder", 200, stopBody(stopID, "NEW", "", now))
	s, err := b.Find(context.Background(), btc, stopID)
	if err != nil || s.ClientOrderID != stopID || s.OrderID != 2146760 || s.Status != "NEW" || s.Trigger.String() != "750" || s.Qty.String() != "0.001" || !s.CreatedAt.Equal(now) {
		t.Errorf("standing: %+v, %v", s, err)
	}
	f.says("GET /fapi/v1/algoOrder", 200, stopBody(stopID, "TRIGGERING", "", now))
	if _, err := b.Find(context.Background(), btc, stopID); !errors.Is(err, errTriggering) || errors.Is(err, exchange.ErrNotFound) {
		t.Errorf("triggering: %v", err)
	}
	for status, want := range map[string]string{"TRIGGERED": "TRIGGERED", "FINISHED": "EXPIRED"} { // For ever, and no order of it is ever named.
		f.says("GET /fapi/v1/algoOrder", 200, stopBody(stopID, status, "", now.Add(-time.Hour)))
		if s, err := b.Find(context.Background(), btc, stopID); err != nil || s.Status != want || !s.Executed.IsZero() {
			t.Errorf("stuck: %+v, %v", s, err)
		}
	}
	f.says("GET /fapi/v1/algoOrder", 200, stopBody(stopID, "FINISHED", "4087922045", now))
	f.says("GET /fapi/v1/order", 400, bodyNoOrder)
	if _, err := b.Find(context.Background(), btc, stopID); err == nil || errors.Is(err, exchange.ErrNotFound) {
		t.Errorf("triggered, its order lags: %v", err)
	}
	f.says("GET /fapi/v1/order", 200, strings.Replace(bodyQueried, "pc-01J9Z:a1", "made-by-binance", 1))
	s, err = b.Find(context.Background(), btc, stopID)
	if err != nil || s.ClientOrderID != stopID || s.OrderID != 4087922045 || s.Status != "FILLED" || s.Trigger.String() != "750" {
		t.Errorf("triggered: %+v, %v", s, err)
	}
	if id := b.orderName("BTCUSDT", 4087922045); id != stopID {
		t.Errorf("the trades of the stop's order would be %q's", id)
	}
	f.says("GET /fapi/v1/algoOrder", 400, bodyNoOrder)
	if _, err := b.Find(context.Background(), btc, stopID); !errors.Is(err, exchange.ErrNotFound) {
		t.Errorf("not there: %v", err)
	}

	f.says("DELETE /fapi/v1/algoOrder", 200, fmt.Sprintf(bodyAlgoGone, stopID))
	reader := f.open(func(o *Options) { o.ReadOnly = true })
	if err := reader.CancelStop(context.Background(), btc, stopID); !errors.Is(err, errReadOnly) {
		t.Errorf("cancel while reading only: %v", err)
	}
	if n, _ := f.times("DELETE /fapi/v1/algoOrder"); n != 0 {
		t.Error("a reader cancelled")
	}
	if err := b.CancelStop(context.Background(), btc, stopID); err != nil {
		t.Errorf("cancel: %v", err)
	}
	if _, q := f.times("DELETE /fapi/v1/algoOrder"); q.body != "clientAlgoId="+stopID {
		t.Errorf("the body is %s", q.body)
	}
	for body, status := range map[string]int{`{"code":-2011,"msg":"Unknown order sent."}`: 400, bodyNoOrder: 400} {
		f.says("DELETE /fapi/v1/algoOrder", status, body)
		if err := b.CancelStop(context.Background(), btc, stopID); !errors.Is(err, exchange.ErrNotFound) {
			t.Errorf("%s: %v", body, err)
		}
	}
	for body, status := range map[string]int{bodyMaybe: 503, fmt.Sprintf(bodyAlgoGone, "another"): 200, strings.Replace(fmt.Sprintf(bodyAlgoGone, stopID), `"200"`, `"400"`, 1): 200, "{}": 200, `{"code":-2011,"msg":"?"}`: 500} {
		f.says("DELETE /fapi/v1/algoOrder", status, body)
		if err := b.CancelStop(context.Background(), btc, stopID); err == nil || errors.Is(err, exchange.ErrNotFound) {
			t.Errorf("%d %s: %v", status, body, err)
		}
	}
}

func TestSnapshot(t *testing.T) {
	hedged := strings.Replace(bodyConfig, `"dualSidePosition":false`, `"dualSidePosition":true`, 1)
	swap := func(from ...string) string { return strings.NewReplacer(from...).Replace(bodyRisk) }
	for name, c := range map[string]struct {
		config, risk string
		want         string
	}{
		"one way":                {bodyConfig, bodyRisk, "[ADAUSDT:BOTH 30 at 0.385 until 0]"},
		"a short":                {bodyConfig, swap(`"30"`, `"-30"`, `"liquidationPrice":"0"`, `"liquidationPrice":"1.5"`), "[ADAUSDT:BOTH -30 at 0.385 until 1.5]"},
		"flat":                   {bodyConfig, "[]", "[]"},
		"no amount":              {bodyConfig, swap(`"30"`, `"0"`), "[]"},
		"no liquidation":         {bodyConfig, swap(`"liquidationPrice":"0"`, `"liquidationPrice":"-3"`), "[ADAUSDT:BOTH 30 at 0.385 until 0]"},
		"hedged long":            {hedged, swap("BOTH", "LONG"), "[ADAUSDT:LONG 30 at 0.385 until 0]"},
		"hedged short":           {hedged, swap("BOTH", "SHORT", `"30"`, `"-30"`), "[ADAUSDT:SHORT -30 at 0.385 until 0]"},
		"hedged, without a sign": {hedged, swap("BOTH", "SHORT"), "[ADAUSDT:SHORT -30 at 0.385 until 0]"},
		"flipped to hedge":       {bodyConfig, swap("BOTH", "LONG"), ""},
		"flipped to one way":     {hedged, bodyRisk, ""},
		"flipped while flat":     {hedged, swap(`"30"`, `"0"`), "[]"},
		"a negative long":        {hedged, swap("BOTH", "LONG", `"30"`, `"-30"`), ""},
		"no entry":               {bodyConfig, swap(`"0.385"`, `"0"`), ""},
		"twice":                  {bodyConfig, "[" + bodyRisk[1:len(bodyRisk)-1] + "," + bodyRisk[1:], ""},
		"null":                   {bodyConfig, "null", ""},
		"an object":              {bodyConfig, "{}", ""},
		"empty":                  {bodyConfig, "", ""},
		"error as a success":     {bodyConfig, bodyDisguised, ""},
		"no amount at all":       {bodyConfig, swap(`"positionAmt":"30",`, ""), ""},
		"no mode":                {`{"canTrade":true}`, "[]", ""},
		"mode is an error":       {bodyDisguised, "[]", ""},
		"cut short":              {bodyConfig, bodyRisk[:100], ""},
	} {
		f := newFake(t)
		b := f.open()
		f.says("GET /fapi/v1/accountConfig", 200, c.config)
		f.says("GET /fapi/v3/positionRisk", 200, c.risk)
		before := b.Now()
		s, err := b.Snapshot(context.Background())
		got := ""
		if err == nil {
			var rows []string
			for _, h := range s.Holdings {
				rows = append(rows, fmt.Sprintf("%s %s at %s until %s", h.Key, h.Amount, h.Entry, h.Liquidation))
			}
			got = fmt.Sprint(rows)
			if s.SentAt.After(before) || before.Sub(s.SentAt) > time.Second || s.Hedge != (c.config == hedged) {
				t.Errorf("%s: sent at %s after %s, hedge %t", name, s.SentAt, before, s.Hedge)
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, c.want)
		}
	}
}

func TestBars(t *testing.T) {
	f := newFake(t)
	b := f.open()
	f.says("GET /fapi/v1/klines", 200, bodyKlines)
	bars, err := b.Bars(context.Background(), "BTCUSDT", 300)
	if err != nil || len(bars) != 1 || bars[0].OpenAt.UnixMilli() != 1789478160000 || bars[0].CloseAt.UnixMilli() != 1789478220000 ||
		bars[0].High.String() != "76965.5" || bars[0].Low.String() != "76936.1" || bars[0].Close.String() != "76965.4" {
		t.Errorf("%+v, %v", bars, err)
	}
	if _, q := f.times("GET /fapi/v1/klines"); q.query != "interval=1m&limit=301&symbol=BTCUSDT" {
		t.Errorf("the query is %s", q.query)
	}
	open := b.Now().Truncate(time.Minute)
	line := func(minutes ...int) string {
		var rows []string
		for _, m := range minutes {
			at := open.Add(time.Duration(m) * time.Minute)
			rows = append(rows, fmt.Sprintf(`[%d,"2","3","1","2.5","20",%d,"1",878,"15","11","0"]`, at.UnixMilli(), at.Add(time.Minute).UnixMilli()-1))
		}
		return "[" + strings.Join(rows, ",") + "]"
	}
	for name, c := range map[string]struct {
		body  string
		limit int
		want  int // of the newest; -1: an error
	}{
		"the open one is left out": {line(-3, -2, -1, 0), 10, 3},
		"at most the limit":        {line(-3, -2, -1, 0), 2, 2},
		"behind a gap":             {line(-5, -4, -2, -1), 10, 2},
		"a gap before the open":    {line(-5, -4, 0), 10, 0},
		"none":                     {"[]", 10, 0},
		"twice":                    {line(-2, -2), 10, -1},
		"backwards":                {line(-1, -2), 10, -1},
		"an error":                 {bodyDisguised, 10, -1},
		"an object":                {`{}`, 10, -1},
		"short rows":               {`[[1789478160000,"1"]]`, 10, -1},
		"other bars":               {strings.Replace(bodyKlines, "1789478219999", "1789478459999", 1), 10, -1},
		"high under close":         {strings.Replace(bodyKlines, "76965.50", "76950", 1), 10, -1},
	} {
		f.says("GET /fapi/v1/klines", 200, c.body)
		bars, err := b.Bars(context.Background(), "BTCUSDT", c.limit)
		if (err != nil) != (c.want < 0) || (err == nil && len(bars) != c.want) {
			t.Errorf("%s: %d bars, %v; want %d", name, len(bars), err, c.want)
		}
		for i := range bars {
			if bars[i].CloseAt.After(b.Now()) || i > 0 && !bars[i].OpenAt.Equal(bars[i-1].CloseAt) {
				t.Errorf("%s: %+v", name, bars)
			}
		}
	}
}

func TestOpenOrders(t *testing.T) {
	f := newFake(t)
	b := f.open()
	closing := strings.NewReplacer(`"quantity":"0.001"`, `"quantity":""`, `"triggerPrice":"750.000"`, `"triggerPrice":""`).Replace(stopBody("web_9", "NEW", "", time.Now()))
	f.says("GET /fapi/v1/openOrders", 200, "["+bodyQueried+"]")
	f.says("GET /fapi/v1/openAlgoOrders", 200, "["+stopBody(stopID, "NEW", "", time.Now())+","+closing+"]")
	all, err := b.OpenOrders(context.Background())
	if err != nil || len(all) != 3 || all[0].OrderID != 4087922045 || all[1].ClientOrderID != stopID || all[2].ClientOrderID != "web_9" || !all[2].Qty.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
	f.says("GET /fapi/v1/openAlgoOrders", 500, "")
	if all, err := b.OpenOrders(context.Background()); err == nil {
		t.Errorf("half a list was taken for all of it: %v", all)
	}
}

func TestAccount(t *testing.T) {
	f := newFake(t)
	b := f.open()
	f.says("GET /sapi/v1/account/apiRestrictions", 200, `{"ipRestrict":true,"createTime":1623840271000,"enableMargin":false,"enableFutures":true,"enableWithdrawals":false,"enableReading":true}`)
	a, err := b.Account(context.Background())
	if err != nil || !a.CanTrade || a.Hedge || a.MultiAssets || a.Key == nil || !a.Key.Futures || a.Key.Withdrawals || !a.Key.BoundToIP {
		t.Errorf("%+v, %v", a, err)
	}
	_, q := f.times("GET /sapi/v1/account/apiRestrictions")
	checkSignature(t, q)
	f.says("GET /sapi/v1/account/apiRestrictions", 200, `{"enableFutures":true}`)
	if _, err := b.Account(context.Background()); err == nil {
		t.Error("a right that is not told was taken for one that is not given")
	}
}

func TestListenKeys(t *testing.T) {
	f := newFake(t)
	b := f.open()
	f.says("POST /fapi/v1/listenKey", 200, bodyListenKey)
	key, err := b.createListenKey(context.Background())
	if err != nil || !strings.Contains(bodyListenKey, key) || key == "" {
		t.Errorf("%q, %v", key, err)
	}
	f.says("PUT /fapi/v1/listenKey", 200, `{}`)
	if err := b.keepListenKey(context.Background(), key); err != nil {
		t.Error(err)
	}
	if _, q := f.times("PUT /fapi/v1/listenKey"); q.body != "listenKey="+key {
		t.Errorf("the body is %s", q.body)
	}
	f.says("PUT /fapi/v1/listenKey", 400, `{"code":-1125,"msg":"This listenKey does not exist."}`)
	if err := b.keepListenKey(context.Background(), key); !errors.Is(err, errListenKeyGone) {
		t.Error(err)
	}
	f.says("POST /fapi/v1/listenKey", 200, `{}`)
	if key, err := b.createListenKey(context.Background()); err == nil {
		t.Errorf("no key was taken for %q", key)
	}
}
