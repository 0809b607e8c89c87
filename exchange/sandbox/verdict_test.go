package sandbox

import (
	"strings"
	"testing"
	"time"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

func TestVerdictSeesWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(b *bench)
		want string
	}{
		"more than granted": {func(b *bench) { b.closing("pc-1", "0.02") }, "pc-1 executed 0.02, granted 0.01"},
		"nothing granted":   {func(b *bench) { b.closing("pc-2", "0.001") }, "pc-2 executed 0.001, granted 0"},
		"two orders":        {func(b *bench) { b.closing("pc-1", "0.001"); b.closing("pc-1", "0.001") }, "pc-1 became 2 orders"},
		"it grew": {func(b *bench) {
			b.call("POST", "/fapi/v1/order", "symbol", "BTCUSDT", "side", "BUY", "type", "MARKET", "quantity", "0.01", "newClientOrderId", "pc-1")
		}, "pc-1 took BTCUSDT:BOTH from 0.046 to 0.056"},
		"it turned": {func(b *bench) {
			b.call("POST", "/fapi/v1/order", "symbol", "BTCUSDT", "side", "SELL", "type", "MARKET", "quantity", "0.05", "newClientOrderId", "pc-1")
		}, "pc-1 took BTCUSDT:BOTH from 0.046 to -0.004"},
		"someone else": {func(b *bench) {
			_ = b.Do(func(v *venue.Venue, now time.Time) (venue.Change, error) {
				return v.Trade(now, btc, ledger.MustQty("-1"))
			})
		}, ""},
		"as granted": {func(b *bench) { b.closing("pc-1", "0.01") }, ""},
	} {
		b := newBench(t, Options{})
		c.do(b)
		wrong := strings.Join(b.Verdict(map[string]ledger.Qty{"pc-1": ledger.MustQty("0.01")}), "; ")
		if (c.want == "") != (wrong == "") || !strings.Contains(wrong, c.want) {
			t.Errorf("%s: %q, want %q", name, wrong, c.want)
		}
	}
}

func TestControl(t *testing.T) {
	b := newBench(t, Options{})
	post := func(path, body string) said { return b.raw("POST", "/sandbox/"+path, body, "") }
	if got := post("faults", `{"kind":"late","call":"POST /fapi/v1/order","for":"1s","lasts":"2s"}`); got.status != 200 || b.Armed()[0].For != time.Second || b.Armed()[0].Lasts != 2*time.Second {
		t.Errorf("%s", got.text)
	}
	for _, bad := range []string{
		`{"kind":"late","for":"soon"}`, `{"kind":"never"}`, `{"what":1}`, ``, `{"kind":"late"} {"kind":"hang"}`,
		// What could never happen would be waited for in vain.
		`{"kind":"hang","call":"POST /fapi/v1/ordr"}`, `{"kind":"hang","call":"ws private"}`, `{"kind":"ws_drop","call":"POST /fapi/v1/order"}`,
		`{"kind":"late","call":"GET /fapi/v1/order"}`, `{"kind":"hang","symbol":"NOPE"}`, `{"kind":"hang","skip":-1}`, `{"kind":"partial","qty":"-1"}`,
	} {
		if got := post("faults", bad); got.status != 400 || len(b.Armed()) != 1 {
			t.Errorf("%s: %d %s", bad, got.status, got.text)
		}
	}
	for _, bad := range []string{`{"symbol":"BTCUSDT","side":"WEST","qty":"1"}`, `{"symbol":"BTCUSDT","side":"LONG","qty":"1"}`} {
		if got := post("trade", bad); got.status != 400 || b.held(btc) != "0.046" {
			t.Errorf("%s: %d %s", bad, got.status, got.text)
		}
	}
	if got := b.raw("GET", "/sandbox/log", "", ""); !strings.Contains(got.text, `"orders":[]`) || !strings.Contains(got.text, `"verdict":[]`) {
		t.Errorf("nothing happened yet: %s", got.text)
	}
	if got := b.raw("DELETE", "/sandbox/faults", "", ""); got.status != 200 || len(b.Armed()) != 0 {
		t.Error(got.text)
	}
	if got := post("profile", `{"name":"hostile"}`); got.status != 200 || b.Profile()[Closed] == 0 {
		t.Error(got.text)
	}
	if got := post("profile", `{"name":"mild"}`); got.status != 400 {
		t.Error(got.text)
	}
	b.Disarm()
	if got := post("trade", `{"symbol":"BTCUSDT","qty":"-0.006"}`); got.status != 200 || b.held(btc) != "0.04" {
		t.Errorf("%s, %s is held", got.text, b.held(btc))
	}
	if got := post("liquidate", `{"symbol":"BTCUSDT"}`); got.status != 200 || b.held(btc) != "0" {
		t.Error(got.text)
	}
	if got := post("mode", `{"hedge":true}`); got.status != 200 || !strings.Contains(b.raw("GET", "/sandbox/state", "", "").text, `"hedge":true`) {
		t.Error(got.text)
	}
	if got := post("mode", `{"hedge":true}`); got.status != 400 {
		t.Error(got.text)
	}
	if got := b.raw("GET", "/sandbox/log", "", ""); !strings.Contains(got.text, `"autoclose-`) {
		t.Error(got.text)
	}
}

func TestSomeoneReopens(t *testing.T) {
	b := newBench(t, Options{Reopen: 10 * time.Second})
	b.closing("pc-1", "0.03")
	b.pass(30 * time.Second)
	if b.held(btc) != "0.016" {
		t.Errorf("what was closed in part became %s", b.held(btc))
	}
	b.closing("pc-2", "0.016")
	b.pass(10 * time.Second)
	if b.held(btc) != "0" {
		t.Errorf("%s is held too early", b.held(btc))
	}
	b.pass(time.Second)
	if b.held(btc) != "0.046" {
		t.Errorf("%s is held after all that", b.held(btc))
	}
	b.verdict(nil)
}
