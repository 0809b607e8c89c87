package binance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/ledger"
)

// fakeAccount is what the streams need of REST, as a test wants it.
type fakeAccount struct {
	names map[int64]string
	made  int
	make  func(n int) (string, error)
	kept  atomic.Int64
	keep  func(n int) error
}

func (a *fakeAccount) createListenKey(context.Context) (string, error) {
	a.made++
	return a.make(a.made)
}

func (a *fakeAccount) keepListenKey(context.Context, string) error {
	return a.keep(int(a.kept.Add(1)))
}

func (a *fakeAccount) learnOrder(_ string, id int64, name string) { a.names[id] = name }

func (a *fakeAccount) orderName(_ string, id int64) string { return a.names[id] }

// ear is an owner of streams, and what it emitted in short.
func ear(t *testing.T) (o *owner, said func(raw ...string) string, logged *strings.Builder) {
	t.Helper()
	logged = &strings.Builder{}
	a := &fakeAccount{names: map[int64]string{}}
	s := newStreams(streamOptions{account: a, now: time.Now, log: zerolog.New(logged)})
	k := &userKey{account: a}
	var all []string
	o = &owner{streams: s, memory: newMemory(), key: k, unheard: map[numbered]time.Time{}, emit: func(e exchange.StreamEvent) {
		switch {
		case e.Mark != nil:
			all = append(all, "mark "+e.Mark.Price.String())
		case e.Bar != nil:
			all = append(all, "bar "+e.Bar.Close.String())
		case e.Trade != nil:
			all = append(all, fmt.Sprint("trade ", e.Trade.ID, " of ", e.Trade.ClientOrderID))
		case e.Order != nil:
			all = append(all, fmt.Sprint("order ", e.Order.ClientOrderID, " ", e.Order.Status, " ", e.Order.Executed))
		case e.Changed != nil:
			all = append(all, "changed "+e.Changed.String())
		}
	}}
	line := k.newLine(nil, s.facts, nil)
	return o, func(raw ...string) string {
		all = nil
		for _, r := range raw {
			o.heard(heard{line: line, raw: []byte(r)})
		}
		return strings.Join(all, ", ")
	}, logged
}

func TestWhatIsEmitted(t *testing.T) {
	_, said, _ := ear(t)
	closed := strings.Replace(bar1, `"x":false`, `"x":true`, 1)
	late := strings.NewReplacer(`"x":"TRADE"`, `"x":"NEW"`, `"X":"FILLED"`, `"X":"NEW"`, `"z":"20"`, `"z":"0"`, `"t":19334107`, `"t":0`).Replace(filled)
	for _, c := range []struct {
		raw  []string
		want string
	}{
		{[]string{mark1}, "mark 11794.15"},
		{[]string{mark1, strings.Replace(mark1, "1562305380000", "1562305379000", 1)}, ""}, // Said before, and overtaken.
		{[]string{bar1}, ""},
		{[]string{closed, closed}, "bar 83860.2"},
		{[]string{lite}, "changed :"},
		{[]string{account1}, "changed BTCUSDT:BOTH"},
		{[]string{newOrder}, "order bot-1 NEW 0, changed SOLUSDT:SHORT"},
		{[]string{filled, filled, late}, "trade 19334107 of 10002, order 10002 FILLED 20, changed XRPUSDT:BOTH"},
		{[]string{algo, algo}, "order Q5xaq5EGKgXXa0fD7fs0Ip CANCELED 0, changed BNBUSDT:BOTH"},
		{[]string{strategy}, "changed :"},
		{[]string{`{"e":"ORDER_TRADE_UPDATE","o":{}}`, `nonsense`}, "changed :, changed :"},
	} {
		if got := said(c.raw...); got != c.want {
			t.Errorf("%s: %q, want %q", c.raw, got, c.want)
		}
	}
}

// The order that a stop became is the stop's, whatever client id the exchange gave it. Until that is known it is left to REST.
func TestAStopsOrderIsTheStops(t *testing.T) {
	stop := ledger.StopOrderID("00000000000000aa", 1, 1)
	triggered := strings.NewReplacer(`Q5xaq5EGKgXXa0fD7fs0Ip`, stop, `"X":"CANCELED"`, `"X":"TRIGGERED"`, `"ai":""`, `"ai":"246411433"`).Replace(algo)
	ofStop := strings.NewReplacer(`"ot":"LIMIT"`, `"ot":"STOP_MARKET"`, `"c":"10002"`, `"c":"electron_xyz"`, "XRPUSDT", "BNBUSDT").Replace(filled)
	for name, c := range map[string]struct {
		raw  []string
		want string
	}{
		"told before": {[]string{triggered, ofStop}, "changed BNBUSDT:BOTH, trade 19334107 of " + stop + ", order " + stop + " FILLED 20, changed BNBUSDT:BOTH"},
		"told after":  {[]string{ofStop, triggered}, "changed BNBUSDT:BOTH, changed BNBUSDT:BOTH"},
		"its own id":  {[]string{strings.Replace(ofStop, "electron_xyz", stop, 1)}, "trade 19334107 of " + stop + ", order " + stop + " FILLED 20, changed BNBUSDT:BOTH"},
	} {
		_, said, _ := ear(t)
		if got := said(c.raw...); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestAnOrderKeepsItsBirth(t *testing.T) {
	o, _, _ := ear(t)
	var births []time.Time
	o.emit = func(e exchange.StreamEvent) {
		if e.Order != nil {
			births = append(births, e.Order.CreatedAt)
		}
	}
	born := strings.NewReplacer(`"x":"TRADE"`, `"x":"NEW"`, `"X":"FILLED"`, `"X":"NEW"`, `"z":"20"`, `"z":"0"`, `"t":19334107`, `"t":0`, "1685466798560", "1685466798000").Replace(filled)
	for _, raw := range []string{born, filled} {
		o.heard(heard{line: o.key.newLine(nil, o.facts, nil), raw: []byte(raw)})
	}
	if len(births) != 2 || births[0].UnixMilli() != 1685466798000 || !births[1].Equal(births[0]) {
		t.Errorf("%v", births)
	}
}

// What was not understood is counted and shown, so often and so long as a log can bear, and without the listen key.
func TestWhatIsNotUnderstood(t *testing.T) {
	o, said, logged := ear(t)
	key := "WsCMN0a4KHUPTQuX6IUnqEZfB1inxmv1"
	o.key.current.Store(&key)
	for i := range 100 {
		said(fmt.Sprintf(`{"e":"NEW_TYPE_%d","listenKey":"%s","x":"%s"}`, i, key, strings.Repeat("y", 2000)), `{"e":"listenKeyExpired","E":`+key, strategy)
	}
	f := o.facts.read()
	if f.Unknown["STRATEGY_UPDATE"] != 100 || f.Unknown[otherTypes] != 100-typesKept+1 || len(f.Unknown) != typesKept+1 || f.Malformed != 100 {
		t.Errorf("%+v", f)
	}
	lines := strings.Count(logged.String(), "\n")
	if lines < typesKept || lines > 3*typesKept || len(logged.String()) > lines*(messageKept+400) || strings.Contains(logged.String(), key) {
		t.Errorf("%d lines of %d bytes; the key is shown: %v", lines, len(logged.String()), strings.Contains(logged.String(), key))
	}
}

// A trade that only REST knows proves the account stream silent, if it was up when the trade happened and had time to tell.
func TestWitness(t *testing.T) {
	trade := func(at time.Time) []ledger.Trade {
		return []ledger.Trade{{Key: ledger.Key{Symbol: "XRPUSDT", Side: ledger.Both}, ID: 19334107, At: at}}
	}
	for name, c := range map[string]struct {
		up, told bool
		age      time.Duration // of the connection, when the trade happened
		want     int64
	}{
		"silent":          {true, false, time.Minute, 1},
		"told in time":    {true, true, time.Minute, 0},
		"down":            {false, false, time.Minute, 0},
		"just connecting": {true, false, time.Second, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			o, said, _ := ear(t)
			o.heard(heard{line: o.key.line, up: c.up})
			wait(c.age)
			o.witness(trade(time.Now()))
			if c.told {
				wait(time.Second)
				said(filled)
			}
			if o.proof != nil {
				<-o.proof
				o.judge()
			}
			if got := o.facts.read().Silences; got != c.want || len(o.key.line.renew) != int(c.want) {
				t.Errorf("%s: %d proofs, %d renewals", name, got, len(o.key.line.renew))
			}
		})
	}
}

func TestTheKeyIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone atomic.Bool
		a := &fakeAccount{make: func(n int) (string, error) { return fmt.Sprint("key", n), nil }}
		k := &userKey{account: a, base: "ws://exchange"}
		l := k.newLine(nil, newFacts(), nil)
		a.keep = func(n int) error {
			switch {
			case gone.Load():
				return fmt.Errorf("keep: %w", errListenKeyGone)
			case n > 4:
				return errors.New("no answer")
			}
			return nil
		}
		if target, err := k.target(t.Context()); err != nil || target != "ws://exchange/private/ws?listenKey=key1&events=ORDER_TRADE_UPDATE/TRADE_LITE/ACCOUNT_UPDATE/ACCOUNT_CONFIG_UPDATE/MARGIN_CALL/ALGO_UPDATE" {
			t.Errorf("%q, %v", target, err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- k.keep(ctx) }()
		wait(time.Hour + time.Minute)
		if a.kept.Load() != 4 || len(l.renew) != 0 {
			t.Errorf("kept %d times in an hour, renewed %d", a.kept.Load(), len(l.renew))
		}
		wait(17 * time.Minute)
		if a.kept.Load() != 7 || len(l.renew) != 1 {
			t.Errorf("after three failures: asked %d times, renewed %d", a.kept.Load(), len(l.renew))
		}
		<-l.renew
		gone.Store(true)
		wait(14*time.Minute + 30*time.Second) // One attempt.
		if len(l.renew) != 1 {
			t.Error("a key that is gone is not renewed")
		}
		<-l.renew
		k.expired("another")
		if len(l.renew) != 0 {
			t.Error("the end of another key renews this one")
		}
		k.expired("key1")
		if len(l.renew) != 1 {
			t.Error("the end of the key does not renew it")
		}
		stop()
		<-done
	})
}

func TestARefusedKeyEndsTheStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fakeAccount{make: func(n int) (string, error) {
			if n == 3 {
				return "", errors.New("no answer")
			}
			return "", fmt.Errorf("create: %w", ErrKey)
		}}
		n := newMemNet()
		n.Close()
		s := newStreams(streamOptions{base: "ws://exchange", account: a, now: time.Now, dial: n.dial, log: zerolog.Nop()})
		err := s.run(t.Context(), func(exchange.StreamEvent) {})
		if !errors.Is(err, ErrKey) || a.made != refusalMax+1 {
			t.Errorf("%v after %d attempts", err, a.made)
		}
	})
}

// Before and after a gap of the account stream everything may have changed. A gap of the market's is nobody's business.
func TestAGapIsSaid(t *testing.T) {
	o, said, _ := ear(t)
	var keys []ledger.Key
	o.emit = func(e exchange.StreamEvent) { keys = append(keys, *e.Changed) }
	o.heard(heard{line: o.key.line, up: true})
	o.heard(heard{line: o.key.line})
	o.heard(heard{line: &line{name: marketLine}, up: true})
	o.heard(heard{line: &line{name: marketLine}})
	if len(keys) != 2 || keys[0] != (ledger.Key{}) || keys[1] != (ledger.Key{}) {
		t.Errorf("changed: %v", keys)
	}
	key := "another"
	for _, renewals := range []int{0, 1} {
		o.key.current.Store(&key)
		if said(expired); len(o.key.line.renew) != renewals {
			t.Errorf("the key is %s: %d renewals", key, len(o.key.line.renew))
		}
		key = "WsCMN0a4KHUPTQuX6IUnqEZfB1inxmv1qR4kbf1LuEjur5VdbzqvyxqG9TSjVVxv"
	}
}

// A price of the future is of now: judged by an exchange clock that we know a millisecond too early, it would be no price at all.
func TestAMarkIsNeverOfTheFuture(t *testing.T) {
	o, said, _ := ear(t)
	var at time.Time
	o.emit = func(e exchange.StreamEvent) { at = e.Mark.At }
	ahead := time.Now().Add(time.Hour)
	said(strings.Replace(mark1, "1562305380000", fmt.Sprint(ahead.UnixMilli()), 1))
	if at.IsZero() || at.After(time.Now()) {
		t.Errorf("a mark of %s is told as of %s", ahead, at)
	}
	at = time.Time{}
	<-time.After(5 * time.Millisecond)
	if said(strings.Replace(mark1, "1562305380000", fmt.Sprint(time.Now().UnixMilli()), 1)); at.IsZero() {
		t.Error("one mark of the future silences those after it")
	}
}
