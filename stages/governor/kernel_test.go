package governor_test

import (
	"testing"
	"time"

	"permitchain/ledger"
	"permitchain/stages/governor"
)

// TestDisarm: each cause moves the run state once, by its own reason, and only what happened since the operator's last word counts.
func TestDisarm(t *testing.T) {
	now := time.Date(2026, 1, 25, 0, 26, 8, 0, time.UTC)
	c := governor.Config{DisarmTo: ledger.ProtectiveOnly, DisarmErrors: 2}
	k := ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}
	foreign := ledger.HoldSet{{Reason: ledger.HoldForeignInstance, Owner: "reconcile", At: now.Add(-time.Minute)}}
	cases := []struct {
		name     string
		since    time.Time
		failures []time.Time
		holds    ledger.HoldSet
		want     ledger.Reason // "": nothing happens
	}{
		{"nothing", time.Time{}, nil, nil, ""},
		{"one failure", time.Time{}, []time.Time{now}, nil, ""},
		{"failures", time.Time{}, []time.Time{now.Add(-time.Minute), now}, nil, ledger.AttemptErrors},
		{"failures long ago", time.Time{}, []time.Time{now.Add(-11 * time.Minute), now}, nil, ""},
		{"failures before the operator's word", now.Add(-time.Second), []time.Time{now.Add(-time.Minute), now}, nil, ""},
		{"another instance", time.Time{}, nil, foreign, ledger.RunawayOrders},
		{"another instance before the operator's word", now.Add(-time.Second), nil, foreign, ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s := ledger.NewState()
			s.Control.Since, s.Control.Failures = tc.since, tc.failures
			if tc.holds != nil {
				s.Holds[k] = tc.holds
			}
			e, moved := governor.Disarm(c, s, now)
			if moved != (tc.want != "") {
				t.Fatalf("moved %v, wanted %q", moved, tc.want)
			}
			if !moved {
				return
			}
			if m := e.(*ledger.RunStateChanged); m.Reason != tc.want || m.To != ledger.ProtectiveOnly {
				t.Errorf("%+v", m)
			}
			s.Control.RunState = ledger.ProtectiveOnly
			if _, again := governor.Disarm(c, s, now); again {
				t.Error("moved to where it was")
			}
		})
	}
}
