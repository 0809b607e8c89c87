package ledger

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Side is which position of a symbol is meant: the only one, or one of two in hedge mode.
type Side string

// The sides. AnySide is used for holds that cover a whole symbol.
const (
	Both    Side = "BOTH"
	Long    Side = "LONG"
	Short   Side = "SHORT"
	AnySide Side = ""
)

// Valid tells whether s names a position.
func (s Side) Valid() bool { return s == Both || s == Long || s == Short }

// Key names a position: everything about it is kept per symbol and side.
type Key struct {
	Symbol string `json:"symbol"`
	Side   Side   `json:"side"`
}

func (k Key) String() string { return k.Symbol + ":" + string(k.Side) }

// Compare orders keys by symbol, then side.
func (k Key) Compare(o Key) int {
	return cmp.Or(strings.Compare(k.Symbol, o.Symbol), strings.Compare(string(k.Side), string(o.Side)))
}

// Label is the key for people: the side is named only in hedge mode.
func (k Key) Label() string {
	if k.Side == Both || k.Side == AnySide {
		return k.Symbol
	}
	return k.Symbol + " " + string(k.Side)
}

// ParseKey reads what String writes.
func ParseKey(text string) (Key, error) {
	symbol, side, ok := strings.Cut(text, ":")
	k := Key{symbol, Side(side)}
	if !ok || symbol == "" || !(k.Side.Valid() || k.Side == AnySide) {
		return Key{}, fmt.Errorf("position key %q is not SYMBOL:SIDE", text)
	}
	return k, nil
}

// Direction is which way an order trades.
type Direction string

// The directions.
const (
	Buy  Direction = "BUY"
	Sell Direction = "SELL"
)

// Reducing is the direction that brings amount toward zero.
func Reducing(amount Qty) Direction {
	if amount.Sign() < 0 {
		return Buy
	}
	return Sell
}

// Signed is q as a change of position: positive for a buy.
func (d Direction) Signed(q Qty) Qty {
	if d == Sell {
		return q.Neg()
	}
	return q
}

// Action is what a proposal wants done with a position. An action nobody knows
// is kept as it came, so that the plan that says so can be shown.
type Action string

// The actions.
const (
	Hold      Action = "HOLD"
	Partial25 Action = "PARTIAL_25"
	Partial50 Action = "PARTIAL_50"
	Partial75 Action = "PARTIAL_75"
	FullClose Action = "FULL_CLOSE_PROPOSED"
	UpdateSL  Action = "UPDATE_SL"
)

// Tranches are the partial closes, smallest first.
var Tranches = [...]Action{Partial25, Partial50, Partial75}

// Known tells whether a is one of the actions.
func (a Action) Known() bool { return a == Hold || a == UpdateSL || a.IsClose() }

// IsClose tells whether a takes some of the position off.
func (a Action) IsClose() bool { return a == FullClose || a.IsTranche() }

// IsTranche tells whether a is a partial close.
func (a Action) IsTranche() bool { return a == Partial25 || a == Partial50 || a == Partial75 }

// Share is how much of the position a takes off.
func (a Action) Share() Percent {
	switch a {
	case Partial25:
		return MustPercent("25")
	case Partial50:
		return MustPercent("50")
	case Partial75:
		return MustPercent("75")
	case FullClose:
		return MustPercent("100")
	default:
		return Percent{}
	}
}

// Mode is which exchange a process trades on.
type Mode string

// The modes. Only Testnet and Live can sign an order for a real exchange.
const (
	Paper   Mode = "paper"
	DryRun  Mode = "dry_run"
	Testnet Mode = "testnet"
	Live    Mode = "live"
)

// Modes lists every mode.
var Modes = [...]Mode{Paper, DryRun, Testnet, Live}

// RunState is how much the chain may do.
type RunState string

// The run states, from everything to nothing.
const (
	Armed          RunState = "armed"
	ProtectiveOnly RunState = "protective_only"
	Disarmed       RunState = "disarmed"
	Killed         RunState = "killed"
)

// Valid tells whether r is one of the run states.
func (r RunState) Valid() bool {
	return r == Armed || r == ProtectiveOnly || r == Disarmed || r == Killed
}

// Source is where a proposal came from.
type Source string

// The sources.
const (
	FromBrain    Source = "exit_brain"
	FromExternal Source = "external"
	FromOperator Source = "operator"
)

// Proposal is an opinion on one position at one instant. ComputedAt is truncated to milliseconds, UTC.
type Proposal struct {
	Symbol      string             `json:"symbol"`
	Side        Side               `json:"side"`
	Action      Action             `json:"action"`
	KillScore   float64            `json:"kill_score"`
	NewSL       Price              `json:"new_sl,omitzero"`
	ComputedAt  time.Time          `json:"computed_at"`
	RNet        float64            `json:"r_net,omitzero"`
	KComponents map[string]float64 `json:"k_components,omitempty"`
	ReasonCodes []string           `json:"reason_codes,omitempty"`
	Epoch       int64              `json:"epoch,omitzero"` // 0: not said
	Source      Source             `json:"source"`
	Force       bool               `json:"force,omitzero"`    // flatten --force
	Operator    string             `json:"operator,omitzero"` // who, and why, for the operator's own plans
}

// Key is the position p speaks of.
func (p Proposal) Key() Key { return Key{p.Symbol, p.Side} }

// PlanID identifies a decision: 16 hex digits derived from what was proposed and when.
type PlanID string

// Short is the form shown to people.
func (id PlanID) Short() string { return string(id[:min(8, len(id))]) }

// ID derives the plan's identity; the same proposal has the same id for ever.
func (p Proposal) ID() PlanID {
	sl := "none"
	if !p.NewSL.IsZero() {
		sl = p.NewSL.String()
	}
	text := strings.Join([]string{
		p.Symbol, string(p.Side), string(p.Action), strconv.FormatFloat(p.KillScore, 'f', 6, 64), sl,
		p.ComputedAt.UTC().Truncate(time.Millisecond).Format("2006-01-02T15:04:05.000Z"),
	}, ":")
	sum := sha256.Sum256([]byte(text))
	return PlanID(hex.EncodeToString(sum[:8]))
}

// Decision is planning's word on a proposal; it never changes.
type Decision string

// The decisions.
const (
	Execute Decision = "EXECUTE"
	Skip    Decision = "SKIP"
	Blocked Decision = "BLOCKED"
	Errored Decision = "ERROR"
)

// Outcome is what became of a plan or of one of its steps.
type Outcome string

// The outcomes. Pending and OutcomeUnknown are open; the others are final.
const (
	Pending        Outcome = "pending"
	Executed       Outcome = "executed"
	PartlyExecuted Outcome = "partial"
	Denied         Outcome = "denied"
	WouldExecute   Outcome = "would_execute"
	Failed         Outcome = "failed"
	OutcomeUnknown Outcome = "unknown"
	NoOutcome      Outcome = "none"
)

// Final tells whether nothing more can happen.
func (o Outcome) Final() bool { return o != Pending && o != OutcomeUnknown }

// Stage is where a plan's fate was decided.
type Stage string

// The stages.
const (
	StagePlan      Stage = "plan"
	StageGovernor  Stage = "governor"
	StagePosition  Stage = "position"
	StageExecution Stage = "execution"
)

// Lot is how a market counts orders sent at market.
type Lot struct {
	Step Qty `json:"step"`
	Min  Qty `json:"min"`
	Max  Qty `json:"max"`
}

// Holding is what the exchange says we hold under one key.
type Holding struct {
	Key
	Amount      Qty   `json:"amount"`
	Entry       Price `json:"entry,omitzero"`
	Liquidation Price `json:"liquidation,omitzero"` // where the exchange would close it by itself; 0: not known, or nowhere
}

// Snapshot is what the exchange says we hold, all of it, at SentAt on the
// exchange's clock: the instant its request left. A key it does not name is flat.
type Snapshot struct {
	SentAt   time.Time `json:"sent_at"`
	Hedge    bool      `json:"hedge,omitzero"` // the account's position mode
	Holdings []Holding `json:"holdings"`
}

// Keys are the positions a symbol has in the account's position mode.
func (s *Snapshot) Keys(symbol string) []Key {
	if s.Hedge {
		return []Key{{symbol, Long}, {symbol, Short}}
	}
	return []Key{{symbol, Both}}
}

// Of is the holding under k.
func (s *Snapshot) Of(k Key) Holding {
	for _, h := range s.Holdings {
		if h.Key == k {
			return h
		}
	}
	return Holding{Key: k}
}

// Mark is a symbol's mark price and when the exchange said it.
type Mark struct {
	Symbol string    `json:"symbol"`
	Price  Price     `json:"price"`
	At     time.Time `json:"at"`
}

// Bar is one closed interval of a symbol's mark price. One follows another when its OpenAt is the other's CloseAt.
type Bar struct {
	Symbol  string    `json:"symbol"`
	OpenAt  time.Time `json:"open_at"`
	CloseAt time.Time `json:"close_at"`
	High    Price     `json:"high"`
	Low     Price     `json:"low"`
	Close   Price     `json:"close"`
}

// Trade is one execution on the account. ClientOrderID is "" where the exchange does not tell whose order it was.
type Trade struct {
	Key
	ID            int64     `json:"id"`
	OrderID       int64     `json:"order_id"`
	ClientOrderID string    `json:"client_order_id,omitzero"`
	Direction     Direction `json:"direction"`
	Qty           Qty       `json:"qty"`
	Price         Price     `json:"price"`
	FeeUSD        USD       `json:"fee_usd"`
	At            time.Time `json:"at"`
}

// Basis is what apply held about a plan's position when it planned: the
// governor judges on it, and the record of its verdict is complete without more.
type Basis struct {
	At         time.Time `json:"at"`                   // exchange clock; what SnapshotAt and MarkAt are judged by
	SnapshotAt time.Time `json:"snapshot_at,omitzero"` // zero: no snapshot yet
	Exchange   Qty       `json:"exchange_amt"`
	Mark       Price     `json:"mark,omitzero"`
	MarkAt     time.Time `json:"mark_at,omitzero"`
	Lot        Lot       `json:"lot"`
}

// Sight is what the exchange showed when apply decided about a step or an order, as far as that decision looks at it.
type Sight struct {
	At          time.Time `json:"at"`                   // exchange clock
	SnapshotAt  time.Time `json:"snapshot_at,omitzero"` // zero: no snapshot
	Exchange    Qty       `json:"exchange_amt,omitzero"`
	Liquidation Price     `json:"liquidation,omitzero"`
	Mark        Price     `json:"mark,omitzero"`
	Lot         Lot       `json:"lot"`
	Tick        Price     `json:"tick,omitzero"`
}

// ours is the form of every client order id of this program.
const ours = "pc-"

// ClientOrderID is derived from the plan, its step and the attempt, all counted
// from 1, so that a restart finds the order again.
func ClientOrderID(plan PlanID, step, attempt int) string {
	return fmt.Sprintf("%s%s-%d-%d", ours, plan, step, attempt)
}

// StopOrderID is the client id of a stop order.
func StopOrderID(plan PlanID, step, attempt int) string {
	return fmt.Sprintf("%s%s-s%d-%d", ours, plan, step, attempt)
}

// OrderIDOf is the client id of an order of either kind.
func OrderIDOf(kind StepKind, plan PlanID, step, attempt int) string {
	if kind == StopStep {
		return StopOrderID(plan, step, attempt)
	}
	return ClientOrderID(plan, step, attempt)
}

// OfOurForm tells whether a client order id was made by this program, or another instance of it.
func OfOurForm(clientOrderID string) bool { return strings.HasPrefix(clientOrderID, ours) }

// stopForm is how StopOrderID writes.
var stopForm = regexp.MustCompile(`^pc-[0-9a-f]{16}-s[0-9]+-[0-9]+$`)

// OfStopForm tells whether a client order id is that of a stop of this program's.
func OfStopForm(clientOrderID string) bool { return stopForm.MatchString(clientOrderID) }
