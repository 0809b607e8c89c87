package stages

import (
	"testing"
	"time"

	"permitchain/exchange/sandbox"
	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// TestADayIsBooked runs the chain on the adapter for a virtual day, in which the streams do all that streams do, while
// positions are closed by us and traded by a hand. Every trade must be in the ledger, once.
func TestADayIsBooked(t *testing.T) {
	mischief := []sandbox.Kind{
		sandbox.WSExpired, sandbox.WSSilent, sandbox.WSDuplicate, sandbox.WSReorder, sandbox.WSDrop, sandbox.WSDropFill, sandbox.WSLoseUpdate,
		sandbox.WSNoPings, sandbox.WSUnknown, sandbox.WSAmendment, sandbox.WSRefused, sandbox.SlowAnswer,
	}
	sc := scenario{
		name: "day", positions: map[string]string{"BTCUSDT": "1"},
		config: "symbols: [BTCUSDT]\nreconcile: {snapshot_interval: 20s, stale_after: 50s}\n" +
			"governor: {max_per_hour: 100, max_per_5min: 100, protective_per_hour: 100, daily_notional: '0'}",
	}
	sc.play = func(s *stageSet) {
		executed := 0
		<-time.After(time.Minute) // With a snapshot every 20 s, a ledger that takes two of them is not open sooner.
		for hour := range 25 {    // Longer than a connection may live.
			for i := range 2 {
				kind := mischief[(2*hour+i)%len(mischief)]
				if err := s.box.Arm(sandbox.Fault{Kind: kind, Call: map[bool]string{true: "ws private"}[kind != sandbox.SlowAnswer], Times: 1 + hour%3}); err != nil {
					s.t.Fatal(err)
				}
			}
			s.propose(proposal(ledger.Partial50))
			s.trade("-0.05")
			<-time.After(10 * time.Minute)
			s.propose(proposal(ledger.FullClose))
			<-time.After(20 * time.Minute)
			s.trade("1")
			<-time.After(29 * time.Minute)
			executed += 2
		}
		s.box.Disarm()
		s.wait()
		s.wait()
		booked := map[string]ledger.Qty{}
		var amount ledger.Qty
		if err := s.store.View(s.t.Context(), func(st *ledger.State, _ time.Time) {
			for id, i := range st.Intents {
				booked[id] = i.Booked
			}
			amount = st.Positions[btc].Amount
		}); err != nil {
			s.t.Fatal(err)
		}
		ours := 0
		for id, q := range s.box.Executed() {
			if !ledger.OfOurForm(id) {
				continue
			}
			if ours++; !booked[id].Equal(q) && !booked[id].IsZero() { // What is older than dedupe_ttl has left memory.
				s.t.Errorf("%s executed %s, booked %s", id, q, booked[id])
			}
		}
		held := ledger.Qty{}
		s.act(func(v *venue.Venue, _ time.Time) (venue.Change, error) {
			for _, h := range v.Holdings() {
				held = h.Amount
			}
			return venue.Change{}, nil
		})
		if !held.Equal(amount) || ours < executed {
			s.t.Errorf("the exchange holds %s, the ledger %s; %d orders executed, %d wanted", held, amount, ours, executed)
		}
		struck := s.box.Struck()
		for _, k := range mischief {
			if struck[k] == 0 {
				s.t.Errorf("%s never happened", k)
			}
		}
		s.t.Logf("%d orders of ours, faults %v", ours, struck)
	}
	sc.on(t, defaults(t), sc.onSandbox)
}

// trade has a hand change the position.
func (s *stageSet) trade(qty string) {
	s.t.Helper()
	s.act(func(v *venue.Venue, now time.Time) (venue.Change, error) {
		return v.Trade(now, btc, ledger.MustQty(qty))
	})
}
