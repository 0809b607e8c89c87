package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A disk that fills up while the chain works: it halts, says so and exits with 6; what it acknowledged is on record, and
// once there is space it goes on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	build(t)
	for name, full := range map[string]func(*testing.T, *lane) (cmd *exec.Cmd, relieve func() error){
		"limit": limited, "tmpfs": mounted,
	} {
		t.Run(name, func(t *testing.T) {
			l, err := newLane(t, quiet())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.close(t.Failed()) })
			cmd, relieve := full(t, l)
			p, err := l.begin(cmd)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.cmd.Process.Kill() })
			if !l.until(p, 30*time.Second, func() bool { fine, _ := l.settled(); return fine }) {
				t.Fatalf("it does not begin: %s", p.output)
			}
			answered := l.flood()
			err = p.within(20 * time.Second)
			said := strings.TrimSpace(p.output.String())
			said = said[strings.LastIndex(said, "\n")+1:] // The last line is what a person sees.
			if exitOf(err) != 6 || !strings.Contains(said, "the ledger has halted") {
				t.Fatalf("its disk is full, and it ended with %v: %s", err, said)
			}
			t.Logf("it says: %s", said)
			if err := l.verify(); err != nil {
				t.Error(err)
			}
			if err := relieve(); err != nil {
				t.Fatal(err)
			}
			if err := l.after(nil, 0); err != nil {
				t.Fatal(err)
			}
			j, err := l.judge()
			if err != nil || j.holds < answered {
				t.Errorf("%d changes were answered and %d are on record: %v", answered, j.holds, err)
			}
			t.Logf("figure disk_full_%s_changes_kept %d", name, answered)
		})
	}
}

// limited lets no file grow beyond its first size; the kernel then answers EFBIG.
func limited(_ *testing.T, l *lane) (*exec.Cmd, func() error) {
	cmd := l.command("run")
	cmd.Args = append([]string{"sh", "-c", `ulimit -f 3000; exec "$@"`, "sh"}, append([]string{cmd.Path}, cmd.Args[1:]...)...) // Blocks of 512 bytes.
	cmd.Path = "/bin/sh"
	return cmd, func() error { return nil }
}

// mounted gives the state a disk of its own; only root may.
func mounted(t *testing.T, l *lane) (*exec.Cmd, func() error) {
	at := filepath.Join(l.dir, "testnet")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	mount := func(flags uintptr, size string) error {
		return syscall.Mount("tmpfs", at, "tmpfs", flags, "size="+size)
	}
	if err := mount(0, "600k"); err != nil {
		t.Skipf("SKIPPED: no disk can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return l.command("run"), func() error { return mount(syscall.MS_REMOUNT, "64m") }
}

// flood has long reasons put on record until nobody answers any more; it tells how many were answered.
func (l *lane) flood() (answered int) {
	for reason := strings.Repeat("the disk is filling up; ", 20); ; answered++ {
		op := []string{"set", "clear"}[answered%2]
		if _, err := l.call(http.MethodPost, "/v1/holds", fmt.Sprintf(`{"op":%q,"symbol":"ETHUSDT","reason":%q}`, op, reason)); err != nil {
			return answered
		}
	}
}
