package ledger

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// machine throws random events, most of them nearly right, at a State, and keeps a
// dumb twin of what must be true of it.
type machine struct {
	t        *rapid.T
	state    *State
	now      time.Time
	nonce    int
	accepted map[Kind]int
	refused  map[Kind]int

	amounts  map[Key]Qty
	trades   map[Key]map[int64]bool
	reserved map[string]USD // by plan and step
	spent    map[string]bool
	late     map[PlanID]bool // an order of it traded after the exchange had called it finished
}

var machineKeys = []Key{{"BTCUSDT", Both}, {"ETHUSDT", Long}, {"ETHUSDT", Short}}

func newMachine(t *rapid.T, accepted, refused map[Kind]int) *machine {
	return &machine{
		t: t, state: NewState(), now: time.Date(2026, 1, 25, 0, 0, 0, 0, time.UTC), accepted: accepted, refused: refused,
		amounts: map[Key]Qty{}, trades: map[Key]map[int64]bool{}, reserved: map[string]USD{}, spent: map[string]bool{}, late: map[PlanID]bool{},
	}
}

func pick[T any](m *machine, label string, from ...T) T {
	return rapid.SampledFrom(from).Draw(m.t, label)
}

// oneIn tells whether this is the one wrong draw of n.
func (m *machine) oneIn(n int, label string) bool { return rapid.IntRange(1, n).Draw(m.t, label) == n }

func (m *machine) qty() Qty { return MustQty(pick(m, "qty", "0.001", "0.002", "0.005", "0.01")) }

func (m *machine) key() Key { return pick(m, "key", machineKeys...) }

func (m *machine) plan() *Plan {
	open := m.state.OpenPlans()
	if len(open) == 0 || m.oneIn(8, "any plan") {
		all := slices.Sorted(maps.Keys(m.state.Plans))
		if len(all) == 0 {
			return &Plan{ID: "none", Proposal: Proposal{Symbol: "BTCUSDT", Side: Both}}
		}
		return m.state.Plans[pick(m, "plan", all...)]
	}
	return pick(m, "open plan", open...)
}

func (m *machine) order() *Intent {
	ids := slices.Sorted(maps.Keys(m.state.Intents))
	if len(ids) == 0 || m.oneIn(20, "no order") {
		return &Intent{ClientOrderID: "pc-none", Key: m.key(), Direction: Sell}
	}
	if open := m.state.Unresolved(); len(open) > 0 && !m.oneIn(5, "any order") {
		return pick(m, "open order", open...)
	}
	return m.state.Intents[pick(m, "order", ids...)]
}

func (m *machine) verdicts(p *Plan) []Verdict {
	n := len(p.Steps)
	if m.oneIn(15, "count") {
		n++
	}
	vs := make([]Verdict, n)
	for i := range vs {
		vs[i] = Verdict{
			Ruling: pick(m, "ruling", Allow, Allow, Allow, Deny), Reason: WithinLimits,
			Expires: m.now.Add(pick(m, "ttl", time.Hour, time.Hour, time.Hour, -time.Second)),
			Budget:  pick(m, "budget", Normal, Protective, StopBudget, Unbudgeted), Notional: MustUSD("100"),
			Capped: m.oneIn(3, "capped"), Qty: m.qty(), SafeCloseQty: m.qty(), Exchange: MustQty("0.05"),
		}
	}
	return vs
}

// step is mostly the plan's current one.
func (m *machine) step(p *Plan) int {
	if m.oneIn(10, "wrong step") {
		return rapid.IntRange(-1, 3).Draw(m.t, "step")
	}
	return p.Current()
}

func (m *machine) proposal() Proposal {
	m.nonce++
	k := m.key()
	p := Proposal{
		Symbol: k.Symbol, Side: k.Side, Action: pick(m, "action", Partial25, Partial50, Partial75, FullClose, UpdateSL),
		ComputedAt: m.now.Add(time.Duration(m.nonce) * time.Millisecond), Source: pick(m, "source", FromBrain, FromOperator), Force: m.oneIn(9, "force"),
	}
	if p.Action == UpdateSL || m.oneIn(3, "stop") {
		p.NewSL = MustPrice("49000")
	}
	return p
}

// next is the kind of event that would bring a plan on its way, as planEvent counts them.
func (m *machine) next(p *Plan) int {
	n := p.Current()
	switch {
	case m.state.Plans[p.ID] == nil || p.Outcome.Final():
		return 0
	case n < 0:
		return 7
	case p.Steps[n].Governor == nil:
		return 2
	case p.Steps[n].Position == nil:
		return 3
	case p.Steps[n].Grant == nil && p.Steps[n].Allowed():
		return 4
	case p.Steps[n].Grant != nil && m.state.GrantRest(&p.Steps[n]).Sign() > 0 && m.oneIn(2, "another order"):
		return 5
	default:
		return 6
	}
}

func (m *machine) planEvent() Event {
	p := m.plan()
	kind := m.next(p)
	if m.oneIn(5, "out of turn") {
		kind = pick(m, "plan event", 0, 1, 2, 3, 4, 5, 6, 7)
	}
	switch kind {
	case 0:
		e := &PlanDecided{Proposal: m.proposal(), Decision: pick(m, "decision", Execute, Execute, Execute, Skip, Blocked, Errored)}
		e.ID, e.Protective = e.Proposal.ID(), m.oneIn(3, "protective")
		if e.Decision == Execute || m.oneIn(20, "steps") {
			e.Steps = e.Proposal.Steps()
		}
		if m.oneIn(15, "old id") {
			e.ID = p.ID
		}
		return e
	case 1:
		return &PlanRepeated{ID: p.ID}
	case 2:
		return &GovernorDecided{ID: p.ID, Verdicts: m.verdicts(p)}
	case 3:
		return &PositionDecided{ID: p.ID, Verdicts: m.verdicts(p)}
	case 4:
		e := &StepGranted{ID: p.ID, Step: m.step(p), Qty: m.qty(), Expires: m.now.Add(pick(m, "grant ttl", time.Hour, time.Hour, 10*time.Second))}
		if n := e.Step; n >= 0 && n < len(p.Steps) && p.Steps[n].Position != nil && !m.oneIn(4, "other qty") {
			e.Qty = p.Steps[n].Position.SafeCloseQty
			if g := p.Steps[n].Governor; g != nil && g.Capped {
				e.Qty = e.Qty.Min(g.Qty)
			}
		}
		return e
	case 5:
		return m.intent(p)
	case 6:
		return &StepEnded{
			ID: p.ID, Step: m.step(p), Outcome: pick(m, "outcome", Executed, Denied, Failed, PartlyExecuted, OutcomeUnknown),
			Reason: pick(m, "reason", "", QtyBelowMin),
		}
	default:
		return &PlanEnded{ID: p.ID, Outcome: pick(m, "end", Executed, Denied, WouldExecute, Failed, Pending)}
	}
}

func (m *machine) intent(p *Plan) Event {
	m.nonce++
	n := m.step(p)
	at := time.Unix(1e9, 0)
	i := Intent{
		Plan: p.ID, Step: n, Attempt: 1, Key: p.Key(), Kind: CloseStep, SendBefore: at, Fence: at.Add(time.Second),
		Qty: m.qty(), Exchange: MustQty(pick(m, "held", "0.05", "0.05", "-0.05", "0.001")), Trigger: MustPrice("49000"),
	}
	i.Direction = Reducing(i.Exchange)
	if n >= 0 && n < len(p.Steps) {
		i.Kind, i.Attempt = p.Steps[n].Kind, len(p.Steps[n].Orders)+1
		if g := p.Steps[n].Grant; g != nil && !m.oneIn(4, "more than granted") {
			i.Qty = m.state.GrantRest(&p.Steps[n])
		}
	}
	if m.oneIn(15, "attempt") {
		i.Attempt = m.nonce
	}
	i.ClientOrderID = OrderIDOf(i.Kind, p.ID, n+1, i.Attempt)
	if m.oneIn(15, "increasing") {
		i.Direction = pick(m, "direction", Buy, Sell)
	}
	if m.oneIn(15, "other key") {
		i.Key = m.key()
	}
	if old := m.order(); m.oneIn(15, "old order") {
		i.ClientOrderID = old.ClientOrderID
	}
	return &IntentOpened{Intent: i}
}

func (m *machine) orderEvent() Event {
	i := m.order()
	kind := map[IntentState]int{Sending: 0, Unknown: 0, Placed: 1, Standing: 2}[i.State]
	if m.oneIn(4, "out of turn") {
		kind = pick(m, "order event", 0, 1, 2)
	}
	switch kind {
	case 0:
		e := &IntentAnswered{
			ClientOrderID: i.ClientOrderID, State: pick(m, "answer", Placed, Placed, NotPlaced, Unknown, Standing, Standing, Settled, Sending),
			Status: pick(m, "status", "FILLED", "EXPIRED", "NEW"), Evidence: pick(m, "evidence", "", "seen"), RateLimited: m.oneIn(4, "rate"),
		}
		if e.State == Placed {
			e.Executed = pick(m, "executed", i.Qty, i.Qty, Qty{}, MustQty("0.02"))
		}
		return e
	case 1:
		trade := Trade{
			Key: i.Key, ID: rapid.Int64Range(1, 200).Draw(m.t, "trade"), ClientOrderID: i.ClientOrderID, Direction: i.Direction,
			Qty: pick(m, "filled", i.Qty, i.Qty.Sub(i.Booked), m.qty()), Price: MustPrice("50000"), At: m.now,
		}
		if m.oneIn(10, "other way") {
			trade.Direction = pick(m, "way", Buy, Sell)
		}
		return &FillBooked{Trade: trade, External: m.oneIn(3, "external")}
	default:
		return &StopGone{ClientOrderID: i.ClientOrderID, Why: "CANCELED"}
	}
}

func (m *machine) bookEvent() Event {
	k := m.key()
	amount, _ := m.state.Amount(k)
	h := Holding{Key: k, Amount: MustQty(pick(m, "amount", "0.05", "-0.05", "0", "0.046")), Entry: MustPrice("50000")}
	cursor := rapid.Int64Range(0, 70).Draw(m.t, "cursor")
	switch pick(m, "book event", 0, 1, 2, 3, 4, 5, 6, 7) {
	case 0:
		return &LedgerOpened{Holding: h, Cursor: cursor / 8, By: "adopt"}
	case 1:
		return &LedgerReconciled{Key: k, Cursor: cursor / 3}
	case 2:
		return &LedgerAdjusted{Holding: h, From: pick(m, "from", amount, amount, MustQty("1")), Cursor: cursor / 3, Who: pick(m, "who", "op", "op", "")}
	case 3:
		return &LedgerResidual{Key: k, Amount: pick(m, "residual", amount, MustQty("1"))}
	case 4:
		if !m.oneIn(3, "hold it") { // Under a hold nothing else happens.
			return &HoldCleared{Key: k, Reason: HoldOperator, Owner: "op"}
		}
		return &HoldPut{Key: k, Reason: pick(m, "hold", HoldOperator, HoldSideMismatch), Owner: pick(m, "owner", "op", "op", "")}
	case 5, 6:
		return &HoldCleared{Key: k, Reason: pick(m, "cleared", HoldOperator, HoldSideMismatch), Owner: "op"}
	default:
		return &RunStateChanged{
			From: pick(m, "from state", m.state.Control.RunState, m.state.Control.RunState, Killed),
			To:   pick(m, "to state", Armed, Armed, Armed, ProtectiveOnly, Disarmed, Killed, "off"), Who: "op", Why: "test",
		}
	}
}

func (m *machine) processEvent() Event {
	if m.oneIn(3, "config") {
		return &ConfigUsed{Digest: "d"}
	}
	return &Started{Instance: m.state.Control.Instance + uint64(rapid.IntRange(0, 2).Draw(m.t, "instance"))}
}

// dump is everything the state says, as text.
func dump(s *State) string {
	text, err := json.Marshal([]any{s.Control, s.Plans, s.Intents, named(s.Positions), s.Usage, named(s.Holds)})
	if err != nil {
		panic(err)
	}
	return string(text)
}

func named[V any](m map[Key]V) map[string]V {
	out := map[string]V{}
	for k, v := range m {
		out[k.String()] = v
	}
	return out
}
