package sandbox

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// account is what the sandbox itself adds up from the trades alone: money, and the
// evidence that Verdict judges by. The venue's own sums are only compared with it.
type account struct {
	wallet   ledger.USD
	held     map[ledger.Key]ledger.Holding // as the last change left it
	touched  map[ledger.Key]time.Time
	orders   map[orderRef]venue.Order
	costs    map[orderRef]ledger.USD
	stops    map[orderRef]bool // the orders that were stops
	fills    map[string][]fill // by symbol, in order of their ids
	engine   map[string][]orderRef
	executed map[string]ledger.Qty // by client id
	broken   []string              // what an order of ours did to a position that none may do
}

// orderRef is what names an order for good: client ids can be used again.
type orderRef struct {
	symbol string
	id     int64
}

// fill is a trade, and what it earned.
type fill struct {
	ledger.Trade
	realized ledger.USD
}

func newAccount(now time.Time, held []ledger.Holding) account {
	a := account{
		wallet: ledger.MustUSD("100000"), held: map[ledger.Key]ledger.Holding{}, touched: map[ledger.Key]time.Time{},
		orders: map[orderRef]venue.Order{}, costs: map[orderRef]ledger.USD{}, stops: map[orderRef]bool{}, fills: map[string][]fill{},
		engine: map[string][]orderRef{}, executed: map[string]ledger.Qty{},
	}
	for _, h := range held {
		a.held[h.Key], a.touched[h.Key] = h, now
	}
	return a
}

// took adds up a change, and tells it step by step. held is what the account holds after it.
func (a *account) took(c venue.Change, held []ledger.Holding) (steps []execution, positions []ledger.Holding) {
	for _, stop := range c.Stops {
		if stop.OrderID != 0 {
			a.stops[orderRef{stop.Symbol, stop.OrderID}] = true
		}
	}
	for _, o := range c.Orders {
		ref := orderRef{o.Symbol, o.OrderID}
		was, known := a.orders[ref]
		step := o
		step.Executed = was.Executed
		if !known {
			step.Status = venue.StatusNew
			steps = append(steps, execution{Type: "NEW", Order: step})
			a.engine[o.ClientOrderID] = append(a.engine[o.ClientOrderID], ref)
		}
		for _, t := range c.Trades {
			if t.Symbol == o.Symbol && t.OrderID == o.OrderID {
				steps = append(steps, a.trade(t, &step))
				positions = append(positions, ledger.Holding{Key: t.Key})
			}
		}
		if o.Status == venue.StatusExpired || o.Status == venue.StatusCanceled {
			steps = append(steps, execution{Type: string(o.Status), Order: o, Cost: a.costs[ref]})
		}
		a.orders[ref] = o
	}
	slices.SortFunc(positions, func(x, y ledger.Holding) int { return x.Compare(y.Key) })
	positions = slices.CompactFunc(positions, func(x, y ledger.Holding) bool { return x.Key == y.Key })
	for i, p := range positions {
		positions[i] = holdingOf(held, p.Key)
		if sum := a.held[p.Key].Amount; !sum.Equal(positions[i].Amount) {
			a.broken = append(a.broken, fmt.Sprintf("the venue holds %s of %s, its trades add up to %s", positions[i].Amount, p.Key, sum))
		}
		a.held[p.Key] = positions[i]
		a.touched[p.Key] = c.At
	}
	return steps, positions
}

// trade adds up one trade of an order, whose state it carries on.
func (a *account) trade(t ledger.Trade, step *venue.Order) execution {
	ref := orderRef{t.Symbol, t.OrderID}
	a.costs[ref] = a.costs[ref].Add(ledger.Notional(t.Qty, t.Price))
	step.Executed = step.Executed.Add(t.Qty)
	step.Status = venue.StatusPartiallyFilled
	if step.Executed.Equal(step.Qty) {
		step.Status = venue.StatusFilled
	}
	h := a.held[t.Key]
	h.Key = t.Key
	before := h.Amount
	h.Amount = before.Add(t.Direction.Signed(t.Qty))
	var realized ledger.USD
	if before.Sign()*t.Direction.Signed(t.Qty).Sign() < 0 {
		closed := before.Abs().Min(t.Qty)
		realized = ledger.Notional(closed, t.Price).Sub(ledger.Notional(closed, h.Entry))
		if before.Sign() < 0 {
			realized = realized.Neg()
		}
	}
	if h.Amount.Sign() != before.Sign() {
		h.Entry = t.Price
	}
	a.held[t.Key] = h
	a.wallet = a.wallet.Add(realized).Sub(t.FeeUSD)
	a.fills[t.Symbol] = append(a.fills[t.Symbol], fill{t, realized})
	a.executed[t.ClientOrderID] = a.executed[t.ClientOrderID].Add(t.Qty)
	if ledger.OfOurForm(t.ClientOrderID) && (h.Amount.Sign()*before.Sign() < 0 || !h.Amount.Abs().Less(before.Abs())) {
		a.broken = append(a.broken, fmt.Sprintf("%s took %s from %s to %s", t.ClientOrderID, t.Key, before, h.Amount))
	}
	x := execution{Type: "TRADE", Order: *step, Trade: &t, Cost: a.costs[ref], Realized: realized}
	if strings.HasPrefix(t.ClientOrderID, "autoclose-") {
		x.Type = "CALCULATED"
	}
	return x
}
