package ledger

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The vector is SPEC §2's.
func TestPlanIDVector(t *testing.T) {
	at := time.Date(2026, 1, 25, 1, 26, 8, 999_999, time.FixedZone("CET", 3600))
	p := Proposal{Symbol: "BTCUSDT", Side: Both, Action: Partial25, KillScore: 0.54, ComputedAt: at}
	if id := p.ID(); id != "17ea8e86355b2c66" || id.Short() != "17ea8e86" {
		t.Errorf("the id is %s (%s)", id, id.Short())
	}
	for name, change := range map[string]func(*Proposal){
		"side":         func(p *Proposal) { p.Side = Long },
		"new_sl":       func(p *Proposal) { p.NewSL = MustPrice("50000") },
		"kill_score":   func(p *Proposal) { p.KillScore += 1e-6 },
		"millisecond":  func(p *Proposal) { p.ComputedAt = p.ComputedAt.Add(time.Millisecond) },
		"another life": func(p *Proposal) { p.Action = Partial50 },
	} {
		q := p
		change(&q)
		if q.ID() == p.ID() {
			t.Errorf("another %s has the same id", name)
		}
	}
	q := p
	q.NewSL = MustPrice("50000.10")
	r := p
	r.NewSL = MustPrice("50000.1")
	if q.ID() != r.ID() {
		t.Error("the id depends on how the stop is written")
	}
	q = p
	q.RNet, q.Source, q.ReasonCodes = 5, FromExternal, []string{"x"}
	if q.ID() != p.ID() {
		t.Error("the id depends on what is outside of it")
	}
}

func TestParseKey(t *testing.T) {
	for _, k := range []Key{{"BTCUSDT", Both}, {"ETHUSDT", Short}, {"X", AnySide}} {
		if got, err := ParseKey(k.String()); err != nil || got != k {
			t.Errorf("%s comes back as %v: %v", k, got, err)
		}
	}
	for _, text := range []string{"", "BTCUSDT", ":BOTH", "BTCUSDT:UP", "A:B:BOTH"} {
		if k, err := ParseKey(text); err == nil {
			t.Errorf("%q is read as %v", text, k)
		}
	}
}

func TestDecodeEventIsStrict(t *testing.T) {
	good := `{"digest":"d","text":"t"}`
	if e, err := DecodeEvent(KindConfigUsed, 1, []byte(good)); err != nil || *e.(*ConfigUsed) != (ConfigUsed{"d", "t"}) {
		t.Errorf("%s: %v, %v", good, e, err)
	}
	for _, c := range []struct {
		kind    Kind
		version int
		payload string
	}{
		{"nobody.knows", 1, good},
		{"", 1, good},
		{KindConfigUsed, 0, good},
		{KindConfigUsed, PayloadVersion + 1, good},
		{KindConfigUsed, 1, `{"digest":"d","text":"t","more":1}`},
		{KindConfigUsed, 1, `{"digest":5}`},
		{KindConfigUsed, 1, ``},
		{KindConfigUsed, 1, `null`},
		{KindConfigUsed, 1, `[]`},
		{KindConfigUsed, 1, good + good},
		{KindConfigUsed, 1, good + `x`},
		{KindFillBooked, 1, `{"trade":{"symbol":"X","side":"BOTH","id":1,"qty":"1e9"}}`},
		{KindLedgerOpened, 1, `{"holding":{"symbol":"X","side":"BOTH","amount":1}}`},
	} {
		if e, err := DecodeEvent(c.kind, c.version, []byte(c.payload)); err == nil {
			t.Errorf("%s %d %s is read as %+v", c.kind, c.version, c.payload, e)
		}
	}
}

// Every kind in the constants makes an event of that kind, which comes back from its own payload.
func TestEveryKindHasItsEvent(t *testing.T) {
	for _, text := range constants(t, "event.go", "Kind") {
		e := newEvent(Kind(text))
		if e == nil || e.Kind() != Kind(text) {
			t.Errorf("kind %s makes %T", text, e)
			continue
		}
		payload, err := EncodeEvent(e)
		if err == nil {
			_, err = DecodeEvent(e.Kind(), PayloadVersion, payload)
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Every reason in the constants is in the table, once, with a meaning, and the table has no other.
func TestReasonsIsTheClosedList(t *testing.T) {
	want := constants(t, "reason.go", "Reason")
	have := map[Reason]int{}
	for _, info := range Reasons {
		have[info.Reason]++
		if info.Where == "" || info.Meaning == "" {
			t.Errorf("%s is not explained", info.Reason)
		}
	}
	for _, text := range want {
		if have[Reason(text)] != 1 {
			t.Errorf("%s is %d times in the table", text, have[Reason(text)])
		}
	}
	if len(have) != len(want) {
		t.Errorf("%d reasons in the table, %d constants", len(have), len(want))
	}
}

// constants are the values of a file's string constants of one type, read from its source.
func constants(t testing.TB, file, typ string) (values []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == typ && len(spec.Values) == 1 {
			lit, ok := spec.Values[0].(*ast.BasicLit)
			if !ok {
				t.Fatalf("%s is no literal", spec.Names[0])
			}
			value, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, value)
		}
		return true
	})
	if len(values) < 15 {
		t.Fatalf("only %d constants of type %s in %s", len(values), typ, file)
	}
	return values
}

func TestFactsKeepTheirOrder(t *testing.T) {
	f := Facts{{"exchange_amt", "0.046"}, {"diff", "0.044"}, {"a", `"quoted" <b>`}}
	text, err := json.Marshal(f)
	if err != nil || !strings.HasPrefix(string(text), `{"exchange_amt":"0.046","diff":"0.044","a":`) {
		t.Fatalf("%s, %v", text, err)
	}
	var back Facts
	if err := json.Unmarshal(text, &back); err != nil || len(back) != 3 || back[2] != f[2] || back.Get("diff") != "0.044" {
		t.Errorf("%v, %v", back, err)
	}
	for _, bad := range []string{`[]`, `{"a":1}`, `"x"`} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s is read as %v", bad, back)
		}
	}
}
