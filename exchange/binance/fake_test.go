package binance

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/ledger"
)

// The key pair of the examples in Binance's documentation.
const (
	testKey    = "dbefbc809e3e83c283a984c3a1459732ea7db1360ca80c5c2c8867408d28cc83"
	testSecret = "2b5eb11e18796d12d88f13dc27dbbd02c2cc51ff7059765ed9821957d82bb4d9"
)

// What Binance answers, byte for byte as it was captured or is documented.
const (
	bodyInfo = `{"timezone":"UTC","serverTime":1789478299014,"futuresType":"U_MARGINED",
 "rateLimits":[{"rateLimitType":"REQUEST_WEIGHT","interval":"MINUTE","intervalNum":1,"limit":2400},{"rateLimitType":"ORDERS","interval":"MINUTE","intervalNum":1,"limit":1200},{"rateLimitType":"ORDERS","interval":"SECOND","intervalNum":10,"limit":300}],
 "exchangeFilters":[],"assets":[{"asset":"USDT","marginAvailable":true,"autoAssetExchange":"0"}],
 "symbols":[{"symbol":"BTCUSDT","pair":"BTCUSDT","contractType":"PERPETUAL","deliveryDate":4133404800000,"onboardDate":1567965300000,"status":"TRADING","maintMarginPercent":"2.5000","requiredMarginPercent":"5.0000","baseAsset":"BTC","quoteAsset":"USDT","marginAsset":"USDT","pricePrecision":2,"quantityPrecision":3,"baseAssetPrecision":8,"quotePrecision":8,"underlyingType":"COIN","underlyingSubType":["PoW","Crypto"],"triggerProtect":"0.0500","liquidationFee":"0.012500","marketTakeBound":"0.05","maxMoveOrderLimit":10000,
  "filters":[{"filterType":"PRICE_FILTER","minPrice":"556.80","maxPrice":"4529764","tickSize":"0.10"},{"filterType":"LOT_SIZE","minQty":"0.001","stepSize":"0.001","maxQty":"1000"},{"filterType":"MARKET_LOT_SIZE","minQty":"0.001","stepSize":"0.001","maxQty":"120"},{"filterType":"MAX_NUM_ORDERS","limit":200},{"filterType":"MIN_NOTIONAL","notional":"50"},{"filterType":"PERCENT_PRICE","multiplierUp":"1.0500","multiplierDown":"0.9500","multiplierDecimal":"4"},{"filterType":"POSITION_RISK_CONTROL","positionControlSide":"NONE"}],
  "orderTypes":["LIMIT","MARKET","STOP","STOP_MARKET","TAKE_PROFIT","TAKE_PROFIT_MARKET","TRAILING_STOP_MARKET"],"timeInForce":["GTC","IOC","FOK","GTX","GTD"],"permissionSets":["GRID","COPY","DCA","PSB"]},
  {"symbol":"OLDUSDT","status":"SETTLING","filters":[]},
  {"symbol":"ODDUSDT","status":"TRADING","filters":[{"filterType":"MARKET_LOT_SIZE","minQty":1,"stepSize":null}]}]}`
	bodyConfig     = `{"feeTier":0,"canTrade":true,"canDeposit":true,"canWithdraw":true,"dualSidePosition":false,"updateTime":0,"multiAssetsMargin":false,"tradeGroupId":-1}`
	bodyFilled     = `{"orderId":4087922045,"symbol":"BTCUSDT","status":"FILLED","clientOrderId":"pc-01J9Z:a1","price":"0.00","avgPrice":"76915.00000","origQty":"0.001","executedQty":"0.001","cumQty":"0.001","cumQuote":"76.91500","timeInForce":"GTC","type":"MARKET","reduceOnly":true,"closePosition":false,"side":"SELL","positionSide":"BOTH","stopPrice":"0.00","workingType":"CONTRACT_PRICE","priceProtect":false,"origType":"MARKET","priceMatch":"NONE","selfTradePreventionMode":"EXPIRE_MAKER","goodTillDate":0,"updateTime":1789478303100}`
	bodyQueried    = `{"avgPrice":"76915.00000","clientOrderId":"pc-01J9Z:a1","cumQuote":"76.91500","executedQty":"0.001","orderId":4087922045,"origQty":"0.001","origType":"MARKET","price":"0","reduceOnly":true,"side":"SELL","positionSide":"BOTH","status":"FILLED","stopPrice":"0","closePosition":false,"symbol":"BTCUSDT","time":1789478303090,"timeInForce":"GTC","type":"MARKET","updateTime":1789478303100,"workingType":"CONTRACT_PRICE","priceProtect":false,"priceMatch":"NONE","selfTradePreventionMode":"EXPIRE_MAKER","goodTillDate":0}`
	bodyAlgo       = `{"algoId":2146760,"clientAlgoId":"6B2I9XVcJpCjqPAJ4YoFX7","algoType":"CONDITIONAL","orderType":"TAKE_PROFIT","symbol":"BNBUSDT","side":"SELL","positionSide":"BOTH","timeInForce":"GTC","quantity":"0.01","algoStatus":"NEW","triggerPrice":"750.000","price":"750.000","icebergQuantity":null,"selfTradePreventionMode":"EXPIRE_MAKER","workingType":"CONTRACT_PRICE","priceMatch":"NONE","closePosition":false,"priceProtect":false,"reduceOnly":false,"activatePrice":"","callbackRate":"","createTime":1750485492076,"updateTime":1750485492076,"triggerTime":0,"goodTillDate":0}`
	bodyAlgoGone   = `{"algoId":2146760,"clientAlgoId":"%s","code":"200","msg":"success"}`
	bodyRisk       = `[{"symbol":"ADAUSDT","positionSide":"BOTH","positionAmt":"30","entryPrice":"0.385","breakEvenPrice":"0.385077","markPrice":"0.41047590","unRealizedProfit":"0.76427700","liquidationPrice":"0","isolatedMargin":"0","notional":"12.31427700","marginAsset":"USDT","isolatedWallet":"0","initialMargin":"0.61571385","maintMargin":"0.08004280","positionInitialMargin":"0.61571385","openOrderInitialMargin":"0","adl":2,"bidNotional":"0","askNotional":"0","updateTime":1720736417660}]`
	bodyTrades     = `[{"buyer":false,"commission":"0.07819010","commissionAsset":"USDT","id":698759,"maker":false,"orderId":25851813,"price":"7819.01","qty":"0.002","quoteQty":"15.63802","baseQty":"0.002","marginAsset":"USDT","realizedPnl":"-0.91539999","side":"SELL","positionSide":"BOTH","symbol":"BTCUSDT","pair":"BTCUSDT","time":1569514978020}]`
	bodyKlines     = `[[1789478160000,"76936.20","76965.50","76936.10","76965.40","20.680",1789478219999,"1591436.27140",878,"15.190","1168938.63310","0"]]`
	bodyListenKey  = `{"listenKey":"pqia91ma19a5s61cv6a81va65sdf19v8a65a1a5s61cv6a81va65sdf19v8a65a1"}`
	bodyNoOrder    = `{"code":-2013,"msg":"Order does not exist."}`
	bodyMaybe      = `{"code":0,"msg":"Unknown error, please check your request or try again later."}`
	bodyDisguised  = `{"code":-1000,"msg":"An unknown error occured while processing the request."}` //nolint:misspell // The exchange spells it so.
	bodyReduceOnly = `{"code":-2022,"msg":"ReduceOnly Order is rejected."}`
)

// fake is a server that answers as it is told, and keeps what it was asked.
type fake struct {
	t      *testing.T
	server *httptest.Server
	mu     sync.Mutex
	routes map[string]http.HandlerFunc // "GET /fapi/v1/time"
	asked  []asked
}

// asked is one request as it came.
type asked struct {
	what, query, body string
	header            http.Header
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t, routes: map[string]http.HandlerFunc{}}
	f.on("GET /fapi/v1/time", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"serverTime":%d}`, time.Now().UnixMilli())
	})
	f.says("GET /fapi/v1/exchangeInfo", 200, bodyInfo)
	f.says("GET /fapi/v1/accountConfig", 200, bodyConfig)
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // What did not come was not sent.
	a := asked{r.Method + " " + r.URL.Path, r.URL.RawQuery, string(body), r.Header.Clone()}
	f.mu.Lock()
	f.asked = append(f.asked, a)
	answer := f.routes[a.what]
	f.mu.Unlock()
	if answer == nil {
		f.t.Errorf("%s was not expected", a.what)
		answer = http.NotFound
	}
	answer(w, r)
}

func (f *fake) on(what string, answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.routes[what] = answer
}

func (f *fake) says(what string, status int, body string) {
	f.on(what, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body) // The client may be gone.
	})
}

// times is how often something was asked, and the last time.
func (f *fake) times(what string) (int, asked) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, last := 0, asked{}
	for _, a := range f.asked {
		if a.what == what {
			n, last = n+1, a
		}
	}
	return n, last
}

func testCredentials(t *testing.T) Credentials {
	t.Helper()
	c, err := NewCredentials(testKey, testSecret)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (f *fake) open(change ...func(*Options)) *Binance {
	f.t.Helper()
	o := Options{
		RESTURL: f.server.URL, StreamURL: "ws://127.0.0.1:1", Credentials: testCredentials(f.t), RecvWindow: 3 * time.Second, Timeout: 3 * time.Second,
		Symbols: []string{"BTCUSDT"}, Bar: time.Minute, Log: zerolog.Nop(),
	}
	for _, c := range change {
		c(&o)
	}
	b, err := Open(context.Background(), o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := b.Close(); err != nil {
			f.t.Error(err)
		}
	})
	return b
}

// anOrder is the order that bodyFilled answers.
func anOrder(b *Binance) exchange.Order {
	return exchange.Order{
		ClientOrderID: "pc-01J9Z:a1", Key: ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}, Direction: ledger.Sell,
		Qty: ledger.MustQty("0.001"), SendBefore: b.Now().Add(time.Second),
	}
}

const (
	postOrder = "POST /fapi/v1/order"
	postAlgo  = "POST /fapi/v1/algoOrder"
)

// sane fails where a text shows what nobody may see.
func sane(t *testing.T, text string) {
	t.Helper()
	text = strings.ReplaceAll(text, "signature=…", "")
	for _, secret := range []string{testKey, testSecret, "signature=", "pqia91ma19a5"} {
		if strings.Contains(text, secret) {
			t.Errorf("a secret (%s…) is shown: %s", secret[:8], text)
		}
	}
}

func form(t *testing.T, body string) []string {
	t.Helper()
	parts := strings.Split(body, "&")
	slices.Sort(parts)
	return parts
}

func mustQuery(t *testing.T, query string) url.Values {
	t.Helper()
	v, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
