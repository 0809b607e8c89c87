package binance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync/atomic"
	"time"
)

// call is one request and what came of it: go-binance gives back neither status nor headers nor the time it signed.
type call struct {
	what       string // "POST /fapi/v1/order"
	weight     int
	essential  bool // closes depend on it: it may use all of the budget
	order      bool
	list       bool      // the answer must be a JSON list, otherwise an object
	sendBefore time.Time // an order's; one that is signed later is not sent
	now        func() time.Time

	begun    time.Time   // local clock: it was handed on, after all waiting of our own
	sent     bool        // it has been handed to the network's side, once
	reached  atomic.Bool // a connection was had: from here on it may have been written
	refused  error       // by ourselves, before anything was written
	status   int
	header   http.Header
	signedAt time.Time
	body     []byte
	whole    bool // body is all of it
}

type callKey struct{}

// newTransport is HTTP/1.1 alone, because Go's HTTP/2 may send a request again after a GOAWAY. No proxy is taken from
// the environment: what carries orders is configured or absent.
func newTransport(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Protocols: protocols, DialContext: dial, TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 8, IdleConnTimeout: 45 * time.Second, MaxResponseHeaderBytes: 64 << 10,
	}
}

// newClient follows no redirect: 307 would send the order, and the key, to another host.
func newClient(next http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     recorder{next},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// recorder sees every request: each belongs to a call, and a call has one.
type recorder struct{ next http.RoundTripper }

// Bounds of an answer. exchangeInfo is 1 to 2 MB.
const longestBody = 16 << 20

// signedAhead is how far a signed timestamp may be off our idea of the exchange's clock: the host's clock has stepped then.
const signedAhead = time.Second

// RoundTrip implements http.RoundTripper.
func (r recorder) RoundTrip(q *http.Request) (*http.Response, error) {
	c, _ := q.Context().Value(callKey{}).(*call)
	if c == nil {
		closeBody(q)
		return nil, errors.New("a request outside of any call")
	}
	if err := c.admit(q); err != nil {
		closeBody(q)
		c.refused = err
		return nil, err
	}
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { c.reached.Store(true) }}
	q = q.Clone(httptrace.WithClientTrace(q.Context(), trace))
	if q.Method != http.MethodGet { // A query the transport may ask again where an idle connection turns out to be closed.
		q.GetBody = nil // Without it the transport has nothing to send a second time.
	}
	c.begun = time.Now()
	resp, err := r.next.RoundTrip(q)
	if err != nil {
		return nil, err
	}
	c.status, c.header = resp.StatusCode, resp.Header.Clone()
	body, err := io.ReadAll(io.LimitReader(resp.Body, longestBody+1))
	closed := resp.Body.Close() // The library does not close what it could not read.
	if err = errors.Join(err, closed); err == nil && len(body) > longestBody {
		err = fmt.Errorf("an answer longer than %d bytes", longestBody)
	}
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	c.body, c.whole = body, true
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// admit says why a request may not be written, nil where it may.
func (c *call) admit(q *http.Request) error {
	if c.sent {
		return errors.New("a second request for one call")
	}
	c.sent = true
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if _, ok := q.Header[name]; ok {
			return errors.New("an idempotency key would make the transport send it again")
		}
	}
	stamp := q.URL.Query().Get("timestamp")
	if stamp == "" && c.sendBefore.IsZero() {
		return nil
	}
	ms, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return errors.New("it is not signed with a time")
	}
	c.signedAt = time.UnixMilli(ms)
	if c.sendBefore.IsZero() {
		return nil
	}
	if !c.signedAt.Before(c.sendBefore) || !c.now().Before(c.sendBefore) {
		return errLate
	}
	if off := c.signedAt.Sub(c.now()).Abs(); off > signedAhead {
		return fmt.Errorf("%w: the timestamp is off by %s", errClock, off.Round(time.Millisecond))
	}
	return nil
}

func closeBody(q *http.Request) {
	if q.Body != nil {
		_ = q.Body.Close() // As a RoundTripper must; there is nothing to learn from it.
	}
}

// outcome is nil where the answer may be read, otherwise all that is known about what went wrong.
func (c *call) outcome(err error) *Error {
	e := &Error{Call: c.what, Status: c.status, notSent: c.refused != nil || !c.reached.Load()}
	switch {
	case c.refused != nil:
		e.cause = c.refused
	case !c.whole && err != nil:
		e.cause = redact(err)
	case !c.whole:
		e.cause = errors.New("no request was made")
	case c.status/100 != 2:
		e.read(c.body)
	case !c.shaped():
		e.read(c.body)
		if e.Code == 0 || e.Message == "" {
			e.Message = beginning(c.body)
		}
		e.Message = "the answer is not what was asked for: " + e.Message
	default:
		return nil
	}
	return e
}

// shaped tells whether a body is of the expected kind, and no error that came as a success.
func (c *call) shaped() bool {
	body := bytes.TrimSpace(c.body)
	if c.list {
		return bytes.HasPrefix(body, []byte("["))
	}
	f := fieldsOf(body)
	return f.err == nil && !(f.has("code") && f.has("msg") && f.integer("code") < 0)
}
