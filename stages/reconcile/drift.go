package reconcile

import (
	"fmt"
	"time"

	"permitchain/ledger"
)

// Watch is what the reconciler remembers of one position between snapshots. It is
// volatile on purpose: after a restart everything is looked at again.
type Watch struct {
	driftSince time.Time // SentAt of the first of consecutive snapshots that differ from the ledger
	fetching   bool      // trades are on their way
	taking     *taking   // an amount is being taken over
	replyTo    *Sync     // and the operator waits for it
}

// taking is the way in which the exchange's amount becomes the ledger's: a snapshot, the id of
// the newest trade, and a second snapshot that must agree, so that no trade falls between amount and cursor.
type taking struct {
	first    ledger.Holding
	cursor   int64
	cursorAt time.Time         // exchange clock, when the cursor was known; zero: not yet
	sync     *ledger.SyncOrder // nil: adoption of a position that has no ledger
}

// Need is something the kernel wants to know before it can go on.
type Need string

// What it can want.
const (
	NeedSnapshot Need = "snapshot" // one more, now
	NeedTrades   Need = "trades"   // those after the cursor
	NeedCursor   Need = "cursor"   // the id of the newest trade
)

// finding is the kernel's answer: what to write, what to find out, and whom to tell.
type finding struct {
	Events []ledger.Event
	Need   Need
	Sync   *ledger.SyncResult // the sync in progress has ended
}

const owner = "reconcile"

// look judges one position on a fresh snapshot.
func (w *Watch) look(c Config, s *ledger.State, k ledger.Key, snap *ledger.Snapshot) finding {
	var f finding
	f.clear(s, k, "a fresh snapshot has arrived", ledger.HoldMissingExchange, ledger.HoldStaleExchange)
	if w.taking != nil {
		return w.take(s, k, snap, f)
	}
	held, pos := snap.Of(k), s.Positions[k]
	if pos == nil {
		if c.Initial == HoldOnIt && !held.Amount.IsZero() {
			f.hold(s, k, ledger.HoldNoLedger, "the exchange holds "+held.Amount.String())
			return f
		}
		w.taking = &taking{first: held}
		f.Need = NeedCursor
		return f
	}
	if !snap.SentAt.After(pos.LastTradeAt) || s.UnresolvedOn(k, ledger.CloseStep) != nil || w.fetching {
		return f // It may not know of our last trade yet: it says nothing about drift.
	}
	drift := held.Amount.Sub(pos.Amount)
	if drift.IsZero() {
		w.driftSince = time.Time{}
		f.agree(s, k, pos)
		return f
	}
	if w.driftSince.IsZero() {
		w.driftSince, f.Need = snap.SentAt, NeedSnapshot
		return f
	}
	if snap.SentAt.After(w.driftSince) {
		w.fetching, f.Need = true, NeedTrades
	}
	return f
}

// agree clears what agreement answers; only a position that is flat answers what needs the operator.
func (f *finding) agree(s *ledger.State, k ledger.Key, pos *ledger.Position) {
	f.clear(s, k, "exchange and ledger agree", ledger.HoldQtyMismatch)
	if len(pos.Beyond) > 0 { // A snapshot after the last trade agrees: everything up to it is accounted for.
		f.Events = append(f.Events, &ledger.LedgerReconciled{Key: k, Cursor: pos.LastTradeID()})
	}
	if pos.Amount.IsZero() {
		f.clear(s, k, "the position is flat", ledger.HoldNoLedger, ledger.HoldExternalTrades, ledger.HoldSideMismatch)
	}
}

// explain judges drift by the account's trades after the cursor. snap is a snapshot that shows the drift.
func (w *Watch) explain(c Config, s *ledger.State, k ledger.Key, snap *ledger.Snapshot, trades []ledger.Trade, lot ledger.Lot, mark ledger.Price) finding {
	var f finding
	w.fetching = false
	pos := s.Positions[k]
	held := snap.Of(k)
	if pos == nil || !snap.SentAt.After(pos.LastTradeAt) || s.UnresolvedOn(k, ledger.CloseStep) != nil {
		return f
	}
	own, others := s.Unbooked(k, trades)
	f.Events = append(f.Events, s.BookOwn(own)...)
	afterOwn := pos.Amount.Add(sum(own))
	explained := afterOwn.Add(sum(others)).Equal(held.Amount)
	opposite := pos.Amount.Sign()*held.Amount.Sign() < 0
	switch {
	case foreignInstance(others) != nil:
		t := foreignInstance(others)
		f.hold(s, k, ledger.HoldForeignInstance, fmt.Sprintf("trade %d of order %s, which this ledger never promised", t.ID, t.ClientOrderID))
	case opposite:
		f.hold(s, k, ledger.HoldSideMismatch, fmt.Sprintf("exchange %s, ledger %s", held.Amount, afterOwn))
	case explained && len(others) > 0 && c.ExternalTrades == HoldOnIt:
		f.hold(s, k, ledger.HoldExternalTrades, fmt.Sprintf("%d trades of others, %s in all", len(others), sum(others)))
	case explained:
		f.repair(s, k, pos, own, others)
		w.driftSince = time.Time{}
	case held.Amount.IsZero():
		f.Events = append(f.Events, &ledger.LedgerResidual{Key: k, Amount: afterOwn})
		f.clear(s, k, "the position is flat", ledger.HoldQtyMismatch, ledger.HoldNoLedger, ledger.HoldExternalTrades, ledger.HoldSideMismatch)
		w.driftSince = time.Time{}
	case c.Tolerance().Of(lot, held.Amount, mark).Less(held.Amount.Sub(afterOwn).Abs()):
		f.hold(s, k, ledger.HoldQtyMismatch, fmt.Sprintf("exchange %s, ledger %s, %d trades after id %d explain %s", held.Amount, afterOwn, len(own)+len(others), pos.Cursor, sum(others)))
	}
	return f
}

// repair books the trades of others; afterwards the ledger equals the exchange.
func (f *finding) repair(s *ledger.State, k ledger.Key, pos *ledger.Position, own, others []ledger.Trade) {
	e := &ledger.LedgerReconciled{Key: k, Cursor: pos.LastTradeID()}
	for _, t := range others {
		f.Events = append(f.Events, &ledger.FillBooked{Trade: t, External: true})
	}
	for _, t := range append(own, others...) {
		e.Trades = append(e.Trades, t.ID)
		e.Cursor = max(e.Cursor, t.ID)
	}
	f.Events = append(f.Events, e)
	f.clear(s, k, "repaired by trades", ledger.HoldQtyMismatch)
}

// take goes on with taking the exchange's amount over: snap is a snapshot after the one it began with.
func (w *Watch) take(s *ledger.State, k ledger.Key, snap *ledger.Snapshot, f finding) finding {
	t, held := w.taking, snap.Of(k)
	if t.cursorAt.IsZero() || !snap.SentAt.After(t.cursorAt) {
		return f
	}
	w.taking = nil
	if !held.Amount.Equal(t.first.Amount) {
		return w.moving(s, k, t, held, f)
	}
	pos := s.Positions[k]
	if t.sync == nil {
		f.Events = append(f.Events, &ledger.LedgerOpened{Holding: held, Cursor: t.cursor, By: "adopted: two snapshots agree"})
		f.clear(s, k, "adopted", ledger.HoldNoLedger, ledger.HoldPositionMoving)
		return f
	}
	if i := s.UnresolvedOn(k, ledger.CloseStep); i != nil {
		f.Sync = &ledger.SyncResult{Error: fmt.Sprintf("order %s is unresolved: settle it first", i.ClientOrderID)}
		return f
	}
	var from ledger.Qty
	if pos != nil {
		from = pos.Amount
	}
	f.Events = append(f.Events, &ledger.LedgerAdjusted{Holding: held, From: from, Cursor: t.cursor, Who: t.sync.Who, Why: t.sync.Why})
	f.clear(s, k, "ledger sync: "+t.sync.Why, ledger.HoldQtyMismatch, ledger.HoldSideMismatch, ledger.HoldNoLedger,
		ledger.HoldExternalTrades, ledger.HoldForeignInstance, ledger.HoldPositionMoving)
	w.driftSince = time.Time{}
	f.Sync = &ledger.SyncResult{From: from, To: held.Amount}
	return f
}

// moving gives up one try at taking an amount over: a trade came in between.
func (w *Watch) moving(s *ledger.State, k ledger.Key, t *taking, held ledger.Holding, f finding) finding {
	why := fmt.Sprintf("%s became %s while it was being taken over", t.first.Amount, held.Amount)
	if t.sync != nil {
		f.Sync = &ledger.SyncResult{Error: string(ledger.HoldPositionMoving) + ": " + why + "; try again"}
		return f
	}
	f.hold(s, k, ledger.HoldPositionMoving, why)
	w.taking = &taking{first: held}
	f.Need = NeedCursor
	return f
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
