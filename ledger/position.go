package ledger

import (
	"slices"
	"time"
)

func (s *State) foldFill(e *FillBooked, r Record) {
	t := e.Trade
	pos := s.Positions[t.Key]
	pos.book(t.ID)
	if t.At.After(pos.LastTradeAt) {
		pos.LastTradeAt = t.At
	}
	change := t.Direction.Signed(t.Qty)
	amount, entry := pos.Amount.Add(change), pos.Entry
	if pos.Amount.Sign()*change.Sign() >= 0 {
		cost := Notional(pos.Amount, pos.Entry).Add(Notional(t.Qty, t.Price))
		entry = AveragePrice(cost, pos.Amount.Abs().Add(t.Qty))
	} else if amount.Sign()*change.Sign() > 0 {
		entry = t.Price
	}
	s.setAmount(pos, amount, entry, r.At, e.External)
	if e.External {
		return
	}
	i := s.Intents[t.ClientOrderID]
	i.Booked = i.Booked.Add(t.Qty)
	i.Executed = i.Executed.Max(i.Booked)
	s.settle(i)
	s.touch(IntentRef, i.ClientOrderID)
	p := s.plan(i.Plan, r.Seq)
	step := &p.Steps[i.Step]
	step.Filled = step.Filled.Add(t.Qty)
	step.Quote = step.Quote.Add(Notional(t.Qty, t.Price))
	if i.Kind != CloseStep {
		return
	}
	if step.Outcome.Final() {
		s.reclaim(p, i, pos, r.At)
	}
	if i.Epoch == pos.Epoch { // The fill of an order of an earlier life says nothing of this one's tranches.
		pos.completeTranches(p.Proposal.Action)
	}
}

// reclaim takes back what a step's end released: a trade of its order has come to light after it.
func (s *State) reclaim(p *Plan, i *Intent, pos *Position, at time.Time) {
	step, a := &p.Steps[i.Step], p.Proposal.Action
	size := step.Position.Exchange.Abs()
	if t, known := pos.Tranches[a]; a.IsTranche() && i.Epoch == pos.Epoch && (!known || t.Done && t.Amount.Less(size)) {
		if pos.Tranches == nil {
			pos.Tranches = map[Action]Tranche{}
		}
		pos.Tranches[a] = Tranche{Amount: size, Plan: p.ID}
	}
	if u := s.useOf(p, i.Step); u != nil {
		u.Notional = step.Quote
	} else if step.Governor.Budget != Unbudgeted {
		s.use(p.Proposal.Symbol, Use{Plan: p.ID, Step: i.Step, Budget: step.Governor.Budget, At: at, Notional: step.Quote, Spent: true})
	}
}

// setAmount changes a position. Only trades of others, and the operator, begin a
// new epoch: an order of ours that crosses zero closed what the ledger had missed.
func (s *State) setAmount(p *Position, amount Qty, entry Price, at time.Time, opens bool) {
	if amount.Sign()*p.Amount.Sign() <= 0 {
		p.cover(at) // What was to be protected is gone.
	}
	if opens && amount.Sign() != 0 && amount.Sign() != p.Amount.Sign() {
		p.Epoch++
		p.OpenedAt, p.Tranches, p.High, p.Low = at, nil, entry, entry
		p.Bare = 0
	}
	if amount.IsZero() {
		entry = Price{}
	}
	p.Amount, p.Entry, p.UpdatedAt = amount, entry, at
	p.Version++
	s.guard(p, at)
	s.touch(PositionRef, p.Key.String())
}

// guard judges whether the stop that stands covers its position: one that has grown since the stop was promised is in part
// without it, until it has been replaced.
func (s *State) guard(p *Position, at time.Time) {
	if p.Stop == nil || p.Stop.Epoch != p.Epoch {
		return
	}
	i := s.Intents[p.Stop.ClientOrderID]
	switch {
	case i == nil || i.Exchange.Sign() != p.Amount.Sign():
	case i.Exchange.Abs().Less(p.Amount.Abs()):
		p.bare(at)
	default:
		p.cover(at)
	}
}

// bare begins the time in which a wanted stop does not stand.
func (p *Position) bare(at time.Time) {
	if p.BareSince.IsZero() && !p.Amount.IsZero() {
		p.BareSince = at
	}
}

// cover ends it.
func (p *Position) cover(at time.Time) {
	p.Bare, p.BareSince = p.Unprotected(at), time.Time{}
}

func (p *Position) book(id int64) {
	i, _ := slices.BinarySearch(p.Beyond, id)
	p.Beyond = slices.Insert(p.Beyond, i, id)
}

func (p *Position) moveCursor(to int64) {
	p.Cursor = max(p.Cursor, to)
	p.Beyond = slices.DeleteFunc(p.Beyond, func(id int64) bool { return id <= p.Cursor })
	if len(p.Beyond) == 0 {
		p.Beyond = nil
	}
}

// completeTranches marks a tranche done, and the lower ones with it.
func (p *Position) completeTranches(a Action) {
	t, ok := p.Tranches[a]
	if !ok {
		return
	}
	for _, lower := range Tranches {
		p.Tranches[lower] = Tranche{Amount: t.Amount, Plan: t.Plan, Done: true}
		if lower == a {
			return
		}
	}
}
