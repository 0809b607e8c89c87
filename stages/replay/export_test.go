package replay

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/pipeline"
	"permitchain/stages/apply"
	"permitchain/stages/governor"
	"permitchain/stages/reconcile"
)

// desk records a small history in a real ledger, through the kernels.
type desk struct {
	t     *testing.T
	store *store.Store
	now   time.Time
	held  ledger.Qty
	trade int64
	lot   ledger.Lot
}

var btc = ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}

func (d *desk) decide(fn func(s *ledger.State, now time.Time) []ledger.Event) {
	d.t.Helper()
	commit, err := d.store.Decide(d.t.Context(), fn)
	if err == nil {
		err = commit.Wait(d.t.Context())
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) put(events ...ledger.Event) {
	d.decide(func(*ledger.State, time.Time) []ledger.Event { return events })
}

func (d *desk) sight() apply.Sight {
	return apply.Sight{At: d.now, Mark: ledger.MustPrice("50000"), Lot: d.lot, Snapshot: &ledger.Snapshot{
		SentAt: d.now.Add(-time.Second), Holdings: []ledger.Holding{{Key: btc, Amount: d.held}},
	}}
}

// plan takes one proposal all the way; what both permits allow is filled whole.
func (d *desk) plan(action ledger.Action, score float64) {
	d.now = d.now.Add(time.Minute)
	r, see := defaults(btc.Symbol), d.sight()
	p := ledger.Proposal{Symbol: btc.Symbol, Side: btc.Side, Action: action, KillScore: score, ComputedAt: d.now.Add(-time.Millisecond), Source: ledger.FromBrain}
	basis := ledger.Basis{At: see.At, SnapshotAt: see.Snapshot.SentAt, Exchange: d.held, Mark: see.Mark, MarkAt: see.At, Lot: d.lot}
	for range 2 { // The second is a repeat.
		d.decide(func(s *ledger.State, now time.Time) []ledger.Event {
			e, _ := apply.Plan(r.Apply, s, p, basis, now)
			return []ledger.Event{e}
		})
	}
	id := p.ID()
	var order *exchange.Order
	d.decide(func(s *ledger.State, now time.Time) []ledger.Event {
		if lp := s.Plans[id]; lp.Decision == ledger.Execute {
			return []ledger.Event{&ledger.GovernorDecided{ID: id, Verdicts: governor.Decide(r.Governor, s, lp, now)}}
		}
		return nil
	})
	d.decide(func(s *ledger.State, now time.Time) []ledger.Event {
		if lp := s.Plans[id]; lp.Decision == ledger.Execute {
			return []ledger.Event{reconcile.Permit(r.Reconcile, s, lp, reconcile.Seen{At: see.At, Snapshot: see.Snapshot, Mark: see.Mark, Lot: d.lot}, now)}
		}
		return nil
	})
	d.decide(func(s *ledger.State, now time.Time) []ledger.Event {
		lp := s.Plans[id]
		if lp.Decision != ledger.Execute {
			return nil
		}
		step := apply.Join(r.Apply, s, lp, see, now)
		if len(step.Effects) > 0 {
			order = step.Effects[0].Send
		}
		return step.Events
	})
	if order == nil {
		return
	}
	filled := order.Qty
	d.trade++
	d.put(&ledger.IntentAnswered{ClientOrderID: order.ClientOrderID, State: ledger.Placed, OrderID: d.trade, Status: "FILLED", Executed: filled},
		&ledger.FillBooked{Trade: ledger.Trade{Key: btc, ID: d.trade, OrderID: d.trade, ClientOrderID: order.ClientOrderID, Direction: order.Direction, Qty: filled, Price: see.Mark, At: d.now}},
		&ledger.StepEnded{ID: id, Outcome: ledger.Executed}, &ledger.PlanEnded{ID: id, Outcome: ledger.Executed})
	d.held = d.held.Add(order.Direction.Signed(filled))
}

// history is an export: a partial close, a repeated tranche, a close in the cooldown, another by the burst limit, one
// on hold, and one with the ledger astray.
func history(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.db")
	d := &desk{t: t, now: time.Date(2026, 1, 25, 0, 0, 0, 0, time.UTC), held: ledger.MustQty("0.1"), lot: ledger.Lot{Step: ledger.MustQty("0.001"), Min: ledger.MustQty("0.001"), Max: ledger.MustQty("120")}}
	st, err := store.Open(path, store.Options{Mode: ledger.Paper, Host: "paper", Account: "paper", Now: func() time.Time { return d.now }})
	if err != nil {
		t.Fatal(err)
	}
	d.store = st
	soft, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- st.Run(pipeline.Stop{Soft: soft, Hard: context.Background()}) }()
	d.put(&ledger.ConfigUsed{Digest: "d1", Text: "mode: paper"}, &ledger.Started{Instance: 1, Mode: ledger.Paper, Version: "test", Config: "d1"},
		&ledger.LedgerOpened{Holding: ledger.Holding{Key: btc, Amount: d.held, Entry: ledger.MustPrice("50000")}, By: "adopt"})
	d.plan(ledger.Partial25, 0.3)
	d.plan(ledger.Partial25, 0.31)
	d.plan(ledger.Partial50, 0.32)
	d.plan(ledger.Partial75, 0.33)
	d.put(&ledger.HoldPut{Key: btc, Reason: ledger.HoldOperator, Owner: "operator", Evidence: "test"})
	d.plan(ledger.FullClose, 0.9)
	d.put(&ledger.HoldCleared{Key: btc, Reason: ledger.HoldOperator, Owner: "operator", Evidence: "test"})
	d.held = d.held.Add(ledger.MustQty("0.01"))
	d.plan(ledger.FullClose, 0.91)
	close(soft)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r, err := store.OpenReader(path, store.Options{Mode: ledger.Paper, Host: "paper", Account: "paper"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	if err := r.Export(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestOwnExport(t *testing.T) {
	r := play(t, nil, history(t))
	if r.Plans != 6 || r.Agree != 6 || r.UnknownLines != 0 {
		t.Fatalf("%s", toJSON(t, r))
	}
	for i, want := range []struct {
		decision  ledger.Decision
		governor  ledger.Reason
		position  ledger.Reason
		qty       string
		wouldSend bool
	}{
		{ledger.Execute, ledger.WithinLimits, ledger.PositionAgrees, "0.025", true},
		{ledger.Skip, "", "", "0", false},
		{ledger.Execute, ledger.WithinLimits, ledger.PositionAgrees, "0.037", true},
		{ledger.Execute, ledger.BurstLimit, ledger.PositionAgrees, "0", false},
		{ledger.Execute, ledger.WithinProtectiveBudget, ledger.HoldActive, "0", false},
		{ledger.Execute, ledger.WithinProtectiveBudget, ledger.QtyMismatch, "0", false},
	} {
		d := r.Decisions[i]
		if d.Decision != want.decision || d.Governor.Reason != want.governor || d.Position.Reason != want.position || d.Qty != want.qty || d.WouldExecute != want.wouldSend || d.Duplicates != 1 {
			t.Errorf("plan %d is not %v: %s", i, want, toJSON(t, d))
		}
	}
}

func TestOwnExportUnderOtherRules(t *testing.T) {
	text := history(t)
	tight := func(s string) Rules { r := defaults(s); r.Governor.MaxPerHour = 1; return r }
	r := playWith(t, Options{Rules: tight}, text)
	if d := r.Decisions[2]; r.Differ != 2 || d.Governor.Reason != ledger.HourlyLimit || d.WouldExecute || *d.Agrees {
		t.Errorf("one an hour: %s", toJSON(t, r))
	}
	recorded := Options{Rules: tight, Recorded: func(text string) (func(string) Rules, error) {
		if text != "mode: paper" {
			t.Errorf("the recorded configuration is %q", text)
		}
		return defaults, nil
	}}
	if r := playWith(t, recorded, text); r.Agree != 6 {
		t.Errorf("under the recorded configuration: %s", toJSON(t, r))
	}
	r = play(t, []string{"ledger.BTCUSDT=0.048"}, text)
	if d := r.Decisions[5]; d.Position.Reason != ledger.PositionAgrees || d.Qty != "0.048" || *d.Agrees {
		t.Errorf("with the ledger reconciled: %s", toJSON(t, r))
	}
}

// A part of an export is decided from the numbers in its verdicts, as far as they go.
func TestPartOfAnExport(t *testing.T) {
	lines := strings.SplitAfter(history(t), "\n")
	r := play(t, nil, strings.Join(lines[4:], ""))
	if r.Plans != 6 || r.Differ != 0 || r.UnknownLines != 0 || r.Agree != 4 {
		t.Errorf("%d plans, %d agree, %d differ: %s", r.Plans, r.Agree, r.Differ, toJSON(t, r))
	}
	if d := r.Decisions[0]; d.Governor.Decided == nil || d.Position.Decided != nil || d.Qty != "0.025" {
		t.Errorf("%s", toJSON(t, d))
	}
}

// A record that does not fit the ones before it is shown, and what follows is read as a part.
func TestEditedExport(t *testing.T) {
	text := history(t)
	edited := strings.Replace(text, `"diff":"0.01"`, `"diff":"0.02"`, 1)
	if edited == text {
		t.Fatal("nothing to edit")
	}
	if r := play(t, nil, edited); r.Differ != 1 || *r.Decisions[5].Agrees {
		t.Errorf("an edited number: %s", toJSON(t, r))
	}
	lines := strings.SplitAfter(text, "\n")
	twice := strings.Join(append(append([]string{}, lines[:6]...), lines[3:]...), "")
	if r := play(t, nil, twice); r.Plans != 6 || r.Differ != 0 {
		t.Errorf("records twice: %s", toJSON(t, r))
	}
	r := play(t, nil, strings.Replace(text, `"kind":"ledger.opened"`, `"kind":"ledger.unheard"`, 1))
	if r.UnknownLines == 0 || r.Differ != 0 {
		t.Errorf("an unknown kind: %s", toJSON(t, r))
	}
}
