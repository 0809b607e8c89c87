package reconcile

import (
	"fmt"
	"slices"
	"time"

	"permitchain/ledger"
)

// Watch is what the reconciler remembers of one position between snapshots. It is
// volatile on purpose: after a restart everything is looked at again.
type Watch struct {
	first    *ledger.Snapshot // of consecutive snapshots that differ from the ledger, all flat or none; nil: the last agreed, or can't tell
	last     *ledger.Snapshot // a later one of them: the trades that are fetched are to explain it
	fetching bool             // and are on their way
	taking   *taking          // an amount is being taken over
	reach    int64            // the newest trade of the symbol that any ledger knew …
	reachAt  time.Time        // … when this snapshot was judged
}

// catchUpEvery is how often the cursor of a position that agrees follows the trades of its symbol's other side.
const catchUpEvery = 10 * time.Minute

// catchUp moves the cursor of a position that agrees to what had been traded long before the snapshot. Trades are listed by
// symbol: beside a side that trades much, those behind the cursor of a quiet one would become too many to be read.
func (w *Watch) catchUp(s *ledger.State, k ledger.Key, pos *ledger.Position, snap *ledger.Snapshot, f *finding) {
	if snap.SentAt.Sub(w.reachAt) < catchUpEvery {
		return
	}
	if w.reach > pos.LastTradeID() {
		f.Events = append(f.Events, &ledger.LedgerReconciled{Key: k, Cursor: w.reach})
	}
	w.reach, w.reachAt = pos.LastTradeID(), snap.SentAt
	for other, p := range s.Positions {
		if other.Symbol == k.Symbol {
			w.reach = max(w.reach, p.LastTradeID())
		}
	}
}

// taking is the way in which the exchange's amount becomes the ledger's: a snapshot, the id of
// the newest trade, and a second snapshot that must agree, so that no trade falls between amount and cursor.
type taking struct {
	first    ledger.Holding
	firstAt  time.Time // exchange clock, when the snapshot that shows it was sent
	cursor   int64
	cursorAt time.Time // exchange clock, when the cursor was known; zero: not yet
	sync     *Sync     // the operator waits for it; nil: adoption of a position that has no ledger
	until    time.Time // local clock; then the operator is told that nothing came of it
}

// Need is something the kernel wants to know before it can go on.
type Need string

// What it can want.
const (
	NeedSnapshot Need = "snapshot" // one more, now
	NeedTrades   Need = "trades"   // those after the cursor
	NeedCursor   Need = "cursor"   // the id of the newest trade
	NeedOrders   Need = "orders"   // those of our form
)

// finding is the kernel's answer: what to write, what to find out, and whom to tell.
type finding struct {
	Events []ledger.Event
	Need   Need
	After  int64  // the cursor behind which trades are needed
	Reply  *Reply // the sync in progress has ended
}

const owner = "reconcile"

// look judges one position on a new snapshot; at is the exchange's clock.
func (w *Watch) look(c Config, s *ledger.State, k ledger.Key, snap *ledger.Snapshot, at time.Time) finding {
	var f finding
	if ledger.Fresh(snap.SentAt, at, c.StaleAfter) { // After a slow answer it is not.
		f.clear(s, k, "a fresh snapshot has arrived", ledger.HoldMissingExchange, ledger.HoldStaleExchange)
	}
	if w.taking != nil {
		return w.take(s, k, snap, f)
	}
	held, pos := snap.Of(k), s.Positions[k]
	unresolved := s.UnresolvedOn(k, ledger.CloseStep) != nil
	switch {
	case pos == nil && c.Initial == HoldOnIt && !held.Amount.IsZero():
		f.hold(s, k, ledger.HoldNoLedger, "the exchange holds "+held.Amount.String())
	case pos == nil && unresolved: // A cursor that is read now would swallow the order's trades.
	case pos == nil:
		w.taking, f.Need = &taking{first: held, firstAt: snap.SentAt}, NeedCursor
	case unresolved || !snap.SentAt.After(pos.LastTradeAt):
		w.first = nil // It may not know of our last trade yet: it says nothing about drift, and drift begins anew after it.
	case w.fetching:
	default:
		w.compare(s, k, pos, snap, &f)
	}
	return f
}

// compare looks for drift: only the second of two snapshots that show it has it explained.
func (w *Watch) compare(s *ledger.State, k ledger.Key, pos *ledger.Position, snap *ledger.Snapshot, f *finding) {
	held := snap.Of(k).Amount
	switch {
	case held.Equal(pos.Amount):
		w.first = nil
		f.agree(s, k, pos)
		w.catchUp(s, k, pos, snap, f)
	case w.first == nil || w.first.Of(k).Amount.IsZero() != held.IsZero():
		w.first, f.Need = snap, NeedSnapshot
	case snap.SentAt.After(w.first.SentAt):
		w.last, w.fetching = snap, true
		f.Need, f.After = NeedTrades, pos.Cursor
	}
}

// agree clears what agreement answers; only a position that is flat answers what needs the operator.
func (f *finding) agree(s *ledger.State, k ledger.Key, pos *ledger.Position) {
	f.clear(s, k, "exchange and ledger agree", ledger.HoldQtyMismatch)
	if len(pos.Beyond) > 0 { // A snapshot after the last trade agrees: everything up to it is accounted for.
		f.Events = append(f.Events, &ledger.LedgerReconciled{Key: k, Cursor: pos.LastTradeID()})
	}
	if pos.Amount.IsZero() {
		f.flat(s, k)
	}
}

// flat clears what a position that is gone has answered.
func (f *finding) flat(s *ledger.State, k ledger.Key) {
	f.clear(s, k, "the position is flat", ledger.HoldNoLedger, ledger.HoldExternalTrades, ledger.HoldSideMismatch)
}

// explain judges drift by the account's trades after the cursor, which were fetched after the snapshot that shows it.
func (w *Watch) explain(c Config, s *ledger.State, k ledger.Key, trades []ledger.Trade, lot ledger.Lot, mark ledger.Price) finding {
	var f finding
	pos, snap, first := s.Positions[k], w.last, w.first
	w.last, w.fetching = nil, false
	if first == nil || pos == nil || !snap.SentAt.After(pos.LastTradeAt) || s.UnresolvedOn(k, ledger.CloseStep) != nil {
		w.first = nil
		return f
	}
	own, others := s.Unbooked(k, trades)
	f.Events = s.BookOwn(own)
	if since(own, snap.SentAt) { // Drift is judged only on a snapshot that knows of our last trade.
		w.first, f.Need = nil, NeedSnapshot
		return f
	}
	held, afterOwn := snap.Of(k).Amount, pos.Amount.Add(sum(own))
	shown, explained := shownBy(snap.SentAt, held, afterOwn, others)
	foreign := foreignInstance(others)
	switch {
	case foreign != nil:
		f.hold(s, k, ledger.HoldForeignInstance, fmt.Sprintf("trade %d of order %d (%s), which %s", foreign.ID, foreign.OrderID, foreign.ClientOrderID, disowned(s, foreign.ClientOrderID)))
	case afterOwn.Sign()*held.Sign() < 0:
		f.hold(s, k, ledger.HoldSideMismatch, fmt.Sprintf("exchange %s, ledger %s", held, afterOwn))
	case explained && len(shown) > 0 && c.ExternalTrades == HoldOnIt && !held.IsZero():
		f.hold(s, k, ledger.HoldExternalTrades, fmt.Sprintf("%d trades of others, %s in all", len(shown), sum(shown)))
	case explained:
		w.first = nil
		f.repair(s, k, pos, shown)
	case held.IsZero() && since(others, first.SentAt): // What both flat snapshots know is not certain.
		w.first, f.Need = nil, NeedSnapshot
	case held.IsZero() && snap.SentAt.Sub(first.SentAt) < c.StaleAfter: // An exchange that lags behind itself would show both.
	case held.IsZero():
		w.first = nil
		f.writeOff(s, k, pos, afterOwn, others)
	case c.Tolerance().Of(lot, held, mark).Less(held.Sub(afterOwn).Abs()):
		f.hold(s, k, ledger.HoldQtyMismatch, fmt.Sprintf("exchange %s, ledger %s, %d trades after id %d explain %s", held, afterOwn, len(own)+len(others), pos.Cursor, sum(others)))
	}
	return f
}

// shownBy are those trades of others that a snapshot shows, and whether they explain exactly how it differs from what the
// ledger is without them. A trade that is not older than the snapshot is in it or not: in order, since an amount has no gaps.
func shownBy(sentAt time.Time, held, without ledger.Qty, others []ledger.Trade) ([]ledger.Trade, bool) {
	for i, t := range others {
		if without.Equal(held) && !t.At.Before(sentAt) {
			return others[:i], true
		}
		without = without.Add(t.Direction.Signed(t.Qty))
	}
	return others, without.Equal(held)
}

// since tells whether any of the trades may be missing in a snapshot.
func since(trades []ledger.Trade, sentAt time.Time) bool {
	return slices.ContainsFunc(trades, func(t ledger.Trade) bool { return !t.At.Before(sentAt) })
}

// repair books the trades of others among ours, in order of their ids: entry price and epoch depend on it.
// Afterwards the ledger equals the exchange.
func (f *finding) repair(s *ledger.State, k ledger.Key, pos *ledger.Position, others []ledger.Trade) {
	own, e := f.Events, &ledger.LedgerReconciled{Key: k, Cursor: pos.Cursor}
	f.Events = nil
	book := func(fill *ledger.FillBooked) {
		f.Events = append(f.Events, fill)
		e.Trades, e.Cursor = append(e.Trades, fill.Trade.ID), max(e.Cursor, fill.Trade.ID)
	}
	for _, event := range own {
		fill, isFill := event.(*ledger.FillBooked)
		if !isFill {
			f.Events = append(f.Events, event) // It follows from the fill before it.
			continue
		}
		for len(others) > 0 && others[0].ID < fill.Trade.ID {
			book(&ledger.FillBooked{Trade: others[0], External: true})
			others = others[1:]
		}
		book(fill)
	}
	for _, t := range others {
		book(&ledger.FillBooked{Trade: t, External: true})
	}
	if len(e.Trades) > 0 {
		f.Events = append(f.Events, e)
	}
	f.clear(s, k, "repaired by trades", ledger.HoldQtyMismatch)
}

// writeOff ends the ledger of a position that two snapshots show flat, and that trades don't explain. Those trades are
// in what is written off: they must never be counted again.
func (f *finding) writeOff(s *ledger.State, k ledger.Key, pos *ledger.Position, left ledger.Qty, others []ledger.Trade) {
	cursor := pos.Cursor
	for _, t := range others {
		cursor = max(cursor, t.ID)
	}
	for _, e := range f.Events {
		if fill, ok := e.(*ledger.FillBooked); ok {
			cursor = max(cursor, fill.Trade.ID)
		}
	}
	f.Events = append(f.Events, &ledger.LedgerResidual{Key: k, Amount: left}, &ledger.LedgerReconciled{Key: k, Cursor: cursor})
	f.clear(s, k, "the position is flat", ledger.HoldQtyMismatch)
	f.flat(s, k)
}

// take goes on with taking the exchange's amount over: snap is a snapshot after the one it began with.
func (w *Watch) take(s *ledger.State, k ledger.Key, snap *ledger.Snapshot, f finding) finding {
	t, held, pos := w.taking, snap.Of(k), s.Positions[k]
	if t.cursorAt.IsZero() || !snap.SentAt.After(t.cursorAt) || (pos != nil && !snap.SentAt.After(pos.LastTradeAt)) {
		return f // The next one may know enough.
	}
	w.taking = nil
	if i := s.UnresolvedOn(k, ledger.CloseStep); i != nil { // The cursor may have swallowed its trades: adoption begins anew once it is settled.
		f.reply(t, ledger.SyncResult{Error: fmt.Sprintf("order %s is unresolved: settle it first", i.ClientOrderID)})
		return f
	}
	// A trade that was booked since the first is in the ledger: two snapshots that agree without it may both be behind.
	if !held.Amount.Equal(t.first.Amount) || (pos != nil && pos.LastTradeAt.After(t.firstAt)) {
		return w.moving(s, k, t, held, snap.SentAt, f)
	}
	w.first = nil
	if t.sync == nil {
		f.Events = append(f.Events, &ledger.LedgerOpened{Holding: held, Cursor: t.cursor, By: "adopted: two snapshots agree"})
		f.clear(s, k, "adopted", ledger.HoldNoLedger, ledger.HoldPositionMoving)
		return f
	}
	from, _ := s.Amount(k)
	order := t.sync.Value
	f.Events = append(f.Events, &ledger.LedgerAdjusted{Holding: held, From: from, Cursor: t.cursor, Who: order.Who, Why: order.Why})
	f.clear(s, k, "ledger sync: "+order.Why, ledger.HoldQtyMismatch, ledger.HoldSideMismatch, ledger.HoldNoLedger,
		ledger.HoldExternalTrades, ledger.HoldForeignInstance, ledger.HoldPositionMoving)
	f.reply(t, ledger.SyncResult{From: from, To: held.Amount})
	return f
}

// moving gives up one try at taking an amount over: a trade came in between.
func (w *Watch) moving(s *ledger.State, k ledger.Key, t *taking, held ledger.Holding, at time.Time, f finding) finding {
	why := fmt.Sprintf("%s became %s while it was being taken over", t.first.Amount, held.Amount)
	if t.sync != nil {
		f.reply(t, ledger.SyncResult{Error: string(ledger.HoldPositionMoving) + ": " + why + "; try again"})
		return f
	}
	f.hold(s, k, ledger.HoldPositionMoving, why)
	w.taking, f.Need = &taking{first: held, firstAt: at}, NeedCursor
	return f
}

// reply tells the operator what became of a sync; nobody waits for an adoption.
func (f *finding) reply(t *taking, res ledger.SyncResult) {
	if t.sync != nil {
		f.Reply = &Reply{*t.sync, res}
	}
}

// silent judges the absence of snapshots.
func silent(c Config, s *ledger.State, k ledger.Key, snap *ledger.Snapshot, startedAt, now time.Time) finding {
	var f finding
	switch {
	case snap == nil && now.Sub(startedAt) > c.StaleAfter:
		f.hold(s, k, ledger.HoldMissingExchange, "no snapshot since the start")
	case snap != nil && !ledger.Fresh(snap.SentAt, now, c.StaleAfter):
		f.hold(s, k, ledger.HoldStaleExchange, "the newest snapshot is of "+snap.SentAt.UTC().Format(time.RFC3339))
	}
	return f
}

// hold sets a hold that is not set yet.
func (f *finding) hold(s *ledger.State, k ledger.Key, r ledger.Reason, evidence string) {
	if !s.Holds[k].Has(r) {
		f.Events = append(f.Events, &ledger.HoldPut{Key: k, Reason: r, Owner: owner, Evidence: evidence})
	}
}

// clear takes off those of the holds that are set.
func (f *finding) clear(s *ledger.State, k ledger.Key, evidence string, reasons ...ledger.Reason) {
	for _, r := range reasons {
		if s.Holds[k].Has(r) {
			f.Events = append(f.Events, &ledger.HoldCleared{Key: k, Reason: r, Owner: owner, Evidence: evidence})
		}
	}
}

func sum(trades []ledger.Trade) ledger.Qty {
	var q ledger.Qty
	for _, t := range trades {
		q = q.Add(t.Direction.Signed(t.Qty))
	}
	return q
}

// foreignInstance is a trade of an order of our form that we never promised, or nil.
func foreignInstance(trades []ledger.Trade) *ledger.Trade {
	for i := range trades {
		if ledger.OfOurForm(trades[i].ClientOrderID) {
			return &trades[i]
		}
	}
	return nil
}
