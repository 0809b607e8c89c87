package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"permitchain/exchange/sandbox"
	"permitchain/ledger"
)

// The sweep: one scripted life of the shipped binary, from an empty state folder over two closes to a clean end, ended
// at each of the system calls by which something leaves the process: each write, sync, rename and connect. It is killed
// there, or frozen there for longer than its orders are good for; and each write and sync of the ledger fails once with
// EIO and once with ENOSPC.

// sweepShare is how many indexes of each kind of sweep are run; SWEEP says otherwise, SWEEP=all is all of them.
const sweepShare = 24

// sweepLanes are processes at the same time; most of what they do is to wait.
const sweepLanes = 8

var sweepSymbols = []string{"BTCUSDT", "ETHUSDT"}

func quiet() sandbox.Options {
	return sandbox.Options{Seed: 1, Symbols: sweepSymbols, Positions: map[ledger.Key]ledger.Qty{
		{Symbol: "BTCUSDT", Side: ledger.Both}: ledger.MustQty("0.046"), {Symbol: "ETHUSDT", Side: ledger.Both}: ledger.MustQty("-1.2"),
	}}
}

func TestEveryCall(t *testing.T) {
	t.Parallel()
	build(t)
	if !canTrace {
		t.Skip("SKIPPED: the tracer is written for Linux on amd64, so no system call is swept here")
	}
	calls, err := sweepCount(t, traceOrder{})
	if err != nil {
		t.Fatal(err)
	}
	syncs, err := sweepCount(t, traceOrder{Syncs: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("figure sweep_calls %d", len(calls))
	t.Logf("figure sweep_ledger_calls %d", len(syncs))
	t.Logf("the calls: %s", census(calls))
	for _, s := range []struct {
		name  string
		of    int
		order traceOrder
	}{
		{"kill", len(calls), traceOrder{Act: actKill}},
		{"eio", len(syncs), traceOrder{Act: actFail, Errno: syscall.EIO, Syncs: true}},
		{"enospc", len(syncs), traceOrder{Act: actFail, Errno: syscall.ENOSPC, Syncs: true}},
		{"freeze", len(calls), traceOrder{Act: actFreeze, For: stopped}},
	} {
		t.Run(s.name, func(t *testing.T) { sweep(t, s.of, s.order) })
	}
}

// census counts calls by name.
func census(calls []string) string {
	n := map[string]int{}
	for _, c := range calls {
		n[c]++
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(n)) {
		all = append(all, fmt.Sprintf("%d %s", n[name], name))
	}
	return strings.Join(all, ", ")
}

// sweepCount is the calls of a life that nothing befalls.
func sweepCount(t *testing.T, order traceOrder) ([]string, error) {
	l, err := newLane(t, quiet())
	if err != nil {
		return nil, err
	}
	defer l.close(false)
	p, reports, err := l.trace(order)
	if err != nil {
		return nil, err
	}
	l.script(p)
	if err := p.within(30 * time.Second); err != nil {
		return nil, fmt.Errorf("the life that nothing befalls: %w\n%s", err, p.output)
	}
	report := <-reports
	if report.Error != "" {
		return nil, fmt.Errorf("tracer: %s", report.Error)
	}
	if err := inOrder(report.Calls); err != nil {
		return nil, err
	}
	j, err := l.judge()
	if err == nil && (j.executed != 2 || len(l.acknowledged) != 2) {
		err = fmt.Errorf("the script executed %d plans, and %d were acknowledged: %v", j.executed, len(l.acknowledged), j.fates)
	}
	return report.Calls, err
}

// commits is what the images of a power loss rest on: data pages, a sync, one meta page, a sync.
var commits = regexp.MustCompile(`^(w+sws)+$`)

// inOrder looks for the syncs: no kill can find out that one is missing, because the kernel survives it.
func inOrder(calls []string) error {
	var order strings.Builder
	for _, c := range calls {
		switch c {
		case "pwrite64 ledger.db":
			order.WriteByte('w')
		case "fdatasync ledger.db":
			order.WriteByte('s')
		}
	}
	if !commits.MatchString(order.String()) {
		return fmt.Errorf("writes (w) and syncs (s) of the ledger are not those of its commits: %s", order.String())
	}
	return nil
}

// sweep runs a share of the indexes, evenly spread.
func sweep(t *testing.T, of int, order traceOrder) {
	share := of
	if os.Getenv("SWEEP") != "all" {
		share = min(of, number(t, "SWEEP", sweepShare))
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	var reached []string
	bad := 0
	index := make(chan int)
	for range sweepLanes {
		group.Go(func() {
			for at := range index {
				here := order
				here.At = at
				call, err := sweepAt(t, here)
				mu.Lock()
				if err != nil {
					t.Errorf("at call %d (%s): %v", at, call, err)
					bad++
				}
				if call != "" {
					reached = append(reached, call)
				}
				mu.Unlock()
			}
		})
	}
	shift := int(time.Now().UnixNano()) // Each run takes others.
	for i := range share {
		index <- 1 + (i*of/share+shift%max(1, of/share))%of
	}
	close(index)
	group.Wait()
	name := t.Name()[strings.LastIndex(t.Name(), "/")+1:]
	t.Logf("figure sweep_%s_indexes %d", name, share)
	t.Logf("figure sweep_%s_reached %d", name, len(reached))
	t.Logf("figure sweep_%s_bad %d", name, bad)
	t.Logf("they were: %s", census(reached))
	if len(reached) < share*3/4 { // The last calls of a life are not always made.
		t.Errorf("the sweep proves nothing: %d of %d calls were made", len(reached), share)
	}
}

// sweepAt is one life that something befalls, and what comes after it.
func sweepAt(t *testing.T, order traceOrder) (call string, err error) {
	l, err := newLane(t, quiet())
	if err != nil {
		return "", err
	}
	defer func() {
		l.close(err != nil)
		if err != nil {
			err = fmt.Errorf("%w (files in %s)", err, l.dir)
		}
	}()
	p, reports, err := l.trace(order)
	if err != nil {
		return "", err
	}
	sent := l.script(p)
	ended := p.within(60 * time.Second)
	report := <-reports
	switch {
	case report.Error != "":
		return report.Reached, fmt.Errorf("tracer: %s", report.Error)
	case report.Reached == "" || order.Act == actFreeze:
		if ended != nil && (report.Reached == "" || !frozen(exitOf(ended), p)) {
			return report.Reached, fmt.Errorf("it ended: %w\n%s", ended, p.output)
		}
	case order.Act == actKill && report.Exit != 128+int(syscall.SIGKILL):
		return report.Reached, fmt.Errorf("it was killed, and ended with %d\n%s", report.Exit, p.output)
	case order.Act == actFail && (report.Exit != 6 && report.Exit != interrupted || !strings.Contains(p.output.String(), order.Errno.Error())):
		return report.Reached, fmt.Errorf("its ledger failed with %q, and it ended with %d:\n%s", order.Errno, report.Exit, p.output)
	}
	if _, err := os.Stat(l.dir + "/testnet/ledger.db"); err == nil {
		if err := l.verify(); err != nil {
			return report.Reached, err
		}
	} else if len(l.acknowledged) > 0 {
		return report.Reached, errors.New("plans were acknowledged, and there is no ledger")
	}
	return report.Reached, l.after(sent, order.At)
}

// interrupted is how a process ends to which the script's SIGINT came after it had said why it halts, and before it was gone.
const interrupted = 128 + int(syscall.SIGINT)

// frozen tells whether a process may end so that was frozen: while it asked the exchange for its first answers, or while
// it was to stop within a time.
func frozen(code int, p *process) bool {
	return code == 7 || code == 1 && strings.Contains(p.output.String(), "stages did not stop")
}

// script is what is asked of every life: two closes, one of them with a stop to be set, a hold, and a clean end. It
// returns what was asked before the process ended.
func (l *lane) script(p *process) (sent []string) {
	if !l.until(p, 30*time.Second, func() bool { fine, _ := l.settled(); return fine }) {
		_ = p.cmd.Process.Signal(syscall.SIGINT)
		return nil
	}
	at := time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	for _, body := range []string{
		fmt.Sprintf(`{"symbol":"BTCUSDT","side":"BOTH","action":"PARTIAL_50","kill_score":0.4,"computed_at":%q,"new_sl":"85000.1"}`, at),
		fmt.Sprintf(`{"symbol":"ETHUSDT","side":"BOTH","action":"FULL_CLOSE_PROPOSED","kill_score":0.4,"computed_at":%q}`, at),
	} {
		sent = append(sent, body)
		answer, err := l.call(http.MethodPost, "/v1/proposals?wait=outcome", body)
		if err != nil || l.acknowledge(answer) != nil {
			break
		}
	}
	_, _ = l.call(http.MethodPost, "/v1/holds", `{"op":"set","symbol":"ETHUSDT","reason":"sweep"}`)
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	return sent
}

// until waits for something while a process lives.
func (l *lane) until(p *process, d time.Duration, is func() bool) bool {
	deadline := time.After(d)
	for !is() {
		select {
		case <-time.After(30 * time.Millisecond):
		case <-p.ended:
			return false
		case <-deadline:
			return false
		}
	}
	return true
}

// after is the life after: it settles everything, has all that was acknowledged, refuses a second instance, answers
// what was proposed before from the record, and ends cleanly.
func (l *lane) after(sent []string, index int) error {
	p, err := l.start()
	if err != nil {
		return err
	}
	defer func() { _ = p.cmd.Process.Kill() }()
	if !l.until(p, time.Minute, func() bool { fine, _ := l.settled(); return fine }) {
		_, text := l.settled()
		return fmt.Errorf("the process after it does not settle: %s\n%s", text, p.output)
	}
	if index%4 == 0 {
		if err := l.second(p); err != nil {
			return err
		}
	}
	for i, body := range sent {
		answer, err := l.call(http.MethodPost, "/v1/proposals?wait=outcome", body)
		if err != nil {
			return err
		}
		var line struct{ Decision, Reason string }
		if err := json.Unmarshal(answer, &line); err != nil {
			return err
		}
		if i < len(l.acknowledged) && line.Reason != "duplicate_plan" {
			return fmt.Errorf("plan %s was acknowledged, and proposed again it is %s", l.acknowledged[i], answer)
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	if err := p.within(30 * time.Second); err != nil {
		return fmt.Errorf("the process after it: %w\n%s", err, p.output)
	}
	_, err = l.judge()
	return err
}
