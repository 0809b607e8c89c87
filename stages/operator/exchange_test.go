package operator

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func wellConnected() ExchangeView {
	at := time.Date(2026, 1, 25, 0, 26, 8, 0, time.UTC)
	up := StreamView{Connected: true, Since: at, LastEvent: at.Add(time.Minute)}
	return ExchangeView{Host: "h", ClockOffsetMS: 3.2, ClockUncertainMS: 2, WeightUsed: 40, WeightLimit: 2400, Account: up, Market: up}
}

func TestEachReasonOfSilenceIsSaidAlone(t *testing.T) {
	until := time.Date(2026, 1, 25, 1, 0, 0, 0, time.UTC)
	for want, spoil := range map[string]func(*ExchangeView){
		"": func(*ExchangeView) {},
		"it refuses this address until 2026-01-25 01:00:00 UTC, by its own word": func(v *ExchangeView) { v.PausedUntil, v.Banned = until, true },
		"named no end of that: we pause until 2026-01-25 01:00:00 UTC":           func(v *ExchangeView) { v.PausedUntil = until },
		"none is sent before 2026-01-25 01:00:00 UTC":                            func(v *ExchangeView) { v.NoOrdersUntil = until },
		"it refused the account or its key (-2015)":                              func(v *ExchangeView) { v.Refusal = "-2015" },
		"the last call had no answer (refused)":                                  func(v *ExchangeView) { v.Silence = "refused" },
		"its clock is known to ± 2.0 ms only":                                    func(v *ExchangeView) { v.ClockInDoubt = true },
		"the account stream is down (dial)":                                      func(v *ExchangeView) { v.Account = StreamView{LastError: "dial"} },
		"the market stream is down":                                              func(v *ExchangeView) { v.Market = StreamView{} },
	} {
		v := wellConnected()
		spoil(&v)
		if found := v.Problems(); (want == "") != (len(found) == 0) || len(found) > 1 || want != "" && !strings.Contains(found[0], want) {
			t.Errorf("%q, want %q alone", found, want)
		}
	}
}

func TestTheExchangeInALine(t *testing.T) {
	v := wellConnected()
	const line = "h, clock +3.2 ms ± 2.0 ms, weight 40 of 2400, account stream since 2026-01-25 00:26:08 UTC, last event 2026-01-25 00:27:08 UTC"
	if got := v.Summary(); got != line {
		t.Errorf("%s, want %s", got, line)
	}
	v.Account.Reconnects, v.UnknownEvents, v.MalformedEvents, v.Silences, v.Account.Connected = 2, 3, 4, 1, false
	if got := v.Summary(); !strings.Contains(got, "stream DOWN") || !strings.HasSuffix(got, ", reconnects 2, unknown events 3, malformed events 4, trades it left out 1") {
		t.Errorf("%s", got)
	}
}

func TestStatusAndWhySayHowTheExchangeIs(t *testing.T) {
	r := newRig(t)
	r.want(200, "GET", "/v1/status", "", `"exchange":null`)
	if text := r.want(200, "GET", "/v1/why", ""); strings.Contains(text, `"subject":"exchange"`) {
		t.Errorf("mode paper has no exchange to explain: %s", text)
	}
	v := wellConnected()
	v.Silence = "nobody there"
	r.Exchange = func() *ExchangeView { return &v }
	r.want(200, "GET", "/v1/status", "", `"exchange":{"host":"h","clock_offset_ms":3.2`, `"account_stream":{"connected":true`, `exchange: the last call had no answer (nobody there)`)
	r.want(200, "GET", "/v1/why?subject=BTCUSDT", "", `"subject":"BTCUSDT"`, `"subject":"exchange"`, "the last call had no answer (nobody there)")
	if !slices.Contains(v.explained().Lines, v.Summary()) {
		t.Error("why leaves out the line")
	}
}
