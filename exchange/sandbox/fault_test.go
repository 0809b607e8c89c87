package sandbox

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

func dropped(a said) bool {
	var netErr *net.OpError
	return errors.Is(a.err, io.EOF) || errors.Is(a.err, io.ErrUnexpectedEOF) || errors.As(a.err, &netErr)
}

func is(status int, code int64, text string) func(said) bool {
	return func(a said) bool {
		return a.err == nil && a.status == status && a.code() == code && strings.Contains(a.text, text)
	}
}

// seen is what a client sees of each answer that is not what happened.
func seen() map[Kind]func(said) bool {
	return map[Kind]func(said) bool{
		Closed:     dropped,
		Hang:       func(a said) bool { return gaveUp(a.err) },
		Unknown503: is(503, 0, "Unknown error, please check"),
		Internal:   is(503, -1001, "Internal error"),
		Timeout408: is(408, -1007, "Timeout"),
		BadGateway: is(502, 0, "<html>"),
		Error500:   is(500, 0, "Request occur unknown error."),
		Code1000:   is(400, -1000, "unknown error"),
		Code1006:   is(400, -1006, "Execution status unknown"),
		Code1007:   is(400, -1007, "execution status unknown"),
		Truncated:  func(a said) bool { return a.err == nil && a.status == 200 && !strings.HasSuffix(a.text, "}") },
		Cut:        func(a said) bool { return a.status == 200 && dropped(a) },
		Empty:      func(a said) bool { return a.err == nil && a.status == 200 && a.text == "" },
		Code200:    is(200, -1000, "unknown error"),
		Redirect:   func(a said) bool { return a.status == 307 && a.header.Get("Location") != "" },
		SlowBody:   func(a said) bool { return a.status == 200 && gaveUp(a.err) },
		SlowAnswer: func(a said) bool { return gaveUp(a.err) },
	}
}

func TestLostAnswers(t *testing.T) {
	cells := 0
	for kind, sees := range seen() {
		for _, unexecuted := range []bool{false, true} {
			b := newBench(t, Options{})
			b.arm(Fault{Kind: kind, Call: "POST /fapi/v1/order", Unexecuted: unexecuted})
			got := b.closing("pc-1", "0.01")
			if !sees(got) {
				t.Errorf("%s (unexecuted %v): %d %q %v", kind, unexecuted, got.status, got.text, got.err)
			}
			want, code := "0.036", int64(0)
			if unexecuted {
				want, code = "0.046", -2013
			}
			if held := b.held(btc); held != want {
				t.Errorf("%s (unexecuted %v): %s is held", kind, unexecuted, held)
			}
			if found := b.call("GET", "/fapi/v1/order", "symbol", "BTCUSDT", "origClientOrderId", "pc-1"); found.code() != code {
				t.Errorf("%s (unexecuted %v): looked up: %s", kind, unexecuted, found.text)
			}
			if log := b.Log(); len(log) != 1 || log[0].Fault != kind || log[0].EngineAt.IsZero() != unexecuted || log[0].ClientID != "pc-1" {
				t.Errorf("%s (unexecuted %v): log %+v", kind, unexecuted, log)
			}
			b.verdict(map[string]ledger.Qty{"pc-1": ledger.MustQty("0.01")})
			cells++
		}
		// Every call can meet it, and it is over after one.
		b := newBench(t, Options{})
		b.arm(Fault{Kind: kind})
		if got := b.call("GET", "/fapi/v3/positionRisk"); kind != Truncated && !sees(got) {
			t.Errorf("%s of a query: %d %q %v", kind, got.status, got.text, got.err)
		}
		if got := b.call("GET", "/fapi/v3/positionRisk"); got.status != 200 || got.err != nil || len(b.Armed()) != 0 {
			t.Errorf("%s a second time: %d %v, armed %v", kind, got.status, got.err, b.Armed())
		}
	}
	if cells != 2*len(Kinds(OnAnswer)) {
		t.Errorf("%d cells for %d kinds", cells, len(Kinds(OnAnswer)))
	}
}

func TestRefusals(t *testing.T) {
	sees := map[Kind]func(said) bool{
		Unavailable: is(503, 0, "Service Unavailable."),
		Throttled:   is(503, -1008, "throttled"),
		TooMany:     func(a said) bool { return is(429, -1003, "")(a) && a.header.Get("Retry-After") == "3" },
		TooManyBare: func(a said) bool { return is(429, -1003, "")(a) && a.header.Get("Retry-After") == "" },
		Banned:      func(a said) bool { return is(418, -1003, "banned until")(a) && a.header.Get("Retry-After") == "120" },
		WAF:         is(403, 0, "<html>"),
		KeyGone:     is(401, -2015, ""),
		ClockSaid:   is(400, -1021, "recvWindow"),
		HighWeight:  func(a said) bool { return a.status == 200 && a.header.Get("X-MBX-USED-WEIGHT-1M") == "2390" },
	}
	for kind, sees := range sees {
		b := newBench(t, Options{})
		b.arm(Fault{Kind: kind, Call: "POST /fapi/v1/order"})
		if got := b.closing("pc-1", "0.01"); !sees(got) {
			t.Errorf("%s: %d %v %q %v", kind, got.status, got.header, got.text, got.err)
		}
		if held := b.held(btc); (held != "0.046") != (kind == HighWeight) {
			t.Errorf("%s: %s is held", kind, held)
		}
		if got := b.call("GET", "/fapi/v1/accountConfig"); (got.status == 418) != (kind == Banned) {
			t.Errorf("after %s: %d %s", kind, got.status, got.text)
		}
	}
	if refusals := Kinds(OnCall); len(refusals) != len(sees) {
		t.Errorf("%d of %d refusals are tried", len(sees), len(refusals))
	}
}

func TestOrdersThatAreLate(t *testing.T) {
	b := newBench(t, Options{})
	find := func() said { return b.call("GET", "/fapi/v1/order", "symbol", "BTCUSDT", "origClientOrderId", "pc-1") }
	b.arm(Fault{Kind: Late, For: 3 * time.Second})
	if got := b.closing("pc-1", "0.01"); !dropped(got) {
		t.Errorf("the answer came: %s", got.text)
	}
	b.pass(2 * time.Second)
	if got := find(); got.code() != -2013 || b.held(btc) != "0.046" {
		t.Errorf("before it landed: %s", got.text)
	}
	b.pass(time.Second)
	if got := find(); got.field("executedQty") != "0.010" || b.held(btc) != "0.036" || got.field("time") != id(b.now().UnixMilli()) {
		t.Errorf("after it landed: %s", got.text)
	}
	b.arm(Fault{Kind: TooLate})
	if got := b.closing("pc-2", "0.01", "recvWindow", "2000"); !dropped(got) {
		t.Errorf("the answer came: %s", got.text)
	}
	b.pass(time.Minute)
	if log := b.Log(); b.held(btc) != "0.036" || log[1].Code != -5028 || log[1].EngineAt.Sub(log[1].SignedAt) <= 2*time.Second {
		t.Errorf("%s is held, log %+v", b.held(btc), log)
	}
	b.verdict(map[string]ledger.Qty{"pc-1": ledger.MustQty("0.01")})
}

func TestWhatTheEngineDoes(t *testing.T) {
	for kind, c := range map[Kind]struct {
		fault  Fault
		code   int64
		status string
		held   string // right after it
		later  string // after the next price
	}{
		Twin:      {Fault{}, -4116, "", "*", "0.036"},
		PartOnly:  {Fault{Qty: ledger.MustQty("0.004")}, 0, "EXPIRED", "0.042", "0.042"},
		FlatFirst: {Fault{}, -2022, "", "0", "0"},
		LessFirst: {Fault{Qty: ledger.MustQty("0.04")}, 0, "FILLED", "0", "0"},
		RestFirst: {Fault{}, -4118, "", "0.046", "0.046"},
		Reopened:  {Fault{}, 0, "FILLED", "0.036", "0.036"},
	} {
		b := newBench(t, Options{})
		c.fault.Kind = kind
		b.arm(c.fault)
		got := b.closing("pc-1", "0.01")
		if got.code() != c.code || got.field("status") != c.status || (c.held != "*" && b.held(btc) != c.held) {
			t.Errorf("%s: %s, %s is held", kind, got.text, b.held(btc))
		}
		b.pass(time.Second)
		if b.held(btc) != c.later {
			t.Errorf("%s: a second later %s is held, want %s", kind, b.held(btc), c.later)
		}
		if kind == RestFirst {
			if open := b.call("GET", "/fapi/v1/openOrders").rows(t); len(open) != 1 || open[0]["reduceOnly"] != true {
				t.Errorf("open: %v", open)
			}
		}
		b.verdict(map[string]ledger.Qty{"pc-1": ledger.MustQty("0.01")})
	}
	// What a fault brings with it goes with it.
	for _, kind := range []Kind{Twin, PartOnly} {
		b := newBench(t, Options{Odds: venue.Odds{Split: 1}, Positions: map[ledger.Key]ledger.Qty{btc: ledger.MustQty("10")}})
		b.arm(Fault{Kind: kind})
		b.closing("pc-1", "1")
		b.pass(time.Second)
		if got := b.closing("pc-2", "2"); got.field("status") != "FILLED" || len(b.call("GET", "/fapi/v1/userTrades", "symbol", "BTCUSDT", "orderId", got.field("orderId")).rows(t)) < 2 {
			t.Errorf("the order after %s: %s", kind, got.text)
		}
	}
	b := newBench(t, Options{})
	b.arm(Fault{Kind: Reopened})
	if got := b.closing("pc-1", "0.046"); got.field("status") != "FILLED" || b.held(btc) != "0.046" {
		t.Errorf("opened again: %s, %s is held", got.text, b.held(btc))
	}
	b.arm(Fault{Kind: PartOnly})
	if got := b.closing("pc-2", "0.001"); got.field("status") != "EXPIRED" || got.field("executedQty") != "0.000" {
		t.Errorf("half of a step: %s", got.text)
	}
	b.verdict(map[string]ledger.Qty{"pc-1": ledger.MustQty("0.046")})
}

func TestWhatQueriesTell(t *testing.T) {
	b := newBench(t, Options{})
	b.arm(Fault{Kind: LookupLag, Times: -1})
	b.arm(Fault{Kind: TradesLag, Times: -1, For: 3 * time.Second})
	b.arm(Fault{Kind: PositionLag, Times: -1, For: 2 * time.Second})
	b.closing("pc-1", "0.046")
	for second := range 8 {
		found := b.call("GET", "/fapi/v1/order", "symbol", "BTCUSDT", "origClientOrderId", "pc-1").status == 200
		listed := b.call("GET", "/fapi/v1/allOrders", "symbol", "BTCUSDT").text != "[]"
		traded := b.call("GET", "/fapi/v1/userTrades", "symbol", "BTCUSDT").text != "[]"
		flat := b.call("GET", "/fapi/v3/positionRisk").text == "[]"
		if found != (second >= 5) || listed != (second >= 5) || traded != (second >= 3) || flat != (second >= 2) {
			t.Errorf("second %d: order found %v, listed %v, traded %v, flat %v", second, found, listed, traded, flat)
		}
		b.pass(time.Second)
	}
	b.Disarm()
	for _, q := range []string{"", "0.046"} {
		f := Fault{Kind: Namesake}
		if q != "" {
			f.Qty = ledger.MustQty(q)
		}
		b.arm(f)
		got := b.call("GET", "/fapi/v1/order", "symbol", "BTCUSDT", "origClientOrderId", "pc-2")
		if got.status != 200 || got.field("time") != id(b.now().Add(-time.Hour).UnixMilli()) || (got.field("executedQty") == "0.046") != (q != "") {
			t.Errorf("namesake %q: %s", q, got.text)
		}
	}
}

func TestWhatOthersDo(t *testing.T) {
	for kind, c := range map[Kind]struct {
		qty, held, by string
	}{
		HandTrade: {"", "0.023", "web_"}, Liquidate: {"", "0", "autoclose-"}, ADL: {"0.01", "0.036", "adl_autoclose"}, ModeFlip: {"", "0", "web_"},
	} {
		b := newBench(t, Options{})
		f := Fault{Kind: kind, Call: "GET /fapi/v1/accountConfig"}
		if c.qty != "" {
			f.Qty = ledger.MustQty(c.qty)
		}
		b.arm(f)
		b.call("GET", "/fapi/v3/positionRisk")
		if b.held(btc) != "0.046" {
			t.Errorf("%s happened at another call", kind)
		}
		hedge := b.call("GET", "/fapi/v1/accountConfig").field("dualSidePosition") == "true"
		if b.held(btc) != c.held || hedge != (kind == ModeFlip) {
			t.Errorf("%s: %s is held, hedge %v", kind, b.held(btc), hedge)
		}
		b.mu.Lock()
		for _, fill := range b.account.fills["BTCUSDT"] {
			if !strings.HasPrefix(fill.ClientOrderID, c.by) {
				t.Errorf("%s is done by %s", kind, fill.ClientOrderID)
			}
		}
		b.mu.Unlock()
		b.verdict(nil)
	}
}

func TestFaultsAreArmedByCallSkipTimesAndTime(t *testing.T) {
	b := newBench(t, Options{})
	status := func() int { return b.call("GET", "/fapi/v1/accountConfig").status }
	b.arm(Fault{Kind: BadGateway, Call: "GET /fapi/v1/accountConfig", Skip: 2, Times: 2})
	b.raw("GET", "/fapi/v1/ping", "", "")
	var got []int
	for range 6 {
		got = append(got, status())
	}
	if !slices.Equal(got, []int{200, 200, 502, 502, 200, 200}) {
		t.Errorf("skip 2, times 2: %v", got)
	}
	b.arm(Fault{Kind: BadGateway, Times: -1, Lasts: 10 * time.Second})
	b.clock.Add(9999)
	first := status()
	b.clock.Add(1)
	if second := status(); first != 502 || second != 200 {
		t.Errorf("just before its time is over %d, then %d", first, second)
	}
	if struck := b.Struck()[BadGateway]; struck != 3 {
		t.Errorf("it struck %d times", struck)
	}
	if err := b.Arm(Fault{Kind: "no such thing"}); err == nil {
		t.Error("an unknown kind is armed")
	}
}

func TestFaultsBySeed(t *testing.T) {
	run := func(seed uint64) (all []int) {
		hostile, err := Preset("hostile")
		if err != nil {
			t.Fatal(err)
		}
		delete(hostile, Hang)
		delete(hostile, SlowAnswer)
		delete(hostile, SlowBody)
		b := newBench(t, Options{Seed: seed, Faults: hostile, Weight: 1 << 20})
		for range 300 {
			all = append(all, b.call("GET", "/fapi/v1/accountConfig").status)
		}
		return all
	}
	one, again, other := run(1), run(1), run(2)
	faults := 0
	for _, s := range one {
		if s != 200 {
			faults++
		}
	}
	if !slices.Equal(one, again) || slices.Equal(one, other) || faults < 5 || faults > 60 {
		t.Errorf("%d faults in 300 calls; the same seed gives the same: %v, another another: %v", faults, slices.Equal(one, again), !slices.Equal(one, other))
	}
	for _, name := range []string{"none", "calm"} {
		if _, err := Preset(name); err != nil {
			t.Error(err)
		}
	}
	if _, err := Preset("mild"); err == nil {
		t.Error("an unknown profile")
	}
}
