package simulate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"permitchain/exchange"
	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// face is the exchange as one process sees it: the venue, behind a network and a day like any other.
type face struct {
	w *world
	p *process
}

var (
	_ exchange.Exchange = (*face)(nil)

	errNetwork = errors.New("the connection was reset")
	errBanned  = errors.New("418: no calls are taken")
)

// Now implements exchange.Exchange.
func (x *face) Now() time.Time { return x.w.at().Add(time.Duration(x.p.offset)) }

// way is how long a message takes to the exchange, or back.
func (x *face) way() int64 { return x.w.between(5*ms, 120*ms) }

// query is one question: it travels, is answered from what there is when it arrives, and the answer travels.
func query[T any](ctx context.Context, x *face, read func() T) (answer T, err error) {
	w := x.w
	switch {
	case ctx.Err() != nil || !x.p.alive:
		return answer, errDead
	case w.now < w.banned:
		w.sleep(ms)
		return answer, errBanned
	case !w.sleep(x.way()):
		return answer, errDead
	case w.strikes(QueryFails):
		w.sleep(w.between(ms, int64(w.rules.Timeout)))
		return answer, errNetwork
	}
	answer = read()
	back := x.way()
	if w.strikes(SlowAnswer) {
		back += w.between(sec, int64(w.rules.Timeout)-sec)
	}
	if !w.sleep(back) {
		return answer, errDead
	}
	return answer, nil
}

// Markets implements exchange.Exchange.
func (x *face) Markets(context.Context, []string) (map[string]exchange.Market, error) {
	return x.w.markets, nil
}

// Snapshot implements exchange.Exchange.
func (x *face) Snapshot(ctx context.Context) (ledger.Snapshot, error) {
	sent := x.Now()
	s, err := query(ctx, x, func() ledger.Snapshot {
		return ledger.Snapshot{SentAt: sent, Hedge: x.w.venue.Hedge(), Holdings: x.w.shown()}
	})
	if err == nil {
		x.p.served[sent] = s
	}
	return s, err
}

// shown is what queries tell of positions.
func (w *world) shown() []ledger.Holding {
	if !w.strikes(PositionLag) {
		return w.venue.Holdings()
	}
	then := w.now - w.between(100*ms, 3500*ms)
	for _, v := range slices.Backward(w.past) {
		if v.at <= then {
			return v.holdings
		}
	}
	return w.past[0].holdings
}

// Trades implements exchange.Exchange.
func (x *face) Trades(ctx context.Context, symbol string, after int64) ([]ledger.Trade, error) {
	return query(ctx, x, func() []ledger.Trade {
		all := x.w.venue.Trades(symbol, after, exchange.TradesPage)
		if x.w.strikes(TradesLag) {
			young := x.w.at().Add(-time.Duration(x.w.between(100*ms, 3500*ms)))
			for i, t := range all {
				if t.At.After(young) {
					all = all[:i]
					break
				}
			}
		}
		if x.w.strikes(Anonymous) {
			for i := range all {
				if x.w.luck.IntN(2) == 0 {
					all[i].ClientOrderID = ""
				}
			}
		}
		return all
	})
}

// LastTradeID implements exchange.Exchange.
func (x *face) LastTradeID(ctx context.Context, symbol string) (int64, error) {
	return query(ctx, x, func() int64 { return x.w.venue.LastTradeID(symbol) })
}

// Find implements exchange.Exchange. A stop that triggered is found as the order it became.
func (x *face) Find(ctx context.Context, k ledger.Key, id string) (exchange.OrderState, error) {
	found, err := query(ctx, x, func() []exchange.OrderState {
		young := time.Duration(0)
		if x.w.strikes(LookupLag) {
			young = time.Duration(x.w.between(100*ms, 10*sec))
		}
		if o, ok := x.w.venue.Find(k.Symbol, id); ok && !o.CreatedAt.After(x.w.at().Add(-young)) {
			return []exchange.OrderState{o}
		}
		if x.w.namesakes[id] || x.w.strikes(Namesake) {
			x.w.namesakes[id] = true
			return []exchange.OrderState{{
				ClientOrderID: id, OrderID: 1, Key: k, Direction: ledger.Sell, Status: "FILLED", Qty: x.w.markets[k.Symbol].Lot.Min,
				Executed: x.w.markets[k.Symbol].Lot.Min, CreatedAt: x.w.at().Add(-time.Hour),
			}}
		}
		return nil
	})
	switch {
	case err != nil:
		return exchange.OrderState{}, err
	case len(found) == 0:
		return exchange.OrderState{}, exchange.ErrNotFound
	}
	return found[0], nil
}

// OrdersSince implements exchange.Exchange. Stops are among the orders, those that triggered as the orders they became.
func (x *face) OrdersSince(ctx context.Context, symbol string, since time.Time) ([]exchange.OrderState, error) {
	return query(ctx, x, func() []exchange.OrderState {
		young := x.w.at()
		if x.w.strikes(LookupLag) {
			young = young.Add(-time.Duration(x.w.between(100*ms, 3500*ms)))
		}
		return slices.DeleteFunc(x.w.venue.Since(symbol, since), func(o exchange.OrderState) bool { return o.CreatedAt.After(young) })
	})
}

// OpenOrders implements exchange.Exchange.
func (x *face) OpenOrders(ctx context.Context) ([]exchange.OrderState, error) {
	return query(ctx, x, func() []exchange.OrderState { return x.w.venue.Working() })
}

// Bars implements exchange.Exchange.
func (x *face) Bars(context.Context, string, int) ([]ledger.Bar, error) { return nil, errNetwork }

// Stream implements exchange.Exchange; what the streams say reaches the stages by the world's own hand.
func (x *face) Stream(context.Context, func(exchange.StreamEvent)) error { return errNetwork }

// CancelStop implements exchange.Exchange. What fails may have been done.
func (x *face) CancelStop(ctx context.Context, k ledger.Key, id string) error {
	gone, err := query(ctx, x, func() bool {
		c, err := x.w.venue.CancelStop(x.w.at(), k.Symbol, id)
		x.w.happened(c, err)
		return err != nil
	})
	if err == nil && gone {
		err = exchange.ErrNotFound
	}
	return err
}

// Place implements exchange.Exchange: the request leaves, and what becomes of it no longer depends on the process.
func (x *face) Place(ctx context.Context, o exchange.Order) exchange.Answer {
	w := x.w
	signed := x.Now().Truncate(time.Millisecond)
	switch {
	case ctx.Err() != nil || !x.p.alive || w.running.dead:
		return exchange.Answer{Outcome: exchange.NotPlaced, Message: errDead.Error()}
	case !signed.Before(o.SendBefore):
		w.sleep(us)
		return exchange.Answer{Outcome: exchange.NotPlaced, Message: "it is too late to send it"}
	case w.now < w.banned:
		w.sleep(us)
		return exchange.Answer{Outcome: exchange.NotPlaced, Code: 418, Message: errBanned.Error(), RateLimited: true}
	}
	f := w.flight(o, signed)
	if w.on[Crash] > 0 {
		w.after(w.between(0, 200*ms), func() { w.crashes(0.05) }) // Between the sending and the answer.
	}
	w.park(func(r *routine, turn uint64) {
		f.answered = func() { w.resume(r, turn) }
		w.after(int64(w.rules.Timeout), func() { w.resume(r, turn) })
	})
	if f.answer == nil {
		return exchange.Answer{Outcome: exchange.Unknown, Message: "no answer in time"}
	}
	return *f.answer
}

// flight is an order on its way.
type flight struct {
	order    exchange.Order
	signed   time.Time
	answer   *exchange.Answer
	answered func()
}

// flight sends an order into the world.
func (w *world) flight(o exchange.Order, signed time.Time) *flight {
	f := &flight{order: o, signed: signed}
	w.judge.sent(o)
	w.result.Orders++
	w.traceSend(o)
	reply := func(a exchange.Answer, after int64) {
		w.after(after, func() {
			f.answer = &a
			if f.answered != nil {
				f.answered()
			}
		})
	}
	unknown := func(text string) exchange.Answer {
		return exchange.Answer{Outcome: exchange.Unknown, Message: text}
	}
	there, back := w.between(5*ms, 150*ms), w.between(5*ms, 150*ms)
	land := func() exchange.Answer { return w.land(f) }
	never := func() { w.judge.lost(o.ClientOrderID) }
	quick := w.between(ms, 300*ms) // when a broken connection is noticed
	window := int64(w.rules.RecvWindow)
	switch {
	case w.strikes(RequestLost):
		never()
		if w.luck.IntN(2) == 0 {
			reply(unknown("the connection was reset"), quick)
		}
	case w.strikes(AnswerLost):
		w.after(there, func() { land() })
	case w.strikes(UnknownAnswer):
		if w.luck.IntN(2) == 0 {
			w.after(there, func() { land() })
		} else {
			never()
		}
		reply(unknown(doubtful[w.luck.IntN(len(doubtful))]), there+back)
	case w.strikes(Late):
		w.after(w.luck.Int64N(window), func() { land() })
		reply(unknown("the connection was reset"), quick)
	case w.strikes(TooLate):
		never() // The engine will refuse it; were it to take it, the judge would see.
		w.after(window+w.between(sec, 5*sec), func() {
			a := land()
			reply(a, back)
		})
		if w.luck.IntN(2) == 0 {
			reply(unknown("the connection was reset"), quick)
		}
	case w.strikes(Refused):
		never()
		reply(exchange.Answer{Outcome: exchange.NotPlaced, Code: -1008, Message: "Server is currently overloaded"}, there+back)
	case w.strikes(RateLimit):
		never()
		w.banned = w.now + w.between(sec, 60*sec)
		reply(exchange.Answer{Outcome: exchange.NotPlaced, Code: 429, Message: "too many requests", RateLimited: true}, there+back)
	case w.strikes(SlowAnswer):
		w.after(there, func() { reply(land(), w.between(sec, int64(w.rules.Timeout)+sec)) })
	default:
		w.after(there, func() { reply(land(), back) })
	}
	return f
}

// doubtful are the answers that say nothing certain.
var doubtful = [...]string{
	"503 Unknown error, please check your request or try again later.", "503 -1001", "408 Request timeout", "502 Bad gateway", "500", "400 -1000",
	"400 -1006", "400 -1007", "200 with half a body", "200 -1000", "307",
}

// land is an order reaching the engine.
func (w *world) land(f *flight) exchange.Answer {
	o := f.order
	defer w.judge.landed(o.ClientOrderID)
	w.meddle(o)
	k := o.Key
	r := venue.Request{
		ClientOrderID: o.ClientOrderID, Symbol: k.Symbol, Side: k.Side, Direction: o.Direction, Qty: o.Qty, ReduceOnly: k.Side == ledger.Both,
		Trigger: o.Trigger, SignedAt: f.signed, RecvWindow: w.rules.RecvWindow,
	}
	odds, twin := venue.Odds{}, false
	switch {
	case !o.Trigger.IsZero():
	case w.strikes(Partial):
		odds.Expire = 1
	case w.strikes(Resting):
		odds.Rest = 1
	case w.strikes(Twin):
		odds.Rest, twin = 1, true
	}
	was := w.venue.SetOdds(venue.Odds{})
	odds.Split = was.Split
	w.venue.SetOdds(odds)
	defer w.venue.SetOdds(was)
	var c venue.Change
	err := error(nil)
	if w.at().Sub(f.signed) <= w.rules.RecvWindow { // What is older passed the door in time, and not the engine's.
		err = w.venue.Admit(w.at(), r)
	}
	if err == nil {
		c, err = w.venue.Place(w.at(), r)
	}
	w.venue.SetOdds(was)
	if err != nil {
		return w.rejected(o, err)
	}
	w.happened(c, nil)
	switch {
	case twin:
		return exchange.Answer{Outcome: exchange.Unknown, Code: -4116, Message: "ClientOrderId is duplicated."}
	case len(c.Stops) > 0:
		return exchange.Answer{Outcome: exchange.Placed, OrderID: c.Stops[0].AlgoID, Status: string(c.Stops[0].Status)}
	}
	placed := c.Orders[0]
	return exchange.Answer{Outcome: exchange.Placed, OrderID: placed.OrderID, Status: string(placed.Status), Executed: placed.Executed}
}

// rejected is the answer to an order that was refused.
func (w *world) rejected(o exchange.Order, err error) exchange.Answer {
	var r venue.Reject
	if !errors.As(err, &r) {
		panic(err) // The venue knows no other error.
	}
	w.trace("refused", fmt.Sprintf("%s %v", o.ClientOrderID, r))
	w.judge.refused(o, r)
	a := exchange.Answer{Outcome: exchange.NotPlaced, Code: r.Code, Message: r.Msg}
	if r.Code == -4116 {
		a.Outcome = exchange.Unknown
	}
	return a
}

// meddle is what others do in the instant before an order of ours lands.
func (w *world) meddle(o exchange.Order) {
	held := w.amountOf(o.Key)
	if held.IsZero() || !o.Trigger.IsZero() {
		return
	}
	step := w.markets[o.Key.Symbol].Lot.Step
	switch {
	case w.strikes(FlatFirst):
		q := held
		if w.luck.IntN(2) == 0 {
			if half := held.Of(ledger.MustPercent("50")).FloorTo(step); !half.IsZero() {
				q = half
			}
		}
		w.happened(w.venue.Trade(w.at(), o.Key, q.Neg()))
	case w.strikes(InTheWay):
		w.obstruct(o.Key, held)
	}
}

// obstruct has somebody's reduce-only order rest far from the market, for a while.
func (w *world) obstruct(k ledger.Key, held ledger.Qty) {
	far := "150"
	if held.Sign() < 0 {
		far = "50"
	}
	lot := w.markets[k.Symbol].Lot
	c, err := w.venue.Place(w.at(), venue.Request{
		ClientOrderID: fmt.Sprintf("web_rest_%d", w.issued), Symbol: k.Symbol, Side: k.Side, Direction: ledger.Reducing(held), Qty: held.Abs().Min(lot.Max), ReduceOnly: k.Side == ledger.Both,
		Limit: w.price(k.Symbol).Of(ledger.MustPercent(far)).FloorTo(w.markets[k.Symbol].Tick), SignedAt: w.at(), RecvWindow: time.Second,
	})
	w.happened(c, err)
	if err != nil || len(c.Orders) == 0 {
		return
	}
	w.after(w.between(100*ms, 30*sec), func() { w.happened(w.venue.Cancel(w.at(), k.Symbol, c.Orders[0].OrderID, "")) })
}
