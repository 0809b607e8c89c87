package terminal

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

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
		code, failure := 0, (*operator.Failure)(nil)
		if errors.As(judge(c.all), &failure) {
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
		width int
		color bool
		want  string
	}{
		{0, false, "symbol   outcome\nBTCUSDT  denied\nETHUSDT  executed\n"},
		{40, false, "symbol   outcome\nBTCUSDT  denied\nETHUSDT  executed\n"},
		{40, true, "BTCUSDT  \x1b[31mdenied\x1b[0m\n"},
	} {
		var out strings.Builder
		term := &Terminal{Out: &out, Width: c.width, Color: c.color}
		if err := term.table(columns{names: []string{"symbol", "outcome"}}, rows); err != nil || !strings.Contains(out.String(), c.want) {
			t.Errorf("width %v, color %v:\n%swant %q in it", c.width, c.color, out.String(), c.want)
		}
	}
	term := &Terminal{markets: map[string]operator.MarketView{"BTCUSDT": {Step: ledger.MustQty("0.001"), Tick: ledger.MustPrice("0.1")}}}
	q := ledger.MustQty("0.06")
	if got := term.amount("BTCUSDT", &q); got != "0.060" {
		t.Errorf("an amount of step 0.001 is shown as %s", got)
	}
	for _, c := range []struct{ symbol, price, want string }{
		{"BTCUSDT", "61234.56789123", "61234.568"}, {"BTCUSDT", "61234.5", "61234.5"}, {"BTCUSDT", "0", "-"}, {"NEW", "0.1234567891", "0.12345679"},
	} {
		if got := term.price(c.symbol, ledger.MustPrice(c.price)); got != c.want {
			t.Errorf("price %s of %s is shown as %s, want %s", c.price, c.symbol, got, c.want)
		}
	}
}

// A table is never wider than its terminal: first columns go, then texts are folded.
func TestTablesFitTheTerminal(t *testing.T) {
	term := &Terminal{}
	plans, at := [][]string{}, time.Date(2026, 1, 25, 0, 26, 8, 0, time.UTC)
	for _, p := range []operator.PlanView{
		{ID: "17ea8e86355b2c66", DecidedAt: at, Symbol: "BTCUSDT", Side: ledger.Both, Action: ledger.FullClose, Outcome: ledger.WouldExecute, Decision: ledger.Execute, Reason: ledger.QtyMismatch, Stage: ledger.StageExecution},
		{ID: "27ea8e86355b2c66", DecidedAt: at, Symbol: "BTCUSDT", Side: ledger.Both, Action: ledger.UpdateSL, Outcome: ledger.Executed, Decision: ledger.Execute},
	} {
		plans = append(plans, term.planRow(p))
	}
	if qty, avg := plans[1][10], plans[1][11]; qty != unknownCell || avg != unknownCell {
		t.Errorf("a stop plan shows qty %s and avg price %s", qty, avg)
	}
	holds := [][]string{{"BTCUSDT", "-", "qty_mismatch_no_evidence", "reconcile", "01-25 00:26:08", "exchange 0.046, ledger 0.002", strings.Repeat("what clears it, in many words ", 4)}}
	holdColumns := columns{[]string{"symbol", "side", "reason", "owner", "since", "evidence", "what clears it"}, []string{"owner", "side", "since"}}
	for _, c := range []struct {
		name    string
		columns columns
		rows    [][]string
		width   int
		without string   // of columns
		words   []string // that must be there whole
	}{
		{"plans in full", planColumns, plans, 200, "", []string{"duplicates", "avg price", "FULL_CLOSE_PROPOSED"}},
		{"plans", planColumns, plans, 120, "duplicates,avg price,kill score", []string{"01-25 00:26:08", "17ea8e86", "FULL_CLOSE_PROPOSED", "would_execute", string(ledger.QtyMismatch)}},
		{"plans", planColumns, plans, 80, "duplicates,avg price,kill score,decision", []string{"17ea8e86", "BTCUSDT", "reason", "outcome"}},
		{"plans", planColumns, plans, 30, "", nil},
		{"holds", holdColumns, holds, 160, "", []string{"owner", "reconcile", "qty_mismatch_no_evidence", "evidence"}},
		{"holds", holdColumns, holds, 80, "owner", []string{"qty_mismatch_no_evidence", "evidence"}},
	} {
		var out strings.Builder
		term := &Terminal{Out: &out, Width: c.width}
		if err := term.table(c.columns, c.rows); err != nil {
			t.Fatal(err)
		}
		text := out.String()
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > c.width {
				t.Errorf("%s at %d: a line of %d:\n%s", c.name, c.width, n, text)
				break
			}
		}
		for _, w := range strings.Split(c.without, ",") {
			if w != "" && strings.Contains(text, w) {
				t.Errorf("%s at %d: column %s should not be there:\n%s", c.name, c.width, w, text)
			}
		}
		for _, w := range c.words {
			if !strings.Contains(text, w) {
				t.Errorf("%s at %d: %s is missing:\n%s", c.name, c.width, w, text)
			}
		}
	}
}

// fakeChain answers on a socket.
func fakeChain(t *testing.T, h http.Handler) Door {
	t.Helper()
	dir, err := os.MkdirTemp("", "chain") // Not t.TempDir: the path of a socket must be short.
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "control.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); os.RemoveAll(dir) })
	return Door{Stage: operator.Stage{Socket: socket}, Ledger: filepath.Join(dir, "ledger.db")}
}

// resetConn can be written to, and then the other side resets it.
type resetConn struct{ net.Conn }

func (resetConn) Read([]byte) (int, error) {
	return 0, &net.OpError{Op: "read", Net: "unix", Err: syscall.ECONNRESET}
}

func TestReloadAndBrain(t *testing.T) {
	var out strings.Builder
	answers := map[string]string{
		"GET /v1/markets": "{}", "POST /v1/config/reload": `{"result":"2 parameters changed"}`,
		"GET /v1/why": `[{"subject":"BTCUSDT","lines":["no plan lately"],"brain":["trend 0.7","  of three"]}]`,
	}
	term := &Terminal{Out: &out, Door: fakeChain(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, answers[r.Method+" "+r.URL.Path])
	}))}
	if err := errors.Join(term.Reload(t.Context()), term.Why(t.Context(), "BTCUSDT")); err != nil {
		t.Fatal(err)
	}
	if want := "2 parameters changed\nBTCUSDT\n  - no plan lately\n  trend 0.7\n    of three\n"; out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
	term.Unconfirmed = errors.New("live")
	if err := term.Reload(t.Context()); !errors.Is(err, term.Unconfirmed) {
		t.Errorf("unconfirmed: %v", err)
	}
}

// A plan's story fits a terminal of 100 columns, and loses none of its numbers there.
func TestToldFits(t *testing.T) {
	told := operator.Told{
		Gates: []operator.Gate{
			{Stage: ledger.StagePlan, Name: "age", Value: "555ms", Bound: "at most 30s", Passed: true, Reached: true},
			{Step: 1, Stage: ledger.StageGovernor, Name: "9 portfolio_daily_notional", Value: "12345.00 used + 2001.08", Bound: "at most 100000", Passed: true, Reached: true},
			{Step: 1, Stage: ledger.StagePosition, Name: "4 difference", Value: "0.044 (ledger 0.002)", Bound: "at most 0.001", Reached: true, Reason: ledger.QtyMismatch},
			{Step: 1, Stage: ledger.StagePosition, Name: "5 holds", Value: "qty_mismatch_no_evidence,foreign_instance", Bound: "none", Reason: ledger.HoldActive},
			{Step: 1, Stage: ledger.StagePosition, Name: "7 quantity", Value: "0.023", Bound: "at least 0.001", Passed: true},
		},
		Nearest: []operator.Flip{
			{Step: 1, Stage: ledger.StagePosition, Gate: ledger.QtyMismatch, Change: "ledger_amt 0.046 (0.002): permitchain ledger sync BTCUSDT --reason …"},
			{Step: 1, Stage: ledger.StagePosition, Gate: ledger.QtyMismatch, Change: "tolerance ≥ 0.044 (0.001): reconcile.tolerance_pct 95.66 (1) and reconcile.tolerance_usd 3828.15 (100)", Still: "governor denies hourly_limit_exceeded"},
		},
		Records: []operator.Moment{{Seq: 144, Text: "promised pc-c3e628363336763a-1-1: close SELL 0.017 of 0.035, ledger 0.035, not signed after 16:13:07.028, fence 16:13:11.028"}},
	}
	body, err := json.Marshal([]operator.Explanation{{Subject: "plan c3e6", Lines: []string{"outcome: " + strings.Repeat("denied by position 4, ", 9)}, Told: &told}})
	if err != nil {
		t.Fatal(err)
	}
	show := func(width int) string {
		var out strings.Builder
		term := &Terminal{Out: &out, Width: width, Door: fakeChain(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/markets" {
				body = []byte("{}")
			}
			_, _ = w.Write(body)
		}))}
		was := body
		if err := term.Why(t.Context(), "c3e6"); err != nil {
			t.Fatal(err)
		}
		body = was
		return out.String()
	}
	text := show(100)
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 || strings.HasSuffix(line, " \n") {
			t.Errorf("a line of %d: %q", n, line)
		}
	}
	words := strings.Join(strings.Fields(text), " ")
	for _, want := range []string{
		"4 difference 0.044 (ledger 0.002)", "denied", "would deny", "unreached", "12345.00 used + 2001.08", "it would have passed position (reconcile_required_qty_mismatch) with any of",
		"- tolerance ≥ 0.044 (0.001): reconcile.tolerance_pct 95.66 (1) and reconcile.tolerance_usd 3828.15 (100) (governor denies hourly_limit_exceeded all the same)", "fence 16:13:11.028",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("%q is missing:\n%s", want, text)
		}
	}
	if wide := show(0); !strings.Contains(strings.Join(strings.Fields(wide), " "), "4 difference 0.044 (ledger 0.002) at most 0.001 denied") || !strings.Contains(wide, "    - tolerance ≥ 0.044 (0.001): reconcile.tolerance_pct 95.66 (1) and") {
		t.Errorf("for a program:\n%s", wide)
	}
}

// A chain that was reached and does not answer may have executed what it was sent: that is not "no chain is running".
func TestAConnectionThatEndsBeforeTheAnswer(t *testing.T) {
	proposal := filepath.Join(t.TempDir(), "p.json")
	line := `{"symbol":"BTCUSDT","side":"BOTH","action":"PARTIAL_25","kill_score":0.54,"computed_at":"2026-01-25T00:26:08.000Z"}`
	if err := os.WriteFile(proposal, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]http.HandlerFunc{
		"before": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"within": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.WriteHeader(http.StatusOK)
		},
	} {
		term := &Terminal{Out: io.Discard, Door: fakeChain(t, end)}
		err := term.Submit(t.Context(), proposal, true)
		if failure := (*operator.Failure)(nil); err == nil || errors.As(err, &failure) {
			t.Errorf("%s the answer: %v", name, err)
		} else if !strings.Contains(err.Error(), "plan_id 17ea8e86355b2c66: permitchain plans show 17ea8e86355b2c66 tells what became of it: the connection ended before the answer") {
			t.Errorf("%s the answer: %v", name, err)
		}
		if err := term.Move(t.Context(), "kill", operator.Order{Reason: "x"}); !errors.Is(err, errCut) || !strings.Contains(err.Error(), "may have been done") {
			t.Errorf("%s the answer to kill: %v", name, err)
		}
	}
	reset := &Client{http: &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		return resetConn{ours}, nil
	}}}}
	if _, err := reset.Do(t.Context(), http.MethodPost, "/v1/kill", nil); !errors.Is(err, errCut) {
		t.Errorf("reset: %v", err)
	}
	var failure *operator.Failure
	client := &Client{http: &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(t.TempDir(), "none"))
	}}}}
	if _, err := client.Do(t.Context(), http.MethodGet, "/v1/status", nil); !errors.As(err, &failure) || failure.Kind != operator.NotRunning {
		t.Errorf("no chain there: %v", err)
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

// Who asks the wrong mode is told of the chain that was likely meant.
func TestAChainOfAnotherModeIsNamed(t *testing.T) {
	dir := t.TempDir()
	door := Door{Stage: operator.Stage{Mode: ledger.Paper, Socket: filepath.Join(dir, "paper", "s")}, Ledger: filepath.Join(dir, "paper", "l")}
	listen := func(mode string) {
		if err := os.MkdirAll(filepath.Join(dir, mode), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", filepath.Join(dir, mode, "s"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	if said := door.elsewhere(); said != "" {
		t.Errorf("nothing runs: %q", said)
	}
	listen("testnet")
	for _, need := range []Need{Chain, ToRead} {
		_, err := door.Open(t.Context(), need)
		if failure := (*operator.Failure)(nil); !errors.As(err, &failure) || failure.Kind != operator.NotRunning || !strings.HasSuffix(failure.Text, "; a chain runs in mode testnet: --mode testnet") {
			t.Errorf("need %d: %v", need, err)
		}
	}
	listen("paper")
	if said := door.elsewhere(); said != "" {
		t.Errorf("the one asked runs: %q", said)
	}
}

// TestStopCell: a stop for another quantity than the position's says so, also while it protects all there is.
func TestStopCell(t *testing.T) {
	amount := ledger.MustQty("-0.056")
	stop := func(q string) *ledger.Stop {
		return &ledger.Stop{Trigger: ledger.MustPrice("60000"), Qty: ledger.MustQty(q)}
	}
	at := operator.PositionStatus{Ledger: &amount}
	for want, p := range map[string]operator.Position{
		unknownCell:       {PositionStatus: at},
		"60000":           {PositionStatus: at, Stop: stop("0.056")},
		"60000 for 0.046": {PositionStatus: at, Stop: stop("0.046")},
		"MISSING for 7s":  {PositionStatus: at, Unprotected: true, UnprotectedS: 7},
		"60000 for 0.046, the rest MISSING for 7s": {PositionStatus: at, Stop: stop("0.046"), Unprotected: true, UnprotectedS: 7},
	} {
		if got := stopCell(p); got != want {
			t.Errorf("%q, wanted %q", got, want)
		}
	}
}
