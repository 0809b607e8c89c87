package simulate

import (
	"fmt"
	"slices"
	"time"

	"permitchain/ledger"
	"permitchain/pipeline"
)

// others is what people and the exchange do to the account beside us.
func (w *world) others() {
	if w.quiet {
		return
	}
	k := w.anyKey()
	held := w.amountOf(k)
	switch {
	case w.on[Hand] > 0 && w.luck.IntN(3) == 0:
		w.struck(Hand)
		w.byHand(k, held)
	case w.on[Liquidation] > 0 && !held.IsZero() && w.luck.IntN(12) == 0:
		w.struck(Liquidation)
		if w.luck.IntN(2) == 0 {
			w.happened(w.venue.Liquidate(w.at(), k))
		} else {
			w.happened(w.venue.Deleverage(w.at(), k, held.Abs().Of(ledger.MustPercent("30")).FloorTo(w.markets[k.Symbol].Lot.Step)))
		}
	case w.on[ModeFlip] > 0 && w.luck.IntN(40) == 0:
		w.struck(ModeFlip)
		w.flip()
	}
	if w.on[StreamGap] > 0 && w.luck.IntN(10) == 0 {
		w.struck(StreamGap)
		w.deaf = w.now + w.between(sec, 60*sec)
	}
	if w.on[QueryFails] > 0 && w.luck.IntN(25) == 0 { // And now and then nothing is answered at all.
		w.banned = max(w.banned, w.now+w.between(sec, 30*sec))
	}
	w.after(w.between(2*sec, 40*sec), w.others)
}

// byHand is somebody's trade: more, less, the other way, or a new position.
func (w *world) byHand(k ledger.Key, held ledger.Qty) {
	step := w.markets[k.Symbol].Lot.Step
	part := held.Of(ledger.MustPercent(fmt.Sprint(1 + w.luck.IntN(150)))).FloorTo(step)
	switch n := w.luck.IntN(4); {
	case held.IsZero() || part.IsZero():
		w.happened(w.venue.Trade(w.at(), k, w.amount(k)))
	case n == 0:
		w.happened(w.venue.Trade(w.at(), k, part))
	default:
		w.happened(w.venue.Trade(w.at(), k, part.Neg()))
	}
}

// flip closes everything and switches the position mode.
func (w *world) flip() {
	orders, stops := w.venue.Open()
	for _, o := range orders {
		w.happened(w.venue.Cancel(w.at(), o.Symbol, o.OrderID, ""))
	}
	for _, s := range stops {
		w.happened(w.venue.CancelStop(w.at(), s.Symbol, s.ClientAlgoID))
	}
	for _, h := range w.venue.Holdings() {
		w.happened(w.venue.Trade(w.at(), h.Key, h.Amount.Neg()))
	}
	if _, err := w.venue.SetHedge(w.at(), !w.venue.Hedge()); err == nil {
		w.trace("world", fmt.Sprintf("hedge %t", w.venue.Hedge()))
		w.open(w.venue.Hedge())
	}
}

func (w *world) anyKey() ledger.Key {
	all := sides(w.venue.Hedge())
	return ledger.Key{Symbol: w.rules.Symbols[w.luck.IntN(len(w.rules.Symbols))], Side: all[w.luck.IntN(len(all))]}
}

// propose offers proposals, now and then one that was offered before.
func (w *world) propose() {
	if w.quiet {
		return
	}
	w.after(w.between(500*ms, 30*sec), w.propose)
	p := w.p
	if !p.alive || !p.running {
		return
	}
	var o ledger.Proposal
	if len(w.offered) > 0 && w.luck.IntN(5) == 0 {
		o = w.offered[w.luck.IntN(len(w.offered))]
	} else {
		o = w.proposal()
		if w.offered = append(w.offered, o); len(w.offered) > 16 {
			w.offered = w.offered[1:]
		}
	}
	w.proposed++
	p.turn(func() error { return p.apply.Offer(pipeline.Ask[ledger.Proposal, ledger.Receipt](o)) })
	if w.luck.IntN(8) == 0 {
		p.turn(func() error { return p.apply.Offer(pipeline.Ask[ledger.Proposal, ledger.Receipt](o)) })
	}
}

// actions are what is proposed, the common ones more than once.
var actions = [...]ledger.Action{
	ledger.Partial25, ledger.Partial25, ledger.Partial50, ledger.Partial75, ledger.FullClose, ledger.FullClose, ledger.FullClose, ledger.UpdateSL,
	ledger.UpdateSL, ledger.UpdateSL, ledger.Hold, "NONSENSE",
}

func (w *world) proposal() ledger.Proposal {
	k := w.anyKey()
	if w.amountOf(k).IsZero() {
		k = w.anyKey() // What is held is spoken of more often.
	}
	p := ledger.Proposal{
		Symbol: k.Symbol, Side: k.Side, Action: actions[w.luck.IntN(len(actions))], KillScore: float64(w.luck.IntN(100)) / 100,
		ComputedAt: w.p.wall().Add(-time.Duration(w.between(0, 2*sec))).Truncate(time.Millisecond), Source: ledger.FromExternal,
	}
	if w.luck.IntN(2) == 0 {
		p.Source = ledger.FromBrain
	}
	if w.luck.IntN(20) == 0 {
		p.ComputedAt = p.ComputedAt.Add(-time.Minute)
	}
	if p.Action == ledger.UpdateSL || w.luck.IntN(6) == 0 {
		off := 1 + w.luck.IntN(200) // In hundredths of a percent of the price.
		if w.amountOf(k).Sign() > 0 != (w.luck.IntN(10) == 0) {
			off = -off
		}
		p.NewSL = w.price(k.Symbol).Of(ledger.MustPercent(fmt.Sprintf("%.2f", 100+float64(off)/100)))
	}
	if w.luck.IntN(15) == 0 {
		p.Epoch = 1 + w.luck.Int64N(3)
	}
	return p
}

// operate is the operator at some instant.
func (w *world) operate() {
	if w.quiet || w.on[Operator] == 0 {
		return
	}
	w.after(w.between(5*sec, 150*sec), w.operate)
	p := w.p
	if !p.alive || !p.running {
		return
	}
	w.struck(Operator)
	k := w.anyKey()
	if w.luck.IntN(3) == 0 {
		k.Side = ledger.AnySide
	}
	switch w.luck.IntN(12) {
	case 0, 1:
		w.hold(k, true)
	case 2, 3, 4:
		w.hold(k, false)
	case 5:
		w.move(ledger.Killed)
	case 6:
		w.move(ledger.Disarmed)
	case 7, 8:
		w.move(ledger.Armed)
	case 9:
		w.move(ledger.ProtectiveOnly)
	case 10:
		f := pipeline.Ask[ledger.FlattenOrder, []ledger.Receipt](ledger.FlattenOrder{Force: w.luck.IntN(3) == 0, Who: "operator", Why: "simulated"})
		p.turn(func() error { return p.apply.Flatten(f) })
	default:
		w.sync(w.anyKey())
		w.settle()
	}
}

// decide is the operator's own record.
func (w *world) decide(fn func(*ledger.State) []ledger.Event) {
	p := w.p
	p.turn(func() error {
		_, err := p.journal.Decide(p.hard, func(s *ledger.State, _ time.Time) []ledger.Event { return fn(s) })
		return err
	})
}

func (w *world) move(to ledger.RunState) {
	w.decide(func(s *ledger.State) []ledger.Event {
		if s.Control.RunState == to {
			return nil
		}
		return []ledger.Event{&ledger.RunStateChanged{From: s.Control.RunState, To: to, Who: "operator", Why: "simulated"}}
	})
}

func (w *world) hold(k ledger.Key, set bool) {
	w.decide(func(s *ledger.State) []ledger.Event {
		switch has := s.Holds[k].Has(ledger.HoldOperator); {
		case set && !has:
			return []ledger.Event{&ledger.HoldPut{Key: k, Reason: ledger.HoldOperator, Owner: "operator", Evidence: "simulated"}}
		case !set && has:
			return []ledger.Event{&ledger.HoldCleared{Key: k, Reason: ledger.HoldOperator, Owner: "operator", Evidence: "simulated"}}
		}
		return nil
	})
}

func (w *world) sync(k ledger.Key) {
	p := w.p
	p.turn(func() error {
		p.rec.Sync(pipeline.Ask[ledger.SyncOrder, ledger.SyncResult](ledger.SyncOrder{Key: k, Who: "operator", Why: "simulated"}))
		return nil
	})
}

// settle is the operator's evidence, who has looked at the exchange's page: it is the truth, or nothing.
func (w *world) settle() {
	p := w.p
	if !p.alive {
		return
	}
	for _, i := range p.journal.state.Unresolved() {
		if i.State != ledger.Unknown || !w.at().After(i.Fence) {
			continue
		}
		o := ledger.SettleOrder{ClientOrderID: i.ClientOrderID, Who: "operator", Why: "looked at the page"}
		if found, ok := w.venue.Find(i.Key.Symbol, i.ClientOrderID); ok {
			o.OrderID = found.OrderID
		}
		if w.quiet {
			w.result.Escalated++
		}
		request := pipeline.Ask[ledger.SettleOrder, ledger.SettleResult](o)
		p.turn(func() error { return p.apply.Settle(request) })
		w.after(8*sec, func() {
			select {
			case res := <-request.Reply:
				w.trace("settled", fmt.Sprintf("%s %s %s", o.ClientOrderID, res.State, res.Error))
			default:
			}
		})
		return
	}
}

// tidy is the operator after the storm: what wants a person's word gets it.
func (w *world) tidy() {
	p := w.p
	if !p.alive || !p.running {
		w.after(sec, w.tidy)
		return
	}
	w.settle()
	for _, k := range heldKeys(p.journal.state) {
		switch {
		case !p.alive:
			return
		case p.journal.state.Holds[k].Has(ledger.HoldOperator):
			w.hold(k, false)
		}
		if k.Side != ledger.AnySide && len(p.journal.state.Holds[k]) > 0 {
			w.sync(k)
		}
	}
}

func heldKeys(s *ledger.State) []ledger.Key {
	var all []ledger.Key
	for k := range s.Holds {
		all = append(all, k)
	}
	slices.SortFunc(all, ledger.Key.Compare)
	return all
}
