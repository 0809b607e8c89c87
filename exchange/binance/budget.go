package binance

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// budget is what the exchange lets one address ask. What closes do not need may use a part of it only; the exchange's
// own count, which other processes of this address add to, goes before ours.
type budget struct {
	now  func() time.Time // exchange clock
	all  *rate.Limiter
	rest *rate.Limiter // drawn on besides by what no close depends on

	mu       sync.Mutex
	limit    int // weight of a minute
	used     int
	usedAt   time.Time
	orders   string
	banned   time.Time
	said     bool      // the exchange named banned's instant; otherwise it is a pause of our own
	noOrders time.Time // until when orders alone are refused
	strikes  int       // rate limits in a row that named no end
}

// The shares of a minute's weight, in hundredths: of everything, of what no close depends on, and of a burst.
const (
	shareAll     = 80
	shareRest    = 50
	shareBurst   = 15
	weightFirst  = 2400 // until exchangeInfo says it
	banLeast     = time.Minute
	banMost      = 3 * 24 * time.Hour
	ordersPaused = 10 * time.Second
)

func newBudget(now func() time.Time) *budget {
	g := &budget{now: now, limit: weightFirst}
	g.all, g.rest = rate.NewLimiter(perSecond(weightFirst, shareAll), burst(weightFirst)), rate.NewLimiter(perSecond(weightFirst, shareRest), burst(weightFirst))
	return g
}

func perSecond(limit, share int) rate.Limit { return rate.Limit(float64(limit*share) / 100 / 60) }

// burst is never less than the dearest call costs.
func burst(limit int) int { return max(100, limit*shareBurst/100) }

// setLimit takes the exchange's own figure.
func (g *budget) setLimit(limit int) {
	if limit <= 0 {
		return
	}
	g.mu.Lock()
	same := g.limit == limit
	g.limit = limit
	g.mu.Unlock()
	if same {
		return
	}
	for l, share := range map[*rate.Limiter]int{g.all: shareAll, g.rest: shareRest} {
		l.SetBurst(burst(limit))
		l.SetLimit(perSecond(limit, share))
	}
}

// take waits for a call's turn, at most as long as the call itself may take; a ban is not waited for.
func (g *budget) take(ctx context.Context, c *call, most time.Duration) error {
	if err := g.allowed(c); err != nil || c.weight == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if !c.essential {
		if err := g.rest.WaitN(ctx, c.weight); err != nil {
			return fmt.Errorf("%w: wait for the weight budget: %w", ErrLimited, err)
		}
	}
	if err := g.all.WaitN(ctx, c.weight); err != nil {
		return fmt.Errorf("%w: wait for the weight budget: %w", ErrLimited, err)
	}
	return g.allowed(c)
}

// allowed is nil where neither a ban nor the exchange's own count of this minute speaks against a call.
func (g *budget) allowed(c *call) error {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case now.Before(g.banned) && g.said:
		return fmt.Errorf("%w: banned until %s", ErrLimited, g.banned.Format(time.RFC3339))
	case now.Before(g.banned):
		return fmt.Errorf("%w: the exchange named no end of it; we pause until %s", ErrLimited, g.banned.Format(time.RFC3339))
	case c.order && now.Before(g.noOrders):
		return fmt.Errorf("%w: no orders until %s", ErrLimited, g.noOrders.Format(time.RFC3339))
	case c.weight == 0 || !g.usedAt.Truncate(time.Minute).Equal(now.Truncate(time.Minute)):
		return nil
	}
	share := shareAll
	if c.essential {
		share = 95
	}
	if g.used+c.weight > g.limit*share/100 {
		return fmt.Errorf("%w: %d of %d weight is used in this minute", ErrLimited, g.used, g.limit)
	}
	return nil
}

var bannedUntil = regexp.MustCompile(`banned until (\d{12,14})`)

// learn takes what an answer says about limits.
func (g *budget) learn(c *call, e *Error) {
	if c.header == nil {
		return
	}
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if n, err := strconv.Atoi(c.header.Get("X-Mbx-Used-Weight-1m")); err == nil && n >= 0 {
		g.used, g.usedAt = n, now
	}
	if ten, minute := c.header.Get("X-Mbx-Order-Count-10s"), c.header.Get("X-Mbx-Order-Count-1m"); ten != "" || minute != "" {
		g.orders = clip(ten) + "/10s " + clip(minute) + "/1m"
	}
	switch {
	case e == nil:
		g.strikes = 0
	case !e.verdict().limited:
	case e.Code == -1015:
		g.noOrders = later(g.noOrders, now.Add(retryAfter(c.header, ordersPaused)))
	default:
		g.ban(now, c.header, e.Message)
	}
}

// ban stops everything until the latest instant that the exchange names, or else for a minute, two, four …
func (g *budget) ban(now time.Time, h http.Header, message string) {
	until := now.Add(retryAfter(h, 0))
	if m := bannedUntil.FindStringSubmatch(message); m != nil {
		if ms, err := strconv.ParseInt(m[1], 10, 64); err == nil {
			until = later(until, time.UnixMilli(ms).UTC())
		}
	}
	said := until.After(now)
	if !said {
		if now.Before(g.banned) {
			return // It was on its way when another was refused: that is one strike, not many.
		}
		until = now.Add(banLeast << min(g.strikes, 6))
		g.strikes++
	}
	if most := now.Add(banMost); until.After(most) {
		until = most
	}
	if until.After(g.banned) {
		g.banned, g.said = until, said
	}
}

// retryAfter is what Retry-After says, in seconds; Binance documents it for spot only.
func retryAfter(h http.Header, otherwise time.Duration) time.Duration {
	s, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || s < 0 || s > int(banMost/time.Second) {
		return otherwise
	}
	return time.Duration(s) * time.Second
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (g *budget) health() Health {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	h := Health{WeightLimit: g.limit, OrderCount: g.orders}
	if g.usedAt.Truncate(time.Minute).Equal(now.Truncate(time.Minute)) {
		h.UsedWeight = g.used
	}
	if now.Before(g.banned) {
		h.PausedUntil, h.Banned = g.banned, g.said
	}
	if now.Before(g.noOrders) {
		h.NoOrdersUntil = g.noOrders
	}
	return h
}
