package apply_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/stages/apply"
)

// fate is what really became of an order, and what the exchange may say of it at any time, in any order, any number of times.
type fate struct {
	trades []ledger.Trade
	states []exchange.OrderState // the last is the end
}

// drawFate lets an order of 0.011 trade in up to three parts and then end, filled or expired.
func drawFate(t *rapid.T, i *ledger.Intent) fate {
	var f fate
	state := exchange.OrderState{ClientOrderID: i.ClientOrderID, OrderID: 7, Key: i.Key, Direction: i.Direction, Qty: i.Qty, Status: "NEW"}
	f.states = append(f.states, state)
	left := 11
	for n := range rapid.IntRange(0, 3).Draw(t, "parts") {
		part := rapid.IntRange(1, left).Draw(t, "part")
		left -= part
		qty := ledger.MustQty(fmt.Sprintf("0.%03d", part))
		f.trades = append(f.trades, ledger.Trade{
			Key: i.Key, ID: int64(100 + 3*n), OrderID: 7, ClientOrderID: i.ClientOrderID, Direction: i.Direction, Qty: qty,
			Price: ledger.MustPrice("80000"), At: now.Add(time.Second),
		})
		state.Executed, state.Status = state.Executed.Add(qty), "PARTIALLY_FILLED"
		f.states = append(f.states, state)
		if left == 0 {
			break
		}
	}
	if state.Status = "EXPIRED"; left == 0 {
		state.Status = "FILLED"
	}
	f.states = append(f.states, state)
	return f
}

// say draws one thing that the chain may be told of the order: by the stream, by the answer, or by a lookup that is behind.
func (f fate) say(t *rapid.T, s *ledger.State, id string, answered *bool) []ledger.Event {
	state := rapid.SampledFrom(f.states).Draw(t, "state")
	switch what := rapid.IntRange(0, 3).Draw(t, "what"); {
	case what == 0 && len(f.trades) > 0:
		trade := rapid.SampledFrom(f.trades).Draw(t, "trade")
		_, events := apply.Heard(s, exchange.StreamEvent{Trade: &trade})
		return events
	case what <= 1:
		_, events := apply.Heard(s, exchange.StreamEvent{Order: &state})
		return events
	case what == 2 && !*answered:
		*answered = true
		outcome := rapid.SampledFrom([]exchange.Outcome{exchange.Placed, exchange.Unknown, exchange.NotPlaced}).Draw(t, "outcome")
		return apply.Answered(s, id, exchange.Answer{Outcome: outcome, OrderID: 7, Status: state.Status, Executed: state.Executed}).Events
	case what == 3:
		l := apply.Lookup{ID: id, At: now.Add(2 * time.Second), Trades: f.trades[:rapid.IntRange(0, len(f.trades)).Draw(t, "known")]}
		if rapid.Bool().Draw(t, "found") {
			l.Order = &state
		}
		return learned(s, l)
	default:
		return nil
	}
}

// learned is what the stage writes down of a lookup; a lookup begins only when the answer is in.
func learned(s *ledger.State, l apply.Lookup) []ledger.Event {
	i := s.Intents[l.ID]
	if i.State == ledger.Sending {
		return nil
	}
	if f := apply.Learn(s, l, nil, sight); f.Event != nil {
		return []ledger.Event{f.Event}
	}
	own, _ := s.Unbooked(i.Key, l.Trades)
	return s.BookOwn(own)
}

// TestWhateverIsSaidInWhateverOrder: the fold refuses nothing of it, no trade is booked twice, what the last lookup shows is
// what stands in the end; and what was answered not to be placed, and lives, holds the position.
func TestWhateverIsSaidInWhateverOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, p := planned(t, verdict(ledger.Allow, ledger.WithinLimits), verdict(ledger.Allow, ledger.PositionAgrees))
		do := func(events []ledger.Event) {
			for _, e := range events {
				if err := s.Apply(ledger.Record{Seq: s.Control.Seq + 1, At: now, Event: e}); err != nil {
					rt.Fatal(err)
				}
			}
		}
		do(apply.Join(rules, s, p, sight, now).Events)
		i := s.Intents[p.Orders()[0]]
		f := drawFate(rt, i)
		answered := false
		for range rapid.IntRange(0, 30).Draw(rt, "words") {
			do(f.say(rt, s, i.ClientOrderID, &answered))
		}
		if !answered {
			do(apply.Answered(s, i.ClientOrderID, exchange.Answer{Outcome: exchange.Unknown}).Events)
		}
		end := f.states[len(f.states)-1]
		if i.State == ledger.NotPlaced {
			_, events := apply.Heard(s, exchange.StreamEvent{Order: &end})
			if do(events); end.Executed.Sign() > 0 && !s.HoldsOn(i.Key).Has(ledger.HoldForeignInstance) {
				rt.Fatalf("not placed, executed %s, and no hold", end.Executed)
			}
			return
		}
		for range 2 {
			do(learned(s, apply.Lookup{ID: i.ClientOrderID, At: now.Add(time.Minute), Order: &end, Trades: f.trades}))
		}
		own, _ := s.Unbooked(i.Key, f.trades)
		do(s.BookOwn(own))
		if i.State != ledger.Settled || !i.Booked.Equal(end.Executed) || !i.Executed.Equal(end.Executed) {
			rt.Fatalf("%s %s, booked %s, executed %s; really %s, executed %s", i.State, i.Status, i.Booked, i.Executed, end.Status, end.Executed)
		}
		if amount, _ := s.Amount(i.Key); !amount.Equal(ledger.MustQty("0.046").Sub(end.Executed)) {
			rt.Fatalf("the ledger says %s", amount)
		}
	})
}

// TestAnAnswerThatSaysTooMuch: the stream has told of the order before; what cannot be changes nothing, and ends no process.
func TestAnAnswerThatSaysTooMuch(t *testing.T) {
	s, p := planned(t, verdict(ledger.Allow, ledger.WithinLimits), verdict(ledger.Allow, ledger.PositionAgrees))
	do := func(events []ledger.Event) {
		t.Helper()
		for _, e := range events {
			if err := s.Apply(ledger.Record{Seq: s.Control.Seq + 1, At: now, Event: e}); err != nil {
				t.Fatal(err)
			}
		}
	}
	do(apply.Join(rules, s, p, sight, now).Events)
	i := s.Intents[p.Orders()[0]]
	_, events := apply.Heard(s, exchange.StreamEvent{Order: &exchange.OrderState{ClientOrderID: i.ClientOrderID, OrderID: 7, Key: i.Key, Direction: i.Direction, Qty: i.Qty, Status: "NEW"}})
	do(events)
	do(apply.Answered(s, i.ClientOrderID, exchange.Answer{Outcome: exchange.Placed, OrderID: 7, Status: "FILLED", Executed: i.Qty.Add(i.Qty)}).Events)
	if i.State != ledger.Placed || !i.Executed.IsZero() {
		t.Errorf("the order is %s and executed %s", i.State, i.Executed)
	}
}
