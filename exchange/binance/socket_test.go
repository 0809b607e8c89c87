package binance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
)

// server is the other end of a line, as a test wants it.
type server struct {
	net    *memNet
	refuse func(n int) bool // the n-th handshake, from 0
	mute   bool             // it answers no ping
	talk   func(n int, c *websocket.Conn, gone <-chan struct{})

	mu    sync.Mutex // guards what follows
	began []time.Time
	ended []time.Time
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	n := len(s.began)
	s.began, s.ended = append(s.began, time.Now()), append(s.ended, time.Time{})
	s.mu.Unlock()
	if s.refuse != nil && s.refuse(n) {
		http.Error(w, "Service Unavailable.", http.StatusServiceUnavailable)
		return
	}
	c, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	if s.mute {
		c.SetPingHandler(func(string) error { return nil })
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			if _, _, err := c.ReadMessage(); err != nil {
				return
			}
		}
	}()
	if s.talk != nil {
		s.talk(n, c, gone)
	}
	<-gone
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended[n] = time.Now()
}

// times are when connections began and ended, counted from the test's begin.
func (s *server) times(begin time.Time) (began, ended []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.began {
		began = append(began, s.began[i].Sub(begin))
		ended = append(ended, s.ended[i].Sub(begin))
	}
	return began, ended
}

// each says something again and again.
func each(every time.Duration, text string) func(int, *websocket.Conn, <-chan struct{}) {
	return func(_ int, c *websocket.Conn, gone <-chan struct{}) {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if c.WriteMessage(websocket.TextMessage, []byte(text)) != nil {
					return
				}
			case <-gone:
				return
			}
		}
	}
}

// lineTest runs a line against a server for a while of virtual time, and gives what it heard.
func lineTest(t *testing.T, s *server, l *line, during func(begin time.Time)) (messages, ups, losses int, err error) {
	t.Helper()
	s.net = newMemNet()
	web := &http.Server{Handler: s}
	go web.Serve(s.net)
	defer web.Close()
	out := make(chan heard)
	if l.target == nil {
		l.target = func(context.Context) (string, error) { return "ws://exchange/x", nil }
	}
	if l.fatal == nil {
		l.fatal = func(error) bool { return false }
	}
	l.name, l.dialer, l.facts, l.renew, l.out = userLine, newDialer(s.net.dial), newFacts(), make(chan struct{}, 1), out
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.run(ctx) }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		during(time.Now())
		stop()
	}()
	for {
		select {
		case h := <-out:
			switch {
			case h.raw != nil:
				messages++
			case h.up:
				ups++
			default:
				losses++
			}
		case err = <-ended:
			stop()
			<-done
			synctest.Wait()
			return messages, ups, losses, err
		}
	}
}

// wait lets virtual time pass, and everything happen that then happens.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// userLike are the account stream's own settings.
func userLike() *line {
	return &line{life: userLife, quiet: userQuiet, ping: userPing}
}

func TestAQuietAccountIsNoDeadSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		l := userLike()
		l.life = 100 * time.Hour
		_, ups, losses, _ := lineTest(t, s, l, func(time.Time) { wait(20 * time.Hour) })
		if ups != 1 || losses != 0 {
			t.Errorf("%d connections, %d lost", ups, losses)
		}
	})
}

func TestADeadPathIsNoticedWithinAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		var began []time.Duration
		_, ups, losses, _ := lineTest(t, s, userLike(), func(begin time.Time) {
			wait(10 * time.Minute)
			s.net.cut("")
			wait(5 * time.Minute)
			began, _ = s.times(begin)
		})
		if ups != 2 || losses != 1 || began[1] > 10*time.Minute+userQuiet+time.Second {
			t.Errorf("%d connections at %v, %d lost", ups, began, losses)
		}
	})
}

// A server that answers no ping of ours and sends its own every three minutes is alive.
func TestAServerThatAnswersNoPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{mute: true, talk: func(_ int, c *websocket.Conn, gone <-chan struct{}) {
			for {
				select {
				case <-gone:
					return
				case <-time.After(3 * time.Minute):
					_ = c.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second))
				}
			}
		}}
		_, ups, losses, _ := lineTest(t, s, userLike(), func(time.Time) { wait(50 * time.Minute) })
		if ups != 1 || losses != 0 {
			t.Errorf("%d connections, %d lost", ups, losses)
		}
	})
}

func TestRolloverOpensTheNewOneFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{talk: each(time.Second, "x"), refuse: func(n int) bool { return n == 1 || n == 2 }}
		var began, ended []time.Duration
		messages, ups, losses, _ := lineTest(t, s, userLike(), func(begin time.Time) {
			wait(90 * time.Minute)
			began, ended = s.times(begin)
		})
		// The second and third handshake are refused: the first connection serves until the fourth is up.
		if ups != 2 || losses != 0 || len(began) != 4 || ended[0] < began[3] || ended[0] > began[3]+overlap+time.Second {
			t.Errorf("%d connections %v to %v, %d lost", ups, began, ended, losses)
		}
		if began[1] > userLife || began[1] < userLife*9/10 {
			t.Errorf("replaced after %v", began[1])
		}
		if messages < 90*60 {
			t.Errorf("%d messages in 90 minutes: one each second would be more", messages)
		}
	})
}

// A stream that talks, and says nothing of what it is for, is dead.
func TestAMarketWithoutPricesIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{talk: func(n int, c *websocket.Conn, gone <-chan struct{}) {
			each(time.Second, []string{`{"e":"kline"}`, mark1}[min(n, 1)])(n, c, gone)
		}}
		l := &line{life: marketLife, quiet: marketQuiet, proof: isMark}
		var began []time.Duration
		_, ups, losses, _ := lineTest(t, s, l, func(begin time.Time) {
			wait(time.Hour)
			began, _ = s.times(begin)
		})
		if ups != 2 || losses != 1 || began[1] > marketQuiet+2*time.Second {
			t.Errorf("%d connections at %v, %d lost", ups, began, losses)
		}
	})
}

func TestAttemptsWaitLongerAndLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{refuse: func(n int) bool { return n < 12 }}
		var began []time.Duration
		_, ups, _, _ := lineTest(t, s, userLike(), func(begin time.Time) {
			wait(10 * time.Minute)
			began, _ = s.times(begin)
		})
		var waits []time.Duration
		for i := 1; i < len(began); i++ {
			waits = append(waits, began[i]-began[i-1])
		}
		if ups != 1 || len(waits) != 12 || waits[0] > time.Second || slices.Max(waits) > waitMost || slices.Min(waits[7:]) < waitMost/2 {
			t.Errorf("%d connections, waits %v", ups, waits)
		}
	})
}

func TestAFatalErrorEndsTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		asked := 0
		l := userLike()
		l.target = func(context.Context) (string, error) { asked++; return "", fmt.Errorf("ask: %w", refused) }
		l.fatal = func(err error) bool { return errors.Is(err, refused) && asked == 3 }
		_, ups, _, err := lineTest(t, &server{}, l, func(time.Time) { wait(time.Hour) })
		if ups != 0 || !errors.Is(err, refused) || asked != 3 {
			t.Errorf("%d connections, %d questions, %v", ups, asked, err)
		}
	})
}
