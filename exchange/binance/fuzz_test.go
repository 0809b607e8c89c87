package binance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// The order that the answers below may be about.
var fuzzed = exchange.Order{
	ClientOrderID: "pc-0123456789abcdef-1-1", Key: ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}, Direction: ledger.Sell,
	Qty: ledger.MustQty("0.034"), SendBefore: time.Date(2026, 1, 25, 0, 26, 10, 0, time.UTC),
}

const (
	fuzzedOrder = `{"clientOrderId":"pc-0123456789abcdef-1-1","orderId":7,"symbol":"BTCUSDT","positionSide":"BOTH","side":"SELL","status":"FILLED","origQty":"0.034","executedQty":"0.034","stopPrice":"0","origType":"MARKET","time":1769300768000}`
	fuzzedStop  = `{"clientAlgoId":"pc-0123456789abcdef-1-1","algoId":9,"symbol":"BTCUSDT","positionSide":"BOTH","side":"SELL","algoStatus":"NEW","quantity":"0.034","triggerPrice":"60000","actualOrderId":"","createTime":1769300768000,"updateTime":1769300768001}`
	fuzzedTrade = `{"symbol":"BTCUSDT","positionSide":"BOTH","id":1,"orderId":7,"side":"SELL","qty":"0.034","price":"61000","commission":"0.1","commissionAsset":"USDT","time":1769300768000}`
	fuzzedRow   = `{"symbol":"BTCUSDT","positionSide":"LONG","positionAmt":"0.046","entryPrice":"60000","liquidationPrice":"x"}`
)

// FuzzAnswers: whatever an answer says, nothing panics; a sending is said to be placed only where the answer is that order's
// to the last field, and to be not placed never by an answer of success.
func FuzzAnswers(f *testing.F) {
	for _, body := range []string{fuzzedOrder, fuzzedStop, fuzzedTrade, fuzzedRow} {
		f.Add([]byte(body))
		f.Add([]byte("[" + body + "," + body + "]"))
		f.Add([]byte(strings.Replace(body, "0.034", "0.0341", 1)))
		f.Add([]byte(strings.Replace(body, `"0.034"`, `3.4e-2`, 1)))
		f.Add([]byte(body[:len(body)/2]))
	}
	f.Add([]byte(`{"code":-1000,"msg":"disguised"}`))
	f.Add([]byte(`[[],{},null]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if a, err := placedOrder(fieldsOf(body), fuzzed); err == nil {
			text := string(body)
			if a.Outcome != exchange.Placed || a.OrderID <= 0 || a.Status == "" || a.Executed.Sign() < 0 || fuzzed.Qty.Less(a.Executed) || !strings.Contains(text, "{") {
				t.Errorf("%q is the answer %+v", body, a)
			}
			if s, _ := orderRow(fieldsOf(body)); s.ClientOrderID != fuzzed.ClientOrderID || s.Key != fuzzed.Key || s.Direction != fuzzed.Direction {
				t.Errorf("%q is taken for the answer to another order", body)
			}
		}
		stop := fuzzed
		stop.Trigger = ledger.MustPrice("60000")
		if a, err := placedStop(fieldsOf(body), stop); err == nil && (a.Outcome != exchange.Placed || a.OrderID <= 0 || ledger.TerminalStatus(a.Status)) {
			t.Errorf("%q is the answer %+v to a stop", body, a)
		}
		trades, err := rowsOf(body, func(f *fields) ledger.Trade { return readTrade(f, "BTCUSDT") })
		for _, trade := range trades {
			if err != nil || trade.ID <= 0 || trade.Qty.Sign() <= 0 || trade.Price.Sign() <= 0 || trade.At.Year() < 2000 || trade.Symbol != "BTCUSDT" || !trade.Side.Valid() {
				t.Errorf("%q is the trade %+v (%v)", body, trade, err)
			}
		}
		for _, hedge := range []bool{false, true} {
			held, err := rowsOf(body, func(f *fields) ledger.Holding { return holding(f, hedge) })
			for _, h := range held {
				sided := h.Side == ledger.Long && h.Amount.Sign() < 0 || h.Side == ledger.Short && h.Amount.Sign() > 0
				if err != nil || sided || !h.Amount.IsZero() && (h.Side == ledger.Both) == hedge {
					t.Errorf("%q is the holding %+v (%v)", body, h, err)
				}
			}
		}
	})
}

// FuzzVerdict: whatever is answered with whatever status, an order is said not to be placed only by what the table of the
// documentation names, and every error is one line that shows no signature.
func FuzzVerdict(f *testing.F) {
	for _, r := range rows() {
		f.Add(r.status, []byte(r.body))
	}
	f.Add(400, []byte(`{"code":-4116,"msg":"ClientOrderId is duplicated."}`))
	f.Add(503, []byte("Service Unavailable.\n"))
	f.Add(200, []byte(`https://x/y?timestamp=1&signature=abcdef`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 100 || status > 599 {
			return // net/http lets none through, or the exchange has gone mad.
		}
		e := &Error{Call: "POST /fapi/v1/order", Status: status}
		e.read(body)
		v := e.verdict()
		if v.outcome == exchange.Placed {
			t.Errorf("%d %q says that an order was placed", status, body)
		}
		if v.outcome == exchange.NotPlaced && (status < 400 || status > 599 || status == 408 || e.Code == -4116 || e.Code == -1006 || e.Code == -1007) {
			t.Errorf("%d %q (code %d) says that an order was not placed", status, body, e.Code)
		}
		if v.outcome == exchange.NotPlaced && status >= 500 && e.Code != -1008 && e.Code != -1016 && e.Message != "Service Unavailable." {
			t.Errorf("%d %q says that an order was not placed", status, body)
		}
		text := e.Error()
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) || len(text) > 1024 {
			t.Errorf("%d %q is the error %q of %d bytes", status, body, text, len(text))
		}
		if shown := fmt.Sprint(e); hide(shown) != shown {
			t.Errorf("%d %q shows %q", status, body, shown)
		}
	})
}
