package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
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
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"permitchain/exchange/sandbox"
	"permitchain/ledger"
)

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
