package sandbox

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

// limits are what was used up of the minute of the address, and of the account's orders.
type limits struct {
	minute  time.Time
	weight  int
	over    int // calls of this minute that were refused
	orders  []time.Time
	pretend int // of the weight header; 0: the truth
}

// Binance's limits of orders, and how many refused calls it takes until an address is banned.
const (
	ordersPerTen    = 300
	ordersPerMinute = 1200
	patience        = 20
	banLength       = 2 * time.Minute
)

// limit counts a call, and refuses it when there were too many. The caller holds the mutex.
func (s *Sandbox) limit(rt route, c *call) (answer, bool) {
	if c.now.Before(s.faults.banned) {
		return s.ban(c.now), true
	}
	l := &s.limits
	if minute := c.now.Truncate(time.Minute); !minute.Equal(l.minute) {
		l.minute, l.weight, l.over = minute, 0, 0
	}
	l.weight += rt.weight(c)
	if l.weight > s.o.Weight {
		if l.over++; l.over > patience {
			s.faults.banned = c.now.Add(banLength)
			return s.ban(c.now), true
		}
		return s.header(rt, tooMany(true, l.minute.Add(time.Minute).Sub(c.now))), true
	}
	if !rt.order {
		return answer{}, false
	}
	l.orders = slices.DeleteFunc(l.orders, func(t time.Time) bool { return !t.After(c.now.Add(-time.Minute)) })
	l.orders = append(l.orders, c.now)
	if ten, minute := l.counts(c.now); ten > ordersPerTen || minute > ordersPerMinute {
		l.orders = l.orders[:len(l.orders)-1]
		return s.header(rt, failure(http.StatusTooManyRequests, -1015, "Too many new orders; current limit is 300 orders per TEN_SECONDS.")), true
	}
	return answer{}, false
}

func (l *limits) counts(now time.Time) (ten, minute int) {
	for _, t := range l.orders {
		if t.After(now.Add(-10 * time.Second)) {
			ten++
		}
	}
	return ten, len(l.orders)
}

// header adds to an answer what Binance says about limits. The caller holds the mutex.
func (s *Sandbox) header(rt route, a answer) answer {
	all := map[string]string{"X-Mbx-Used-Weight-1m": strconv.Itoa(max(s.limits.weight, s.limits.pretend)), "X-Response-Time": "0ms"}
	if rt.order {
		ten, minute := s.limits.counts(s.now())
		all["X-Mbx-Order-Count-10s"], all["X-Mbx-Order-Count-1m"] = strconv.Itoa(ten), strconv.Itoa(minute)
	}
	for k, v := range a.header {
		all[k] = v
	}
	a.header = all
	return a
}
