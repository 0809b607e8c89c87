package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// post is a sandbox whose sockets are listened to.
type post struct {
	t *testing.T
	*Sandbox
	wire *Wire
}

func inPost(t *testing.T, fn func(p *post)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &post{t, New(Options{
			Seed: 3, Symbols: []string{"BTCUSDT"}, Positions: map[ledger.Key]ledger.Qty{{Symbol: "BTCUSDT", Side: ledger.Both}: ledger.MustQty("5")},
			Key: "a-key-of-some-length", Secret: "a-secret-of-some-length",
		}), NewWire()}
		ctx, stop := context.WithCancel(t.Context())
		go p.Run(ctx)
		web := &http.Server{Handler: p.Handler(), BaseContext: func(net.Listener) context.Context { return ctx }}
		go web.Serve(p.wire)
		fn(p)
		stop()
		p.wire.Close()
		synctest.Wait()
		web.Close()
	})
}

func (p *post) key() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.openListenKey(p.now())
}

// listener is one connection, and all that was said on it.
type listener struct {
	said  []map[string]json.RawMessage
	kinds []string
	pings []time.Duration
	ended time.Duration
	err   error
	done  chan struct{}
}

// listen connects to an address, and collects until the connection ends.
func (p *post) listen(path string) *listener {
	p.t.Helper()
	d := websocket.Dialer{NetDialContext: p.wire.Dial}
	c, a, err := d.Dial("ws://exchange"+path, nil)
	if err != nil {
		p.t.Fatalf("connect to %s: %v %v", path, a, err)
	}
	l, begin := &listener{done: make(chan struct{})}, time.Now()
	pong := c.PingHandler()
	c.SetPingHandler(func(s string) error { l.pings = append(l.pings, time.Since(begin)); return pong(s) })
	go func() {
		defer close(l.done)
		defer c.Close()
		for {
			_, raw, err := c.ReadMessage()
			if err != nil {
				l.ended, l.err = time.Since(begin), err
				return
			}
			var m map[string]json.RawMessage
			if err := json.Unmarshal(raw, &m); err != nil {
				p.t.Errorf("%s: %v", raw, err)
			}
			kind := strings.Trim(string(m["e"]), `"`)
			if kind == "" {
				kind = strings.Trim(string(m["stream"]), `"`)
			}
			l.said, l.kinds = append(l.said, m), append(l.kinds, kind)
		}
	}()
	return l
}

func (p *post) private(events string) *listener {
	return p.listen("/private/ws?listenKey=" + p.key() + "&events=" + events)
}

const allEvents = "ORDER_TRADE_UPDATE/TRADE_LITE/ACCOUNT_UPDATE/ACCOUNT_CONFIG_UPDATE/MARGIN_CALL/ALGO_UPDATE"

func (p *post) trade(q string) {
	p.t.Helper()
	err := p.Do(func(v *venue.Venue, now time.Time) (venue.Change, error) {
		return v.Trade(now, ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}, ledger.MustQty(q))
	})
	if err != nil {
		p.t.Error(err)
	}
	synctest.Wait()
}

func (l *listener) is(t *testing.T, what, kinds string) {
	t.Helper()
	if got := strings.Join(l.kinds, " "); got != kinds {
		t.Errorf("%s: %q, want %q", what, got, kinds)
	}
}

func pass(d time.Duration) { <-time.After(d); synctest.Wait() }

// What is routed wrong is accepted, and silent.
func TestAddresses(t *testing.T) {
	inPost(t, func(p *post) {
		key := p.key()
		for path, talks := range map[string]bool{
			"/private/ws?listenKey=" + key + "&events=" + allEvents:     true,
			"/private/stream?listenKey=" + key + "&events=" + allEvents: true,
			"/private/ws?listenKey=" + key:                              false,
			"/private/ws/" + key + "?events=" + allEvents:               false,
			"/private/ws?listenKey=bad&events=" + allEvents:             false,
			"/ws/" + key:                              false,
			"/ws?listenKey=" + key:                    false,
			"/stream?streams=btcusdt@markPrice@1s":    false,
			"/ws/btcusdt@markPrice@1s":                false,
			"/public/ws/btcusdt@markPrice@1s":         false,
			"/market/ws/btcusdt@markPrice@1s":         true,
			"/market/ws/BTCUSDT@markPrice@1s":         false,
			"/market/stream?streams=btcusdt@kline_1m": true,
		} {
			l := p.listen(path)
			pass(5 * time.Second)
			p.trade("0.1")
			if got := len(l.said) > 0; got != talks {
				t.Errorf("%s talks: %v", path, got)
			}
		}
	})
}

func TestOnlyTheEventsAskedFor(t *testing.T) {
	inPost(t, func(p *post) {
		all, some := p.private(allEvents), p.private("ACCOUNT_UPDATE")
		p.trade("-0.1")
		all.is(t, "all", "ORDER_TRADE_UPDATE ORDER_TRADE_UPDATE TRADE_LITE ACCOUNT_UPDATE")
		some.is(t, "some", "ACCOUNT_UPDATE")
		// The names of Binance's own, in its order.
		for i, names := range []string{
			"s c S o f q p ap sp x X i l z L n N T t b a m R wt ot ps cp rp pP si ss V pm gtd er",
			"s c S o f q p ap sp x X i l z L n N T t b a m R wt ot ps cp rp pP si ss V pm gtd er",
		} {
			d := json.NewDecoder(strings.NewReader(string(all.said[i]["o"])))
			var got []string
			for n := -1; ; n++ {
				token, err := d.Token()
				if err != nil || token == json.Delim('}') {
					break
				}
				if n%2 == 0 {
					got = append(got, fmt.Sprint(token))
				}
			}
			if strings.Join(got, " ") != names {
				t.Errorf("event %d has %v", i, got)
			}
		}
		if o := string(all.said[1]["o"]); !strings.Contains(o, `"x":"TRADE","X":"FILLED"`) || !strings.Contains(o, `"l":"0.1","z":"0.1"`) {
			t.Errorf("%s", o)
		}
		if a := string(all.said[3]["a"]); !strings.Contains(a, `"pa":"4.9"`) {
			t.Errorf("%s", a)
		}
	})
}

func TestPricesAndBars(t *testing.T) {
	inPost(t, func(p *post) {
		each, third, bars := p.listen("/market/ws/btcusdt@markPrice@1s"), p.listen("/market/ws/btcusdt@markPrice"), p.listen("/market/stream?streams=btcusdt@kline_1m")
		pass(10 * time.Minute)
		closed := 0
		for _, m := range bars.said {
			if strings.Contains(string(m["data"]), `"x":true`) {
				closed++
			}
		}
		if n := len(each.said); n < 599 || n > 602 || len(third.said) < 199 || len(third.said) > 202 || closed != 10 || len(bars.said) < 60 {
			t.Errorf("%d, %d, %d closed of %d", n, len(third.said), closed, len(bars.said))
		}
	})
}

func TestStopsAndLiquidations(t *testing.T) {
	inPost(t, func(p *post) {
		l := p.private(allEvents)
		k := ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}
		do := func(fn func(v *venue.Venue, now time.Time) (venue.Change, error)) {
			t.Helper()
			if err := p.Do(fn); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		do(func(v *venue.Venue, now time.Time) (venue.Change, error) {
			trigger := v.Price("BTCUSDT").Sub(ledger.MustPrice("1000")).FloorTo(ledger.MustPrice("0.1"))
			return v.Place(now, venue.Request{ClientOrderID: "pc-00000000000000aa-s1-1", Symbol: k.Symbol, Direction: ledger.Sell, Qty: ledger.MustQty("1"), ReduceOnly: true, Trigger: trigger, SignedAt: now})
		})
		l.is(t, "placed", "ALGO_UPDATE")
		l.kinds = nil
		do(func(v *venue.Venue, now time.Time) (venue.Change, error) {
			return v.Mark(now, k.Symbol, v.Price(k.Symbol).Sub(ledger.MustPrice("2000"))), nil
		})
		l.is(t, "triggered", "ALGO_UPDATE ALGO_UPDATE ORDER_TRADE_UPDATE ORDER_TRADE_UPDATE TRADE_LITE ACCOUNT_UPDATE ALGO_UPDATE")
		if o := string(l.said[3]["o"]); !strings.Contains(o, `"ot":"STOP_MARKET"`) {
			t.Errorf("%s", o)
		}
		l.kinds = nil
		do(func(v *venue.Venue, now time.Time) (venue.Change, error) { return v.Liquidate(now, k) })
		l.is(t, "liquidated", "MARGIN_CALL ORDER_TRADE_UPDATE ORDER_TRADE_UPDATE TRADE_LITE ACCOUNT_UPDATE")
	})
}

func TestTheKeyEnds(t *testing.T) {
	inPost(t, func(p *post) {
		expires := p.private("ORDER_TRADE_UPDATE")
		pass(listenLife + time.Second)
		p.trade("0.1")
		expires.is(t, "expired", "listenKeyExpired")
		deleted, again := p.private("ORDER_TRADE_UPDATE"), p.private("ORDER_TRADE_UPDATE")
		p.mu.Lock()
		p.closeListenKey(p.now())
		p.mu.Unlock()
		p.trade("0.1")
		deleted.is(t, "deleted", "")
		again.is(t, "deleted", "")
		p.private("").is(t, "new", "")
		p.trade("0.1")
		deleted.is(t, "after a new key", "")
	})
}

func TestPingsAndTheEndOfTheDay(t *testing.T) {
	inPost(t, func(p *post) {
		if err := p.Arm(Fault{Kind: WSNoPings, Call: callMarket}); err != nil {
			t.Error(err)
		}
		napping, l := p.listen("/market/ws/x"), p.listen("/private/ws")
		pass(25 * time.Hour)
		for _, x := range []*listener{napping, l} {
			<-x.done
			if closed := (*websocket.CloseError)(nil); x.ended != socketLife || !errors.As(x.err, &closed) {
				t.Errorf("ended after %v: %v", x.ended, x.err)
			}
		}
		if l.pings[0] != pingEvery || len(l.pings) != 24*20-1 && len(l.pings) != 24*20 || napping.pings[0] < pinglessFor || napping.pings[0] > pinglessFor+pingEvery {
			t.Errorf("%d pings from %v; the other's from %v", len(l.pings), l.pings[0], napping.pings[0])
		}
	})
}

func TestFaultsOfSockets(t *testing.T) {
	const usual = "ORDER_TRADE_UPDATE ORDER_TRADE_UPDATE TRADE_LITE ACCOUNT_UPDATE"
	for kind, want := range map[Kind]struct {
		kinds string
		ended bool
	}{
		WSSilent:     {"", false},
		WSDrop:       {"", true},
		WSDropFill:   {"ORDER_TRADE_UPDATE ORDER_TRADE_UPDATE", true},
		WSDuplicate:  {usual + " " + usual, false},
		WSReorder:    {"TRADE_LITE ACCOUNT_UPDATE ORDER_TRADE_UPDATE ORDER_TRADE_UPDATE", false},
		WSExpired:    {"listenKeyExpired", false},
		WSUnknown:    {"STRATEGY_UPDATE " + usual, false},
		WSAmendment:  {usual + " ORDER_TRADE_UPDATE", false},
		WSLoseUpdate: {"ORDER_TRADE_UPDATE TRADE_LITE ACCOUNT_UPDATE", false},
	} {
		inPost(t, func(p *post) {
			if err := p.Arm(Fault{Kind: kind, Call: callPrivate}); err != nil {
				t.Error(err)
			}
			l := p.private(allEvents)
			pass(lookEvery + time.Second)
			p.trade("0.1")
			l.is(t, string(kind), want.kinds)
			select {
			case <-l.done:
				if !want.ended {
					t.Errorf("%s: the connection ended: %v", kind, l.err)
				}
			default:
				if want.ended {
					t.Errorf("%s: the connection lives on", kind)
				}
			}
			if kind == WSAmendment && !strings.HasSuffix(string(l.said[4]["o"]), `"M":"176057039"}`) {
				t.Errorf("%s", l.said[4]["o"])
			}
		})
	}
}

func TestRefusedHandshake(t *testing.T) {
	inPost(t, func(p *post) {
		if err := p.Arm(Fault{Kind: WSRefused, Call: callPrivate}); err != nil {
			t.Error(err)
		}
		d := websocket.Dialer{NetDialContext: p.wire.Dial}
		_, a, err := d.Dial("ws://exchange/private/ws", nil)
		if !errors.Is(err, websocket.ErrBadHandshake) || a.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%v %v", a, err)
		}
		p.listen("/private/ws") // Once.
	})
}
