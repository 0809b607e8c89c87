package stages

import (
	"bytes"
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"permitchain/ledger"
)

// Limits on what a file can make the reader do or say. Aliases cannot multiply beyond them: what is
// read follows the shape of Config, whose only list of mappings is symbols.
const (
	listMax         = 500
	configErrorsMax = 50 // reading ends soon after
	shownMax        = 40 // characters of what the user wrote, in a message
)

// builtIn is the defaults in messages. Nobody can mend a line of theirs, so none is ever named for a value.
const builtIn = "built-in config.yaml"

// configReader lays files over a Config, remembers where each key stood, and collects what is wrong.
type configReader struct {
	c           Config
	file        string
	at          map[string]*yaml.Node // where the user's file sets a key
	failed      map[string]bool       // keys with an error; their values are not judged further
	said        map[string]bool       // what check found, so that it is said once
	errs        []*ConfigError
	symbols     *yaml.Node // read last, when what they override is known
	symbolsFile string
	symbol      string // "symbols.BTCUSDT." while one symbol's parameters are read or judged
}

func (r *configReader) fail(n *yaml.Node, key, problem string) {
	r.failed[key] = true
	r.errs = append(r.errs, &ConfigError{r.file, n.Line, n.Column, key, problem})
}

// full tells that more has been found than will be said; what would be found from there on may be of its own making.
func (r *configReader) full() bool { return len(r.errs) > configErrorsMax }

// got adds what the user wrote to a problem.
func got(problem, text string) string {
	if secretive(text) {
		return problem + " (what stands there is not shown: it could be a credential)"
	}
	return fmt.Sprintf("%s (got %q)", problem, shown(text))
}

func shown(text string) string {
	if secretive(text) {
		return notShown
	}
	if r := []rune(text); len(r) > shownMax {
		return string(r[:shownMax]) + "…"
	}
	return text
}

// err joins the errors in the order of the file, those without a line last.
func (r *configReader) err() error {
	slices.SortStableFunc(r.errs, func(a, b *ConfigError) int {
		if (a.Line == 0) != (b.Line == 0) {
			return cmp.Compare(b.Line, a.Line)
		}
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if r.full() {
		r.errs = append(r.errs[:configErrorsMax], &ConfigError{File: r.file, Problem: "and more errors"})
	}
	var all []error
	for _, e := range r.errs {
		all = append(all, e)
	}
	return errors.Join(all...)
}

// read lays one file over what is known. One without any document changes nothing.
func (r *configReader) read(text []byte) {
	if len(text) > configBytesMax {
		r.fail(&yaml.Node{}, "", fmt.Sprintf("the file is larger than %d bytes", configBytesMax))
		return
	}
	if i := bytes.IndexFunc(text, notText); i >= 0 {
		line := bytes.Count(text[:i], []byte("\n")) + 1
		column := utf8.RuneCount(text[bytes.LastIndexByte(text[:i], '\n')+1:i]) + 1
		r.fail(&yaml.Node{Line: line, Column: column}, "", "a character that UTF-8 text does not have")
		return
	}
	var documents []yaml.Node
	if err := yaml.Load(text, &documents, yaml.WithAllDocuments()); err != nil {
		var e *yaml.LoadError
		if !errors.As(err, &e) {
			e = &yaml.LoadError{Message: err.Error()}
		}
		problem := "not YAML: " + e.Message
		if e.ContextMsg != "" {
			problem += " " + e.ContextMsg
		}
		problem = run.ReplaceAllString(inQuotes.ReplaceAllString(problem, "…"), "…")
		r.fail(&yaml.Node{Line: e.Mark.Line, Column: e.Mark.Column}, "", problem)
		return
	}
	if len(documents) > 1 {
		r.fail(&documents[1], "", "a second document begins here; a configuration is one")
	}
	if len(documents) > 0 {
		r.section("", documents[0].Content[0], reflect.ValueOf(&r.c).Elem())
	}
}

// notText tells bytes that are no UTF-8, and control characters, before YAML reports them without a line.
func notText(c rune) bool {
	return c == utf8.RuneError || unicode.IsControl(c) && c != '\n' && c != '\r' && c != '\t'
}

// field is one key of a section and the value it sets.
type field struct {
	key   string
	value reflect.Value
}

// fieldsOf lists the keys of a section; an embedded struct's keys are the section's own.
func fieldsOf(v reflect.Value) []field {
	var fields []field
	for i := range v.NumField() {
		switch t := v.Type().Field(i); {
		case t.Anonymous:
			fields = append(fields, fieldsOf(v.Field(i))...)
		case t.IsExported():
			fields = append(fields, field{t.Tag.Get("yaml"), v.Field(i)})
		}
	}
	return fields
}

// isSection tells a struct of keys from an amount.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !t.Implements(reflect.TypeFor[encoding.TextMarshaler]())
}

func join(section, key string) string {
	if section == "" {
		return key
	}
	return section + "." + key
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func (r *configReader) section(path string, n *yaml.Node, v reflect.Value) {
	known := fieldsOf(v)
	r.pairs(path, n, func(key string, k, value *yaml.Node) {
		full := join(path, key)
		i := slices.IndexFunc(known, func(f field) bool { return f.key == key })
		switch {
		case i < 0:
			r.fail(k, full, "is not a known key"+suggest(strings.TrimPrefix(full, r.symbol)))
		case r.symbol != "" && slices.Contains(wholeProcess[:], strings.TrimPrefix(full, r.symbol)):
			r.fail(k, full, "is of the whole process and cannot differ between symbols")
		default:
			r.value(full, value, known[i].value)
		}
	})
}

// pairs calls each for every key of a mapping; null is an empty one.
func (r *configReader) pairs(path string, n *yaml.Node, each func(key string, k, value *yaml.Node)) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.fail(n, path, gotAt(path, "wants keys with values", n.Value))
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content) && !r.full(); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode || isNull(k) {
			r.fail(k, path, "has a key that is not a word")
			continue
		}
		quoted := strconv.Quote(shown(k.Value))
		key := quoted[1 : len(quoted)-1]
		if line, again := lines[k.Value]; again {
			r.fail(k, join(path, key), fmt.Sprintf("is repeated; it stands on line %d already", line))
			continue
		}
		lines[k.Value] = k.Line
		each(key, k, n.Content[i+1])
	}
}

func (r *configReader) value(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if r.file != builtIn {
		r.at[path] = n
	}
	_, seeds := v.Interface().(map[ledger.Key]ledger.Qty)
	switch {
	case n.Style&yaml.TaggedStyle != 0:
		r.fail(n, path, gotAt(path, "tags have no use here: remove it", n.Tag))
	case v.Type() == reflect.TypeFor[[]Symbol]():
		r.symbols, r.symbolsFile = n, r.file
	case isSection(v.Type()):
		r.section(path, n, v)
	case seeds:
		v.Set(reflect.ValueOf(r.seeds(path, n)))
	case v.Kind() == reflect.Slice:
		r.list(path, n, v)
	case n.Kind != yaml.ScalarNode:
		r.fail(n, path, "wants one value, not a list or keys")
	case isNull(n):
		r.fail(n, path, "has no value: write one, or remove the key")
	default:
		if problem := setScalar(v, n); problem != "" {
			r.fail(n, path, gotAt(path, problem, n.Value))
		}
	}
}

func (r *configReader) isList(path string, n *yaml.Node) bool {
	if n.Kind != yaml.SequenceNode || len(n.Content) > listMax {
		r.fail(n, path, got(fmt.Sprintf("wants a list, like [a, b], of at most %d", listMax), n.Value))
		return false
	}
	return true
}

func (r *configReader) list(path string, n *yaml.Node, v reflect.Value) {
	if !r.isList(path, n) {
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		r.value(at, item, v.Index(i))
		for j := range i {
			if v.Index(j).Equal(v.Index(i)) && !r.failed[at] {
				r.fail(item, at, got("is repeated", item.Value))
			}
		}
	}
}

// seeds reads amounts by SYMBOL or SYMBOL:SIDE.
func (r *configReader) seeds(path string, n *yaml.Node) map[ledger.Key]ledger.Qty {
	m := map[ledger.Key]ledger.Qty{}
	r.pairs(path, n, func(name string, k, value *yaml.Node) {
		key, err := SeedKey(name)
		full := join(path, seedName(key))
		_, again := m[key]
		switch {
		case err != nil:
			r.fail(k, join(path, name), err.Error())
		case again:
			r.fail(k, full, "is repeated; without a side BOTH is meant")
		default:
			var q ledger.Qty
			r.value(full, value, reflect.ValueOf(&q).Elem())
			m[key] = q
		}
	})
	return m
}

// readSymbols reads the list of symbols, each on top of the parameters that hold for all.
func (r *configReader) readSymbols() {
	name := r.file
	r.file = r.symbolsFile
	defer func() { r.file, r.symbol = name, "" }()
	if r.symbols == nil || !r.isList("symbols", r.symbols) {
		return
	}
	for i, item := range r.symbols.Content {
		if r.full() {
			return
		}
		if item.Kind == yaml.AliasNode {
			item = item.Alias
		}
		s := Symbol{SymbolConfig: r.c.SymbolConfig}
		path := fmt.Sprintf("symbols[%d]", i)
		if item.Kind != yaml.MappingNode {
			r.value(path, item, reflect.ValueOf(&s.Name).Elem())
		} else {
			if name := entry(item, "name"); symbolForm.MatchString(name) {
				path = "symbols." + name
			}
			r.symbol = path + "."
			r.section(path, item, reflect.ValueOf(&s).Elem())
		}
		again := slices.Contains(r.c.SymbolNames(), s.Name)
		switch {
		case r.failed[path] || r.failed[path+".name"]:
		case !symbolForm.MatchString(s.Name):
			r.fail(item, path, got("is not a symbol like BTCUSDT", s.Name))
		case again:
			r.fail(item, path, got("is repeated", s.Name))
		default:
			r.c.Symbols = append(r.c.Symbols, s)
		}
	}
}

var symbolForm = regexp.MustCompile(`^[A-Z0-9]{2,20}$`)

// entry is the scalar under key, "" where there is none.
func entry(mapping *yaml.Node, key string) string {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1].Value
		}
	}
	return ""
}

// setScalar reads n into v from its text as written, or returns what is wanted instead.
func setScalar(v reflect.Value, n *yaml.Node) (problem string) {
	text, plain := n.Value, n.Style == 0
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if u.UnmarshalText([]byte(text)) != nil {
			return "wants a plain decimal like 0.046, of at most 18 digits on either side of the point"
		}
		return ""
	}
	if v.Type() == reflect.TypeFor[time.Duration]() {
		return setDuration(v, text)
	}
	switch v.Kind() {
	case reflect.Bool:
		if !plain || text != "true" && text != "false" {
			return "wants true or false"
		}
		v.SetBool(text == "true")
	case reflect.Int, reflect.Int64:
		x, err := strconv.ParseInt(text, 10, 64)
		if !plain || err != nil || strconv.FormatInt(x, 10) != text || v.OverflowInt(x) {
			return "wants a whole number"
		}
		v.SetInt(x)
	case reflect.Float64:
		x, err := strconv.ParseFloat(text, 64)
		if _, amount := ledger.ParseQty(text); !plain || err != nil || amount != nil {
			return "wants a number like 0.8"
		}
		v.SetFloat(x)
	default:
		allowed := choices(v.Type())
		if allowed != nil && !slices.Contains(allowed, text) {
			return "wants one of " + strings.Join(allowed, ", ")
		}
		if strings.ContainsFunc(text, unicode.IsControl) {
			return "wants text on one line"
		}
		if credential(text) {
			return "looks like a credential, which has no place in a configuration"
		}
		v.SetString(text)
	}
	return ""
}

var (
	durationForm = regexp.MustCompile(`^-?([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`)
	wordyForm    = regexp.MustCompile(`^([0-9]{1,6}) *(ms|milli|s|m|h|d)[a-z]*$`)
)

func setDuration(v reflect.Value, text string) (problem string) {
	if d, err := time.ParseDuration(text); err == nil && durationForm.MatchString(text) {
		v.SetInt(int64(d))
		return ""
	}
	m := wordyForm.FindStringSubmatch(strings.ToLower(text))
	if m == nil {
		return "wants a duration with a unit, like 1200ms, 60s, 5m or 6h"
	}
	number, unit := m[1], m[2]
	switch unit {
	case "milli":
		unit = "ms"
	case "d":
		days, _ := strconv.Atoi(number) // At most six digits.
		number, unit = strconv.Itoa(24*days), "h"
	}
	return "wants a duration: write " + number + unit
}
