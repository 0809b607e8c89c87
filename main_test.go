package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// What tests tell the program they run as a process of its own: to be it, to kill itself at its n-th crash
// point, and where to note the points it passes.
const (
	mainEnv  = "PERMITCHAIN_MAIN"
	crashAt  = "PERMITCHAIN_CRASH_AT"
	crashLog = "PERMITCHAIN_CRASH_LOG"
)

// TestMain makes the test binary the program: what tests start, signal and kill is what ships.
func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) == "1" {
		os.Exit(run(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}, hooks{point: crashPoint()}))
	}
	testscript.Main(m, map[string]func(){"permitchain": main})
}

// crashPoint is what the program does at a crash point: as the environment says, it notes it, and dies at the n-th.
func crashPoint() func(string) {
	path := os.Getenv(crashLog)
	if path == "" {
		return nil
	}
	n, _ := strconv.Atoi(os.Getenv(crashAt)) // 0 is never.
	var passed atomic.Int64
	return func(point string) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = fmt.Fprintln(f, point)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			panic(err)
		}
		if passed.Add(1) == int64(n) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // Nothing may happen after it.
		}
	}
}

// TestScripts runs the command line as its users do: testdata/script says what they type and must see.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Values[daemonKey{}] = &daemon{}
			env.Setenv("NO_COLOR", "1")
			env.Setenv("GORACE", raceExit)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "daemon": runDaemon, "proposal": writeProposal,
		},
	})
}

// raceExit keeps the race detector from making every process end a second later than it would.
const raceExit = "atexit_sleep_ms=0"

// exits runs "exits CODE COMMAND…" and wants exactly that exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("%s: exit %d, want %d", strings.Join(args[1:], " "), code, want)
	}
}

type daemonKey struct{}

// daemon is the chain that a script has running.
type daemon struct {
	cmd *exec.Cmd
	log strings.Builder // the whole of it once ended is closed
	end chan struct{}
}

// runDaemon starts a chain with "daemon ARGS…" and returns when its API listens. "daemon stop" ends it as Ctrl-C
// does, wants exit 0 within two seconds and writes daemon.log; "daemon kill" gives it no chance.
func runDaemon(ts *testscript.TestScript, _ bool, args []string) {
	d := ts.Value(daemonKey{}).(*daemon)
	switch args[0] {
	case "stop":
		begun := time.Now()
		ts.Check(d.cmd.Process.Signal(syscall.SIGINT))
		<-d.end
		if err := d.cmd.Wait(); err != nil || time.Since(begun) > 2*time.Second {
			ts.Fatalf("ended after %s with %v:\n%s", time.Since(begun), err, d.log.String())
		}
	case "kill":
		ts.Check(d.cmd.Process.Kill())
		<-d.end
		_ = d.cmd.Wait() // It was killed.
	default:
		d.start(ts, args)
		return
	}
	ts.Check(os.WriteFile(ts.MkAbs("daemon.log"), []byte(d.log.String()), 0o600))
	d.cmd = nil
}

func (d *daemon) start(ts *testscript.TestScript, args []string) {
	self, err := os.Executable()
	ts.Check(err)
	*d = daemon{cmd: exec.Command(self, append(args, "run")...), end: make(chan struct{})}
	d.cmd.Dir, d.cmd.Env = ts.MkAbs("."), append(os.Environ(), mainEnv+"=1", "GORACE="+raceExit)
	out, err := d.cmd.StderrPipe()
	ts.Check(err)
	ts.Check(d.cmd.Start())
	ts.Defer(func() {
		if d.cmd != nil {
			_ = d.cmd.Process.Kill()
		}
	})
	listens := make(chan struct{})
	go func() {
		defer close(d.end)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			d.log.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), `"socket"`) {
				close(listens)
			}
		}
	}()
	select {
	case <-listens:
	case <-d.end:
		ts.Fatalf("the chain ended:\n%s", d.log.String())
	}
}

// writeProposal makes "proposal FILE SYMBOL ACTION SCORE [SIDE]", computed now.
func writeProposal(ts *testscript.TestScript, _ bool, args []string) {
	side := append(args, "BOTH")[4]
	text := fmt.Sprintf(`{"symbol":%q,"side":%q,"action":%q,"kill_score":%s,"computed_at":%q}`+"\n",
		args[1], side, args[2], args[3], time.Now().UTC().Format("2006-01-02T15:04:05.000Z"))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

func TestNegativeAmountsAreNoFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"paper trade BTCUSDT -0.01 --side LONG", "paper trade BTCUSDT --side LONG -- -0.01"},
		{"paper trade BTCUSDT -- -0.01", "paper trade BTCUSDT -- -0.01"},
		{"plans ls -n 5", "plans ls -n 5"},
	} {
		if got := strings.Join(signedLast(strings.Fields(c.args)), " "); got != c.want {
			t.Errorf("%s became %s, want %s", c.args, got, c.want)
		}
	}
}

// The crash drill: the real binary, killed with SIGKILL at every crash point that a scenario
// passes, on a real disk. The points are enumerated by a first run that is not killed.

// crashConfig makes everything quick, and keeps the paper source and the network out.
const crashConfig = `
state_dir: %s
symbols: [BTCUSDT, ETHUSDT]
exchange: {recv_window: 100ms}
exit_brain: {enabled: false}
governor: {max_per_hour: 1, max_per_5min: 1}
reconcile: {snapshot_interval: 1s, stale_after: 3s, cooldown: 15s}
http: {listen: ""}
paper: {positions: {BTCUSDT: "0.046", ETHUSDT: "1"}}
log: {level: warn, format: json}
`

// drill is one state folder and the processes that work on it, one after the other.
type drill struct {
	t      *testing.T
	dir    string
	config string
	client *http.Client
	child  *exec.Cmd
	ended  chan struct{} // closed when child has ended
	output *bytes.Buffer // what it said
}

func newDrill(t *testing.T) *drill {
	t.Helper()
	dir, err := os.MkdirTemp("", "drill") // Not t.TempDir: the path of a socket must be short.
	if err != nil {
		t.Fatal(err)
	}
	d := &drill{t: t, dir: dir, config: filepath.Join(dir, "config.yaml")}
	if err := os.WriteFile(d.config, fmt.Appendf(nil, crashConfig, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "paper", "control.sock")
	d.client = &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	t.Cleanup(func() {
		d.kill()
		if !t.Failed() {
			os.RemoveAll(dir)
		}
	})
	return d
}

// start starts a process that kills itself at its n-th crash point; 0 is never.
func (d *drill) start(n int) {
	d.t.Helper()
	d.output = &bytes.Buffer{}
	d.child = d.command("run")
	d.child.Env = append(d.child.Env, crashAt+"="+strconv.Itoa(n), crashLog+"="+filepath.Join(d.dir, "points"))
	d.child.Stderr = d.output
	if err := d.child.Start(); err != nil {
		d.t.Fatal(err)
	}
	child, ended := d.child, make(chan struct{})
	d.ended = ended
	go func() {
		defer close(ended)
		_ = child.Wait() // How it ended shows in what it left.
	}()
}

// command is the program, as a process of its own.
func (d *drill) command(args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		d.t.Fatal(err)
	}
	c := exec.Command(self, append([]string{"-c", d.config}, args...)...)
	c.Env = append(os.Environ(), mainEnv+"=1", "GORACE="+raceExit)
	return c
}

func (d *drill) kill() {
	if d.child != nil {
		_ = d.child.Process.Kill()
		<-d.ended
	}
}

// call asks the process over its socket; it tells whether there was an answer.
func (d *drill) call(method, path, body string, into any) bool {
	req, err := http.NewRequest(method, "http://permitchain"+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	res, err := d.client.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return false
	}
	if res.StatusCode != http.StatusOK {
		d.t.Errorf("%s %s: %s: %s", method, path, res.Status, text)
		return false
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			d.t.Errorf("%s %s: %v in %s", method, path, err, text)
		}
	}
	return true
}

type (
	drillStatus struct {
		RunState    string        `json:"run_state"`
		OpenIntents int           `json:"open_intents"`
		Symbols     []drillSymbol `json:"symbols"`
		Plans       struct {
			Pending int `json:"pending"`
		} `json:"plans"`
	}
	drillSymbol struct {
		Symbol   string `json:"symbol"`
		Exchange string `json:"exchange_amt"`
		Ledger   string `json:"ledger_amt"`
		Drift    string `json:"drift"`
	}
	drillPlan struct {
		ID      string   `json:"plan_id"`
		Action  string   `json:"action"`
		Outcome string   `json:"outcome"`
		Reason  string   `json:"reason"`
		Qty     string   `json:"qty"`
		Orders  []string `json:"client_order_ids"`
	}
	drillHold struct {
		Symbol string `json:"symbol"`
		Reason string `json:"reason"`
	}
)

// ready waits until exchange and ledger agree about both positions, no order is open and no plan pending.
// It gives up when the process has ended.
func (d *drill) ready() (s drillStatus, ok bool) {
	deadline := time.After(30 * time.Second)
	for {
		s = drillStatus{}
		agreed := d.call(http.MethodGet, "/v1/status", "", &s) && len(s.Symbols) == 2 && s.OpenIntents == 0 && s.Plans.Pending == 0
		for _, x := range s.Symbols {
			agreed = agreed && x.Drift == "0"
		}
		if agreed {
			return s, true
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-d.ended:
			return s, false
		case <-deadline:
			d.t.Errorf("not ready: %+v\n%s", s, d.output)
			return s, false
		}
	}
}

// acts are the scenario: what is asked of the chain, in order. Each may be asked again after a crash.
func (d *drill) acts(computedAt time.Time) []drillAct {
	at := computedAt.UTC().Format("2006-01-02T15:04:05.000Z")
	propose := func(symbol, action string) drillAct {
		return drillAct{
			symbol + " " + action, "/v1/proposals?wait=outcome",
			fmt.Sprintf(`{"symbol":%q,"side":"BOTH","action":%q,"kill_score":0.7,"computed_at":%q}`, symbol, action, at),
		}
	}
	return []drillAct{
		propose("BTCUSDT", "PARTIAL_25"),          // executes
		propose("ETHUSDT", "FULL_CLOSE_PROPOSED"), // executes
		{"hold", "/v1/holds", `{"op":"set","symbol":"ETHUSDT","reason":"drill"}`},
		{"disarm", "/v1/disarm", `{"reason":"drill"}`},
	}
}

type drillAct struct{ name, path, body string }

// play does the acts until the process is gone; it tells which of them were answered.
func (d *drill) play(acts []drillAct) map[string]bool {
	answered := map[string]bool{}
	if _, ok := d.ready(); !ok {
		return answered
	}
	for _, a := range acts {
		if answered[a.name] = d.call(http.MethodPost, a.path, a.body, nil); !answered[a.name] {
			return answered
		}
	}
	return answered
}

// judge looks at what the last process knows, and at what the exchange did.
func (d *drill) judge(answered map[string]bool) {
	t := d.t
	s, ok := d.ready()
	if !ok {
		t.Fatalf("the process after the crash is not well: %s", d.output)
	}
	var plans []drillPlan
	var holds []drillHold
	d.call(http.MethodGet, "/v1/plans", "", &plans)
	d.call(http.MethodGet, "/v1/holds", "", &holds)
	left := map[string]string{"BTCUSDT": "0.046", "ETHUSDT": "1"}
	for _, p := range plans {
		if len(p.Orders) > 1 && p.Outcome == "executed" && !strings.HasSuffix(p.Orders[0], "-1-1") {
			t.Errorf("orders %v", p.Orders)
		}
		switch {
		case p.Outcome == "executed" && p.Action == "PARTIAL_25" && p.Qty == "0.011":
			left["BTCUSDT"] = "0.035"
		case p.Outcome == "executed" && p.Action == "FULL_CLOSE_PROPOSED" && p.Qty == "1":
			left["ETHUSDT"] = "0"
		case p.Outcome == "denied" && p.Reason == "restarted", s.RunState == "disarmed" && (p.Outcome == "would_execute" || p.Outcome == "denied"):
		default:
			t.Errorf("plan %+v", p)
		}
	}
	for _, x := range s.Symbols {
		if x.Exchange != left[x.Symbol] || x.Ledger != left[x.Symbol] {
			t.Errorf("%s: exchange %s, ledger %s; the plans say %s is left", x.Symbol, x.Exchange, x.Ledger, left[x.Symbol])
		}
	}
	if answered["hold"] && !slices.ContainsFunc(holds, func(h drillHold) bool { return h.Symbol == "ETHUSDT" && h.Reason == "operator" }) {
		t.Errorf("the hold was answered and is gone: %+v", holds)
	}
	if answered["disarm"] && s.RunState != "disarmed" {
		t.Errorf("disarmed was answered, and the state is %s", s.RunState)
	}
}

// again presents the proposals once more: what was answered before the crash is a duplicate now.
func (d *drill) again(acts []drillAct, answered map[string]bool) {
	for _, a := range acts[:2] {
		d.present(a, answered[a.name])
	}
}

func (d *drill) present(a drillAct, was bool) {
	var answer struct {
		ID       string `json:"plan_id"`
		Decision string `json:"decision"`
		Reason   string `json:"reason"`
	}
	if !d.call(http.MethodPost, a.path, a.body, &answer) {
		d.t.Errorf("%s is not answered", a.name)
	}
	if was && answer.Reason != "duplicate_plan" {
		d.t.Errorf("%s was answered before the crash and is %s %s now", a.name, answer.Decision, answer.Reason)
	}
}

// verify checks the ledger with the program itself.
func (d *drill) verify() {
	if out, err := d.command("ledger", "verify").CombinedOutput(); err != nil {
		d.t.Errorf("ledger verify: %v: %s", err, out)
	}
}

func TestKilledAtEveryCrashPoint(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	first := newDrill(t)
	first.start(0)
	acts := first.acts(time.Now())
	if answered := first.play(acts); len(answered) != len(acts) {
		t.Fatalf("without a crash only %v were answered: %s", answered, first.output)
	}
	first.judge(nil)
	first.verify()
	first.kill()
	points, err := os.ReadFile(filepath.Join(first.dir, "points"))
	if err != nil {
		t.Fatal(err)
	}
	n := strings.Count(string(points), "\n")
	if n < 40 {
		t.Fatalf("only %d crash points:\n%s", n, points)
	}
	t.Logf("%d crash points", n)
	for k := 1; k <= n; k++ {
		t.Run(strconv.Itoa(k), func(t *testing.T) {
			t.Parallel()
			d := newDrill(t)
			d.start(k)
			acts := d.acts(time.Now())
			answered := d.play(acts)
			d.kill()
			d.start(0)
			d.judge(answered)
			d.again(acts, answered)
			d.judge(answered) // What was presented again has changed nothing twice.
			d.verify()
			d.kill()
			d.verify()
		})
	}
}
