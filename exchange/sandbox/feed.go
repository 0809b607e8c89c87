package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// What the WebSocket files build on:
//
//	f := s.subscribe(); defer s.unsubscribe(f)
//	for { select { case <-f.wake: … case <-ctx.Done(): … } ; msgs, lost := s.take(f) }
//
// take returns everything that happened since it was last called, in order; lost tells
// that the reader was so slow that messages are missing, and its socket should be dropped.
// s.listening(key) tells whether a listen key is alive. s.fault(call, kind) takes one
// armed fault of a kind (see fault.go), once for each time that it befalls something:
// calls of sockets are "ws private" and "ws market". s.now() is the exchange's clock.
// The mutex is not held by the caller in any of these.

// message is one thing that the exchange says unasked. Which fields are set tells what it is about.
type message struct {
	At time.Time

	// The account changed: an ORDER_TRADE_UPDATE for each of Execs (and a TRADE_LITE for each
	// that has a trade), an ACCOUNT_UPDATE with Holdings if there are any, an ALGO_UPDATE for each of Stops.
	Execs    []execution
	Holdings []ledger.Holding // the positions that trades touched, as they are now; flat ones have amount 0
	Wallet   ledger.USD       // the wallet balance now
	Stops    []venue.Stop     // as they are now; one that triggered has the OrderID of its order

	Mark *ledger.Mark
	Bar  *kline // the bar of a minute, closed or under way

	Gone    string // a listen key that is no more: its sockets stay open and silent
	Expired bool   // Gone expired (listenKeyExpired is said); otherwise it was deleted
}

// execution is one step in the life of an order, as ORDER_TRADE_UPDATE tells it.
type execution struct {
	Type     string        // x: NEW, TRADE, EXPIRED, CANCELED, CALCULATED
	Order    venue.Order   // as it was right after this step: Status is X, Executed is z
	Trade    *ledger.Trade // of TRADE and CALCULATED
	Cost     ledger.USD    // what the order has traded so far, for the average price
	Realized ledger.USD    // rp, of Trade
}

// feed is one subscriber. Its fields but wake are guarded by the sandbox's mutex.
type feed struct {
	wake  chan struct{} // one is enough: whoever wakes takes all there is
	queue []message
	lost  bool

	account bool // it hears of the account alone, and not of prices and bars
}

// feedMax bounds what a subscriber that does not read is owed.
const feedMax = 1 << 14

func (s *Sandbox) subscribe() *feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &feed{wake: make(chan struct{}, 1)}
	s.feeds[f] = struct{}{}
	return f
}

// narrow leaves a subscriber what concerns the account.
func (s *Sandbox) narrow(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.account = true
}

func (s *Sandbox) unsubscribe(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.feeds, f)
}

func (s *Sandbox) take(f *feed) (messages []message, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	messages, lost = f.queue, f.lost
	f.queue, f.lost = nil, false
	return messages, lost
}

// tell gives a message to all subscribers. The caller holds the mutex.
func (s *Sandbox) tell(m message) {
	for f := range s.feeds {
		if f.account && (m.Mark != nil || m.Bar != nil) {
			continue
		}
		if len(f.queue) == feedMax {
			f.lost = true
			continue
		}
		f.queue = append(f.queue, m)
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// Run lets time pass: every second prices move and what is due happens. It ends with ctx.
func (s *Sandbox) Run(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.mu.Lock()
			s.tick(s.advance())
			s.mu.Unlock()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// commit takes note of what a change did, and tells the streams. The caller holds the mutex.
func (s *Sandbox) commit(c venue.Change) {
	if c.Empty() {
		return
	}
	m := message{At: c.At, Stops: c.Stops}
	m.Execs, m.Holdings = s.account.took(c, s.venue.Holdings())
	m.Wallet = s.account.wallet
	s.tell(m)
}

// quote tells of all prices. The caller holds the mutex.
func (s *Sandbox) quote(now time.Time) {
	for _, symbol := range s.venue.Symbols() {
		s.tell(message{At: now, Mark: &ledger.Mark{Symbol: symbol, Price: s.venue.Price(symbol), At: now}})
	}
}

// listenKey is the account's key to its stream: one at a time, and it lives for an hour after it was last asked for.
type listenKey struct {
	key   string
	until time.Time
}

const listenLife = time.Hour

// listening tells whether a listen key is alive.
func (s *Sandbox) listening(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance()
	return key != "" && s.listen.key == key
}

// openListenKey makes the key, or prolongs the one there is. The caller holds the mutex.
func (s *Sandbox) openListenKey(now time.Time) string {
	if s.listen.key == "" {
		sum := sha256.Sum256([]byte(s.o.Key + strconv.FormatUint(s.o.Seed, 10) + fmt.Sprint(now.UnixNano(), s.luck.Uint64())))
		s.listen.key = hex.EncodeToString(sum[:])
	}
	s.listen.until = now.Add(listenLife)
	return s.listen.key
}

// closeListenKey ends the key there is. The caller holds the mutex.
func (s *Sandbox) closeListenKey(now time.Time) {
	s.tell(message{At: now, Gone: s.listen.key})
	s.listen = listenKey{}
}

// barLength is that of the only kline there is a stream of.
const barLength = time.Minute

// bars tells of the bars that have closed since then, and of the one under way. The caller holds the mutex.
func (s *Sandbox) bars(then, now time.Time) {
	for _, symbol := range s.venue.Symbols() {
		if then.IsZero() {
			then = now
		}
		for open := then.Truncate(barLength); !open.After(now); open = open.Add(barLength) {
			if now.Before(open.Add(barLength)) && now.Unix()%underWay != 0 {
				continue
			}
			k := s.kline(symbol, open, barLength, now)
			s.tell(message{At: now, Bar: &k})
		}
	}
}

// ExpireListenKey ends the listen key now, as if its hour were over. It is for trying what a program does then.
func (s *Sandbox) ExpireListenKey() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.advance(); s.listen.key != "" {
		s.listen.until = now
		s.advance()
	}
}

func holdingOf(held []ledger.Holding, k ledger.Key) ledger.Holding {
	if i := slices.IndexFunc(held, func(h ledger.Holding) bool { return h.Key == k }); i >= 0 {
		return held[i]
	}
	return ledger.Holding{Key: k}
}
