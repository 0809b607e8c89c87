package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// strace counts the calls of each thread by itself, and a Go program's goroutines change threads as they like: its
// n-th call is another one in every run. This tracer counts over all threads, and knows which file a call is about.

const canTrace = true

// What ptrace(2) has and the syscall package does not.
const (
	ptraceSyscallInfo = 0x420e
	ptraceExitKill    = 0x100000
	waitAll           = 0x40000000 // __WALL
	entry             = 1          // ptrace_syscall_info.op
	exit              = 2
)

type syscallInfo struct {
	op     uint8
	_      [3]byte
	_      uint32
	_, _   uint64
	number uint64
	args   [6]uint64
	_      [4]uint64
}

// watched are the calls by which something leaves the process. Of write only those to a socket or a file of the
// state folder are: the others wake threads, or write the log.
var watched = map[uint64]string{
	syscall.SYS_PWRITE64: "pwrite64", syscall.SYS_FDATASYNC: "fdatasync", syscall.SYS_FSYNC: "fsync", syscall.SYS_FTRUNCATE: "ftruncate",
	syscall.SYS_RENAME: "rename", syscall.SYS_RENAMEAT: "rename", 316: "rename", syscall.SYS_UNLINKAT: "unlink",
	syscall.SYS_WRITE: "write", syscall.SYS_CONNECT: "connect", syscall.SYS_SENDTO: "sendto",
}

// tracer is the process between: it starts a command, and does to it what the order says.
type tracer struct {
	traceOrder
	pid    int
	report traceReport
	errno  map[int]syscall.Errno // of threads whose call fails
	seen   map[int]bool
}

// traceMain runs the command after the order; the report goes to descriptor 3.
func traceMain(order string, command []string) int {
	runtime.LockOSThread() // The thread that starts a process is its tracer.
	t := &tracer{errno: map[int]syscall.Errno{}, seen: map[int]bool{}}
	err := json.Unmarshal([]byte(order), &t.traceOrder)
	if err == nil {
		err = t.run(command)
	}
	if err != nil {
		t.report.Error = err.Error()
	}
	if err := json.NewEncoder(os.NewFile(3, "report")).Encode(t.report); err != nil {
		fmt.Fprintln(os.Stderr, "tracer:", err)
	}
	return t.report.Exit
}

func (t *tracer) run(command []string) error {
	asked := make(chan os.Signal, 8)
	signal.Notify(asked, syscall.SIGINT, syscall.SIGTERM)
	p, err := os.StartProcess(command[0], command, &os.ProcAttr{
		Files: []*os.File{nil, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return err
	}
	t.pid = p.Pid
	go func() {
		for s := range asked {
			_ = syscall.Kill(t.pid, s.(syscall.Signal)) // Not reaped before this process ends, so it is no other.
		}
	}()
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(t.pid, &status, waitAll, nil); err != nil {
		return fmt.Errorf("wait for the first stop: %w", err)
	}
	t.seen[t.pid] = true
	err = syscall.PtraceSetOptions(t.pid, syscall.PTRACE_O_TRACESYSGOOD|syscall.PTRACE_O_TRACECLONE|syscall.PTRACE_O_TRACEFORK|
		syscall.PTRACE_O_TRACEVFORK|syscall.PTRACE_O_TRACEEXEC|ptraceExitKill)
	if err == nil {
		err = syscall.PtraceSyscall(t.pid, 0)
	}
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return t.follow()
}

// follow serves every stop of every thread, until the process has ended.
func (t *tracer) follow() error {
	for {
		var status syscall.WaitStatus
		tid, err := syscall.Wait4(-1, &status, waitAll, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case status.Exited(), status.Signaled():
			if tid == t.pid {
				if t.report.Exit = status.ExitStatus(); status.Signaled() {
					t.report.Exit = 128 + int(status.Signal())
				}
				return nil
			}
			continue
		}
		deliver := 0
		switch s := status.StopSignal(); {
		case s == syscall.SIGTRAP|0x80:
			t.stopped(tid)
		case s == syscall.SIGTRAP && status.TrapCause() > 0:
		case s == syscall.SIGSTOP && !t.seen[tid]: // A new thread or process begins with it.
			t.seen[tid] = true
		default:
			deliver = int(s)
		}
		_ = syscall.PtraceSyscall(tid, deliver) // It may have been killed meanwhile.
	}
}

// stopped is a thread at the door of a call, or on its way back.
func (t *tracer) stopped(tid int) {
	var info syscallInfo
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PTRACE, ptraceSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return
	}
	var registers syscall.PtraceRegs
	if failed, ok := t.errno[tid]; ok && info.op == exit {
		delete(t.errno, tid)
		if syscall.PtraceGetRegs(tid, &registers) == nil {
			registers.Rax = uint64(-int64(failed))
			_ = syscall.PtraceSetRegs(tid, &registers)
		}
		return
	}
	name, ok := t.watches(&info)
	if info.op != entry || !ok {
		return
	}
	t.report.Calls = append(t.report.Calls, name)
	if len(t.report.Calls) != t.At {
		return
	}
	t.report.Reached = name
	switch t.Act {
	case actKill: // The call is not made: a thread that is killed at the door does not go through it.
		_ = syscall.Kill(t.pid, syscall.SIGKILL)
	case actFreeze: // Every thread that makes a call waits for this one.
		<-time.After(t.For)
	case actFail:
		if syscall.PtraceGetRegs(tid, &registers) == nil {
			registers.Orig_rax = ^uint64(0)
			if syscall.PtraceSetRegs(tid, &registers) == nil {
				t.errno[tid] = t.Errno
			}
		}
	}
}

// watches names a call that counts.
func (t *tracer) watches(info *syscallInfo) (string, bool) {
	name, ok := watched[info.number]
	if !ok {
		return "", false
	}
	if name == "rename" || name == "unlink" {
		return name, !t.Syncs
	}
	to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", t.pid, int32(info.args[0])))
	if err != nil {
		return "", false
	}
	socket, file := strings.HasPrefix(to, "socket:"), strings.HasPrefix(to, t.Dir)
	if socket && !t.Syncs {
		return name + " socket", true
	}
	return name + " " + filepath.Base(to), file
}
