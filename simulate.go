package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"permitchain/stages/operator"
	"permitchain/stages/simulate"
)

type simulateCmd struct {
	Seed   uint64  `default:"1" help:"The first seed. The same seed and configuration give the same trace to the byte."`
	Seeds  int     `default:"1" help:"How many seeds, on all cores."`
	Hours  float64 `help:"Virtual hours with faults, of each seed (24; of many seeds 0.02)."`
	Faults string  `default:"hostile" help:"none, calm, hostile, or names of faults with commas between."`
	Trace  bool    `help:"Show everything that happens, line by line. One seed only."`
	HTML   string  `name:"html" placeholder:"FILE" help:"Write a report that a browser shows."`
}

// Hours of each seed, where none are told: enough to see a day's limits, and of many enough for a few closes.
const (
	hoursOfOne  = 24
	hoursOfMany = 0.02
)

// Run simulates.
func (s simulateCmd) Run(a *app) (err error) {
	c, err := a.config()
	if err != nil {
		return err
	}
	faults, err := simulate.ParseFaults(s.Faults)
	switch {
	case err != nil:
		return usageError{err}
	case s.Seeds < 1, s.Hours < 0, s.Trace && s.Seeds > 1:
		return usageError{errors.New("at least one seed, hours above 0, and a trace of one seed alone are wanted")}
	case s.Hours == 0 && s.Seeds == 1:
		s.Hours = hoursOfOne
	case s.Hours == 0:
		s.Hours = hoursOfMany
	}
	o := simulate.Options{Seed: s.Seed, Seeds: s.Seeds, Hours: s.Hours, Faults: faults}
	trace := bufio.NewWriter(a.out)
	if s.Trace {
		o.Trace = trace
	}
	if isTerminal(a.err) {
		o.Progress = progress(a.err, s.Seeds)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // Worlds are small and die soon.
	r := simulate.Run(c.Simulated(), o)
	if s.Trace {
		if err := trace.Flush(); err != nil {
			return fmt.Errorf("write the trace: %w", err)
		}
	}
	r.Reproduce(func(seed uint64) string {
		command := fmt.Sprintf("permitchain simulate --seed %d --hours %g --faults %s --trace", seed, s.Hours, s.Faults)
		if a.Config != "" {
			command += " -c " + a.Config
		}
		return command
	})
	if s.HTML != "" {
		if err := writeReport(s.HTML, r); err != nil {
			return err
		}
	}
	switch {
	case a.Output == "json":
		err = r.WriteJSON(a.out)
	case !s.Trace:
		err = r.WriteTable(a.out)
	}
	if n := len(r.Violations); err == nil && n > 0 {
		err = &operator.Failure{Kind: operator.Unhealthy, Text: fmt.Sprintf("%d of %d seeds violate an invariant", n, r.Seeds)}
	}
	return err
}

// progress tells how far a run of many seeds is, on one line.
func progress(w io.Writer, seeds int) func(done, violations int) {
	began := time.Now()
	every := max(1, seeds/200)
	return func(done, violations int) {
		if done%every == 0 || done == seeds {
			fmt.Fprintf(w, "\r%d of %d seeds, %.0f a second, %d violations ", done, seeds, float64(done)/time.Since(began).Seconds(), violations)
		}
		if done == seeds {
			fmt.Fprintln(w)
		}
	}
}

func writeReport(path string, r *simulate.Result) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return errors.Join(r.WriteHTML(f), f.Close())
}
