package binance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

func answered(g *budget, header map[string]string, e *Error) {
	h := http.Header{}
	for k, v := range header {
		h.Set(k, v)
	}
	g.learn(&call{header: h}, e)
}

func TestBan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limited := func(message string) *Error { return &Error{Status: 429, Code: -1003, Message: message} }
		order, query := &call{order: true}, &call{weight: 5, essential: true}
		for name, c := range map[string]struct {
			header map[string]string
			e      []*Error
			orders time.Duration
			others time.Duration
		}{
			"Retry-After":     {map[string]string{"Retry-After": "7"}, []*Error{limited("")}, 7 * time.Second, 7 * time.Second},
			"the text":        {nil, []*Error{limited("IP banned until 90s. Please")}, 90 * time.Second, 90 * time.Second},
			"the later":       {map[string]string{"Retry-After": "100"}, []*Error{limited("banned until 90s")}, 100 * time.Second, 100 * time.Second},
			"nothing":         {nil, []*Error{limited("")}, time.Minute, time.Minute},
			"at once":         {nil, []*Error{limited(""), limited(""), limited(""), limited(""), limited(""), limited(""), limited("")}, time.Minute, time.Minute},
			"in the past":     {nil, []*Error{limited("banned until 900000000000")}, time.Minute, time.Minute},
			"nonsense":        {map[string]string{"Retry-After": "-1"}, []*Error{limited("")}, time.Minute, time.Minute},
			"for ever":        {nil, []*Error{limited("banned until 9999999999999")}, banMost, banMost},
			"teapot":          {nil, []*Error{{Status: 418}}, time.Minute, time.Minute},
			"firewall":        {nil, []*Error{{Status: 403}}, time.Minute, time.Minute},
			"too many orders": {nil, []*Error{{Status: 429, Code: -1015}}, ordersPaused, 0},
			"no rate limit":   {map[string]string{"Retry-After": "9"}, []*Error{{Status: 503, Code: -1008}}, 0, 0},
		} {
			g := newBudget(time.Now)
			for _, e := range c.e {
				e.Message = strings.Replace(e.Message, "90s", strconv.FormatInt(time.Now().Add(90*time.Second).UnixMilli(), 10), 1)
				answered(g, c.header, e)
			}
			if h := g.health(); h.Banned != slices.Contains([]string{"Retry-After", "the text", "the later", "for ever"}, name) {
				t.Errorf("%s: that the exchange named the end is %v", name, h.Banned)
			}
			begun := time.Now()
			for what, want := range map[*call]time.Duration{order: c.orders, query: c.others} {
				if want > 0 {
					// The last instant of a ban. Nothing waits for its end.
					<-time.After(time.Until(begun.Add(want - time.Millisecond)))
					if err := g.take(context.Background(), what, time.Hour); !errors.Is(err, ErrLimited) {
						t.Errorf("%s: order %t after %s: %v", name, what.order, time.Since(begun), err)
					}
				}
			}
			<-time.After(time.Until(begun.Add(max(c.orders, c.others))))
			for _, what := range []*call{order, query} {
				if err := g.take(context.Background(), what, time.Hour); err != nil {
					t.Errorf("%s: order %t after the ban: %v", name, what.order, err)
				}
			}
		}
		g := newBudget(time.Now)
		answered(g, nil, limited(""))
		<-time.After(time.Minute)
		answered(g, nil, nil)
		answered(g, nil, limited(""))
		if until := g.health().PausedUntil; until.Sub(time.Now()) != time.Minute {
			t.Errorf("after a success a ban lasts until %s", until)
		}
		for _, want := range []time.Duration{2 * time.Minute, 4 * time.Minute} { // The next request after each ban is refused, too.
			<-time.After(time.Until(g.health().PausedUntil))
			answered(g, nil, limited(""))
			if until := g.health().PausedUntil; until.Sub(time.Now()) != want {
				t.Errorf("refused again, a ban lasts %s, not %s", time.Until(until), want)
			}
		}
	})
}

// A minute holds no more than the limit, whatever is asked for; closes get the share that nothing else may use.
func TestWeight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newBudget(time.Now)
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		spend := func(essential bool, seconds time.Duration) int {
			spent, end := 0, time.Now().Add(seconds)
			for time.Now().Before(end) {
				if err := g.take(ctx, &call{weight: 5, essential: essential}, time.Minute); err != nil {
					t.Fatal(err)
				}
				spent += 5
			}
			return spent
		}
		if n := spend(false, time.Minute); n > weightFirst*(shareRest+shareBurst)/100+10 || n < weightFirst*shareRest/100 {
			t.Errorf("what is not essential spent %d in a minute", n)
		}
		if err := g.take(ctx, &call{weight: 40}, time.Second); !errors.Is(err, ErrLimited) {
			t.Errorf("what is not essential got more: %v", err)
		}
		begun := time.Now()
		if err := g.take(ctx, &call{weight: 40, essential: true}, time.Second); err != nil || time.Since(begun) != 0 {
			t.Errorf("a close waited %s: %v", time.Since(begun), err)
		}
		<-time.After(time.Hour)
		if n := spend(true, time.Minute); n > weightFirst || n < weightFirst*shareAll/100 {
			t.Errorf("closes spent %d in a minute", n)
		}
		begun = time.Now()
		if err := g.take(ctx, &call{weight: 200, essential: true}, time.Second); !errors.Is(err, ErrLimited) || time.Since(begun) != 0 {
			t.Errorf("what cannot be had in time: %v after %s", err, time.Since(begun))
		}
		if err := g.take(ctx, &call{order: true}, time.Second); err != nil {
			t.Errorf("an order, which weighs nothing: %v", err)
		}
	})
}

// The exchange's count is of all that this address does.
func TestWeightThatOthersUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newBudget(time.Now)
		<-time.After(10 * time.Second)
		try := func(essential bool) error {
			return g.take(context.Background(), &call{weight: 5, essential: essential}, time.Second)
		}
		for _, c := range []struct {
			used            int
			others, closing bool
		}{{100, true, true}, {1915, true, true}, {1916, false, true}, {2275, false, true}, {2276, false, false}, {9000, false, false}} {
			answered(g, map[string]string{"X-Mbx-Used-Weight-1m": strconv.Itoa(c.used)}, nil)
			if others, closing := try(false), try(true); (others == nil) != c.others || (closing == nil) != c.closing {
				t.Errorf("at %d: %v and %v", c.used, others, closing)
			}
			if h := g.health(); h.UsedWeight != c.used || h.WeightLimit != 2400 {
				t.Errorf("at %d: %+v", c.used, h)
			}
		}
		<-time.After(50 * time.Second) // The next minute counts from 0.
		if err := try(false); err != nil || g.health().UsedWeight != 0 {
			t.Errorf("in the next minute: %v", err)
		}
		g.setLimit(6000)
		answered(g, map[string]string{"X-Mbx-Used-Weight-1m": "2500", "X-Mbx-Order-Count-10s": "3", "X-Mbx-Order-Count-1m": "4"}, nil)
		if err := try(false); err != nil || g.health().OrderCount != "3/10s 4/1m" {
			t.Errorf("with the demo's limit: %v, %+v", err, g.health())
		}
	})
}

// The errors say what to wait for.
func TestBudgetSaysWhy(t *testing.T) {
	g := newBudget(time.Now)
	g.banned = time.Now().Add(time.Hour)
	if err := g.take(context.Background(), &call{}, time.Second); err == nil || !strings.Contains(err.Error(), g.banned.Format(time.RFC3339)) {
		t.Error(err)
	}
}

// TestOpenWaitsForTheEndOfABan: only where it may, and without a request meanwhile; ctx ends it.
func TestOpenWaitsForTheEndOfABan(t *testing.T) {
	f := newFake(t)
	var banned atomic.Bool
	f.on("GET /fapi/v1/time", func(w http.ResponseWriter, _ *http.Request) {
		if banned.Load() {
			w.Header().Set("Retry-After", "2")
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprint(w, `{"code":-1003,"msg":"Way too many requests; IP banned."}`)
			return
		}
		fmt.Fprintf(w, `{"serverTime":%d}`, time.Now().UnixMilli())
	})
	open := func(ctx context.Context, patience time.Duration) (requests int, took time.Duration, told string, err error) {
		var log strings.Builder
		before, _ := f.times("GET /fapi/v1/time")
		begun := time.Now()
		b, err := Open(ctx, Options{
			RESTURL: f.server.URL, StreamURL: "ws://127.0.0.1:1", Credentials: testCredentials(t), RecvWindow: time.Second, Timeout: time.Second,
			Symbols: []string{"BTCUSDT"}, Bar: time.Minute, Patience: patience, Log: zerolog.New(&log),
		})
		if err == nil {
			err = b.Close()
		}
		after, _ := f.times("GET /fapi/v1/time")
		return after - before, time.Since(begun), log.String(), err
	}
	banned.Store(true)
	if n, took, told, err := open(t.Context(), 0); !errors.Is(err, ErrLimited) || n != 1 || took > time.Second || told != "" {
		t.Errorf("without patience: %v after %s and %d requests, told %s", err, took, n, told)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if n, took, told, err := open(ctx, time.Hour); !errors.Is(err, ErrLimited) || n != 1 || took > time.Second || strings.Count(told, "limits this address") != 1 {
		t.Errorf("stopped: %v after %s and %d requests, told %s", err, took, n, told)
	}
	time.AfterFunc(time.Second, func() { banned.Store(false) })
	if n, took, told, err := open(t.Context(), time.Hour); err != nil || n != 1+clockProbes || took < 1900*time.Millisecond || strings.Count(told, "limits this address") != 1 {
		t.Errorf("with patience: %v after %s and %d requests, told %s", err, took, n, told)
	}
}
