package reconcile

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// bench is one position before the kernel, without a stage around it.
type bench struct {
	*Watch
	t     *testing.T
	state *ledger.State
	c     Config
}

var (
	began = time.Date(2026, 1, 25, 0, 26, 8, 0, time.UTC)
	btc   = ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}
)

// second is an instant so many seconds after everything began.
func second(n float64) time.Time { return began.Add(time.Duration(n * float64(time.Second))) }

// opened is a bench whose ledger says amount, with every trade up to id 10 in it.
func opened(t *testing.T, amount string) *bench {
	b := &bench{Watch: &Watch{}, t: t, state: ledger.NewState(), c: Config{
		ExternalTrades: Adopt, Initial: Adopt, StaleAfter: 10 * time.Second, PermitTTL: time.Minute,
		TolerancePct: ledger.MustPercent("1"), ToleranceUSD: ledger.MustUSD("100"),
	}}
	if amount != "" {
		b.fold(&ledger.LedgerOpened{Holding: ledger.Holding{Key: btc, Amount: ledger.MustQty(amount), Entry: ledger.MustPrice("80000")}, Cursor: 10, By: "test"})
	}
	return b
}

// fold adds events to the state, which refuses what breaks an invariant.
func (b *bench) fold(events ...ledger.Event) {
	b.t.Helper()
	for _, e := range events {
		if err := b.state.Apply(ledger.Record{Seq: b.state.Control.Seq + 1, At: began, Event: e}); err != nil {
			b.t.Fatal(err)
		}
	}
}

// sees shows the kernel a snapshot of an amount, which arrives at once.
func (b *bench) sees(at float64, amount string) finding {
	b.t.Helper()
	f := b.look(b.c, b.state, btc, snapshot(at, amount), second(at))
	b.fold(f.Events...)
	return f
}

// hears gives the kernel the trades it asked for.
func (b *bench) hears(trades ...ledger.Trade) finding {
	b.t.Helper()
	f := b.explain(b.c, b.state, btc, trades, ledger.Lot{Step: ledger.MustQty("0.001"), Min: ledger.MustQty("0.001")}, ledger.MustPrice("80000"))
	b.fold(f.Events...)
	return f
}

// stands checks what the ledger says, and which holds there are.
func (b *bench) stands(amount string, holds ...ledger.Reason) {
	b.t.Helper()
	if got := b.state.Positions[btc].Amount.String(); got != amount {
		b.t.Errorf("the ledger says %s, wanted %s", got, amount)
	}
	var reasons []ledger.Reason
	for _, h := range b.state.Holds[btc] {
		reasons = append(reasons, h.Reason)
	}
	if !slices.Equal(reasons, holds) {
		b.t.Errorf("holds %v, wanted %v", reasons, holds)
	}
}

func (b *bench) needs(f finding, need Need) {
	b.t.Helper()
	if f.Need != need {
		b.t.Fatalf("the kernel needs %q, wanted %q", f.Need, need)
	}
}

func snapshot(at float64, amount string) *ledger.Snapshot {
	return &ledger.Snapshot{SentAt: second(at), Holdings: []ledger.Holding{{Key: btc, Amount: ledger.MustQty(amount)}}}
}

// hand is a trade of somebody else; a negative quantity sells.
func hand(id int64, at float64, qty string) ledger.Trade {
	q := ledger.MustQty(qty)
	d := ledger.Buy
	if q.Sign() < 0 {
		d = ledger.Sell
	}
	return ledger.Trade{Key: btc, ID: id, ClientOrderID: "web_1", Direction: d, Qty: q.Abs(), Price: ledger.MustPrice("90000"), At: second(at)}
}

// order puts an order of ours on record in a state, as if it had passed every gate long ago.
func (b *bench) order(id string, kind ledger.StepKind, state ledger.IntentState, d ledger.Direction, qty string) {
	plan := &ledger.Plan{ID: "plan", Proposal: ledger.Proposal{Symbol: btc.Symbol, Side: btc.Side}, Journal: []uint64{1}, Steps: []ledger.Step{
		{Kind: kind, Orders: []string{id}, Governor: &ledger.Verdict{}, Position: &ledger.Verdict{}},
	}}
	b.state.Plans[plan.ID] = plan
	b.state.Intents[id] = &ledger.Intent{ClientOrderID: id, Plan: plan.ID, Key: btc, Kind: kind, State: state, Direction: d, Qty: ledger.MustQty(qty)}
}

// ours is a trade of an order of ours.
func ours(t ledger.Trade, id string) ledger.Trade {
	t.ClientOrderID = id
	return t
}

// TestATradeAfterTheFetchIsNotHeldAgainstIt: the snapshot that is explained is the one the trades were fetched for, so what
// happens between the fetch and the judgement neither makes a hold nor is written off.
func TestATradeAfterTheFetchIsNotHeldAgainstIt(t *testing.T) {
	b := opened(t, "0.046")
	b.needs(b.sees(1, "0.030"), NeedSnapshot)
	f := b.sees(2, "0.030")
	if b.needs(f, NeedTrades); f.After != 10 {
		t.Fatalf("trades after %d are asked for", f.After)
	}
	b.sees(3, "0") // The rest was sold by hand, after the trades were fetched.
	b.hears(hand(11, 0.5, "-0.016"))
	b.stands("0.03")
	b.sees(4, "0")
	b.needs(b.sees(5, "0"), NeedTrades)
	b.hears(hand(12, 2.5, "-0.030"))
	b.stands("0")
	b.sees(60, "0.05")
	b.needs(b.sees(61, "0.05"), NeedTrades)
	b.hears(hand(12, 2.5, "-0.030"), hand(13, 59, "0.05"))
	b.stands("0.05")
}

// TestATradeBetweenSnapshotAndFetch is among the trades and not in the snapshot that they are to explain.
func TestATradeBetweenSnapshotAndFetch(t *testing.T) {
	b := opened(t, "0.046")
	b.sees(1, "0.030")
	b.needs(b.sees(2, "0.030"), NeedTrades)
	b.hears(hand(11, 0.5, "-0.016"), hand(12, 2.5, "-0.02"))
	b.stands("0.03") // The second one is for the next snapshots to show.
	if pos := b.state.Positions[btc]; pos.Cursor != 11 {
		t.Errorf("the cursor is at %d", pos.Cursor)
	}
	b.sees(3, "0.01")
	b.needs(b.sees(4, "0.01"), NeedTrades)
	b.hears(hand(12, 2.5, "-0.02"))
	b.stands("0.01")
}

// TestResidual: two flat snapshots before the fetch, a while apart, write the rest off, and what was traded till then is never counted again.
func TestResidual(t *testing.T) {
	b := opened(t, "0.046")
	b.sees(1, "0.030")
	b.needs(b.sees(2, "0"), NeedSnapshot) // One flat snapshot is not two.
	b.needs(b.sees(3, "0"), NeedTrades)
	b.hears(hand(11, 0.5, "-0.016"))
	b.stands("0.046") // Both may be of one that lags.
	b.needs(b.sees(12.5, "0"), NeedTrades)
	b.hears(hand(11, 0.5, "-0.016"))
	b.stands("0")
	if pos := b.state.Positions[btc]; pos.Cursor != 11 {
		t.Errorf("the cursor stayed at %d", pos.Cursor)
	}
	b.sees(60, "0.05")
	b.needs(b.sees(61, "0.05"), NeedTrades)
	b.hears(hand(11, 0.5, "-0.016"), hand(13, 59, "0.05"))
	b.stands("0.05")
}

// TestResidualWaitsForATrade: what was traded after the first flat snapshot is not surely in both, so nothing is written off.
func TestResidualWaitsForATrade(t *testing.T) {
	b := opened(t, "0.046")
	b.sees(1, "0")
	b.needs(b.sees(2, "0"), NeedTrades)
	b.needs(b.hears(hand(11, 0.5, "-0.016"), hand(12, 2.5, "0.05")), NeedSnapshot)
	b.stands("0.046")
	b.needs(b.sees(3, "0.05"), NeedSnapshot)
}

// TestDriftBeginsAnewAfterAnOrder: two snapshots that differ count only when no order of ours lies between them.
func TestDriftBeginsAnewAfterAnOrder(t *testing.T) {
	t.Run("a fill", func(t *testing.T) {
		b := opened(t, "0.046")
		b.sees(1, "0.030")
		b.fold(&ledger.FillBooked{Trade: hand(11, 1.5, "-0.010"), External: true})
		b.sees(1.2, "0.030")
		b.needs(b.sees(2, "0.030"), NeedSnapshot)
	})
	t.Run("an unresolved order", func(t *testing.T) {
		b := opened(t, "0.046")
		b.sees(1, "0.030")
		b.order("pc-plan-1-1", ledger.CloseStep, ledger.Sending, ledger.Sell, "0.010")
		b.needs(b.sees(2, "0.030"), "")
		b.state.Intents["pc-plan-1-1"].State = ledger.NotPlaced
		b.needs(b.sees(3, "0.030"), NeedSnapshot)
	})
	t.Run("our trade after the snapshot", func(t *testing.T) {
		b := opened(t, "0.046")
		b.order("pc-plan-s1-1", ledger.StopStep, ledger.Standing, ledger.Sell, "0.030")
		b.sees(1, "0.030")
		b.sees(2, "0.030")
		b.needs(b.hears(ours(hand(11, 2.5, "-0.030"), "pc-plan-s1-1")), NeedSnapshot)
		b.stands("0.016") // It is booked, and says nothing about the snapshot before it.
	})
}

// TestSidesAreComparedAfterOurOwnTrades: a stop of ours that closed the ledger's position leaves no side to mismatch.
func TestSidesAreComparedAfterOurOwnTrades(t *testing.T) {
	b := opened(t, "-0.01")
	b.order("pc-plan-s1-1", ledger.StopStep, ledger.Standing, ledger.Buy, "0.01")
	b.sees(1, "0.05")
	b.sees(2, "0.05")
	b.hears(ours(hand(11, 0.2, "0.01"), "pc-plan-s1-1"), hand(12, 0.5, "0.05"))
	b.stands("0.05")

	b = opened(t, "-0.01")
	b.sees(1, "0.05")
	b.sees(2, "0.05")
	b.hears(hand(11, 0.5, "0.06"))
	b.stands("-0.01", ledger.HoldSideMismatch)
}

// TestARepairBooksInOrder: the average entry, and the epoch, depend on which trade came first.
func TestARepairBooksInOrder(t *testing.T) {
	b := opened(t, "0.05")
	b.order("pc-plan-s1-1", ledger.StopStep, ledger.Standing, ledger.Sell, "0.05")
	b.sees(1, "0.03")
	b.sees(2, "0.03")
	f := b.hears(hand(11, 0.2, "0.05"), ours(hand(12, 0.3, "-0.05"), "pc-plan-s1-1"), hand(13, 0.4, "-0.02"))
	var ids []int64
	for _, e := range f.Events {
		if fill, ok := e.(*ledger.FillBooked); ok {
			ids = append(ids, fill.Trade.ID)
		}
	}
	pos := b.state.Positions[btc] // Ours first would have ended the epoch.
	if !slices.Equal(ids, []int64{11, 12, 13}) || pos.Epoch != 1 || pos.Entry.String() != "85000" || pos.Cursor != 13 {
		t.Errorf("booked %v; position %+v", ids, pos)
	}
	if gone := b.state.Intents["pc-plan-s1-1"].State; gone != ledger.Settled {
		t.Errorf("the stop that filled is %s", gone)
	}
	b.stands("0.03")
}

// TestGoingFlatAnswersExternalTrades, whatever the policy is: there is nothing left to be careful with.
func TestGoingFlatAnswersExternalTrades(t *testing.T) {
	b := opened(t, "0.046")
	b.c.ExternalTrades = HoldOnIt
	b.sees(1, "0.03")
	b.sees(2, "0.03")
	b.hears(hand(11, 0.5, "-0.016"))
	b.stands("0.046", ledger.HoldExternalTrades)
	b.sees(3, "0")
	b.needs(b.sees(4, "0"), NeedTrades)
	b.hears(hand(11, 0.5, "-0.016"), hand(12, 2.5, "-0.03"))
	b.sees(5, "0")
	b.stands("0")
}

// TestNoLedgerIsOpenedOverAnOrder: the cursor of an adoption would swallow the order's trades.
func TestNoLedgerIsOpenedOverAnOrder(t *testing.T) {
	b := opened(t, "")
	b.order("pc-plan-1-1", ledger.CloseStep, ledger.Unknown, ledger.Sell, "0.01")
	b.needs(b.sees(1, "0.046"), "")
	b.state.Intents["pc-plan-1-1"].State = ledger.NotPlaced
	b.needs(b.sees(2, "0.046"), NeedCursor)
	b.taking.cursor, b.taking.cursorAt = 11, second(2.5)
	b.state.Intents["pc-plan-1-1"].State = ledger.Sending
	if b.sees(3, "0.046"); b.state.Positions[btc] != nil {
		t.Fatal("a ledger was opened while an order of ours is unresolved")
	}
	b.state.Intents["pc-plan-1-1"].State = ledger.NotPlaced
	b.needs(b.sees(4, "0.046"), NeedCursor)
	b.taking.cursor, b.taking.cursorAt = 12, second(4.5)
	b.sees(5, "0.046")
	b.stands("0.046")
}

// TestASyncWaitsForASnapshotThatKnowsOurTrades: one that left before a booked trade would count it twice.
func TestASyncWaitsForASnapshotThatKnowsOurTrades(t *testing.T) {
	b := opened(t, "0.046")
	order := Sync{Value: ledger.SyncOrder{Key: btc, Who: "test", Why: "test"}}
	b.taking = &taking{first: snapshot(0, "0.046").Holdings[0], cursor: 10, cursorAt: second(1), sync: &order}
	b.fold(&ledger.FillBooked{External: true, Trade: hand(11, 2.5, "-0.034")})
	if f := b.sees(2, "0.046"); f.Reply != nil {
		t.Fatalf("an old snapshot was taken over: %+v", f.Reply.Result)
	}
	f := b.sees(3, "0.012")
	if f.Reply == nil || !strings.Contains(f.Reply.Result.Error, string(ledger.HoldPositionMoving)) {
		t.Fatalf("reply %+v", f.Reply)
	}
	b.stands("0.012")
}

// TestASyncIsNotTakenInByASnapshotThatLags: one that was sent after a booked trade, and still shows what was before it.
func TestASyncIsNotTakenInByASnapshotThatLags(t *testing.T) {
	b := opened(t, "0.046")
	order := Sync{Value: ledger.SyncOrder{Key: btc, Who: "test", Why: "test"}}
	b.taking = &taking{first: snapshot(0, "0.046").Holdings[0], firstAt: second(0), cursor: 10, cursorAt: second(1), sync: &order}
	b.fold(&ledger.FillBooked{External: true, Trade: hand(11, 2.5, "-0.034")})
	f := b.sees(3, "0.046")
	if f.Reply == nil || !strings.Contains(f.Reply.Result.Error, string(ledger.HoldPositionMoving)) {
		t.Fatalf("reply %+v", f.Reply)
	}
	b.stands("0.012")
}

// TestASyncEndsTheDriftBeforeIt: trades that were fetched for an older snapshot are not held against the new amount.
func TestASyncEndsTheDriftBeforeIt(t *testing.T) {
	b := opened(t, "0.046")
	b.sees(1, "0.03")
	b.needs(b.sees(2, "0.03"), NeedTrades)
	order := Sync{Value: ledger.SyncOrder{Key: btc, Who: "test", Why: "test"}}
	b.taking = &taking{first: snapshot(2.5, "0.02").Holdings[0], cursor: 12, cursorAt: second(3), sync: &order}
	if f := b.sees(4, "0.02"); f.Reply == nil || f.Reply.Result.To.String() != "0.02" {
		t.Fatalf("reply %+v", f.Reply)
	}
	b.hears(hand(11, 0.5, "-0.016"), hand(12, 2.2, "-0.01"))
	b.stands("0.02")
}

// TestALateCursorBelongsToNobody: the answer to a question of a sync that was given up leaves the next one alone.
func TestALateCursorBelongsToNobody(t *testing.T) {
	old := &taking{sync: &Sync{Reply: make(chan ledger.SyncResult, 1)}}
	next := &taking{sync: &Sync{Reply: make(chan ledger.SyncResult, 1)}}
	r := &Stage{watches: map[ledger.Key]*Watch{btc: {taking: next}}}
	if err := r.onCursor(t.Context(), result{key: btc, taking: old, err: errors.New("too late")}); err != nil || r.watches[btc].taking != next || len(old.sync.Reply) != 0 {
		t.Errorf("%v: %+v, %d answers", err, r.watches[btc].taking, len(old.sync.Reply))
	}
}

// TestAnOldSnapshotIsNotFresh, however lately it arrived.
func TestAnOldSnapshotIsNotFresh(t *testing.T) {
	b := opened(t, "0.046")
	b.fold(&ledger.HoldPut{Key: btc, Reason: ledger.HoldStaleExchange, Owner: owner, Evidence: "test"})
	b.fold(b.look(b.c, b.state, btc, snapshot(1, "0.046"), second(12)).Events...)
	b.stands("0.046", ledger.HoldStaleExchange)
	b.fold(b.look(b.c, b.state, btc, snapshot(12, "0.046"), second(13)).Events...)
	b.stands("0.046")
}

// TestOnlyAnAllowExpires: a denial is no permit that could.
func TestOnlyAnAllowExpires(t *testing.T) {
	b := opened(t, "0.046")
	p := &ledger.Plan{ID: "plan", Proposal: ledger.Proposal{Symbol: btc.Symbol, Side: btc.Side, Action: ledger.FullClose}, Steps: []ledger.Step{{Kind: ledger.CloseStep}}}
	for amount, want := range map[string]ledger.Ruling{"0.046": ledger.Allow, "0.03": ledger.Deny} {
		seen := Seen{At: second(2), Snapshot: snapshot(1, amount), Mark: ledger.MustPrice("80000"), Lot: ledger.Lot{Step: ledger.MustQty("0.001"), Min: ledger.MustQty("0.001"), Max: ledger.MustQty("100")}}
		v := Permit(b.c, b.state, p, seen, second(2)).Verdicts[0]
		if v.Ruling != want || v.Expires.IsZero() != (want == ledger.Deny) || (want == ledger.Allow && !v.Expires.Equal(second(62))) {
			t.Errorf("%s: %+v", amount, v)
		}
	}
}

// many is an exchange with so many trades.
type many struct {
	exchange.Exchange
	trades int64
	fails  error
}

func (m many) Trades(_ context.Context, _ string, after int64) ([]ledger.Trade, error) {
	var page []ledger.Trade
	for id := after + 1; id <= m.trades && len(page) < exchange.TradesPage; id++ {
		page = append(page, ledger.Trade{ID: id})
	}
	return page, m.fails
}

// TestTradesAfterIsAllOrNothing: a part of the trades would explain an amount wrongly.
func TestTradesAfterIsAllOrNothing(t *testing.T) {
	for _, n := range []int64{0, 7, 1000, 1001, 19_999} {
		trades, err := exchange.TradesAfter(t.Context(), many{trades: n + 5}, "BTCUSDT", 5)
		if err != nil || int64(len(trades)) != n || (n > 0 && trades[n-1].ID != n+5) {
			t.Errorf("%d trades: %d came, %v", n, len(trades), err)
		}
	}
	if trades, err := exchange.TradesAfter(t.Context(), many{trades: 20_000}, "BTCUSDT", 0); err == nil || trades != nil {
		t.Errorf("more than may be read: %d came, %v", len(trades), err)
	}
	dead := errors.New("dead")
	if _, err := exchange.TradesAfter(t.Context(), many{fails: dead}, "BTCUSDT", 0); !errors.Is(err, dead) {
		t.Errorf("%v", err)
	}
}

// TestWhatIsNotTradedIsNotJudged: but for what is held of it, or has a ledger.
func TestWhatIsNotTradedIsNotJudged(t *testing.T) {
	key := func(symbol string) ledger.Key { return ledger.Key{Symbol: symbol, Side: ledger.Both} }
	r := &Stage{Symbols: []string{"BTCUSDT", "HELDUSDT", "NOUSDT"}, Board: exchange.NewBoard(map[string]exchange.Market{"BTCUSDT": {}})}
	snap := &ledger.Snapshot{Holdings: []ledger.Holding{{Key: key("HELDUSDT"), Amount: ledger.MustQty("1")}}}
	s := ledger.NewState()
	s.Positions[key("NOUSDT")] = &ledger.Position{}
	if keys := r.keys(ledger.NewState(), snap); !slices.Equal(keys, []ledger.Key{btc, key("HELDUSDT")}) {
		t.Errorf("judged are %v", keys)
	}
	if keys := r.keys(s, snap); len(keys) != 3 {
		t.Errorf("with a ledger: %v", keys)
	}
}

// TestTheCursorOfAQuietSideFollows: but never over a trade that the snapshot may not know of.
func TestTheCursorOfAQuietSideFollows(t *testing.T) {
	b := opened(t, "0.046")
	other := ledger.Key{Symbol: btc.Symbol, Side: ledger.Short}
	b.fold(&ledger.LedgerOpened{Holding: ledger.Holding{Key: other, Amount: ledger.MustQty("-1"), Entry: ledger.MustPrice("80000")}, Cursor: 10, By: "test"})
	for _, step := range []struct {
		at     float64
		trades int64 // of the other side, before the snapshot
		want   int64
	}{{0, 10, 10}, {590, 25_000, 10}, {601, 25_000, 10}, {1190, 26_000, 10}, {1202, 26_000, 25_000}, {1300, 27_000, 25_000}, {1803, 27_000, 26_000}} {
		b.fold(&ledger.LedgerReconciled{Key: other, Cursor: step.trades})
		b.sees(step.at, "0.046")
		if c := b.state.Positions[btc].Cursor; c != step.want {
			t.Errorf("after %v s: the cursor is %d, wanted %d", step.at, c, step.want)
		}
	}
	b.sees(2500, "0.03")
	if b.needs(b.sees(2501, "0.03"), NeedTrades); b.state.Positions[btc].Cursor != 26_000 {
		t.Error("the cursor moves though exchange and ledger differ")
	}
}
