package binance

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// Why the exchange is silent is known as long as it lasts, and is returned, not logged as well.
func TestHealthSaysWhyTheExchangeIsSilent(t *testing.T) {
	f := newFake(t)
	var logged bytes.Buffer
	b := f.open(func(o *Options) { o.Log = zerolog.New(&logged) })
	if h := b.Health(); h.Refusal+h.Silence != "" || !h.PausedUntil.IsZero() || h.ClockInDoubt {
		t.Fatalf("from the start %+v", h)
	}
	f.says("GET /fapi/v1/accountConfig", 401, `{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}`)
	if _, err := b.account(t.Context()); err == nil || !strings.Contains(b.Health().Refusal, "code -2015: Invalid API-key") {
		t.Errorf("a refused key: %v, %+v", err, b.Health())
	}
	if logged.Len() > 0 {
		t.Errorf("logged and returned: %s", logged.String())
	}
	if err := b.measure(t.Context()); err != nil || b.Health().Refusal == "" {
		t.Errorf("a call without a key takes the refusal back: %v", err)
	}
	f.says("GET /fapi/v1/accountConfig", 200, bodyConfig)
	if _, err := b.account(t.Context()); err != nil || b.Health().Refusal != "" {
		t.Errorf("the key is taken again: %v, %q", err, b.Health().Refusal)
	}
	there := b.opt.RESTURL
	b.opt.RESTURL = "http://127.0.0.1:1"
	if _, err := b.account(t.Context()); err == nil || !strings.Contains(b.Health().Silence, "connection refused") {
		t.Errorf("nobody there: %v, %q", err, b.Health().Silence)
	}
	b.opt.RESTURL = there
	given, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.account(t.Context()); err != nil || b.Health().Silence != "" {
		t.Errorf("somebody there: %v, %q", err, b.Health().Silence)
	}
	if _, err := b.account(given); err == nil || b.Health().Silence != "" {
		t.Errorf("a call that was given up: %v, %q", err, b.Health().Silence)
	}
	b.reading.Store(&reading{time.Now(), time.Now(), time.Second})
	if h := b.Health(); !h.ClockInDoubt {
		t.Errorf("a clock known to ± %s is in no doubt", h.Uncertainty)
	}
}

// An answer that is not what was asked for is shown, as far as it takes to see what it is.
func TestAnAnswerOfAnotherKindIsShown(t *testing.T) {
	for body, want := range map[string]string{
		"":                       "not what was asked for: it is empty",
		"  \n":                   "not what was asked for: it is empty",
		`{"code":200,"msg":""}`:  `not what was asked for: {"code":200,"msg":""}`,
		`{"listenKey":"pqia91m"`: `not what was asked for: {"listenKey":"…"`,
		`{"a":"é` + strings.Repeat("x", 90) + `"}`:        `not what was asked for: {"a":"é` + strings.Repeat("x", 53) + "…",
		`{"code":-1000,"msg":"An unknown error occured"}`: "not what was asked for: An unknown error occured", //nolint:misspell // Its own spelling.
	} {
		c := &call{what: "GET /x", list: true, status: 200, whole: true, body: []byte(body)}
		c.reached.Store(true)
		if e := c.outcome(nil); e == nil || !strings.HasSuffix(e.Error(), want) {
			t.Errorf("%s: %v, want %s", body, e, want)
		}
	}
}
