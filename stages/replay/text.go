package replay

import (
	"slices"
	"strconv"
	"strings"

	"permitchain/ledger"
)

// The text log of the reported system. After its prefixes a line is a symbol and one of these:
//
//	Evaluating plan ID (action=…, decision=…, kill_score=…, mode=…)       the governor's; the numbers may be missing
//	Evaluating plan ID from stream msg …                                  the position permit's
//	Testnet mode - auto-approving plan ID                                 or Dry-run mode
//	Production mode - applying risk gates for plan ID
//	ALLOW plan ID (permit issued: qty=…, notional=$…)                     the governor's
//	BLOCKED plan ID - REASON
//	P3.3 ALLOW plan ID (safe_qty=…, exchange_amt=…)
//	P3.3 DENY plan ID reason=REASON [NAME=NUMBER …] [context={…}]         the context may be the next line
//	Plan ID already executed (duplicate)
//	Result published (…)
//
// or, in a list and without a symbol, ID (kill_score=…) → Governor ALLOW → P3.3 DENY, or ID (N+ retries …).

// The lengths of a plan id.
const (
	shortID = 8
	longID  = 16
)

// message reads a line that begins with a symbol; it tells whether it understood all of it.
func (r *reader) message(text string) bool {
	symbol, say, ok := strings.Cut(text, ": ")
	if !ok || !isSymbol(symbol) {
		return false
	}
	if head, rest, ok := strings.Cut(say, "plan "); ok {
		if id, rest, ok := takeID(rest); ok {
			return r.judged(symbol, head, id, rest)
		}
		return false
	}
	if rest, ok := strings.CutPrefix(say, "Plan "); ok {
		id, rest, ok := takeID(rest)
		if ok && rest == " already executed (duplicate)" {
			r.mention(symbol, id).duplicates++
			return true
		}
		return false
	}
	return strings.HasPrefix(say, "Result published (") && strings.HasSuffix(say, ")")
}

// judged reads what a permit stage says of a plan.
func (r *reader) judged(symbol, head, id, rest string) bool {
	switch head {
	case "Evaluating ":
		return r.evaluating(symbol, id, rest)
	case "Testnet mode - auto-approving ", "Dry-run mode - auto-approving ":
		if rest != "" {
			return false
		}
		p := r.mention(symbol, id)
		p.approved, p.mode = true, ledger.Testnet
		if head[0] == 'D' {
			p.mode = ledger.DryRun
		}
		return true
	case "Production mode - applying risk gates for ":
		if rest == "" {
			r.mention(symbol, id).mode = ledger.Live
		}
		return rest == ""
	case "ALLOW ":
		numbers, ok := strings.CutPrefix(rest, " (permit issued: ")
		facts, whole := pairs(strings.TrimSuffix(numbers, ")"))
		if rest != "" && (!ok || !whole || !strings.HasSuffix(rest, ")")) {
			return false
		}
		p := r.mention(symbol, id)
		p.governor = append(p.governor, heard{ruling: ledger.Allow, facts: facts})
		return true
	case "BLOCKED ":
		reason, ok := strings.CutPrefix(rest, " - ")
		if !ok || !isWord(reason) {
			return false
		}
		p := r.mention(symbol, id)
		p.governor = append(p.governor, heard{ruling: ledger.Deny, reason: ledger.Reason(reason)})
		return true
	case "P3.3 ALLOW ", "P3.3 DENY ":
		return r.positioned(symbol, id, ledger.Ruling(head[5:len(head)-1]), rest)
	default:
		return false
	}
}

// evaluating reads the governor's line with the plan's numbers, or the position permit's, which has none of use.
func (r *reader) evaluating(symbol, id, rest string) bool {
	if rest == "" || strings.HasPrefix(rest, " from stream msg ") {
		r.mention(symbol, id)
		return true
	}
	inner, ok := strings.CutPrefix(rest, " (")
	facts, whole := pairs(strings.TrimSuffix(inner, ")"))
	if !ok || !whole || !strings.HasSuffix(inner, ")") {
		return false
	}
	var score *float64
	if text := facts.Get("kill_score"); text != "" {
		if score = scoreOf(text); score == nil {
			return false
		}
	}
	p := r.mention(symbol, id)
	if score != nil {
		p.score = score
	}
	if a := facts.Get("action"); a != "" {
		p.action = ledger.Action(a)
	}
	if d := facts.Get("decision"); d != "" {
		p.planned = ledger.Decision(d)
	}
	if m := ledger.Mode(facts.Get("mode")); slices.Contains(ledger.Modes[:], m) {
		p.mode = m
	}
	return true
}

// positioned reads a position verdict. What it was decided on may be in the line, or in the next one.
func (r *reader) positioned(symbol, id string, ruling ledger.Ruling, rest string) bool {
	v := heard{ruling: ruling}
	rest, context, inline := strings.Cut(rest, " context=")
	if ruling == ledger.Allow {
		inner, ok := strings.CutPrefix(rest, " (")
		var whole bool
		if v.facts, whole = pairs(strings.TrimSuffix(inner, ")")); inline || rest != "" && (!ok || !whole || !strings.HasSuffix(inner, ")")) {
			return false
		}
		v.reason = ledger.PositionAgrees
	} else {
		said, whole := pairs(strings.ReplaceAll(strings.TrimPrefix(rest, " "), " ", ", "))
		if v.reason = ledger.Reason(said.Get("reason")); !whole || !isWord(string(v.reason)) {
			return false
		}
		v.facts = without(said, "reason")
	}
	if inline {
		facts, ok := dict(context)
		if !ok {
			return false
		}
		v.facts = append(v.facts, facts...)
	}
	p := r.mention(symbol, id)
	p.position = append(p.position, v)
	r.pending, r.of = nil, nil
	if !inline {
		r.pending, r.of = &p.position[len(p.position)-1], p
	}
	return true
}

// context reads the line that continues a position verdict, whatever unknown lines came between.
func (r *reader) context(text string) bool {
	facts, ok := dict(strings.TrimPrefix(text, "context="))
	if !ok || r.of == nil {
		return false
	}
	r.pending.facts = append(r.pending.facts, facts...)
	r.pending, r.of = nil, nil
	return true
}

// item reads a plan from a list.
func (r *reader) item(text string) bool {
	id, rest, ok := takeID(text)
	if !ok {
		return false
	}
	inner, after, closed := strings.Cut(strings.TrimPrefix(rest, " ("), ")")
	said, whole := pairs(inner)
	score := scoreOf(said.Get("kill_score"))
	switch {
	case !strings.HasPrefix(rest, " (") || !closed:
		return false
	case after == "" && strings.Contains(inner, "retries"):
		r.mention("", id)
		return true
	case !whole || score == nil:
		return false
	}
	var listed [2]ledger.Ruling
	for part := range strings.SplitSeq(strings.ReplaceAll(after, "->", "→"), "→") {
		switch words := strings.Fields(part); {
		case len(words) == 0:
		case len(words) < 2 || words[1] != string(ledger.Allow) && words[1] != string(ledger.Deny):
			return false
		case words[0] == "Governor":
			listed[byGovernor] = ledger.Ruling(words[1])
		case words[0] == "P3.3":
			listed[byPosition] = ledger.Ruling(words[1])
		default:
			return false
		}
	}
	p := r.mention("", id)
	p.listed = listed
	if p.score == nil {
		p.score = score
	}
	return true
}

// mention is the plan a line speaks of, dated by the first that has a date.
func (r *reader) mention(symbol, id string) *plan {
	p := r.find(id)
	if p.symbol == "" {
		p.symbol = symbol
	}
	if !r.at.IsZero() && (p.at.IsZero() || r.at.Before(p.at)) {
		p.at, p.order = r.at, r.at
	}
	if p.order.IsZero() {
		p.order = r.last
	}
	return p
}

// takeID cuts a plan id of 8 or 16 hex digits off the beginning, and the dots that some lines shorten it with.
func takeID(s string) (id, rest string, ok bool) {
	n := 0
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] >= 'a' && s[n] <= 'f') {
		n++
	}
	if n != shortID && n != longID {
		return "", "", false
	}
	rest = strings.TrimPrefix(strings.TrimPrefix(s[n:], "..."), "…")
	if rest != "" && rest[0] != ' ' {
		return "", "", false
	}
	return s[:n], rest, true
}

func isSymbol(s string) bool {
	return len(s) >= 2 && len(s) <= 32 && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_'
	})
}

// isWord tells whether s may be a reason or the name of a number.
func isWord(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("_:-.", c)
	})
}

func scoreOf(text string) *float64 {
	k, err := strconv.ParseFloat(text, 64)
	if err != nil || !(k >= 0 && k <= 1) {
		return nil
	}
	return &k
}

// pairs reads name=value, name=value; whole tells that there was nothing else. A dollar sign is no part of a number.
func pairs(s string) (facts ledger.Facts, whole bool) {
	for s != "" {
		var part string
		part, s, _ = strings.Cut(s, ", ")
		name, value, ok := strings.Cut(part, "=")
		if !ok || !isWord(name) || value == "" {
			return facts, false
		}
		facts = append(facts, ledger.Fact{Name: name, Value: strings.TrimPrefix(value, "$")})
	}
	return facts, true
}

// dict reads a flat Python dict: quoted names, and numbers, quoted texts, None, True or False. Numbers keep their decimal text.
func dict(s string) (ledger.Facts, bool) {
	inner, ok := strings.CutPrefix(strings.TrimSpace(s), "{")
	inner, closed := strings.CutSuffix(inner, "}")
	if !ok || !closed {
		return nil, false
	}
	var facts ledger.Facts
	for inner = strings.TrimSpace(inner); inner != ""; {
		name, rest, ok := quoted(inner)
		rest, colon := strings.CutPrefix(strings.TrimSpace(rest), ":")
		if !ok || !colon || !isWord(name) || facts.Get(name) != "" {
			return nil, false
		}
		rest = strings.TrimSpace(rest)
		value, after, ok := quoted(rest)
		if !ok {
			end := strings.IndexByte(rest, ',')
			if end < 0 {
				end = len(rest)
			}
			if value, ok = bare(strings.TrimSpace(rest[:end])); !ok {
				return nil, false
			}
			after = rest[end:]
		}
		facts = append(facts, ledger.Fact{Name: name, Value: value})
		after = strings.TrimSpace(after)
		if after != "" && after[0] != ',' {
			return nil, false
		}
		inner = strings.TrimSpace(strings.TrimPrefix(after, ","))
	}
	return facts, true
}

// quoted cuts a text in single or double quotes off the beginning; one with escapes is not read.
func quoted(s string) (text, rest string, ok bool) {
	if s == "" || s[0] != '\'' && s[0] != '"' {
		return "", s, false
	}
	end := strings.IndexByte(s[1:], s[0])
	if end < 0 || strings.IndexByte(s[1:end+1], '\\') >= 0 {
		return "", s, false
	}
	return s[1 : end+1], s[end+2:], true
}

// bare is an unquoted value; a float with an exponent is written out.
func bare(s string) (string, bool) {
	if s == "None" || s == "True" || s == "False" {
		return s, true
	}
	q, ok := decimalOf(s)
	return q.String(), ok
}

// decimalOf reads a float as Python writes it, to the digit: "0.046", "5e-05". Digits past the eighteenth after the
// point, which only a float's own noise has, are dropped.
func decimalOf(s string) (ledger.Qty, bool) {
	mantissa, exponent, scientific := strings.Cut(strings.ToLower(s), "e")
	if scientific {
		n, err := strconv.Atoi(exponent)
		if err != nil || n < -30 || n > 18 {
			return ledger.Qty{}, false
		}
		mantissa = shifted(mantissa, n)
	}
	if whole, digits, ok := strings.Cut(mantissa, "."); ok && len(digits) > 18 {
		mantissa = whole + "." + digits[:18]
	}
	q, err := ledger.ParseQty(mantissa)
	return q, err == nil
}

// shifted moves the point of a plain decimal n places to the right.
func shifted(s string, n int) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	whole, digits, _ := strings.Cut(s, ".")
	point := len(whole) + n
	digits = whole + digits
	if point <= 0 {
		return sign + "0." + strings.Repeat("0", -point) + digits
	}
	if point >= len(digits) {
		return sign + digits + strings.Repeat("0", point-len(digits))
	}
	return sign + digits[:point] + "." + digits[point:]
}
