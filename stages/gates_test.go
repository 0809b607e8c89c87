package stages

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

func (r *rig) runState(to ledger.RunState) {
	r.t.Helper()
	commit, err := r.store.Decide(r.t.Context(), func(s *ledger.State, _ time.Time) []ledger.Event {
		return []ledger.Event{&ledger.RunStateChanged{From: s.Control.RunState, To: to, Who: "test", Why: "test"}}
	})
	if err == nil {
		err = commit.Wait(r.t.Context())
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) put(k ledger.Key, reason ledger.Reason) {
	r.t.Helper()
	if _, err := r.store.Decide(r.t.Context(), func(*ledger.State, time.Time) []ledger.Event {
		return []ledger.Event{&ledger.HoldPut{Key: k, Reason: reason, Owner: "test", Evidence: "test"}}
	}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) trade(symbol, qty string) {
	r.t.Helper()
	if err := r.paper.Trade(r.t.Context(), symbol, ledger.Both, ledger.MustQty(qty)); err != nil {
		r.t.Fatal(err)
	}
	r.wait(settled) // The ledger has taken the trade over.
}

func (r *rig) executed(p ledger.Proposal) {
	r.t.Helper()
	r.want(r.decide(p), ledger.Executed, "", "")
}

func withSL(price string) func(*ledger.Proposal) {
	return func(p *ledger.Proposal) { p.NewSL = ledger.MustPrice(price) }
}

func critical(p *ledger.Proposal) { p.KillScore = 0.9 }

func of(symbol string) func(*ledger.Proposal) {
	return func(p *ledger.Proposal) { p.Symbol = symbol }
}

func aged(d time.Duration) func(*ledger.Proposal) {
	return func(p *ledger.Proposal) { p.ComputedAt = p.ComputedAt.Add(-d) }
}

// gate is one way to be refused: a configuration, and what is proposed under it.
type gate struct {
	reason  ledger.Reason
	outcome ledger.Outcome
	stage   ledger.Stage
	config  string
	act     func(r *rig) ledger.Plan // the last plan is the one that is judged
	prepare func(*hostile)
}

const (
	atPlan, atGovernor, atPosition, atExecution = ledger.StagePlan, ledger.StageGovernor, ledger.StagePosition, ledger.StageExecution
	denied, none                                = ledger.Denied, ledger.NoOutcome
	// wide opens every limit of the governor.
	wide = "governor: {max_per_hour: 100, max_per_5min: 100, daily_notional: '1000000'}\n"
)

// one proposes once, when the ledger is adopted.
func one(action ledger.Action, change ...func(*ledger.Proposal)) func(*rig) ledger.Plan {
	return func(r *rig) ledger.Plan {
		r.wait(settled)
		return r.decide(proposal(action, change...))
	}
}

// then executes a first proposal, waits, and makes a second.
func then(after time.Duration, first, second ledger.Action, change ...func(*ledger.Proposal)) func(*rig) ledger.Plan {
	return func(r *rig) ledger.Plan {
		r.wait(settled)
		r.executed(proposal(first, change...))
		r.wait(after)
		return r.decide(proposal(second, change...))
	}
}

func state(to ledger.RunState, action ledger.Action) func(*rig) ledger.Plan {
	return func(r *rig) ledger.Plan {
		r.wait(settled)
		r.runState(to)
		return r.decide(proposal(action))
	}
}

// liquidatedAt says where the exchange would close what is held by itself.
func liquidatedAt(price string) func(*hostile) {
	return func(h *hostile) { h.Exchange = &leveraged{h.Exchange, ledger.MustPrice(price)} }
}

type leveraged struct {
	exchange.Exchange
	at ledger.Price
}

func (l *leveraged) Snapshot(ctx context.Context) (ledger.Snapshot, error) {
	snap, err := l.Exchange.Snapshot(ctx)
	for n := range snap.Holdings {
		snap.Holdings[n].Liquidation = l.at
	}
	return snap, err
}

func gates() []gate {
	const long = 20 * time.Second
	return []gate{
		{ledger.KillSwitchActive, denied, atPlan, "", state(ledger.Killed, ledger.Partial25), nil},
		{ledger.UnknownAction, none, atPlan, "", one("CLOSE_SOME"), nil},
		{ledger.NotInAllowlist, none, atPlan, "", one(ledger.Partial25, of("DOGEUSDT")), nil},
		{ledger.ActionHold, none, atPlan, "", one(ledger.Hold), nil},
		{ledger.MissingNewSL, none, atPlan, "", one(ledger.UpdateSL), nil},
		{ledger.StopNotTighter, none, atPlan, "", func(r *rig) ledger.Plan {
			r.wait(settled)
			r.executed(proposal(ledger.UpdateSL, withSL("50000")))
			return r.decide(proposal(ledger.UpdateSL, withSL("49000")))
		}, nil},
		{ledger.StaleProposal, none, atPlan, "", one(ledger.Partial25, aged(31*time.Second)), nil},
		{ledger.StaleProposal, none, atPlan, "", one(ledger.Partial25, aged(-2*time.Second)), nil},
		{ledger.StaleProposal, none, atPlan, "", one(ledger.Partial25, func(p *ledger.Proposal) { p.Epoch = 7 }), nil},
		{ledger.TrancheDone, none, atPlan, "", then(long, ledger.Partial25, ledger.Partial25), nil},
		{ledger.TrancheDone, none, atPlan, "", then(long, ledger.Partial50, ledger.Partial25), nil}, // the lower one with it

		{ledger.OnlyProtective, denied, atGovernor, "", state(ledger.ProtectiveOnly, ledger.Partial25), nil},
		{ledger.KillScoreCritical, ledger.PartlyExecuted, atGovernor, "", func(r *rig) ledger.Plan {
			r.wait(settled)
			r.executed(proposal(ledger.UpdateSL, withSL("50000")))
			return r.decide(proposal(ledger.Partial25, withSL("49000"), critical))
		}, nil},
		{ledger.SymbolCooldown, denied, atGovernor, "governor: {cooldown: 1m}", then(long, ledger.Partial25, ledger.Partial50), nil},
		{ledger.HourlyLimit, denied, atGovernor, "governor: {max_per_hour: 1, max_per_5min: 1}", then(long, ledger.Partial25, ledger.Partial50), nil},
		{ledger.BurstLimit, denied, atGovernor, "governor: {max_per_5min: 1}", then(long, ledger.Partial25, ledger.Partial50), nil},
		{ledger.PositionUnknown, denied, atGovernor, "", one(ledger.Partial25), func(h *hostile) { h.noSnapshots.Store(true) }},
		{ledger.PriceUnknown, denied, atGovernor, "", one(ledger.Partial25), func(h *hostile) { h.noMarks.Store(true) }},
		{ledger.DailyLimit, denied, atGovernor, "governor: {daily_notional: '1000'}", one(ledger.Partial75), nil},
		{ledger.DailyLimit, denied, atGovernor, "governor: {daily_notional: '10', on_daily_limit: trim}", one(ledger.Partial75), nil},
		{ledger.PortfolioHourlyLimit, denied, atGovernor, "governor: {portfolio_per_hour: 1}\npaper: {positions: {BTCUSDT: '0.046', ETHUSDT: '1'}}", func(r *rig) ledger.Plan {
			r.wait(settled)
			r.executed(proposal(ledger.Partial25, of("ETHUSDT")))
			return r.decide(proposal(ledger.Partial25))
		}, nil},
		{ledger.PortfolioDailyLimit, denied, atGovernor, "governor: {portfolio_daily_notional: '1000'}", one(ledger.Partial75), nil},
		{ledger.ProtectiveLimit, denied, atGovernor, "governor: {protective_per_hour: 1}", func(r *rig) ledger.Plan {
			r.wait(settled)
			r.executed(proposal(ledger.FullClose))
			r.trade("BTCUSDT", "0.05")
			return r.decide(proposal(ledger.FullClose))
		}, nil},
		{ledger.StopLimit, denied, atGovernor, "governor: {stops_per_hour: 1}", func(r *rig) ledger.Plan {
			r.wait(settled)
			r.executed(proposal(ledger.UpdateSL, withSL("50000")))
			return r.decide(proposal(ledger.UpdateSL, withSL("51000")))
		}, nil},

		{ledger.NoExchangeSnapshot, denied, atPosition, "", one(ledger.FullClose), func(h *hostile) { h.noSnapshots.Store(true) }},
		{ledger.StaleExchangeState, denied, atPosition, "", func(r *rig) ledger.Plan {
			r.wait(settled)
			r.hostile.noSnapshots.Store(true)
			r.wait(settled)
			return r.decide(proposal(ledger.FullClose))
		}, nil},
		{ledger.StopWouldTrigger, denied, atPosition, "", one(ledger.UpdateSL, withSL("200000")), nil},
		{ledger.StopWouldTrigger, denied, atPosition, "paper: {positions: {BTCUSDT: '-0.046'}}", one(ledger.UpdateSL, withSL("50000")), nil},
		{ledger.StopBeyondLiq, denied, atPosition, "", one(ledger.UpdateSL, withSL("10000")), liquidatedAt("34800")},
		{ledger.StopBeyondLiq, denied, atPosition, "", one(ledger.UpdateSL, withSL("34800")), liquidatedAt("34800")},
		{ledger.StopBeyondLiq, denied, atPosition, "paper: {positions: {BTCUSDT: '-0.046'}}", one(ledger.UpdateSL, withSL("150000")), liquidatedAt("140000")},
		{ledger.NoPosition, denied, atPosition, "", one(ledger.FullClose, of("ETHUSDT")), nil},
		{ledger.SideMismatch, denied, atPosition, "paper: {ledger: {BTCUSDT: '-0.02'}}", one(ledger.Partial75), nil},
		{ledger.QtyMismatch, denied, atPosition, "paper: {ledger: {BTCUSDT: '0.002'}}", one(ledger.Partial75), nil},
		{ledger.HoldActive, denied, atPosition, "", func(r *rig) ledger.Plan {
			r.wait(settled)
			r.put(ledger.Key{Symbol: "BTCUSDT", Side: ledger.AnySide}, ledger.HoldOperator)
			return r.decide(proposal(ledger.Partial25))
		}, nil},
		{ledger.CooldownInFlight, denied, atPosition, "", then(time.Second, ledger.Partial25, ledger.Partial50), nil},
		{ledger.QtyBelowMin, none, atPosition, "paper: {positions: {BTCUSDT: '0.003'}}", one(ledger.Partial25), nil},

		{ledger.RunDisarmed, ledger.WouldExecute, atExecution, "", state(ledger.Disarmed, ledger.Partial25), nil},
		{ledger.ModeDryRun, ledger.WouldExecute, atExecution, "mode: dry_run", one(ledger.Partial25), nil},
		{ledger.AttemptsExhausted, ledger.Failed, atExecution, "", one(ledger.Partial25), func(h *hostile) {
			h.place = func(exchange.Order, func() exchange.Answer) exchange.Answer {
				return exchange.Answer{Outcome: exchange.NotPlaced, Code: -4131, Message: "price too far"}
			}
		}},
	}
}

// TestEveryGateFires drives the whole chain with nothing but a configuration and proposals.
func TestEveryGateFires(t *testing.T) {
	fired := map[ledger.Reason]bool{ledger.DuplicatePlan: true} // TestAPlanExecutesOnceAndIsBooked
	for _, g := range gates() {
		t.Run(string(g.reason), func(t *testing.T) {
			var prepare []func(*hostile)
			if g.prepare != nil {
				prepare = append(prepare, g.prepare)
			}
			inBubble(t, g.config, func(r *rig) {
				plan := g.act(r)
				r.want(plan, g.outcome, g.stage, g.reason)
				fired[g.reason] = true
			}, prepare...)
		})
	}
	names := reasonNames(t)
	for _, info := range ledger.Reasons {
		if fired[info.Reason] {
			continue
		}
		text, err := os.ReadFile(elsewhere[info.Reason])
		if err != nil || !(strings.Contains(string(text), "ledger."+names[info.Reason]) || strings.Contains(string(text), string(info.Reason))) {
			t.Errorf("no test makes %s (%s) appear: %v", info.Reason, names[info.Reason], err)
		}
	}
}

// reasonNames are the constants of the reasons, as tests write them.
func reasonNames(t *testing.T) map[ledger.Reason]string {
	t.Helper()
	text, err := os.ReadFile("../ledger/reason.go")
	if err != nil {
		t.Fatal(err)
	}
	names := map[ledger.Reason]string{}
	for _, m := range regexp.MustCompile(`(?m)^\t(\w+)\s+Reason = "([^"]+)"`).FindAllStringSubmatch(string(text), -1) {
		names[ledger.Reason(m[2])] = m[1]
	}
	return names
}

// elsewhere names, for a reason that is not a gate's denial, the file whose test wants it; the file must name it.
var elsewhere = map[ledger.Reason]string{
	ledger.InvalidProposal:        "operator/operator_test.go",
	ledger.RateLimited:            "operator/operator_test.go",
	ledger.OperatorFlatten:        "execute_test.go",
	ledger.AttemptErrors:          "governor/kernel_test.go",
	ledger.RunawayOrders:          "governor/kernel_test.go",
	ledger.Restarted:              "apply/join_test.go",
	ledger.OrderNotPlaced:         "stops_test.go",
	ledger.OrderUnfilled:          "execute_test.go",
	ledger.HoldOperator:           "execute_test.go",
	ledger.WithinLimits:           "execute_test.go",
	ledger.TrimmedToDailyLimit:    "execute_test.go",
	ledger.WithinProtectiveBudget: "execute_test.go",
	ledger.TestnetAutoApprove:     "execute_test.go",
	ledger.DryRunAutoApprove:      "execute_test.go",
	ledger.PaperAutoApprove:       "execute_test.go",
	ledger.PositionAgrees:         "execute_test.go",
	ledger.HoldQtyMismatch:        "chain_test.go",
	ledger.HoldSideMismatch:       "execute_test.go",
	ledger.HoldMissingExchange:    "execute_test.go",
	ledger.HoldStaleExchange:      "execute_test.go",
	ledger.HoldNoLedger:           "execute_test.go",
	ledger.HoldExternalTrades:     "execute_test.go",
	ledger.HoldForeignInstance:    "execute_test.go",
	ledger.HoldPositionMoving:     "execute_test.go",
	ledger.GovernorTimeout:        "apply/join_test.go",
	ledger.PositionTimeout:        "apply/join_test.go",
	ledger.PermitExpired:          "apply/join_test.go",
	ledger.RunStateForbids:        "apply/join_test.go",
	ledger.GrantExpired:           "apply/join_test.go",
	ledger.NothingLeft:            "apply/join_test.go",
}
