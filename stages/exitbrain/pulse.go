package exitbrain

import (
	"time"

	"permitchain/ledger"
)

// pulse is what was proposed of a position last; it decides whether an opinion is said again.
type pulse struct {
	epoch  int64
	action ledger.Action // the opinion since, which may be to hold
	stop   ledger.Price
	said   ledger.Action // what was proposed at at
	at     time.Time
}

// opinion is what the kernels make of a position at one instant.
type opinion struct {
	action ledger.Action // Hold where nothing should be done
	stop   ledger.Price  // 0: none
}

// severity orders actions by how much they protect.
func severity(a ledger.Action) int {
	switch a {
	case ledger.UpdateSL:
		return 1
	case ledger.Partial25:
		return 2
	case ledger.Partial50:
		return 3
	case ledger.Partial75:
		return 4
	case ledger.FullClose:
		return 5
	default:
		return 0
	}
}

// say tells whether an opinion is to be proposed now, and remembers it if so: at once when it
// changed, though at most once per MinGap unless it tightens; else once per interval while there is something to do.
func (p *pulse) say(c Config, epoch int64, o opinion, now time.Time) bool {
	if p.epoch != epoch {
		*p = pulse{epoch: epoch, action: ledger.Hold}
	}
	changed := o.action != p.action || !o.stop.Equal(p.stop)
	switch {
	case o.action == ledger.Hold:
		p.action, p.stop = o.action, o.stop
		return false
	case changed && severity(o.action) <= severity(p.said) && now.Sub(p.at) < c.MinGap:
		return false
	case !changed && now.Sub(p.at) < c.interval(o.action):
		return false
	}
	p.action, p.stop, p.said, p.at = o.action, o.stop, o.action, now
	return true
}

// interval is how long an unchanged opinion waits: a close that must be is said more often until it is done.
func (c Config) interval(a ledger.Action) time.Duration {
	if a == ledger.FullClose {
		return min(c.Interval, c.CloseInterval)
	}
	return c.Interval
}

// opinionOf is what a kernel's answer becomes (SPEC §4), given what the position has behind it: a
// tranche that is done, at a size it has not outgrown, is not asked for again, and a stop only ever tightens.
func opinionOf(action ledger.Action, stop ledger.Price, held Held) opinion {
	if !stop.IsZero() && !held.tightens(stop) {
		stop = ledger.Price{}
	}
	if t, done := held.Done[action]; done && !t.Less(held.Amount.Abs()) {
		action = ledger.Hold
	}
	switch {
	case action == ledger.FullClose:
		stop = ledger.Price{}
	case action == ledger.Hold && !stop.IsZero():
		action = ledger.UpdateSL
	}
	return opinion{action, stop}
}

// Held is what the brain knows of a position, from the ledger.
type Held struct {
	Key      ledger.Key
	Amount   ledger.Qty
	Entry    ledger.Price
	Epoch    int64
	OpenedAt time.Time
	Stop     ledger.Price                 // the standing one, 0: none
	Done     map[ledger.Action]ledger.Qty // tranches done or under way, and |amount| when they were
	High     ledger.Price                 // the extremes of the mark in this epoch, as far as they are known
	Low      ledger.Price
}

func (h Held) tightens(stop ledger.Price) bool {
	if h.Stop.IsZero() {
		return true
	}
	if h.Amount.Sign() < 0 {
		return stop.Less(h.Stop)
	}
	return h.Stop.Less(stop)
}

// HeldOf is what the ledger knows of a position; nil where there is nothing to judge.
func HeldOf(s *ledger.State, k ledger.Key) *Held {
	p := s.Positions[k]
	if p == nil || p.Amount.IsZero() || p.Entry.Sign() <= 0 { // Without an entry price there is no R.
		return nil
	}
	h := &Held{Key: k, Amount: p.Amount, Entry: p.Entry, Epoch: p.Epoch, OpenedAt: p.OpenedAt, Done: map[ledger.Action]ledger.Qty{}, High: p.High, Low: p.Low}
	for a, t := range p.Tranches {
		h.Done[a] = t.Amount
	}
	if p.Stop != nil && p.Stop.Epoch == p.Epoch {
		h.Stop = p.Stop.Trigger
	}
	return h
}

// extend widens the extremes; it tells whether it did.
func (h *Held) extend(high, low ledger.Price) bool {
	wider := h.High.Less(high) || h.Low.IsZero() || low.Less(h.Low)
	if wider {
		h.High = h.High.Max(high)
		if h.Low.IsZero() || low.Less(h.Low) {
			h.Low = low
		}
	}
	return wider
}
