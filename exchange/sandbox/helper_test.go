package sandbox

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"permitchain/ledger"
)

const (
	testKey    = "dbefbc809e3e83c283a984c3a1459732ea7db1360ca80c5c2c8867408d28cc83"
	testSecret = "2b5eb11e18796d12d88f13dc27dbbd02c2cc51ff7059765ed9821957d82bb4d9"
)

var btc = ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}

// bench is a sandbox behind a real socket, whose clock stands still until it is moved.
type bench struct {
	*Sandbox
	t     *testing.T
	url   string
	clock atomic.Int64 // milliseconds
}

func newBench(t *testing.T, o Options) *bench {
	t.Helper()
	b := &bench{t: t}
	b.clock.Store(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).UnixMilli())
	o.Key, o.Secret = testKey, testSecret
	if o.Now == nil {
		o.Now = func() time.Time { return time.UnixMilli(b.clock.Load()) }
	}
	if o.Positions == nil {
		o.Positions = map[ledger.Key]ledger.Qty{btc: ledger.MustQty("0.046")}
	}
	b.Sandbox = New(o)
	server := httptest.NewServer(b.Handler())
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

// pass lets time go by, second after second.
func (b *bench) pass(d time.Duration) {
	for ; d > 0; d -= time.Second {
		b.clock.Add(min(d, time.Second).Milliseconds())
		b.mu.Lock()
		b.tick(b.advance())
		b.mu.Unlock()
	}
}

// said is an answer.
type said struct {
	status int
	header http.Header
	text   string
	err    error
}

// code is the code of a refusal, or of nothing.
func (a said) code() int64 {
	var e struct{ Code int64 }
	_ = json.Unmarshal([]byte(a.text), &e)
	return e.Code
}

func (a said) field(name string) string {
	var o map[string]any
	d := json.NewDecoder(strings.NewReader(a.text))
	d.UseNumber()
	_ = d.Decode(&o)
	switch v := o[name].(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		if v {
			return "true"
		}
		return "false"
	}
	return ""
}

func (a said) rows(t *testing.T) []map[string]any {
	t.Helper()
	var rows []map[string]any
	d := json.NewDecoder(strings.NewReader(a.text))
	d.UseNumber()
	if err := d.Decode(&rows); err != nil {
		t.Fatalf("%v: %s", err, a.text)
	}
	return rows
}

func sign(text string) string {
	mac := hmac.New(sha256.New, []byte(testSecret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

// call makes a signed call the way that go-binance does: parameters of a GET in the query, of others in the body.
func (b *bench) call(method, path string, pairs ...string) said {
	b.t.Helper()
	params, query := url.Values{}, url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		into := params
		if pairs[i] == "timestamp" || pairs[i] == "recvWindow" {
			into = query
		}
		into.Set(pairs[i], pairs[i+1])
	}
	if query.Get("timestamp") == "" {
		query.Set("timestamp", id(b.now().UnixMilli()))
	}
	body := ""
	if method == http.MethodGet {
		for k, v := range params {
			query[k] = v
		}
	} else {
		body = params.Encode()
	}
	return b.raw(method, path+"?"+query.Encode()+"&signature="+sign(query.Encode()+body), body, testKey)
}

// raw makes a call with what it is given. It gives up after a while, and follows nothing.
func (b *bench) raw(method, path, body, key string) said {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 300*time.Millisecond)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, b.url+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if key != "" {
		r.Header.Set("X-MBX-APIKEY", key)
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(r)
	if err != nil {
		return said{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return said{resp.StatusCode, resp.Header, string(text), err}
}

// closing sends an order at market that takes some off the position.
func (b *bench) closing(clientID, qty string, more ...string) said {
	b.t.Helper()
	return b.call("POST", "/fapi/v1/order", append([]string{
		"symbol", "BTCUSDT", "side", "SELL", "type", "MARKET", "reduceOnly", "true", "quantity", qty, "newClientOrderId", clientID, "newOrderRespType", "RESULT",
	}, more...)...)
}

func (b *bench) held(k ledger.Key) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return holdingOf(b.venue.Holdings(), k).Amount.String()
}

func (b *bench) arm(f Fault) {
	b.t.Helper()
	if err := b.Arm(f); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) verdict(granted map[string]ledger.Qty) {
	b.t.Helper()
	if wrong := b.Verdict(granted); len(wrong) > 0 {
		b.t.Errorf("verdict: %v", wrong)
	}
}

func gaveUp(err error) bool { return errors.Is(err, context.DeadlineExceeded) }
