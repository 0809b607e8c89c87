package operator

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"permitchain/ledger"
	"permitchain/ledger/store"
)

// Failure is why a request was not done: how it travels over HTTP, and the exit code it becomes.
type Failure struct {
	Kind Kind   `json:"kind"`
	Text string `json:"error"`
}

// Kind is a class of failures.
type Kind string

// The kinds.
const (
	BadRequest   Kind = "bad_request"
	TooLarge     Kind = "too_large"
	Unhealthy    Kind = "unhealthy" // the command line's only
	Refused      Kind = "refused"
	Unauthorized Kind = "unauthorized"
	Forbidden    Kind = "forbidden"
	Busy         Kind = "busy"
	NotFound     Kind = "not_found"
	Ledger       Kind = "ledger"
	Exchange     Kind = "exchange"
	NotRunning   Kind = "not_running"
	Internal     Kind = "internal"
)

func (f *Failure) Error() string { return f.Text }

// codes are the HTTP status and the exit code of SPEC §10.
func (k Kind) codes() (status, exit int) {
	switch k {
	case BadRequest:
		return http.StatusBadRequest, 2
	case TooLarge:
		return http.StatusRequestEntityTooLarge, 2
	case Unhealthy:
		return http.StatusServiceUnavailable, 3
	case Refused:
		return http.StatusConflict, 4
	case Unauthorized:
		return http.StatusUnauthorized, 4
	case Forbidden:
		return http.StatusForbidden, 4
	case Busy:
		return http.StatusTooManyRequests, 4
	case NotFound:
		return http.StatusNotFound, 1
	case Ledger:
		return http.StatusInternalServerError, 6
	case Exchange:
		return http.StatusBadGateway, 7
	case NotRunning:
		return http.StatusServiceUnavailable, 5
	default:
		return http.StatusInternalServerError, 1
	}
}

// ExitCode is what the command line ends with.
func (f *Failure) ExitCode() int {
	_, exit := f.Kind.codes()
	return exit
}

// Failed makes a failure.
func Failed(k Kind, format string, args ...any) *Failure {
	return &Failure{k, fmt.Sprintf(format, args...)}
}

// failure classes any error.
func failure(err error) *Failure {
	var f *Failure
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &large):
		return Failed(TooLarge, "the request is larger than %d bytes", large.Limit)
	case errors.Is(err, store.ErrNotFound):
		return Failed(NotFound, "%v", err)
	case errors.Is(err, store.ErrAmbiguous):
		return Failed(BadRequest, "%v", err)
	case errors.Is(err, store.ErrHalted), errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrLocked), errors.Is(err, store.ErrForeign):
		return Failed(Ledger, "%v", err)
	case errors.Is(err, store.ErrClosed):
		return Failed(NotRunning, "%v", err)
	default:
		return Failed(Internal, "%v", err)
	}
}

// handler is a request's work; its error is the answer.
type handler func(w http.ResponseWriter, r *http.Request) error

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h(w, r); err != nil {
		f := failure(err)
		status, _ := f.Kind.codes()
		if f.Kind == Busy {
			w.Header().Set("Retry-After", "1")
		}
		_ = writeJSON(w, status, f) // A client that has gone needs no answer.
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(v)
}

// limited bounds the requests at work at once, and what each may bring and how long it may take
// to bring it. Once it is here, the client may take its time: an outcome or a stream lasts.
func limited(next http.Handler) http.Handler {
	slots := make(chan struct{}, requestsMax)
	return handler(func(w http.ResponseWriter, r *http.Request) error {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			return Failed(Busy, "%d requests are at work", requestsMax)
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyMax))
		if err != nil {
			return err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		// Without this, the read timeout would cancel the request's context later on.
		if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// guard stands before everything that comes over TCP: a browser on this machine can reach it, too.
func (o *Stage) guard(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	return handler(func(w http.ResponseWriter, r *http.Request) error {
		health := r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
		switch {
		case o.token == "" && !o.ourName(r.Host):
			return Failed(Forbidden, "host %.80q is not a name of this machine", r.Host)
		case o.token != "" && !health && !o.authorized(r):
			w.Header().Set("WWW-Authenticate", "Bearer")
			return Failed(Unauthorized, "a bearer token is wanted")
		case o.token == "" && o.Mode == ledger.Live && r.Method != http.MethodGet:
			return Failed(Forbidden, "in mode live, actions over TCP need http.token_file; use the command line")
		}
		if err := crossOrigin.Check(r); err != nil {
			return Failed(Forbidden, "%v", err)
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// ourName tells whether a Host header names this machine: a page that rebinds its own name to it does not.
func (o *Stage) ourName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

func (o *Stage) authorized(r *http.Request) bool {
	given, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	have, want := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(o.token))
	return found && subtle.ConstantTimeCompare(have[:], want[:]) == 1
}
