package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Ruling is a permit stage's word.
type Ruling string

// The rulings.
const (
	Allow Ruling = "ALLOW"
	Deny  Ruling = "DENY"
)

// Budget is which set of limits an execution counts against.
type Budget string

// The budgets; they never mix. Unbudgeted is the operator's and auto-approve's.
const (
	Normal     Budget = "normal"
	Protective Budget = "protective"
	StopBudget Budget = "stop"
	Unbudgeted Budget = ""
)

// Fact is one number a verdict was decided on.
type Fact struct{ Name, Value string }

// Facts are a verdict's numbers in the order they should be read; JSON shows them as one object.
type Facts []Fact

// Get is the value under name, "" where there is none.
func (f Facts) Get(name string) string {
	for _, fact := range f {
		if fact.Name == name {
			return fact.Value
		}
	}
	return ""
}

// MarshalJSON writes one object whose members keep their order.
func (f Facts) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, fact := range f {
		if i > 0 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(fact.Name) // A string always marshals.
		value, _ := json.Marshal(fact.Value)
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (f *Facts) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("context %.40q is not an object", text)
	}
	*f = nil
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var value string
		if err := d.Decode(&value); err != nil {
			return fmt.Errorf("context %v: %w", name, err)
		}
		*f = append(*f, Fact{name.(string), value})
	}
	return nil
}

// Verdict is a permit stage's word on one step, and the numbers it was decided
// on. An ALLOW is the permit itself: single use, and void after Expires.
type Verdict struct {
	Ruling  Ruling    `json:"verdict"`
	Reason  Reason    `json:"reason"`
	Context Facts     `json:"context,omitempty"`
	FreesAt time.Time `json:"frees_at,omitzero"` // when a denial ends by itself, where that is known
	Expires time.Time `json:"expires,omitzero"`

	// The governor's.
	Capped   bool   `json:"capped,omitzero"`   // Qty is a cap, even one of 0
	Qty      Qty    `json:"qty,omitzero"`      // the cap, or what was asked where there is none
	Notional USD    `json:"notional,omitzero"` // what is reserved
	Budget   Budget `json:"budget,omitzero"`
	Shadow   Reason `json:"shadow,omitzero"` // what the other gates say of an auto-approved step

	// The position permit's.
	SafeCloseQty Qty    `json:"safe_close_qty,omitzero"`
	Exchange     Qty    `json:"exchange_amt,omitzero"`
	Version      uint64 `json:"version,omitzero"` // of the ledger it rests on
}

// StepKind is what a step does.
type StepKind string

// The kinds of step.
const (
	CloseStep StepKind = "close"
	StopStep  StepKind = "stop"
)

// Step is one thing a plan does. Its two verdicts, its grant and its orders are its own.
type Step struct {
	Kind     StepKind `json:"kind"`
	Outcome  Outcome  `json:"outcome"`
	Stage    Stage    `json:"stage,omitzero"`
	Reason   Reason   `json:"reason,omitzero"`
	Governor *Verdict `json:"governor,omitempty"`
	Position *Verdict `json:"position,omitempty"`
	Grant    *Grant   `json:"grant,omitempty"`
	Orders   []string `json:"orders,omitempty"` // client order ids, in the order they were promised
	Filled   Qty      `json:"filled,omitzero"`
	Quote    USD      `json:"quote,omitzero"` // what Filled was worth
}

// Allowed tells whether both permits are there and say ALLOW.
func (s *Step) Allowed() bool {
	return s.Governor != nil && s.Position != nil && s.Governor.Ruling == Allow && s.Position.Ruling == Allow
}

// Grant is what two consumed permits became: orders draw on it until it expires.
type Grant struct {
	Qty     Qty       `json:"qty"`
	Expires time.Time `json:"expires"`
	Seq     uint64    `json:"seq"` // the journal record that made it
}

// Plan is a proposal with an identity and a decision; its record is also its dedupe entry.
type Plan struct {
	ID         PlanID    `json:"plan_id"`
	Proposal   Proposal  `json:"proposal"`
	Basis      Basis     `json:"basis"`
	Protective bool      `json:"protective,omitzero"`
	Decision   Decision  `json:"decision"`
	Outcome    Outcome   `json:"outcome"`
	Stage      Stage     `json:"stage,omitzero"`  // with Reason, why it was not executed
	Reason     Reason    `json:"reason,omitzero"` // "" when executed
	Error      string    `json:"error,omitzero"`
	Context    Facts     `json:"context,omitempty"` // the numbers planning refused it on
	Steps      []Step    `json:"steps,omitempty"`
	DecidedAt  time.Time `json:"decided_at"`
	EndedAt    time.Time `json:"ended_at,omitzero"`
	Repeats    int       `json:"repeats,omitzero"`
	Journal    []uint64  `json:"journal"` // the records that speak of it; at most journalMax, the latest kept last
	Config     string    `json:"config"`  // digest of the configuration it was decided under
}

// Key is the position the plan closes.
func (p *Plan) Key() Key { return p.Proposal.Key() }

// IsFlatten tells whether the operator ordered this close.
func (p *Plan) IsFlatten() bool {
	return p.Proposal.Source == FromOperator && p.Proposal.Action == FullClose
}

// Fate is what became of the plan, in words.
func (p *Plan) Fate() string {
	if p.Reason == "" {
		return string(p.Outcome)
	}
	return fmt.Sprintf("%s: %s %s", p.Outcome, p.Stage, p.Reason)
}

// Current is the index of the first step that has not ended, or -1.
func (p *Plan) Current() int {
	return slices.IndexFunc(p.Steps, func(s Step) bool { return !s.Outcome.Final() })
}

// Filled is what the plan's closes took off, and what that was worth.
func (p *Plan) Filled() (q Qty, quote USD) {
	for _, s := range p.Steps {
		if s.Kind == CloseStep {
			q, quote = q.Add(s.Filled), quote.Add(s.Quote)
		}
	}
	return q, quote
}

// Orders are the client order ids of all steps.
func (p *Plan) Orders() []string {
	ids := []string{}
	for _, s := range p.Steps {
		ids = append(ids, s.Orders...)
	}
	return ids
}

// IntentState is how far a promised order has come.
type IntentState string

// The states of an intent. Sending, Unknown and Placed are unresolved.
const (
	Sending   IntentState = "sending"    // promised; whether it was sent is not yet known
	Unknown   IntentState = "unknown"    // sent, and the answer says nothing certain
	Placed    IntentState = "placed"     // the exchange has it; not all its trades are booked
	Standing  IntentState = "standing"   // a stop order that rests on the exchange
	Settled   IntentState = "settled"    // every trade is booked, or the stop is gone
	NotPlaced IntentState = "not_placed" // certainly never was, and never will be
)

// Unresolved tells whether more must be found out before another order of its kind.
func (s IntentState) Unresolved() bool { return s == Sending || s == Unknown || s == Placed }

// Intent is the durable promise to send one order.
type Intent struct {
	ClientOrderID string      `json:"client_order_id"`
	Plan          PlanID      `json:"plan_id"`
	Step          int         `json:"step"` // index into the plan's steps
	Attempt       int         `json:"attempt"`
	Key           Key         `json:"key"`
	Kind          StepKind    `json:"kind"`
	Direction     Direction   `json:"direction"`
	Qty           Qty         `json:"qty"`
	Trigger       Price       `json:"trigger,omitzero"` // a stop's
	Exchange      Qty         `json:"exchange_amt"`     // the position proven when it was promised
	Ledger        Qty         `json:"ledger_amt"`       // what the ledger said then
	Epoch         int64       `json:"epoch"`            // the life of the position it belongs to
	SendBefore    time.Time   `json:"send_before"`      // exchange clock; nothing signed later is sent
	Fence         time.Time   `json:"fence"`            // exchange clock; after it the order cannot appear any more
	State         IntentState `json:"state"`
	OrderID       int64       `json:"order_id,omitzero"`
	Status        string      `json:"status,omitzero"` // the exchange's word
	Executed      Qty         `json:"executed,omitzero"`
	Booked        Qty         `json:"booked,omitzero"`
	Code          int64       `json:"code,omitzero"`
	Message       string      `json:"message,omitzero"`
	At            time.Time   `json:"at"`
	AnsweredAt    time.Time   `json:"answered_at,omitzero"`
}

// Receipt is planning's answer to whoever sent a proposal.
type Receipt struct {
	ID       PlanID
	Decision Decision
	Reason   Reason
	Became   string // of a duplicate: what became of the plan that is on record, and how this one differs from it
	Error    string // why there is no plan; ID is "" then
}

// Steps is what has to be done about a proposal, in order: a partial close with a stop is one
// plan of two steps; a stop beside a full close is recorded and ignored.
func (p Proposal) Steps() []StepKind {
	switch {
	case p.Action == UpdateSL:
		return []StepKind{StopStep}
	case p.Action.IsTranche() && !p.NewSL.IsZero():
		return []StepKind{CloseStep, StopStep}
	default:
		return []StepKind{CloseStep}
	}
}
