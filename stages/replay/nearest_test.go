package replay

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"permitchain/ledger"
	"permitchain/stages/operator"
	"permitchain/stages/reconcile"
)

// scene is a case made by hand: a position of 0.046 that exchange and ledger agree on, a second old.
type scene struct {
	t     *testing.T
	rules Rules
	m     *Memory
	held  ledger.Qty
	p     ledger.Proposal
	b     ledger.Basis
	seen  reconcile.Seen
	now   time.Time
}

func newScene(t *testing.T) *scene {
	now := time.Date(2026, 1, 25, 12, 0, 0, 0, time.UTC)
	s := &scene{t: t, rules: worldRules(btc.Symbol), m: NewMemory(), held: ledger.MustQty("0.046"), now: now}
	s.rules.Governor.MaxPerHour, s.rules.Governor.MaxPer5Min = 3, 2
	s.p = ledger.Proposal{Symbol: btc.Symbol, Side: btc.Side, Action: ledger.Partial50, KillScore: 0.5, ComputedAt: now.Add(-time.Second), Source: ledger.FromBrain}
	lot := ledger.Lot{Step: ledger.MustQty("0.001"), Min: ledger.MustQty("0.001"), Max: ledger.MustQty("120")}
	s.b = ledger.Basis{At: now, SnapshotAt: now.Add(-time.Second), Exchange: s.held, Mark: ledger.MustPrice("50000"), MarkAt: now.Add(-time.Second), Lot: lot}
	s.seen = reconcile.Seen{At: now, Snapshot: &ledger.Snapshot{SentAt: now.Add(-time.Second), Holdings: []ledger.Holding{{Key: btc, Amount: s.held}}}, Mark: s.b.Mark, Lot: lot}
	return s
}

func (s *scene) put(ago time.Duration, events ...ledger.Event) {
	s.t.Helper()
	if err := s.m.Append(s.now.Add(-ago), events...); err != nil {
		s.t.Fatal(err)
	}
}

// used is an earlier execution, so long ago and worth so much.
func (s *scene) used(ago time.Duration, b ledger.Budget, usd string) {
	u := s.m.State.Usage[btc.Symbol]
	if u == nil {
		u = &ledger.Usage{Symbol: btc.Symbol}
		s.m.State.Usage[btc.Symbol] = u
	}
	u.Uses = append(u.Uses, ledger.Use{Plan: "before", Budget: b, At: s.now.Add(-ago), Notional: ledger.MustUSD(usd), Spent: true})
}

func (s *scene) pos() *ledger.Position { return s.m.State.Positions[btc] }

// standing has a stop stand there.
func (s *scene) standing(trigger string) {
	s.pos().Stop = &ledger.Stop{ClientOrderID: "pc-x", Trigger: ledger.MustPrice(trigger), Qty: s.held, Epoch: s.pos().Epoch}
}

func (s *scene) hold(amount string) {
	s.held = ledger.MustQty(amount)
	s.b.Exchange, s.seen.Snapshot.Holdings[0].Amount, s.pos().Amount = s.held, s.held, s.held
}

// at is the case before a stage; execution's has both permits, given a second ago.
func (s *scene) at(stage ledger.Stage) Case {
	s.t.Helper()
	c := Case{Rules: s.rules, State: s.m.State, Stage: stage, Seen: s.seen, Now: s.now, Plan: &ledger.Plan{ID: s.p.ID(), Proposal: s.p, Basis: s.b}}
	if stage == ledger.StagePlan {
		return c
	}
	for _, k := range s.p.Steps() {
		c.Plan.Steps = append(c.Plan.Steps, ledger.Step{Kind: k, Outcome: ledger.Pending})
	}
	c.Plan.Protective = s.p.Action == ledger.FullClose || s.p.Action == ledger.UpdateSL
	c.Plan.Outcome = ledger.Pending
	if stage == ledger.StageExecution {
		c.Governor = ledger.Verdict{Ruling: ledger.Allow, Reason: ledger.WithinLimits, Expires: s.now.Add(time.Minute)}
		c.Position = ledger.Verdict{
			Ruling: ledger.Allow, Reason: ledger.PositionAgrees, Expires: s.now.Add(time.Minute), SafeCloseQty: ledger.MustQty("0.023"), Exchange: s.held, Version: s.m.State.Version(btc),
		}
		c.Plan.Steps[0].Governor, c.Plan.Steps[0].Position = &c.Governor, &c.Position
	}
	return c
}

// Each reason of a gate has the change that undoes it, in numbers; each is one that the kernel was asked about.
func TestNearest(t *testing.T) {
	for _, row := range []struct {
		reason ledger.Reason
		stage  ledger.Stage
		make   func(*scene)
		want   []string // flips that begin so, in order
	}{
		{ledger.KillSwitchActive, ledger.StagePlan, func(s *scene) { s.m.State.Control.RunState = ledger.Killed }, []string{"run state armed"}},
		{ledger.NotInAllowlist, ledger.StagePlan, func(s *scene) { s.rules.Apply.Listed = false }, []string{"BTCUSDT among symbols"}},
		{ledger.ActionHold, ledger.StagePlan, func(s *scene) { s.p.Action = ledger.Hold }, []string{"action PARTIAL_50", "action PARTIAL_75", "action FULL_CLOSE_PROPOSED"}},
		{ledger.UnknownAction, ledger.StagePlan, func(s *scene) { s.p.Action = "DANCE" }, nil},
		{ledger.StopNotTighter, ledger.StagePlan, func(s *scene) {
			s.p.Action, s.p.NewSL = ledger.UpdateSL, ledger.MustPrice("48000")
			s.standing("49000.5")
		}, []string{"new_sl 49000.6, just above the standing one (48000)"}},
		{
			ledger.StaleProposal, ledger.StagePlan, func(s *scene) { s.p.ComputedAt = s.now.Add(-30*time.Second - 12*time.Millisecond) },
			[]string{"apply.proposal_ttl ≥ 30.012s (30s)", "computed when it was decided"},
		},
		{ledger.StaleProposal, ledger.StagePlan, func(s *scene) { s.p.Epoch = 7 }, []string{"epoch 1, the position's life by now (7)"}},
		{ledger.TrancheDone, ledger.StagePlan, func(s *scene) {
			s.pos().Tranches = map[ledger.Action]ledger.Tranche{ledger.Partial50: {Amount: ledger.MustQty("0.1"), Plan: "before", Done: true}}
		}, []string{"a position of 0.102: it re-arms the tranche (0.046)", "action PARTIAL_75", "action FULL_CLOSE_PROPOSED"}},

		{ledger.KillSwitchActive, ledger.StageGovernor, func(s *scene) { s.m.State.Control.RunState = ledger.Killed }, []string{"run state armed"}},
		{ledger.OnlyProtective, ledger.StageGovernor, func(s *scene) { s.m.State.Control.RunState = ledger.ProtectiveOnly }, []string{"run state armed"}},
		{ledger.KillScoreCritical, ledger.StageGovernor, func(s *scene) {
			s.p.Action, s.p.NewSL, s.p.KillScore = ledger.UpdateSL, ledger.MustPrice("48000"), 0.9
			s.standing("49000")
		}, []string{"new_sl 49001, just above"}},
		{ledger.SymbolCooldown, ledger.StageGovernor, func(s *scene) {
			s.rules.Governor.Cooldown = time.Minute
			s.used(time.Minute-12*time.Millisecond, ledger.Normal, "0")
		}, []string{"12ms later: it frees at 2026-01-25 12:00:00.012 UTC", "governor.cooldown ≤ 59.988s (1m0s)"}},
		{ledger.HourlyLimit, ledger.StageGovernor, func(s *scene) {
			for _, ago := range []int{50, 40, 30} {
				s.used(time.Duration(ago)*time.Minute, ledger.Normal, "0")
			}
		}, []string{"10m0s later: it frees at 2026-01-25 12:10:00.000 UTC", "governor.max_per_hour ≥ 4 (3)"}},
		{ledger.BurstLimit, ledger.StageGovernor, func(s *scene) {
			s.used(2*time.Minute, ledger.Normal, "0")
			s.used(time.Minute, ledger.Normal, "0")
		}, []string{"3m0s later", "governor.max_per_5min ≥ 3 (2)"}},
		{ledger.HourlyLimit, ledger.StageGovernor, func(s *scene) { // Past the hour's limit the five minutes' refuses as well.
			for range 4 {
				s.used(time.Minute, ledger.Normal, "0")
			}
		}, []string{"59m0s later"}},
		{
			ledger.PositionUnknown, ledger.StageGovernor, func(s *scene) { s.b.SnapshotAt = s.now.Add(-11 * time.Second) },
			[]string{"a snapshot no older than 10s", "reconcile.stale_after ≥ 11s"},
		},
		{
			ledger.PriceUnknown, ledger.StageGovernor, func(s *scene) { s.b.MarkAt = s.now.Add(-11 * time.Second) },
			[]string{"a mark price no older than 10s", "reconcile.stale_after ≥ 11s"},
		},
		{
			ledger.DailyLimit, ledger.StageGovernor, func(s *scene) { s.used(3*time.Hour, ledger.Normal, "1000") },
			[]string{"12h0m0s later", "governor.daily_notional ≥ 2150.01 (1500)", "governor.on_daily_limit: trim"},
		},
		{ledger.PortfolioHourlyLimit, ledger.StageGovernor, func(s *scene) {
			s.rules.Governor.PortfolioPerHour = 1
			s.used(20*time.Minute, ledger.Normal, "0")
		}, []string{"40m0s later", "governor.portfolio_per_hour ≥ 2 (1)"}},
		{
			ledger.PortfolioDailyLimit, ledger.StageGovernor, func(s *scene) { s.rules.Governor.PortfolioDailyNotional = ledger.MustUSD("1000") },
			[]string{"governor.portfolio_daily_notional ≥ 1150.01 (1000)"},
		},
		{ledger.ProtectiveLimit, ledger.StageGovernor, func(s *scene) {
			s.p.Action = ledger.FullClose
			for range 6 {
				s.used(time.Minute, ledger.Protective, "0")
			}
		}, []string{"59m0s later", "governor.protective_per_hour ≥ 7 (6)"}},
		{ledger.StopLimit, ledger.StageGovernor, func(s *scene) {
			s.p.Action, s.p.NewSL, s.rules.Governor.StopsPerHour = ledger.UpdateSL, ledger.MustPrice("48000"), 1
			s.used(time.Minute, ledger.StopBudget, "0")
		}, []string{"59m0s later", "governor.stops_per_hour ≥ 2 (1)"}},

		{ledger.NoExchangeSnapshot, ledger.StagePosition, func(s *scene) { s.seen.Snapshot = nil }, []string{"a snapshot that shows what the ledger has"}},
		{
			ledger.StaleExchangeState, ledger.StagePosition, func(s *scene) { s.seen.Snapshot.SentAt = s.now.Add(-12500 * time.Millisecond) },
			[]string{"a snapshot no older than 10s (12.5s)", "reconcile.stale_after ≥ 12.5s"},
		},
		{ledger.NoPosition, ledger.StagePosition, func(s *scene) { s.seen.Snapshot.Holdings = nil }, nil},
		{ledger.SideMismatch, ledger.StagePosition, func(s *scene) { s.pos().Amount = ledger.MustQty("-0.046") }, []string{"ledger_amt 0.046 (-0.046): permitchain ledger sync BTCUSDT"}},
		{
			ledger.QtyMismatch, ledger.StagePosition, func(s *scene) { s.pos().Amount = ledger.MustQty("0.002") },
			[]string{"ledger_amt 0.046 (0.002): permitchain ledger sync BTCUSDT", "tolerance ≥ 0.044 (0.001): reconcile.tolerance_pct 95.66 (1) and reconcile.tolerance_usd 2200.00 (100)"},
		},
		{ledger.QtyMismatch, ledger.StagePosition, func(s *scene) { s.pos().Amount = ledger.MustQty("0.1") }, []string{"ledger_amt 0.046 (0.1)"}},
		{ledger.HoldActive, ledger.StagePosition, func(s *scene) {
			s.put(0, &ledger.HoldPut{Key: btc, Reason: ledger.HoldOperator, Owner: "operator", Evidence: "x"})
		}, []string{"without the hold operator"}},
		{ledger.QtyMismatch, ledger.StagePosition, func(s *scene) { // Two gates refuse: no single change is enough.
			s.pos().Amount = ledger.MustQty("0.002")
			s.put(0, &ledger.HoldPut{Key: btc, Reason: ledger.HoldOperator, Owner: "operator", Evidence: "x"})
		}, []string{"ledger_amt 0.046 (0.002): permitchain ledger sync BTCUSDT --reason …, and without the hold operator"}},
		{ledger.QtyMismatch, ledger.StagePosition, func(s *scene) { // What it set itself a sync clears, and a wider tolerance had not set.
			s.pos().Amount = ledger.MustQty("0.002")
			s.put(0, &ledger.HoldPut{Key: btc, Reason: ledger.HoldQtyMismatch, Owner: "reconcile", Evidence: "x"})
		}, []string{"ledger_amt 0.046 (0.002)", "tolerance ≥ 0.044 (0.001)"}},
		{
			ledger.CooldownInFlight, ledger.StagePosition, func(s *scene) { s.pos().LastOrderAt = s.now.Add(-15*time.Second + 12*time.Millisecond) },
			[]string{"12ms later", "reconcile.cooldown ≤ 14.988s (15s)"},
		},
		{ledger.CooldownInFlight, ledger.StagePosition, func(s *scene) {
			s.m.State.Intents["pc-y"] = &ledger.Intent{ClientOrderID: "pc-y", Key: btc, Kind: ledger.CloseStep, State: ledger.Unknown}
		}, []string{"with order pc-y settled (unknown)"}},
		{ledger.CooldownInFlight, ledger.StagePosition, func(s *scene) {
			s.pos().LastTradeAt, s.pos().Amount = s.now, ledger.MustQty("0.023")
		}, []string{"a snapshot of after the last trade, 1.001s later, that shows the ledger's 0.023"}},
		{
			ledger.StopWouldTrigger, ledger.StagePosition, func(s *scene) { s.p.Action, s.p.NewSL = ledger.UpdateSL, ledger.MustPrice("50100.5") },
			[]string{"new_sl 49999, just below the mark price (50100.5)"},
		},
		{ledger.StopBeyondLiq, ledger.StagePosition, func(s *scene) {
			s.p.Action, s.p.NewSL = ledger.UpdateSL, ledger.MustPrice("30000")
			s.seen.Snapshot.Holdings[0].Liquidation = ledger.MustPrice("31000")
		}, []string{"new_sl 31001, just above the liquidation price (30000)"}},
		{ledger.QtyBelowMin, ledger.StagePosition, func(s *scene) {
			s.hold("0.003")
			s.p.Action, s.seen.Lot.Min = ledger.Partial25, ledger.MustQty("0.002")
		}, []string{"action PARTIAL_75", "action FULL_CLOSE_PROPOSED"}},

		{ledger.PermitExpired, ledger.StageExecution, func(s *scene) { s.now = s.now.Add(time.Minute + 12*time.Millisecond) }, []string{"12.000001ms sooner: the permits ended at 12:01:00.000"}},
		{ledger.RunDisarmed, ledger.StageExecution, func(s *scene) { s.m.State.Control.RunState = ledger.Disarmed }, []string{"run state armed"}},
		{ledger.RunStateForbids, ledger.StageExecution, func(s *scene) { s.m.State.Control.RunState = ledger.Killed }, []string{"run state armed"}},
		{ledger.ModeDryRun, ledger.StageExecution, func(s *scene) { s.rules.Apply.Mode = ledger.DryRun }, []string{"mode testnet or live"}},
		{ledger.HoldActive, ledger.StageExecution, func(s *scene) {
			s.put(0, &ledger.HoldPut{Key: btc, Reason: ledger.HoldOperator, Owner: "operator", Evidence: "x"})
		}, []string{"without the hold operator"}},
		{ledger.CooldownInFlight, ledger.StageExecution, func(s *scene) { s.pos().Version += 3 }, []string{"decided again on the ledger as it was by then"}},
	} {
		t.Run(fmt.Sprintf("%s_%s", row.stage, row.reason), func(t *testing.T) {
			s := newScene(t)
			s.put(24*time.Hour, &ledger.Started{Instance: 1, Mode: ledger.Live}, &ledger.LedgerOpened{Holding: ledger.Holding{Key: btc, Amount: s.held, Entry: ledger.MustPrice("50000")}, By: "test"})
			permits := s.at(ledger.StageExecution)
			row.make(s)
			c := s.at(row.stage)
			if row.stage == ledger.StageExecution {
				c.Governor, c.Position, c.Plan.Steps = permits.Governor, permits.Position, permits.Plan.Steps
			}
			if got := c.ruled(); got != row.reason {
				t.Fatalf("the kernel says %q", got)
			}
			before := fmt.Sprintf("%+v %+v", *s.pos(), s.m.State.Holds)
			flips := Nearest(c)
			for i, f := range flips {
				if i >= len(row.want) || !strings.HasPrefix(f.Change, row.want[i]) || f.Gate != row.reason || f.Stage != row.stage {
					t.Errorf("flip %d: %+v", i, f)
				}
			}
			if len(flips) != len(row.want) {
				t.Errorf("%d flips of %d: %+v", len(flips), len(row.want), flips)
			}
			if after := fmt.Sprintf("%+v %+v", *s.pos(), s.m.State.Holds); after != before {
				t.Errorf("the case itself was changed: %s", after)
			}
		})
	}
}

// The gate with the least room is named with the bound that would have closed it.
func TestMargin(t *testing.T) {
	for _, row := range []struct {
		stage ledger.Stage
		make  func(*scene)
		want  string
	}{
		{ledger.StageGovernor, func(s *scene) { s.used(50*time.Minute, ledger.Normal, "300") }, "8 daily_notional: 300.00 used + 1150.00, at most 1500; 3 % of room; governor.daily_notional < 1450.00 would have denied it"},
		{ledger.StageGovernor, func(s *scene) {
			s.rules.Governor.DailyNotional = ledger.USD{}
			s.used(50*time.Minute, ledger.Normal, "0")
			s.used(40*time.Minute, ledger.Normal, "0")
		}, "5 max_per_hour: 2 used, below 3; 33 % of room; governor.max_per_hour ≤ 2"},
		{ledger.StagePosition, func(s *scene) {
			s.rules.Reconcile.TolerancePct = ledger.MustPercent("4")
			s.pos().Amount = ledger.MustQty("0.045")
			s.seen.Snapshot.SentAt = s.now.Add(-9900 * time.Millisecond)
		}, "1 snapshot: 9.9s old, at most 10s old; 1 % of room; reconcile.stale_after < 9.9s"},
		{ledger.StagePosition, func(s *scene) { s.pos().LastOrderAt = s.now.Add(-15100 * time.Millisecond) }, "6 in flight: last 15.1s ago, none, and the last 15s ago; 1 % of room; reconcile.cooldown > 15.1s"},
	} {
		s := newScene(t)
		s.put(24*time.Hour, &ledger.Started{Instance: 1, Mode: ledger.Live}, &ledger.LedgerOpened{Holding: ledger.Holding{Key: btc, Amount: s.held, Entry: ledger.MustPrice("50000")}, By: "test"})
		row.make(s)
		if f, _ := Margin(s.at(row.stage)); f == nil || !strings.HasPrefix(f.Change, row.want) {
			t.Errorf("%s: %+v, and not %s", row.stage, f, row.want)
		}
	}
}

// The gates that are told are those of the kernels: over a long journal the first that does not pass is each kernel's reason.
func TestGatesAreTheKernels(t *testing.T) {
	m, met := NewMemory(), map[ledger.Reason]int{}
	check := func(seq uint64, c Case) {
		t.Helper()
		if c.Plan.Steps == nil && c.Stage != ledger.StagePlan {
			return
		}
		first := ledger.Reason("")
		for _, g := range c.gates() {
			if !g.Passed {
				first = g.Reason
				break
			}
		}
		if want := c.ruled(); first != want && want != ledger.DuplicatePlan {
			t.Fatalf("record %d, %s step %d: the kernel says %q, the gates %q: %+v", seq, c.Stage, c.Step, want, first, c.gates())
		}
		met[first]++
	}
	err := chronicle(9, 3000, worldRules)(func(rec ledger.Record) error {
		switch e := rec.Event.(type) {
		case *ledger.PlanDecided:
			check(rec.Seq, Case{Rules: worldRules(e.Proposal.Symbol), State: m.State, Plan: &ledger.Plan{ID: e.ID, Proposal: e.Proposal, Basis: e.Basis}, Step: -1, Stage: ledger.StagePlan, Now: rec.At})
		case *ledger.GovernorDecided:
			p := m.State.Plans[e.ID]
			for i := range p.Steps {
				check(rec.Seq, Case{Rules: worldRules(p.Proposal.Symbol), State: m.State, Plan: p, Step: i, Stage: ledger.StageGovernor, Now: rec.At})
			}
		case *ledger.PositionDecided:
			p := m.State.Plans[e.ID]
			for i := range p.Steps {
				check(rec.Seq, Case{Rules: worldRules(p.Proposal.Symbol), State: m.State, Plan: p, Step: i, Stage: ledger.StagePosition, Seen: seenBy(e), Now: rec.At})
			}
		}
		return m.State.Apply(rec)
	})
	if err != nil || len(met) < 15 {
		t.Errorf("%v: only %v", err, met)
	}
}

// A plan's story is told from its journal: gates, changes that turn it, and what was nearest to stopping one that executed.
func TestTell(t *testing.T) {
	var plans []*ledger.Plan
	m := NewMemory()
	j := chronicle(2, 300, worldRules)
	if err := j(func(rec ledger.Record) error { return m.State.Apply(rec) }); err != nil {
		t.Fatal(err)
	}
	for _, p := range m.State.Plans {
		plans = append(plans, p)
	}
	slices.SortFunc(plans, func(a, b *ledger.Plan) int { return int(a.Journal[0]) - int(b.Journal[0]) })
	executed, turned, told := 0, 0, 0
	for n, p := range plans {
		if n%6 != 0 && (p.Outcome != ledger.Executed || executed == 5) {
			continue
		}
		s, err := Tell(AgainOptions{Recorded: recordedWorld}, j, p)
		if err != nil {
			t.Fatal(err)
		}
		told++
		if len(s.Gates) == 0 {
			t.Errorf("plan %s (%s): no gates", p.ID, p.Fate())
		}
		denied := slices.ContainsFunc(s.Gates, func(g operator.Gate) bool { return g.Reached && !g.Passed && g.Reason == p.Reason })
		switch {
		case p.Outcome == ledger.Executed && p.Proposal.Action == ledger.FullClose:
			executed++
			if s.Margin == nil {
				t.Errorf("plan %s executed, and nothing was near to stopping it: %+v", p.ID, s.Gates)
			}
		case (p.Stage == ledger.StageGovernor || p.Stage == ledger.StagePosition) && p.Reason != ledger.GovernorTimeout && p.Reason != ledger.PositionTimeout:
			if !denied {
				t.Errorf("plan %s %s: %+v", p.ID, p.Fate(), s.Gates)
			}
		}
		if len(s.Nearest) > 0 {
			turned++
		}
	}
	if executed < 5 || turned < 5 {
		t.Errorf("of %d plans %d executed, %d could be turned", told, executed, turned)
	}
	if _, err := Tell(AgainOptions{Recorded: recordedWorld}, j, &ledger.Plan{Journal: []uint64{storyMax + 1}}); err == nil {
		t.Error("a plan after too many records is told of")
	}
}
