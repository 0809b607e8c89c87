package binance

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/ledger"
)

// The market stream's timing. A price comes each second.
const (
	marketLife  = 23 * time.Hour // the exchange ends a connection after 24
	marketQuiet = 10 * time.Second
)

// streamOptions are what the streams are made with.
type streamOptions struct {
	base     string // of all addresses, like wss://fstream.binance.com
	symbols  []string
	interval string // of bars, as the exchange names it
	dial     func(ctx context.Context, network, addr string) (net.Conn, error)
	account  account
	now      func() time.Time // the exchange's clock
	log      zerolog.Logger
}

// account is what the streams need of the exchange's other door, REST.
type account interface {
	// createListenKey makes a listen key, or gives the one there is another hour. Its error wraps ErrKey where the key is refused.
	createListenKey(ctx context.Context) (string, error)
	// keepListenKey gives a listen key another hour. Its error wraps errListenKeyGone where the exchange does not know it.
	keepListenKey(ctx context.Context, listenKey string) error
	// learnOrder is told whose an order is; a stop's id is told for the order the stop became.
	learnOrder(symbol string, orderID int64, clientOrderID string)
	// orderName is what learnOrder was told, or "".
	orderName(symbol string, orderID int64) string
}

// streams are the market's and the account's.
type streams struct {
	streamOptions
	facts     *facts
	witnessed chan []ledger.Trade // of trades that REST knows; a look that finds no room is not needed
}

func newStreams(o streamOptions) *streams {
	return &streams{streamOptions: o, facts: newFacts(), witnessed: make(chan []ledger.Trade, 16)}
}

// run keeps both streams up and emits what they say, until ctx is done or the key is refused for good. Before
// and after every gap, and whenever something was not understood, it emits that everything may have changed:
// what the streams lost, REST has.
func (s *streams) run(ctx context.Context, emit func(exchange.StreamEvent)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	in := make(chan heard)
	ended := make(chan error)
	dialer := newDialer(s.dial)
	market := &line{
		name: marketLine, dialer: dialer, facts: s.facts, life: marketLife, quiet: marketQuiet, proof: isMark,
		target: func(context.Context) (string, error) { return s.marketURL(), nil },
		fatal:  func(error) bool { return false }, renew: make(chan struct{}, 1), out: in,
	}
	key := &userKey{account: s.account, base: s.base}
	user := key.newLine(dialer, s.facts, in)
	runs := []func(context.Context) error{market.run, user.run, key.keep}
	for _, run := range runs {
		go func() { ended <- run(ctx) }()
	}
	o := &owner{streams: s, emit: emit, memory: newMemory(), key: key, unheard: map[numbered]time.Time{}}
	var first error
	for running := len(runs); running > 0; {
		select {
		case h := <-in:
			o.heard(h)
		case trades := <-s.witnessed:
			o.witness(trades)
		case <-o.proof:
			o.judge()
		case err := <-ended:
			running--
			first = cmp.Or(first, err)
			stop()
		}
	}
	return first
}

func isMark(raw []byte) bool { return bytes.Contains(raw, []byte(saidMark)) }

func (s *streams) marketURL() string {
	var names []string
	for _, name := range subscription(s.symbols, s.interval) {
		names = append(names, url.PathEscape(name))
	}
	return s.base + "/market/stream?streams=" + strings.Join(names, "/")
}

// witness is told of trades that REST knows. The account stream must tell of them, too: one that does not is not
// silent because nothing happens.
func (s *streams) witness(trades []ledger.Trade) {
	select {
	case s.witnessed <- slices.Clone(trades): // They are the caller's.
	default:
	}
}

// owner has all that the streams said; one goroutine calls it.
type owner struct {
	*streams
	*memory
	emit    func(exchange.StreamEvent)
	key     *userKey
	since   time.Time              // on the exchange's clock: since when the account stream should hear everything; zero: it is down
	unheard map[numbered]time.Time // trades that only REST knows of, and since when
	proof   <-chan time.Time       // when to judge them
	bad     int
}

// The account stream is given so long to tell of a trade that REST knows.
const (
	tellMax   = 10 * time.Second
	settleMax = 2 * time.Second // after connecting: until then a trade may have been told to nobody
	waitMax   = 256             // trades that are waited for
)

func (o *owner) heard(h heard) {
	if h.raw == nil {
		if h.line.name == marketLine {
			return // A price that was missed is past, and a missing bar is seen by whoever needs it.
		}
		o.since = time.Time{}
		if h.up {
			o.since = o.now()
		}
		o.changed(ledger.Key{})
		return
	}
	m, err := decode(h.raw)
	switch {
	case err != nil:
		o.facts.change(func(v *StreamFacts) { v.Malformed++ })
		if o.bad++; o.bad <= typesKept {
			o.log.Warn().Str("stream", h.line.name).Str("message", o.shown(h.raw)).Err(err).Msg("a message of the exchange was not understood")
		}
		o.changed(ledger.Key{})
		return
	case !m.known && o.facts.unknown(m.kind):
		o.log.Warn().Str("stream", h.line.name).Str("message", o.shown(h.raw)).Msg("a message of the exchange has a type nobody knows")
	case m.known:
		o.facts.event(h.line.name, m.kind)
	}
	o.take(m)
}

// shown is a message as it may be logged: bounded, and without the listen key, which opens the account's stream.
func (o *owner) shown(raw []byte) string {
	text := hide(o.key.redact(string(raw)))
	return text[:min(len(text), messageKept)]
}

func (o *owner) take(m message) {
	switch {
	case m.mark != nil:
		// Our idea of the exchange's clock may be a little behind it, and what is of the future nobody may judge by. It counts
		// as of now also beside the next: one that is dated wrong must not silence those after it.
		if now := o.now(); m.mark.At.After(now) {
			m.mark.At = now
		}
		if o.fresh(newer(o.marks, m.mark.Symbol, m.mark.At)) {
			o.emit(exchange.StreamEvent{Mark: m.mark})
		}
	case m.bar != nil:
		if o.fresh(newer(o.bars, m.bar.Symbol, m.bar.OpenAt)) {
			o.emit(exchange.StreamEvent{Bar: m.bar})
		}
	case m.order != nil:
		o.order(m.order)
	case m.algo != nil:
		o.algo(m.algo)
	case m.kind == saidExpired:
		o.key.expired(m.expired)
	}
	for _, k := range m.changed {
		o.changed(k)
	}
}

func (o *owner) fresh(first bool) bool {
	if !first {
		o.facts.change(func(v *StreamFacts) { v.Repeated++ })
	}
	return first
}

func (o *owner) changed(k ledger.Key) { o.emit(exchange.StreamEvent{Changed: &k}) }

// order emits a step of an order, and its trade. The order that a stop became belongs to the stop's client id;
// where that is not known yet only REST can tell whose it is.
func (o *owner) order(said *orderSaid) {
	id := numbered{said.state.Key.Symbol, said.state.OrderID}
	if said.tradeID > 0 {
		delete(o.unheard, numbered{id.symbol, said.tradeID})
	}
	newTrade := said.tradeID > 0 && o.firstTrade(id.symbol, said.tradeID)
	s := step{executed: said.state.Executed, rank: rank(said.state.Status), at: said.at, born: said.state.CreatedAt}
	newStep := advance(o.orders, id, &s)
	if !o.fresh(newTrade || newStep) {
		return
	}
	said.state.CreatedAt = s.born
	if o.named(said) {
		if newTrade && said.trade != nil {
			said.trade.ClientOrderID = said.state.ClientOrderID
			o.emit(exchange.StreamEvent{Trade: said.trade})
		}
		if newStep {
			o.emit(exchange.StreamEvent{Order: &said.state})
		}
	}
	o.changed(said.state.Key)
}

// named finds whose an order is, and tells whether that is certain.
func (o *owner) named(said *orderSaid) bool {
	if said.fromStop && !ledger.OfStopForm(said.state.ClientOrderID) {
		name := o.account.orderName(said.state.Key.Symbol, said.state.OrderID)
		if name == "" {
			return false
		}
		said.state.ClientOrderID = name
	}
	o.account.learnOrder(said.state.Key.Symbol, said.state.OrderID, said.state.ClientOrderID)
	return true
}

// algo emits a step of a stop that has not become an order. Once it has, it is the order that tells.
func (o *owner) algo(said *algoSaid) {
	symbol := said.state.Key.Symbol
	if said.orderID > 0 {
		o.account.learnOrder(symbol, said.orderID, said.state.ClientOrderID)
	}
	s := step{rank: rank(said.state.Status), at: said.at, born: said.state.CreatedAt}
	if !o.fresh(advance(o.algos, numbered{symbol, said.state.OrderID}, &s)) {
		return
	}
	said.state.CreatedAt = s.born
	if said.orderID == 0 && s.rank != 1 {
		o.emit(exchange.StreamEvent{Order: &said.state})
	}
	o.changed(said.state.Key)
}

// witness notes the trades that REST knows and the account stream has not told, though it was up when they happened.
func (o *owner) witness(trades []ledger.Trade) {
	for _, t := range trades {
		id := numbered{t.Symbol, t.ID}
		_, told := o.trades.get(id)
		_, noted := o.unheard[id]
		if told || noted || o.since.IsZero() || t.At.Before(o.since.Add(settleMax)) || len(o.unheard) >= waitMax {
			continue
		}
		o.unheard[id] = o.now()
	}
	if len(o.unheard) > 0 && o.proof == nil {
		o.proof = time.After(tellMax)
	}
}

// judge looks whether the account stream has told since. One that has not is silent for good, and is replaced, with its key.
func (o *owner) judge() {
	o.proof = nil
	silent := false
	for id, noted := range o.unheard {
		if o.now().Sub(noted) >= tellMax-time.Second {
			silent = true
			delete(o.unheard, id)
		}
	}
	if silent {
		o.facts.change(func(v *StreamFacts) { v.Silences++ })
		o.log.Warn().Msg("the account stream is silent about trades that the exchange knows: it is opened anew")
		clear(o.unheard)
		o.key.renew()
	} else if len(o.unheard) > 0 {
		o.proof = time.After(tellMax)
	}
}

// errListenKeyGone tells that the exchange does not know a listen key (-1125).
var errListenKeyGone = errors.New("the exchange does not know the listen key")
