package binance

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// The account stream's timing. It is silent while nothing happens, and as silent when its key is bad, when its address
// leads nowhere, or when another process deleted the key. So its socket is replaced each hour, by one whose key was asked for anew.
const (
	userLife   = time.Hour
	userPing   = 15 * time.Second
	userQuiet  = 40 * time.Second
	keepEvery  = 15 * time.Minute // a key lives for an hour
	keepAgain  = time.Minute      // after an attempt that failed
	keepTries  = 3                // in a row; then the key is asked for anew
	refusalMax = 5                // refusals of the API key in a row; then it is refused for good
)

// userEvents are the messages asked for. Without the list a connection may be silent.
const userEvents = saidOrder + "/" + saidLite + "/" + saidAccount + "/" + saidConfig + "/" + saidMargin + "/" + saidAlgo

// userKey is the listen key of the account stream. It is never deleted: another process of the same account has the same one.
type userKey struct {
	account  account
	base     string
	line     *line
	current  atomic.Pointer[string]
	refusals int // the line's
}

func (k *userKey) newLine(d *websocket.Dialer, f *facts, out chan<- heard) *line {
	k.line = &line{
		name: userLine, dialer: d, facts: f, life: userLife, quiet: userQuiet, ping: userPing,
		target: k.target, fatal: k.fatal, renew: make(chan struct{}, 1), out: out,
	}
	return k.line
}

// target asks for a key: a new one, or another hour for the one there is.
func (k *userKey) target(ctx context.Context) (string, error) {
	key, err := k.account.createListenKey(ctx)
	if err != nil {
		return "", fmt.Errorf("create a listen key: %w", err)
	}
	if key == "" {
		return "", errors.New("create a listen key: the answer names none")
	}
	k.refusals = 0
	k.current.Store(&key)
	return k.base + "/private/ws?listenKey=" + url.QueryEscape(key) + "&events=" + userEvents, nil
}

func (k *userKey) fatal(err error) bool {
	if errors.Is(err, ErrKey) {
		k.refusals++
	}
	return k.refusals >= refusalMax
}

// keep gives the key another hour, again and again.
func (k *userKey) keep(ctx context.Context) error {
	wait, failed := keepEvery, 0
	for {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
		wait = keepEvery
		key := k.current.Load()
		if key == nil {
			continue // The line is still asking for the first.
		}
		err := k.account.keepListenKey(ctx, *key)
		switch {
		case err == nil:
			failed = 0
		case errors.Is(err, errListenKeyGone) || failed+1 >= keepTries:
			failed = 0
			k.renew()
		default:
			failed++
			wait = keepAgain
		}
	}
}

// renew asks for another key and another socket.
func (k *userKey) renew() { k.line.again() }

// expired is the exchange's word that a key is no more; "" is one it does not name. What is said of an older key is old.
func (k *userKey) expired(key string) {
	if now := k.current.Load(); key == "" || now == nil || key == *now {
		k.renew()
	}
}

// redact takes the key out of a text.
func (k *userKey) redact(text string) string {
	if key := k.current.Load(); key != nil {
		return strings.ReplaceAll(text, *key, "…")
	}
	return text
}
