package binance

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

func price(s string) ledger.Price { return ledger.MustPrice(s) }

// checkSignature verifies a request as Binance would: the query without its last part, then the body.
func checkSignature(t *testing.T, a asked) {
	t.Helper()
	payload, signature, ok := strings.Cut(a.query, "&signature=")
	mac := hmac.New(sha256.New, []byte(testSecret))
	mac.Write([]byte(payload + a.body))
	if want := hex.EncodeToString(mac.Sum(nil)); !ok || signature != want {
		t.Errorf("%s: the signature is %q, want %s", a.what, signature, want)
	}
}

const (
	yes     = exchange.Placed
	no      = exchange.NotPlaced
	unknown = exchange.Unknown
)

// rows are every row of what Binance documents, and what nobody documents.
func rows() []row {
	all := []row{
		{200, bodyDisguised, unknown, "", -1000},
		{202, "", unknown, "", 0},
		{301, "", unknown, "", 0},
		{400, "<html>Bad Request</html>", unknown, "", 0},
		{400, `{"code":0,"msg":"?"}`, unknown, "", 0},
		{400, `{"code":12,"msg":"?"}`, unknown, "", 12},
		{400, `{"code":"-2022","msg":"quoted"}`, no, "", -2022},
		{400, `{"code":-2022.5,"msg":"no code"}`, unknown, "", 0},
		{401, "", unknown, "", 0},
		{401, `{"code":-2014,"msg":"API-key format invalid."}`, no, "stop", -2014},
		{401, `{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}`, no, "stop", -2015},
		{403, "<html>WAF</html>", no, "limited", 0},
		{404, "<html>Not Found</html>", unknown, "", 0},
		{408, "", unknown, "", 0},
		{408, bodyReduceOnly, unknown, "", -2022},
		{418, `{"code":-1003,"msg":"Way too many requests; IP banned until 1789479000000. Please use the websocket for live updates to avoid bans."}`, no, "limited", -1003},
		{418, "", no, "limited", 0},
		{429, `{"code":-1003,"msg":"Too many requests."}`, no, "limited", -1003},
		{429, `{"code":-1015,"msg":"Too many new orders."}`, no, "limited", -1015},
		{429, "", no, "limited", 0},
		{451, "<html>region</html>", no, "stop", 0},
		{500, "", unknown, "", 0},
		{500, bodyReduceOnly, unknown, "", -2022},
		{500, bodyDisguised, unknown, "", -1000},
		{502, "<html><h1>502 Bad Gateway</h1></html>", unknown, "", 0},
		{503, bodyMaybe, unknown, "", 0},
		{503, `{"code":-1000,"msg":"Unknown error, please check your request or try again later."}`, unknown, "", -1000},
		{503, `{"code":0,"msg":"Service Unavailable."}`, no, "", 0},
		{503, "Service Unavailable.", no, "", 0},
		{503, "<html>503 Service Unavailable</html>", unknown, "", 0},
		{503, `{"code":-1001,"msg":"Internal error; unable to process your request. Please try again."}`, unknown, "", -1001},
		{503, `{"code":-1008,"msg":"Request throttled by system-level protection. Reduce-only/close-position orders are exempt. Please try again."}`, no, "", -1008},
		{503, `{"code":-1016,"msg":"This service is no longer available."}`, no, "", -1016},
		{503, "", unknown, "", 0},
		{504, "<html>504</html>", unknown, "", 0},
		{520, "", unknown, "", 0},
		{400, `{"code":-2010,"msg":"NEW_ORDER_REJECTED"}`, no, "", -2010},
		{400, `{"code":-2010,"msg":"Duplicate order sent."}`, unknown, "", -2010},
	}
	for _, c := range []struct {
		want  exchange.Outcome
		what  string
		codes []int64
	}{
		{unknown, "", []int64{-1000, -1001, -1006, -1007, -1010, -2011, -2013, -2016, -4046, -4059, -4116, -4117, -4531, -5024, -5025, -5043, -9999}},
		{no, "limited", []int64{-1003, -1015}},
		{no, "clock", []int64{-1021, -5028}},
		{no, "stop", []int64{-1002, -1022, -1099, -2014, -2015, -2017, -4088, -4109, -4192}},
		{no, "", []int64{
			-1008, -1016, -1100, -1102, -1106, -1111, -1116, -1121, -1130, -1136, -2018, -2019, -2020, -2021, -2022, -2023, -2024, -2025, -2026, -2027, -2028,
			-4003, -4004, -4005, -4013, -4014, -4015, -4016, -4023, -4024, -4045, -4061, -4062, -4087, -4105, -4106, -4107, -4118, -4120, -4131, -4137, -4138,
			-4140, -4141, -4164, -4189, -4400, -4401, -4402, -5021, -5022, -5041,
		}},
	} {
		for _, code := range c.codes {
			all = append(all, row{400, fmt.Sprintf(`{"code":%d,"msg":"it says why"}`, code), c.want, c.what, code})
		}
	}
	return all
}

type row struct {
	status int
	body   string
	want   exchange.Outcome
	what   string // limited, stop, clock
	code   int64
}

func TestEveryAnswer(t *testing.T) {
	f := newFake(t)
	b := f.open()
	for _, r := range rows() {
		for _, what := range []string{postOrder, postAlgo} {
			name := fmt.Sprintf("%s %d %.60s", what, r.status, r.body)
			f.says(what, r.status, r.body)
			lift(b)
			b.refusal.Store(nil)
			o := anOrder(b)
			if what == postAlgo {
				o.Trigger = price("70000")
			}
			before, _ := f.times(what)
			a := b.Place(context.Background(), o)
			if n, _ := f.times(what); n != before+1 {
				t.Errorf("%s: sent %d times", name, n-before)
			}
			if a.Outcome != r.want || a.Code != r.code || a.RateLimited != (r.what == "limited") || a.OrderID != 0 {
				t.Errorf("%s: %+v, want %s %d %s", name, a, r.want, r.code, r.what)
			}
			if stopped := b.Health().Refusal != ""; stopped != (r.what == "stop") {
				t.Errorf("%s: refusal %q", name, b.Health().Refusal)
			}
			sane(t, a.Message)
		}
	}
}

// lift ends a ban.
func lift(b *Binance) {
	b.budget.mu.Lock()
	defer b.budget.mu.Unlock()
	b.budget.banned, b.budget.noOrders = time.Time{}, time.Time{}
}

// The clock is measured again when the exchange complains about it.
func TestClockIsMeasuredAgainAfterAComplaint(t *testing.T) {
	for _, code := range []int{-1021, -5028} {
		f := newFake(t)
		b := f.open()
		before, _ := f.times("GET /fapi/v1/time")
		measured := make(chan struct{}, 10)
		f.on("GET /fapi/v1/time", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"serverTime":%d}`, time.Now().Add(time.Hour).UnixMilli())
			measured <- struct{}{}
		})
		f.says(postOrder, 400, fmt.Sprintf(`{"code":%d,"msg":"Timestamp for this request is outside of the recvWindow."}`, code))
		if a := b.Place(context.Background(), anOrder(b)); a.Outcome != exchange.NotPlaced {
			t.Errorf("%d: %+v", code, a)
		}
		for range clockProbes {
			select {
			case <-measured:
			case <-time.After(5 * time.Second):
				t.Fatalf("%d: the clock was not asked", code)
			}
		}
		if n, _ := f.times("GET /fapi/v1/time"); n != before+clockProbes {
			t.Errorf("%d: the clock was asked %d times, want %d", code, n-before, clockProbes)
		}
		for deadline := time.Now().Add(5 * time.Second); b.Now().Before(time.Now().Add(59*time.Minute)) && time.Now().Before(deadline); {
			time.Now() // The goroutine needs only to be scheduled.
		}
		if h := b.Health(); h.Offset < 59*time.Minute || h.Offset > 61*time.Minute || h.Uncertainty <= 0 || h.Uncertainty > clockDoubt {
			t.Errorf("the offset is %s ± %s", h.Offset, h.Uncertainty)
		}
	}
}

func TestPlacedIsValidated(t *testing.T) {
	f := newFake(t)
	b := f.open()
	for name, c := range map[string]struct{ old, new string }{
		"no order id":      {`"orderId":4087922045`, `"orderId":0`},
		"another id":       {`"pc-01J9Z:a1"`, `"pc-01J9Z:a2"`},
		"another symbol":   {`"BTCUSDT"`, `"ETHUSDT"`},
		"other side":       {`"SELL"`, `"BUY"`},
		"other position":   {`"positionSide":"BOTH"`, `"positionSide":"LONG"`},
		"no status":        {`"FILLED"`, `""`},
		"larger":           {`"origQty":"0.001"`, `"origQty":"0.002"`},
		"no quantity":      {`"origQty":"0.001"`, `"origQty":"0"`},
		"more than all":    {`"executedQty":"0.001"`, `"executedQty":"0.0011"`},
		"less than none":   {`"executedQty":"0.001"`, `"executedQty":"-0.001"`},
		"no executedQty":   {`"executedQty":"0.001",`, ``},
		"quantity is text": {`"executedQty":"0.001"`, `"executedQty":"some"`},
		"said twice":       {`"status":"FILLED"`, `"status":"FILLED","status":"NEW"`},
		"other case":       {`"clientOrderId"`, `"clientOrderID"`},
		"more behind it":   {`"updateTime":1789478303100}`, `"updateTime":1789478303100}{}`},
	} {
		body := strings.Replace(bodyFilled, c.old, c.new, 1)
		if body == bodyFilled {
			t.Fatalf("%s changes nothing", name)
		}
		f.says(postOrder, 200, body)
		if a := b.Place(context.Background(), anOrder(b)); a.Outcome != exchange.Unknown {
			t.Errorf("%s: %+v", name, a)
		}
	}
	// What may be different: a smaller quantity (the exchange cuts reduce-only orders), what is not said since July 2026,
	// fields nobody knows, numbers without quotes.
	for name, c := range map[string]struct{ old, new string }{
		"cut":              {`"status":"FILLED"`, `"status":"EXPIRED"`},
		"without averages": {`"avgPrice":"76915.00000",`, ``},
		"new field":        {`{"orderId"`, `{"ps":1,"pair":"BTCUSDT","cumBase":"0","orderId"`},
		"plain number":     {`"executedQty":"0.001"`, `"executedQty":0.001`},
	} {
		f.says(postOrder, 200, strings.Replace(bodyFilled, c.old, c.new, 1))
		if a := b.Place(context.Background(), anOrder(b)); a.Outcome != exchange.Placed || a.Executed.String() != "0.001" {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestErrorsOfQueries(t *testing.T) {
	f := newFake(t)
	b := f.open()
	k := ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}
	for _, c := range []struct {
		status int
		body   string
		is     []error
		not    []error
	}{
		{400, bodyNoOrder, []error{exchange.ErrNotFound}, []error{ErrKey, ErrLimited}},
		{500, bodyNoOrder, nil, []error{exchange.ErrNotFound}},
		{200, bodyNoOrder, nil, []error{exchange.ErrNotFound}},
		{401, `{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}`, []error{ErrKey}, []error{exchange.ErrNotFound}},
		{400, `{"code":-1022,"msg":"Signature for this request is not valid."}`, []error{ErrKey}, nil},
		{503, bodyMaybe, nil, []error{exchange.ErrNotFound, ErrKey, ErrLimited}},
		{200, `{}`, nil, []error{exchange.ErrNotFound}},
		{200, ``, nil, []error{exchange.ErrNotFound}},
		{200, strings.Replace(bodyQueried, "pc-01J9Z:a1", "pc-01J9Z:a2", 1), nil, []error{exchange.ErrNotFound}},
		{200, strings.Replace(bodyQueried, `"time":1789478303090,`, "", 1), nil, []error{exchange.ErrNotFound}},
		{429, `{"code":-1003,"msg":"Too many requests."}`, []error{ErrLimited}, []error{exchange.ErrNotFound}},
	} {
		f.says("GET /fapi/v1/order", c.status, c.body)
		s, err := b.Find(context.Background(), k, "pc-01J9Z:a1")
		if err == nil {
			t.Errorf("%d %s: found %+v", c.status, c.body, s)
			continue
		}
		for _, want := range c.is {
			if !errors.Is(err, want) {
				t.Errorf("%d %s: %v is not %v", c.status, c.body, err, want)
			}
		}
		for _, not := range c.not {
			if errors.Is(err, not) {
				t.Errorf("%d %s: %v is %v", c.status, c.body, err, not)
			}
		}
		sane(t, err.Error())
	}
	n, _ := f.times("GET /fapi/v1/order")
	if _, err := b.Find(context.Background(), k, "pc-01J9Z:a1"); !errors.Is(err, ErrLimited) { // The last row banned us.
		t.Errorf("during a ban: %v", err)
	}
	if m, _ := f.times("GET /fapi/v1/order"); m != n {
		t.Error("a ban was not kept")
	}
}
