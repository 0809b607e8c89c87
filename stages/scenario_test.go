package stages

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/exchange/binance"
	"permitchain/exchange/paper"
	"permitchain/exchange/sandbox"
	"permitchain/exchange/synthetic"
	"permitchain/exchange/venue"
	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/pipeline"
)

// The scenarios: what can happen to a close, each played twice in virtual time, on the paper exchange and through the
// real client on a sandbox. What the journal tells must be the same, and what testdata/scenarios says.

var update = flag.Bool("update", false, "write testdata/scenarios anew")

// stageSet is a chain on one of the two exchanges, and a hand on the account.
type stageSet struct {
	*chain
	t    *testing.T
	name string
	do   func(func(*venue.Venue, time.Time) (venue.Change, error)) error
	hand *hostile         // between the chain and the exchange
	twin func()           // the next order rests, and its answer is that it is a duplicate
	box  *sandbox.Sandbox // nil on paper
}

// scenario is one story.
type scenario struct {
	name, config string
	hedge        bool
	positions    map[string]string // by SYMBOL or SYMBOL:SIDE
	least        string            // of an order in BTCUSDT, instead of the step
	play         func(*stageSet)
}

const scenarioConfig = "mode: testnet\nexit_brain: {enabled: false}\ngovernor: {auto_approve: []}\n"

func long(p *ledger.Proposal)  { p.Side = ledger.Long }
func short(p *ledger.Proposal) { p.Side = ledger.Short }

var scenarios = []scenario{
	{
		name: "one_way", positions: map[string]string{"BTCUSDT": "0.046", "ETHUSDT": "-1.5"},
		play: func(s *stageSet) {
			s.propose(proposal(ledger.Partial75))
			s.propose(proposal(ledger.FullClose, of("ETHUSDT")))
		},
	},
	{
		name: "hedge", hedge: true, positions: map[string]string{"BTCUSDT:LONG": "0.046", "BTCUSDT:SHORT": "-0.03"},
		play: func(s *stageSet) {
			s.propose(proposal(ledger.Partial50, long))
			s.propose(proposal(ledger.FullClose, short))
			s.propose(proposal(ledger.Partial50)) // BOTH is no side of this account.
		},
	},
	{
		name: "whole_steps", config: "symbols: [DOGEUSDT]", positions: map[string]string{"DOGEUSDT": "1999"},
		play: func(s *stageSet) {
			s.propose(proposal(ledger.Partial25, of("DOGEUSDT")))
			s.propose(proposal(ledger.Partial75, of("DOGEUSDT")))
			s.propose(proposal(ledger.FullClose, of("DOGEUSDT")))
		},
	},
	{
		name: "above_the_maximum", positions: map[string]string{"BTCUSDT": "250.005"},
		play: func(s *stageSet) { s.propose(proposal(ledger.FullClose)) },
	},
	{
		name: "dust", positions: map[string]string{"BTCUSDT": "0.003"},
		play: func(s *stageSet) {
			s.propose(proposal(ledger.Partial25)) // Less than the least order: its tranche is done.
			s.propose(proposal(ledger.Partial25, func(p *ledger.Proposal) { p.KillScore = 0.55 }))
			s.propose(proposal(ledger.Partial75))
			s.propose(proposal(ledger.FullClose))
		},
	},
	{
		name: "dust_is_closed_with_the_rest", positions: map[string]string{"BTCUSDT": "0.012"}, least: "0.005",
		play: func(s *stageSet) { s.propose(proposal(ledger.Partial75)) },
	},
	{
		name: "nothing_to_reduce", positions: map[string]string{"BTCUSDT": "0.046"}, // -2022
		play: func(s *stageSet) {
			s.before(func(v *venue.Venue, now time.Time) (venue.Change, error) {
				return v.Trade(now, btc, ledger.MustQty("-0.046"))
			})
			s.propose(proposal(ledger.Partial50))
		},
	},
	{
		name: "an_order_in_the_way", positions: map[string]string{"BTCUSDT": "0.046"}, // -4118
		play: func(s *stageSet) {
			s.act(func(v *venue.Venue, now time.Time) (venue.Change, error) {
				return v.Place(now, venue.Request{
					Symbol: "BTCUSDT", Side: ledger.Both, Direction: ledger.Sell, Qty: ledger.MustQty("0.046"), ReduceOnly: true,
					Limit: ledger.MustPrice("99999"), SignedAt: now,
				})
			})
			s.propose(proposal(ledger.FullClose))
			s.act(func(v *venue.Venue, now time.Time) (venue.Change, error) {
				orders, _ := v.Open()
				return v.Cancel(now, "BTCUSDT", orders[0].OrderID, "")
			})
			s.propose(proposal(ledger.FullClose))
		},
	},
	{
		name: "a_duplicate_that_rests", positions: map[string]string{"BTCUSDT": "0.046"}, // -4116
		play: func(s *stageSet) {
			s.twin()
			s.propose(proposal(ledger.Partial50))
		},
	},
	{
		name: "partly_filled_then_expired", positions: map[string]string{"BTCUSDT": "0.046", "ETHUSDT": "1"},
		play: func(s *stageSet) {
			for _, k := range []ledger.Key{btc, {Symbol: "ETHUSDT", Side: ledger.Both}} {
				some := map[string]ledger.Qty{"BTCUSDT": ledger.MustQty("0.01"), "ETHUSDT": ledger.MustQty("0.4")}[k.Symbol]
				s.act(func(v *venue.Venue, _ time.Time) (venue.Change, error) {
					v.Depth(k.Symbol, &some)
					return venue.Change{}, nil
				})
			}
			s.propose(proposal(ledger.Partial50))                // Takes what there is, and that is all.
			s.propose(proposal(ledger.FullClose, of("ETHUSDT"))) // Goes on for the rest.
		},
	},
	{
		name: "liquidation_in_between", positions: map[string]string{"BTCUSDT": "0.046"},
		play: func(s *stageSet) {
			s.propose(proposal(ledger.Partial25))
			s.act(func(v *venue.Venue, now time.Time) (venue.Change, error) { return v.Liquidate(now, btc) })
			s.wait()
			s.propose(proposal(ledger.FullClose))
		},
	},
	{
		name: "a_trade_by_hand_in_between", positions: map[string]string{"BTCUSDT": "0.046"},
		play: func(s *stageSet) {
			s.act(func(v *venue.Venue, now time.Time) (venue.Change, error) {
				return v.Trade(now, btc, ledger.MustQty("-0.006"))
			})
			s.wait()
			s.propose(proposal(ledger.Partial50))
			s.before(func(v *venue.Venue, now time.Time) (venue.Change, error) {
				return v.Trade(now, btc, ledger.MustQty("-0.015"))
			})
			s.propose(proposal(ledger.FullClose))
		},
	},
	{
		name: "a_stop_of_ours", positions: map[string]string{"BTCUSDT": "0.046"},
		play: func(s *stageSet) {
			mark := s.board.Mark("BTCUSDT").Price
			at := func(percent string) func(*ledger.Proposal) {
				return func(p *ledger.Proposal) {
					p.NewSL = mark.Of(ledger.MustPercent(percent)).FloorTo(s.board.Markets["BTCUSDT"].Tick)
				}
			}
			s.propose(proposal(ledger.Partial50, at("95")))
			s.propose(proposal(ledger.UpdateSL, at("96")))
			s.propose(proposal(ledger.UpdateSL, at("94"))) // Not tighter.
			s.act(func(v *venue.Venue, now time.Time) (venue.Change, error) {
				return v.Mark(now, "BTCUSDT", mark.Of(ledger.MustPercent("95.9")).FloorTo(s.board.Markets["BTCUSDT"].Tick)), nil
			})
			s.wait()
		},
	},
}

func (s *stageSet) act(fn func(*venue.Venue, time.Time) (venue.Change, error)) {
	s.t.Helper()
	if err := s.do(fn); err != nil {
		s.t.Fatalf("%s: %v", s.name, err)
	}
}

// before has something happen to the account after the next order was permitted and before it arrives.
func (s *stageSet) before(fn func(*venue.Venue, time.Time) (venue.Change, error)) {
	s.hand.place = func(_ exchange.Order, place func() exchange.Answer) exchange.Answer {
		s.hand.place = nil
		if err := s.do(fn); err != nil {
			s.t.Errorf("%s: %v", s.name, err)
		}
		return place()
	}
}

// propose sends a proposal, waits for the end of its plan, and then until its traces are cold: the next is judged by itself.
func (s *stageSet) propose(p ledger.Proposal) {
	s.t.Helper()
	o := pipeline.Ask[ledger.Proposal, ledger.Receipt](p)
	s.external <- o
	id := (<-o.Reply).ID
	for range 600 {
		final := false
		if err := s.store.View(s.t.Context(), func(st *ledger.State, _ time.Time) { final = st.Plans[id] == nil || st.Plans[id].Outcome.Final() }); err != nil {
			s.t.Fatal(err)
		}
		if final {
			break
		}
		<-time.After(100 * time.Millisecond)
	}
	s.wait()
}

// wait is longer than any cooldown, and than the stream and two snapshots need.
func (s *stageSet) wait() { <-time.After(20 * time.Second) }

func TestScenarios(t *testing.T) {
	text := defaults(t)
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			onPaper, onSandbox := sc.on(t, text, sc.onPaper), sc.on(t, text, sc.onSandbox)
			golden := filepath.Join("testdata", "scenarios", sc.name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(onPaper), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if onPaper != string(want) {
				t.Errorf("on paper:\n%s\nwanted:\n%s", onPaper, want)
			}
			if onSandbox != string(want) {
				t.Errorf("on the sandbox:\n%s\nwanted:\n%s", onSandbox, want)
			}
		})
	}
}

// on plays a scenario in a bubble, and returns what the journal tells.
func (sc scenario) on(t *testing.T, text []byte, open func(*testing.T, *Config, string) (*stageSet, func() error)) string {
	t.Helper()
	c, err := ParseConfig(text, "test.yaml", []byte(scenarioConfig))
	if err == nil {
		c, err = ParseConfig(c.Effective(), "test.yaml", []byte(sc.config))
	}
	if err != nil {
		t.Fatal(err)
	}
	dir, told := t.TempDir(), ""
	synctest.Test(t, func(t *testing.T) {
		s, closeExchange := open(t, c, dir)
		so := c.StoreOptions()
		so.Host, so.Account = "test", "test"
		path := filepath.Join(dir, LedgerFile)
		st, err := store.Open(path, so)
		if err != nil {
			t.Fatal(err)
		}
		markets, err := s.hand.Markets(t.Context(), c.SymbolNames())
		if err != nil {
			t.Fatal(err)
		}
		s.t, s.name = t, sc.name
		s.chain = newChain(Options{Config: c, Version: "test", Log: zerolog.Nop()}, st, s.hand, markets, nil)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- s.group(func(stop pipeline.Stop) error { <-stop.Soft; return nil }).Run(ctx) }()
		s.wait()
		sc.play(s)
		s.wait()
		cancel()
		if err := errors.Join(<-ended, closeExchange()); err != nil {
			t.Errorf("stop: %v", err)
		}
		if report, err := store.Verify(path); err != nil || report.Chain != "ok" || report.Fold != "ok" {
			t.Errorf("verify: %+v %v", report, err)
		}
		wantAgain(t, path)
		told = tell(t, path, so)
	})
	return told
}

func (sc scenario) held() map[ledger.Key]ledger.Qty {
	held := map[ledger.Key]ledger.Qty{}
	for name, q := range sc.positions {
		symbol, side, ok := strings.Cut(name, ":")
		if !ok {
			side = string(ledger.Both)
		}
		held[ledger.Key{Symbol: symbol, Side: ledger.Side(side)}] = ledger.MustQty(q)
	}
	return held
}

// markets are those whose rules are not the usual ones.
func (sc scenario) markets() []exchange.Market {
	if sc.least == "" {
		return nil
	}
	m := synthetic.Of(1, "BTCUSDT").Market
	m.Lot.Min = ledger.MustQty(sc.least)
	return []exchange.Market{m}
}

func (sc scenario) onPaper(t *testing.T, c *Config, dir string) (*stageSet, func() error) {
	x, err := paper.Open(filepath.Join(dir, BookFile), paper.Options{Seed: 1, Symbols: c.SymbolNames(), Positions: sc.held(), Hedge: sc.hedge})
	if err != nil {
		t.Fatal(err)
	}
	s := &stageSet{t: t, hand: &hostile{Exchange: x}}
	s.do = func(fn func(*venue.Venue, time.Time) (venue.Change, error)) error {
		return x.Do(context.Background(), "act", fn)
	}
	s.act(func(v *venue.Venue, _ time.Time) (venue.Change, error) {
		for _, m := range sc.markets() {
			v.List(m)
		}
		return venue.Change{}, nil
	})
	odds := func(o venue.Odds) (was venue.Odds) {
		s.act(func(v *venue.Venue, _ time.Time) (venue.Change, error) {
			was = v.SetOdds(o)
			return venue.Change{}, nil
		})
		return was
	}
	s.twin = func() {
		s.hand.place = func(_ exchange.Order, place func() exchange.Answer) exchange.Answer {
			s.hand.place = nil
			was := odds(venue.Odds{Rest: 1})
			place()
			odds(was)
			return exchange.Answer{Outcome: exchange.Unknown, Code: -4116, Message: "ClientOrderId is duplicated."}
		}
	}
	return s, x.Close
}

func (sc scenario) onSandbox(t *testing.T, c *Config, _ string) (*stageSet, func() error) {
	credentials, err := binance.NewCredentials(wiredKey, wiredSecret)
	if err != nil {
		t.Fatal(err)
	}
	box := sandbox.New(sandbox.Options{Seed: 1, Symbols: c.SymbolNames(), Positions: sc.held(), Hedge: sc.hedge, Key: wiredKey, Secret: wiredSecret, Markets: sc.markets()})
	ctx, end := context.WithCancel(context.Background())
	wire, gone := sandbox.NewWire(), make(chan struct{}, 2)
	server := &http.Server{Handler: box.Handler()}
	go func() { _ = box.Run(ctx); gone <- struct{}{} }()
	go func() { _ = server.Serve(wire); gone <- struct{}{} }()
	x, err := binance.Open(ctx, binance.Options{
		RESTURL: "http://sandbox", StreamURL: "ws://sandbox", Credentials: credentials, RecvWindow: c.Exchange.RecvWindow,
		Timeout: c.Exchange.Timeout, Symbols: c.SymbolNames(), Bar: c.ExitBrain.Bar, Dial: wire.Dial, Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &stageSet{hand: &hostile{Exchange: x}, do: box.Do, box: box}
	s.twin = func() {
		if err := box.Arm(sandbox.Fault{Kind: sandbox.Twin, Call: "POST /fapi/v1/order"}); err != nil {
			t.Fatal(err)
		}
	}
	return s, func() error {
		err := x.Close()
		end()
		err = errors.Join(err, server.Close())
		<-gone
		<-gone
		return err
	}
}

// tell is what a journal says, without what depends on prices, times and luck: plan by plan, then position by position.
func tell(t *testing.T, path string, o store.Options) string {
	t.Helper()
	r, err := store.OpenReader(path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var text bytes.Buffer
	if err := r.Export(&text); err != nil {
		t.Fatal(err)
	}
	n := teller{plans: map[ledger.PlanID]*told{}, orders: map[string]*toldOrder{}, keys: map[ledger.Key]*toldKey{}}
	for _, line := range bytes.Split(bytes.TrimSpace(text.Bytes()), []byte("\n"))[1:] {
		var rec struct {
			Kind    ledger.Kind     `json:"kind"`
			Version int             `json:"version"`
			Event   json.RawMessage `json:"event"`
		}
		if err := json.Unmarshal(line, &rec); err != nil {
			t.Fatal(err)
		}
		e, err := ledger.DecodeEvent(rec.Kind, rec.Version, rec.Event)
		if err != nil {
			t.Fatal(err)
		}
		n.hear(e)
	}
	return n.String()
}

type (
	teller struct {
		ids    []ledger.PlanID
		plans  map[ledger.PlanID]*told
		orders map[string]*toldOrder
		keys   map[ledger.Key]*toldKey
	}
	told struct {
		head, governor, position, end string
		steps                         []string
		orders                        []*toldOrder
	}
	toldOrder struct {
		ledger.Intent
		trail []string // the states it went through; those of the same kind are one
	}
	toldKey struct {
		lines  []string
		amount ledger.Qty
		others ledger.Qty // traded by others since the last line
	}
)

func (n *teller) key(k ledger.Key) *toldKey {
	if n.keys[k] == nil {
		n.keys[k] = &toldKey{}
	}
	return n.keys[k]
}

func (n *teller) note(k ledger.Key, format string, args ...any) {
	n.key(k).flush()
	n.key(k).lines = append(n.key(k).lines, fmt.Sprintf(format, args...))
}

func (k *toldKey) flush() {
	if !k.others.IsZero() {
		k.lines = append(k.lines, fmt.Sprintf("somebody traded %s", k.others))
	}
	k.others = ledger.Qty{}
}

func (n *teller) hear(e ledger.Event) {
	switch e := e.(type) {
	case *ledger.PlanDecided:
		n.ids = append(n.ids, e.ID)
		p := e.Proposal
		n.plans[e.ID] = &told{head: fmt.Sprintf("%s %s: %s %s", p.Key().Label(), p.Action, e.Decision, e.Reason)}
	case *ledger.GovernorDecided:
		n.plans[e.ID].governor = verdicts(e.Verdicts)
	case *ledger.PositionDecided:
		n.plans[e.ID].position = verdicts(e.Verdicts, "exchange_amt", "ledger_amt", "diff")
	case *ledger.StepGranted:
		n.plans[e.ID].steps = append(n.plans[e.ID].steps, fmt.Sprintf("step %d granted %s", e.Step+1, e.Qty))
	case *ledger.StepEnded:
		n.plans[e.ID].steps = append(n.plans[e.ID].steps, fmt.Sprintf("step %d %s %s", e.Step+1, e.Outcome, e.Reason))
	case *ledger.PlanEnded:
		n.plans[e.ID].end = strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Outcome, e.Stage, e.Reason))
	case *ledger.IntentOpened:
		o := &toldOrder{Intent: e.Intent}
		n.orders[e.Intent.ClientOrderID] = o
		n.plans[e.Intent.Plan].orders = append(n.plans[e.Intent.Plan].orders, o)
	case *ledger.IntentAnswered:
		o := n.orders[e.ClientOrderID]
		state := string(e.State)
		if e.Code != 0 {
			state += fmt.Sprintf(" %d", e.Code)
		}
		if len(o.trail) == 0 || o.trail[len(o.trail)-1] != state {
			o.trail = append(o.trail, state)
		}
	case *ledger.StopGone:
		n.orders[e.ClientOrderID].trail = append(n.orders[e.ClientOrderID].trail, "gone")
	case *ledger.FillBooked:
		q := e.Trade.Direction.Signed(e.Trade.Qty)
		n.key(e.Trade.Key).amount = n.key(e.Trade.Key).amount.Add(q)
		if o := n.orders[e.Trade.ClientOrderID]; o != nil {
			o.Booked = o.Booked.Add(e.Trade.Qty)
		} else {
			n.key(e.Trade.Key).others = n.key(e.Trade.Key).others.Add(q) // Into how many trades an order splits is luck.
		}
	case *ledger.LedgerOpened:
		n.key(e.Holding.Key).amount = e.Holding.Amount
		n.note(e.Holding.Key, "opened with %s", e.Holding.Amount)
	case *ledger.LedgerAdjusted:
		n.key(e.Holding.Key).amount = e.Holding.Amount
		n.note(e.Holding.Key, "adjusted to %s", e.Holding.Amount)
	case *ledger.LedgerResidual:
		n.key(e.Key).amount = ledger.Qty{}
		n.note(e.Key, "residual %s", e.Amount)
	case *ledger.HoldPut:
		n.note(e.Key, "held: %s", e.Reason)
	case *ledger.HoldCleared:
		n.note(e.Key, "free of: %s", e.Reason)
	case *ledger.RunStateChanged:
		n.note(ledger.Key{}, "run state %s: %s", e.To, e.Reason)
	}
}

func verdicts(all []ledger.Verdict, names ...string) string {
	var parts []string
	for _, v := range all {
		text := fmt.Sprintf("%s %s", v.Ruling, v.Reason)
		for _, name := range names {
			if value := v.Context.Get(name); value != "" {
				text += fmt.Sprintf(" %s %s", name, value)
			}
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

func (n *teller) String() string {
	var b strings.Builder
	for i, id := range n.ids {
		p := n.plans[id]
		fmt.Fprintf(&b, "plan %d: %s\n", i+1, strings.TrimSpace(p.head))
		for _, part := range []struct{ name, text string }{{"governor", p.governor}, {"position", p.position}} {
			if part.text != "" {
				fmt.Fprintf(&b, "  %s: %s\n", part.name, part.text)
			}
		}
		for _, o := range p.orders {
			fmt.Fprintf(&b, "  %s %d: %s %s of %s: %s, booked %s\n", o.Kind, o.Attempt, o.Direction, o.Qty, o.Exchange, strings.Join(o.trail, ", "), o.Booked)
		}
		for _, s := range p.steps {
			fmt.Fprintf(&b, "  %s\n", strings.TrimSpace(s))
		}
		if p.end != "" {
			fmt.Fprintf(&b, "  %s\n", p.end)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(n.keys), ledger.Key.Compare) {
		n.keys[k].flush()
		if slices.Equal(n.keys[k].lines, []string{"opened with 0"}) {
			continue
		}
		fmt.Fprintf(&b, "%s\n", strings.TrimSpace("position "+k.Label()))
		for _, line := range n.keys[k].lines {
			fmt.Fprintf(&b, "  %s\n", line)
		}
		fmt.Fprintf(&b, "  in the end %s\n", n.keys[k].amount)
	}
	return b.String()
}
