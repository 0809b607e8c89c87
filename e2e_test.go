package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

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
	c := exec.Command("scripts/e2e.sh")
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
