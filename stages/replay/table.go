package replay

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"permitchain/ledger"
)

// WriteTable shows the report to a person, within 120 columns where reasons and ids allow. Where a decision is not the
// recorded one, both are shown with an arrow between them.
func (r *Report) WriteTable(w io.Writer, color bool) error {
	paint := painter(color)
	t := frame()
	t.AppendHeader(table.Row{"PLAN", "WHAT", "GOVERNOR", "POSITION", "WOULD SEND", "RESULT"})
	for i, d := range r.Decisions {
		if i > 0 {
			t.AppendRow(table.Row{" "})
		}
		t.AppendRow(table.Row{
			d.name(), d.what(), d.plan.shown[byGovernor].text(paint, governorNumbers[:], ledger.Qty{}),
			d.plan.shown[byPosition].text(paint, positionNumbers[:], d.plan.lot.Step), d.send(), d.result(paint),
		})
	}
	var b strings.Builder
	if len(r.Decisions) > 0 {
		fmt.Fprintf(&b, "%s\n\n%s\n\n", tight(t.Render()), tight(r.summary().Render()))
	}
	fmt.Fprintf(&b, "%d plans: %d agree, %d differ, %d undecided\n%d lines, %d of them unknown", r.Plans, r.Agree, r.Differ, r.Undecided, r.Lines, r.UnknownLines)
	unknown := slices.Concat(r.Unknown, r.first)
	if len(unknown) < r.UnknownLines {
		b.WriteString(" (--unknown shows all)")
	}
	b.WriteString("\n")
	for _, u := range unknown {
		fmt.Fprintf(&b, "  %s:%d: %s\n", u.Source, u.Line, u.Text)
		if u.Why != "" {
			fmt.Fprintf(&b, "      %s\n", shorten(u.Why))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// summary counts verdicts by stage and reason, recorded and decided.
func (r *Report) summary() table.Writer {
	type count struct{ recorded, shown, undecided int }
	type line struct {
		stage  string
		ruling ledger.Ruling
		reason ledger.Reason
	}
	counts := map[line]*count{}
	at := func(stage string, h heard) *count {
		l := line{stage, h.ruling, h.reason}
		if counts[l] == nil {
			counts[l] = new(count)
		}
		return counts[l]
	}
	for _, d := range r.Decisions {
		for stage, name := range []string{"governor", "position"} {
			v := d.plan.shown[stage]
			if v.recorded.ruling != "" {
				h := v.recorded
				if h.reason == "" && v.decided && v.ruling == h.ruling {
					h.reason = v.reason // The reported governor gives no reason for an ALLOW.
				}
				at(name, h).recorded++
			}
			switch {
			case v.ruling == "":
			case v.decided:
				at(name, v.heard).shown++
			default:
				at(name, v.heard).undecided++
			}
		}
	}
	lines := make([]line, 0, len(counts))
	for l := range counts {
		lines = append(lines, l)
	}
	slices.SortFunc(lines, func(x, y line) int {
		return cmp.Or(strings.Compare(x.stage, y.stage), strings.Compare(string(x.ruling), string(y.ruling)), strings.Compare(string(x.reason), string(y.reason)))
	})
	t := frame()
	t.AppendHeader(table.Row{"STAGE", "VERDICT", "REASON", "RECORDED", "DECIDED", "NOT DECIDED"})
	for _, l := range lines {
		c := counts[l]
		t.AppendRow(table.Row{l.stage, l.ruling, cmp.Or(string(l.reason), "(not recorded)"), c.recorded, c.shown, c.undecided})
	}
	return t
}

// frame is a table without lines, whose columns are two blanks apart.
func frame() table.Writer {
	t := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format.Header = text.FormatDefault
	t.SetStyle(style)
	return t
}

// tight takes off the blanks that fill the last column.
func tight(rendered string) string {
	lines := strings.Split(rendered, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// name is the plan's id and time.
func (d *Decision) name() string {
	at := d.plan.at
	switch {
	case at.IsZero():
		return d.PlanID
	case at.Year() >= unixYear:
		return d.PlanID + "\n" + at.Format("2006-01-02\n15:04:05")
	case at.Month() == time.January && at.Day() == 1:
		return d.PlanID + "\n" + at.Format("15:04:05")
	default:
		return d.PlanID + "\n" + at.Format("Jan _2\n15:04:05")
	}
}

func (d *Decision) what() string {
	symbol := ledger.Key{Symbol: d.Symbol, Side: d.Side}.Label()
	score := "K ?"
	if d.KillScore != nil {
		score = fmt.Sprintf("K %.3f", *d.KillScore)
	}
	lines := []string{cmp.Or(symbol, "symbol ?"), cmp.Or(string(d.Action), "action ?"), score}
	if d.Reason != "" || d.Decision != ledger.Execute {
		lines = append(lines, strings.TrimSpace(string(d.Decision)+" "+string(d.Reason)))
	}
	return strings.Join(lines, "\n")
}

func (d *Decision) send() string {
	if !d.WouldExecute {
		return "nothing"
	}
	return d.plan.qty.Padded(d.plan.lot.Step)
}

func (d *Decision) result(paint func(string, ...text.Color) string) string {
	result := paint("undecided", text.FgYellow)
	if d.Agrees != nil && *d.Agrees {
		result = paint("agrees", text.FgGreen)
	} else if d.Agrees != nil {
		result = paint("DIFFERS", text.FgRed, text.Bold)
	}
	if d.Duplicates == 0 {
		return result
	}
	fate := "decided"
	switch g, x := d.Recorded.Governor, d.Recorded.Position; {
	case g == ledger.Deny || x == ledger.Deny:
		fate = "decided and denied"
	case g == ledger.Allow && x == ledger.Allow:
		fate = "decided and allowed"
	}
	return fmt.Sprintf("%s\n%d repeats:\n%s", result, d.Duplicates, fate)
}

// shownNumber is one number of a verdict that a row has room for, with its name for people.
type shownNumber struct{ name, label string }

// Those numbers, by the lines they stand on. Only the position's are counted in the market's step.
var (
	governorNumbers = [...][2]shownNumber{{{"qty", "qty"}, {"notional", "USD"}}, {{"used", "used"}, {"limit", "of"}}, {{"used_usd", "used USD"}, {"limit_usd", "of"}}}
	positionNumbers = [...][2]shownNumber{{{"exchange_amt", "exchange"}, {"ledger_amt", "ledger"}}, {{"diff", "diff"}, {"tolerance", "tolerance"}}}
)

// text is a verdict in a few lines: ruling, reason and numbers, each with what was recorded before it where that differs.
func (v ruled) text(paint func(string, ...text.Color) string, numbers [][2]shownNumber, step ledger.Qty) string {
	if v.ruling == "" {
		return paint("not recorded", text.Faint)
	}
	lines := []string{changed(string(v.recorded.ruling), string(v.ruling)), string(v.reason)}
	if !v.decided {
		lines[0] += paint(" (as recorded)", text.Faint)
	} else if v.recorded.reason != "" && v.recorded.reason != v.reason {
		lines = append(lines, "was "+string(v.recorded.reason))
	}
	for _, row := range numbers {
		var parts []string
		for _, n := range row {
			if value := v.facts.Get(n.name); value != "" {
				was := v.recorded.facts.Get(n.name)
				if was != "" && sameNumber(was, value) {
					was = value
				}
				parts = append(parts, n.label+" "+changed(padded(was, step), padded(value, step)))
			}
		}
		lines = append(lines, strings.Join(parts, ", "))
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { return l == "" })
	return strings.Join(lines, "\n")
}

// changed is now, with what was recorded before it where that is something else.
func changed(was, now string) string {
	if was == "" || was == now {
		return now
	}
	return was + " → " + now
}

// padded gives an amount as many digits as the market's step has; without a step it stays as it is.
func padded(value string, step ledger.Qty) string {
	q, ok := decimalOf(value)
	if !ok || step.IsZero() {
		return value
	}
	return q.Padded(step)
}

func painter(color bool) func(string, ...text.Color) string {
	if !color {
		return func(s string, _ ...text.Color) string { return s }
	}
	return func(s string, colors ...text.Color) string {
		return text.Colors(colors).EscapeSeq() + s + text.EscapeReset
	}
}
