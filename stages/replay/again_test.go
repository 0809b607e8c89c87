package replay

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"permitchain/ledger"
	"permitchain/stages/apply"
	"permitchain/stages/governor"
	"permitchain/stages/reconcile"
)

// world makes a journal through the real kernels, on a venue that fills, refuses, half fills and drifts by a seed.
type world struct {
	*Memory
	rules  func(string) Rules
	random *rand.Rand
	emit   func(ledger.Record) error
	now    time.Time
	held   map[ledger.Key]ledger.Qty
	trade  int64
	err    error
}

var (
	worldSymbols = []string{"BTCUSDT", "ETHUSDT", "SOLUSDT"}
	worldLot     = ledger.Lot{Step: ledger.MustQty("0.001"), Min: ledger.MustQty("0.001"), Max: ledger.MustQty("120")}
	worldTick    = ledger.MustPrice("0.1")
)

// worldText stands for the configuration; the rules are made beside it.
const worldText = "mode: live"

// chronicle is a journal of n plans.
func chronicle(seed uint64, n int, rules func(string) Rules) Journal {
	return func(fn func(ledger.Record) error) error {
		w := &world{
			Memory: NewMemory(), rules: rules, random: rand.New(rand.NewPCG(seed, 7)), emit: fn,
			now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), held: map[ledger.Key]ledger.Qty{},
		}
		w.put(&ledger.ConfigUsed{Digest: "d", Text: worldText}, &ledger.Started{Instance: 1, Version: "test", Mode: ledger.Live, Config: "d"})
		for _, symbol := range worldSymbols {
			k := ledger.Key{Symbol: symbol, Side: ledger.Both}
			w.held[k] = ledger.MustQty("2")
			w.put(&ledger.LedgerOpened{Holding: ledger.Holding{Key: k, Amount: w.held[k], Entry: ledger.MustPrice("100")}, By: "test"})
		}
		for i := 0; i < n && w.err == nil; i++ {
			w.now = w.now.Add(time.Duration(1+w.random.IntN(120_000)) * time.Millisecond)
			w.happen()
			w.plan()
			if i%256 == 0 {
				w.State.Forget(w.now.Add(-6 * time.Hour))
			}
		}
		return w.err
	}
}

// put appends events as they would be read back from a file.
func (w *world) put(events ...ledger.Event) {
	for _, e := range events {
		text, err := ledger.EncodeEvent(e)
		if err == nil {
			e, err = ledger.DecodeEvent(e.Kind(), ledger.PayloadVersion, text)
		}
		if err == nil && w.err == nil {
			w.err = errors.Join(w.Append(w.now, e), w.emit(ledger.Record{Seq: w.State.Control.Seq, At: w.State.Control.At, Event: e}))
		}
		w.err = errors.Join(w.err, err)
	}
}

func (w *world) oneIn(n int) bool { return w.random.IntN(n) == 0 }

func (w *world) key() ledger.Key {
	return ledger.Key{Symbol: worldSymbols[w.random.IntN(len(worldSymbols))], Side: ledger.Both}
}

// happen is what comes between plans.
func (w *world) happen() {
	if len(w.State.OpenPlans()) > 0 {
		w.restart()
	}
	k := w.key()
	c := w.State.Control
	pos := w.State.Positions[k]
	switch {
	case w.held[k].Less(ledger.MustQty("0.2")), !w.held[k].Equal(pos.Amount) && w.oneIn(5):
		if w.held[k].Less(ledger.MustQty("0.2")) {
			w.held[k] = ledger.MustQty("2")
		}
		w.put(&ledger.LedgerAdjusted{Holding: ledger.Holding{Key: k, Amount: w.held[k], Entry: ledger.MustPrice("100")}, From: pos.Amount, Cursor: w.trade, Who: "operator", Why: "synced"})
	case w.oneIn(40):
		w.trade++
		w.held[k] = w.held[k].Add(ledger.MustQty("0.1"))
		w.put(&ledger.FillBooked{External: true, Trade: ledger.Trade{Key: k, ID: w.trade, OrderID: w.trade, ClientOrderID: "web", Direction: ledger.Buy, Qty: ledger.MustQty("0.1"), Price: ledger.MustPrice("100"), At: w.now}})
	case w.oneIn(50):
		w.held[k] = w.held[k].Add(ledger.MustQty("0.05")) // Drift, until something is adjusted.
	case w.oneIn(60) && c.RunState == ledger.Armed:
		to := []ledger.RunState{ledger.Disarmed, ledger.Killed, ledger.ProtectiveOnly}[w.random.IntN(3)]
		w.put(&ledger.RunStateChanged{From: c.RunState, To: to, Who: "operator", Why: "test"})
	case c.RunState != ledger.Armed && w.oneIn(4):
		w.put(&ledger.RunStateChanged{From: c.RunState, To: ledger.Armed, Who: "operator", Why: "test"})
	case w.oneIn(40) && !w.State.Holds[k].Has(ledger.HoldOperator):
		w.put(&ledger.HoldPut{Key: k, Reason: ledger.HoldOperator, Owner: "operator", Evidence: "test"})
	case w.State.Holds[k].Has(ledger.HoldOperator):
		w.put(&ledger.HoldCleared{Key: k, Reason: ledger.HoldOperator, Owner: "operator", Evidence: "test"})
	case w.oneIn(200):
		w.restart()
	}
	if moved, yes := governor.Disarm(w.rules("").Governor.Config, w.State, w.now); yes {
		w.put(moved)
	}
}

// restart is another process taking up what the last one left: plans without an order end, and orders whose answers it
// never saw turn out not to have been placed.
func (w *world) restart() {
	w.put(&ledger.Started{Instance: w.State.Control.Instance + 1, Version: "test", Mode: ledger.Live, Config: "d"})
	w.put(apply.Restart(w.State).Events...)
	for _, i := range w.State.Unresolved() {
		w.put(&ledger.IntentAnswered{ClientOrderID: i.ClientOrderID, State: ledger.NotPlaced, Evidence: "3 lookups found nothing"})
	}
	for _, p := range w.State.OpenPlans() {
		w.join(w.rules(p.Proposal.Symbol).Apply, p.ID, p.Key())
	}
}

func (w *world) see(k ledger.Key) apply.Sight {
	mark := ledger.MustPrice(fmt.Sprintf("%d.%d", 95+w.random.IntN(10), w.random.IntN(10)))
	see := apply.Sight{At: w.now, Mark: mark, Lot: worldLot, Tick: worldTick}
	if !w.oneIn(80) {
		age := time.Duration(w.random.IntN(5000)) * time.Millisecond
		if w.oneIn(60) {
			age += time.Minute
		}
		see.Snapshot = &ledger.Snapshot{SentAt: w.now.Add(-age), Holdings: []ledger.Holding{{Key: k, Amount: w.held[k], Liquidation: ledger.MustPrice("40")}}}
	}
	return see
}

func (w *world) proposal(k ledger.Key) ledger.Proposal {
	actions := []ledger.Action{ledger.Partial25, ledger.Partial50, ledger.Partial75, ledger.FullClose, ledger.UpdateSL, ledger.Hold, ledger.Partial25, ledger.Partial50}
	p := ledger.Proposal{
		Symbol: k.Symbol, Side: k.Side, Action: actions[w.random.IntN(len(actions))], KillScore: float64(w.random.IntN(1000)) / 1000, ComputedAt: w.now.Truncate(time.Millisecond),
		Source: ledger.FromBrain, KComponents: map[string]float64{"trend": w.random.Float64()},
	}
	if p.Action == ledger.UpdateSL || w.oneIn(4) {
		p.NewSL = ledger.MustPrice(fmt.Sprintf("%d.%02d", 80+w.random.IntN(15), w.random.IntN(100)))
	}
	if w.oneIn(50) {
		p.ComputedAt = p.ComputedAt.Add(-time.Minute)
	}
	return p
}

// plan takes one proposal all the way.
func (w *world) plan() {
	k := w.key()
	r, see, p := w.rules(k.Symbol), w.see(k), w.proposal(k)
	b := ledger.Basis{At: see.At, Mark: see.Mark, MarkAt: see.At, Lot: see.Lot}
	if see.Snapshot != nil {
		b.SnapshotAt, b.Exchange = see.Snapshot.SentAt, see.Snapshot.Of(k).Amount
	}
	e, receipt := apply.Plan(r.Apply, w.State, p, b, w.now)
	w.put(e)
	if w.oneIn(10) {
		again, _ := apply.Plan(r.Apply, w.State, p, b, w.now)
		w.put(again)
	}
	if receipt.Decision != ledger.Execute || w.err != nil {
		return
	}
	if w.now = w.now.Add(time.Duration(w.random.IntN(3)) * time.Millisecond); w.oneIn(300) {
		w.join(r.Apply, receipt.ID, k) // No permit came in time.
		return
	}
	w.put(&ledger.GovernorDecided{ID: receipt.ID, Verdicts: governor.Decide(r.Governor, w.State, w.State.Plans[receipt.ID], w.now)})
	w.put(reconcile.Permit(r.Reconcile, w.State, w.State.Plans[receipt.ID], reconcile.Seen{At: see.At, Snapshot: see.Snapshot, Mark: see.Mark, Lot: see.Lot}, w.now))
	if w.oneIn(300) {
		w.now = w.now.Add(2 * time.Minute) // They have run out.
	}
	if w.oneIn(100) {
		return // The process ends here.
	}
	w.join(r.Apply, receipt.ID, k)
}

// join executes until the plan has ended.
func (w *world) join(r apply.Rules, id ledger.PlanID, k ledger.Key) {
	for n := 0; n < 200 && w.err == nil; n++ {
		p := w.State.Plans[id]
		if p.Outcome.Final() {
			break
		}
		see := w.see(k)
		if see.Snapshot != nil && !w.oneIn(10) {
			see.Snapshot.SentAt = w.now
		}
		events, until := []ledger.Event(nil), time.Time{}
		if p.Steps[p.Current()].Grant == nil {
			events = apply.Join(r, w.State, p, see, w.now).Events
		} else {
			st, at := apply.Advance(r, w.State, p, see, w.now)
			events, until = st.Events, at
		}
		w.put(events...)
		w.answer(events)
		if n := p.Current(); n >= 0 && len(p.Steps[n].Orders) > 0 && w.State.Intents[p.Steps[n].Orders[len(p.Steps[n].Orders)-1]].State == ledger.Sending {
			return // Or here.
		}
		if w.now = w.now.Add(time.Millisecond); until.After(w.now) {
			w.now = until
		}
	}
	if pos := w.State.Positions[k]; pos != nil && w.err == nil {
		st := apply.Tend(r, w.State, pos, w.see(k), w.now)
		w.put(st.Events...)
		w.answer(st.Events)
		for _, e := range st.Effects {
			if e.Cancel != nil && w.State.Intents[e.Cancel.ClientOrderID].State == ledger.Standing {
				w.put(&ledger.StopGone{ClientOrderID: e.Cancel.ClientOrderID, Why: "cancelled"})
			}
		}
	}
}

// answer is the venue's word on an order that is promised.
func (w *world) answer(events []ledger.Event) {
	for _, e := range events {
		opened, ok := e.(*ledger.IntentOpened)
		if !ok || w.err != nil {
			continue
		}
		i := opened.Intent
		if w.now = w.now.Add(5 * time.Millisecond); w.oneIn(40) {
			continue // Its answer is never seen.
		}
		answer := &ledger.IntentAnswered{ClientOrderID: i.ClientOrderID, State: ledger.NotPlaced, Code: -2022, Message: "ReduceOnly Order is rejected."}
		if w.oneIn(12) {
			w.put(answer)
			continue
		}
		w.trade++
		answer = &ledger.IntentAnswered{ClientOrderID: i.ClientOrderID, State: ledger.Standing, OrderID: w.trade, Status: "NEW"}
		if i.Kind == ledger.StopStep {
			w.put(answer)
			continue
		}
		answer.State, answer.Status, answer.Executed = ledger.Placed, "FILLED", i.Qty
		if half := i.Qty.Of(ledger.MustPercent("50")).FloorTo(worldLot.Step); w.oneIn(8) && half.Sign() > 0 {
			answer.Status, answer.Executed = "EXPIRED", half
		}
		w.held[i.Key] = w.held[i.Key].Add(i.Direction.Signed(answer.Executed))
		w.put(answer, &ledger.FillBooked{Trade: ledger.Trade{
			Key: i.Key, ID: w.trade, OrderID: w.trade, ClientOrderID: i.ClientOrderID, Direction: i.Direction, Qty: answer.Executed, Price: ledger.MustPrice("100"), At: w.now,
		}})
	}
}

// worldRules leave room for some plans and not for all.
func worldRules(symbol string) Rules {
	r := defaults(symbol)
	r.Apply.Mode, r.Governor.Mode = ledger.Live, ledger.Live
	r.Governor.AutoApprove, r.Governor.MaxPerHour, r.Governor.DailyNotional, r.Governor.DisarmErrors = nil, 4, ledger.MustUSD("1500"), 12
	return r
}

func recordedWorld(text string) (func(string) Rules, error) {
	if text != worldText {
		return nil, fmt.Errorf("the recorded configuration is %q", text)
	}
	return worldRules, nil
}

func mustAgain(t testing.TB, o AgainOptions, j Journal) *AgainReport {
	t.Helper()
	r, err := Again(o, j)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func shown(t testing.TB, r *AgainReport) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A journal of the real kernels is decided again without a difference, whatever happens in it.
func TestAgainIsEqual(t *testing.T) {
	for seed := range uint64(4) {
		r := mustAgain(t, AgainOptions{Recorded: recordedWorld}, chronicle(seed, 2000, worldRules))
		if r.Differs() || r.Plans < 1900 {
			t.Fatalf("seed %d:\n%s", seed, shown(t, r))
		}
		if restarts(t, seed) < 5 {
			t.Errorf("seed %d: a restart never finds anything", seed)
		}
		for _, k := range r.Kinds {
			decides := slices.Contains([]ledger.Kind{
				ledger.KindPlanDecided, ledger.KindGovernorDecided, ledger.KindPositionDecided, ledger.KindStepGranted,
				ledger.KindIntentOpened, ledger.KindStepEnded, ledger.KindPlanEnded, ledger.KindPlanRepeated, ledger.KindFillBooked,
			}, k.Kind)
			if decides && (k.Equal != k.Records || k.Records < 20) {
				t.Errorf("seed %d: %+v", seed, k)
			}
			if !decides && k.Undecided > 0 && len(k.Why) == 0 {
				t.Errorf("seed %d: %s does not say why: %+v", seed, k.Kind, k)
			}
		}
	}
}

// restarts counts the records in which a restart decides something.
func restarts(t *testing.T, seed uint64) (n int) {
	t.Helper()
	err := chronicle(seed, 2000, worldRules)(func(rec ledger.Record) error {
		if isRestart(rec.Event) {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// touchedBy are the plans whose governor's verdict is another one under these rules, found without Again.
func touchedBy(t *testing.T, j Journal, rules func(string) Rules) []ledger.PlanID {
	t.Helper()
	m := NewMemory()
	var touched []ledger.PlanID
	err := j(func(rec ledger.Record) error {
		if e, ok := rec.Event.(*ledger.GovernorDecided); ok {
			p := m.State.Plans[e.ID]
			now, _ := ledger.EncodeEvent(&ledger.GovernorDecided{ID: e.ID, Verdicts: governor.Decide(rules(p.Proposal.Symbol).Governor, m.State, p, rec.At)})
			if was, _ := ledger.EncodeEvent(e); !bytes.Equal(was, now) {
				touched = append(touched, e.ID)
			}
		}
		return m.State.Apply(rec)
	})
	if err != nil {
		t.Fatal(err)
	}
	return touched
}

// With one constant of the governor changed, exactly the plans it touches differ, in the governor's verdict and nothing else.
func TestAgainWithOneConstantChanged(t *testing.T) {
	other := func(symbol string) Rules { r := worldRules(symbol); r.Governor.MaxPerHour = 2; return r }
	j := chronicle(5, 2000, worldRules)
	want := touchedBy(t, j, other)
	r := mustAgain(t, AgainOptions{Recorded: recordedWorld, With: other}, j)
	var have []ledger.PlanID
	for _, p := range r.Touched {
		have = append(have, p.ID)
		if len(p.Changes) != 1 || p.Changes[0].Gate != "governor" || !strings.Contains(p.Changes[0].Now+p.Changes[0].Recorded, string(ledger.HourlyLimit)) {
			t.Errorf("plan %s: %+v", p.ID, p)
		}
	}
	if !slices.Equal(have, want) || len(want) < 20 || r.Differ != len(want) {
		t.Errorf("%d plans differ, %d are touched: %d differences", len(have), len(want), r.Differ)
	}
	if r.Outcome.AllowedDenied == 0 || r.Outcome.DeniedAllowed != 0 {
		t.Errorf("%+v", r.Outcome)
	}
	if same := mustAgain(t, AgainOptions{With: worldRules}, j); same.Differs() || len(same.Touched) > 0 {
		t.Errorf("with the recorded rules themselves:\n%s", shown(t, same))
	}
	r.With = "other.yaml"
	if text := shown(t, r); !strings.Contains(text, "ALLOW within_limits") || !strings.Contains(text, "allowed → denied") {
		t.Errorf("%s", text)
	}
}

// One edited field of any decision is found, at its record and by its name.
func TestAgainFindsAnEditedDecision(t *testing.T) {
	edits := map[string]func(ledger.Event) bool{
		"verdicts.0.expires": func(e ledger.Event) bool {
			g, ok := e.(*ledger.GovernorDecided)
			if ok = ok && g.Verdicts[0].Ruling == ledger.Allow; ok {
				g.Verdicts[0].Expires = g.Verdicts[0].Expires.Add(time.Nanosecond)
			}
			return ok
		},
		"verdicts.0.context.tolerance": func(e ledger.Event) bool {
			x, ok := e.(*ledger.PositionDecided)
			if !ok {
				return false
			}
			for i := range x.Verdicts[0].Context {
				if x.Verdicts[0].Context[i].Name == "tolerance" {
					x.Verdicts[0].Context[i].Value = "0.5"
					return true
				}
			}
			return false
		},
		"protective": func(e ledger.Event) bool {
			p, ok := e.(*ledger.PlanDecided)
			if ok = ok && p.Decision == ledger.Execute && !p.Protective; ok {
				p.Protective = true
			}
			return ok
		},
		"intent.fence": func(e ledger.Event) bool {
			i, ok := e.(*ledger.IntentOpened)
			if ok {
				i.Intent.Fence = i.Intent.Fence.Add(time.Second)
			}
			return ok
		},
		"reason": func(e ledger.Event) bool {
			s, ok := e.(*ledger.StepEnded)
			if ok = ok && s.Reason == ledger.QtyMismatch; ok {
				s.Reason = ledger.HoldActive
			}
			return ok
		},
		"external": func(e ledger.Event) bool {
			f, ok := e.(*ledger.FillBooked)
			if ok = ok && !f.External && strings.HasSuffix(f.Trade.ClientOrderID, "-1-1"); ok {
				f.External = true
			}
			return ok
		},
	}
	for field, edit := range edits {
		edited := uint64(0)
		j := func(fn func(ledger.Record) error) error {
			return chronicle(3, 400, worldRules)(func(rec ledger.Record) error {
				text, _ := ledger.EncodeEvent(rec.Event)
				rec.Event, _ = ledger.DecodeEvent(rec.Event.Kind(), 1, text) // The generator keeps its own.
				if edited == 0 && edit(rec.Event) {
					edited = rec.Seq
				}
				return fn(rec)
			})
		}
		r, err := Again(AgainOptions{Recorded: recordedWorld}, j)
		found := len(r.Differences) > 0 && r.Differences[0].Seq == edited && slices.ContainsFunc(r.Differences[0].Fields, func(f FieldChange) bool { return f.Field == field })
		if edited == 0 || !found {
			t.Errorf("%s edited in record %d (%v): %+v", field, edited, err, r.Differences)
		}
	}
}

// What lacks an input, or rules, is counted as not decided, and says why.
func TestAgainSaysWhyNot(t *testing.T) {
	blind := func(fn func(ledger.Record) error) error {
		return chronicle(1, 200, worldRules)(func(rec ledger.Record) error {
			switch e := rec.Event.(type) {
			case *ledger.StepEnded:
				rec.Event = &ledger.StepEnded{ID: e.ID, Step: e.Step, Outcome: e.Outcome, Stage: e.Stage, Reason: e.Reason}
			case *ledger.IntentOpened:
				rec.Event = &ledger.IntentOpened{Intent: e.Intent}
			}
			return fn(rec)
		})
	}
	r := mustAgain(t, AgainOptions{Recorded: recordedWorld}, blind)
	if r.Differs() {
		t.Fatalf("%s", shown(t, r))
	}
	if text := shown(t, r); !strings.Contains(strings.Join(strings.Fields(text), " "), "recorded without what") {
		t.Errorf("%s", text)
	}
	r = mustAgain(t, AgainOptions{Recorded: func(string) (func(string) Rules, error) { return nil, errors.New("no such parameter") }}, chronicle(1, 50, worldRules))
	if r.Differs() || !strings.Contains(shown(t, r), "no such parameter") {
		t.Errorf("%s", shown(t, r))
	}
}

// A decision that has fewer records than it should is a difference, too.
func TestAgainMissesARecord(t *testing.T) {
	dropped := uint64(0)
	r, err := Again(AgainOptions{Recorded: recordedWorld}, func(fn func(ledger.Record) error) error {
		return chronicle(1, 100, worldRules)(func(rec ledger.Record) error {
			if _, ok := rec.Event.(*ledger.PlanEnded); ok && dropped == 0 {
				dropped = rec.Seq
				return nil
			}
			if dropped > 0 {
				rec.Seq--
			}
			return fn(rec)
		})
	})
	if err != nil || len(r.Differences) == 0 || r.Differences[0].Kind != ledger.KindPlanEnded || r.Differences[0].Seq != dropped-1 {
		t.Errorf("record %d is gone: %v %+v", dropped, err, r.Differences)
	}
}

// An export is the journal it was made of, and a line that is none is named.
func TestAgainFromLines(t *testing.T) {
	text := history(t)
	recorded := AgainOptions{Recorded: func(string) (func(string) Rules, error) { return defaults, nil }}
	if r := mustAgain(t, recorded, Lines(strings.NewReader(text))); r.Differs() || r.Plans != 6 {
		t.Errorf("%s", shown(t, r))
	}
	for bad, want := range map[string]string{
		strings.Replace(text, `"kind":"ledger.opened"`, `"kind":"ledger.unheard"`, 1): "line 4", text[1:]: "line 1", text[strings.Index(text, "\n")+1:]: "line 1",
	} {
		if _, err := Again(recorded, Lines(strings.NewReader(bad))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// A long journal is decided again without a difference, in little memory.
func TestAgainLong(t *testing.T) {
	if testing.Short() {
		t.Skip("100,000 plans take a while")
	}
	plans := 100_000
	if raced {
		plans = 5_000
	}
	begun := busy(t)
	if err := chronicle(11, plans, worldRules)(func(ledger.Record) error { return nil }); err != nil {
		t.Fatal(err)
	}
	making := busy(t) - begun
	r := mustAgain(t, AgainOptions{Recorded: recordedWorld}, chronicle(11, plans, worldRules))
	took := busy(t) - begun - making
	if r.Differs() || r.Plans < plans*99/100 {
		t.Fatalf("%s", shown(t, r))
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	t.Logf("%d plans, %d records, %d decisions again, %d differ; %s of processor for making it, %s for making and deciding: %.0f plans/s decided; heap %d MiB\n%s",
		r.Plans, r.Records, r.Decided, r.Differ, making, took, float64(r.Plans)/(took-making).Seconds(), m.HeapAlloc>>20, shown(t, r))
}

// busy is the processor time this process has taken: the wall clock's tells more of what else the machine does.
func busy(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
