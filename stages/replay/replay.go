// Package replay decides recorded logs again: the same kernels that run in the daemon are
// asked, in virtual time, about every plan the logs speak of, and their answers are laid
// beside the recorded ones.
//
// Contract: it decides and executes nothing. Mode, auto-approve, limits used, tranches and
// amounts are what a log records, or what Overrides say instead; what a log does not say about
// ages, holds and cooldowns counts as in order. A verdict whose other inputs a log does not
// hold is shown as recorded, and says that it was not decided. Each plan stands by itself: that
// an earlier one would now execute changes nothing for a later one, because amounts and usage
// stay the recorded ones.
//
// A line is told from its content (see text.go and jsonlines.go). Blank lines, code fences and
// rules are layout and not counted; any other line that is not understood is counted as unknown
// and kept to be shown. Plans of an export are decided on the folded state of its journal, under
// the configuration it records; plans of all else under Options.Rules.
//
// A journal of our own is decided again in another way (Again): record by record on the fold of those before it, under the
// configuration in force, and every payload must come out the same to the byte; under other rules it tells which plans that
// touches. Tell does it for the sake of one plan: its gates, and the least change that would have turned its outcome.
//
// Only OpenLogs touches the file system. The package knows nothing of config.yaml: its caller
// splits what was set with ParseSets, lays Overlay(rest) over its configuration, and makes Rules of that.
package replay

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/stages/apply"
	"permitchain/stages/governor"
	"permitchain/stages/reconcile"
)

// Source is one log to read.
type Source struct {
	Name string
	R    io.Reader
}

// Rules are what the kernels decide by, for one symbol.
type Rules struct {
	Apply     apply.Rules
	Governor  governor.Rules
	Reconcile reconcile.Config
}

// Options are what a replay is run with.
type Options struct {
	Rules     func(symbol string) Rules
	Overrides Overrides
	// Markets are the lots of symbols whose log does not record them. A symbol that is in neither counts in
	// steps of 0.001, as the reported system counted every symbol.
	Markets map[string]exchange.Market
	// Recorded makes rules of a configuration that an export records, Overlay included. Nil: Rules decide exports too.
	Recorded func(text string) (func(symbol string) Rules, error)
	// Unknown keeps every unknown line, not only the first few.
	Unknown bool
}

// Report is what came of a replay; its JSON is SPEC §12's.
type Report struct {
	Source       []string      `json:"source"`
	Lines        int           `json:"lines"`
	UnknownLines int           `json:"unknown_lines"`
	Plans        int           `json:"plans"`
	Agree        int           `json:"agree"`
	Differ       int           `json:"differ"`
	Undecided    int           `json:"undecided"`
	Decisions    []Decision    `json:"decisions"`
	Unknown      []UnknownLine `json:"unknown,omitempty"` // with Options.Unknown

	first []UnknownLine // the first unknown lines, where not all were asked for
}

// UnknownLine is a line that was not understood.
type UnknownLine struct {
	Source string `json:"source"`
	Line   int    `json:"line"`
	Text   string `json:"text"`
	Why    string `json:"why,omitempty"` // where it is nearly a record
}

// Decision is one plan: what is decided now, and what was recorded.
type Decision struct {
	PlanID       string          `json:"plan_id"`
	Symbol       string          `json:"symbol"`
	Side         ledger.Side     `json:"side"`
	Action       ledger.Action   `json:"action"`     // "" where no log says
	KillScore    *float64        `json:"kill_score"` // null where no log says
	Decision     ledger.Decision `json:"decision"`
	Reason       ledger.Reason   `json:"reason,omitempty"` // planning's, of a plan that is not to be executed
	Governor     GovernorVerdict `json:"governor"`
	Position     PositionVerdict `json:"position"`
	WouldExecute bool            `json:"would_execute"`
	Qty          string          `json:"qty"`
	Duplicates   int             `json:"duplicates"`
	Recorded     Recorded        `json:"recorded"`
	Agrees       *bool           `json:"agrees"` // null: undecided

	plan *plan
}

// GovernorVerdict is the governor's. Decided is false, and the verdict the recorded one, where inputs are missing.
type GovernorVerdict struct {
	Verdict  ledger.Ruling `json:"verdict"`
	Reason   ledger.Reason `json:"reason"`
	Qty      string        `json:"qty,omitempty"`
	Notional string        `json:"notional,omitempty"`
	Decided  *bool         `json:"decided,omitempty"`
}

// PositionVerdict is the position permit's, as GovernorVerdict is the governor's.
type PositionVerdict struct {
	Verdict ledger.Ruling `json:"verdict"`
	Reason  ledger.Reason `json:"reason"`
	Context ledger.Facts  `json:"context"`
	Decided *bool         `json:"decided,omitempty"`
}

// Recorded is what the logs say was ruled, "" where they do not.
type Recorded struct {
	Governor       ledger.Ruling `json:"governor"`
	Position       ledger.Ruling `json:"position"`
	PositionReason ledger.Reason `json:"position_reason"`
}

// Differs tells whether any plan came out another way than recorded.
func (r *Report) Differs() bool { return r.Differ > 0 }

// Run reads every source and decides every plan in it. An error names the file and line; a *SetError is the caller's
// to report as wrong usage.
func Run(o Options, sources []Source) (*Report, error) {
	b := &book{o: o, byID: map[string][]*plan{}, used: map[string]bool{}}
	report := &Report{Source: []string{}, Decisions: []Decision{}}
	for _, s := range sources {
		report.Source = append(report.Source, s.Name)
		r := &reader{book: b, name: s.Name}
		if err := r.read(s.R); err != nil {
			return nil, err
		}
		report.Lines += r.lines
	}
	b.observe()
	b.nameSymbols()
	slices.SortStableFunc(b.plans, func(x, y *plan) int { return x.order.Compare(y.order) })
	for _, p := range b.plans {
		b.decide(p)
		report.add(p.decision())
	}
	report.UnknownLines, report.first = b.unknown, b.listed
	if o.Unknown {
		report.Unknown, report.first = b.listed, nil
	}
	if report.Plans == 0 {
		return report, nil // What was set is unused, but that is not what is wrong.
	}
	return report, b.unused()
}

func (r *Report) add(d Decision) {
	r.Plans++
	switch {
	case d.Agrees == nil:
		r.Undecided++
	case *d.Agrees:
		r.Agree++
	default:
		r.Differ++
	}
	r.Decisions = append(r.Decisions, d)
}

// ErrNoPlans is for the caller to say of a report without plans: most likely they are something else.
var ErrNoPlans = errors.New("no plan was found; understood are the reported system's text log, JSON lines of proposals, snapshots and marks, " +
	"and what permitchain ledger export writes")

// OpenLogs opens every path; "-" is stdin. Close closes all of them.
func OpenLogs(paths []string, stdin io.Reader) (sources []Source, closeAll func() error, err error) {
	var files []*os.File
	closeAll = func() error {
		var errs []error
		for _, f := range files {
			errs = append(errs, f.Close())
		}
		return errors.Join(errs...)
	}
	for _, path := range paths {
		if path == "-" {
			sources = append(sources, Source{"-", stdin})
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("open log: %w", err), closeAll())
		}
		files = append(files, f)
		sources = append(sources, Source{path, f})
	}
	return sources, closeAll, nil
}

// book gathers what all sources say, plan by plan.
type book struct {
	o       Options
	plans   []*plan
	byID    map[string][]*plan // by the first 8 digits
	seen    []observation
	used    map[string]bool // keys of Overrides that some plan was decided with
	unknown int
	listed  []UnknownLine
}

// listedMax is how many unknown lines are kept where not all are asked for.
const listedMax = 3

// textMax bounds what is kept of an unknown line.
const textMax = 200

func (b *book) addUnknown(u UnknownLine) {
	b.unknown++
	if b.o.Unknown || len(b.listed) < listedMax {
		b.listed = append(b.listed, u)
	}
}

// plan is everything the logs say of one plan, and then what is decided about it.
type plan struct {
	id         string // the longest form seen
	at         time.Time
	order      time.Time // at, or the time of the lines around it
	symbol     string
	side       ledger.Side
	action     ledger.Action
	score      *float64
	planned    ledger.Decision
	reason     ledger.Reason // planning's
	mode       ledger.Mode
	approved   bool // by mode alone, as the log says
	governor   []heard
	position   []heard
	listed     [2]ledger.Ruling // governor's and position's word where only a list gives it
	duplicates int
	lot        ledger.Lot
	newSL      ledger.Price
	proposed   *inputs // of a plan that is known from its proposal
	partial    bool    // from an export that does not begin at the beginning, or breaks off before it
	folded     bool    // decided on the state of its journal

	shown   [2]ruled // the last answer of governor and position
	qty     ledger.Qty
	granted bool
	decided bool // at least one verdict was, and there is a recorded one to compare it with
	differs bool
}

// heard is one verdict as it was recorded; facts are its numbers.
type heard struct {
	ruling ledger.Ruling
	reason ledger.Reason
	facts  ledger.Facts
}

// ruled is a verdict as it is shown, beside the recorded one.
type ruled struct {
	heard
	recorded heard
	decided  bool
}

// The stages a plan is judged by, as indices.
const (
	byGovernor = iota
	byPosition
)

// find is the plan an id means, made where there is none: 8 digits match by prefix, the latest of several.
func (b *book) find(id string) *plan {
	same := b.byID[id[:shortID]]
	for _, p := range slices.Backward(same) {
		if p.id == id || len(id) == shortID {
			return p
		}
		if len(p.id) == shortID {
			p.id = id
			return p
		}
	}
	p := &plan{id: id, side: ledger.Both}
	b.plans = append(b.plans, p)
	b.byID[id[:shortID]] = append(same, p)
	return p
}

// nameSymbols gives the plans that were only listed the one symbol all others are about, where there is just one.
func (b *book) nameSymbols() {
	one := ""
	for _, p := range b.plans {
		if p.symbol != "" && one != "" && p.symbol != one {
			return
		}
		one = cmp.Or(one, p.symbol)
	}
	for _, p := range b.plans {
		p.symbol = cmp.Or(p.symbol, one)
	}
}

// decision is the plan as the report shows it.
func (p *plan) decision() Decision {
	g, x := p.shown[byGovernor], p.shown[byPosition]
	d := Decision{
		PlanID: p.id, Symbol: p.symbol, Side: p.side, Action: p.action, KillScore: p.score, Decision: p.planned, Reason: p.reason,
		Governor: GovernorVerdict{g.ruling, g.reason, g.facts.Get("qty"), g.facts.Get("notional"), onlyFalse(g.decided)},
		Position: PositionVerdict{x.ruling, x.reason, without(x.facts, "safe_qty"), onlyFalse(x.decided)},
		Qty:      "0", WouldExecute: p.granted, Duplicates: p.duplicates,
		Recorded: Recorded{g.recorded.ruling, x.recorded.ruling, x.recorded.reason},
		plan:     p,
	}
	if p.granted {
		d.Qty = p.qty.String()
	}
	if p.decided {
		agrees := !p.differs
		d.Agrees = &agrees
	}
	return d
}

func onlyFalse(b bool) *bool {
	if b {
		return nil
	}
	return &b
}

func without(facts ledger.Facts, name string) ledger.Facts {
	return slices.DeleteFunc(slices.Clone(facts), func(f ledger.Fact) bool { return f.Name == name })
}
