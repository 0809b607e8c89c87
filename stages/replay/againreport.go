package replay

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"permitchain/ledger"
)

// AgainReport is what came of deciding a journal again.
type AgainReport struct {
	Source      string       `json:"source"`
	With        string       `json:"with,omitzero"` // the configuration that decided in place of the recorded ones
	Records     uint64       `json:"records"`
	Plans       int          `json:"plans"`
	Decided     int          `json:"decided"`
	Equal       int          `json:"equal"`
	Differ      int          `json:"differ"`
	Undecided   int          `json:"undecided"`
	Kinds       []KindCount  `json:"kinds"`
	Differences []Difference `json:"differences"`
	// With a configuration of its own: what changes, by gate, and for exactly which plans.
	Changes []Change      `json:"changes,omitempty"`
	Touched []TouchedPlan `json:"touched,omitempty"`
	Outcome *Outcomes     `json:"outcome,omitempty"`

	kinds   map[ledger.Kind]*KindCount
	whys    map[ledger.Kind]map[string]int
	changes map[Change]int
	touched map[ledger.PlanID]int // index into Touched
}

// KindCount is what came of the records of one kind.
type KindCount struct {
	Kind      ledger.Kind `json:"kind"`
	Records   int         `json:"records"`
	Equal     int         `json:"equal"`
	Differ    int         `json:"differ"`
	Undecided int         `json:"undecided"`
	Why       []WhyNot    `json:"why,omitempty"` // they are not decided
}

// WhyNot is one reason why records are not decided again.
type WhyNot struct {
	Why     string `json:"why"`
	Records int    `json:"records"`
}

// Difference is a record that comes out another way.
type Difference struct {
	Seq    uint64        `json:"seq"`
	At     time.Time     `json:"at"`
	Kind   ledger.Kind   `json:"kind"`
	Plan   ledger.PlanID `json:"plan_id,omitzero"`
	Symbol string        `json:"symbol,omitzero"`
	Fields []FieldChange `json:"fields"`
}

// FieldChange is one field of a record, as recorded and as decided now; "" is a field that is not there.
type FieldChange struct {
	Field    string `json:"field"`
	Recorded string `json:"recorded"`
	Now      string `json:"now"`
}

// Change is what another configuration makes of a verdict, and of how many plans.
type Change struct {
	Gate     string `json:"gate"` // planning, governor, position or execution
	Recorded string `json:"recorded"`
	Now      string `json:"now"`
	Plans    int    `json:"plans"`
}

// TouchedPlan is a plan that another configuration decides otherwise.
type TouchedPlan struct {
	ID      ledger.PlanID `json:"plan_id"`
	Symbol  string        `json:"symbol"`
	Action  ledger.Action `json:"action"`
	At      time.Time     `json:"at"`
	Changes []Change      `json:"changes"`
	Effect  string        `json:"effect"` // what it does to both permits together
}

// Outcomes count the plans whose permits were decided, by what both said together.
type Outcomes struct {
	Same            int `json:"same"`
	AllowedDenied   int `json:"allowed_then_denied_now"`
	DeniedAllowed   int `json:"denied_then_allowed_now"`
	AllowedNow      int `json:"allowed_now"`
	AllowedRecorded int `json:"allowed_recorded"`
}

func newAgainReport(with bool) *AgainReport {
	r := &AgainReport{
		Differences: []Difference{}, kinds: map[ledger.Kind]*KindCount{}, whys: map[ledger.Kind]map[string]int{}, changes: map[Change]int{}, touched: map[ledger.PlanID]int{},
	}
	if with {
		r.Outcome = &Outcomes{}
	}
	return r
}

// Differs tells whether any decision came out another way than recorded.
func (r *AgainReport) Differs() bool { return r.Differ > 0 }

func (r *AgainReport) kind(rec ledger.Record) *KindCount {
	k := rec.Event.Kind()
	c := r.kinds[k]
	if c == nil {
		c = &KindCount{Kind: k}
		r.kinds[k] = c
	}
	c.Records++
	r.Records++
	if k == ledger.KindPlanDecided {
		r.Plans++
	}
	return c
}

func (r *AgainReport) equal(rec ledger.Record) {
	r.kind(rec).Equal++
	r.Equal++
}

func (r *AgainReport) undecided(rec ledger.Record, why string) {
	c := r.kind(rec)
	c.Undecided++
	r.Undecided++
	if r.whys[c.Kind] == nil {
		r.whys[c.Kind] = map[string]int{}
	}
	r.whys[c.Kind][why]++
}

// differ notes a record that comes out another way; now is nil where nothing would be written.
func (r *AgainReport) differ(rec ledger.Record, plan ledger.PlanID, s *ledger.State, recorded, again []byte, now ledger.Event) {
	r.kind(rec).Differ++
	r.Differ++
	d := Difference{Seq: rec.Seq, At: rec.At, Kind: rec.Event.Kind(), Plan: plan, Symbol: symbolOf(rec.Event, s)}
	switch {
	case now == nil:
		d.Fields = []FieldChange{{"record", string(d.Kind), "none"}}
	case now.Kind() != d.Kind:
		d.Fields = []FieldChange{{"record", string(d.Kind), string(now.Kind()) + " " + words(now)}}
	default:
		d.Fields = differences(recorded, again)
	}
	r.Differences = append(r.Differences, d)
	r.touch(rec, d, s, now)
}

// miss notes a record that a decision would have had.
func (r *AgainReport) miss(b batch, s *ledger.State) {
	r.Differ++
	d := Difference{Seq: b.seq, At: b.at, Kind: b.expected[0].Kind(), Plan: b.plan, Fields: []FieldChange{{"record after it", "none", words(b.expected[0])}}}
	if p := s.Plans[b.plan]; p != nil {
		d.Symbol = p.Proposal.Symbol
	}
	r.Differences = append(r.Differences, d)
}

// touch keeps what another configuration does to a plan.
func (r *AgainReport) touch(rec ledger.Record, d Difference, s *ledger.State, now ledger.Event) {
	if r.Outcome == nil || d.Plan == "" {
		return
	}
	c := Change{Gate: gateOf(d.Kind), Recorded: words(rec.Event), Now: "nothing"}
	if now != nil {
		c.Now = words(now)
	}
	if c.Recorded == c.Now && len(d.Fields) > 0 {
		c.Recorded, c.Now = c.Recorded+", "+d.Fields[0].text(d.Fields[0].Recorded), d.Fields[0].text(d.Fields[0].Now)
		if strings.ContainsAny(c.Now, "0123456789") { // Numbers of single plans would make a line of each.
			c.Recorded, c.Now = words(rec.Event)+", another "+d.Fields[0].Field, words(now)
		}
	}
	r.changes[c]++
	i, known := r.touched[d.Plan]
	if !known {
		i = len(r.Touched)
		r.touched[d.Plan] = i
		t := TouchedPlan{ID: d.Plan, Symbol: d.Symbol, At: rec.At, Effect: "none on its permits"}
		if p := s.Plans[d.Plan]; p != nil {
			t.Action = p.Proposal.Action
		} else if e, ok := rec.Event.(*ledger.PlanDecided); ok {
			t.Action = e.Proposal.Action
		}
		r.Touched = append(r.Touched, t)
	}
	c.Plans = 1
	r.Touched[i].Changes = append(r.Touched[i].Changes, c)
}

func (f FieldChange) text(value string) string { return f.Field + " " + cmp.Or(value, "none") }

func (r *AgainReport) settle(id ledger.PlanID, was, is bool) {
	if r.Outcome == nil {
		return
	}
	effect := ""
	switch {
	case was == is:
		r.Outcome.Same++
	case was:
		r.Outcome.AllowedDenied++
		effect = "allowed → denied"
	default:
		r.Outcome.DeniedAllowed++
		effect = "denied → allowed"
	}
	if was {
		r.Outcome.AllowedRecorded++
	}
	if is {
		r.Outcome.AllowedNow++
	}
	if i, known := r.touched[id]; known && effect != "" {
		r.Touched[i].Effect = effect
	}
}

func (r *AgainReport) finish() {
	r.Decided = r.Equal + r.Differ
	for _, k := range slices.Sorted(maps.Keys(r.kinds)) {
		c := *r.kinds[k]
		for _, why := range slices.Sorted(maps.Keys(r.whys[k])) {
			c.Why = append(c.Why, WhyNot{why, r.whys[k][why]})
		}
		r.Kinds = append(r.Kinds, c)
	}
	for c, n := range r.changes {
		c.Plans = n
		r.Changes = append(r.Changes, c)
	}
	slices.SortFunc(r.Changes, func(a, b Change) int {
		return cmp.Or(b.Plans-a.Plans, strings.Compare(a.Gate, b.Gate), strings.Compare(a.Recorded, b.Recorded), strings.Compare(a.Now, b.Now))
	})
}

func gateOf(k ledger.Kind) string {
	switch k {
	case ledger.KindPlanDecided, ledger.KindPlanRepeated:
		return "planning"
	case ledger.KindGovernorDecided:
		return "governor"
	case ledger.KindPositionDecided:
		return "position"
	default:
		return "execution"
	}
}

func symbolOf(event ledger.Event, s *ledger.State) string {
	switch e := event.(type) {
	case *ledger.PlanDecided:
		return e.Proposal.Symbol
	case *ledger.FillBooked:
		return e.Trade.Symbol
	}
	if p := s.Plans[planOf(event)]; p != nil {
		return p.Proposal.Symbol
	}
	return ""
}

// words are what an event decides, without what differs from plan to plan.
func words(event ledger.Event) string {
	switch e := event.(type) {
	case *ledger.PlanDecided:
		return strings.TrimSpace(string(e.Decision) + " " + string(e.Reason))
	case *ledger.GovernorDecided:
		return verdictWords(e.Verdicts)
	case *ledger.PositionDecided:
		return verdictWords(e.Verdicts)
	case *ledger.StepEnded:
		return strings.TrimSpace(fmt.Sprintf("step %s %s", e.Outcome, e.Reason))
	case *ledger.PlanEnded:
		return strings.TrimSpace(fmt.Sprintf("plan %s %s", e.Outcome, e.Reason))
	case *ledger.RunStateChanged:
		return fmt.Sprintf("run state %s %s", e.To, e.Reason)
	default:
		return string(event.Kind())
	}
}

// differences are the fields in which two payloads differ, in order of their names.
func differences(recorded, now []byte) []FieldChange {
	was, is := map[string]string{}, map[string]string{}
	flatten("", recorded, was)
	flatten("", now, is)
	var all []FieldChange
	for _, field := range slices.Sorted(maps.Keys(was)) {
		if is[field] != was[field] {
			all = append(all, FieldChange{field, was[field], is[field]})
		}
	}
	for _, field := range slices.Sorted(maps.Keys(is)) {
		if _, both := was[field]; !both {
			all = append(all, FieldChange{field, "", is[field]})
		}
	}
	if len(all) == 0 {
		all = []FieldChange{{"the order of its fields", string(recorded), string(now)}}
	}
	return all
}

// flatten writes every leaf of a JSON value under its path.
func flatten(path string, text []byte, into map[string]string) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) == nil {
		leaves(path, v, into)
	}
}

func leaves(path string, v any, into map[string]string) {
	under := func(name string) string { return strings.TrimPrefix(path+"."+name, ".") }
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			leaves(under(name), member, into)
		}
	case []any:
		for i, member := range v {
			leaves(under(fmt.Sprint(i)), member, into)
		}
	default:
		into[path] = fmt.Sprint(v)
	}
}

// planOf is the plan that a record speaks of, "" where it speaks of none.
func planOf(event ledger.Event) ledger.PlanID {
	switch e := event.(type) {
	case *ledger.PlanDecided:
		return e.ID
	case *ledger.PlanRepeated:
		return e.ID
	case *ledger.GovernorDecided:
		return e.ID
	case *ledger.PositionDecided:
		return e.ID
	case *ledger.StepGranted:
		return e.ID
	case *ledger.IntentOpened:
		return e.Intent.Plan
	case *ledger.StepEnded:
		return e.ID
	case *ledger.PlanEnded:
		return e.ID
	default:
		return ""
	}
}

func isOfExecution(event ledger.Event) bool {
	switch event.(type) {
	case *ledger.StepGranted, *ledger.IntentOpened, *ledger.StepEnded, *ledger.PlanEnded:
		return true
	default:
		return false
	}
}

// verdictWords are verdicts in a few words.
func verdictWords(vs []ledger.Verdict) string {
	var all []string
	for _, v := range vs {
		all = append(all, string(v.Ruling)+" "+string(v.Reason))
	}
	return strings.Join(all, "; ")
}
