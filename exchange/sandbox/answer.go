package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// answer is what is written, and how.
type answer struct {
	status int
	kind   string // of the content; "" is JSON
	body   []byte
	header map[string]string
	how    Kind          // Closed, Hang, Cut, SlowBody or SlowAnswer; "" is at once and whole
	wait   time.Duration // of how
}

func success(body any) answer {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // All bodies are plain data.
	}
	return answer{status: http.StatusOK, body: text}
}

func failure(status int, code int64, msg string) answer {
	a := success(struct {
		Code int64  `json:"code"`
		Msg  string `json:"msg"`
	}{code, msg})
	a.status = status
	return a
}

func page(status int, html string) answer {
	return answer{status: status, kind: "text/html", body: []byte(html)}
}

// disguise is what becomes of an answer on its way. How wide the disguise is does not tell whether the request was executed.
func disguise(c *call, f Fault, a answer) answer {
	if a.how == Closed {
		return a // It is lost already.
	}
	header := a.header
	switch f.Kind {
	case Closed, Hang, Cut, SlowBody, SlowAnswer:
		a.how, a.wait = f.Kind, f.For
		if f.Kind == SlowAnswer {
			a.wait = f.forOr(2 * time.Second)
		}
	case Unknown503:
		a = failure(http.StatusServiceUnavailable, 0, "Unknown error, please check your request or try again later.")
	case Internal:
		a = failure(http.StatusServiceUnavailable, -1001, "Internal error; unable to process your request. Please try again.")
	case Timeout408:
		a = failure(http.StatusRequestTimeout, -1007, "Timeout waiting for response from backend server. Send status unknown; execution status unknown.")
	case BadGateway:
		a = page(http.StatusBadGateway, "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>")
	case Error500:
		a = page(http.StatusInternalServerError, "Request occur unknown error.")
	case Code1000:
		a = failure(http.StatusBadRequest, -1000, "An unknown error occurred while processing the request.")
	case Code1006:
		a = failure(http.StatusBadRequest, -1006, "An unexpected response was received from the message bus. Execution status unknown.")
	case Code1007:
		a = failure(http.StatusBadRequest, -1007, "Timeout waiting for response from backend server. Send status unknown; execution status unknown.")
	case Truncated:
		a.body, a.status = a.body[:len(a.body)/2], http.StatusOK
	case Empty:
		a.body, a.status = nil, http.StatusOK
	case Code200:
		a = failure(http.StatusOK, -1000, "An unknown error occurred while processing the request.")
	case Redirect:
		a = page(http.StatusTemporaryRedirect, "")
		_, path, _ := strings.Cut(c.name, " ")
		header = map[string]string{"Location": path + "?" + c.query}
	default: // The others are no disguises.
	}
	a.header = header
	return a
}

// refusal is the answer of a fault that keeps a request from being executed. The caller holds the mutex.
func (s *Sandbox) refusal(c *call, f Fault) (answer, bool) {
	switch f.Kind {
	case Unavailable:
		return page(http.StatusServiceUnavailable, "Service Unavailable."), true
	case Throttled:
		return failure(http.StatusServiceUnavailable, -1008, "Request throttled by system-level protection. Reduce-only/close-position orders are exempt. Please try again."), true
	case TooMany, TooManyBare:
		return tooMany(f.Kind == TooMany, f.forOr(3*time.Second)), true
	case Banned:
		s.faults.banned = c.now.Add(f.forOr(2 * time.Minute))
		return s.ban(c.now), true
	case WAF:
		return page(http.StatusForbidden, "<html><body><h1>403 Forbidden</h1>Request blocked.</body></html>"), true
	case KeyGone:
		return failure(http.StatusUnauthorized, -2015, "Invalid API-key, IP, or permissions for action."), true
	case ClockSaid:
		return refused(c, errTimestamp), true
	case HighWeight:
		s.limits.pretend = s.o.Weight - 10
	default: // The others are no refusals.
	}
	return answer{}, false
}

func tooMany(retryAfter bool, wait time.Duration) answer {
	a := failure(http.StatusTooManyRequests, -1003, "Too many requests; current limit is 2400 requests per minute. Please use the websocket for live updates to avoid polling the API.")
	if retryAfter {
		a.header = map[string]string{"Retry-After": seconds(wait)}
	}
	return a
}

func seconds(d time.Duration) string { return strconv.Itoa(int((d + time.Second - 1) / time.Second)) }

// ban is the answer while the address is banned. The caller holds the mutex.
func (s *Sandbox) ban(now time.Time) answer {
	a := failure(http.StatusTeapot, -1003, fmt.Sprintf("Way too many requests; IP banned until %d. Please use the websocket for live updates to avoid bans.", s.faults.banned.UnixMilli()))
	a.header = map[string]string{"Retry-After": seconds(s.faults.banned.Sub(now))}
	return a
}

// write sends the answer, in the way that it is to be sent.
func (a answer) write(w http.ResponseWriter, r *http.Request) {
	switch a.how {
	case Closed:
		panic(http.ErrAbortHandler) // The server then closes the connection, and logs nothing.
	case Hang:
		wait(r.Context(), a.wait)
		panic(http.ErrAbortHandler)
	case SlowAnswer:
		wait(r.Context(), a.wait)
	default: // It is written at once; how is seen below.
	}
	kind := a.kind
	if kind == "" {
		kind = "application/json"
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	for k, v := range a.header {
		h.Set(k, v)
	}
	w.WriteHeader(a.status)
	body := a.body
	if a.how == Cut || a.how == SlowBody {
		half := len(body) / 2
		_, _ = w.Write(body[:half]) // Whether the client reads it is its own affair.
		_ = http.NewResponseController(w).Flush()
		if a.how == Cut {
			panic(http.ErrAbortHandler)
		}
		wait(r.Context(), a.wait)
		body = body[half:]
	}
	_, _ = w.Write(body)
}

// wait lets time pass, until the client has given up at the latest; 0 is until then.
func wait(ctx context.Context, d time.Duration) {
	if d == 0 {
		<-ctx.Done()
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
