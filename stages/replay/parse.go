package replay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// lineMax bounds one line; nothing that is recorded comes near it.
const lineMax = 1 << 20

// reader reads one source into the book.
type reader struct {
	*book
	name    string
	line    int       // its number in the file
	lines   int       // those that are not layout
	at      time.Time // of the line; zero where it says none
	last    time.Time // of the last line that says one
	pending *heard    // the position verdict that the next context belongs to
	of      *plan     // its plan
	journal *journal  // of an export, once its first line has been seen
}

// stray is a line that is nearly a record: it is unknown, and says why.
type stray struct{ why string }

func (e *stray) Error() string { return e.why }

func (r *reader) read(from io.Reader) error {
	scan := bufio.NewScanner(from)
	scan.Buffer(make([]byte, 64<<10), lineMax)
	for scan.Scan() {
		r.line++
		text := tidy(scan.Text(), r.line == 1)
		if isLayout(text) {
			continue
		}
		r.lines++
		known, err := r.record(text)
		var near *stray
		if errors.As(err, &near) {
			known = false
		} else if err != nil {
			return fmt.Errorf("read %s:%d: %w", r.name, r.line, err)
		}
		if !known {
			u := UnknownLine{Source: r.name, Line: r.line, Text: shorten(text)}
			if near != nil {
				u.Why = near.why
			}
			r.addUnknown(u)
		}
	}
	if err := scan.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("read %s:%d: the line is longer than %d bytes", r.name, r.line+1, lineMax)
	} else if err != nil {
		return fmt.Errorf("read %s:%d: %w", r.name, r.line+1, err)
	}
	return nil
}

// record tells whether a line is one, after its prefixes are off.
func (r *reader) record(text string) (bool, error) {
	text = unmarked(r.prefix(unmarked(text)))
	if !r.at.IsZero() {
		r.last = r.at
	}
	if strings.HasPrefix(text, "{") {
		return r.object(text)
	}
	if strings.HasPrefix(text, "context={") {
		return r.context(text), nil
	}
	return r.message(text) || r.item(text), nil
}

// tidy takes off what editors and terminals add to a line.
func tidy(line string, first bool) string {
	if first {
		line = strings.TrimPrefix(line, "\ufeff")
	}
	if strings.IndexByte(line, '\x1b') >= 0 {
		line = uncoloured(line)
	}
	return strings.TrimSpace(line)
}

// uncoloured takes off ANSI control sequences: ESC [ … and a letter.
func uncoloured(line string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(line, "\x1b[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		end := strings.IndexFunc(after, func(c rune) bool { return c >= '@' && c <= '~' })
		line = after[end+1:]
	}
}

// isLayout tells whether a line is empty, a code fence or a rule.
func isLayout(line string) bool {
	if line == "" || strings.HasPrefix(line, "```") || strings.HasPrefix(line, "~~~") {
		return true
	}
	return len(line) >= 3 && strings.Trim(line, line[:1]) == "" && strings.ContainsAny(line[:1], "-*_=")
}

// unmarked takes off what makes a line an item of a list or a quotation.
func unmarked(line string) string {
	for {
		rest := line
		for _, mark := range []string{"> ", "- ", "* ", "+ ", "• ", "| "} {
			rest = strings.TrimPrefix(rest, mark)
		}
		if number, after, ok := strings.Cut(rest, ". "); ok && len(number) <= 4 && isDigits(number) {
			rest = after
		}
		if len(rest) > 2 && rest[0] == '`' && rest[len(rest)-1] == '`' {
			rest = rest[1 : len(rest)-1]
		}
		rest = strings.TrimSpace(rest)
		if rest == line {
			return line
		}
		line = rest
	}
}

// prefix takes off the instant, the syslog header and the level before a message, and keeps the instant. Of several
// instants the innermost with a date counts.
func (r *reader) prefix(s string) string {
	r.at = time.Time{}
	dated, stamped := false, false
	for range 6 { // A header has no more parts.
		s = strings.TrimLeft(s, " \t")
		if s == "" || s[0] == '{' {
			return s
		}
		if s[0] == '<' { // The priority, and the version after it, of a syslog message.
			if _, after, ok := strings.Cut(s, ">"); ok && len(s)-len(after) <= 5 {
				s = strings.TrimPrefix(after, "1 ")
				continue
			}
		}
		if t, withDate, after, ok := stamp(s); ok {
			if withDate || !dated {
				r.at, dated = r.whole(t, withDate), withDate
			}
			s, stamped = after, true
			continue
		}
		after, done := unheaded(s, stamped)
		if done || after == s {
			return strings.TrimLeft(after, " \t")
		}
		s = after
	}
	return s
}

// unheaded takes one part of a header off: a level, after which the message begins, or host and process.
func unheaded(s string, stamped bool) (rest string, done bool) {
	word, after, _ := strings.Cut(s, " ")
	after = strings.TrimLeft(after, " ")
	if isLevel(word) {
		return after, true
	}
	if strings.HasSuffix(word, "]:") {
		return after, false
	}
	if strings.HasSuffix(word, ":") || !stamped && !strings.Contains(after, "]: ") && !strings.HasPrefix(after, "| ") {
		return s, true
	}
	second, after, ok := strings.Cut(after, " ")
	if ok && (strings.HasSuffix(second, ":") || second == "|") {
		return after, false
	}
	if stamped && ok { // host app procid msgid structured-data, of the newer syslog.
		if parts := strings.SplitN(after, " ", 4); len(parts) == 4 && parts[2] == "-" {
			return parts[3], false
		}
	}
	return s, true
}

func isLevel(word string) bool {
	word = strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(word, "["), ":"), "]")
	return slices.Contains([]string{"DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL"}, word)
}

// whole completes an instant with what the lines before it said: the date, or the year.
func (r *reader) whole(t time.Time, dated bool) time.Time {
	if t.Year() > 0 || r.last.Year() < unixYear {
		return t
	}
	month, day := t.Month(), t.Day()
	if !dated {
		month, day = r.last.Month(), r.last.Day()
	}
	return time.Date(r.last.Year(), month, day, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// unixYear is before every year that is recorded; what is earlier stands for a year not known.
const unixYear = 1970

// stamp reads an instant at the beginning of s: 2026-01-25 00:26:08, with T, fraction and zone or not, in brackets or
// not; Jan 25 00:26:08; or 00:26:08. A year or date it does not have is 0.
func stamp(s string) (t time.Time, dated bool, rest string, ok bool) {
	bracketed := len(s) > 1 && s[0] == '[' && s[1] >= '0' && s[1] <= '9'
	if bracketed {
		s = s[1:]
	}
	year, month, day := 0, 1, 1
	switch {
	case len(s) >= 19 && s[4] == '-' && s[7] == '-' && (s[10] == ' ' || s[10] == 'T'):
		year, month, day = number(s[:4]), number(s[5:7]), number(s[8:10])
		s, dated = s[11:], true
	case len(s) >= 15 && s[3] == ' ' && s[6] == ' ':
		month, day = monthOf(s[:3]), number(strings.TrimLeft(s[4:6], " "))
		s, dated = s[7:], true
	}
	if len(s) < 8 || s[2] != ':' || s[5] != ':' {
		return t, false, "", false
	}
	h, m, sec := number(s[:2]), number(s[3:5]), number(s[6:8])
	if year < 0 || month < 1 || month > 12 || day < 1 || day > 31 || h < 0 || h > 23 || m < 0 || m > 59 || sec < 0 || sec > 60 {
		return t, false, "", false
	}
	nanos, zone, s := fraction(s[8:])
	if bracketed {
		if !strings.HasPrefix(s, "]") {
			return t, false, "", false
		}
		s = s[1:]
	}
	if s != "" && s[0] != ' ' && s[0] != '\t' {
		return t, false, "", false
	}
	return time.Date(year, time.Month(month), day, h, m, sec, nanos, time.UTC).Add(-zone), dated, s, true
}

// fraction reads what may follow the seconds: .123 or ,123, and Z, +01:00 or +0100.
func fraction(s string) (nanos int, zone time.Duration, rest string) {
	if len(s) > 1 && (s[0] == '.' || s[0] == ',') {
		n := 1
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		if n > 1 {
			nanos = number((s[1:n] + "000000000")[:9])
			s = s[n:]
		}
	}
	if strings.HasPrefix(s, "Z") {
		return nanos, 0, s[1:]
	}
	if len(s) >= 5 && (s[0] == '+' || s[0] == '-') {
		minutes, n := s[3:5], 5
		if s[3] == ':' && len(s) >= 6 {
			minutes, n = s[4:6], 6
		}
		if h, m := number(s[1:3]), number(minutes); h >= 0 && m >= 0 {
			zone = time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
			if s[0] == '-' {
				zone = -zone
			}
			s = s[n:]
		}
	}
	return nanos, zone, s
}

func monthOf(name string) int {
	const names = "JanFebMarAprMayJunJulAugSepOctNovDec"
	if i := strings.Index(names, name); i >= 0 && i%3 == 0 {
		return i/3 + 1
	}
	return -1
}

// number reads a few digits, -1 where there is anything else.
func number(s string) int {
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return -1
		}
		n = 10*n + int(c-'0')
	}
	if s == "" {
		return -1
	}
	return n
}

func isDigits(s string) bool { return number(s) >= 0 }

// shorten makes a line fit to be shown: bounded, and without what a terminal would act on.
func shorten(text string) string {
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(text, "?"))
	if runes := []rune(text); len(runes) > textMax {
		text = string(runes[:textMax]) + "…"
	}
	return text
}
