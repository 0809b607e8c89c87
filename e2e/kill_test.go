// Package e2e has the tests that need processes: the binary is built as it ships, started, killed and judged from outside.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"permitchain/exchange/sandbox"
	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// The random kills: the shipped binary closes positions without end on a hostile sandbox, and is killed with SIGKILL
// at random instants. The sandbox lives in this process and so outlives it: its own order log is the judge.

// kills is how many; KILLS says otherwise.
const kills = 60

// lanes are binaries that run at the same time, each with a sandbox and a ledger of its own.
const lanes = 6

// killConfig makes everything quick that the configuration can, and lets nothing but the permits limit the closing.
const killConfig = `
mode: testnet
state_dir: %s
symbols: [%s]
exchange: {rest_url: %q, stream_url: %q, recv_window: 500ms, timeout: 1s}
exit_brain: {enabled: false}
governor: {disarm_errors: 1000, max_per_hour: 3600, max_per_5min: 3600, protective_per_hour: 3600, stops_per_hour: 3600}
reconcile: {snapshot_interval: 1s, stale_after: 4s, cooldown: 1s}
http: {listen: ""}
log: {level: warn, format: json}
`

var symbols = []string{"BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT", "DOGEUSDT"}

const (
	key    = "e2e-key-of-a-drill-5d1c"
	secret = "e2e-secret-of-a-drill-77"
)

// tally is what happened, over all lanes.
type tally struct {
	kills, answered, repeated, plans, executed, orders, lost, unknown atomic.Int64
}

func TestKilledAtRandom(t *testing.T) {
	if testing.Short() {
		t.Skip("minutes of real time")
	}
	binary := filepath.Join(t.TempDir(), "permitchain")
	if out, err := exec.Command("go", "build", "-o", binary, "..").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	n := kills
	if text := os.Getenv("KILLS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	var sum tally
	var group sync.WaitGroup
	for i := range lanes {
		group.Go(func() {
			l := newLane(t, binary, seed+uint64(i))
			if err := errors.Join(l.run((n+i)/lanes, &sum), l.close()); err != nil {
				t.Errorf("lane %d, SEED=%d, files in %s: %v", i, seed, l.dir, err)
				return
			}
			os.RemoveAll(l.dir)
		})
	}
	group.Wait()
	t.Logf("%d kills in %s: %d plans, %d of them executed, %d orders sent, %d answers lost, %d orders unknown on the way, %d proposals repeated; double executions: 0 unless failed",
		sum.kills.Load(), time.Since(begun).Round(time.Second), sum.plans.Load(), sum.executed.Load(), sum.orders.Load(), sum.lost.Load(), sum.unknown.Load(), sum.repeated.Load())
	if sum.kills.Load() < int64(n) || sum.executed.Load() == 0 {
		t.Errorf("the drill proves nothing: %d kills, %d executed", sum.kills.Load(), sum.executed.Load())
	}
}

// lane is one state folder, the sandbox it trades on, and the processes that work on it, one after the other.
type lane struct {
	t                           *testing.T
	binary, dir, config, socket string
	luck                        *rand.Rand
	sandbox                     *sandbox.Sandbox
	server                      *httptest.Server
	end                         context.CancelFunc
	client                      *http.Client
	sent                        []string // proposals, to be repeated; the feeder's
}

func newLane(t *testing.T, binary string, seed uint64) *lane {
	t.Helper()
	dir, err := os.MkdirTemp("", "kill") // Not t.TempDir: the path of a socket must be short, and a failure leaves it.
	if err != nil {
		t.Fatal(err)
	}
	positions := map[ledger.Key]ledger.Qty{}
	for i, q := range []string{"0.046", "-1.2", "9.5", "-2.41", "350", "2000"} {
		positions[ledger.Key{Symbol: symbols[i], Side: ledger.Both}] = ledger.MustQty(q)
	}
	s := sandbox.New(sandbox.Options{
		Seed: seed, Symbols: symbols, Positions: positions, Key: key, Secret: secret, Reopen: time.Second,
		Odds: venue.Odds{Split: 0.3, Expire: 0.1, Rest: 0.1}, Weight: 1_000_000, // Hundreds of starts are more than one address may.
	})
	ctx, end := context.WithCancel(context.Background())
	go func() { _ = s.Run(ctx) }()
	l := &lane{
		t: t, binary: binary, dir: dir, config: filepath.Join(dir, "config.yaml"), socket: filepath.Join(dir, "testnet", "control.sock"),
		luck: rand.New(rand.NewPCG(seed, 7)), sandbox: s, server: httptest.NewServer(s.Handler()), end: end,
	}
	l.client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", l.socket)
		},
	}}
	text := fmt.Appendf(nil, killConfig, dir, strings.Join(symbols, ", "), l.server.URL, "ws"+strings.TrimPrefix(l.server.URL, "http"))
	if err := os.WriteFile(l.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lane) close() error {
	l.end()
	l.server.CloseClientConnections()
	l.server.Close()
	return nil
}

// command is the binary, as a user would start it.
func (l *lane) command(args ...string) *exec.Cmd {
	c := exec.Command(l.binary, append([]string{"-c", l.config}, args...)...)
	c.Env = append(os.Environ(), "BINANCE_API_KEY="+key, "BINANCE_API_SECRET="+secret)
	return c
}

// process is one run of the binary.
type process struct {
	cmd    *exec.Cmd
	output *bytes.Buffer
	ended  chan error
}

func (l *lane) start() (*process, error) {
	p := &process{cmd: l.command("run"), output: &bytes.Buffer{}, ended: make(chan error, 1)}
	p.cmd.Stderr = p.output
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.ended <- p.cmd.Wait() }()
	return p, nil
}

// run kills n processes, lets one more settle everything, and judges.
func (l *lane) run(n int, sum *tally) error {
	profile, err := sandbox.Preset("hostile")
	if err != nil {
		return err
	}
	feed, stop := context.WithCancel(context.Background())
	var feeder sync.WaitGroup
	feeder.Go(func() { l.feed(feed, rand.New(rand.NewPCG(l.luck.Uint64(), 1)), sum) })
	defer func() { stop(); feeder.Wait() }()
	for _, k := range []sandbox.Kind{sandbox.WAF, sandbox.TooManyBare, sandbox.HighWeight} {
		delete(profile, k) // A minute's silence each: no process would live to see its end.
	}
	for _, k := range []sandbox.Kind{sandbox.Closed, sandbox.Late, sandbox.TooLate, sandbox.Twin, sandbox.PartOnly, sandbox.Reopened} {
		profile[k] = 0.05
	}
	for killed := 0; killed < n; {
		if killed == 1 { // The first process takes the positions over.
			if err := l.sandbox.SetProfile(profile); err != nil {
				return err
			}
		}
		p, err := l.start()
		if err != nil {
			return err
		}
		select {
		case <-time.After(l.life(killed)):
			_ = p.cmd.Process.Kill()
			<-p.ended
			killed++
			sum.kills.Add(1)
		case err := <-p.ended: // The exchange was too hostile to start on; nothing else is an excuse.
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 7 {
				return fmt.Errorf("ended by itself: %w\n%s", err, p.output)
			}
		}
	}
	stop()
	feeder.Wait()
	return l.settle(sum)
}

// life is how long a process lives: the first long enough to take the positions over, the others mostly not long enough
// to finish what the one before left.
func (l *lane) life(killed int) time.Duration {
	if killed == 0 || l.luck.IntN(10) == 0 {
		return 10*time.Second + time.Duration(l.luck.Int64N(int64(5*time.Second)))
	}
	return 100*time.Millisecond + time.Duration(l.luck.Int64N(int64(4*time.Second)))
}

// feed proposes closes without end, and now and then one again that was proposed before.
func (l *lane) feed(ctx context.Context, luck *rand.Rand, sum *tally) {
	actions := []string{"PARTIAL_25", "PARTIAL_50", "PARTIAL_75", "FULL_CLOSE_PROPOSED", "FULL_CLOSE_PROPOSED"}
	for ctx.Err() == nil {
		select {
		case <-time.After(time.Duration(50+luck.IntN(200)) * time.Millisecond):
		case <-ctx.Done():
			return
		}
		symbol := symbols[luck.IntN(len(symbols))]
		stop := ""
		if symbol == "BTCUSDT" && luck.IntN(2) == 0 { // Some way below what it begins at.
			stop = fmt.Sprintf(`,"new_sl":"8%d.%d"`, 4000+luck.IntN(2000), luck.IntN(10))
		}
		body := fmt.Sprintf(`{"symbol":%q,"side":"BOTH","action":%q,"kill_score":0.%d,"computed_at":%q%s}`, symbol, actions[luck.IntN(len(actions))],
			10+luck.IntN(80), time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), stop)
		if len(l.sent) > 0 && luck.IntN(5) == 0 {
			body = l.sent[len(l.sent)-1-luck.IntN(min(len(l.sent), 20))]
			sum.repeated.Add(1)
		}
		if _, err := l.call(http.MethodPost, "/v1/proposals", body); err == nil {
			sum.answered.Add(1)
		}
		l.sent = append(l.sent, body) // Also when nobody answered: it may be on record all the same.
	}
}

func (l *lane) call(method, path, body string) ([]byte, error) {
	req, err := http.NewRequest(method, "http://permitchain"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	res, err := l.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

type status struct {
	OpenIntents int `json:"open_intents"`
	Symbols     []struct {
		Symbol   string `json:"symbol"`
		Exchange string `json:"exchange_amt"`
		Ledger   string `json:"ledger_amt"`
		Drift    string `json:"drift"`
	} `json:"symbols"`
	Plans struct {
		Pending int `json:"pending"`
	} `json:"plans"`
}

// settle ends all faults, and gives one process the time to end everything that is open.
func (l *lane) settle(sum *tally) error {
	for _, e := range l.sandbox.Log() {
		sum.orders.Add(1)
		if e.Fault != "" {
			sum.lost.Add(1)
		}
	}
	l.sandbox.Disarm()
	p, err := l.start()
	if err != nil {
		return err
	}
	deadline := time.After(4 * time.Minute)
	for agreed := 0; agreed < 3; { // More than once: the reopening goes on.
		var s status
		text, err := l.call(http.MethodGet, "/v1/status", "")
		if err == nil {
			err = json.Unmarshal(text, &s)
		}
		fine := err == nil && s.OpenIntents == 0 && s.Plans.Pending == 0 && len(s.Symbols) == len(symbols)
		for _, x := range s.Symbols {
			fine = fine && x.Drift == "0"
		}
		if fine {
			agreed++
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case err := <-p.ended:
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 7 {
				return fmt.Errorf("the last process ended: %w\n%s", err, p.output)
			}
			if p, err = l.start(); err != nil { // It was told that the minute's weight is used up: a supervisor tries again.
				return err
			}
		case <-deadline:
			return fmt.Errorf("not settled after four minutes without faults: %s\n%s", text, p.output)
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	if err := <-p.ended; err != nil {
		return fmt.Errorf("the last process: %w\n%s", err, p.output)
	}
	return l.judge(sum)
}

// judge compares the journal with what the sandbox itself wrote down.
func (l *lane) judge(sum *tally) error {
	if out, err := l.command("ledger", "verify").CombinedOutput(); err != nil {
		return fmt.Errorf("verify: %w\n%s", err, out)
	}
	out, err := l.command("ledger", "export").Output()
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	j, err := readJournal(out)
	if err != nil {
		return err
	}
	sum.plans.Add(int64(j.plans))
	sum.executed.Add(int64(j.executed))
	sum.unknown.Add(int64(j.unknown))
	l.t.Logf("plans: %v; faults: %v", j.fates, l.sandbox.Struck())
	executed := l.sandbox.Executed()
	wrong := l.sandbox.Verdict(j.promised)
	took := map[string]ledger.Qty{}
	for id, q := range executed {
		if !ledger.OfOurForm(id) {
			continue
		}
		if _, known := j.promised[id]; !known {
			wrong = append(wrong, id+" executed, and the journal never promised it")
		}
		if !q.Equal(j.booked[id]) {
			wrong = append(wrong, fmt.Sprintf("%s executed %s, booked %s", id, q, j.booked[id]))
		}
		took[j.step[id]] = took[j.step[id]].Add(q)
	}
	for step, q := range took {
		if j.granted[step].Less(q) {
			wrong = append(wrong, fmt.Sprintf("step %s executed %s, granted %s", step, q, j.granted[step]))
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return errors.New(strings.Join(wrong, "\n"))
	}
	return nil
}

// journal is what an export says that the judge needs; amounts are by client order id, or by plan and step.
type journal struct {
	promised, booked, granted map[string]ledger.Qty
	step                      map[string]string
	plans, executed, unknown  int
	fates                     map[string]int // what became of the plans
}

func readJournal(export []byte) (journal, error) {
	j := journal{promised: map[string]ledger.Qty{}, booked: map[string]ledger.Qty{}, granted: map[string]ledger.Qty{}, step: map[string]string{}, fates: map[string]int{}}
	lines := bufio.NewScanner(bytes.NewReader(export))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var line struct {
			Seq     uint64          `json:"seq"`
			Kind    ledger.Kind     `json:"kind"`
			Version int             `json:"version"`
			Event   json.RawMessage `json:"event"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return j, fmt.Errorf("export: %w", err)
		}
		if line.Seq == 0 {
			continue // The header.
		}
		event, err := ledger.DecodeEvent(line.Kind, line.Version, line.Event)
		if err != nil {
			return j, fmt.Errorf("record %d: %w", line.Seq, err)
		}
		switch e := event.(type) {
		case *ledger.PlanDecided:
			j.plans++
		case *ledger.PlanEnded:
			j.fates[fmt.Sprintf("%s %s", e.Outcome, e.Reason)]++
			if e.Outcome == ledger.Executed || e.Outcome == ledger.PartlyExecuted {
				j.executed++
			}
		case *ledger.StepGranted:
			j.granted[fmt.Sprintf("%s-%d", e.ID, e.Step)] = e.Qty
		case *ledger.IntentOpened:
			i := e.Intent
			j.promised[i.ClientOrderID], j.step[i.ClientOrderID] = i.Qty, fmt.Sprintf("%s-%d", i.Plan, i.Step)
		case *ledger.IntentAnswered:
			if e.State == ledger.Unknown {
				j.unknown++
			}
		case *ledger.FillBooked:
			j.booked[e.Trade.ClientOrderID] = j.booked[e.Trade.ClientOrderID].Add(e.Trade.Qty)
		}
	}
	return j, lines.Err()
}
