package paper

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// subscriber is one Stream. What it has not yet taken is kept once per symbol and once
// per position, so a slow one costs no more and misses no change; it sees the newest mark, and of the bars as many as are kept.
// The maps are the owner's.
type subscriber struct {
	wake    chan struct{} // one is enough: whoever wakes takes all there is
	marks   map[string]ledger.Mark
	bars    []ledger.Bar // in the order in which they closed
	touched map[ledger.Key]struct{}
}

func (s *subscriber) marked(m ledger.Mark) {
	s.marks[m.Symbol] = m
	s.ring()
}

// barsKept bounds what a subscriber that does not read is owed; it then sees a gap, and asks for the bars.
const barsKept = 4096

func (s *subscriber) closed(b ledger.Bar) {
	if len(s.bars) == barsKept {
		s.bars = s.bars[1:]
	}
	s.bars = append(s.bars, b)
	s.ring()
}

func (s *subscriber) changed(keys []ledger.Key) {
	for _, k := range keys {
		s.touched[k] = struct{}{}
	}
	s.ring()
}

func (s *subscriber) ring() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take is what there is to say: bars, the prices after them, then what changed.
func (s *subscriber) take() []exchange.StreamEvent {
	var events []exchange.StreamEvent
	for i := range s.bars {
		events = append(events, exchange.StreamEvent{Bar: &s.bars[i]})
	}
	for _, symbol := range slices.Sorted(maps.Keys(s.marks)) {
		m := s.marks[symbol]
		events = append(events, exchange.StreamEvent{Mark: &m})
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.touched), compareKeys) {
		events = append(events, exchange.StreamEvent{Changed: &k})
	}
	s.bars = nil
	clear(s.marks)
	clear(s.touched)
	return events
}

// Stream implements exchange.Exchange. It begins with the present prices.
func (p *Paper) Stream(ctx context.Context, emit func(exchange.StreamEvent)) error {
	s := &subscriber{wake: make(chan struct{}, 1), marks: map[string]ledger.Mark{}, touched: map[ledger.Key]struct{}{}}
	join := func(time.Time) bool {
		p.subs[s] = struct{}{}
		for _, m := range p.marks {
			s.marked(m)
		}
		return true
	}
	leave := func(time.Time) bool { delete(p.subs, s); return true }
	// Were the owner gone there would be no list to leave.
	defer func() { _, _, _ = ask(context.WithoutCancel(ctx), p, leave) }()
	if _, _, err := ask(ctx, p, join); err != nil {
		return fmt.Errorf("subscribe to the stream: %w", err)
	}
	for {
		select {
		case <-s.wake:
		case <-p.gone:
			return p.fault
		case <-ctx.Done():
			return ctx.Err()
		}
		events, err := query(ctx, p, "read the stream", func(time.Time) []exchange.StreamEvent { return s.take() })
		if err != nil {
			return err
		}
		for _, e := range events {
			emit(e)
		}
	}
}

func compareKeys(a, b ledger.Key) int {
	return cmp.Or(cmp.Compare(a.Symbol, b.Symbol), cmp.Compare(a.Side, b.Side))
}
