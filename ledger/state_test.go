package ledger

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// apply gives the state one event, through its own text as the store does.
func (m *machine) apply(e Event) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(0, 5).Draw(m.t, "later")) * time.Second)
	r := Record{Seq: m.state.Control.Seq + 1, At: m.now, Event: e}
	if m.oneIn(40, "wrong place") {
		r.Seq += uint64(pick(m, "off", 1, 2)) * 2
	}
	if m.oneIn(40, "wrong time") && !m.state.Control.At.IsZero() {
		r.At = m.state.Control.At.Add(-1)
	}
	text, err := EncodeEvent(e)
	if err == nil {
		r.Event, err = DecodeEvent(e.Kind(), PayloadVersion, text)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	before := dump(m.state)
	if fill, ok := r.Event.(*FillBooked); ok && !fill.External {
		// What really traded is booked, even if it contradicts an earlier answer and exceeds the grant.
		if i := m.state.Intents[fill.Trade.ClientOrderID]; i != nil && i.State == Settled {
			m.late[i.Plan] = true
		}
	}
	if err := m.state.Apply(r); err != nil {
		m.refused[e.Kind()]++
		if after := dump(m.state); after != before {
			m.t.Fatalf("refused (%v) and yet changed:\n%s\n%s\nby %s %s", err, before, after, e.Kind(), text)
		}
		return
	}
	m.accepted[e.Kind()]++
	m.follow(r)
}

// follow keeps the twin: what a person with a sheet of paper would write down.
func (m *machine) follow(r Record) {
	name := func(id PlanID, step int) string { return fmt.Sprintf("%s/%d", id, step) }
	switch e := r.Event.(type) {
	case *GovernorDecided:
		for i, v := range e.Verdicts {
			delete(m.reserved, name(e.ID, i))
			if v.Ruling == Allow && v.Budget != Unbudgeted && !m.state.Plans[e.ID].Steps[i].Outcome.Final() {
				m.reserved[name(e.ID, i)] = v.Notional
			}
		}
	case *StepGranted:
		m.spent[name(e.ID, e.Step)] = true
	case *StepEnded:
		at := name(e.ID, e.Step)
		step := m.state.Plans[e.ID].Steps[e.Step]
		_, had := m.reserved[at]
		delete(m.reserved, at)
		filled := step.Filled.Sign() > 0 || step.Kind == StopStep && e.Outcome == Executed
		if had && m.spent[at] && filled {
			m.reserved[at] = step.Quote
		}
	case *FillBooked:
		k := e.Trade.Key
		if m.trades[k][e.Trade.ID] {
			m.t.Fatalf("trade %d of %s is booked twice", e.Trade.ID, k)
		}
		m.trades[k][e.Trade.ID] = true
		m.amounts[k] = m.amounts[k].Add(e.Trade.Direction.Signed(e.Trade.Qty))
	case *LedgerOpened:
		m.amounts[e.Holding.Key], m.trades[e.Holding.Key] = e.Holding.Amount, map[int64]bool{}
	case *LedgerAdjusted:
		m.amounts[e.Holding.Key] = e.Holding.Amount
		if m.trades[e.Holding.Key] == nil {
			m.trades[e.Holding.Key] = map[int64]bool{}
		}
	case *LedgerResidual:
		m.amounts[e.Key] = Qty{}
	}
}

// check holds the state against the twin and against itself.
func (m *machine) check() {
	for k, p := range m.state.Positions {
		if !p.Amount.Equal(m.amounts[k]) {
			m.t.Fatalf("%s stands at %s, and its trades make %s", k, p.Amount, m.amounts[k])
		}
		if p.Amount.IsZero() != p.Entry.IsZero() {
			m.t.Fatalf("%s of %s was entered at %s", k, p.Amount, p.Entry)
		}
	}
	uses := map[string]USD{}
	for _, u := range m.state.Usage {
		for _, use := range u.Uses {
			at := fmt.Sprintf("%s/%d", use.Plan, use.Step)
			if _, twice := uses[at]; twice || use.Spent != m.spent[at] {
				m.t.Fatalf("step %s uses its budget twice, or is spent: %v", at, use.Spent)
			}
			uses[at] = use.Notional
		}
	}
	if !maps.EqualFunc(uses, m.reserved, USD.Equal) {
		m.t.Fatalf("used is %v, and should be %v", uses, m.reserved)
	}
	c := m.state.Control.Counts
	if c.Total != c.Executed+c.Denied+c.Skipped+c.Errors+c.WouldExecute+c.Pending || c.Total != len(m.state.Plans) {
		m.t.Fatalf("%d plans are counted as %+v", len(m.state.Plans), c)
	}
	open := map[string]bool{}
	for _, i := range m.state.Unresolved() {
		if at := i.Key.String() + string(i.Kind); open[at] {
			m.t.Fatalf("two orders of %s are unresolved", at)
		} else {
			open[at] = true
		}
	}
	for id, p := range m.state.Plans {
		for n, step := range p.Steps {
			if step.Kind == CloseStep && step.Grant != nil && step.Grant.Qty.Less(step.Filled) && !m.late[id] || step.Grant == nil && step.Filled.Sign() > 0 {
				m.t.Fatalf("step %d of plan %s filled %s of grant %+v", n, id, step.Filled, step.Grant)
			}
		}
	}
}

// checkTouched: applying what was touched to a copy keeps the copy equal; the store lives on that.
func (m *machine) checkTouched(copied map[Ref]string) {
	for _, ref := range m.state.Touched() {
		if thing := m.state.Get(ref); thing == nil {
			delete(copied, ref)
		} else {
			text, err := json.Marshal(thing)
			if err != nil {
				m.t.Fatal(err)
			}
			copied[ref] = string(text)
		}
	}
	n := len(m.state.Plans) + len(m.state.Intents) + len(m.state.Positions) + len(m.state.Usage) + len(m.state.Holds)
	if m.state.Control.Seq > 0 {
		n++
	}
	if len(copied) != n {
		m.t.Fatalf("the copy has %d things, the state %d", len(copied), n)
	}
	for ref, text := range copied {
		now, err := json.Marshal(m.state.Get(ref))
		if err != nil || string(now) != text {
			m.t.Fatalf("%v changed untouched (%v):\n%s\n%s", ref, err, text, now)
		}
	}
}

// Whatever comes, in whatever order: a refused event changes nothing, budgets are
// conserved, trades are booked once, and no more is filled than was granted.
func TestFoldAsStateMachine(t *testing.T) {
	accepted, refused := map[Kind]int{}, map[Kind]int{}
	deepest := []Kind{KindStepGranted, KindIntentOpened, KindIntentAnswered, KindFillBooked, KindPlanEnded}
	missing := func(k Kind) bool { return accepted[k] == 0 }
	for range 5 { // A short run may by luck never come so deep; five of them in a row do not.
		foldAsStateMachine(t, accepted, refused)
		if !slices.ContainsFunc(deepest, missing) {
			break
		}
	}
	for _, deep := range deepest {
		if missing(deep) {
			t.Errorf("no %s was ever accepted: the machine tests nothing", deep)
		}
	}
	for _, text := range constants(t, "event.go", "Kind") {
		t.Logf("%-18s accepted %5d refused %5d", text, accepted[Kind(text)], refused[Kind(text)])
	}
}

func foldAsStateMachine(t *testing.T, accepted, refused map[Kind]int) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t, accepted, refused)
		copied := map[Ref]string{}
		for _, k := range machineKeys {
			m.apply(&LedgerOpened{Holding: Holding{Key: k, Amount: MustQty("0.05"), Entry: MustPrice("50000")}, By: "adopt"})
		}
		some := func(n int, draw func() Event) func(*rapid.T) {
			return func(t *rapid.T) {
				m.t = t
				for range n {
					m.apply(draw())
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"plans":   some(5, m.planEvent),
			"orders":  some(3, m.orderEvent),
			"book":    some(1, m.bookEvent),
			"process": some(1, m.processEvent),
			"": func(t *rapid.T) {
				m.t = t
				m.check()
				m.checkTouched(copied)
			},
		})
	})
}
