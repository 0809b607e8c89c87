package stages

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange/sandbox"
	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// The fault matrix: everything that Binance, or the way to it, is known to do, at every call of a close, through the
// real client over real sockets. One cell is one chain with one sandbox.

// calls are the calls of a close, from the start of the process to the stop that is taken away after it.
var calls = []string{
	"GET /fapi/v1/time", "GET /fapi/v1/exchangeInfo", "GET /fapi/v1/accountConfig", "GET /fapi/v3/positionRisk", "GET /fapi/v1/userTrades",
	"POST /fapi/v1/order", "GET /fapi/v1/order", "GET /fapi/v1/allOrders",
	"POST /fapi/v1/algoOrder", "GET /fapi/v1/algoOrder", "DELETE /fapi/v1/algoOrder", "GET /fapi/v1/allAlgoOrders",
	"GET /fapi/v1/openOrders", "GET /fapi/v1/openAlgoOrders", "POST /fapi/v1/listenKey",
}

// cell is one fault at one call, and what is needed to get there.
type cell struct {
	fault sandbox.Fault
	with  []sandbox.Fault // armed beside it
	hedge bool
}

func (c cell) String() string {
	name := fmt.Sprintf("%s at %s", c.fault.Kind, c.fault.Call)
	if c.fault.Unexecuted {
		name += ", not executed"
	}
	for _, w := range c.with {
		name += fmt.Sprintf(", with %s at %s", w.Kind, w.Call)
	}
	if c.hedge {
		name += ", hedge mode"
	}
	return name
}

// early tells whether the call is made when a process starts, and hardly again.
func (c cell) early() bool {
	calls := []string{"GET /fapi/v1/time", "GET /fapi/v1/exchangeInfo", "POST /fapi/v1/listenKey", "GET /fapi/v1/openOrders", "GET /fapi/v1/openAlgoOrders"}
	kinds := []sandbox.Kind{sandbox.WSRefused, sandbox.WSSilent, sandbox.WSNoPings}
	return slices.Contains(calls, c.fault.Call) || slices.Contains(kinds, c.fault.Kind)
}

// the matrix, row by row as the exchange's faults are listed.
func cells() []cell {
	lost := []sandbox.Kind{
		sandbox.Closed, sandbox.Hang, sandbox.Unknown503, sandbox.Internal, sandbox.Timeout408, sandbox.BadGateway, sandbox.Error500, sandbox.Code1000,
		sandbox.Code1006, sandbox.Code1007, sandbox.Truncated, sandbox.Cut, sandbox.Empty, sandbox.Code200, sandbox.Redirect, sandbox.SlowBody, sandbox.SlowAnswer,
	}
	refused := []sandbox.Kind{sandbox.Unavailable, sandbox.Throttled, sandbox.TooMany, sandbox.TooManyBare, sandbox.Banned, sandbox.WAF, sandbox.ClockSaid, sandbox.HighWeight}
	hands := []sandbox.Kind{sandbox.HandTrade, sandbox.Liquidate, sandbox.ADL, sandbox.ModeFlip}
	orders := []sandbox.Kind{sandbox.Late, sandbox.TooLate, sandbox.Twin, sandbox.PartOnly, sandbox.FlatFirst, sandbox.LessFirst, sandbox.RestFirst, sandbox.Reopened}
	queries := []sandbox.Kind{sandbox.LookupLag, sandbox.TradesLag, sandbox.PositionLag, sandbox.Namesake}
	sockets := []sandbox.Kind{
		sandbox.WSRefused, sandbox.WSSilent, sandbox.WSDrop, sandbox.WSDropFill, sandbox.WSDuplicate, sandbox.WSReorder, sandbox.WSExpired,
		sandbox.WSUnknown, sandbox.WSAmendment, sandbox.WSNoPings, sandbox.WSLoseUpdate,
	}
	const post = "POST /fapi/v1/order"
	deaf := sandbox.Fault{Kind: sandbox.WSSilent, Call: "ws private", Times: -1}
	var all []cell
	add := func(f sandbox.Fault, with ...sandbox.Fault) {
		if f.Kind == sandbox.Banned {
			f.For = 3 * time.Second
		}
		switch f.Call { // These are asked where an answer was lost, and the stream is silent about it.
		case "GET /fapi/v1/order", "GET /fapi/v1/allOrders", "GET /fapi/v1/userTrades":
			with = append([]sandbox.Fault{deaf}, append(with, sandbox.Fault{Kind: sandbox.Closed, Call: post, Unexecuted: f.Call == "GET /fapi/v1/allOrders"})...)
		case "GET /fapi/v1/algoOrder", "GET /fapi/v1/allAlgoOrders":
			with = append([]sandbox.Fault{deaf}, append(with, sandbox.Fault{Kind: sandbox.Closed, Call: "POST /fapi/v1/algoOrder", Unexecuted: f.Call == "GET /fapi/v1/allAlgoOrders"})...)
		}
		all = append(all, cell{fault: f, with: with})
	}
	for _, call := range calls {
		for _, k := range slices.Concat(lost, refused, hands) {
			add(sandbox.Fault{Kind: k, Call: call})
			if slices.Contains(lost, k) && !strings.HasPrefix(call, "GET") {
				add(sandbox.Fault{Kind: k, Call: call, Unexecuted: true})
			}
		}
	}
	for _, k := range orders {
		for _, call := range []string{post, "POST /fapi/v1/algoOrder"} {
			add(sandbox.Fault{Kind: k, Call: call, For: 400 * time.Millisecond})
		}
	}
	for _, k := range queries { // Each beside a lost answer, of an order that executed and of one that did not; once also deaf.
		lost := sandbox.Fault{Kind: sandbox.Closed, Call: post}
		add(sandbox.Fault{Kind: k, Times: -1, Lasts: 8 * time.Second})
		add(sandbox.Fault{Kind: k, Times: -1, Lasts: 8 * time.Second}, lost)
		add(sandbox.Fault{Kind: k, Times: -1, Lasts: 8 * time.Second}, deaf, lost)
		lost.Unexecuted = true
		add(sandbox.Fault{Kind: k, Times: -1, Lasts: 8 * time.Second}, lost)
	}
	for _, k := range sockets {
		for _, call := range []string{"ws private", "ws market"} {
			if call == "ws market" && !slices.Contains([]sandbox.Kind{sandbox.WSRefused, sandbox.WSSilent, sandbox.WSDrop, sandbox.WSDuplicate, sandbox.WSNoPings, sandbox.WSLoseUpdate}, k) {
				continue // It is about an account's events.
			}
			add(sandbox.Fault{Kind: k, Call: call, Times: 3})
			add(sandbox.Fault{Kind: k, Call: call, Times: 3}, sandbox.Fault{Kind: sandbox.Closed, Call: post})
		}
	}
	for _, c := range slices.Clone(all) { // What depends on the position mode, in the other one too.
		if c.fault.Call == post && c.fault.Kind != sandbox.ModeFlip {
			c.hedge = true
			all = append(all, c)
		}
	}
	return all
}

// atOnce is how many cells run at the same time: nearly all they do is wait.
const atOnce = 64

func TestFaultMatrix(t *testing.T) {
	if testing.Short() {
		t.Skip("minutes of real time")
	}
	text := defaults(t)
	all := cells()
	if only := os.Getenv("CELL"); only != "" {
		all = slices.DeleteFunc(all, func(c cell) bool { return !strings.Contains(c.String(), only) })
	}
	begun := time.Now()
	var struck atomic.Int64
	var missed sync.Map
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, c := range all {
		dir := t.TempDir()
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			hit, err := c.run(dir, text)
			if hit {
				struck.Add(1)
			}
			if err != nil {
				t.Errorf("%s: %v", c, err)
			} else if !hit {
				missed.Store(c.String(), nil)
			}
		})
	}
	group.Wait()
	t.Logf("fault matrix: %d cells in %s, in %d of them the fault struck", len(all), time.Since(begun).Round(time.Second), struck.Load())
	if len(all) > 100 && int(struck.Load())*10 < len(all)*9 {
		t.Errorf("only %d of %d faults struck: the matrix proves less than it says", struck.Load(), len(all))
		missed.Range(func(name, _ any) bool { t.Logf("never came to it: %s", name); return true })
	}
}

// run plays a close, with a stop, under the fault, and then a full close without one; it tells whether the fault struck.
func (c cell) run(dir string, defaults []byte) (struck bool, err error) {
	side, positions := ledger.Both, map[ledger.Key]ledger.Qty{{Symbol: "BTCUSDT", Side: ledger.Both}: ledger.MustQty("0.046")}
	if c.hedge {
		side = ledger.Long
		positions = map[ledger.Key]ledger.Qty{
			{Symbol: "BTCUSDT", Side: ledger.Long}:  ledger.MustQty("0.046"),
			{Symbol: "BTCUSDT", Side: ledger.Short}: ledger.MustQty("-0.03"),
		}
	}
	w := newWired(dir, sandbox.Options{Seed: 1, Symbols: []string{"BTCUSDT"}, Positions: positions, Hedge: c.hedge, Odds: venue.Odds{Split: 0.3}})
	defer w.close()
	log := zerolog.Nop()
	if os.Getenv("CELL") != "" {
		log = zerolog.New(os.Stderr).With().Timestamp().Logger()
	}
	now, later := c.with, []sandbox.Fault{}
	if i := slices.IndexFunc(c.with, func(f sandbox.Fault) bool { return f.Call != "ws private" }); i >= 0 {
		now, later = c.with[:i], c.with[i:]
	}
	if c.early() {
		now = append(slices.Clone(now), c.fault)
	} else {
		later = append(slices.Clone(later), c.fault)
	}
	w.arm(now)
	for range 40 { // A process that can't start says so, and its supervisor starts it again.
		if err = w.begin(defaults, "symbols: [BTCUSDT]", log); err == nil {
			break
		}
		<-time.After(3 * time.Second)
	}
	if err != nil {
		return true, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	k := ledger.Key{Symbol: "BTCUSDT", Side: side}
	adopted := func(s *ledger.State) bool {
		return s.Positions[k] != nil || (c.fault.Kind == sandbox.ModeFlip && len(s.Positions) == 2)
	}
	if err := w.until(3*time.Minute, "adoption", adopted); err != nil {
		return true, err
	}
	w.arm(later)
	stop := w.board.Mark("BTCUSDT").Price.Of(ledger.MustPercent("98")).FloorTo(w.board.Markets["BTCUSDT"].Tick)
	p := ledger.Proposal{Symbol: "BTCUSDT", Side: side, Action: ledger.Partial50, KillScore: 0.5, NewSL: stop}
	id, err := w.ask(p)
	if err == nil {
		err = w.outcome(id, 2*time.Minute)
	}
	if err == nil && strings.Contains(c.fault.Call, "DELETE") { // The stop is taken away when the position is flat.
		p := ledger.Proposal{Symbol: "BTCUSDT", Side: side, Action: ledger.FullClose, KillScore: 0.7}
		if err = w.pause(2 * time.Second); err == nil {
			_, err = w.ask(p)
		}
		if err == nil {
			err = w.pause(4 * time.Second)
		}
	}
	for range 60 { // What is asked now and then is asked soon.
		if err == nil && w.sandbox.Struck()[c.fault.Kind] == 0 {
			err = w.pause(100 * time.Millisecond)
		}
	}
	if err == nil {
		err = w.flatten(side)
	}
	struck = w.sandbox.Struck()[c.fault.Kind] > 0
	if err != nil {
		return struck, err
	}
	if wrong := w.verdict(); len(wrong) > 0 {
		return struck, errors.New(strings.Join(wrong, "; "))
	}
	return struck, nil
}

// pause lets time pass; it is an error if the chain ends meanwhile.
func (w *wired) pause(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case err := <-w.ended:
		w.ended <- err
		return fmt.Errorf("the chain ended: %w", err)
	}
}

func (w *wired) arm(faults []sandbox.Fault) {
	for _, f := range faults {
		if err := w.sandbox.Arm(f); err != nil {
			panic(err)
		}
	}
}

// flatten ends the fault, closes what is left, and waits until nothing is open and both sides hold the same.
func (w *wired) flatten(side ledger.Side) error {
	w.sandbox.Disarm()
	for _, o := range w.others() { // The hand takes its orders away.
		err := w.sandbox.Do(func(v *venue.Venue, now time.Time) (venue.Change, error) {
			return v.Cancel(now, o.Symbol, o.OrderID, "")
		})
		if err != nil {
			return err
		}
	}
	begun := time.Now()
	for time.Since(begun) < 3*time.Minute { // A ban that the exchange did not say the end of lasts minutes.
		if len(w.held()) > 0 {
			id, err := w.ask(ledger.Proposal{Symbol: "BTCUSDT", Side: side, Action: ledger.FullClose, KillScore: 0.7})
			if err == nil {
				err = w.outcome(id, time.Minute)
			}
			if err != nil {
				return err
			}
		}
		err := w.until(6*time.Second, "the end", func(s *ledger.State) bool { return w.settled(s) })
		flat := !slices.ContainsFunc(w.held(), func(h ledger.Holding) bool { return h.Side == side })
		if err == nil && flat {
			break
		}
		_ = w.pause(time.Second) // What was denied is worth another try when more is known.
	}
	if err := w.until(40*time.Second, "nothing is open, and ledger and exchange hold the same", w.settled); err != nil {
		return err
	}
	if held := w.held(); slices.ContainsFunc(held, func(h ledger.Holding) bool { return h.Side == side }) {
		return fmt.Errorf("not flat: %s", w.account())
	}
	deadline := time.After(time.Minute) // A stop that is not wanted any more is taken away within its round of looks.
	for len(w.open()) > 0 {
		select {
		case <-time.After(200 * time.Millisecond):
		case <-deadline:
			return fmt.Errorf("still open: %v: %s", w.open(), w.account())
		}
	}
	return nil
}
