package governor

import (
	"testing"
	"time"

	"permitchain/ledger"
)

// judged is the governor's word on one proposal, with room in every limit and everything known.
func judged(mode ledger.Mode, state ledger.RunState, action ledger.Action, killScore float64, protective bool, change ...func(*Config)) ledger.Verdict {
	return judgedOn(ledger.NewState(), mode, state, action, killScore, protective, change...)
}

func judgedOn(s *ledger.State, mode ledger.Mode, state ledger.RunState, action ledger.Action, killScore float64, protective bool, change ...func(*Config)) ledger.Verdict {
	now := time.Date(2026, 1, 25, 12, 0, 0, 0, time.UTC)
	c := Config{
		KillScoreCritical: 0.8, MaxPerHour: 10, MaxPer5Min: 10, ProtectivePerHour: 10, StopsPerHour: 10, PermitTTL: time.Minute,
	}
	for _, f := range change {
		f(&c)
	}
	s.Control.RunState = state
	p := ledger.Proposal{Symbol: "BTCUSDT", Side: ledger.Both, Action: action, KillScore: killScore, ComputedAt: now, Source: ledger.FromBrain}
	plan := &ledger.Plan{
		ID: p.ID(), Proposal: p, Protective: protective, Steps: []ledger.Step{{Kind: ledger.CloseStep}},
		Basis: ledger.Basis{
			At: now, SnapshotAt: now, MarkAt: now, Exchange: ledger.MustQty("1"), Mark: ledger.MustPrice("50000"),
			Lot: ledger.Lot{Step: ledger.MustQty("0.001"), Min: ledger.MustQty("0.001")},
		},
	}
	return Decide(Rules{Config: c, Mode: mode, StaleAfter: 10 * time.Second}, s, plan, now)[0]
}

// TestACriticalScoreTrapsNoClose: whatever the kill score, and in every state in which the chain closes by itself, a
// protective close is allowed. The score is why it is proposed.
func TestACriticalScoreTrapsNoClose(t *testing.T) {
	for _, state := range []ledger.RunState{ledger.Armed, ledger.ProtectiveOnly} {
		for _, score := range []float64{0, 0.5, 0.8, 0.99, 1} {
			if v := judged(ledger.Live, state, ledger.FullClose, score, true); v.Ruling != ledger.Allow {
				t.Errorf("%s, kill score %v: %s %s", state, score, v.Ruling, v.Reason)
			}
		}
	}
	if v := judged(ledger.Live, ledger.Killed, ledger.FullClose, 1, true); v.Ruling != ledger.Deny || v.Reason != ledger.KillSwitchActive {
		t.Errorf("killed: %s %s", v.Ruling, v.Reason)
	}
}

// TestOnlyNamedModesApproveThemselves: a limit that denies is only passed over in a mode that auto_approve names.
func TestOnlyNamedModesApproveThemselves(t *testing.T) {
	paperOnly := func(c *Config) { c.AutoApprove, c.DailyNotional = []ledger.Mode{ledger.Paper}, ledger.MustUSD("5") }
	for mode, ruling := range map[ledger.Mode]ledger.Ruling{
		ledger.Paper: ledger.Allow, ledger.Testnet: ledger.Deny, ledger.DryRun: ledger.Deny, ledger.Live: ledger.Deny,
	} {
		if v := judged(mode, ledger.Armed, ledger.Partial75, 0.5, false, paperOnly); v.Ruling != ruling {
			t.Errorf("%s: %s %s", mode, v.Ruling, v.Reason)
		}
	}
}

// TestWhatIsReservedIsUsed: a plan that was allowed and has not executed yet leaves its slot and its dollars to nobody else.
func TestWhatIsReservedIsUsed(t *testing.T) {
	now := time.Date(2026, 1, 25, 12, 0, 0, 0, time.UTC)
	for name, change := range map[string]func(*Config){
		"slot": func(c *Config) { c.MaxPerHour = 1 },
		"usd":  func(c *Config) { c.DailyNotional = ledger.MustUSD("50000") },
	} {
		s := ledger.NewState()
		s.Usage["BTCUSDT"] = &ledger.Usage{Symbol: "BTCUSDT", Uses: []ledger.Use{{Plan: "x", Budget: ledger.Normal, At: now.Add(-time.Second), Notional: ledger.MustUSD("49999")}}}
		if v := judgedOn(s, ledger.Live, ledger.Armed, ledger.Partial75, 0.5, false, change); v.Ruling != ledger.Deny {
			t.Errorf("%s: %s %s", name, v.Ruling, v.Reason)
		}
		if v := judged(ledger.Live, ledger.Armed, ledger.Partial75, 0.5, false, change); v.Ruling != ledger.Allow {
			t.Errorf("%s, with nothing reserved: %s %s", name, v.Ruling, v.Reason)
		}
	}
}
