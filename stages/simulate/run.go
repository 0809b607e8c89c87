package simulate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"permitchain/ledger"
)

// Options are what a run of many seeds is told.
type Options struct {
	Seed     uint64 // the first
	Seeds    int
	Hours    float64
	Faults   Faults
	Until    bool      // ends with the first seed that violates something
	Workers  int       // 0: one for each core
	Trace    io.Writer // of a single seed; nil: nobody reads it
	Progress func(done int, violations int)
}

// Violation is an invariant that did not hold.
type Violation struct {
	Seed      uint64    `json:"seed"`
	At        time.Time `json:"at"` // virtual
	Invariant string    `json:"invariant"`
	What      string    `json:"what"`
	Command   string    `json:"command"` // that shows it again
}

// Result is what came of a seed, or of many. Its JSON is SPEC §12's, and more.
type Result struct {
	Seed           uint64                 `json:"seed"`
	Seeds          int                    `json:"seeds"`
	Hours          float64                `json:"hours"` // with faults, of each seed
	Plans          int                    `json:"plans"`
	Orders         int                    `json:"orders"`
	Executed       int                    `json:"executed"`
	Crashes        int                    `json:"crashes"`
	Faults         map[Class]int          `json:"faults"`
	Violations     []Violation            `json:"violations"`
	Trace          string                 `json:"trace_sha256"` // of many seeds: of all their hashes, in their order
	VirtualSeconds float64                `json:"virtual_s"`
	Unprotected    float64                `json:"unprotected_s"`
	Escalated      int                    `json:"escalated"` // orders that only the operator's evidence ended
	Outcomes       map[ledger.Outcome]int `json:"outcomes"`
	Denied         map[string]int         `json:"denied"`  // plans, by stage and reason
	Allowed        map[string]int         `json:"allowed"` // verdicts, by stage and reason
	Refused        map[string]int         `json:"refused"` // verdicts and holds, by stage and reason
	Seconds        float64                `json:"-"`       // of real time, of all workers
}

// Run simulates every seed, each by itself, on all cores; the result does not depend on how many they are.
func Run(r *Rules, o Options) *Result {
	r = r.kept()
	workers := o.Workers
	if workers == 0 {
		workers = runtime.NumCPU()
	}
	results, next, done, found := make([]*Result, o.Seeds), new(atomic.Int64), new(atomic.Int64), new(atomic.Int64)
	var work sync.WaitGroup
	for range min(workers, o.Seeds) {
		work.Go(func() {
			c, t := &crew{}, newTracer(o.Trace)
			defer c.close()
			for n := int(next.Add(1)) - 1; n < o.Seeds && !(o.Until && found.Load() > 0); n = int(next.Add(1)) - 1 {
				results[n] = one(r, o, o.Seed+uint64(n), c, t)
				found.Add(int64(len(results[n].Violations)))
				if d := int(done.Add(1)); o.Progress != nil {
					o.Progress(d, int(found.Load()))
				}
			}
		})
	}
	work.Wait()
	return sum(o, results)
}

// kept looks every rule up once.
func (r *Rules) kept() *Rules {
	k := *r
	k.Apply, k.Governor, k.Reconcile = keep(r.Symbols, r.Apply), keep(r.Symbols, r.Governor), keep(r.Symbols, r.Reconcile)
	return &k
}

func keep[T any](symbols []string, look func(string) T) func(string) T {
	all := map[string]T{}
	for _, symbol := range symbols {
		all[symbol] = look(symbol)
	}
	return func(symbol string) T {
		if t, ok := all[symbol]; ok {
			return t
		}
		return look(symbol)
	}
}

// one simulates one seed.
func one(r *Rules, o Options, seed uint64, c *crew, t *tracer) (result *Result) {
	t.reset()
	w := newWorld(r, seed, o.Hours, o.Faults, c, t)
	defer func() {
		if what := recover(); what != nil { // Of the chain or of the world: it must not happen, and is told like the rest.
			*c = crew{} // Whatever waits is left waiting.
			w.violated("panic", "%v\n%s", what, debug.Stack())
			result = w.result
		}
	}()
	w.live(o.Hours)
	return w.result
}

// sum adds results up in the order of their seeds.
func sum(o Options, results []*Result) *Result {
	all := &Result{
		Seed: o.Seed, Hours: o.Hours, Faults: map[Class]int{}, Violations: []Violation{}, Outcomes: map[ledger.Outcome]int{},
		Denied: map[string]int{}, Allowed: map[string]int{}, Refused: map[string]int{},
	}
	hash := sha256.New()
	for _, r := range results {
		if r == nil {
			break
		}
		all.Plans, all.Orders, all.Executed, all.Crashes = all.Plans+r.Plans, all.Orders+r.Orders, all.Executed+r.Executed, all.Crashes+r.Crashes
		all.VirtualSeconds, all.Unprotected = all.VirtualSeconds+r.VirtualSeconds, all.Unprotected+r.Unprotected
		all.Escalated += r.Escalated
		all.Violations = append(all.Violations, r.Violations...)
		add(all.Faults, r.Faults)
		add(all.Outcomes, r.Outcomes)
		add(all.Denied, r.Denied)
		add(all.Allowed, r.Allowed)
		add(all.Refused, r.Refused)
		all.Seeds++
		hash.Write([]byte(r.Trace))
		all.Trace = r.Trace
	}
	if len(results) != 1 {
		all.Trace = hex.EncodeToString(hash.Sum(nil))
	}
	return all
}

func add[K comparable](to, from map[K]int) {
	for k, n := range from {
		to[k] += n
	}
}

// sum takes what only the end of a process tells.
func (p *process) sum() {
	for _, k := range p.journal.state.Keys() { // In order: a sum of floats depends on it.
		pos := p.journal.state.Positions[k]
		p.w.result.Unprotected += pos.Unprotected(p.wall()).Seconds()
	}
	c := p.journal.state.Control.Counts
	p.w.result.Plans, p.w.result.Executed = c.Total, c.Executed
}

// WriteJSON writes the result.
func (r *Result) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(r) }
