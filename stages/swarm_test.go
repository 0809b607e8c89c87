package stages

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange/sandbox"
	"permitchain/exchange/venue"
	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/pipeline"
	"permitchain/stages/apply"
	"permitchain/stages/reconcile"
)

// Tier B: the real chain, with its goroutines, its ledger file and its client, on a sandbox in virtual time. A seed chooses
// which half of all faults there are, what is proposed, what others and the operator do, and when the process dies; then
// the faults end, and everything must come to an end and agree. A leak or a hang fails the bubble by itself.
//
//	SEEDS=2000 go test ./stages -run TestSwarm -timeout 1h    so many seeds
//	SEED=17 go test ./stages -run TestSwarm -v                one of them, with its journal of acts
//
// Timers of one instant fire in any order, so a seed chooses what happens, and not every interleaving of it: -count=20.

const (
	swarmSeeds = 30
	swarmHours = 1
)

const swarmConfig = `
symbols: [BTCUSDT, ETHUSDT, DOGEUSDT]
reconcile: {snapshot_interval: 5s, stale_after: 10s, cooldown: 2s}
governor: {disarm_errors: 1000, max_per_hour: 1000, max_per_5min: 1000, protective_per_hour: 1000, stops_per_hour: 1000, daily_notional: '0', auto_approve: []}
`

// swarmTotals are what all seeds together did.
type swarmTotals struct{ orders, kills, stops, plans, faults, escalated atomic.Int64 }

func TestSwarm(t *testing.T) {
	seeds := []uint64{}
	if one := os.Getenv("SEED"); one != "" {
		seed, err := strconv.ParseUint(one, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, seed)
	} else {
		n, err := strconv.ParseUint(cmp.Or(os.Getenv("SEEDS"), strconv.Itoa(swarmSeeds)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if testing.Short() {
			n = min(n, 4)
		}
		for seed := range n {
			seeds = append(seeds, seed)
		}
	}
	text := defaults(t)
	var totals swarmTotals
	t.Run("seeds", func(t *testing.T) {
		for _, seed := range seeds {
			t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) { newSwarm(t, seed, text, dir, &totals).run() })
				if t.Failed() {
					t.Logf("repeat it with: SEED=%d go test ./stages -run TestSwarm -v", seed)
				}
			})
		}
	})
	t.Logf("figure tier_b_seeds %d", len(seeds))
	t.Logf("figure tier_b_hours %d", len(seeds)*swarmHours)
	t.Logf("figure tier_b_plans %d", totals.plans.Load())
	t.Logf("figure tier_b_orders %d", totals.orders.Load())
	t.Logf("figure tier_b_kills %d", totals.kills.Load())
	t.Logf("figure tier_b_restarts %d", totals.kills.Load()+totals.stops.Load())
	t.Logf("figure tier_b_escalated %d", totals.escalated.Load())
	t.Logf("figure tier_b_faults %d", totals.faults.Load())
	if len(seeds) >= swarmSeeds && (totals.orders.Load() < int64(len(seeds)) || totals.kills.Load() < int64(len(seeds)) || totals.faults.Load() < int64(len(seeds))) {
		t.Error("hardly anything happened: the swarm proves nothing")
	}
}

// swarm is one seed.
type swarm struct {
	*wired
	t      *testing.T
	luck   *rand.Rand
	text   []byte
	dir    string
	totals *swarmTotals
	wire   *sandbox.Wire
	end    func()
	killer *killer
	keys   []ledger.Key
	sent   []ledger.Proposal
	lives  int
}

func newSwarm(t *testing.T, seed uint64, text []byte, dir string, totals *swarmTotals) *swarm {
	s := &swarm{t: t, luck: rand.New(rand.NewPCG(seed, 2)), text: text, dir: dir, totals: totals}
	hedge := seed%3 == 2
	positions := map[ledger.Key]ledger.Qty{}
	for symbol, amount := range map[string]string{"BTCUSDT": "1.2", "ETHUSDT": "-40", "DOGEUSDT": "90000"} {
		q := ledger.MustQty(amount)
		if !hedge {
			positions[ledger.Key{Symbol: symbol, Side: ledger.Both}] = q
			continue
		}
		positions[ledger.Key{Symbol: symbol, Side: ledger.Long}] = q.Abs()
		positions[ledger.Key{Symbol: symbol, Side: ledger.Short}] = q.Abs().Neg()
	}
	s.keys = slices.SortedFunc(maps.Keys(positions), ledger.Key.Compare)
	o := sandbox.Options{
		Seed: seed, Symbols: []string{"BTCUSDT", "ETHUSDT", "DOGEUSDT"}, Positions: positions, Hedge: hedge, Speed: 1 + 100*s.luck.Float64(),
		Odds: venue.Odds{Split: s.chance(), Expire: s.chance() / 4, Rest: s.chance() / 8}, Faults: s.profile(),
	}
	s.wired, s.wire, s.end = inMemory(dir, o)
	return s
}

// chance is a probability that is zero half of the time.
func (s *swarm) chance() float64 { return max(0, s.luck.Float64()*2-1) }

// profile is half of all faults, each at odds of its own.
func (s *swarm) profile() sandbox.Profile {
	p := sandbox.Profile{}
	most := map[sandbox.Where]float64{
		sandbox.OnAnswer: 0.02, sandbox.OnCall: 0.01, sandbox.OnOrder: 0.1, sandbox.OnQuery: 0.05, sandbox.OnOthers: 0.001, sandbox.OnSocket: 0.001,
	}
	for _, d := range sandbox.Catalogue() {
		if s.luck.IntN(2) == 0 {
			p[d.Kind] = most[d.Where] * s.luck.Float64()
		}
	}
	delete(p, sandbox.KeyGone)  // It takes a person with a new key.
	delete(p, sandbox.ModeFlip) // It changes what every proposal after it means.
	if p[sandbox.Banned] > 0 {
		p[sandbox.Banned] = 0.0002
	}
	return p
}

func (s *swarm) say(format string, args ...any) {
	if os.Getenv("SEED") != "" {
		s.t.Logf("%s "+format, append([]any{time.Now().Format("15:04:05.000")}, args...)...)
	}
}

func (s *swarm) run() {
	defer func() {
		s.end()
		<-time.After(time.Second) // What was said last is heard, by nobody.
	}()
	defer func() {
		for _, n := range s.sandbox.Struck() {
			s.totals.faults.Add(int64(n))
		}
	}()
	until := time.Now().Add(swarmHours * time.Hour)
	if !s.live() {
		return
	}
	for time.Now().Before(until) && !s.t.Failed() {
		s.act()
		s.rest()
	}
	s.say("quiet")
	if !s.t.Failed() {
		s.quiet()
	}
	if err := s.halt(); err != nil {
		s.t.Errorf("stop: %v", err)
	}
	s.judge()
}

// live starts the chain; one that can't start says so, and its supervisor starts it again.
func (s *swarm) live() bool {
	var err error
	for range 200 {
		s.killer = newKiller(&cable{wire: s.wire, takes: time.Duration(s.luck.IntN(150)) * time.Millisecond})
		switch s.luck.IntN(4) {
		case 0:
			s.killer.after = 1 + s.luck.IntN(300)
		case 1: // Before an order is sent, or while it is on its way.
			s.killer.of, s.killer.after = "before effect", 1+s.luck.IntN(4)
			s.killer.of += " " + string(ledger.KindStepGranted)
			s.killer.later = time.Duration(s.luck.IntN(2)*s.luck.IntN(300)) * time.Millisecond
		}
		s.dial, s.point = s.killer.cable.dial, s.killer.point
		if err = s.begin(s.text, swarmConfig, s.logger()); err == nil {
			s.lives++
			return true
		}
		if errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrLocked) {
			break
		}
		<-time.After(3 * time.Second)
	}
	s.t.Errorf("life %d does not begin: %v", s.lives+1, err)
	return false
}

func (s *swarm) logger() zerolog.Logger {
	if os.Getenv("SEED") != "" && testing.Verbose() {
		return zerolog.New(zerolog.NewTestWriter(s.t)).Level(zerolog.WarnLevel)
	}
	return zerolog.Nop()
}

// rest is the time between two acts: mostly moments, now and then minutes. The process may die in it.
func (s *swarm) rest() {
	d := time.Duration(s.luck.ExpFloat64() * float64(4*time.Second))
	if s.luck.IntN(20) == 0 {
		d = time.Duration(s.luck.Int64N(int64(6 * time.Minute)))
	}
	select {
	case <-time.After(d):
	case <-s.killer.reached:
		s.say("dies at a crash point")
		s.die()
	case err := <-s.ended:
		s.say("ended by itself: %v", err)
		s.stopped(err)
		s.live()
	}
}

// stopped judges how a chain ended: that an exchange is gone may end it, and nothing else.
func (s *swarm) stopped(err error) {
	err = errors.Join(err, s.binance.Close())
	if err == nil || errors.Is(err, store.ErrHalted) || errors.Is(err, pipeline.ErrHung) || !errors.Is(err, ErrExchange) {
		s.t.Errorf("life %d ended: %v", s.lives, err)
	}
}

// die is the end of a process that nobody asked for.
func (s *swarm) die() {
	s.totals.kills.Add(1)
	if err := s.kill(s.killer, filepath.Join(s.dir, fmt.Sprintf("ledger-%d.db", s.lives))); err != nil {
		s.t.Errorf("life %d: %v", s.lives, err)
		return
	}
	s.live()
}

// halt is a soft stop, from which the ledger comes back whole. A chain that stands still at its crash point goes on first.
func (s *swarm) halt() error {
	select {
	case <-s.killer.reached:
		close(s.killer.release)
	default:
		s.killer.mu.Lock()
		s.killer.after = -1
		s.killer.mu.Unlock()
	}
	return s.stop()
}

func (s *swarm) act() {
	k := s.keys[s.luck.IntN(len(s.keys))]
	switch n := s.luck.IntN(100); {
	case n < 46:
		s.offer(k)
	case n < 49:
		s.flattenAll(k.Symbol, s.luck.IntN(5) == 0)
	case n < 56:
		s.sync(k)
	case n < 62:
		s.holdOrClear(k)
	case n < 67:
		s.moveRunState([]ledger.RunState{ledger.Armed, ledger.Armed, ledger.Armed, ledger.Armed, ledger.Armed, ledger.ProtectiveOnly, ledger.Disarmed, ledger.Killed}[s.luck.IntN(8)])
	case n < 80:
		s.tradeByHand(k)
	case n < 83:
		s.say("liquidation of %s", k)
		_ = s.sandbox.Do(func(v *venue.Venue, now time.Time) (venue.Change, error) { return v.Liquidate(now, k) }) // Flat, there is none.
	case n < 86:
		s.settleUnknown(false)
	case n < 90:
		s.say("dies")
		s.die()
	case n < 94:
		s.say("stop")
		s.totals.stops.Add(1)
		if err := s.halt(); err != nil && !errors.Is(err, ErrExchange) {
			s.t.Errorf("life %d: stop: %v", s.lives, err)
		}
		s.live()
	default:
		all := sandbox.Kinds()
		f := sandbox.Fault{Kind: all[s.luck.IntN(len(all))], Times: 1 + s.luck.IntN(5), Lasts: time.Duration(1+s.luck.IntN(120)) * time.Second}
		if f.Kind != sandbox.KeyGone && f.Kind != sandbox.ModeFlip {
			s.say("armed: %+v", f)
			if err := s.sandbox.Arm(f); err != nil {
				s.t.Error(err)
			}
		}
	}
}

// offer proposes something: new, or what was proposed before.
func (s *swarm) offer(k ledger.Key) {
	actions := []ledger.Action{ledger.Partial25, ledger.Partial50, ledger.Partial75, ledger.FullClose, ledger.UpdateSL}
	p := ledger.Proposal{Symbol: k.Symbol, Side: k.Side, Action: actions[s.luck.IntN(len(actions))], KillScore: float64(s.luck.IntN(100)) / 100}
	if mark := s.board.Mark(k.Symbol).Price; !mark.IsZero() && (p.Action == ledger.UpdateSL || s.luck.IntN(3) == 0) {
		percent := ledger.MustPercent(strconv.Itoa(90 + s.luck.IntN(20)))
		p.NewSL = mark.Of(percent).FloorTo(s.board.Markets[k.Symbol].Tick)
	}
	if len(s.sent) > 0 && s.luck.IntN(4) == 0 {
		p = s.sent[s.luck.IntN(len(s.sent))]
	} else {
		p.ComputedAt, p.Source = s.exchange.Now().Truncate(time.Millisecond), ledger.FromExternal
		s.sent = append(s.sent, p)
	}
	o := pipeline.Ask[ledger.Proposal, ledger.Receipt](p)
	patience := time.After(10 * time.Second)
	select {
	case s.external <- o:
	case <-patience:
		s.stuck("nobody takes proposals")
		return
	case <-s.killer.reached:
		return
	}
	select {
	case r := <-o.Reply:
		s.totals.plans.Add(1)
		s.say("%s %s %s: %s %s %s", k, p.Action, p.NewSL, r.Decision, r.Reason, r.Error)
	case <-patience:
		s.stuck("no receipt")
	case <-s.killer.reached:
	}
}

// stuck is an error, unless the chain has ended or stands still on purpose.
func (s *swarm) stuck(what string) {
	select {
	case err := <-s.ended:
		s.ended <- err
	case <-s.killer.reached:
	default:
		s.t.Errorf("life %d: %s: %s", s.lives, what, s.account())
	}
}

// askOf sends a request to a stage of the chain, and waits for its answer as long as an operator would.
func askOf[Q, A any](s *swarm, to chan<- pipeline.Request[Q, A], q Q, patience time.Duration) (a A, ok bool) {
	o := pipeline.Ask[Q, A](q)
	late := time.After(patience)
	select {
	case to <- o:
	case <-late:
		s.stuck(fmt.Sprintf("nobody takes %+v", q))
		return a, false
	case <-s.killer.reached:
		return a, false
	}
	select {
	case a = <-o.Reply:
		s.say("%+v: %+v", q, a)
		return a, true
	case <-late:
		s.stuck(fmt.Sprintf("no answer to %+v", q))
	case <-s.killer.reached:
	}
	return a, false
}

func (s *swarm) flattenAll(symbol string, force bool) {
	if s.luck.IntN(3) == 0 {
		symbol = ""
	}
	askOf(s, (chan<- apply.Flatten)(s.flattens), ledger.FlattenOrder{Symbol: symbol, Force: force, Who: "swarm", Why: "storm"}, 30*time.Second)
}

func (s *swarm) sync(k ledger.Key) {
	askOf(s, (chan<- reconcile.Sync)(s.syncs), ledger.SyncOrder{Key: k, Who: "swarm", Why: "the exchange is right"}, time.Minute)
}

// decide is the operator's hand on the ledger itself.
func (s *swarm) decide(fn func(*ledger.State) []ledger.Event) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	reached := s.killer.reached
	go func() {
		select {
		case <-reached:
			cancel()
		case <-ctx.Done():
		}
	}()
	commit, err := s.store.Decide(ctx, func(st *ledger.State, _ time.Time) []ledger.Event { return fn(st) })
	if err == nil {
		err = commit.Wait(ctx)
	}
	if err != nil {
		s.stuck(fmt.Sprintf("the operator's word: %v", err))
	}
}

func (s *swarm) holdOrClear(k ledger.Key) {
	clears := s.luck.IntN(3) > 0
	s.say("hold or clear %s: %v", k, clears)
	s.decide(func(st *ledger.State) []ledger.Event {
		switch has := st.Holds[k].Has(ledger.HoldOperator); {
		case has && clears:
			return []ledger.Event{&ledger.HoldCleared{Key: k, Reason: ledger.HoldOperator, Owner: "swarm", Evidence: "enough"}}
		case !has && !clears:
			return []ledger.Event{&ledger.HoldPut{Key: k, Reason: ledger.HoldOperator, Owner: "swarm", Evidence: "a feeling"}}
		}
		return nil
	})
}

func (s *swarm) moveRunState(to ledger.RunState) {
	s.say("run state %s", to)
	s.decide(func(st *ledger.State) []ledger.Event {
		if st.Control.RunState == to {
			return nil
		}
		return []ledger.Event{&ledger.RunStateChanged{From: st.Control.RunState, To: to, Who: "swarm", Why: "storm"}}
	})
}

func (s *swarm) tradeByHand(k ledger.Key) {
	full := map[string]string{"BTCUSDT": "1.2", "ETHUSDT": "40", "DOGEUSDT": "90000"}[k.Symbol]
	q := ledger.MustQty(full).Of(ledger.MustPercent(strconv.Itoa(1 + s.luck.IntN(120)))).FloorTo(s.board.Markets[k.Symbol].Lot.Step)
	if up := map[ledger.Side]int{ledger.Both: 3, ledger.Long: 4, ledger.Short: 2}[k.Side]; s.luck.IntN(6) >= up {
		q = q.Neg()
	}
	err := s.sandbox.Do(func(v *venue.Venue, now time.Time) (venue.Change, error) { return v.Trade(now, k, q) })
	s.say("a hand trades %s of %s: %v", q, k, err) // What the engine refuses did not happen.
}

// settleUnknown is an operator's word about an order in doubt: impatient, or with what the exchange really has.
func (s *swarm) settleUnknown(truth bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	id := ""
	err := s.store.View(ctx, func(st *ledger.State, _ time.Time) {
		for _, i := range st.Unresolved() {
			if i.State == ledger.Unknown {
				id = i.ClientOrderID
			}
		}
	})
	if err != nil || id == "" {
		return false
	}
	o := ledger.SettleOrder{ClientOrderID: id, Who: "swarm", Why: "I have looked"}
	for _, e := range s.sandbox.Log() {
		if truth && e.ClientID == id {
			o.OrderID = e.OrderID
		}
	}
	_, told := askOf(s, (chan<- apply.Settle)(s.settles), o, time.Minute)
	return told
}

// quiet ends all faults, takes back what others and the operator left in the way, and wants everything closed and agreed.
func (s *swarm) quiet() {
	s.sandbox.Disarm()
	_ = s.sandbox.Do(func(v *venue.Venue, _ time.Time) (venue.Change, error) {
		v.SetOdds(venue.Odds{})
		return venue.Change{}, nil
	})
	select {
	case <-s.killer.reached:
		s.die()
	case err := <-s.ended:
		s.stopped(err)
		s.live()
	default:
	}
	s.killer.mu.Lock()
	s.killer.after = -1
	s.killer.mu.Unlock()
	for _, o := range s.others() {
		_ = s.sandbox.Do(func(v *venue.Venue, now time.Time) (venue.Change, error) {
			return v.Cancel(now, o.Symbol, o.OrderID, "")
		})
	}
	s.moveRunState(ledger.Armed)
	ended := func(st *ledger.State) bool { return len(st.Unresolved()) == 0 && len(st.OpenPlans()) == 0 }
	for range 8 { // What is still in doubt minutes after its fence is the operator's, who was told of it.
		if s.until(5*time.Minute, "liveness", ended) == nil || !s.settleUnknown(true) {
			break
		}
		s.totals.escalated.Add(1)
	}
	if err := s.until(time.Minute, "liveness: no order in doubt, no plan open", ended); err != nil {
		s.t.Error(err)
		return
	}
	for _, k := range s.keys {
		s.decide(func(st *ledger.State) (events []ledger.Event) {
			for _, h := range st.Holds[k] {
				if h.Reason == ledger.HoldOperator {
					events = append(events, &ledger.HoldCleared{Key: k, Reason: h.Reason, Owner: "swarm", Evidence: "the end"})
				}
			}
			return events
		})
	}
	for range 10 { // A hold that a person has to answer is answered, as the README says.
		for _, k := range s.heldBack() {
			s.sync(k)
		}
		<-time.After(15 * time.Second)
		s.flattenAll("", false)
		<-time.After(15 * time.Second)
		if len(s.held()) == 0 {
			break
		}
	}
	if held := s.held(); len(held) > 0 {
		s.t.Errorf("not flat: %v: %s", held, s.account())
	}
	if err := s.until(2*time.Minute, "ledger and exchange agree, nothing is open", func(st *ledger.State) bool {
		return s.settled(st) && len(s.open()) == 0
	}); err != nil {
		s.t.Errorf("%v; open: %v", err, s.open())
	}
}

// heldBack are the positions that something holds.
func (s *swarm) heldBack() (keys []ledger.Key) {
	_ = s.store.View(context.Background(), func(st *ledger.State, _ time.Time) { // A chain that has ended is found out elsewhere.
		for _, k := range s.keys {
			if len(st.HoldsOn(k)) > 0 {
				keys = append(keys, k)
			}
		}
	})
	return keys
}

// judge holds the journal against the exchange's own books: every order of ours was promised, executed no more than it was
// granted, and each of its trades is booked once.
func (s *swarm) judge() {
	o := store.Options{Mode: ledger.Testnet}
	r, err := store.OpenReader(s.path, o)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer r.Close()
	promised, granted, booked := map[string]ledger.Qty{}, map[string]ledger.Qty{}, map[string]ledger.Qty{}
	step, took := map[string]string{}, map[string]ledger.Qty{}
	trades := map[string]bool{}
	doubtful := map[string]string{} // position and kind → the order that may be alive
	err = r.Records(1, 0, func(record ledger.Record, _ string) error {
		switch e := record.Event.(type) {
		case *ledger.StepGranted:
			granted[fmt.Sprintf("%s/%d", e.ID, e.Step)] = e.Qty
		case *ledger.IntentOpened:
			promised[e.Intent.ClientOrderID] = e.Intent.Qty
			slot := e.Intent.Key.String() + string(e.Intent.Kind)
			if other := doubtful[slot]; other != "" {
				s.t.Errorf("%s is promised while nobody knows what became of %s", e.Intent.ClientOrderID, other)
			}
			doubtful[slot] = e.Intent.ClientOrderID
			if e.Intent.Kind == ledger.CloseStep {
				step[e.Intent.ClientOrderID] = fmt.Sprintf("%s/%d", e.Intent.Plan, e.Intent.Step)
			}
		case *ledger.IntentAnswered:
			for slot, id := range doubtful {
				if id == e.ClientOrderID && e.State != ledger.Unknown {
					delete(doubtful, slot)
				}
			}
		case *ledger.FillBooked:
			id := fmt.Sprintf("%s %d", e.Trade.Key, e.Trade.ID)
			if trades[id] {
				s.t.Errorf("trade %s is booked twice", id)
			}
			trades[id] = true
			booked[e.Trade.ClientOrderID] = booked[e.Trade.ClientOrderID].Add(e.Trade.Qty)
		default: // Says nothing of orders.
		}
		return nil
	})
	if err != nil {
		s.t.Error(err)
	}
	s.totals.orders.Add(int64(len(promised)))
	for id, q := range s.sandbox.Executed() {
		if !ledger.OfOurForm(id) {
			continue
		}
		took[step[id]] = took[step[id]].Add(q)
		if _, known := promised[id]; !known {
			s.t.Errorf("%s executed %s and was never promised", id, q)
		} else if !booked[id].Equal(q) {
			s.t.Errorf("%s executed %s, booked %s", id, q, booked[id])
		}
	}
	for id, q := range took {
		if id != "" && granted[id].Less(q) {
			s.t.Errorf("%s executed %s, granted %s", id, q, granted[id])
		}
	}
	for _, wrong := range s.sandbox.Verdict(promised) {
		s.t.Error(wrong)
	}
}
