package apply_test

import (
	"testing"
	"time"

	"permitchain/ledger"
	"permitchain/stages/apply"
)

var now = time.Date(2026, 1, 25, 0, 26, 8, 0, time.UTC)

// planned is a state with one plan that has the verdicts given.
func planned(t *testing.T, governor, position *ledger.Verdict) (*ledger.State, *ledger.Plan) {
	t.Helper()
	s := ledger.NewState()
	p := ledger.Proposal{Symbol: "BTCUSDT", Side: ledger.Both, Action: ledger.Partial25, KillScore: 0.54, ComputedAt: now, Source: ledger.FromExternal}
	events := []ledger.Event{
		&ledger.LedgerOpened{Holding: ledger.Holding{Key: p.Key(), Amount: ledger.MustQty("0.046")}, By: "test"},
		&ledger.PlanDecided{ID: p.ID(), Proposal: p, Decision: ledger.Execute, Steps: p.Steps()},
	}
	if governor != nil {
		events = append(events, &ledger.GovernorDecided{ID: p.ID(), Verdicts: []ledger.Verdict{*governor}})
	}
	if position != nil {
		events = append(events, &ledger.PositionDecided{ID: p.ID(), Verdicts: []ledger.Verdict{*position}})
	}
	fold(t, s, now, events...)
	return s, s.Plans[p.ID()]
}

func fold(t *testing.T, s *ledger.State, at time.Time, events ...ledger.Event) {
	t.Helper()
	for _, e := range events {
		if err := s.Apply(ledger.Record{Seq: s.Control.Seq + 1, At: at, Event: e}); err != nil {
			t.Fatal(err)
		}
	}
}

func verdict(r ledger.Ruling, reason ledger.Reason) *ledger.Verdict {
	return &ledger.Verdict{
		Ruling: r, Reason: reason, Expires: now.Add(time.Minute), SafeCloseQty: ledger.MustQty("0.011"), Exchange: ledger.MustQty("0.046"), Version: 1,
	}
}

var (
	rules = apply.Rules{Config: apply.Config{Attempts: 3}, RecvWindow: 3 * time.Second, StaleAfter: 10 * time.Second}
	sight = apply.Sight{At: now, Snapshot: &ledger.Snapshot{SentAt: now}, Lot: ledger.Lot{Step: ledger.MustQty("0.001"), Min: ledger.MustQty("0.001"), Max: ledger.MustQty("120")}}
)

func TestJoin(t *testing.T) {
	yes, yesToo := verdict(ledger.Allow, ledger.WithinLimits), verdict(ledger.Allow, ledger.PositionAgrees)
	no, noToo := verdict(ledger.Deny, ledger.DailyLimit), verdict(ledger.Deny, ledger.NoPosition)
	capped := verdict(ledger.Allow, ledger.TrimmedToDailyLimit)
	capped.Capped, capped.Qty = true, ledger.MustQty("0.005")
	past := verdict(ledger.Allow, ledger.PositionAgrees)
	past.Version = 0 // of a ledger that has changed since
	cases := []struct {
		name               string
		governor, position *ledger.Verdict
		state              ledger.RunState
		after              time.Duration
		stage              ledger.Stage // "" where an order is promised
		reason             ledger.Reason
		qty                string
	}{
		{"both allow", yes, yesToo, ledger.Armed, 0, "", "", "0.011"},
		{"the cap is the smaller", capped, yesToo, ledger.Armed, 0, "", "", "0.005"},
		{"governor denies", no, yesToo, ledger.Armed, 0, ledger.StageGovernor, ledger.DailyLimit, ""},
		{"position denies", yes, noToo, ledger.Armed, 0, ledger.StagePosition, ledger.NoPosition, ""},
		{"governor is silent", nil, yesToo, ledger.Armed, 0, ledger.StageGovernor, ledger.GovernorTimeout, ""},
		{"position is silent", yes, nil, ledger.Armed, 0, ledger.StagePosition, ledger.PositionTimeout, ""},
		{"the last instant", yes, yesToo, ledger.Armed, time.Minute - 1, "", "", "0.011"},
		{"a permit has expired", yes, yesToo, ledger.Armed, time.Minute, ledger.StageExecution, ledger.PermitExpired, ""},
		{"the ledger has moved on", yes, past, ledger.Armed, 0, ledger.StageExecution, ledger.CooldownInFlight, ""},
		{"killed on the way", yes, yesToo, ledger.Killed, 0, ledger.StageExecution, ledger.RunStateForbids, ""},
		{"protective only on the way", yes, yesToo, ledger.ProtectiveOnly, 0, ledger.StageExecution, ledger.RunStateForbids, ""},
		{"disarmed on the way", yes, yesToo, ledger.Disarmed, 0, ledger.StageExecution, ledger.RunDisarmed, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, p := planned(t, c.governor, c.position)
			if c.state != ledger.Armed {
				fold(t, s, now, &ledger.RunStateChanged{From: ledger.Armed, To: c.state, Who: "test"})
			}
			at := now.Add(c.after)
			st := apply.Join(rules, s, p, sight, at)
			fold(t, s, at, st.Events...)
			step := p.Steps[0]
			if c.reason == "" {
				if len(st.Effects) != 1 || step.Grant == nil || step.Grant.Qty.String() != c.qty || st.Effects[0].Send.Qty.String() != c.qty {
					t.Fatalf("step %+v, effects %+v", step, st.Effects)
				}
				return
			}
			if len(st.Effects) != 0 || p.Stage != c.stage || p.Reason != c.reason || step.Grant != nil {
				t.Fatalf("plan %s, %d effects", p.Fate(), len(st.Effects))
			}
		})
	}
}

// TestTheFoldRefusesASecondUse: even a stage that forgot could not use a permit twice.
func TestTheFoldRefusesASecondUse(t *testing.T) {
	s, p := planned(t, verdict(ledger.Allow, ledger.WithinLimits), verdict(ledger.Allow, ledger.PositionAgrees))
	st := apply.Join(rules, s, p, sight, now)
	fold(t, s, now, st.Events...)
	for _, e := range st.Events {
		if err := s.Apply(ledger.Record{Seq: s.Control.Seq + 1, At: now, Event: e}); err == nil {
			t.Errorf("%s was folded twice", e.Kind())
		}
	}
}

// TestWhatARefusedOrderLeaves: a plan whose first order was refused ends by the grant's time, or with nothing left to close.
func TestWhatARefusedOrderLeaves(t *testing.T) {
	cases := []struct {
		name   string
		after  time.Duration
		held   string
		reason ledger.Reason
	}{
		{"the grant has run out", time.Minute, "0.046", ledger.GrantExpired},
		{"the position is flat", 10 * time.Second, "0", ledger.NothingLeft},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, p := planned(t, verdict(ledger.Allow, ledger.WithinLimits), verdict(ledger.Allow, ledger.PositionAgrees))
			fold(t, s, now, apply.Join(rules, s, p, sight, now).Events...)
			fold(t, s, now, &ledger.IntentAnswered{ClientOrderID: p.Orders()[0], State: ledger.NotPlaced})
			held := ledger.Holding{Key: p.Key(), Amount: ledger.MustQty(c.held)}
			fold(t, s, now, &ledger.LedgerAdjusted{Holding: held, From: ledger.MustQty("0.046"), Who: "test"})
			at := now.Add(c.after)
			see := sight
			see.At, see.Snapshot = at, &ledger.Snapshot{SentAt: at, Holdings: []ledger.Holding{held}}
			st, until := apply.Advance(rules, s, p, see, at)
			fold(t, s, at, st.Events...)
			if p.Outcome != ledger.Failed || p.Reason != c.reason || !until.IsZero() || len(st.Effects) != 0 {
				t.Fatalf("%s, until %v, %d effects", p.Fate(), until, len(st.Effects))
			}
		})
	}
}

// TestRestartEndsWhatHasNoOrder: and what has one is unknown, never taken for not placed.
func TestRestartEndsWhatHasNoOrder(t *testing.T) {
	s, p := planned(t, verdict(ledger.Allow, ledger.WithinLimits), nil)
	fold(t, s, now, apply.Restart(s).Events...)
	if p.Outcome != ledger.Denied || p.Reason != ledger.Restarted {
		t.Errorf("without an order: %s", p.Fate())
	}
	s, p = planned(t, verdict(ledger.Allow, ledger.WithinLimits), verdict(ledger.Allow, ledger.PositionAgrees))
	fold(t, s, now, apply.Join(rules, s, p, sight, now).Events...)
	fold(t, s, now, apply.Restart(s).Events...)
	if p.Outcome != ledger.OutcomeUnknown || s.Intents[p.Orders()[0]].State != ledger.Unknown {
		t.Errorf("with an order: %s", p.Fate())
	}
}
