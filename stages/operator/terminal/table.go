package terminal

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/sys/unix"
)

// columns are a table's: spare names those that a narrow terminal can do without, the first to go first.
type columns struct{ names, spare []string }

// Bounds of a table on a terminal.
const (
	widthDefault = 80 // of a terminal that does not say
	gap          = 2  // blanks between columns
	wrapFrom     = 32 // columns wider than this are folded rather than that others are left out
	wrapTo       = 10 // and no column is folded to less than this
)

// WidthOf is how wide a terminal is; COLUMNS says so where it is set.
func WidthOf(f *os.File) int {
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		return int(size.Col)
	}
	return widthDefault
}

// table writes rows: on a terminal within its width, elsewhere in full, so that other programs can read them.
func (t *Terminal) table(c columns, rows [][]string) error {
	if t.Width == 0 {
		w := tabwriter.NewWriter(t.Out, 0, 0, gap, ' ', 0)
		for _, cells := range append([][]string{c.names}, rows...) {
			fmt.Fprintln(w, strings.Join(cells, "\t"))
		}
		return w.Flush()
	}
	kept, widths := c.fit(rows, t.Width)
	w := table.NewWriter()
	w.SetOutputMirror(t.Out)
	w.SuppressTrailingSpaces()
	w.SetStyle(table.Style{Box: table.BoxStyle{PaddingRight: strings.Repeat(" ", gap), UnfinishedRow: "…"}, Size: table.SizeOptions{WidthMax: t.Width}})
	var shapes []table.ColumnConfig
	for i, width := range widths {
		shapes = append(shapes, table.ColumnConfig{Number: i + 1, WidthMax: width, WidthMaxEnforcer: text.WrapSoft})
	}
	w.SetColumnConfigs(shapes)
	w.AppendHeader(t.cells(c.names, kept))
	for _, cells := range rows {
		w.AppendRow(t.cells(cells, kept))
	}
	w.Render()
	return nil
}

// fit chooses the columns that a terminal has room for, and how wide each may be.
func (c columns) fit(rows [][]string, width int) (kept, widths []int) {
	for i := range c.names {
		kept = append(kept, i)
		widths = append(widths, len(c.names[i]))
		for _, cells := range rows {
			widths[i] = max(widths[i], text.StringWidth(cells[i]))
		}
	}
	room := func(most int) int {
		left := width
		for _, w := range widths {
			left -= min(w, most) + gap
		}
		return left
	}
	for _, name := range c.spare {
		if room(wrapFrom) >= 0 {
			break
		}
		i := slices.IndexFunc(kept, func(k int) bool { return c.names[k] == name })
		kept, widths = slices.Delete(kept, i, i+1), slices.Delete(widths, i, i+1)
	}
	for _, whole := range []bool{true, false} { // Words are broken only when that does not do.
		for room(width) < 0 {
			widest := -1
			for i, k := range kept {
				least := wrapTo
				if whole {
					least = max(least, longestWord(rows, k))
				}
				if widths[i] > least && (widest < 0 || widths[i] > widths[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			widths[widest]--
		}
	}
	return kept, widths
}

func longestWord(rows [][]string, column int) (longest int) {
	for _, cells := range rows {
		for _, word := range strings.Fields(cells[column]) {
			longest = max(longest, text.StringWidth(word))
		}
	}
	return longest
}

func (t *Terminal) cells(texts []string, kept []int) table.Row {
	row := make(table.Row, len(kept))
	for i, k := range kept {
		row[i] = t.colored(texts[k])
	}
	return row
}
