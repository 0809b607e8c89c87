package simulate

import (
	"cmp"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"permitchain/ledger"
)

// Reproduce gives every violation the command that shows it again.
func (r *Result) Reproduce(command func(seed uint64) string) {
	for i := range r.Violations {
		r.Violations[i].Command = command(r.Violations[i].Seed)
	}
}

// count is a name and how often it came up.
type count struct {
	Name string
	N    int
}

// byCount orders counts, the most first.
func byCount[K ~string](m map[K]int) []count {
	var all []count
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, count{strings.TrimSpace(string(k)), m[k]})
	}
	slices.SortStableFunc(all, func(a, b count) int { return cmp.Compare(b.N, a.N) })
	return all
}

// Never are the limits and checks that let nothing pass: every verdict of a stage was a refusal.
func (r *Result) Never() []string {
	var never []string
	for _, stage := range []string{"governor", "position"} {
		passed, refused := 0, []count{}
		for _, c := range byCount(r.Allowed) {
			if strings.HasPrefix(c.Name, stage+" ") {
				passed += c.N
			}
		}
		for _, c := range byCount(r.Refused) {
			if strings.HasPrefix(c.Name, stage+" ") {
				refused = append(refused, c)
			}
		}
		if passed == 0 && len(refused) > 0 {
			never = append(never, fmt.Sprintf("%s never let anything pass: mostly %s (%d times)", stage, strings.TrimPrefix(refused[0].Name, stage+" "), refused[0].N))
		}
	}
	return never
}

// facts are what a reader wants to know first.
func (r *Result) facts() []fact {
	years := r.VirtualSeconds / (365.25 * 24 * 3600)
	return []fact{
		{"seeds", fmt.Sprintf("%d from %d, each %g hours with faults and %s without", r.Seeds, r.Seed, r.Hours, time.Duration(afterwards))},
		{"virtual time", fmt.Sprintf("%.4g years (%s)", years, (time.Duration(r.VirtualSeconds) * time.Second).String())},
		{"plans", fmt.Sprint(r.Plans)},
		{"orders sent", fmt.Sprint(r.Orders)},
		{"plans executed", fmt.Sprint(r.Executed)},
		{"crashes", fmt.Sprint(r.Crashes)},
		{"without a wanted stop", fmt.Sprintf("%.1f s", r.Unprotected)},
		{"settled by operator", fmt.Sprint(r.Escalated)},
		{"violations", fmt.Sprint(len(r.Violations))},
		{"trace", r.Trace},
	}
}

type fact struct{ Name, Value string }

// WriteTable writes the summary.
func (r *Result) WriteTable(w io.Writer) error {
	var b strings.Builder
	for _, f := range r.facts() {
		fmt.Fprintf(&b, "%-22s %s\n", f.Name, f.Value)
	}
	for _, part := range r.parts() {
		if len(part.Counts) == 0 {
			continue
		}
		t := table.NewWriter()
		t.SetStyle(table.StyleLight)
		t.AppendHeader(table.Row{part.Title, "times"})
		for _, c := range part.Counts {
			t.AppendRow(table.Row{c.Name, c.N})
		}
		b.WriteString("\n" + t.Render() + "\n")
	}
	for _, text := range r.Never() {
		b.WriteString("\n" + text + "\n")
	}
	for i, v := range r.Violations {
		if i == violationsShown {
			fmt.Fprintf(&b, "\nand %d more\n", len(r.Violations)-i)
			break
		}
		fmt.Fprintf(&b, "\nseed %d at %s, %s: %s\n  %s\n", v.Seed, v.At.Format("15:04:05.000"), v.Invariant, v.What, v.Command)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// violationsShown bounds how many are shown to people; JSON has all.
const violationsShown = 20

// part is one table or plot of a report.
type part struct {
	Title  string
	Counts []count
}

func (r *Result) parts() []part {
	outcomes := map[string]int{}
	for o, n := range r.Outcomes {
		if o != ledger.Pending {
			outcomes[string(o)] = n
		}
	}
	return []part{
		{"what became of plans", byCount(outcomes)},
		{"not executed, by stage and reason", byCount(r.Denied)},
		{"verdicts that let pass", byCount(r.Allowed)},
		{"verdicts that refused, and holds", byCount(r.Refused)},
		{"faults", byCount(r.Faults)},
	}
}

// WriteHTML writes a report that needs nothing beside itself.
func (r *Result) WriteHTML(w io.Writer) error {
	type bar struct {
		count
		Y, Text, Width int
	}
	type plot struct {
		Title  string
		Height int
		Bars   []bar
	}
	var plots []plot
	for _, p := range r.parts() {
		if len(p.Counts) == 0 {
			continue
		}
		one := plot{Title: p.Title, Height: 22 * len(p.Counts)}
		for i, c := range p.Counts {
			one.Bars = append(one.Bars, bar{c, 22 * i, 22*i + 15, max(1, 460*c.N/max(1, p.Counts[0].N))})
		}
		plots = append(plots, one)
	}
	return page.Execute(w, struct {
		Facts      []fact
		Never      []string
		Plots      []plot
		Violations []Violation
	}{r.facts(), r.Never(), plots, r.Violations})
}

// page is the report.
var page = template.Must(template.New("report").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>permitchain simulate</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
td,th{padding:.1rem 1rem .1rem 0;text-align:left;vertical-align:top}
svg{display:block;max-width:100%} text{font:12px system-ui,sans-serif;fill:currentColor} rect{fill:#3a6ea5}
.bad{color:#a00} code{overflow-wrap:anywhere}
@media (prefers-color-scheme:dark){body{color:#ddd;background:#181818} rect{fill:#6a9fd8} .bad{color:#f88}}
</style>
<h1>permitchain simulate</h1>
<table>{{range .Facts}}<tr><th>{{.Name}}</th><td><code>{{.Value}}</code></td></tr>{{end}}</table>
{{range .Never}}<p class="bad">{{.}}</p>{{end}}
{{if .Violations}}<h2 class="bad">Violations</h2>
<table><tr><th>seed</th><th>invariant</th><th>what</th></tr>
{{range .Violations}}<tr><td>{{.Seed}}</td><td>{{.Invariant}}</td><td>{{.What}}<br><code>{{.Command}}</code></td></tr>{{end}}</table>{{end}}
{{range .Plots}}<h2>{{.Title}}</h2>
<svg viewBox="0 0 900 {{.Height}}" width="900" height="{{.Height}}" role="img" aria-label="{{.Title}}">
{{range .Bars}}<text x="330" y="{{.Text}}" text-anchor="end">{{.Name}}</text><rect x="340" y="{{.Y}}" width="{{.Width}}" height="18" rx="2"/><text x="890" y="{{.Text}}" text-anchor="end">{{.N}}</text>
{{end}}</svg>{{end}}
</html>
`))
