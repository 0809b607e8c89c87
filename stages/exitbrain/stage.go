// Package exitbrain decides when a position should come off: two exact kernels (SPEC §3), and
// the stage that runs them at every mark price and says at once what became true.
package exitbrain

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/pipeline"
)

type (
	// Offer is a proposal that is owed planning's answer.
	Offer = pipeline.Request[ledger.Proposal, ledger.Receipt]
	// Reload replaces the rules of every symbol.
	Reload = pipeline.Request[map[string]Config, struct{}]
	// Loop is the brain's loop: it writes, and does nothing outside the process.
	Loop = pipeline.Loop[*ledger.State, ledger.Event, struct{}]
	step = pipeline.Step[ledger.Event, struct{}]
)

// Stage hands proposals to apply, its own and those of others, one at a time: it waits until each is taken.
type Stage struct {
	Configs  map[string]Config // by symbol
	Exchange exchange.Exchange
	Board    *exchange.Board
	Loop     *Loop
	External <-chan Offer      // from the operator's API
	Offers   chan<- Offer      // to apply
	Bars     <-chan ledger.Bar // that have closed
	Marked   pipeline.Bell     // marks are on the board
	Changed  pipeline.Bell     // a position may have changed in the ledger
	Reloads  <-chan Reload     // from the operator
	Views    *Views
	Log      zerolog.Logger

	symbols map[string]*symbol
	fetched chan fetched
	asking  sync.WaitGroup
}

// symbol is what the brain knows of one market, and of what is held in it.
type symbol struct {
	name     string
	config   Config
	tick     ledger.Price
	market   *Market
	lastBar  ledger.Bar
	fetching bool
	blind    string // why there is no opinion; "" while there is
	held     []*position
	markAt   time.Time // of the mark that was judged last
}

// position is one of the symbol's, with what was said of it.
type position struct {
	Held
	kernel Position // but for what the mark changes
	lock   ledger.Price
	pulse  pulse
	last   Harvest
}

type fetched struct {
	symbol string
	params MarketParams // what they were asked for
	bars   []ledger.Bar
	err    error
}

// retryEvery is how often bars are asked for again where there were none.
const retryEvery = 5 * time.Second

// fetchMax is how long an answer with bars is awaited.
const fetchMax = 20 * time.Second

// Run works until it is stopped.
func (b *Stage) Run(stop pipeline.Stop) error {
	asking, cancel := context.WithCancel(stop.Hard)
	defer b.Loop.Wait()
	defer b.asking.Wait()
	defer cancel()
	b.begin()
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	b.fill(asking)
	b.refresh(stop.Hard)
	for {
		var proposals []ledger.Proposal
		select {
		case o := <-b.External:
			if !b.offer(stop, o) {
				return nil
			}
		case bar := <-b.Bars:
			proposals = b.onBar(stop.Hard, asking, bar)
		case f := <-b.fetched:
			b.onFetched(f)
		case <-b.Marked:
			proposals = b.onMarks()
		case <-b.Changed:
			b.refresh(stop.Hard)
			proposals = b.onMarks()
		case <-retry.C:
			b.fill(asking)
		case r := <-b.Reloads:
			b.reload(r)
			b.fill(asking)
		case <-stop.Soft:
			return nil
		case <-stop.Hard.Done():
			return nil
		}
		for _, p := range proposals {
			if !b.offer(stop, pipeline.Ask[ledger.Proposal, ledger.Receipt](p)) {
				return nil
			}
		}
	}
}

// offer waits until apply takes a proposal; it tells whether it did.
func (b *Stage) offer(stop pipeline.Stop, o Offer) bool {
	select {
	case b.Offers <- o:
		return true
	case <-stop.Soft:
	case <-stop.Hard.Done():
	}
	return false
}

func (b *Stage) begin() {
	b.symbols, b.fetched = map[string]*symbol{}, make(chan fetched, 1)
	for name, c := range b.Configs {
		b.symbols[name] = &symbol{name: name, config: c, tick: b.Board.Markets[name].Tick, market: NewMarket(c.MarketParams), blind: "no bars yet"}
	}
}

// reload takes the new rules over; where the market's constants changed, its past is read again.
func (b *Stage) reload(r Reload) {
	for name, c := range r.Value {
		s := b.symbols[name]
		if s.config.MarketParams != c.MarketParams {
			s.market, s.lastBar, s.blind = NewMarket(c.MarketParams), ledger.Bar{}, "the rules changed: reading bars again"
		}
		s.config = c
	}
	r.Reply <- struct{}{}
}

// fill asks for the past bars of every symbol that has none, or whose last is too old.
func (b *Stage) fill(ctx context.Context) {
	now := b.Exchange.Now()
	for _, s := range b.symbols {
		if s.fetching || !s.config.Enabled || s.current(now) {
			continue
		}
		s.fetching = true
		name, params := s.name, s.config.MarketParams
		b.asking.Go(func() {
			patience, cancel := context.WithTimeout(ctx, fetchMax)
			defer cancel()
			bars, err := b.Exchange.Bars(patience, name, min(params.Closes(), exchange.BarsPage))
			pipeline.Send(ctx, b.fetched, fetched{name, params, bars, err})
		})
	}
}

// current tells whether the newest bar is the newest there can be: a market state from older ones is of the past.
func (s *symbol) current(now time.Time) bool {
	length := s.lastBar.CloseAt.Sub(s.lastBar.OpenAt)
	return !s.lastBar.CloseAt.IsZero() && now.Before(s.lastBar.CloseAt.Add(2*length+barGrace))
}

// barGrace is how late a bar may come.
const barGrace = 5 * time.Second

// onFetched begins a market anew from its past.
func (b *Stage) onFetched(f fetched) {
	s := b.symbols[f.symbol]
	if s.fetching = false; f.params != s.config.MarketParams {
		return // The rules were changed meanwhile: the next look asks for what they need.
	}
	if f.err != nil {
		s.see(fmt.Sprintf("bars could not be read: %v", f.err), b.Log)
		return
	}
	s.market, s.lastBar = NewMarket(s.config.MarketParams), ledger.Bar{}
	for _, bar := range f.bars {
		if why := s.add(bar); why != "" {
			s.see(why, b.Log)
			return
		}
	}
	s.see(s.state(), b.Log)
	b.show(s)
}

// add takes one bar in; it says what is wrong with it.
func (s *symbol) add(bar ledger.Bar) string {
	if !s.lastBar.CloseAt.IsZero() && !bar.OpenAt.Equal(s.lastBar.CloseAt) {
		return fmt.Sprintf("bars are missing between %s and %s", clock(s.lastBar.CloseAt), clock(bar.OpenAt))
	}
	if bar.Close.Sign() <= 0 {
		return fmt.Sprintf("the bar of %s closes at %s", clock(bar.OpenAt), bar.Close)
	}
	if err := s.market.Add(bar.Close.Float()); err != nil {
		return fmt.Sprintf("the bar of %s closes at %s: %v", clock(bar.OpenAt), bar.Close, err)
	}
	s.lastBar = bar
	return ""
}

// state says why there is no market state, "" where there is.
func (s *symbol) state() string {
	if _, err := s.market.State(); err != nil {
		return fmt.Sprintf("%v: %d are needed", err, s.config.Closes())
	}
	return ""
}

// see notes why there is no opinion, and says so once.
func (s *symbol) see(blind string, log zerolog.Logger) {
	if blind != s.blind && blind != "" {
		log.Warn().Str("symbol", s.name).Msg("no opinion: " + blind)
	}
	s.blind = blind
}

// onBar takes a closed bar in. One that was seen before is dropped; one that leaves a gap has the past read again.
func (b *Stage) onBar(hard, asking context.Context, bar ledger.Bar) []ledger.Proposal {
	s := b.symbols[bar.Symbol]
	if s == nil || !s.config.Enabled || s.fetching || s.lastBar.CloseAt.IsZero() || bar.CloseAt.Before(s.lastBar.CloseAt) || bar.CloseAt.Equal(s.lastBar.CloseAt) {
		return nil
	}
	if why := s.add(bar); why != "" {
		s.see(why, b.Log)
		s.lastBar = ledger.Bar{}
		b.fill(asking)
		return nil
	}
	s.see(s.state(), b.Log)
	b.widen(hard, s, bar)
	proposals := b.judge(s, b.Board.Mark(s.name))
	b.show(s)
	return proposals
}

// widen extends the extremes of what is held, in the journal, so that a restart knows them.
func (b *Stage) widen(hard context.Context, s *symbol, bar ledger.Bar) {
	for _, p := range s.held {
		if !p.extend(bar.High, bar.Low) {
			continue
		}
		e := &ledger.PositionRanged{Key: p.Key, Epoch: p.Epoch, High: p.High, Low: p.Low}
		// An error is the ledger's halt, which ends this stage too.
		_ = b.Loop.Do(hard, func(st *ledger.State, _ time.Time) (out step) {
			if pos := st.Positions[e.Key]; pos != nil && pos.Epoch == e.Epoch && !e.High.Less(pos.High) && (pos.Low.IsZero() || !pos.Low.Less(e.Low)) {
				out.Events = []ledger.Event{e}
			}
			return out
		})
	}
}

// onMarks judges every symbol with a position whose mark is new.
func (b *Stage) onMarks() []ledger.Proposal {
	var proposals []ledger.Proposal
	for _, s := range b.symbols {
		if len(s.held) == 0 {
			continue
		}
		if m := b.Board.Mark(s.name); m.At.After(s.markAt) {
			proposals = append(proposals, b.judge(s, m)...)
		}
	}
	return proposals
}

// judge runs the harvest kernel on what is held of a symbol at a mark.
func (b *Stage) judge(s *symbol, m ledger.Mark) []ledger.Proposal {
	if m.At.After(s.markAt) {
		s.markAt = m.At
	}
	if !s.config.Enabled || len(s.held) == 0 {
		return nil
	}
	if why := s.doubt(m, b.Exchange.Now()); why != "" {
		s.see(why, b.Log)
		b.show(s)
		return nil
	}
	state, _ := s.market.State() // doubt has asked.
	var proposals []ledger.Proposal
	for _, p := range s.held {
		if !p.judge(s, &state, m, b.Log) {
			return proposals
		}
		if p.pulse.say(s.config, p.Epoch, opinionOf(p.last.Action, p.stop(), p.Held), m.At) {
			proposals = append(proposals, p.proposal(time.Now()))
			b.show(s)
		}
	}
	s.see("", b.Log)
	return proposals
}

// markAgeMax is how old a mark may be and still be judged.
const markAgeMax = 10 * time.Second

// doubt says why a mark, or the market it is of, can't be judged.
func (s *symbol) doubt(m ledger.Mark, now time.Time) string {
	if s.lastBar.CloseAt.IsZero() {
		return s.blind // Bars are on their way, or it was said what is wrong with them.
	}
	if why := s.state(); why != "" {
		return why
	}
	last := s.lastBar.Close.Float()
	switch price := m.Price.Float(); {
	case !s.current(now):
		return "no bar since " + clock(s.lastBar.CloseAt)
	case m.At.IsZero():
		return "no mark price yet"
	case price <= 0:
		return fmt.Sprintf("the mark price is %s", m.Price)
	case math.Abs(price/last-1) > s.config.MaxMove:
		return fmt.Sprintf("the mark price %s is too far from the last close, %s", m.Price, s.lastBar.Close)
	case !ledger.Fresh(m.At, now, markAgeMax):
		return "no mark price since " + clock(m.At)
	}
	return ""
}

// judge runs the kernel on one position; it tells whether there is an answer.
func (p *position) judge(s *symbol, state *MarketState, m ledger.Mark, log zerolog.Logger) bool {
	k := p.kernel
	k.PnL = m.Price.Float() - k.Entry
	if k.Side == ledger.Short {
		k.PnL = -k.PnL
	}
	k.AgeSec = max(0, m.At.Sub(p.OpenedAt).Seconds())
	h, err := Judge(&s.config.HarvestParams, &k, state, s.config.StopDist)
	if err != nil {
		s.see(err.Error(), log)
		return false
	}
	if h.NewStop != 0 && h.NewStop != p.last.NewStop {
		p.lock = priceAt(h.NewStop, s.tick)
	}
	p.kernel.AgeSec, p.kernel.PnL, p.last = k.AgeSec, k.PnL, h
	return true
}

// stop is the profit lock's price on the market's tick, 0 where there is none.
func (p *position) stop() ledger.Price {
	if p.last.NewStop == 0 {
		return ledger.Price{}
	}
	return p.lock
}

func (p *position) proposal(now time.Time) ledger.Proposal {
	return ledger.Proposal{
		Symbol: p.Key.Symbol, Side: p.Key.Side, Action: p.pulse.action, NewSL: p.pulse.stop, KillScore: p.last.KillScore,
		ComputedAt: now.UTC().Truncate(time.Millisecond), RNet: p.last.RNet, KComponents: p.last.Parts.Map(), ReasonCodes: p.last.Reasons.Codes(),
		Epoch: p.Epoch, Source: ledger.FromBrain,
	}
}

// refresh reads what is held from the ledger, and keeps what was said of positions that are still the same.
func (b *Stage) refresh(hard context.Context) {
	held := map[string][]*Held{}
	_ = b.Loop.Do(hard, func(st *ledger.State, _ time.Time) (out step) { // An error is the ledger's halt.
		clear(held)
		for _, k := range st.Keys() {
			if h := HeldOf(st, k); h != nil && b.symbols[k.Symbol] != nil {
				held[k.Symbol] = append(held[k.Symbol], h)
			}
		}
		return out
	})
	for name, s := range b.symbols {
		old := s.held
		s.held = nil
		for _, h := range held[name] {
			s.held = append(s.held, newPosition(h, old))
		}
		s.markAt = time.Time{} // What is held is judged at once.
		b.show(s)
	}
}

func newPosition(h *Held, old []*position) *position {
	p := &position{Held: *h, kernel: Position{Side: ledger.Long, Entry: h.Entry.Float(), Stop: h.Stop.Float()}}
	if h.Amount.Sign() < 0 {
		p.kernel.Side = ledger.Short
	}
	for _, o := range old {
		if o.Key == h.Key && o.Epoch == h.Epoch {
			p.pulse = o.pulse
			p.extend(o.High, o.Low)
		}
	}
	return p
}
