package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/pipeline"
)

// cancelling is the way in which a stop that is no longer wanted is taken away.
type cancelling struct {
	asked bool // the answer is not in
	tries int  // that failed
	next  time.Time
}

// A cancel that fails is tried again after a second, and then ever more slowly.
const (
	cancelAfter  = time.Second
	cancelAtMost = time.Minute
)

// stopFailed closes what a stop could not be placed for, where the configuration says so.
func (a *Stage) stopFailed(hard context.Context, k ledger.Key) error {
	a.Log.Error().Str("symbol", k.Label()).Msg("a stop could not be placed: the position is without the wanted protection")
	if a.Rules(k.Symbol).OnStopFailure != CloseAll {
		return nil
	}
	return a.closeUnprotected(hard, k)
}

func (a *Stage) closeUnprotected(hard context.Context, k ledger.Key) error {
	return a.plan(hard, pipeline.Ask[ledger.Proposal, ledger.Receipt](ledger.Proposal{
		Symbol: k.Symbol, Side: k.Side, Action: ledger.FullClose, KillScore: 1, ComputedAt: a.now().UTC().Truncate(time.Millisecond),
		Source: ledger.FromBrain, ReasonCodes: []string{"stop_failed"},
	}))
}

// Abandoned is what the wanted stop i leaves of its position where it ends as o without having done what it stood for: rejected at
// its trigger, or expired with a rest. It is zero where the stop was cancelled, or nothing is left.
func Abandoned(s *ledger.State, i *ledger.Intent, o *exchange.OrderState) ledger.Qty {
	pos := s.Positions[i.Key]
	if o == nil || pos == nil || pos.Stop == nil || pos.Stop.ClientOrderID != i.ClientOrderID || pos.Stop.Epoch != pos.Epoch {
		return ledger.Qty{}
	}
	if !ledger.TerminalStatus(o.Status) || !o.Executed.Less(i.Qty) || o.Status == "CANCELED" && o.Executed.IsZero() {
		return ledger.Qty{}
	}
	return pos.Amount
}

// rest is what a triggered stop has left open, to be closed.
type rest struct {
	since time.Time // exchange clock
	epoch int64
}

// abandon tells of what a triggered stop has left, and has it closed where the configuration says so: once exchange and ledger
// agree about it, because until then the close would be denied, and it is proposed once.
func (a *Stage) abandon(k ledger.Key, id string, left ledger.Qty, epoch int64) {
	if left.IsZero() {
		return
	}
	a.Log.Error().Str("symbol", k.Label()).Str("order", id).Msgf("the stop has ended without closing the position: %s is left without protection", left)
	if a.Rules(k.Symbol).OnStopFailure == CloseAll {
		a.rests[k] = rest{a.Exchange.Now(), epoch}
		a.Ask.Ring()
	}
}

// closeRests closes what stops have left, unless it is gone or protected again.
func (a *Stage) closeRests(hard context.Context) error {
	if len(a.rests) == 0 {
		return nil
	}
	var ready []ledger.Key
	err := a.do(hard, func(s *ledger.State, _ time.Time) (st step) {
		for k, left := range a.rests {
			pos, see := s.Positions[k], a.see(k.Symbol)
			switch {
			case pos == nil || pos.Amount.IsZero() || pos.Epoch != left.epoch || pos.Stop != nil:
				delete(a.rests, k)
			case see.Snapshot == nil || !see.Snapshot.SentAt.After(left.since) || s.UnresolvedOn(k, ledger.CloseStep) != nil:
			case agrees(a.Rules(k.Symbol), pos, see):
				ready = append(ready, k)
			}
		}
		return st
	})
	slices.SortFunc(ready, ledger.Key.Compare)
	for _, k := range ready {
		delete(a.rests, k)
		err = errors.Join(err, a.closeUnprotected(hard, k))
	}
	return err
}

// tend keeps the stops true to their positions. Each is a step of its own: effects of one step follow each other, and a slow
// answer about one position must not make the stop of the next too late to be sent.
func (a *Stage) tend(hard context.Context) error {
	var keys []ledger.Key
	err := a.do(hard, func(s *ledger.State, _ time.Time) (st step) {
		for _, pos := range Tended(s) {
			keys = append(keys, pos.Key)
		}
		return st
	})
	for _, k := range keys {
		err = errors.Join(err, a.do(hard, func(s *ledger.State, now time.Time) (st step) {
			more := Tend(a.Rules(k.Symbol), s, s.Positions[k], a.see(k.Symbol), now)
			st.Events = more.Events
			for _, e := range more.Effects {
				if e.Cancel == nil || a.mayCancel(e.Cancel.ClientOrderID) {
					st.Effects = append(st.Effects, e)
				}
			}
			return st
		}))
	}
	return errors.Join(err, a.watchBare(hard))
}

// mayCancel tells whether a stop is to be cancelled now: it is not being cancelled, and not about to be again.
func (a *Stage) mayCancel(id string) bool {
	c := a.cancels[id]
	if c == nil {
		c = &cancelling{}
		a.cancels[id] = c
	}
	if c.asked || a.now().Before(c.next) {
		return false
	}
	c.asked = true
	return true
}

// stopGone records that a stop was cancelled, or had gone before.
func (a *Stage) stopGone(hard context.Context, g gone) error {
	a.sending--
	if g.err != nil && !errors.Is(g.err, exchange.ErrNotFound) {
		if c := a.cancels[g.id]; c != nil {
			wait := min(cancelAfter<<min(c.tries, 10), cancelAtMost)
			c.asked, c.tries, c.next = false, c.tries+1, a.now().Add(wait)
			a.Log.Warn().Err(g.err).Str("order", g.id).Msgf("a stop that is no longer wanted could not be cancelled; tried again in %s", wait)
		}
		return nil
	}
	delete(a.cancels, g.id)
	why := "cancelled"
	if g.err != nil {
		why = "not standing any more"
	}
	return a.do(hard, func(s *ledger.State, _ time.Time) (st step) {
		if i := s.Intents[g.id]; i != nil && i.State == ledger.Standing {
			st.Events = []ledger.Event{&ledger.StopGone{ClientOrderID: g.id, Why: why}}
		}
		return st
	})
}

// bareAfter is how long the placing of a stop may take before it is told about.
const bareAfter = 2 * time.Second

// watchBare tells when a position has not the stop that is wanted, and when it has again and for how long it had not.
func (a *Stage) watchBare(hard context.Context) error {
	type change struct {
		key   ledger.Key
		bare  time.Duration
		stood bool
		now   bool
		short string // it stands, and covers too little
	}
	var changes []change
	err := a.do(hard, func(s *ledger.State, now time.Time) (st step) {
		for k, pos := range s.Positions {
			since, was := a.bare[k]
			switch {
			case !was && !pos.BareSince.IsZero() && now.Sub(pos.BareSince) >= bareAfter:
				a.bare[k] = pos.BareSince
				c := change{key: k, now: true}
				if pos.Stop != nil {
					c.short = fmt.Sprintf("the wanted stop covers %s of a position of %s, and could not be replaced yet", pos.Stop.Qty, pos.Amount)
				}
				changes = append(changes, c)
			case was && pos.BareSince.IsZero():
				delete(a.bare, k)
				changes = append(changes, change{key: k, bare: now.Sub(since), stood: pos.Stop != nil})
			}
		}
		return st
	})
	for _, c := range changes {
		log := a.Log.With().Str("symbol", c.key.Label()).Logger()
		switch {
		case c.now && c.short != "":
			log.Error().Msg(c.short)
		case c.now:
			log.Error().Msg("the position is without its wanted stop")
		case c.stood:
			log.Warn().Float64("unprotected_s", c.bare.Seconds()).Msg("the wanted stop stands again")
		default:
			log.Warn().Float64("unprotected_s", c.bare.Seconds()).Msg("the position that was without its wanted stop is gone")
		}
	}
	return err
}

// inTheWayMax bounds how many orders an alert names.
const inTheWayMax = 8

// InTheWay names the open orders that can keep o from reducing: those of its position that trade the same way.
func InTheWay(o exchange.Order, open []exchange.OrderState) string {
	var names []string
	for _, x := range open {
		if x.Key != o.Key || x.Direction != o.Direction {
			continue
		}
		whose := "not ours"
		if ledger.OfOurForm(x.ClientOrderID) {
			whose = "ours"
		}
		names = append(names, fmt.Sprintf("order %d %s (%s): %s %s, executed %s, %s", x.OrderID, x.ClientOrderID, whose, x.Direction, x.Qty, x.Executed, x.Status))
	}
	switch n := len(names); {
	case n == 0:
		return "no open order of the position is in the way any more"
	case n > inTheWayMax:
		names = append(names[:inTheWayMax], fmt.Sprintf("and %d more", n-inTheWayMax))
	}
	return strings.Join(names, "; ")
}
