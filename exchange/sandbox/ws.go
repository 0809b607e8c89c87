package sandbox

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// What the exchange does with its sockets.
const (
	socketLife  = 24 * time.Hour   // then it ends the connection
	pingEvery   = 3 * time.Minute  //
	pongMax     = 10 * time.Minute // a connection that answers no ping for so long is ended
	socketWrite = 10 * time.Second // a reader that takes nothing for so long is dropped
	lookEvery   = 10 * time.Second // how often luck may strike a socket on which nothing happens
	pinglessFor = 20 * time.Minute // of WSNoPings, where it does not say
)

// Calls of faults.
const (
	callPrivate = "ws private"
	callMarket  = "ws market"
)

// wanted is what a connection asked for, by its address.
type wanted struct {
	call    string
	key     string          // of the account's stream
	events  map[string]bool // of the account's stream; what is not listed is not sent
	streams map[string]bool // of the market's
	wrapped bool            // messages come as {"stream":…,"data":…}
}

// wantedBy reads an address. One that leads nowhere is accepted, and silent, as the exchange's are: an address
// that is not routed, a listen key in the path, no list of events.
func wantedBy(r *http.Request) wanted {
	q := r.URL.Query()
	w := wanted{call: callMarket, events: map[string]bool{}, streams: map[string]bool{}}
	switch path := r.URL.Path; {
	case path == "/private/ws" || path == "/private/stream":
		w.call, w.key, w.wrapped = callPrivate, q.Get("listenKey"), path == "/private/stream"
		for _, e := range strings.Split(q.Get("events"), "/") {
			w.events[e] = true
		}
	case strings.HasPrefix(path, "/private/"):
		w.call = callPrivate
	case path == "/market/stream":
		w.wrapped = true
		for _, s := range strings.Split(q.Get("streams"), "/") {
			w.streams[s] = true
		}
	case strings.HasPrefix(path, "/market/ws/"):
		w.streams[strings.TrimPrefix(path, "/market/ws/")] = true
	}
	return w
}

// sockets adds the addresses of the streams.
func (s *Sandbox) sockets(mux *http.ServeMux) {
	for _, path := range []string{"/private/", "/market/", "/public/", "/ws", "/ws/", "/stream"} {
		mux.HandleFunc(path, s.serveSocket)
	}
}

// serveSocket is the exchange's WebSocket face. It returns when the connection ends.
func (s *Sandbox) serveSocket(w http.ResponseWriter, r *http.Request) {
	want := wantedBy(r)
	if _, refused := s.fault(want.call, WSRefused); refused {
		http.Error(w, "Service Unavailable.", http.StatusServiceUnavailable)
		return
	}
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }, HandshakeTimeout: socketWrite}
	f := s.subscribe() // Before the client knows that it is connected, so that it misses nothing after.
	defer s.unsubscribe(f)
	if want.call == callPrivate {
		s.narrow(f)
	}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // It has answered.
	}
	defer func() { _ = conn.Close() }()
	_, silent := s.fault(want.call, WSSilent)
	p := &peer{s: s, conn: conn, want: want, feed: f, silent: silent || (want.call == callPrivate && !s.listening(want.key))}
	if nap, naps := s.fault(want.call, WSNoPings); naps {
		p.pingless = time.Now().Add(nap.forOr(pinglessFor))
	}
	p.serve(r.Context())
}

// peer is one connection.
type peer struct {
	s        *Sandbox
	conn     *websocket.Conn
	want     wanted
	feed     *feed
	silent   bool
	pingless time.Time // until when it sends no pings
}

// serve says what there is to say until the connection ends.
func (p *peer) serve(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	gone := make(chan struct{})
	defer func() {
		stop()
		_ = p.conn.Close()
		<-gone
	}()
	go func() {
		defer close(gone)
		defer stop()
		p.read()
	}()
	ping, look, life := time.NewTicker(pingEvery), time.NewTicker(lookEvery), time.NewTimer(socketLife)
	defer ping.Stop()
	defer look.Stop()
	defer life.Stop()
	for alive := true; alive; {
		select {
		case <-ctx.Done():
			return
		case <-life.C:
			_ = p.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseServiceRestart, ""), time.Now().Add(socketWrite))
			return
		case now := <-ping.C:
			if now.After(p.pingless) {
				alive = p.conn.WriteControl(websocket.PingMessage, []byte("ping"), time.Now().Add(socketWrite)) == nil
			}
		case <-look.C:
			alive = p.strikes()
		case <-p.feed.wake:
			messages, lost := p.s.take(p.feed)
			alive = !lost
			for i := 0; alive && i < len(messages); i++ {
				alive = p.say(messages[i])
			}
		}
	}
}

// read takes what the client sends: pongs, pings, and requests, which it does not make.
func (p *peer) read() {
	renew := func() { _ = p.conn.SetReadDeadline(time.Now().Add(pongMax)) }
	_ = p.conn.SetReadDeadline(p.silenceFrom().Add(pongMax)) // Who gets no pings need not answer any.
	p.conn.SetReadLimit(4096)
	p.conn.SetPongHandler(func(string) error { renew(); return nil })
	pong := p.conn.PingHandler()
	p.conn.SetPingHandler(func(data string) error { renew(); return pong(data) })
	for {
		if _, _, err := p.conn.ReadMessage(); err != nil {
			return
		}
	}
}

// strikes is luck on a socket on which nothing need happen. It tells whether the connection lives on.
func (p *peer) strikes() bool {
	if _, drop := p.s.fault(p.want.call, WSDrop); drop {
		return false
	}
	if _, unknown := p.s.fault(p.want.call, WSUnknown); unknown && !p.write(unknownEvent(p.s.now())) {
		return false
	}
	if p.want.call == callPrivate && !p.silent {
		if _, expired := p.s.fault(p.want.call, WSExpired); expired {
			p.s.ExpireListenKey()
		}
	}
	return true
}

// write sends one event, and tells whether the connection lives on.
func (p *peer) write(e event) bool {
	if p.silent {
		return true
	}
	body := e.json
	if p.want.wrapped {
		name := e.stream
		if p.want.call == callPrivate {
			name = p.want.key
		}
		body = object("stream", name, "data", e.json)
	}
	_ = p.conn.SetWriteDeadline(time.Now().Add(socketWrite))
	return p.conn.WriteMessage(websocket.TextMessage, body) == nil
}

// silenceFrom is when the client can first be blamed for answering no ping.
func (p *peer) silenceFrom() time.Time {
	if now := time.Now(); now.After(p.pingless) {
		return now
	}
	return p.pingless
}
