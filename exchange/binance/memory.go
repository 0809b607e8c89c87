package binance

import (
	"time"

	"permitchain/ledger"
)

// How much is remembered of what the streams said. What has fallen out may be emitted a second time, which the port allows.
const (
	tradesHeard = 1 << 16
	ordersHeard = 1 << 14
)

// recent is a map that forgets its oldest entry when it is full.
type recent[K comparable, V any] struct {
	entries map[K]V
	ring    []K
	next    int
}

func newRecent[K comparable, V any](size int) *recent[K, V] {
	return &recent[K, V]{entries: map[K]V{}, ring: make([]K, 0, size)}
}

func (r *recent[K, V]) get(k K) (V, bool) {
	v, ok := r.entries[k]
	return v, ok
}

func (r *recent[K, V]) put(k K, v V) {
	if _, known := r.entries[k]; !known {
		if len(r.ring) < cap(r.ring) {
			r.ring = append(r.ring, k)
		} else {
			delete(r.entries, r.ring[r.next])
			r.ring[r.next] = k
			r.next = (r.next + 1) % len(r.ring)
		}
	}
	r.entries[k] = v
}

// numbered is an order or a trade: the exchange counts both per symbol, and so do we.
type numbered struct {
	symbol string
	id     int64
}

// step is how far an order was when it was last heard of.
type step struct {
	executed ledger.Qty
	rank     int // of its status
	at       time.Time
	born     time.Time // zero: its beginning was not heard
}

// memory is what both sockets of an overlap, and a server that repeats itself, have said already. It has one owner.
type memory struct {
	trades *recent[numbered, struct{}]
	orders *recent[numbered, step]
	algos  *recent[numbered, step]
	marks  map[string]time.Time // per symbol, the newest
	bars   map[string]time.Time
}

func newMemory() *memory {
	return &memory{
		trades: newRecent[numbered, struct{}](tradesHeard), orders: newRecent[numbered, step](ordersHeard), algos: newRecent[numbered, step](ordersHeard),
		marks: map[string]time.Time{}, bars: map[string]time.Time{},
	}
}

// firstTrade tells whether a trade has not been heard of.
func (m *memory) firstTrade(symbol string, id int64) bool {
	t := numbered{symbol, id}
	if _, heard := m.trades.get(t); heard {
		return false
	}
	m.trades.put(t, struct{}{})
	return true
}

// advance tells whether a step goes beyond what was heard of the order: what it executed never shrinks, and what
// has ended does not begin again. It fills in when the order began.
func advance(heard *recent[numbered, step], id numbered, s *step) bool {
	was, known := heard.get(id)
	if s.born.IsZero() {
		s.born = was.born
	}
	if known {
		switch c := s.executed.Cmp(was.executed); {
		case c < 0, c == 0 && s.rank < was.rank, c == 0 && s.rank == was.rank && !s.at.After(was.at):
			return false
		}
	}
	heard.put(id, *s)
	return true
}

// rank orders the statuses in which an order can follow itself. One that nobody knows has not ended.
func rank(status string) int {
	switch status {
	case "NEW":
		return 0
	case "FILLED", "CANCELED", "REJECTED", "EXPIRED", "EXPIRED_IN_MATCH", "FINISHED":
		return 2
	}
	return 1
}

// newer tells whether at is after what was heard of a symbol, and remembers it.
func newer(heard map[string]time.Time, symbol string, at time.Time) bool {
	if !at.After(heard[symbol]) {
		return false
	}
	heard[symbol] = at
	return true
}
