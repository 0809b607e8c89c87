package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Event is something that happened or was decided: the only thing that changes State.
type Event interface{ Kind() Kind }

// Kind names an event in the journal.
type Kind string

// Record is an event in its place in the journal.
type Record struct {
	Seq   uint64    `json:"seq"`
	At    time.Time `json:"at"`
	Event Event     `json:"event"`
}

type (
	// Started is a process beginning to work on the ledger.
	Started struct {
		Instance uint64 `json:"instance"` // counts the processes that ever owned this ledger
		Version  string `json:"version"`
		Mode     Mode   `json:"mode"`
		Config   string `json:"config"` // digest; the text is in the ConfigUsed before it
	}
	// ConfigUsed is an effective configuration, without secrets, coming into force: at a start with another one, or by a reload.
	ConfigUsed struct {
		Digest string `json:"digest"`
		Text   string `json:"text"`
	}
	// RunStateChanged moves the run state.
	RunStateChanged struct {
		From   RunState `json:"from"`
		To     RunState `json:"to"`
		Who    string   `json:"who"`
		Why    string   `json:"why"`
		Reason Reason   `json:"reason,omitzero"` // for a move nobody ordered
	}
	// PlanDecided is planning's word on a proposal, for ever.
	PlanDecided struct {
		ID         PlanID     `json:"plan_id"`
		Proposal   Proposal   `json:"proposal"`
		Basis      Basis      `json:"basis"`
		Protective bool       `json:"protective,omitzero"`
		Decision   Decision   `json:"decision"`
		Reason     Reason     `json:"reason,omitzero"`
		Context    Facts      `json:"context,omitempty"` // the numbers a refusal was decided on
		Steps      []StepKind `json:"steps,omitempty"`
	}
	// PlanRepeated is a proposal whose plan is on record already.
	PlanRepeated struct {
		ID         PlanID `json:"plan_id"`
		Difference string `json:"difference,omitzero"` // fields outside the id that came differently
	}
	// GovernorDecided holds a verdict for each of the plan's steps. An ALLOW reserves its budget.
	GovernorDecided struct {
		ID       PlanID    `json:"plan_id"`
		Verdicts []Verdict `json:"verdicts"`
	}
	// PositionDecided holds a verdict for each of the plan's steps, and the snapshot they rest on.
	PositionDecided struct {
		ID         PlanID    `json:"plan_id"`
		At         time.Time `json:"at"` // exchange clock; the snapshot's age is judged by it
		SnapshotAt time.Time `json:"snapshot_at,omitzero"`
		Holding    Holding   `json:"holding"`
		Mark       Price     `json:"mark,omitzero"`
		Lot        Lot       `json:"lot"`
		Verdicts   []Verdict `json:"verdicts"`
	}
	// StepGranted consumes both permits of a step, at once.
	StepGranted struct {
		ID      PlanID    `json:"plan_id"`
		Step    int       `json:"step"`
		Qty     Qty       `json:"qty"`
		Expires time.Time `json:"expires"`
	}
	// IntentOpened promises one order. Nothing is sent before this is durable.
	IntentOpened struct {
		Intent Intent `json:"intent"`
		Seen   Sight  `json:"seen,omitzero"` // what it was decided on
	}
	// IntentAnswered is what became known of a promised order: from its answer, or by evidence.
	IntentAnswered struct {
		ClientOrderID string      `json:"client_order_id"`
		State         IntentState `json:"state"` // Placed, NotPlaced, Unknown or, for a stop, Standing
		OrderID       int64       `json:"order_id,omitzero"`
		Status        string      `json:"status,omitzero"`
		Executed      Qty         `json:"executed,omitzero"`
		Code          int64       `json:"code,omitzero"`
		Message       string      `json:"message,omitzero"`
		RateLimited   bool        `json:"rate_limited,omitzero"`
		Evidence      string      `json:"evidence,omitzero"` // needed to leave Unknown
	}
	// StopGone tells that a standing stop no longer stands.
	StopGone struct {
		ClientOrderID string `json:"client_order_id"`
		Why           string `json:"why"`
	}
	// FillBooked adds one trade to the ledger.
	FillBooked struct {
		Trade    Trade `json:"trade"`
		External bool  `json:"external,omitzero"` // not by an order of ours
	}
	// StepEnded tells what became of a step: its reservation and tranche are settled.
	StepEnded struct {
		ID      PlanID  `json:"plan_id"`
		Step    int     `json:"step"`
		Outcome Outcome `json:"outcome"`
		Stage   Stage   `json:"stage,omitzero"`
		Reason  Reason  `json:"reason,omitzero"`
		Seen    Sight   `json:"seen,omitzero"` // what it was decided on; a restart's word has none
	}
	// PlanEnded tells what became of a plan; all its permits and reservations are released.
	PlanEnded struct {
		ID      PlanID  `json:"plan_id"`
		Outcome Outcome `json:"outcome"`
		Stage   Stage   `json:"stage,omitzero"`
		Reason  Reason  `json:"reason,omitzero"`
		Error   string  `json:"error,omitzero"`
	}
	// LedgerOpened begins the ledger of a position.
	LedgerOpened struct {
		Holding Holding `json:"holding"`
		Cursor  int64   `json:"cursor"` // every trade up to this id is in the amount
		By      string  `json:"by"`
	}
	// LedgerReconciled tells that trades up to Cursor are accounted for; Trades are the evidence of a repair.
	LedgerReconciled struct {
		Key    Key     `json:"key"`
		Cursor int64   `json:"cursor"`
		Trades []int64 `json:"trades,omitempty"`
	}
	// LedgerAdjusted is the operator's word: the ledger takes the exchange's amount.
	LedgerAdjusted struct {
		Holding Holding `json:"holding"`
		From    Qty     `json:"from"`
		Cursor  int64   `json:"cursor"`
		Who     string  `json:"who"`
		Why     string  `json:"why"`
	}
	// LedgerResidual writes off what is left in the ledger of a position that is flat.
	LedgerResidual struct {
		Key    Key `json:"key"`
		Amount Qty `json:"amount"`
	}
	// PositionRanged widens the extremes of the mark price in a position's epoch.
	PositionRanged struct {
		Key   Key   `json:"key"`
		Epoch int64 `json:"epoch"`
		High  Price `json:"high"`
		Low   Price `json:"low"`
	}
	// HoldPut stops a position until evidence or the operator clears it.
	HoldPut struct {
		Key      Key    `json:"key"`
		Reason   Reason `json:"reason"`
		Owner    string `json:"owner"`
		Evidence string `json:"evidence"`
	}
	// HoldCleared takes one reason off.
	HoldCleared struct {
		Key      Key    `json:"key"`
		Reason   Reason `json:"reason"`
		Owner    string `json:"owner"`
		Evidence string `json:"evidence"`
	}
)

// The kinds.
const (
	KindStarted          Kind = "process.started"
	KindConfigUsed       Kind = "config.used"
	KindRunStateChanged  Kind = "run_state.changed"
	KindPlanDecided      Kind = "plan.decided"
	KindPlanRepeated     Kind = "plan.repeated"
	KindGovernorDecided  Kind = "governor.decided"
	KindPositionDecided  Kind = "position.decided"
	KindStepGranted      Kind = "step.granted"
	KindIntentOpened     Kind = "intent.opened"
	KindIntentAnswered   Kind = "intent.answered"
	KindStopGone         Kind = "stop.gone"
	KindFillBooked       Kind = "fill.booked"
	KindStepEnded        Kind = "step.ended"
	KindPlanEnded        Kind = "plan.ended"
	KindLedgerOpened     Kind = "ledger.opened"
	KindLedgerReconciled Kind = "ledger.reconciled"
	KindLedgerAdjusted   Kind = "ledger.adjusted"
	KindLedgerResidual   Kind = "ledger.residual"
	KindPositionRanged   Kind = "position.ranged"
	KindHoldPut          Kind = "hold.set"
	KindHoldCleared      Kind = "hold.cleared"
)

// Kind implements Event.
func (*Started) Kind() Kind          { return KindStarted }
func (*ConfigUsed) Kind() Kind       { return KindConfigUsed }
func (*RunStateChanged) Kind() Kind  { return KindRunStateChanged }
func (*PlanDecided) Kind() Kind      { return KindPlanDecided }
func (*PlanRepeated) Kind() Kind     { return KindPlanRepeated }
func (*GovernorDecided) Kind() Kind  { return KindGovernorDecided }
func (*PositionDecided) Kind() Kind  { return KindPositionDecided }
func (*StepGranted) Kind() Kind      { return KindStepGranted }
func (*IntentOpened) Kind() Kind     { return KindIntentOpened }
func (*IntentAnswered) Kind() Kind   { return KindIntentAnswered }
func (*StopGone) Kind() Kind         { return KindStopGone }
func (*FillBooked) Kind() Kind       { return KindFillBooked }
func (*StepEnded) Kind() Kind        { return KindStepEnded }
func (*PlanEnded) Kind() Kind        { return KindPlanEnded }
func (*LedgerOpened) Kind() Kind     { return KindLedgerOpened }
func (*LedgerReconciled) Kind() Kind { return KindLedgerReconciled }
func (*LedgerAdjusted) Kind() Kind   { return KindLedgerAdjusted }
func (*LedgerResidual) Kind() Kind   { return KindLedgerResidual }
func (*PositionRanged) Kind() Kind   { return KindPositionRanged }
func (*HoldPut) Kind() Kind          { return KindHoldPut }
func (*HoldCleared) Kind() Kind      { return KindHoldCleared }

// PayloadVersion is the version of the payloads Encode writes; Decode refuses a newer one.
const PayloadVersion = 1

// newEvent makes an empty event of a kind, nil where nobody knows the kind.
func newEvent(k Kind) Event {
	switch k {
	case KindStarted:
		return new(Started)
	case KindConfigUsed:
		return new(ConfigUsed)
	case KindRunStateChanged:
		return new(RunStateChanged)
	case KindPlanDecided:
		return new(PlanDecided)
	case KindPlanRepeated:
		return new(PlanRepeated)
	case KindGovernorDecided:
		return new(GovernorDecided)
	case KindPositionDecided:
		return new(PositionDecided)
	case KindStepGranted:
		return new(StepGranted)
	case KindIntentOpened:
		return new(IntentOpened)
	case KindIntentAnswered:
		return new(IntentAnswered)
	case KindStopGone:
		return new(StopGone)
	case KindFillBooked:
		return new(FillBooked)
	case KindStepEnded:
		return new(StepEnded)
	case KindPlanEnded:
		return new(PlanEnded)
	case KindLedgerOpened:
		return new(LedgerOpened)
	case KindLedgerReconciled:
		return new(LedgerReconciled)
	case KindLedgerAdjusted:
		return new(LedgerAdjusted)
	case KindLedgerResidual:
		return new(LedgerResidual)
	case KindPositionRanged:
		return new(PositionRanged)
	case KindHoldPut:
		return new(HoldPut)
	case KindHoldCleared:
		return new(HoldCleared)
	default:
		return nil
	}
}

// EncodeEvent writes an event's payload.
func EncodeEvent(e Event) ([]byte, error) { return json.Marshal(e) }

// DecodeEvent reads a payload back; a field it does not know is an error, because
// a record that is only half understood must not be folded.
func DecodeEvent(k Kind, version int, payload []byte) (Event, error) {
	e := newEvent(k)
	if e == nil || version > PayloadVersion || version < 1 {
		return nil, fmt.Errorf("event %q version %d is not known to this version of the program", k, version)
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if !bytes.HasPrefix(payload, []byte("{")) {
		return nil, fmt.Errorf("event %q: %.40q is not an object", k, payload)
	}
	if err := d.Decode(e); err != nil {
		return nil, fmt.Errorf("event %q: %w", k, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("event %q: something follows its payload", k)
	}
	return e, nil
}
