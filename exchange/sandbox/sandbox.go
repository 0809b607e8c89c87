// Package sandbox is Binance's USD-M futures as a program meets it: the REST and WebSocket
// face of a venue with a synthetic market, with every fault that the real one is known for.
//
// Contract: it shares no rule with the chain it judges. It keeps a log of its own of
// every order that was sent and of what that executed, and Verdict judges by it alone.
// One mutex owns the venue and everything else; it is held for arithmetic only, never
// across a sleep, a channel or I/O, so the sandbox also runs in a synctest bubble.
package sandbox

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"permitchain/exchange"
	"permitchain/exchange/synthetic"
	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// Options are what a sandbox is made with.
type Options struct {
	Seed        uint64
	Symbols     []string
	Positions   map[ledger.Key]ledger.Qty
	Hedge       bool
	Key         string
	Secret      string            // of HMAC; or an Ed25519 public key in PEM
	Speed       float64           // seconds of market that pass in a second; 0 is 1
	Reopen      time.Duration     // a position of Positions that was closed is opened again after it; 0: nobody reopens
	Odds        venue.Odds        // of the engine
	Faults      Profile           // of everything else
	Now         func() time.Time  // nil: time.Now
	Markets     []exchange.Market // rules instead of the synthetic ones; the symbols are listed too
	Weight      int               // request weight a minute; 0 is Binance's 2400
	MinNotional ledger.USD        // 0 is 5
	Withdrawals bool              // the key may withdraw
}

// Check tells what is wrong with options that a user gave.
func (o Options) Check() error {
	if o.Speed < 0 || math.IsNaN(o.Speed) || math.IsInf(o.Speed, 0) {
		return fmt.Errorf("sandbox speed %v is not a positive number", o.Speed)
	}
	if _, err := newVerifier(o.Secret); err != nil {
		return fmt.Errorf("sandbox secret: %w", err)
	}
	if err := o.Faults.check(); err != nil {
		return err
	}
	markets := o.markets()
	for k, q := range o.Positions {
		lot := markets[k.Symbol].Lot
		sideFits := (k.Side == ledger.Both && !o.Hedge) || (k.Side == ledger.Long && o.Hedge && q.Sign() >= 0) || (k.Side == ledger.Short && o.Hedge && q.Sign() <= 0)
		switch {
		case !sideFits:
			return fmt.Errorf("sandbox position %s %s does not fit the position mode (hedge: %v)", k, q, o.Hedge)
		case !q.FloorTo(lot.Step).Equal(q) || (!q.IsZero() && q.Abs().Less(lot.Min)):
			return fmt.Errorf("sandbox position %s %s is not a multiple of the market's step %s", k, q, lot.Step)
		}
	}
	return nil
}

// markets are the rules and the prices of all symbols that are listed.
func (o Options) markets() map[string]synthetic.Spec {
	all := map[string]synthetic.Spec{}
	for _, symbol := range o.Symbols {
		all[symbol] = synthetic.Of(o.Seed, symbol)
	}
	for k := range o.Positions {
		all[k.Symbol] = synthetic.Of(o.Seed, k.Symbol)
	}
	for _, m := range o.Markets {
		s := synthetic.Of(o.Seed, m.Symbol)
		s.Market = m
		all[m.Symbol] = s
	}
	return all
}

// Sandbox is one exchange with one account. Its methods may be called concurrently.
type Sandbox struct {
	o       Options
	verify  verifier
	markets map[string]synthetic.Spec
	kinds   map[Where][]Kind

	mu      sync.Mutex // guards everything below
	venue   *venue.Venue
	luck    *rand.Rand
	clock   synthetic.Clock
	ticked  time.Time // when the price last moved
	late    []landing // what has passed the door and not yet reached the engine
	listen  listenKey
	feeds   map[*feed]struct{}
	faults  faults
	struck  map[Kind]int
	limits  limits
	account account
	log     []*Entry
	due     map[ledger.Key]time.Time // when somebody reopens a flat position
}

// landing is something under way to the engine.
type landing struct {
	at   time.Time
	land func(now time.Time)
}

// Binance's numbers.
const (
	feePercent    = "0.05"
	firstOrderID  = 4087922044
	firstTradeID  = 698759
	weightDefault = 2400
)

// New makes a sandbox. Options that Check refuses make it panic.
func New(o Options) *Sandbox {
	if err := o.Check(); err != nil {
		panic(err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Speed == 0 {
		o.Speed = 1
	}
	if o.Weight == 0 {
		o.Weight = weightDefault
	}
	if o.MinNotional.IsZero() {
		o.MinNotional = ledger.MustUSD("5")
	}
	verify, _ := newVerifier(o.Secret) // Check has tried it.
	s := &Sandbox{
		o: o, verify: verify, markets: o.markets(), kinds: map[Where][]Kind{}, luck: rand.New(rand.NewPCG(o.Seed, 1)),
		feeds: map[*feed]struct{}{}, due: map[ledger.Key]time.Time{}, faults: faults{profile: o.Faults}, struck: map[Kind]int{},
	}
	for _, where := range []Where{OnAnswer, OnCall, OnOrder, OnOthers} {
		s.kinds[where] = Kinds(where)
	}
	now := s.now()
	s.clock = synthetic.Clock{At: now, Speed: o.Speed}
	state := venue.State{Hedge: o.Hedge}
	for _, symbol := range slices.Sorted(maps.Keys(s.markets)) {
		state.Symbols = append(state.Symbols, venue.SymbolState{Symbol: symbol, LastID: firstOrderID, LastTrade: firstTradeID})
	}
	for k, q := range o.Positions {
		if !q.IsZero() {
			state.Holdings = append(state.Holdings, ledger.Holding{Key: k, Amount: q, Entry: s.markets[k.Symbol].Price(0)})
		}
	}
	s.venue = venue.Restore(venue.Options{Seed: o.Seed, Fee: ledger.MustPercent(feePercent), Odds: o.Odds, MinNotional: o.MinNotional}, state)
	for _, m := range s.markets {
		s.venue.List(m.Market)
	}
	s.account = newAccount(now, s.venue.Holdings())
	s.tick(now)
	return s
}

func (s *Sandbox) now() time.Time { return s.o.Now().Round(0).UTC() }

// Do has fn do one thing to the account, and tells the streams of the change that it returns: of what it did beside
// that nobody would hear. fn must not block.
func (s *Sandbox) Do(fn func(v *venue.Venue, now time.Time) (venue.Change, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.advance()
	c, err := fn(s.venue, now)
	if err != nil {
		return err
	}
	s.commit(c)
	s.quote(now)
	return nil
}

// advance is what time alone has done: orders under way have landed, and the listen key may have expired.
// Everything that looks at the account calls it first. The caller holds the mutex.
func (s *Sandbox) advance() time.Time {
	now := s.now()
	slices.SortStableFunc(s.late, func(a, b landing) int { return a.at.Compare(b.at) })
	for len(s.late) > 0 && !now.Before(s.late[0].at) {
		next := s.late[0]
		s.late = s.late[1:]
		next.land(next.at)
	}
	if s.listen.key != "" && !now.Before(s.listen.until) {
		s.tell(message{At: now, Gone: s.listen.key, Expired: true})
		s.listen = listenKey{}
	}
	return now
}

// tick is what happens once a second: prices move, which may fill orders and trigger stops, and the trader looks.
func (s *Sandbox) tick(now time.Time) {
	for _, symbol := range s.venue.Symbols() {
		s.commit(s.venue.Mark(now, symbol, s.markets[symbol].Price(s.clock.Market(now))))
	}
	s.quote(now)
	s.bars(s.ticked, now)
	s.reopen(now)
	s.ticked = now
}

// reopen is someone else on the account, who wants the positions it began with: what was
// closed whole is opened again a while later. What was closed in part is the chain's business.
func (s *Sandbox) reopen(now time.Time) {
	if s.o.Reopen == 0 {
		return
	}
	held := s.venue.Holdings()
	for _, k := range slices.SortedFunc(maps.Keys(s.o.Positions), ledger.Key.Compare) {
		due, waiting := s.due[k]
		switch flat := !slices.ContainsFunc(held, func(h ledger.Holding) bool { return h.Key == k }); {
		case !flat:
			delete(s.due, k)
		case !waiting:
			s.due[k] = now.Add(s.o.Reopen)
		case !now.Before(due):
			delete(s.due, k)
			// What the engine refuses, such as a position of the other mode, the trader does not get.
			if c, err := s.venue.Trade(now, k, s.o.Positions[k]); err == nil {
				s.commit(c)
			}
		}
	}
}

// errCode is the refusal of an error of the venue's.
func errCode(err error) (r venue.Reject, ok bool) {
	ok = errors.As(err, &r)
	return r, ok
}
