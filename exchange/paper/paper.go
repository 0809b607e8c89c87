// Package paper is the port on the embedded exchange: a venue with a synthetic market,
// whose account outlives the process in a book of its own.
//
// Contract: one goroutine owns the venue and the book, and everybody else asks it. What
// it accepts is written to the book and fsynced before it answers, so an answer is never
// forgotten. When the book cannot be written the answer is Unknown, and nothing is
// served after it: what is in memory is then no longer what a restart would find.
package paper

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"permitchain/exchange/synthetic"
	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// Options are what a paper exchange is opened with. Seed and Positions make a new book; one that exists has its own.
type Options struct {
	Seed      uint64
	Speed     float64       // seconds of market that pass in a second; 0 is 1
	Bar       time.Duration // of market; 0 is a minute
	Symbols   []string
	Positions map[ledger.Key]ledger.Qty
	Hedge     bool
	Trader    bool             // someone reopens a position of Positions that was closed
	Now       func() time.Time // nil: time.Now
}

// Paper is an open paper exchange. It implements exchange.Exchange.
type Paper struct {
	now   func() time.Time
	calls chan func(now time.Time) // for the owner; taken means done
	quit  chan struct{}
	gone  chan struct{} // closed when the owner has left
	fault error         // why it left; read after gone

	// Below is the owner's.
	venue   *venue.Venue
	book    *book
	opening opening
	pace    synthetic.Clock
	marks   map[string]ledger.Mark
	bar     float64 // seconds of market in a bar
	barred  int64   // the number of the newest bar that was told of
	subs    map[*subscriber]struct{}
	trader  *trader // nil: nobody reopens anything
}

// ErrClosed tells that the paper exchange was closed before it was asked.
var ErrClosed = errors.New("the paper exchange is closed")

// The market moves once a second; the exchange forgets what ended so long ago that Binance would have.
const (
	markEvery = time.Second
	retention = 90 * 24 * time.Hour
	bookLimit = 64 << 20 // bytes, after which the book is written anew without what is forgotten
)

// Open opens the book at path, or begins it, and starts the exchange.
func Open(path string, o Options) (*Paper, error) {
	return open(path, o, bookLimit)
}

func open(path string, o Options, limit int64) (*Paper, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Speed == 0 {
		o.Speed = 1
	}
	if !(o.Speed > 0) || math.IsInf(o.Speed, 0) {
		return nil, fmt.Errorf("paper speed %v is not a positive number", o.Speed)
	}
	if o.Bar == 0 {
		o.Bar = time.Minute
	}
	p := &Paper{
		bar: o.Bar.Seconds(), now: o.Now, calls: make(chan func(time.Time)), quit: make(chan struct{}), gone: make(chan struct{}),
		marks: map[string]ledger.Mark{}, subs: map[*subscriber]struct{}{},
	}
	now := p.Now()
	if err := p.load(path, o, limit, now); err != nil {
		return nil, fmt.Errorf("open the paper exchange's book: %w", err)
	}
	if err := p.begin(o, now); err != nil {
		return nil, errors.Join(err, p.book.close())
	}
	go p.own()
	return p, nil
}

// newOpening is the account a new book begins with.
func newOpening(o Options, now time.Time) (opening, error) {
	op := opening{Version: bookVersion, Seed: o.Seed, Pace: synthetic.Clock{At: now, Speed: o.Speed}, State: venue.State{Hedge: o.Hedge}}
	for k, q := range o.Positions {
		s := synthetic.Of(o.Seed, k.Symbol)
		sideFits := (k.Side == ledger.Both && !o.Hedge) || (k.Side == ledger.Long && o.Hedge && q.Sign() >= 0) || (k.Side == ledger.Short && o.Hedge && q.Sign() <= 0)
		switch {
		case !sideFits:
			return op, fmt.Errorf("paper position %s %s does not fit the position mode (hedge: %v)", k, q, o.Hedge)
		case !q.FloorTo(s.Lot.Step).Equal(q) || (!q.IsZero() && q.Abs().Less(s.Lot.Min)):
			return op, fmt.Errorf("paper position %s %s is not a multiple of the market's step %s", k, q, s.Lot.Step)
		case !q.IsZero():
			op.Targets = append(op.Targets, ledger.Holding{Key: k, Amount: q, Entry: s.Price(0)})
		}
	}
	slices.SortFunc(op.Targets, func(a, b ledger.Holding) int { return compareKeys(a.Key, b.Key) })
	op.State.Holdings = op.Targets
	return op, nil
}

// load reads the book, beginning it where there is none, and makes the account it tells of.
func (p *Paper) load(path string, o Options, limit int64, now time.Time) error {
	b, err := openBook(path, limit, func(e entry) error {
		switch {
		case e.Opening != nil && p.venue == nil:
			p.take(*e.Opening)
			return nil
		case p.venue == nil:
			return errors.New("the first line is not an opening")
		case e.Pace != nil:
			p.pace = *e.Pace
			return nil
		case e.Change != nil:
			return p.venue.Redo(*e.Change)
		default:
			return errors.New("the line tells nothing that is known")
		}
	})
	if errors.Is(err, errNoBook) {
		var fresh opening
		if fresh, err = newOpening(o, now); err != nil {
			return err
		}
		p.take(fresh)
		b, err = createBook(path, limit, fresh)
	}
	p.book = b
	return err
}

func (p *Paper) take(o opening) {
	p.opening, p.pace = o, o.Pace
	// How many trades a fill splits into is the only luck left to a paper exchange; it need not be the same after a restart.
	p.venue = venue.Restore(venue.Options{Seed: o.Seed, Fee: ledger.MustPercent("0.05"), Odds: venue.Odds{Split: 0.3}}, o.State)
}

// begin brings the account of the book up to what was asked for and to the present price.
func (p *Paper) begin(o Options, now time.Time) error {
	if p.pace.Speed != o.Speed {
		p.pace = synthetic.Clock{At: now, SyntheticS: p.pace.Market(now), Speed: o.Speed}
		if err := p.book.append(entry{Pace: &p.pace}); err != nil {
			return err
		}
	}
	if p.venue.Hedge() != o.Hedge {
		c, err := p.venue.SetHedge(now, o.Hedge)
		if err != nil {
			return fmt.Errorf("switch the paper exchange's position mode (hedge: %v): %w", o.Hedge, err)
		}
		if err := p.commit(c); err != nil {
			return err
		}
	}
	for _, symbol := range append(p.venue.Symbols(), o.Symbols...) {
		p.venue.List(synthetic.Of(p.opening.Seed, symbol).Market)
	}
	if o.Trader {
		p.trader = &trader{luck: rand.New(rand.NewPCG(p.opening.Seed, uint64(now.UnixNano()))), due: map[ledger.Key]time.Time{}}
	}
	p.barred = p.newest(now)
	p.tick(now)
	return p.fault
}

// Close ends the exchange. It is an error if the exchange had ended by itself.
func (p *Paper) Close() error {
	select {
	case p.quit <- struct{}{}:
	case <-p.gone:
	}
	<-p.gone
	if errors.Is(p.fault, ErrClosed) {
		return nil
	}
	return p.fault
}

// Now is the exchange's clock.
func (p *Paper) Now() time.Time { return p.now().Round(0).UTC() }

func (p *Paper) own() {
	defer close(p.gone)
	ticker := time.NewTicker(markEvery)
	defer ticker.Stop()
	for p.fault == nil {
		select {
		case call := <-p.calls:
			call(p.Now())
		case <-ticker.C:
			p.tick(p.Now())
		case <-p.quit:
			p.fault = ErrClosed
		}
	}
	if err := p.book.close(); err != nil {
		p.fault = fmt.Errorf("close the paper exchange's book: %w", err)
	}
}

// ask has the owner run fn and returns what it returns. Taken tells whether fn was, or
// will be, run: without it, an error means that nothing happened and nothing will.
func ask[T any](ctx context.Context, p *Paper, fn func(now time.Time) T) (answer T, taken bool, err error) {
	if err := ctx.Err(); err != nil {
		return answer, false, err
	}
	reply := make(chan T, 1)
	select {
	case p.calls <- func(now time.Time) { reply <- fn(now) }:
	case <-p.gone:
		return answer, false, p.fault
	case <-ctx.Done():
		return answer, false, ctx.Err()
	}
	select {
	case answer = <-reply:
		return answer, true, nil
	case <-ctx.Done():
		return answer, true, ctx.Err()
	}
}

// commit makes a change durable and tells the subscribers. Its error ends the exchange.
func (p *Paper) commit(c venue.Change) error {
	if c.Empty() {
		return nil
	}
	if err := p.book.append(entry{Change: &c}); err != nil {
		p.fault = fmt.Errorf("write the paper exchange's book: %w", err)
		return p.fault
	}
	for s := range p.subs {
		s.changed(c.Keys())
	}
	return nil
}

// tick is what happens once a second: every price moves, which may fill stops, the
// trader looks, and a book that has grown too long is written anew.
func (p *Paper) tick(now time.Time) {
	at := p.pace.Market(now)
	for _, symbol := range p.venue.Symbols() {
		m := ledger.Mark{Symbol: symbol, Price: synthetic.Of(p.opening.Seed, symbol).Price(at), At: now}
		p.marks[symbol] = m
		for s := range p.subs {
			s.marked(m)
		}
		if p.commit(p.venue.Mark(now, symbol, m.Price)) != nil {
			return
		}
	}
	p.closeBars(now)
	if p.trader != nil && p.trade(now) != nil {
		return
	}
	if p.book.long() {
		p.fault = p.compact(now)
	}
}

// compact writes the book anew: one line for all that is remembered.
func (p *Paper) compact(now time.Time) error {
	p.opening.Pace, p.opening.State = p.pace, p.venue.State(now.Add(-retention))
	b, err := createBook(p.book.path, p.book.limit, p.opening)
	if err != nil {
		return fmt.Errorf("compact the paper exchange's book: %w", err)
	}
	err = p.book.close()
	p.book = b
	return err
}
