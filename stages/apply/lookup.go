package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/pipeline"
)

// look asks the exchange about every open order that is not merely waiting for its answer, and now
// and then about the stops that should stand.
func (a *Stage) look(hard context.Context) error {
	standing := !a.now().Before(a.standAt)
	if standing {
		a.standAt = a.now().Add(standEvery)
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
		a.lookAt = earlier(a.standAt, a.now().Add(lookEvery))
		if !a.looking[t.i.ClientOrderID] {
			a.looking[t.i.ClientOrderID] = true
			a.spawn(func() { pipeline.Send(hard, a.lookups, a.lookup(hard, t.i, t.cursor, 0)) })
		}
	}
	return err
}

// lookup asks for one order, and for the trades it may have made. orderID is another id under which it may be listed, or 0.
func (a *Stage) lookup(ctx context.Context, i ledger.Intent, cursor, orderID int64) Lookup {
	l := Lookup{ID: i.ClientOrderID, At: a.Exchange.Now()}
	order, err := a.Exchange.Find(ctx, i.Key, i.ClientOrderID)
	switch {
	case err == nil:
		l.Order = &order
	case !errors.Is(err, exchange.ErrNotFound):
		l.Err = err
		return l
	}
	if l.Order == nil || older(&i, l.Order) {
		if l.Listed, l.Err = a.listed(ctx, &i, orderID); l.Err != nil {
			return l
		}
	}
	l.Trades, l.Err = exchange.TradesAfter(ctx, a.Exchange, i.Key.Symbol, cursor)
	return l
}

// listed are the orders since the sending that may be i's.
func (a *Stage) listed(ctx context.Context, i *ledger.Intent, orderID int64) ([]exchange.OrderState, error) {
	all, err := a.Exchange.OrdersSince(ctx, i.Key.Symbol, i.Since())
	if err != nil {
		return nil, err
	}
	some := slices.DeleteFunc(slices.Clone(all), func(o exchange.OrderState) bool {
		return o.ClientOrderID != i.ClientOrderID && (orderID == 0 || o.OrderID != orderID)
	})
	if n := len(all); n >= exchange.OrdersPage && len(some) == 0 && !all[n-1].CreatedAt.After(i.Fence) {
		return nil, fmt.Errorf("the list of %d orders since %s ends before the fence", n, i.Since().UTC().Format(time.RFC3339))
	}
	return some, nil
}

// learn records what a lookup proves and books the trades it brought.
func (a *Stage) learn(hard context.Context, l Lookup) error {
	delete(a.looking, l.ID)
	if l.Err != nil {
		a.Log.Warn().Err(l.Err).Str("order", l.ID).Msg("the order could not be looked up; tried again")
		if l.settle != nil {
			l.settle.Reply <- ledger.SettleResult{Error: "the order could not be looked up, and nothing was changed: " + l.Err.Error()}
		}
		return nil
	}
	var i ledger.Intent
	var f Finding
	err := a.do(hard, func(s *ledger.State, _ time.Time) (st step) {
		known := s.Intents[l.ID]
		if known == nil {
			return st
		}
		i = *known
		f = Learn(s, l, a.negatives[l.ID], a.see(i.Key.Symbol))
		a.remember(l.ID, f.Negatives)
		if f.Event != nil {
			st.Events = []ledger.Event{f.Event}
		}
		return st
	})
	if err != nil || i.Plan == "" {
		return err
	}
	a.alert(l, i, f)
	err = a.do(hard, func(s *ledger.State, _ time.Time) (st step) {
		own, _ := s.Unbooked(i.Key, l.Trades)
		st.Events = s.BookOwn(own)
		return st
	})
	if err == nil && l.settle != nil {
		err = a.settled(hard, l)
	}
	if err != nil {
		return err
	}
	if i.Kind == ledger.StopStep {
		return a.learnStop(hard, i, l)
	}
	a.ask()
	return a.progress(hard, i.Plan)
}

// An order that stays unknown for longer than this after its fence is told about, and again this often.
const (
	stuckAfter = 20 * time.Second
	alertEvery = time.Minute
)

// alert tells the operator of an order that nothing settles.
func (a *Stage) alert(l Lookup, i ledger.Intent, f Finding) {
	if f.Doubt == nil {
		delete(a.alerted, l.ID)
		return
	}
	if last, told := a.alerted[l.ID]; l.At.Sub(i.Fence) < stuckAfter || told && l.At.Sub(last) < alertEvery {
		return
	}
	a.alerted[l.ID] = l.At
	a.Log.Error().Err(f.Doubt).Str("symbol", i.Key.Label()).Str("order", l.ID).
		Msgf("what became of the order stays unknown, and nothing else is sent for its position: look at the exchange; permitchain orders settle %s --order-id N | --not-placed --reason …", l.ID)
}

// learnStop goes on with what a lookup told of a stop: it stands, it is gone, or it could not be placed.
func (a *Stage) learnStop(hard context.Context, i ledger.Intent, l Lookup) error {
	failed := false
	var left ledger.Qty
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
			order, _, _ := l.shown(known)
			st.Events, left = []ledger.Event{e}, Abandoned(s, known, order)
		}
		if len(negatives) > 0 {
			a.standAt = a.now().Add(lookEvery) // Missed once: look again soon.
			a.lookAt = a.standAt
		}
		return st
	})
	if err == nil && failed {
		err = a.stopFailed(hard, i.Key)
	}
	if err == nil {
		a.abandon(i.Key, l.ID, left, i.Epoch)
	}
	return errors.Join(err, a.progress(hard, i.Plan))
}

// remember keeps the lookups that found nothing.
func (a *Stage) remember(id string, negatives []time.Time) {
	if a.negatives[id] = negatives; len(negatives) == 0 {
		delete(a.negatives, id)
	}
}
