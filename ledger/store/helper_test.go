package store

import (
	"context"
	"os"
	"testing"
	"time"

	"permitchain/ledger"
	"permitchain/pipeline"
)

var testOptions = Options{Mode: ledger.Paper, Host: "paper", Account: "book"}

// began is when the tests' events begin; every event names its instants relative to it.
var began = time.Date(2026, 1, 25, 0, 26, 8, 0, time.UTC)

var btc = ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}

// running is a store with its Run; end stops it once and returns what Run returned.
type running struct {
	*Store
	end func() error
}

// start opens a ledger and runs it. However the test ends, the file is verified afterwards.
func start(t testing.TB, path string, o Options) *running {
	t.Helper()
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, s)
}

func run(t testing.TB, s *Store) *running {
	soft, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- s.Run(pipeline.Stop{Soft: soft, Hard: context.Background()}) }()
	r := &running{Store: s}
	stopped := false
	r.end = func() error {
		if stopped {
			return nil
		}
		stopped = true
		close(soft)
		return <-ended
	}
	t.Cleanup(func() {
		_ = r.end() // Tests that care have looked at it.
		fsck(t, s.path)
	})
	return r
}

func fsck(t testing.TB, path string) Report {
	t.Helper()
	report, err := Verify(path)
	if err != nil {
		t.Errorf("fsck: %v", err)
	}
	return report
}

func (r *running) must(t testing.TB, events ...ledger.Event) {
	t.Helper()
	if err := r.append(events...); err != nil {
		t.Fatal(err)
	}
}

func (r *running) append(events ...ledger.Event) error {
	c, err := r.Decide(context.Background(), func(*ledger.State, time.Time) []ledger.Event { return events })
	if err != nil {
		return err
	}
	return c.Wait(context.Background())
}

// opened is the first event of a test's ledger.
func opened() ledger.Event {
	return &ledger.LedgerOpened{Holding: ledger.Holding{Key: btc, Amount: ledger.MustQty("1000"), Entry: ledger.MustPrice("50000")}, By: "test"}
}

// close25 are the decisions of the n-th closed plan of a ledger, counted from 1, in the transactions a chain would use.
func close25(n int) [][]ledger.Event {
	p := ledger.Proposal{
		Symbol: btc.Symbol, Side: btc.Side, Action: ledger.FullClose, KillScore: 0.5,
		ComputedAt: began.Add(time.Duration(n) * time.Millisecond), Source: ledger.FromBrain, KComponents: map[string]float64{"z": 0.25, "a": 1},
	}
	id, far := p.ID(), time.Now().Add(1000*time.Hour)
	order := ledger.ClientOrderID(id, 1, 1)
	return [][]ledger.Event{
		{&ledger.PlanDecided{ID: id, Proposal: p, Decision: ledger.Execute, Steps: p.Steps()}},
		{&ledger.GovernorDecided{ID: id, Verdicts: []ledger.Verdict{{
			Ruling: ledger.Allow, Reason: ledger.WithinLimits, Expires: far,
			Budget: ledger.Normal, Notional: ledger.MustUSD("5"), Context: ledger.Facts{{Name: "used", Value: "1"}},
		}}}},
		{&ledger.PositionDecided{ID: id, Verdicts: []ledger.Verdict{{
			Ruling: ledger.Allow, Reason: ledger.PositionAgrees, Expires: far,
			SafeCloseQty: ledger.MustQty("0.001"), Exchange: ledger.MustQty("1000"), Version: uint64(n),
		}}}},
		{&ledger.StepGranted{ID: id, Qty: ledger.MustQty("0.001"), Expires: far}, &ledger.IntentOpened{Intent: ledger.Intent{
			ClientOrderID: order, Plan: id, Attempt: 1, Key: btc, Kind: ledger.CloseStep, Direction: ledger.Sell,
			Qty: ledger.MustQty("0.001"), Exchange: ledger.MustQty("1000"), SendBefore: far, Fence: far.Add(time.Second),
		}}},
		{
			&ledger.IntentAnswered{ClientOrderID: order, State: ledger.Placed, OrderID: int64(n), Status: "FILLED", Executed: ledger.MustQty("0.001")},
			&ledger.FillBooked{Trade: ledger.Trade{
				Key: btc, ID: int64(n), OrderID: int64(n), ClientOrderID: order, Direction: ledger.Sell,
				Qty: ledger.MustQty("0.001"), Price: ledger.MustPrice("50000.1"), At: began,
			}},
			&ledger.LedgerReconciled{Key: btc, Cursor: int64(n)},
			&ledger.StepEnded{ID: id, Outcome: ledger.Executed}, &ledger.PlanEnded{ID: id, Outcome: ledger.Executed},
		},
	}
}

// fill makes a ledger of n closed plans at path, and leaves it cleanly ended or not.
func fill(t testing.TB, path string, n int, clean bool) {
	t.Helper()
	s, err := Open(path, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	soft, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- s.Run(pipeline.Stop{Soft: soft}) }()
	r := &running{Store: s}
	r.must(t, &ledger.Started{Instance: 1, Version: "test", Mode: ledger.Paper}, opened(),
		&ledger.HoldPut{Key: ledger.Key{Symbol: "ETHUSDT"}, Reason: ledger.HoldOperator, Owner: "test", Evidence: "because"})
	for i := range n {
		for _, events := range close25(i + 1) {
			r.must(t, events...)
		}
	}
	if !clean {
		data := read(t, path)
		defer func() { replace(t, path, data) }()
	}
	close(soft)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func replace(t testing.TB, path string, data []byte) {
	t.Helper()
	_ = os.Remove(path) // A new file is not flushed when it is closed; an emptied one is, by ext4.
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func hashOf(t testing.TB, r *running) (sum digest) {
	t.Helper()
	if err := r.View(t.Context(), func(s *ledger.State, _ time.Time) { sum = stateHash(s) }); err != nil {
		t.Fatal(err)
	}
	return sum
}
