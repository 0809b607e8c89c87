package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"permitchain/exchange/sandbox"
	"permitchain/ledger"
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

// TestEndToEnd is make e2e: a script that a sceptic can read, on the program as it was built for the tests.
func TestEndToEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("there is no bash")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(".ci/e2e.sh")
	c.Env = append(os.Environ(), mainEnv+"=1", "GORACE="+raceExit, "PERMITCHAIN="+self)
	out, err := c.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("\nPROVED in ")) {
		t.Errorf("%v:\n%s", err, out)
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() != 1 {
		t.Errorf("the script itself failed: %d", exit.ExitCode())
	}
}

// TestTheSandboxSaysWhatToType takes it at its word: what it says to export and to run trades on it. A key that was given is not repeated.
func TestTheSandboxSaysWhatToType(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	serve := func(args ...string) (said string, end func()) {
		var out bytes.Buffer
		c := exec.Command(self, append([]string{"sandbox", "--listen", "127.0.0.1:0"}, args...)...)
		c.Env = append(os.Environ(), mainEnv+"=1", "GORACE="+raceExit)
		pipe, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(pipe); !strings.Contains(out.String(), "/sandbox/log") && lines.Scan(); {
			fmt.Fprintln(&out, lines.Text())
		}
		return out.String(), func() {
			_ = c.Process.Signal(os.Interrupt)
			if err := c.Wait(); err != nil {
				t.Errorf("the sandbox ended with %v", err)
			}
		}
	}
	said, end := serve("--position", "BTCUSDT=-0.5", "--seed", "7")
	if !strings.Contains(said, "holds: BTCUSDT -0.5\n") {
		t.Errorf("it says:\n%s", said)
	}
	doctor := exec.Command(self)
	doctor.Dir, doctor.Env = dir, append(os.Environ(), mainEnv+"=1", "GORACE="+raceExit)
	for _, line := range strings.Split(said, "\n") {
		words := strings.Fields(line)
		if len(words) == 2 && words[0] == "export" {
			doctor.Env = append(doctor.Env, words[1])
		}
		if len(words) > 2 && words[0] == "permitchain" && words[1] == "run" {
			doctor.Args = append([]string{self, "doctor"}, words[2:]...)
		}
	}
	out, err := doctor.CombinedOutput()
	if !bytes.Contains(out, []byte("BTCUSDT -0.5")) || !bytes.Contains(out, []byte("ok    market stream")) {
		t.Errorf("what it says to type is answered with %v:\n%s", err, out)
	}
	end()
	said, end = serve("--key", plantedKey, "--secret", plantedSecret)
	if found := leaks(map[string][]byte{"x": []byte(said)}, map[string]string{"key": plantedKey, "secret": plantedSecret}); len(found) > 0 {
		t.Errorf("a key that was given is repeated: %v", found)
	}
	end()
}

// TestMutantsAreCurrent: each planted bug of testdata/mutants still applies to this tree, says which promise it breaks, and names
// tests that there are. That they find it shows make mutants.
func TestMutantsAreCurrent(t *testing.T) {
	patches, err := filepath.Glob("testdata/mutants/*.patch")
	if err != nil || len(patches) < 20 {
		t.Fatalf("%d planted bugs (%v)", len(patches), err)
	}
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("no git: whether the patches apply is not looked at")
	}
	header := regexp.MustCompile(`\AWhat: .+\nPromise: .+\nTier: (unit|chain|B|A)\nTest: (.+)\n\n--- a/`)
	names := regexp.MustCompile(`\bTest[A-Z]\w*`)
	tests := testNames(t)
	numbers := map[string]string{}
	for _, patch := range patches {
		text, err := os.ReadFile(patch)
		if err != nil {
			t.Fatal(err)
		}
		m := header.FindStringSubmatch(string(text))
		if m == nil {
			t.Errorf("%s does not begin with What, Promise, Tier and Test", patch)
			continue
		}
		number, _, _ := strings.Cut(filepath.Base(patch), "-")
		if numbers[number] != "" {
			t.Errorf("%s has the number of %s", patch, numbers[number])
		}
		numbers[number] = patch
		for _, name := range names.FindAllString(m[2], -1) {
			if !tests[name] {
				t.Errorf("%s: there is no test %s", patch, name)
			}
		}
		if said, err := exec.Command(git, "apply", "--check", patch).CombinedOutput(); err != nil {
			t.Errorf("%s does not apply: %s", patch, said)
		}
	}
}

// testNames are all tests of the project.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	decl := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(".", func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range decl.FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// The planted credentials. They open nothing but the test's own sandbox.
const (
	plantedKey    = "Zk7QpXw2LrB9VnTe4HsJ6mDyUcA8gFiN1oRb3KvWtPq5ExMzYhSd0GjCuLaI7f9a"
	plantedSecret = "q8WnE3rTz6UiO1pLk4JhGf7DsAyX0cVbN2mQwReTtZuIo5PaSdFgHjKlY9xCvBn3"
)

// session is the real binary at work on a sandbox, and everything that came out of it.
type session struct {
	t       *testing.T
	dir     string
	sandbox *sandbox.Sandbox
	rest    string

	mu       sync.Mutex // guards what the sandbox's door adds
	secrets  map[string]string
	output   map[string][]byte // what was said, by who said it
	requests int
}

// newSession starts a sandbox whose door notes every signature and listen key that passes: they are credentials, too.
func newSession(t *testing.T) *session {
	dir, err := os.MkdirTemp("", "secret") // Not t.TempDir: the path of a socket must be short.
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, dir: dir, secrets: map[string]string{"the key": plantedKey, "the secret": plantedSecret}, output: map[string][]byte{}}
	s.sandbox = sandbox.New(sandbox.Options{
		Seed: 1, Symbols: []string{"BTCUSDT"}, Key: plantedKey, Secret: plantedSecret,
		Positions: map[ledger.Key]ledger.Qty{{Symbol: "BTCUSDT", Side: ledger.Both}: ledger.MustQty("0.046")},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); _ = s.sandbox.Run(ctx) }()
	inner := s.sandbox.Handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.note(r)
		inner.ServeHTTP(w, r)
	}))
	s.rest = server.URL
	t.Cleanup(func() {
		cancel()
		server.CloseClientConnections()
		server.Close()
		<-ran
		if !t.Failed() {
			os.RemoveAll(dir)
		}
	})
	s.write("c.yaml", fmt.Sprintf("mode: testnet\nstate_dir: %s\nsymbols: [BTCUSDT]\nexchange: {rest_url: %q, stream_url: %q, recv_window: 300ms, timeout: 1s}\n"+
		"exit_brain: {enabled: false}\nreconcile: {snapshot_interval: 1s, stale_after: 5s, cooldown: 1s}\nhttp: {listen: \"\"}\nlog: {level: debug, format: json}\n",
		dir, server.URL, strings.Replace(server.URL, "http", "ws", 1)))
	return s
}

func (s *session) note(r *http.Request) {
	q := r.URL.Query()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	for _, name := range []string{"signature", "listenKey"} {
		if v := q.Get(name); v != "" {
			s.secrets[fmt.Sprintf("%s %d", name, len(s.secrets))] = v
		}
	}
}

func (s *session) arm(f sandbox.Fault) {
	s.t.Helper()
	if err := s.sandbox.Arm(f); err != nil {
		s.t.Fatal(err)
	}
}

func (s *session) write(name, text string) string {
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// command is the program with the planted credentials in its environment; env comes after them.
func (s *session) command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	c := exec.CommandContext(ctx, self, args...)
	c.Dir = s.dir
	c.Env = append(os.Environ(), mainEnv+"=1", "GORACE="+raceExit, "BINANCE_API_KEY="+plantedKey, "BINANCE_API_SECRET="+plantedSecret)
	c.Env = append(c.Env, env...)
	return c
}

// say runs a command, wants its exit code (-1: any), and keeps what it said.
func (s *session) say(code int, env []string, args ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // Nothing that is asked for here lasts.
	defer cancel()
	c := s.command(ctx, env, args...)
	out, err := c.CombinedOutput()
	if code >= 0 && c.ProcessState.ExitCode() != code {
		s.t.Errorf("%v: exit %d, want %d (%v):\n%s", args, c.ProcessState.ExitCode(), code, err, out)
	}
	if len(out) == 0 {
		s.t.Errorf("%v says nothing", args)
	}
	s.output[fmt.Sprint(len(s.output), " ", args, env)] = out
}

// run starts the chain, lets do work on it, and ends it with a signal; what it logged is kept.
func (s *session) run(end os.Signal, do func(client *http.Client)) {
	s.t.Helper()
	var log bytes.Buffer
	c := s.command(s.t.Context(), nil, "-c", "c.yaml", "run")
	c.Stdout, c.Stderr = &log, &log
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	client := &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.dir, "testnet", "control.sock"))
	}}}
	s.await(client, `"drift":"0"`)
	do(client)
	if err := c.Process.Signal(end); err != nil {
		s.t.Fatal(err)
	}
	_ = c.Wait() // A SIGQUIT is no clean end, and shall not be.
	s.output["the log of the chain that ended with "+end.String()] = log.Bytes()
}

// await asks for the status until it holds a text.
func (s *session) await(client *http.Client, text string) {
	s.t.Helper()
	for deadline := time.After(30 * time.Second); ; {
		if got := s.ask(client, http.MethodGet, "/v1/status", ""); strings.Contains(got, text) {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			s.t.Fatalf("the status never showed %s", text)
		}
	}
}

// ask calls the API, and keeps the answer.
func (s *session) ask(client *http.Client, method, path, body string) string {
	r, err := http.NewRequest(method, "http://permitchain"+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	res, err := client.Do(r)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	out, _ := io.ReadAll(res.Body) // A stream ends by the client's time limit; what came is what counts.
	s.output[method+" "+path] = append(append(s.output[method+" "+path], fmt.Sprint(res.Header)...), out...)
	return string(out)
}

func (s *session) propose(client *http.Client, action string) string {
	return s.ask(client, http.MethodPost, "/v1/proposals?wait=outcome", fmt.Sprintf(`{"symbol":"BTCUSDT","side":"BOTH","action":%q,"kill_score":0.7,"computed_at":%q}`,
		action, time.Now().UTC().Format("2006-01-02T15:04:05.000Z")))
}

// files keeps the bytes of all that the program wrote.
func (s *session) files() {
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), "planted") {
			return err
		}
		text, err := os.ReadFile(path)
		s.output["the file "+d.Name()] = text
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// partMax is more of a credential than may be anywhere; its last four characters name an account.
const partMax = 10

// leaks finds credentials, and parts of them, in outputs: as they are, and as other forms would have them.
func leaks(outputs map[string][]byte, secrets map[string]string) (found []string) {
	for what, secret := range secrets {
		forms := []string{
			strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)), "="), hex.EncodeToString([]byte(secret)), url.QueryEscape(secret), strings.ToLower(secret),
			strings.Trim(fmt.Sprint([]byte(secret)), "[]"),
		}
		for at := 0; at+partMax <= len(secret); at++ {
			forms = append(forms, secret[at:at+partMax])
		}
		for where, text := range outputs {
			for _, form := range forms {
				if bytes.Contains(text, []byte(form)) {
					found = append(found, fmt.Sprintf("%s is in %s, as %.12s…", what, where, form))
					break
				}
			}
		}
	}
	return found
}

// TestCredentialsAreNeverShown runs a whole session, with everything going wrong that can, and looks for what must not be shown.
func TestCredentialsAreNeverShown(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	s := newSession(t)
	s.refusals()
	s.run(os.Interrupt, func(client *http.Client) {
		for _, kind := range []sandbox.Kind{sandbox.Closed, sandbox.Unknown503, sandbox.Code1007, sandbox.Redirect, sandbox.Truncated, sandbox.BadGateway, sandbox.TooMany, sandbox.WSDrop, sandbox.WSExpired, sandbox.WSUnknown} {
			s.arm(sandbox.Fault{Kind: kind, Times: 2})
		}
		for _, call := range []string{"POST /fapi/v1/order", "GET /fapi/v1/order", "GET /fapi/v3/positionRisk", "GET /fapi/v1/userTrades", "POST /fapi/v1/listenKey"} {
			s.arm(sandbox.Fault{Kind: sandbox.Closed, Call: call, Times: 2})
		}
		s.propose(client, "PARTIAL_25")
		s.await(client, `"open_intents":0`)
		s.sandbox.Disarm()
		for tries := 0; tries < 30 && !strings.Contains(s.propose(client, "PARTIAL_50"), `"outcome":"executed"`); tries++ {
			<-time.After(time.Second)
		}
		s.ask(client, http.MethodPost, "/v1/ledger/sync", `{"symbol":"BTCUSDT","reason":"test"}`)
		for _, path := range []string{
			"status", "plans", "positions", "orders", "limits", "holds", "why", "ledger", "ledger/history", "ledger/export", "markets", "config",
		} {
			if got := s.ask(client, http.MethodGet, "/v1/"+path, ""); len(got) < 2 {
				t.Errorf("%s answers %q", path, got)
			}
		}
		quick := *client
		quick.Timeout = 2 * time.Second
		s.ask(&quick, http.MethodGet, "/v1/events?from=0", "")
		s.say(0, nil, "-c", "c.yaml", "config", "show")
		s.say(0, nil, "-c", "c.yaml", "ledger", "export")
		s.say(-1, nil, "-c", "c.yaml", "doctor") // It may find the disk slow.
	})
	s.run(syscall.SIGQUIT, func(client *http.Client) { s.ask(client, http.MethodGet, "/healthz", "") }) // Every goroutine's stack is printed.
	for _, args := range []string{"status", "why", "plans ls", "orders ls", "ledger history", "ledger verify", "ledger export", "config check"} {
		s.say(0, []string{"BINANCE_API_KEY=", "BINANCE_API_SECRET="}, append([]string{"-c", "c.yaml"}, strings.Fields(args)...)...)
	}
	s.files()
	s.judge()
}

// refusals are all the ways to do it wrong.
func (s *session) refusals() {
	none := []string{"BINANCE_API_KEY=", "BINANCE_API_SECRET="}
	s.say(7, none, "-c", "c.yaml", "run")
	s.say(7, none, "-c", "c.yaml", "doctor")
	s.say(7, []string{"BINANCE_API_SECRET=" + plantedKey}, "-c", "c.yaml", "run")                                     // key and secret are the same
	s.say(7, []string{"BINANCE_API_SECRET=" + plantedSecret[:30] + "\n" + plantedSecret[30:]}, "-c", "c.yaml", "run") // a blank in it
	s.say(7, []string{"BINANCE_API_SECRET=" + plantedSecret + "x"}, "-c", "c.yaml", "run")                            // the exchange refuses the signature
	s.say(7, []string{"BINANCE_API_SECRET=" + plantedSecret + "x"}, "-c", "c.yaml", "doctor")
	for _, kind := range []sandbox.Kind{sandbox.Closed, sandbox.Hang, sandbox.BadGateway, sandbox.Empty} {
		s.arm(sandbox.Fault{Kind: kind, Call: "GET /fapi/v1/accountConfig", Times: -1}) // a signed request, whose URL an error could show
		s.say(7, nil, "-c", "c.yaml", "run")
		s.sandbox.Disarm()
	}
	s.arm(sandbox.Fault{Kind: sandbox.WAF, Call: "GET /fapi/v1/accountConfig", Times: -1})
	s.say(-1, nil, "-c", "c.yaml", "doctor") // run would wait for the end of it.
	s.sandbox.Disarm()
	s.say(7, []string{"BINANCE_API_KEY_FILE=" + s.write("planted.key", plantedKey)}, "-c", "c.yaml", "run") // two places
	s.say(7, nil, "-c", "c.yaml", "--mode", "live", "run")
	s.say(2, nil, "-c", "c.yaml", "--mode", plantedSecret, "run")
	s.say(2, nil, "-c", "c.yaml", "run", "--rest-url", "https://"+plantedSecret+"@example.com")
	for i, text := range []string{
		"exchange: {api_key: " + plantedKey + ", api_secret: " + plantedSecret + "}", "exchange:\n  " + plantedSecret, "live: {confirm_key_tail: " + plantedKey + "}",
		"exchange: {rest_url: \"https://u:" + plantedSecret + "@example.com\"}", "mode: " + plantedSecret, "http: {token_file: " + plantedSecret + "}",
		"http: {listen: \"" + plantedSecret + ":80\"}", "state_dir: " + plantedSecret, "symbols: [" + plantedSecret + "]", plantedKey + ": " + plantedSecret, "mode: *" + plantedSecret,
	} {
		name := s.write(fmt.Sprintf("planted%d.yaml", i), text)
		for _, command := range []string{"config check", "config show", "run", "status", "doctor"} {
			s.say(2, nil, append([]string{"-c", name}, strings.Fields(command)...)...)
		}
	}
}

// judge looks for leaks, having made sure that it would find them.
func (s *session) judge() {
	t := s.t
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.requests < 50 || len(s.secrets) < 50 || len(s.output) < 80 {
		t.Errorf("only %d requests, %d credentials and %d outputs", s.requests, len(s.secrets), len(s.output))
	}
	dump := s.output["the log of the chain that ended with quit"]
	for what, ok := range map[string]bool{
		"the stacks of a panic":  bytes.Contains(dump, []byte("goroutine ")) && bytes.Contains(dump, []byte("SIGQUIT")),
		"an executed plan":       bytes.Contains(s.output["GET /v1/plans"], []byte(`"outcome":"executed"`)),
		"the ledger's bytes":     bytes.Contains(s.output["the file ledger.db"], []byte("plan.decided")),
		"a leak that was made":   len(leaks(map[string][]byte{"x": []byte("url: https://h/?signature=" + plantedSecret[5:25])}, s.secrets)) == 1,
		"a leak in another form": len(leaks(map[string][]byte{"x": []byte(base64.StdEncoding.EncodeToString([]byte(plantedKey)))}, s.secrets)) == 1,
	} {
		if !ok {
			t.Errorf("%s is not there to be looked at", what)
		}
	}
	for _, l := range leaks(s.output, s.secrets) {
		t.Error(l)
	}
	t.Logf("%d credentials (key, secret, signatures, listen keys) looked for in %d outputs", len(s.secrets), len(s.output))
}
