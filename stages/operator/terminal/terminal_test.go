package terminal

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"permitchain/ledger"
	"permitchain/stages/operator"
)

func TestResultsBecomeExitCodes(t *testing.T) {
	id := ledger.PlanID("17ea8e86355b2c66")
	result := func(d ledger.Decision, r ledger.Reason, o ledger.Outcome) operator.Result {
		return operator.Result{ID: &id, Decision: d, Reason: r, Outcome: o}
	}
	executed := result(ledger.Execute, "", ledger.Executed)
	for _, c := range []struct {
		name string
		code int
		all  []operator.Result
	}{
		{"executed", 0, []operator.Result{executed, result(ledger.Execute, "", ledger.WouldExecute)}},
		{"a duplicate of what executed", 0, []operator.Result{result(ledger.Skip, ledger.DuplicatePlan, ledger.Executed)}},
		{"planned, and not waited for", 0, []operator.Result{result(ledger.Execute, "", "")}},
		{"denied", 4, []operator.Result{executed, result(ledger.Execute, "", ledger.Denied)}},
		{"partly", 4, []operator.Result{result(ledger.Execute, "", ledger.PartlyExecuted)}},
		{"still pending", 4, []operator.Result{result(ledger.Execute, "", ledger.Pending)}},
		{"skipped, and not waited for", 4, []operator.Result{result(ledger.Skip, ledger.StaleProposal, "")}},
		{"malformed", 2, []operator.Result{executed, {Decision: ledger.Errored, Reason: ledger.InvalidProposal, Error: "symbol is missing"}}},
	} {
		term := &Terminal{Out: io.Discard}
		code, failure := 0, (*operator.Failure)(nil)
		if errors.As(term.results(c.all), &failure) {
			code = failure.ExitCode()
		}
		if code != c.code {
			t.Errorf("%s: exit %d, want %d", c.name, code, c.code)
		}
	}
}

func TestTables(t *testing.T) {
	rows := [][]string{{"BTCUSDT", "denied"}, {"ETHUSDT", "executed"}}
	for _, c := range []struct {
		fancy, color bool
		want         string
	}{
		{false, false, "symbol   outcome\nBTCUSDT  denied\nETHUSDT  executed\n"},
		{true, false, "│ BTCUSDT │ denied   │"},
		{true, true, "\x1b[31mdenied\x1b[0m"},
	} {
		var out strings.Builder
		term := &Terminal{Out: &out, Fancy: c.fancy, Color: c.color}
		if err := term.table([]string{"symbol", "outcome"}, rows); err != nil || !strings.Contains(out.String(), c.want) {
			t.Errorf("fancy %v, color %v:\n%swant %q in it", c.fancy, c.color, out.String(), c.want)
		}
	}
	term := &Terminal{steps: map[string]ledger.Qty{"BTCUSDT": ledger.MustQty("0.001")}}
	q := ledger.MustQty("0.06")
	if got := term.amount("BTCUSDT", &q); got != "0.060" {
		t.Errorf("an amount of step 0.001 is shown as %s", got)
	}
}

func TestNothingIsDoneUnconfirmedOrWithoutAChain(t *testing.T) {
	dir := t.TempDir()
	term := &Terminal{Out: io.Discard, Door: Door{Stage: operator.Stage{Socket: filepath.Join(dir, "control.sock")}, Ledger: filepath.Join(dir, "ledger.db")}}
	var failure *operator.Failure
	if err := term.Status(t.Context(), false); !errors.As(err, &failure) || failure.Kind != operator.NotRunning {
		t.Errorf("status: %v", err)
	}
	term.Unconfirmed = errors.New("live")
	for name, act := range map[string]func() error{
		"kill":    func() error { return term.Move(t.Context(), "kill", operator.Order{Reason: "x"}) },
		"hold":    func() error { return term.Hold(t.Context(), operator.Order{Op: "set", Symbol: "BTCUSDT", Reason: "x"}) },
		"flatten": func() error { return term.Flatten(t.Context(), operator.Order{Reason: "x"}) },
		"submit":  func() error { return term.Submit(t.Context(), "/dev/null", true) },
	} {
		if err := act(); !errors.Is(err, term.Unconfirmed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
