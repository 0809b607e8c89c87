package binance

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"permitchain/exchange"
)

// hang answers nothing until the client gives up.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// cut takes the connection away.
func cut(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close() // That is all it is for.
	}
}

// Whatever happens to an order after it was written, it was written once, and nobody calls it placed or not placed
// who cannot know.
func TestOrderIsSentOnceWhateverHappens(t *testing.T) {
	elsewhere := newFake(t)
	elsewhere.says(postOrder, 200, bodyFilled)
	raw := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, text) // The client may be gone.
			_ = conn.Close()
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"connection cut": cut,
		"no answer":      hang,
		"redirect 307": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.server.URL+r.URL.String(), 307)
		},
		"redirect 308": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.server.URL+r.URL.String(), 308)
		},
		"redirect 302": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.server.URL+r.URL.String(), 302)
		},
		"redirect to itself": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, 307) },
		"truncated":          raw("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + bodyFilled[:100]),
		"truncated chunked":  raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"ord"),
		"cut inside headers": raw("HTTP/1.1 200 OK\r\nContent-Le"),
		"no HTTP":            raw("hello\r\n\r\n"),
		"half an answer":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, bodyFilled[:200]) },
		"empty 200":          func(http.ResponseWriter, *http.Request) {},
		"204":                func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
		"null":               func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "null") },
		"a list":             func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "["+bodyFilled+"]") },
		"error as a success": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, bodyDisguised) },
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			for chunk := []byte(strings.Repeat(" ", 1<<20)); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		},
		"slow body": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, bodyFilled[:10])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.on(postOrder, answer)
			b := f.open(func(o *Options) { o.Timeout = 400 * time.Millisecond })
			a := b.Place(context.Background(), anOrder(b))
			if a.Outcome != exchange.Unknown || a.RateLimited || a.OrderID != 0 {
				t.Errorf("the answer is %+v", a)
			}
			sane(t, a.Message)
			if n, _ := f.times(postOrder); n != 1 {
				t.Errorf("the order was sent %d times", n)
			}
			// The next one is not disturbed, and goes once, too.
			f.says(postOrder, 200, bodyFilled)
			if a := b.Place(context.Background(), anOrder(b)); a.Outcome != exchange.Placed {
				t.Errorf("the next answer is %+v", a)
			}
			if n, _ := f.times(postOrder); n != 2 {
				t.Errorf("two orders were sent %d times", n)
			}
		})
	}
	if n := len(elsewhere.asked); n != 0 {
		t.Errorf("%d requests went where a redirect pointed", n)
	}
}

// An order on a connection that the server has closed meanwhile is not sent on another.
func TestStaleConnectionIsNotTriedAgain(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var orders, connections atomic.Int32
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			go serveOnce(conn, &orders)
		}
	}()
	for _, idempotent := range []bool{false, true} {
		orders.Store(0)
		c := newClient(newTransport((&net.Dialer{}).DialContext))
		for i := range 2 {
			call := &call{what: postOrder, now: time.Now, sendBefore: time.Now().Add(time.Second)}
			ctx := context.WithValue(context.Background(), callKey{}, call)
			stamp := fmt.Sprintf("http://%s/fapi/v1/order?timestamp=%d", listener.Addr(), time.Now().UnixMilli())
			q, err := http.NewRequestWithContext(ctx, http.MethodPost, stamp, strings.NewReader("symbol=BTCUSDT"))
			if err != nil {
				t.Fatal(err)
			}
			if idempotent && i == 1 {
				q.Header.Set("Idempotency-Key", "1")
			}
			resp, err := c.Do(q)
			if err == nil {
				_ = resp.Body.Close() // It was read already.
			}
			if i == 1 && err == nil {
				t.Error("the second order was answered: the server never answers two on a connection")
			}
		}
		want := int32(2) // The first was answered, the second read and cut.
		if idempotent {
			want = 1 // With such a header net/http would send it again, so it was not sent.
		}
		if n := orders.Load(); n != want {
			t.Errorf("idempotency key %t: the server read %d orders, want %d", idempotent, n, want)
		}
		c.CloseIdleConnections()
	}
}

// serveOnce answers the first request on a connection, reads the next and cuts it.
func serveOnce(conn net.Conn, orders *atomic.Int32) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for i := 0; ; i++ {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, q.Body) // A cut body is a cut request.
		orders.Add(1)
		if i > 0 {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
	}
}

func TestOnlyHTTP1IsSpokenAndNoProxyIsAsked(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	transport := newTransport((&net.Dialer{}).DialContext)
	defer transport.CloseIdleConnections()
	transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	transport.TLSClientConfig.NextProtos = nil
	resp, err := transport.RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "HTTP/1.1" || resp.TLS.NegotiatedProtocol == "h2" {
		t.Errorf("the server saw %s (%q, %v)", body, resp.TLS.NegotiatedProtocol, err)
	}
	if transport.Proxy != nil {
		t.Error("a proxy of the environment would carry the key")
	}
	if transport.TLSClientConfig.InsecureSkipVerify || tls.VersionTLS12 > resp.TLS.Version {
		t.Error("the connection is not verified")
	}
}

func TestOrderIsNotSent(t *testing.T) {
	for name, c := range map[string]struct {
		options func(*Options)
		change  func(context.CancelFunc, *Binance, *exchange.Order)
		says    string
	}{
		"too late":        {change: func(_ context.CancelFunc, b *Binance, o *exchange.Order) { o.SendBefore = b.Now() }, says: "too late"},
		"read only":       {options: func(o *Options) { o.ReadOnly = true }, says: "only reads"},
		"cancelled":       {change: func(stop context.CancelFunc, _ *Binance, _ *exchange.Order) { stop() }, says: "canceled"},
		"no quantity":     {change: func(_ context.CancelFunc, _ *Binance, o *exchange.Order) { o.Qty = o.Qty.Neg() }, says: "not complete"},
		"no deadline":     {change: func(_ context.CancelFunc, _ *Binance, o *exchange.Order) { o.SendBefore = time.Time{} }, says: "not complete"},
		"a strange id":    {change: func(_ context.CancelFunc, _ *Binance, o *exchange.Order) { o.ClientOrderID = "a b" }, says: "not complete"},
		"growing a long":  {change: func(_ context.CancelFunc, _ *Binance, o *exchange.Order) { o.Key.Side, o.Direction = "LONG", "BUY" }, says: "would not surely reduce"},
		"growing a short": {change: func(_ context.CancelFunc, _ *Binance, o *exchange.Order) { o.Key.Side = "SHORT" }, says: "would not surely reduce"},
		"clock in doubt": {change: func(_ context.CancelFunc, b *Binance, _ *exchange.Order) {
			b.reading.Store(&reading{time.Now(), time.Now(), time.Second})
		}, says: "clock is in doubt"},
		"nobody listening": {change: func(_ context.CancelFunc, b *Binance, _ *exchange.Order) { b.opt.RESTURL = "http://127.0.0.1:1" }, says: "connection refused"},
		"banned": {change: func(_ context.CancelFunc, b *Binance, _ *exchange.Order) {
			b.budget.ban(b.Now(), nil, "banned until "+strconv.FormatInt(b.Now().Add(time.Minute).UnixMilli(), 10))
		}, says: "banned until"},
		"pausing": {change: func(_ context.CancelFunc, b *Binance, _ *exchange.Order) {
			b.budget.ban(b.Now(), nil, "")
		}, says: "we pause until"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			var options []func(*Options)
			if c.options != nil {
				options = append(options, c.options)
			}
			b := f.open(options...)
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			for _, trigger := range []string{"0", "70000"} {
				o := anOrder(b)
				o.Trigger = price(trigger)
				if c.change != nil {
					c.change(stop, b, &o)
				}
				a := b.Place(ctx, o)
				if a.Outcome != exchange.NotPlaced || !strings.Contains(a.Message, c.says) || a.RateLimited != (name == "banned" || name == "pausing") {
					t.Errorf("trigger %s: %+v", trigger, a)
				}
				sane(t, a.Message)
			}
			n, _ := f.times(postOrder)
			m, _ := f.times(postAlgo)
			if n+m != 0 {
				t.Errorf("%d orders were sent", n+m)
			}
		})
	}
}

// The signature's time is what counts, not the time at which signing began.
func TestTransportRefusesWhatWasSignedLate(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		stamp string
		ok    bool
	}{
		"in time":       {fmt.Sprint(now.Add(900 * time.Millisecond).UnixMilli()), true},
		"at the fence":  {fmt.Sprint(now.Add(time.Second).UnixMilli()), false},
		"behind it":     {fmt.Sprint(now.Add(time.Minute).UnixMilli()), false},
		"clock stepped": {fmt.Sprint(now.Add(-2 * time.Second).UnixMilli()), false},
		"no time":       {"", false},
		"no number":     {"now", false},
	} {
		c1 := &call{sendBefore: now.Add(time.Second).Truncate(time.Millisecond), now: func() time.Time { return now }}
		q := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/fapi/v1/order?timestamp="+c.stamp, nil)
		if err := c1.admit(q); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err := c1.admit(q); err == nil {
			t.Errorf("%s: a second request was let through", name)
		}
	}
}

// A body that cannot be read is closed, so that its connection does not stay open for ever.
func TestUnreadableBodyIsClosed(t *testing.T) {
	body := &closing{}
	r := recorder{tripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: body}, nil
	})}
	c := &call{what: "GET /x"}
	q := httptest.NewRequestWithContext(context.WithValue(t.Context(), callKey{}, c), http.MethodGet, "/x", nil)
	if _, err := r.RoundTrip(q); err == nil || !body.closed || c.whole || c.status != 200 {
		t.Errorf("error %v, closed %t, whole %t, status %d", err, body.closed, c.whole, c.status)
	}
	if _, err := r.RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", nil)); err == nil {
		t.Error("a request outside of any call was sent")
	}
}

// The transport gets nothing that it could send a second time.
func TestTransportCannotRepeatAnOrder(t *testing.T) {
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		r := recorder{tripper(func(q *http.Request) (*http.Response, error) {
			if q.GetBody != nil || q.Body == nil {
				t.Errorf("%s: the body can be had again", method)
			}
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}, nil
		})}
		ctx := context.WithValue(t.Context(), callKey{}, &call{})
		q, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1/x?timestamp=1", strings.NewReader("symbol=BTCUSDT"))
		if err != nil || q.GetBody == nil {
			t.Fatal(err)
		}
		if _, err := r.RoundTrip(q); err != nil {
			t.Error(err)
		}
	}
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }

type closing struct{ closed bool }

func (c *closing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func (c *closing) Close() error { c.closed = true; return nil }

// What goes over the wire, and how it is signed.
func TestWireOfOrders(t *testing.T) {
	f := newFake(t)
	f.says(postOrder, 200, bodyFilled)
	b := f.open()
	if a := b.Place(context.Background(), anOrder(b)); a.Outcome != exchange.Placed || a.OrderID != 4087922045 || a.Status != "FILLED" || a.Executed.String() != "0.001" {
		t.Errorf("the answer is %+v", a)
	}
	_, q := f.times(postOrder)
	want := []string{"newClientOrderId=pc-01J9Z%3Aa1", "newOrderRespType=RESULT", "quantity=0.001", "reduceOnly=true", "side=SELL", "symbol=BTCUSDT", "type=MARKET"}
	if got := form(t, q.body); !slices.Equal(got, want) {
		t.Errorf("the body is %v", got)
	}
	if !strings.HasPrefix(q.query, "recvWindow=3000&timestamp=") || q.header.Get("X-Mbx-Apikey") != testKey {
		t.Errorf("the query is %s", q.query)
	}
	checkSignature(t, q)

	o := anOrder(b)
	o.Key.Side = "LONG"
	b.Place(context.Background(), o)
	_, q = f.times(postOrder)
	want = []string{"newClientOrderId=pc-01J9Z%3Aa1", "newOrderRespType=RESULT", "positionSide=LONG", "quantity=0.001", "side=SELL", "symbol=BTCUSDT", "type=MARKET"}
	if got := form(t, q.body); !slices.Equal(got, want) {
		t.Errorf("in hedge mode the body is %v", got)
	}
}
