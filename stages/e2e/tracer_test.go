package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"
)

const traceEnv = "E2E_TRACE"

// TestMain makes the test binary the tracer: only the parent of a process can be that, and tests that run at the
// same time would take each other's children for theirs.
func TestMain(m *testing.M) {
	if order := os.Getenv(traceEnv); order != "" {
		_ = os.Unsetenv(traceEnv)
		os.Exit(traceMain(order, os.Args[1:]))
	}
	code := m.Run()
	_ = os.RemoveAll(buildDir())
	os.Exit(code)
}

// traceOrder is what is done to a process, at one of its calls.
type traceOrder struct {
	Dir   string        // of the state: only calls on its files, and on sockets, count
	Syncs bool          // only those on its files, that write, sync or grow
	At    int           // which call, counted from 1 over all threads; 0 is none
	Act   traceAct      // what is done at it
	Errno syscall.Errno // with actFail
	For   time.Duration // with actFreeze
}

type traceAct string

const (
	actKill   traceAct = "kill"
	actFail   traceAct = "fail"
	actFreeze traceAct = "freeze"
)

// traceReport is what happened.
type traceReport struct {
	Calls   []string
	Reached string // the call at which it was done; "" is never
	Exit    int    // as a shell tells it
	Error   string // of the tracer
}

// trace starts the binary under a tracer; the process's end also has the report.
func (l *lane) trace(order traceOrder) (*process, <-chan traceReport, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	order.Dir = l.dir
	text, err := json.Marshal(order)
	if err != nil {
		return nil, nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	cmd := l.command("run")
	cmd.Args, cmd.Path = append([]string{self, cmd.Path}, cmd.Args[1:]...), self
	cmd.Env, cmd.ExtraFiles = append(cmd.Env, traceEnv+"="+string(text)), []*os.File{w}
	p, err := l.begin(cmd)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	report := make(chan traceReport, 1)
	go func() {
		var found traceReport
		if err := json.NewDecoder(r).Decode(&found); err != nil {
			found.Error = "no report: " + err.Error()
		}
		_ = r.Close()
		report <- found
	}()
	return p, report, nil
}
