package binance

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"permitchain/exchange"
	"permitchain/ledger"
)

// Payloads as they were captured, or as the exchange documents them.
const (
	newOrder = `{"e":"ORDER_TRADE_UPDATE","T":1779367929401,"E":1779367929402,"o":{"s":"SOLUSDT","c":"bot-1","S":"BUY","o":"LIMIT","f":"GTC","q":"21.26","p":"85.67","ap":"0","sp":"0","x":"NEW","X":"NEW","i":215456450616,"l":"0","z":"0","L":"0","n":"0","N":"USDT","T":1779367929401,"t":0,"b":"2520.672","a":"0","m":false,"R":true,"wt":"CONTRACT_PRICE","ot":"LIMIT","ps":"SHORT","cp":false,"rp":"0","pP":false,"si":0,"ss":0,"V":"EXPIRE_MAKER","pm":"NONE","gtd":0,"er":"0"}}`
	filled   = `{"e":"ORDER_TRADE_UPDATE","T":1685466798560,"E":1685466798561,"o":{"s":"XRPUSDT","c":"10002","S":"SELL","o":"LIMIT","f":"GTC","q":"20","p":"0.5332","ap":"0.53320","sp":"0","x":"TRADE","X":"FILLED","i":246411433,"l":"20","z":"20","L":"0.5332","n":"0.00213279","N":"USDT","T":1685466798560,"t":19334107,"b":"10.59800","a":"0","m":true,"R":false,"wt":"CONTRACT_PRICE","ot":"LIMIT","ps":"BOTH","cp":false,"rp":"0.24773076","pP":false,"si":0,"ss":0}}`
	account1 = `{"e":"ACCOUNT_UPDATE","E":1564745798939,"T":1564745798938,"a":{"m":"ORDER","B":[{"a":"USDT","wb":"122624.12345678","cw":"100.12345678","bc":"50.12345678"}],"P":[{"s":"BTCUSDT","pa":"0","ep":"0.00000","bep":"0","cr":"200","up":"0","mt":"isolated","iw":"0.00000000","ps":"BOTH"}]}}`
	funding  = `{"e":"ACCOUNT_UPDATE","E":1564745798939,"T":1564745798938,"a":{"m":"FUNDING_FEE","S":"BTCUSDT","B":[{"a":"USDT","wb":"122624.12345678","cw":"100.12345678","bc":"-0.2"}]}}`
	lite     = `{"e":"TRADE_LITE","E":1721895408092,"T":1721895408214,"s":"BTCUSDT","q":"0.001","p":"0","m":false,"c":"z8hcUoOsqEdKMeKPSABslD","S":"BUY","L":"64089.20","l":"0.040","t":109100866,"i":8886774}`
	algo     = `{"e":"ALGO_UPDATE","T":1750515742297,"E":1750515742303,"o":{"caid":"Q5xaq5EGKgXXa0fD7fs0Ip","aid":2148719,"at":"CONDITIONAL","o":"TAKE_PROFIT","s":"BNBUSDT","S":"SELL","ps":"BOTH","f":"GTC","q":"0.01","X":"CANCELED","ai":"","ap":"0.00000","aq":"0.00000","act":"0","tp":"750","p":"750","V":"EXPIRE_MAKER","wt":"CONTRACT_PRICE","pm":"NONE","cp":false,"pP":false,"R":false,"tt":0,"gtd":0,"rm":"Reduce Only reject"}}`
	expired  = `{"e":"listenKeyExpired","E":1736996475556,"listenKey":"WsCMN0a4KHUPTQuX6IUnqEZfB1inxmv1qR4kbf1LuEjur5VdbzqvyxqG9TSjVVxv"}`
	margin   = `{"e":"MARGIN_CALL","E":1587727187525,"cw":"3.16812045","p":[{"s":"ETHUSDT","ps":"LONG","pa":"1.327","mt":"CROSSED","iw":"0","mp":"187.17127","up":"-1.166074","mm":"1.614445"}]}`
	config1  = `{"e":"ACCOUNT_CONFIG_UPDATE","E":1611646737479,"T":1611646737476,"ac":{"s":"BTCUSDT","l":25}}`
	config2  = `{"e":"ACCOUNT_CONFIG_UPDATE","E":1611646737479,"T":1611646737476,"ai":{"j":true}}`
	trigger  = `{"e":"CONDITIONAL_ORDER_TRIGGER_REJECT","E":1685517224945,"T":1685517224955,"or":{"s":"ETHUSDT","i":155618472834,"r":"…"}}`
	mark1    = `{"e":"markPriceUpdate","E":1562305380000,"s":"BTCUSDT","p":"11794.15000000","ap":"11794.15000000","i":"11784.62659091","P":"11784.25641265","r":"0.00038167","T":1562306400000}`
	bar1     = `{"e":"kline","E":1790771371858,"s":"BTCUSDT","k":{"t":1790771340000,"T":1790771399999,"s":"BTCUSDT","i":"1m","f":8132503391,"L":8132505633,"o":"83896.40","c":"83860.20","h":"83920.00","l":"83860.10","v":"114.602","n":2239,"x":false,"q":"9615538.66780","V":"48.488","Q":"4068722.10360","B":"0"}}`
	strategy = `{"e":"STRATEGY_UPDATE","T":1669261797627,"E":1669261797628,"su":{"si":176054594,"st":"GRID","ss":"NEW","s":"BTCUSDT","ut":1669261797627,"c":8007}}`
)

func payloads() []string {
	return []string{newOrder, filled, account1, funding, lite, algo, expired, margin, config1, config2, trigger, mark1, bar1, strategy}
}

func decoded(t *testing.T, raw string) message {
	t.Helper()
	m, err := decode([]byte(raw))
	if err != nil {
		t.Fatalf("decode %s: %v", raw, err)
	}
	return m
}

func TestDecodeOrder(t *testing.T) {
	m := decoded(t, newOrder)
	want := exchange.OrderState{
		ClientOrderID: "bot-1", OrderID: 215456450616, Key: ledger.Key{Symbol: "SOLUSDT", Side: ledger.Short}, Direction: ledger.Buy, Status: "NEW",
		CreatedAt: time.UnixMilli(1779367929401).UTC(),
	}
	got := m.order.state
	if !got.Qty.Equal(ledger.MustQty("21.26")) || !got.Executed.IsZero() {
		t.Errorf("quantities %s and %s", got.Qty, got.Executed)
	}
	got.Qty, got.Executed, got.Trigger = ledger.Qty{}, ledger.Qty{}, ledger.Price{}
	if got != want || m.order.trade != nil || m.order.fromStop {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestDecodeTrade(t *testing.T) {
	o := decoded(t, filled).order
	tr := *o.trade
	// "t" is the trade's id, and "T" its time; "l" its quantity, and "L" its price; "n" its fee.
	if tr.ID != 19334107 || tr.At.UnixMilli() != 1685466798560 || tr.Qty.String() != "20" || tr.Price.String() != "0.5332" ||
		tr.FeeUSD.String() != "0.00213279" || tr.OrderID != 246411433 || tr.ClientOrderID != "10002" || tr.Direction != ledger.Sell || tr.Key != (ledger.Key{Symbol: "XRPUSDT", Side: ledger.Both}) {
		t.Errorf("%+v", tr)
	}
	if o.state.Status != "FILLED" || o.state.Executed.String() != "20" || !o.state.CreatedAt.IsZero() {
		t.Errorf("%+v", o.state)
	}
	inCoin := decoded(t, strings.Replace(filled, `"N":"USDT"`, `"N":"BNB"`, 1))
	free := decoded(t, strings.Replace(filled, `"n":"0.00213279","N":"USDT",`, ``, 1))
	if !inCoin.order.trade.FeeUSD.IsZero() || !free.order.trade.FeeUSD.IsZero() {
		t.Error("a fee that is not known in dollars has dollars")
	}
}

// What has befallen other programs: names that differ in case alone, numbers that became texts, fields that are new.
func TestDecodeTraps(t *testing.T) {
	amended := strings.NewReplacer(`"x":"NEW"`, `"x":"AMENDMENT"`, `"m":false`, `"m":false,"M":"176057039"`).Replace(newOrder)
	if m := decoded(t, amended); m.order == nil || !m.order.state.CreatedAt.IsZero() {
		t.Errorf("an amendment with M: %+v", m)
	}
	for _, raw := range []string{
		strings.Replace(filled, `"t":19334107`, `"T2":0,"t":19334107,"new":{"t":[1,{"x":null}]}`, 1),
		strings.Replace(filled, `"t":19334107`, `"t":"19334107"`, 1),
		strings.Replace(filled, `"t":19334107`, `"t":19334107,"t":19334107`, 1),
		`{"stream":"abc","data":` + filled + `}`,
		strings.Replace(filled, `"l":"20"`, `"l":20`, 1),
	} {
		if m := decoded(t, raw); m.order.trade.ID != 19334107 || m.order.trade.At.UnixMilli() != 1685466798560 || m.order.trade.Qty.String() != "20" {
			t.Errorf("%s: %+v", raw, m.order.trade)
		}
	}
	liquidation := strings.NewReplacer(`"x":"TRADE"`, `"x":"CALCULATED"`, `"c":"10002"`, `"c":"autoclose-1"`).Replace(filled)
	if o := decoded(t, liquidation).order; o.trade != nil || o.tradeID != 19334107 {
		t.Errorf("a liquidation: %+v", o)
	}
	if m := decoded(t, strings.Replace(expired, `1736996475556`, `"1736996475556"`, 1)); !strings.HasPrefix(m.expired, "WsCM") {
		t.Errorf("an expired key: %+v", m)
	}
	if m := decoded(t, `{"result":null,"id":1}`); m.kind != saidReply {
		t.Errorf("a reply: %+v", m)
	}
}

// Nothing of a message that is wrong in what is used of it is used.
func TestDecodeRefuses(t *testing.T) {
	for name, raw := range map[string]string{
		"no object":        `[1,2]`,
		"nothing":          ``,
		"half":             filled[:len(filled)/2],
		"more":             filled + `{}`,
		"no type":          `{"x":1}`,
		"number as type":   `{"e":1}`,
		"no order":         `{"e":"ORDER_TRADE_UPDATE"}`,
		"order of text":    `{"e":"ORDER_TRADE_UPDATE","o":"x"}`,
		"two ids":          strings.Replace(filled, `"t":19334107`, `"t":19334107,"t":19334108`, 1),
		"float id":         strings.Replace(filled, `"t":19334107`, `"t":19334107.5`, 1),
		"no trade id":      strings.Replace(filled, `"t":19334107`, `"t":0`, 1),
		"exponent":         strings.Replace(filled, `"l":"20"`, `"l":"2e1"`, 1),
		"infinite":         strings.Replace(filled, `"L":"0.5332"`, `"L":"NaN"`, 1),
		"negative":         strings.Replace(filled, `"l":"20"`, `"l":"-20"`, 1),
		"more than whole":  strings.Replace(filled, `"l":"20"`, `"l":"21"`, 1),
		"no side":          strings.Replace(filled, `"ps":"BOTH"`, `"ps":"NONE"`, 1),
		"no direction":     strings.Replace(filled, `"S":"SELL"`, `"S":"sell"`, 1),
		"1970":             strings.Replace(filled, `"T":1685466798560,"t"`, `"T":1,"t"`, 1),
		"no order id":      strings.Replace(filled, `"i":246411433`, `"I":246411433`, 1),
		"no status":        strings.Replace(filled, `"X":"FILLED"`, `"X":""`, 1),
		"price of nothing": strings.Replace(mark1, `"p":"11794.15000000"`, `"p":"0"`, 1),
		"bar upside down":  strings.Replace(bar1, `"h":"83920.00"`, `"h":"1"`, 1),
		"flag of text":     strings.Replace(bar1, `"x":false`, `"x":"false"`, 1),
		"rows of text":     strings.Replace(account1, `[{"s":"BTCUSDT"`, `["x",{"s":"BTCUSDT"`, 1),
	} {
		if m, err := decode([]byte(raw)); !errors.Is(err, errMalformed) || m.order != nil || m.mark != nil || m.bar != nil {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func TestDecodeTheRest(t *testing.T) {
	if m := decoded(t, mark1); m.mark.Symbol != "BTCUSDT" || m.mark.Price.String() != "11794.15" || m.mark.At.UnixMilli() != 1562305380000 {
		t.Errorf("%+v", m.mark)
	}
	if m := decoded(t, bar1); m.bar != nil {
		t.Errorf("a bar that is not closed is one: %+v", m.bar)
	}
	b := decoded(t, strings.Replace(bar1, `"x":false`, `"x":true`, 1)).bar
	if b.CloseAt.Sub(b.OpenAt) != time.Minute || b.High.String() != "83920" || b.Low.String() != "83860.1" || b.Close.String() != "83860.2" {
		t.Errorf("%+v", b)
	}
	a := decoded(t, algo).algo
	if a.state.ClientOrderID != "Q5xaq5EGKgXXa0fD7fs0Ip" || a.state.OrderID != 2148719 || a.orderID != 0 || a.state.Status != "CANCELED" || a.state.Trigger.String() != "750" {
		t.Errorf("%+v", a)
	}
	if a := decoded(t, strings.NewReplacer(`"ai":""`, `"ai":"77"`, `"q":"0.01"`, `"q":""`).Replace(algo)).algo; a.orderID != 77 || !a.state.Qty.IsZero() {
		t.Errorf("%+v", a)
	}
	for raw, want := range map[string][]ledger.Key{
		account1: {{Symbol: "BTCUSDT", Side: ledger.Both}}, funding: nil, margin: {{Symbol: "ETHUSDT", Side: ledger.Long}},
		config1: {{}}, config2: {{}}, trigger: {{}}, lite: {{}}, strategy: {{}},
	} {
		m := decoded(t, raw)
		if len(m.changed) != len(want) || (len(want) == 1 && m.changed[0] != want[0]) || m.known == (raw == strategy) {
			t.Errorf("%s: changed %v, known %v", raw, m.changed, m.known)
		}
	}
}

// likeTheLibrary compares our reading of an object with encoding/json's, of which it differs in names said twice alone.
func likeTheLibrary(t *testing.T, raw []byte) {
	var want map[string]json.RawMessage
	f := fieldsOf(raw)
	if json.Unmarshal(raw, &want) != nil || want == nil {
		if f.err == nil {
			t.Errorf("%q is no object, and was read as one", raw)
		}
		return
	}
	if f.err != nil || !utf8.Valid(raw) {
		if f.err != nil && !strings.Contains(f.err.Error(), "twice") {
			t.Errorf("%q is an object, and was refused: %v", raw, f.err)
		}
		return
	}
	if !maps.EqualFunc(f.members, want, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
		t.Errorf("%q was read as %q, not %q", raw, f.members, want)
	}
}

func FuzzDecode(f *testing.F) {
	for _, raw := range payloads() {
		f.Add([]byte(raw))
		f.Add([]byte(`{"stream":"x","data":` + raw + `}`))
	}
	f.Add([]byte(" {\t\"a\\u0062\" :\n[{\"x\":\"}]\\\"\"}] , \"\\\\\":-1.5e3,\"n\" : null , \"t\":true } "))
	f.Add([]byte(`{"e":"kline","e":"kline","k":{}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		likeTheLibrary(t, raw)
		m, err := decode(raw)
		if err != nil {
			return
		}
		if m.kind == "" && m.known {
			t.Errorf("%q has no type", raw)
		}
		if o := m.order; o != nil && o.trade != nil && (o.trade.ID <= 0 || o.trade.Qty.Sign() <= 0 || o.state.Executed.Less(o.trade.Qty) || o.state.Qty.Less(o.state.Executed)) {
			t.Errorf("%q makes a trade %+v of %+v", raw, o.trade, o.state)
		}
		if m.bar != nil && (m.bar.High.Less(m.bar.Low) || !m.bar.OpenAt.Before(m.bar.CloseAt)) {
			t.Errorf("%q makes a bar %+v", raw, m.bar)
		}
	})
}
