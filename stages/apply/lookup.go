package apply

import (
	"context"
	"errors"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/pipeline"
)

// look asks the exchange about every open order that is not merely waiting for its answer, and now
// and then about the stops that should stand.
func (a *Stage) look(hard context.Context) error {
	standing := !time.Now().Before(a.standAt)
	if standing {
		a.standAt = time.Now().Add(standEvery)
	}
	a.lookAt, a.placed = a.standAt, false
	type target struct {
		i      ledger.Intent
		cursor int64
	}
	var targets []target
	err := a.do(hard, func(s *ledger.State, _ time.Time) (st step) {
		for _, i := range Wanted(s, standing) {
			t := target{i: *i}
			if pos := s.Positions[i.Key]; pos != nil {
				t.cursor = pos.Cursor
			}
			targets = append(targets, t)
		}
		return st
	})
	for _, t := range targets {
		a.lookAt = earlier(a.standAt, time.Now().Add(lookEvery))
		if !a.looking[t.i.ClientOrderID] {
			a.looking[t.i.ClientOrderID] = true
			a.asking.Go(func() { pipeline.Send(hard, a.lookups, a.lookup(hard, t.i, t.cursor)) })
		}
	}
	return err
}

// lookup asks for one order, and for the trades it may have made.
func (a *Stage) lookup(ctx context.Context, i ledger.Intent, cursor int64) Lookup {
	l := Lookup{ID: i.ClientOrderID, At: a.Exchange.Now()}
	order, err := a.Exchange.Find(ctx, i.Key, i.ClientOrderID)
	switch {
	case err == nil:
		l.Order = &order
	case !errors.Is(err, exchange.ErrNotFound):
		l.Err = err
		return l
	default:
		orders, err := a.Exchange.OrdersSince(ctx, i.Key.Symbol, i.SendBefore.Add(-sendWithin-time.Second))
		if l.Err = err; err != nil {
			return l
		}
		for _, o := range orders {
			l.Listed = l.Listed || o.ClientOrderID == i.ClientOrderID
		}
	}
	l.Trades, l.Err = exchange.TradesAfter(ctx, a.Exchange, i.Key.Symbol, cursor)
	return l
}

// learn records what a lookup proves and books the trades it brought.
func (a *Stage) learn(hard context.Context, l Lookup) error {
	delete(a.looking, l.ID)
	if l.Err != nil {
		a.Log.Warn().Err(l.Err).Str("order", l.ID).Msg("the order could not be looked up; tried again")
		return nil
	}
	var i ledger.Intent
	err := a.do(hard, func(s *ledger.State, _ time.Time) (st step) {
		known := s.Intents[l.ID]
		if known == nil {
			return st
		}
		i = *known
		e, negatives := Learn(s, l, a.negatives[l.ID], a.see(i.Key.Symbol))
		a.remember(l.ID, negatives)
		if e != nil {
			st.Events = []ledger.Event{e}
		}
		return st
	})
	if err != nil || i.Plan == "" {
		return err
	}
	err = a.do(hard, func(s *ledger.State, _ time.Time) (st step) {
		own, _ := s.Unbooked(i.Key, l.Trades)
		st.Events = s.BookOwn(own)
		return st
	})
	if err != nil {
		return err
	}
	if i.Kind == ledger.StopStep {
		return a.learnStop(hard, i, l)
	}
	a.ask()
	return a.progress(hard, i.Plan)
}

// learnStop goes on with what a lookup told of a stop: it stands, it is gone, or it could not be placed.
func (a *Stage) learnStop(hard context.Context, i ledger.Intent, l Lookup) error {
	failed := false
	err := a.do(hard, func(s *ledger.State, _ time.Time) (st step) {
		known := s.Intents[l.ID]
		if known == nil {
			return st // Gone, and so old that it has left memory.
		}
		failed = i.State != ledger.NotPlaced && known.State == ledger.NotPlaced
		if known.State != ledger.Standing {
			return st
		}
		e, negatives := Gone(s, l, a.negatives[l.ID])
		a.remember(l.ID, negatives)
		if e != nil {
			st.Events = []ledger.Event{e}
		}
		if len(negatives) > 0 {
			a.standAt = time.Now().Add(lookEvery) // Missed once: look again soon.
			a.lookAt = a.standAt
		}
		return st
	})
	if err == nil && failed {
		err = a.stopFailed(hard, i.Key)
	}
	return errors.Join(err, a.progress(hard, i.Plan))
}

// remember keeps the lookups that found nothing.
func (a *Stage) remember(id string, negatives []time.Time) {
	if a.negatives[id] = negatives; len(negatives) == 0 {
		delete(a.negatives, id)
	}
}
