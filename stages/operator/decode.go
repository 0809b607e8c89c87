package operator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"permitchain/ledger"
)

// object reads one JSON object strictly: encoding/json would let a repeated or differently
// cased key change what was meant, so here each is an error that names it. known nil knows every key.
func object(text []byte, known ...string) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("%.60q is not a JSON object", bytes.TrimSpace(text))
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		key := t.(string) // Within an object a token before a value is its key.
		if _, again := members[key]; again {
			return nil, fmt.Errorf("%.60q is repeated", key)
		}
		if known != nil && !slices.Contains(known, key) {
			if i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, key) }); i >= 0 {
				return nil, fmt.Errorf("%q is not a known key: write %q", key, known[i])
			}
			return nil, fmt.Errorf("%.60q is not a known key; known are %s", key, strings.Join(known, ", "))
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, fmt.Errorf("%.60s: the value is not JSON: %w", printable(key), err)
		}
		members[key] = raw
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("the object does not end: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the object")
	}
	return members, nil
}

// fields reads members one by one and keeps the first error.
type fields struct {
	members map[string]json.RawMessage
	err     error
}

func (f *fields) fail(key, want string) {
	if f.err == nil {
		f.err = fmt.Errorf("%s: %s is wanted (got %.60s)", key, want, printable(string(f.members[key])))
	}
}

// printable is what may be shown of a text from outside: JSON lets a string hold what moves a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if !strconv.IsPrint(c) {
			return '?'
		}
		return c
	}, s)
}

// has tells whether key is there; a wanted one that is not is an error, and null is as good as not there.
func (f *fields) has(key string, wanted bool) bool {
	raw, ok := f.members[key]
	ok = ok && string(raw) != "null"
	if !ok && wanted && f.err == nil {
		f.err = fmt.Errorf("%s is missing", key)
	}
	return ok
}

// text is a string without blanks or control characters when word, else one without control characters.
func (f *fields) text(key string, wanted, word bool) string {
	if !f.has(key, wanted) {
		return ""
	}
	var s *string
	if json.Unmarshal(f.members[key], &s) != nil {
		f.fail(key, "a string")
		return ""
	}
	if !plain(*s, word) {
		f.fail(key, "plain text")
	}
	return *s
}

// plain keeps out what could forge a line of a log or a terminal.
func plain(s string, word bool) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return !strconv.IsPrint(c) || word && (c <= ' ' || c > '~') })
}

func (f *fields) number(key string, wanted bool) float64 {
	if !f.has(key, wanted) {
		return 0
	}
	x, err := strconv.ParseFloat(string(f.members[key]), 64) // Of a JSON value only a number parses; 1e999 does not.
	if err != nil {
		f.fail(key, "a number")
	}
	return x
}

func (f *fields) flag(key string) bool {
	var b *bool
	if !f.has(key, false) {
		return false
	}
	if json.Unmarshal(f.members[key], &b) != nil {
		f.fail(key, "true or false")
		return false
	}
	return *b
}

// amount is a price as a string or as a number, read to its last digit either way.
func (f *fields) price(key string) ledger.Price {
	if !f.has(key, false) {
		return ledger.Price{}
	}
	text := string(f.members[key])
	if text[0] == '"' {
		text = f.text(key, true, true)
	}
	p, err := ledger.ParsePrice(text)
	if err != nil || p.Sign() <= 0 {
		f.fail(key, "a price above 0, like \"61234.5\"")
	}
	return p
}

func (f *fields) instant(key string) time.Time {
	text := f.text(key, true, true)
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil && text != "" {
		f.fail(key, "a time like 2026-01-25T00:26:08.000Z")
	}
	return t.UTC().Truncate(time.Millisecond)
}

func (f *fields) components(key string) map[string]float64 {
	if !f.has(key, false) {
		return nil
	}
	members, err := object(f.members[key])
	if err != nil {
		f.fail(key, "an object of numbers: "+err.Error())
		return nil
	}
	inner, numbers := fields{members: members}, map[string]float64{}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if !plain(name, true) {
			f.fail(key, "plain names")
		}
		numbers[name] = inner.number(name, true)
	}
	if inner.err != nil {
		f.fail(key, inner.err.Error()+"; an object of numbers")
	}
	return numbers
}

func (f *fields) codes(key string) []string {
	var list []string
	if !f.has(key, false) {
		return nil
	}
	if json.Unmarshal(f.members[key], &list) != nil || slices.ContainsFunc(list, func(s string) bool { return !plain(s, true) }) {
		f.fail(key, "a list of plain strings")
	}
	return list
}

// ParseProposal reads a proposal from outside; what it means is planning's to judge. Errors name the field.
func ParseProposal(text []byte) (ledger.Proposal, error) {
	members, err := object(text, "symbol", "side", "action", "kill_score", "computed_at", "new_sl", "r_net", "k_components", "reason_codes")
	if err != nil {
		return ledger.Proposal{}, err
	}
	f := fields{members: members}
	p := ledger.Proposal{
		Symbol: f.text("symbol", true, true), Side: ledger.Side(f.text("side", true, true)), Action: ledger.Action(f.text("action", true, true)),
		KillScore: f.number("kill_score", true), ComputedAt: f.instant("computed_at"), NewSL: f.price("new_sl"), RNet: f.number("r_net", false),
		KComponents: f.components("k_components"), ReasonCodes: f.codes("reason_codes"), Source: ledger.FromExternal,
	}
	if f.err == nil && (p.KillScore < 0 || p.KillScore > 1) {
		f.fail("kill_score", "0 to 1")
	}
	return p, f.err
}

// Order is the body of every action: what to do it to, and why.
type Order struct {
	Op     string      `json:"op,omitzero"`
	Symbol string      `json:"symbol,omitzero"`
	Side   ledger.Side `json:"side,omitzero"`
	To     string      `json:"to,omitzero"`
	Force  bool        `json:"force,omitzero"`
	Qty    string      `json:"qty,omitzero"`
	Path   string      `json:"path,omitzero"`

	ID        string `json:"id,omitzero"`       // client order id
	OrderID   string `json:"order_id,omitzero"` // the exchange's
	NotPlaced bool   `json:"not_placed,omitzero"`

	By     string `json:"by,omitzero"`
	Reason string `json:"reason,omitzero"`
}

// Bounds of what an operator says; it is journalled.
const (
	reasonMax = 500
	byMax     = 64
)

// parseOrder reads an action's body, of which only these keys make sense.
func parseOrder(body io.Reader, reasoned bool, keys ...string) (Order, error) {
	text, err := io.ReadAll(body)
	if err != nil {
		return Order{}, err
	}
	members, err := object(text, append(keys, "by", "reason")...)
	if err != nil {
		return Order{}, Failed(BadRequest, "%v", err)
	}
	f := fields{members: members}
	o := Order{
		Symbol: f.text("symbol", false, true), Op: f.text("op", false, true), To: f.text("to", false, true), Path: f.text("path", false, false),
		Qty: f.text("qty", false, true), Side: ledger.Side(f.text("side", false, true)), Force: f.flag("force"),
		ID: f.text("id", false, true), OrderID: f.text("order_id", false, true), NotPlaced: f.flag("not_placed"),
		By: f.text("by", false, false), Reason: strings.TrimSpace(f.text("reason", reasoned, false)),
	}
	switch {
	case f.err != nil:
		return o, Failed(BadRequest, "%v", f.err)
	case reasoned && o.Reason == "", len(o.Reason) > reasonMax, len(o.By) > byMax:
		return o, Failed(BadRequest, "reason: 1 to %d characters are wanted (and by at most %d)", reasonMax, byMax)
	case o.Side != ledger.AnySide && !o.Side.Valid():
		return o, Failed(BadRequest, "side %q: BOTH, LONG or SHORT is wanted", o.Side)
	}
	if o.By = "operator " + o.By; o.By == "operator " {
		o.By = "operator"
	}
	return o, nil
}
