package simulate

import (
	"fmt"
	"slices"
	"strings"
)

// Class is a kind of misfortune that can be switched off.
type Class string

// The classes.
const (
	RequestLost   Class = "request_lost"   // an order never reaches the exchange, and no answer comes
	AnswerLost    Class = "answer_lost"    // an order is executed, and no answer comes
	UnknownAnswer Class = "unknown_answer" // an order's answer says nothing certain: 503, 408, -1007, half a body …
	Late          Class = "late"           // an order lands within recvWindow, long after its connection was closed
	TooLate       Class = "too_late"       // an order reaches the engine after recvWindow, which refuses it (-5028)
	Refused       Class = "refused"        // an order is certainly not taken: 503 Service Unavailable, -1008, -1021
	RateLimit     Class = "rate_limit"     // 429, or 418 and a ban of all calls
	Twin          Class = "twin"           // an order rests, and its answer is that its client id is a duplicate (-4116)
	FlatFirst     Class = "flat_first"     // somebody takes some or all of the position off just before an order lands (-2022)
	InTheWay      Class = "in_the_way"     // somebody's reduce-only order rests when ours lands (-4118)
	Namesake      Class = "namesake"       // a lookup finds an older order under the same client id
	Partial       Class = "partial"        // an order fills in part, perhaps not at all, and the rest expires
	Resting       Class = "resting"        // an order fills in part and stays open until the next mark price
	Reopened      Class = "reopened"       // somebody opens the position again right after it was closed
	SlowAnswer    Class = "slow_answer"    // an answer comes seconds late; the stream tells long before
	LookupLag     Class = "lookup_lag"     // a new order is not found (-2013), and not listed, for a while
	TradesLag     Class = "trades_lag"     // new trades are not listed for a while
	PositionLag   Class = "position_lag"   // positions are as they were a while ago
	Anonymous     Class = "anonymous"      // trades are listed without the client id of their order
	QueryFails    Class = "query_fails"    // a query fails
	Hand          Class = "hand"           // somebody trades by hand: adds, reduces, opens or turns a position
	Liquidation   Class = "liquidation"    // the exchange closes a position, or takes a part of one (ADL)
	ModeFlip      Class = "mode_flip"      // somebody closes everything and switches the position mode
	StreamGap     Class = "stream_gap"     // the streams are silent for a while
	StreamLoss    Class = "stream_loss"    // an event of the streams is never said
	StreamTwice   Class = "stream_twice"   // an event of the streams is said twice
	StreamOrder   Class = "stream_order"   // events of the streams overtake each other, and answers
	Crash         Class = "crash"          // the process dies between any two writes, and its undurable records with it
	SlowDisk      Class = "slow_disk"      // a commit takes its time
	SlowStage     Class = "slow_stage"     // a stage takes its time
	Skew          Class = "skew"           // the process's clock is off, steps, and it knows the exchange's only nearly
	Operator      Class = "operator"       // somebody holds, kills, disarms, rearms, flattens, syncs and settles
)

// Classes are all there are.
var Classes = [...]Class{
	RequestLost, AnswerLost, UnknownAnswer, Late, TooLate, Refused, RateLimit, Twin, FlatFirst, InTheWay, Namesake, Partial, Resting, Reopened,
	SlowAnswer, LookupLag, TradesLag, PositionLag, Anonymous, QueryFails, Hand, Liquidation, ModeFlip, StreamGap, StreamLoss, StreamTwice,
	StreamOrder, Crash, SlowDisk, SlowStage, Skew, Operator,
}

// calm are the classes of an exchange on a good day.
var calm = []Class{Partial, SlowAnswer, StreamOrder, Hand, SlowDisk, QueryFails}

// ParseFaults reads none, calm, hostile, or names of classes with commas between.
func ParseFaults(text string) (Faults, error) {
	f := Faults{Name: text}
	switch text {
	case "none":
	case "calm":
		f.Classes = calm
	case "hostile":
		f.Classes, f.Swarm = Classes[:], true
	default:
		for _, name := range strings.Split(text, ",") {
			c := Class(strings.TrimSpace(name))
			if !slices.Contains(Classes[:], c) {
				return f, fmt.Errorf("fault %q: none, calm, hostile or some of %s are wanted", name, names())
			}
			f.Classes = append(f.Classes, c)
		}
	}
	return f, nil
}

func names() string {
	var all []string
	for _, c := range Classes {
		all = append(all, string(c))
	}
	return strings.Join(all, ", ")
}

// Faults are the classes of a run.
type Faults struct {
	Name    string
	Classes []Class
	Swarm   bool // about half of them are off in each seed: what is rare shows where what is common does not drown it
}

// draw switches classes on for one seed.
func (f Faults) draw(w *world) {
	for _, c := range f.Classes {
		if !f.Swarm || w.luck.IntN(2) == 0 {
			w.on[c] = 0.02 + 0.3*w.luck.Float64()*w.luck.Float64() // How often it strikes where it can.
		}
	}
}

// strikes tells whether a class strikes now, and counts it.
func (w *world) strikes(c Class) bool {
	odds := w.on[c]
	if odds == 0 || w.quiet || w.luck.Float64() >= odds {
		return false
	}
	w.struck(c)
	return true
}

func (w *world) struck(c Class) {
	w.result.Faults[c]++
	w.trace("fault", string(c))
}
