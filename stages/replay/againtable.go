package replay

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
)

// Bounds of what a table shows; JSON has all of it.
const (
	differencesShown = 20
	fieldsShown      = 6
)

// WriteTable shows the report to a person.
func (r *AgainReport) WriteTable(w io.Writer) error {
	var b strings.Builder
	t := frame()
	t.AppendHeader(table.Row{"KIND", "RECORDS", "EQUAL", "DIFFER", "NOT DECIDED", "WHY NOT"})
	for _, k := range r.Kinds {
		t.AppendRow(table.Row{k.Kind, k.Records, k.Equal, k.Differ, k.Undecided, wrapped(k.why(), whyWidth)})
	}
	fmt.Fprintf(&b, "%s\n\n", tight(t.Render()))
	if r.With != "" {
		r.writeChanges(&b)
	} else {
		r.writeDifferences(&b)
	}
	fmt.Fprintf(&b, "%d records, %d plans: %d decisions taken again, %d equal, %d differ; %d records are no decisions or lack an input\n",
		r.Records, r.Plans, r.Decided, r.Equal, r.Differ, r.Undecided)
	_, err := io.WriteString(w, b.String())
	return err
}

// whyWidth keeps the table within 100 columns.
const whyWidth = 38

func (k KindCount) why() string {
	var parts []string
	for _, w := range k.Why {
		text := w.Why
		if len(k.Why) > 1 {
			text = fmt.Sprintf("%d: %s", w.Records, text)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// wrapped breaks a text into lines at blanks.
func wrapped(text string, width int) string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return strings.Join(append(lines, line), "\n")
}

func (r *AgainReport) writeDifferences(b *strings.Builder) {
	for i, d := range r.Differences {
		if i == differencesShown {
			fmt.Fprintf(b, "and %d more; -o json shows all\n", len(r.Differences)-i)
			break
		}
		fmt.Fprintf(b, "record %d  %s  %s  %s %s\n", d.Seq, d.At.UTC().Format("2006-01-02 15:04:05.000"), d.Kind, d.Symbol, d.Plan.Short())
		for n, f := range d.Fields {
			if n == fieldsShown {
				fmt.Fprintf(b, "    and %d fields more\n", len(d.Fields)-n)
				break
			}
			fmt.Fprintf(b, "    %s: recorded %s, now %s\n", f.Field, cmp.Or(shorten(f.Recorded), "none"), cmp.Or(shorten(f.Now), "none"))
		}
	}
	if len(r.Differences) > 0 {
		b.WriteString("\n")
	}
}

func (r *AgainReport) writeChanges(b *strings.Builder) {
	if len(r.Changes) > 0 {
		t := frame()
		t.AppendHeader(table.Row{"GATE", "RECORDED", "WITH " + r.With, "PLANS"})
		for _, c := range r.Changes {
			t.AppendRow(table.Row{c.Gate, wrapped(c.Recorded, whyWidth), wrapped(c.Now, whyWidth), c.Plans})
		}
		fmt.Fprintf(b, "%s\n\n", tight(t.Render()))
		t = frame()
		t.AppendHeader(table.Row{"AT", "PLAN", "SYMBOL", "ACTION", "BOTH PERMITS", "GATES"})
		for i, p := range r.Touched {
			if i == differencesShown {
				break
			}
			var gates []string
			for _, c := range p.Changes {
				gates = append(gates, c.Gate)
			}
			t.AppendRow(table.Row{p.At.UTC().Format("01-02 15:04:05"), p.ID.Short(), p.Symbol, p.Action, p.Effect, strings.Join(gates, ", ")})
		}
		fmt.Fprintf(b, "%s\n", tight(t.Render()))
		if more := len(r.Touched) - differencesShown; more > 0 {
			fmt.Fprintf(b, "and %d plans more; -o json shows all\n", more)
		}
		b.WriteString("\n")
	}
	o := r.Outcome
	fmt.Fprintf(b, "%d plans are touched; both permits allowed %d and would allow %d: %d allowed → denied, %d denied → allowed, %d the same\n",
		len(r.Touched), o.AllowedRecorded, o.AllowedNow, o.AllowedDenied, o.DeniedAllowed, o.Same)
}
