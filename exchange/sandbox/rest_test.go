package sandbox

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

func TestSignatures(t *testing.T) {
	hmac, err := newVerifier(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	// The documentation's own example.
	const official = "symbol=BTCUSDT&side=BUY&type=LIMIT&quantity=1&price=9000&timeInForce=GTC&recvWindow=5000&timestamp=1591702613943"
	const signature = "3c661234138461fcc7a7d8746c6558c9842d4e10870d2ecbedf7777cad694af9"
	if !hmac(official, signature) || hmac(official+"0", signature) || hmac(official, signature[2:]) || hmac(official, "") {
		t.Error("the official example is not judged right")
	}
	for _, c := range []struct{ query, body, signed string }{
		{"a=1&signature=ff", "", "a=1"},
		{"a=1&signature=ff", "b=2", "a=1b=2"},
		{"signature=ff&a=1", "b=2", "a=1b=2"},
		{"a=1", "b=2&signature=ff", "a=1b=2"},
		{"", "b=2&signature=ff", "b=2"},
	} {
		if signed, sig := payload(c.query, c.body); signed != c.signed || sig != "ff" {
			t.Errorf("%q and %q: %q is signed with %q", c.query, c.body, signed, sig)
		}
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	edwards, err := newVerifier(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	if err != nil {
		t.Fatal(err)
	}
	if good := base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte("x"))); !edwards("x", good) || edwards("y", good) {
		t.Error("an Ed25519 signature is not judged right")
	}
	if _, err := newVerifier("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"); err == nil {
		t.Error("a bad PEM is taken")
	}
}

func TestDoor(t *testing.T) {
	b := newBench(t, Options{})
	now := b.now().UnixMilli()
	stamped := func(ms int64) string { return "timestamp=" + id(ms) }
	with := func(query string) string {
		return "/fapi/v1/accountConfig?" + query + "&signature=" + sign(query)
	}
	for name, c := range map[string]struct {
		path, key string
		status    int
		code      int64
	}{
		"good":                 {with(stamped(now)), testKey, 200, 0},
		"no key":               {with(stamped(now)), "", 401, -2014},
		"another key":          {with(stamped(now)), "x" + testKey, 401, -2015},
		"no timestamp":         {with("recvWindow=5000"), testKey, 400, -1102},
		"a wrong signature":    {"/fapi/v1/accountConfig?" + stamped(now) + "&signature=" + sign(stamped(now+1)), testKey, 400, -1022},
		"no signature":         {"/fapi/v1/accountConfig?" + stamped(now), testKey, 400, -1102},
		"a second ahead":       {with(stamped(now + 1000)), testKey, 400, -1021},
		"nearly that":          {with(stamped(now + 999)), testKey, 200, 0},
		"as old as may be":     {with(stamped(now - 5000)), testKey, 200, 0},
		"too old":              {with(stamped(now - 5001)), testKey, 400, -1021},
		"too old for its own":  {with("recvWindow=100&" + stamped(now-101)), testKey, 400, -1021},
		"a window of its own":  {with("recvWindow=60000&" + stamped(now-60000)), testKey, 200, 0},
		"too wide a window":    {with("recvWindow=60001&" + stamped(now)), testKey, 400, -1131},
		"nowhere":              {"/fapi/v1/nowhere", testKey, 404, -5000},
		"public without a key": {"/fapi/v1/time", "", 200, 0},
	} {
		if got := b.raw("GET", c.path, "", c.key); got.status != c.status || got.code() != c.code {
			t.Errorf("%s: %d %s, want %d %d", name, got.status, got.text, c.status, c.code)
		}
	}
}

func TestFilters(t *testing.T) {
	b := newBench(t, Options{Symbols: []string{"XRPUSDT"}})
	order := func(pairs ...string) said { return b.call("POST", "/fapi/v1/order", pairs...) }
	for name, c := range map[string]struct {
		params []string
		code   int64
	}{
		"no symbol":         {[]string{"side", "SELL", "type", "MARKET", "quantity", "0.001"}, -1102},
		"another symbol":    {[]string{"symbol", "NOUSDT", "side", "SELL", "type", "MARKET", "quantity", "0.001"}, -1121},
		"no side":           {[]string{"symbol", "BTCUSDT", "type", "MARKET", "quantity", "0.001"}, -1117},
		"no type":           {[]string{"symbol", "BTCUSDT", "side", "SELL", "quantity", "0.001"}, -1102},
		"another type":      {[]string{"symbol", "BTCUSDT", "side", "SELL", "type", "MAGIC", "quantity", "0.001"}, -1116},
		"a stop":            {[]string{"symbol", "BTCUSDT", "side", "SELL", "type", "STOP_MARKET", "quantity", "0.001"}, -4120},
		"nothing":           {[]string{"symbol", "BTCUSDT", "side", "SELL", "type", "MARKET", "quantity", "0"}, -4003},
		"no number":         {[]string{"symbol", "BTCUSDT", "side", "SELL", "type", "MARKET", "quantity", "1e3"}, -1100},
		"too little":        {[]string{"symbol", "BTCUSDT", "side", "SELL", "type", "MARKET", "quantity", "0.0001"}, -4004},
		"too precise":       {[]string{"symbol", "BTCUSDT", "side", "SELL", "type", "MARKET", "quantity", "0.0011"}, -1111},
		"too much":          {[]string{"symbol", "BTCUSDT", "side", "SELL", "type", "MARKET", "quantity", "120.001"}, -4005},
		"a long id":         {[]string{"symbol", "BTCUSDT", "side", "SELL", "type", "MARKET", "quantity", "0.001", "newClientOrderId", strings.Repeat("x", 37)}, -4015},
		"hedge's side":      {[]string{"symbol", "BTCUSDT", "side", "SELL", "type", "MARKET", "quantity", "0.001", "positionSide", "LONG"}, -4061},
		"worth too little":  {[]string{"symbol", "XRPUSDT", "side", "SELL", "type", "MARKET", "quantity", "0.1"}, -4164},
		"the wrong way":     {[]string{"symbol", "BTCUSDT", "side", "BUY", "type", "MARKET", "quantity", "0.001", "reduceOnly", "true"}, -2022},
		"a limit off tick":  {[]string{"symbol", "BTCUSDT", "side", "SELL", "type", "LIMIT", "timeInForce", "GTC", "price", "99999.05", "quantity", "0.001"}, -4014},
		"a limit, no price": {[]string{"symbol", "BTCUSDT", "side", "SELL", "type", "LIMIT", "timeInForce", "GTC", "quantity", "0.001"}, -1102},
	} {
		if got := order(c.params...); got.status != 400 || got.code() != c.code {
			t.Errorf("%s: %d %s, want %d", name, got.status, got.text, c.code)
		}
	}
	if b.held(btc) != "0.046" {
		t.Errorf("%s is held after refusals alone", b.held(btc))
	}
	// Reduce-only is exempt from the least value, and is shrunk to the position.
	if got := b.closing("pc-x", "0.1"); got.status != 200 || got.field("origQty") != "0.046" || got.field("status") != "FILLED" {
		t.Errorf("an order larger than the position: %s", got.text)
	}
	if got := b.closing("pc-y", "0.001"); got.code() != -2022 {
		t.Errorf("an order where nothing is held: %s", got.text)
	}
	b.verdict(nil)
}

func TestHedgeMode(t *testing.T) {
	long := ledger.Key{Symbol: "BTCUSDT", Side: ledger.Long}
	b := newBench(t, Options{Hedge: true, Positions: map[ledger.Key]ledger.Qty{long: ledger.MustQty("0.01")}})
	send := func(pairs ...string) said {
		return b.call("POST", "/fapi/v1/order", append([]string{"symbol", "BTCUSDT", "side", "SELL", "type", "MARKET", "quantity", "0.01"}, pairs...)...)
	}
	if got := send("positionSide", "LONG", "reduceOnly", "true"); got.code() != -1106 {
		t.Errorf("reduceOnly in hedge mode: %s", got.text)
	}
	if got := send("positionSide", "LONG", "reduceOnly", "false"); got.code() != -1106 {
		t.Errorf("reduceOnly in hedge mode, even if it says nothing: %s", got.text)
	}
	if got := send(); got.code() != -4061 {
		t.Errorf("no position side in hedge mode: %s", got.text)
	}
	if got := b.call("POST", "/fapi/v1/positionSide/dual", "dualSidePosition", "false"); got.code() != -4068 {
		t.Errorf("a switch with a position: %s", got.text)
	}
	if got := b.call("POST", "/fapi/v1/positionSide/dual", "dualSidePosition", "true"); got.code() != -4059 {
		t.Errorf("a switch to what is: %s", got.text)
	}
	if rows := b.call("GET", "/fapi/v2/positionRisk").rows(t); len(rows) != 2 || rows[0]["positionSide"] != "LONG" || rows[0]["positionAmt"] != "0.010" || rows[1]["positionAmt"] != "0.000" {
		t.Errorf("v2 says %v", rows)
	}
	if got := send("positionSide", "LONG"); got.status != 200 || got.field("reduceOnly") != "true" || got.field("status") != "NEW" || got.field("executedQty") != "0.000" {
		t.Errorf("closing a long: %s", got.text)
	}
	if got := b.call("GET", "/fapi/v3/positionRisk"); got.text != "[]" {
		t.Errorf("v3 says %s of a flat account", got.text)
	}
	if got := b.call("POST", "/fapi/v1/positionSide/dual", "dualSidePosition", "false"); got.status != 200 || b.call("GET", "/fapi/v1/accountConfig").field("dualSidePosition") != "false" {
		t.Errorf("a switch when flat: %s", got.text)
	}
}

func TestLimits(t *testing.T) {
	b := newBench(t, Options{Weight: 100})
	var last said
	for range 20 {
		if last = b.call("GET", "/fapi/v3/positionRisk"); last.status != 200 {
			t.Fatalf("%d %s", last.status, last.text)
		}
	}
	if got := last.header.Get("X-MBX-USED-WEIGHT-1M"); got != "100" {
		t.Errorf("weight %q after 20 calls of 5", got)
	}
	if last = b.call("GET", "/fapi/v1/time"); last.status != 429 || last.code() != -1003 || last.header.Get("Retry-After") != "60" {
		t.Errorf("one more: %d %v %s", last.status, last.header, last.text)
	}
	for range patience {
		last = b.call("GET", "/fapi/v1/time")
	}
	until := b.now().Add(banLength).UnixMilli()
	if last.status != 418 || !strings.Contains(last.text, "banned until "+strconv.FormatInt(until, 10)) {
		t.Errorf("whoever does not listen gets %d %s", last.status, last.text)
	}
	b.pass(banLength)
	if last = b.call("GET", "/fapi/v1/time"); last.status != 200 || last.header.Get("X-MBX-USED-WEIGHT-1M") != "1" {
		t.Errorf("after the ban: %d %v", last.status, last.header)
	}
	for i := range ordersPerTen {
		if last = b.closing("pc-"+strconv.Itoa(i), "0"); last.code() != -4003 {
			t.Fatalf("order %d: %s", i, last.text)
		}
	}
	if last.header.Get("X-MBX-ORDER-COUNT-10S") != "300" || last.header.Get("X-MBX-ORDER-COUNT-1M") != "300" {
		t.Errorf("counts: %v", last.header)
	}
	if last = b.closing("pc-more", "0.001"); last.status != 429 || last.code() != -1015 {
		t.Errorf("order 301: %d %s", last.status, last.text)
	}
	b.pass(10 * time.Second)
	if last = b.closing("pc-again", "0.001"); last.status != 200 || last.header.Get("X-MBX-ORDER-COUNT-10S") != "1" || last.header.Get("X-MBX-ORDER-COUNT-1M") != "301" {
		t.Errorf("ten seconds later: %d %s %v", last.status, last.text, last.header)
	}
}

func TestTradesArePagedAsDocumented(t *testing.T) {
	b := newBench(t, Options{Odds: venue.Odds{Split: 1}})
	var times []time.Time
	for i := range 10 {
		times = append(times, b.now())
		b.closing("pc-"+strconv.Itoa(i), "0.004")
		b.pass(time.Second)
	}
	all := b.call("GET", "/fapi/v1/userTrades", "symbol", "BTCUSDT").rows(t)
	ids := func(rows []map[string]any) (ids []int64) {
		for _, r := range rows {
			n, _ := r["id"].(json.Number).Int64()
			ids = append(ids, n)
		}
		return ids
	}
	every := ids(all)
	if len(every) < 12 || !slices.IsSorted(every) {
		t.Fatalf("trades %v", every)
	}
	trades := func(pairs ...string) said {
		return b.call("GET", "/fapi/v1/userTrades", append([]string{"symbol", "BTCUSDT"}, pairs...)...)
	}
	if got := ids(trades("fromId", id(every[3]), "limit", "4").rows(t)); !slices.Equal(got, every[3:7]) {
		t.Errorf("from %d: %v of %v", every[3], got, every)
	}
	if got := ids(trades("fromId", id(every[3]+1), "limit", "4").rows(t)); !slices.Equal(got, every[4:8]) {
		t.Errorf("after %d: %v of %v", every[3], got, every)
	}
	if got := ids(trades("fromID", id(every[3]), "limit", "4").rows(t)); !slices.Equal(got, every[len(every)-4:]) {
		t.Errorf("another spelling is a parameter: %v", got)
	}
	if got := ids(trades("limit", "4").rows(t)); !slices.Equal(got, every[len(every)-4:]) {
		t.Errorf("without a beginning: %v", got)
	}
	if got := ids(trades("startTime", id(times[0].UnixMilli()), "limit", "2").rows(t)); !slices.Equal(got, every[:2]) {
		t.Errorf("from the beginning: %v", got)
	}
	order := all[0]["orderId"].(json.Number).String()
	for _, r := range trades("orderId", order).rows(t) {
		if r["orderId"].(json.Number).String() != order {
			t.Errorf("trade %v of another order", r)
		}
	}
	for _, pairs := range [][]string{{"fromId", "1", "startTime", "1"}, {"limit", "1001"}, {"startTime", "1", "endTime", id(8 * 24 * 3600 * 1000)}} {
		if got := trades(pairs...); got.status != 400 {
			t.Errorf("%v: %s", pairs, got.text)
		}
	}
	b.clock.Add((8 * 24 * time.Hour).Milliseconds())
	if got := trades().text; got != "[]" {
		t.Errorf("a week later, without parameters: %s", got)
	}
	if got := ids(trades("fromId", "0").rows(t)); !slices.Equal(got, every) {
		t.Errorf("a week later, by id: %v", got)
	}
	b.clock.Add((90 * 24 * time.Hour).Milliseconds())
	if got := trades("fromId", "0").text; got != "[]" {
		t.Errorf("three months later: %s", got)
	}
	b.verdict(nil)
}

func TestOrdersAreForgotten(t *testing.T) {
	b := newBench(t, Options{})
	find := func(clientID string) said {
		return b.call("GET", "/fapi/v1/order", "symbol", "BTCUSDT", "origClientOrderId", clientID)
	}
	b.closing("pc-filled", "0.001")
	limit := b.call("POST", "/fapi/v1/order", "symbol", "BTCUSDT", "side", "SELL", "type", "LIMIT", "timeInForce", "GTC", "price", "99999.9", "quantity", "0.001", "newClientOrderId", "hand")
	if limit.status != 200 || limit.field("status") != "NEW" {
		t.Fatal(limit.text)
	}
	if again := b.closing("hand", "0.001"); again.code() != -4116 {
		t.Errorf("a client id twice: %s", again.text)
	}
	if got := b.call("GET", "/fapi/v1/openOrders").rows(t); len(got) != 1 || got[0]["clientOrderId"] != "hand" {
		t.Errorf("open: %v", got)
	}
	if got := b.call("GET", "/fapi/v1/openOrder", "symbol", "BTCUSDT", "origClientOrderId", "pc-filled"); got.code() != -2013 {
		t.Errorf("a filled order is open: %s", got.text)
	}
	if got := b.call("DELETE", "/fapi/v1/order", "symbol", "BTCUSDT", "origClientOrderId", "hand"); got.field("status") != "CANCELED" {
		t.Errorf("canceled: %s", got.text)
	}
	if got := b.call("DELETE", "/fapi/v1/order", "symbol", "BTCUSDT", "origClientOrderId", "hand"); got.code() != -2011 {
		t.Errorf("canceled again: %s", got.text)
	}
	// A client id whose order is filled is accepted again: the exchange executes it twice, and the sandbox says so.
	if got := b.closing("pc-filled", "0.001"); got.status != 200 {
		t.Errorf("a used client id: %s", got.text)
	}
	if wrong := b.Verdict(map[string]ledger.Qty{"pc-filled": ledger.MustQty("0.001")}); len(wrong) != 2 {
		t.Errorf("verdict on a twice executed id: %v", wrong)
	}
	first := b.call("GET", "/fapi/v1/allOrders", "symbol", "BTCUSDT").rows(t)
	if len(first) != 3 {
		t.Errorf("%d orders: %v", len(first), first)
	}
	from := first[1]["orderId"].(json.Number).String()
	if got := b.call("GET", "/fapi/v1/allOrders", "symbol", "BTCUSDT", "orderId", from).rows(t); len(got) != 2 {
		t.Errorf("from %s: %v", from, got)
	}
	b.clock.Add((4 * 24 * time.Hour).Milliseconds())
	if find("hand").code() != -2013 || find("pc-filled").status != 200 {
		t.Error("four days later an order that never filled is known, or one that did is not")
	}
	b.clock.Add((87 * 24 * time.Hour).Milliseconds())
	if got := find("pc-filled"); got.code() != -2013 {
		t.Errorf("91 days later: %s", got.text)
	}
}

func TestStops(t *testing.T) {
	b := newBench(t, Options{})
	price := b.venue.Price("BTCUSDT")
	below := price.Of(ledger.MustPercent("99")).FloorTo(ledger.MustPrice("0.1"))
	stop := func(clientID string, trigger ledger.Price) said {
		return b.call("POST", "/fapi/v1/algoOrder", "algoType", "CONDITIONAL", "symbol", "BTCUSDT", "side", "SELL", "type", "STOP_MARKET", "quantity", "0.046", "reduceOnly", "true",
			"triggerPrice", trigger.String(), "workingType", "MARK_PRICE", "clientAlgoId", clientID)
	}
	if got := stop("pc-s1", below); got.status != 200 || got.field("algoStatus") != "NEW" || got.header.Get("X-MBX-ORDER-COUNT-10S") != "1" {
		t.Fatal(got.text)
	}
	if got := stop("pc-s1", below); got.code() != -4116 {
		t.Errorf("the same again: %s", got.text)
	}
	if got := stop("pc-s2", price.Add(ledger.MustPrice("50")).FloorTo(ledger.MustPrice("0.1"))); got.code() != -2021 {
		t.Errorf("on the wrong side: %s", got.text)
	}
	if got := b.call("GET", "/fapi/v1/openOrders"); got.text != "[]" {
		t.Errorf("stops among the orders: %s", got.text)
	}
	if got := b.call("GET", "/fapi/v1/order", "symbol", "BTCUSDT", "origClientOrderId", "pc-s1"); got.code() != -2013 {
		t.Errorf("a stop looked up as an order: %s", got.text)
	}
	if got := b.call("GET", "/fapi/v1/openAlgoOrders").rows(t); len(got) != 1 || got[0]["actualOrderId"] != "" {
		t.Errorf("open: %v", got)
	}
	err := b.Do(func(v *venue.Venue, now time.Time) (venue.Change, error) { return v.Mark(now, "BTCUSDT", below), nil })
	if err != nil || b.held(btc) != "0" {
		t.Fatalf("%s is held at the stop: %v", b.held(btc), err)
	}
	got := b.call("GET", "/fapi/v1/algoOrder", "clientAlgoId", "pc-s1")
	if got.field("algoStatus") != "FINISHED" || got.field("actualOrderId") == "" {
		t.Errorf("after the trigger: %s", got.text)
	}
	order := b.call("GET", "/fapi/v1/order", "symbol", "BTCUSDT", "orderId", got.field("actualOrderId"))
	if order.field("origType") != "STOP_MARKET" || order.field("executedQty") != "0.046" {
		t.Errorf("what it became: %s", order.text)
	}
	if got := b.call("DELETE", "/fapi/v1/algoOrder", "clientAlgoId", "pc-s1"); got.code() != -2011 {
		t.Errorf("canceled after the trigger: %s", got.text)
	}
	if got := b.call("GET", "/fapi/v1/allAlgoOrders", "symbol", "BTCUSDT").rows(t); len(got) != 1 {
		t.Errorf("all: %v", got)
	}
	b.verdict(map[string]ledger.Qty{"pc-s1": ledger.MustQty("0.046")})
}
