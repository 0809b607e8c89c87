package e2e

import (
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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"permitchain/exchange/sandbox"
)

// laneConfig makes everything quick that the configuration can, and lets nothing but the permits limit the closing.
const laneConfig = `
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

// staleAfter is that of laneConfig.
const staleAfter = 4 * time.Second

const (
	key    = "e2e-key-of-a-drill-5d1c"
	secret = "e2e-secret-of-a-drill-77"
)

// lane is one state folder, the sandbox it trades on, and the processes that work on it, one after the other.
type lane struct {
	t                           *testing.T
	binary, dir, config, socket string
	symbols                     []string
	luck                        *rand.Rand
	sandbox                     *sandbox.Sandbox
	server                      *httptest.Server
	end                         context.CancelFunc
	client                      *http.Client
	sent                        []string // proposals, to be repeated; the feeder's
	acknowledged                []string // plans of which the chain said that they are on record; the feeder's
}

// buildDir is where the binary is built, once for all tests.
var buildDir = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		panic(err)
	}
	return dir
})

// built is the binary as it ships; PERMITCHAIN names another one.
var built = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("PERMITCHAIN"); path != "" {
		return filepath.Abs(path)
	}
	binary := filepath.Join(buildDir(), "permitchain")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", binary, "../..").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return binary, nil
})

func build(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("minutes of real time")
	}
	if _, err := built(); err != nil {
		t.Fatal(err)
	}
}

// number is what the environment says, or else n.
func number(t *testing.T, name string, n int) int {
	t.Helper()
	if text := os.Getenv(name); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return n
}

func newLane(t *testing.T, o sandbox.Options) (*lane, error) {
	binary, err := built()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lane") // Not t.TempDir: the path of a socket must be short, and a failure leaves it.
	if err != nil {
		return nil, err
	}
	o.Key, o.Secret, o.Weight = key, secret, 1_000_000 // Hundreds of starts are more than one address may.
	s := sandbox.New(o)
	ctx, end := context.WithCancel(context.Background())
	go func() { _ = s.Run(ctx) }()
	l := &lane{
		t: t, binary: binary, dir: dir, config: filepath.Join(dir, "config.yaml"), socket: filepath.Join(dir, "testnet", "control.sock"),
		symbols: o.Symbols, luck: rand.New(rand.NewPCG(o.Seed, 7)), sandbox: s, server: httptest.NewServer(s.Handler()), end: end,
	}
	l.client = &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", l.socket)
		},
	}}
	text := fmt.Appendf(nil, laneConfig, dir, strings.Join(o.Symbols, ", "), l.server.URL, "ws"+strings.TrimPrefix(l.server.URL, "http"))
	return l, os.WriteFile(l.config, text, 0o600)
}

// close ends the exchange; what the processes left stays where the lane has failed.
func (l *lane) close(failed bool) {
	l.end()
	l.server.CloseClientConnections()
	l.server.Close()
	if !failed {
		_ = os.RemoveAll(l.dir)
	}
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
	ended  chan struct{}
	err    error // when it has ended
}

func (l *lane) start() (*process, error) { return l.begin(l.command("run")) }

func (l *lane) begin(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, output: &bytes.Buffer{}, ended: make(chan struct{})}
	p.cmd.Stderr = p.output
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// wait returns how the process ended.
func (p *process) wait() error {
	<-p.ended
	return p.err
}

// within is wait with an end.
func (p *process) within(d time.Duration) error {
	select {
	case <-p.ended:
		return p.err
	case <-time.After(d):
		_ = p.cmd.Process.Kill()
		return fmt.Errorf("it did not end within %s: %w", d, p.wait())
	}
}

// exitOf is a process's exit code; -1 is a signal.
func exitOf(err error) int {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
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
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, res.Status, text)
	}
	return text, err
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

// settled tells whether nothing is open and exchange and ledger agree, and what the chain said.
func (l *lane) settled() (bool, []byte) {
	var s status
	text, err := l.call(http.MethodGet, "/v1/status", "")
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	fine := err == nil && s.OpenIntents == 0 && s.Plans.Pending == 0 && len(s.Symbols) == len(l.symbols)
	for _, x := range s.Symbols {
		fine = fine && x.Drift == "0"
	}
	return fine, text
}

// second starts the binary once more beside a process that serves: it must be refused at once, with exit 6.
func (l *lane) second(first *process) error {
	p, err := l.start()
	if err != nil {
		return err
	}
	err = p.within(20 * time.Second) // It is told within a second; the machine may be busy.
	select {
	case <-first.ended: // Then the ledger was free.
		return nil
	default:
	}
	if exitOf(err) != 6 || !strings.Contains(p.output.String(), "another process holds the ledger") {
		return fmt.Errorf("a second instance: %w\n%s", errors.Join(err, errors.New("not refused")), p.output)
	}
	return nil
}

// acknowledge notes the plans that an answer says are on record.
func (l *lane) acknowledge(answer []byte) error {
	for lines := json.NewDecoder(bytes.NewReader(answer)); ; {
		var line struct {
			ID string `json:"plan_id"`
		}
		switch err := lines.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("answer %q: %w", answer, err)
		case line.ID != "":
			l.acknowledged = append(l.acknowledged, line.ID)
		}
	}
}

// dump leaves what the exchange knows beside what the processes left.
func (l *lane) dump() error {
	text, err := json.MarshalIndent(map[string]any{"state": l.sandbox.State(), "orders": l.sandbox.Log(), "struck": l.sandbox.Struck()}, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, "exchange.json"), text, 0o600)
}
