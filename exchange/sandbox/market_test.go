package sandbox

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"permitchain/ledger"
)

func TestKlinesEndWhereThePriceIs(t *testing.T) {
	b := newBench(t, Options{Speed: 60})
	b.pass(90 * time.Second)
	var rows [][]any
	if err := json.Unmarshal([]byte(b.raw("GET", "/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=1000", "", "").text), &rows); err != nil || len(rows) != 1000 {
		t.Fatalf("%d rows: %v", len(rows), err)
	}
	for i := 1; i < len(rows); i++ {
		if rows[i][0].(float64)-rows[i-1][0].(float64) != 60000 || rows[i][6].(float64) != rows[i][0].(float64)+59999 || rows[i][1] != rows[i-1][4] {
			t.Fatalf("row %v after %v", rows[i], rows[i-1])
		}
	}
	last := rows[len(rows)-1]
	if mark := b.venue.Price("BTCUSDT").Padded(ledger.MustPrice("0.1")); last[4] != mark || last[0].(float64) != float64(b.now().Truncate(time.Minute).UnixMilli()) {
		t.Errorf("the newest row is %v, the price %s", last, mark)
	}
	for path, code := range map[string]int64{"symbol=BTCUSDT&interval=1s": -1120, "symbol=BTCUSDT&interval=1m&limit=1001": -1130, "symbol=X&interval=1m": -1121} {
		if got := b.raw("GET", "/fapi/v1/klines?"+path, "", ""); got.code() != code {
			t.Errorf("%s: %s", path, got.text)
		}
	}
}

func TestListenKey(t *testing.T) {
	b := newBench(t, Options{})
	f := b.subscribe()
	keyed := func(method string) said { return b.raw(method, "/fapi/v1/listenKey", "", testKey) }
	if got := keyed("PUT"); got.code() != -1125 {
		t.Errorf("kept alive before it was made: %s", got.text)
	}
	key := keyed("POST").field("listenKey")
	if key == "" || keyed("POST").field("listenKey") != key || !b.listening(key) || b.listening("") {
		t.Errorf("key %q", key)
	}
	b.pass(40 * time.Minute)
	if got := keyed("PUT"); got.field("listenKey") != key {
		t.Error(got.text)
	}
	b.pass(40 * time.Minute)
	if !b.listening(key) {
		t.Error("it did not live an hour after it was kept alive")
	}
	b.take(f)
	b.pass(21 * time.Minute)
	expired := 0
	for m, _ := b.take(f); len(m) > 0; m = m[1:] {
		if m[0].Gone == key && m[0].Expired {
			expired++
		}
	}
	if b.listening(key) || expired != 1 {
		t.Errorf("alive after an hour: %v, expired %d times", b.listening(key), expired)
	}
	if next := keyed("POST").field("listenKey"); next == key || keyed("DELETE").status != 200 || b.listening(next) {
		t.Error("a new one is the old one, or did not go")
	}
}

func TestPublicCalls(t *testing.T) {
	b := newBench(t, Options{Symbols: []string{"BTCUSDT", "DOGEUSDT"}})
	var info struct{ Symbols []struct{ Symbol string } }
	got := b.raw("GET", "/fapi/v1/exchangeInfo", "", "")
	if err := json.Unmarshal([]byte(got.text), &info); err != nil || len(info.Symbols) != 2 {
		t.Errorf("%v: %s", err, got.text)
	}
	if got := b.raw("GET", "/fapi/v1/premiumIndex?symbol=DOGEUSDT", "", ""); got.field("markPrice") != b.venue.Price("DOGEUSDT").Fixed(8) || got.header.Get("X-MBX-USED-WEIGHT-1M") != "2" {
		t.Errorf("%v %s", got.header, got.text)
	}
	if got := b.raw("GET", "/fapi/v1/premiumIndex", "", ""); len(got.rows(t)) != 2 || got.header.Get("X-MBX-USED-WEIGHT-1M") != "12" {
		t.Errorf("%v %s", got.header, got.text)
	}
	if got := b.raw("GET", "/fapi/v1/ping", "", ""); got.text != "{}" || got.status != http.StatusOK {
		t.Error(got.text)
	}
	if got := b.call("GET", "/sapi/v1/account/apiRestrictions"); got.field("enableFutures") != "true" || got.field("enableWithdrawals") != "false" {
		t.Error(got.text)
	}
}
