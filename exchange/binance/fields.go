package binance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"permitchain/ledger"
)

// errMalformed tells that a message is not what its type promises. Nothing of it is used.
var errMalformed = errors.New("the message is malformed")

// fields are the members of one JSON object under their exact names: "t" is a trade id where "T" is a time, and
// encoding/json's structs would take the one for the other. The first thing that is wrong is kept, and fails the
// whole message.
type fields struct {
	members map[string]json.RawMessage
	err     error
}

// fieldsOf reads an object. A name that comes twice must say the same both times.
func fieldsOf(raw []byte) *fields {
	if !json.Valid(raw) {
		f := &fields{}
		f.fail("it is not JSON")
		return f
	}
	return membersOf(raw)
}

// membersOf reads an object that is valid JSON.
func membersOf(raw []byte) *fields {
	f := &fields{members: make(map[string]json.RawMessage, 32)}
	raw = bytes.TrimLeft(raw, space)
	if len(raw) == 0 || raw[0] != '{' {
		f.fail("it is no object")
		return f
	}
	for rest := bytes.TrimLeft(raw[1:], space); rest[0] != '}'; rest = bytes.TrimLeft(rest, space+",") {
		n := valueEnd(rest)
		name := string(rest[1 : n-1])
		if strings.Contains(name, `\`) && json.Unmarshal(rest[:n], &name) != nil {
			f.fail("a name is no text")
		}
		rest = bytes.TrimLeft(rest[n:], space+":")
		n = valueEnd(rest)
		value := json.RawMessage(rest[:n])
		rest = rest[n:]
		if was, twice := f.members[name]; twice && !bytes.Equal(was, value) {
			f.fail("%q is said twice, differently", clip(name))
		}
		f.members[name] = value
	}
	return f
}

// space is what JSON takes for it.
const space = " \t\r\n"

// valueEnd is the length of the value at the beginning of raw, which is valid JSON.
func valueEnd(raw []byte) int {
	depth := 0
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '"':
			for i++; raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
			if depth < 0 {
				return i
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return len(raw)
}

func (f *fields) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(format, args...))
	}
}

// has tells whether there is a member of a name that is not null.
func (f *fields) has(name string) bool {
	raw, ok := f.members[name]
	return ok && !bytes.Equal(raw, []byte("null"))
}

// text is a member that must be a string.
func (f *fields) text(name string) string {
	var s string
	if raw, ok := f.members[name]; !ok || len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		f.fail("%q is no text", name)
	}
	return s
}

// number is a member that must be a number, in quotes or without: Binance has changed from one to the other.
func (f *fields) number(name string) string {
	raw, ok := f.members[name]
	if !ok || len(raw) == 0 {
		f.fail("%q is missing", name)
		return "0"
	}
	if raw[0] == '"' {
		return f.text(name)
	}
	return string(raw)
}

// integer is a whole number.
func (f *fields) integer(name string) int64 {
	text := f.number(name)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		f.fail("%q is %q, which is no whole number", name, clip(text))
	}
	return n
}

// at is an instant in milliseconds; one that cannot be is an error, not the year 1970.
func (f *fields) at(name string) time.Time {
	t := time.UnixMilli(f.integer(name)).UTC()
	if t.Year() < 2000 || t.Year() > 2199 {
		f.fail("%q is no instant", name)
	}
	return t
}

// flag is true or false.
func (f *fields) flag(name string) bool {
	switch string(f.members[name]) {
	case "true":
		return true
	case "false":
	default:
		f.fail("%q is no flag", name)
	}
	return false
}

// object is a member that must be an object. It keeps its own err.
func (f *fields) object(name string) *fields { return membersOf(f.members[name]) }

// objects are the objects of a member that must be a list; one that is missing is empty.
func (f *fields) objects(name string) []*fields {
	if !f.has(name) {
		return nil
	}
	var items []json.RawMessage
	if json.Unmarshal(f.members[name], &items) != nil {
		f.fail("%q is no list", name)
	}
	var all []*fields
	for _, raw := range items {
		all = append(all, membersOf(raw))
	}
	return all
}

func (f *fields) qty(name string) ledger.Qty { return amountOf(f, name, ledger.ParseQty) }

func (f *fields) price(name string) ledger.Price { return amountOf(f, name, ledger.ParsePrice) }

func (f *fields) usd(name string) ledger.USD { return amountOf(f, name, ledger.ParseUSD) }

// amountOf is an amount by its own parser.
func amountOf[A any](f *fields, name string, parse func(string) (A, error)) A {
	a, err := parse(f.number(name))
	if err != nil {
		f.fail("%q: %s", name, clip(err.Error()))
	}
	return a
}

// direction is BUY or SELL.
func (f *fields) direction(name string) ledger.Direction {
	d := ledger.Direction(f.text(name))
	if d != ledger.Buy && d != ledger.Sell {
		f.fail("%q is no direction", name)
	}
	return d
}

// key is a position's: the symbol under "s", the side under "ps".
func (f *fields) key() ledger.Key {
	k := ledger.Key{Symbol: f.text("s"), Side: ledger.Side(f.text("ps"))}
	if k.Symbol == "" || !k.Side.Valid() {
		f.fail("it names no position")
	}
	return k
}

// clip bounds what is shown of a text that came from outside.
func clip(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
