package simulate_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"

	"permitchain/stages"
	"permitchain/stages/simulate"
)

// rules are those of the built-in configuration, with changes.
func rules(t testing.TB, text string) *simulate.Rules {
	t.Helper()
	defaults, err := os.ReadFile("../../config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := stages.ParseConfig(defaults, "test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c.Simulated()
}

func faults(t testing.TB, text string) simulate.Faults {
	t.Helper()
	f, err := simulate.ParseFaults(text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// fromEnv is a number that whoever wants more than CI does may set.
func fromEnv(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// TestSeeds: no invariant is violated, whatever strikes. SIM_SEEDS and SIM_FROM choose other seeds.
func TestSeeds(t *testing.T) {
	o := simulate.Options{
		Seed: uint64(fromEnv("SIM_FROM", 1)), Seeds: fromEnv("SIM_SEEDS", 2000), Hours: 0.02, Faults: faults(t, "hostile"), Until: os.Getenv("SIM_UNTIL") != "",
	}
	r := simulate.Run(rules(t, ""), o)
	for _, v := range r.Violations {
		t.Errorf("seed %d at %s, %s: %s", v.Seed, v.At.Format("15:04:05.000"), v.Invariant, v.What)
	}
	t.Logf("%d seeds: %d plans, %d orders, %d executed, %d crashes, %d settled by the operator", r.Seeds, r.Plans, r.Orders, r.Executed, r.Crashes, r.Escalated)
	if o.Seeds < 1000 || len(r.Violations) > 0 {
		return
	}
	for _, c := range simulate.Classes {
		if r.Faults[c] == 0 {
			t.Errorf("%s never struck", c)
		}
	}
	if r.Executed == 0 || r.Crashes == 0 {
		t.Errorf("nothing was shown: %d executed, %d crashes", r.Executed, r.Crashes)
	}
}

// TestSameSeedSameTrace: to the byte, on any number of workers.
func TestSameSeedSameTrace(t *testing.T) {
	var first string
	for _, workers := range []int{1, 2, 3} {
		r := simulate.Run(rules(t, ""), simulate.Options{Seed: 7, Seeds: 20, Hours: 0.1, Faults: faults(t, "hostile"), Workers: workers})
		if first == "" {
			first = r.Trace
		}
		if r.Trace != first {
			t.Errorf("%d workers: %s, one: %s", workers, r.Trace, first)
		}
	}
	var a, b bytes.Buffer
	for _, out := range []*bytes.Buffer{&a, &b} {
		simulate.Run(rules(t, ""), simulate.Options{Seed: 7, Seeds: 1, Hours: 0.1, Faults: faults(t, "hostile"), Trace: out})
	}
	if a.Len() == 0 || !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Errorf("two traces of one seed, of %d and %d bytes, differ", a.Len(), b.Len())
	}
}

// TestReports: a configuration that lets nothing pass says so, and every form of report can be read.
func TestReports(t *testing.T) {
	r := simulate.Run(rules(t, "symbols: [BTCUSDT]\npaper: {ledger: {BTCUSDT: \"5\"}}"), simulate.Options{Seed: 1, Seeds: 2, Hours: 0.3, Faults: faults(t, "none")})
	if len(r.Violations) > 0 || r.Orders > 0 || len(r.Never()) != 1 || !strings.Contains(r.Never()[0], "position never let anything pass") {
		t.Errorf("%d orders, %q, %+v", r.Orders, r.Never(), r.Violations)
	}
	var page, table, text bytes.Buffer
	r.Violations = append(r.Violations, simulate.Violation{Seed: 1, Invariant: "S0", What: "<script>"})
	r.Reproduce(func(uint64) string { return "permitchain simulate" })
	if err := r.WriteHTML(&page); err != nil || !strings.Contains(page.String(), "&lt;script&gt;") || !strings.Contains(page.String(), "<svg") {
		t.Errorf("the page: %v", err)
	}
	if err := r.WriteTable(&table); err != nil || !strings.Contains(table.String(), "<script>") {
		t.Errorf("the table: %v", err)
	}
	var shape map[string]any
	if err := r.WriteJSON(&text); err != nil || json.Unmarshal(text.Bytes(), &shape) != nil {
		t.Errorf("the JSON: %v", err)
	}
	for _, name := range []string{"seed", "hours", "plans", "orders", "executed", "crashes", "faults", "violations", "trace_sha256"} {
		if shape[name] == nil {
			t.Errorf("the JSON has no %s", name)
		}
	}
	if _, err := simulate.ParseFaults("calm,nonsense"); err == nil {
		t.Error("a fault that nobody knows is taken")
	}
}
