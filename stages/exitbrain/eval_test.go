package exitbrain

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

const (
	goodIn   = `{"position":{"symbol":"X","side":"LONG","entry_price":100,"age_sec":60,"unrealized_pnl":5.1,"current_sl":null},"market_state":{"sigma":0.005,"ts":0.5,"p_trend":0.6,"p_mr":0.2,"p_chop":0.2},"p1_proposal":null,"theta":null}`
	goodLine = `{"id":1,"in":` + goodIn + `}`
)

func TestEvalHarvestLines(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"a quarter": {goodLine, `{"id":1,"out":{"harvest_action":"PARTIAL_25","new_sl_proposed":100.2,"R_net":2.5,"risk_unit":2,"cost_est":0.1,"kill_score":` +
			`0.5000520833331449,"reason_codes":["harvest_partial_25","profit_lock"],"k_components":{"regime_flip":0,"sigma_spike":0,"ts_drop":0,"age_penalty":0.0006944444444444445},` +
			`"tranche_weights":[0.3333333333333333,0.3333333333333333,0.3333333333333333]}}`},
		"any id":             {`{"id":{"a<b":[1.50,null]},"in":{}}`, `{"id":{"a<b":[1.50,null]},"error":"in.position is missing"}`},
		"no id":              {`{}`, `{"id":null,"error":"in is missing"}`},
		"no JSON":            {`{"id":3,`, `{"id":null,"error":"read line: unexpected end of JSON input"}`},
		"a missing field":    {strings.Replace(goodLine, `"ts":0.5`, `"ts":null`, 1), `{"id":1,"error":"in.market_state.ts is missing"}`},
		"a wrong type":       {strings.Replace(goodLine, `0.5,`, `"0.5",`, 1), `{"id":1,"error":"in.market_state.ts must not be a string"}`},
		"too large a number": {strings.Replace(goodLine, `5.1`, `1e999`, 1), `{"id":1,"error":"in.position.unrealized_pnl must not be a number 1e999"}`},
		"a side":             {strings.Replace(goodLine, `LONG`, `BOTH`, 1), `{"id":1,"error":"the side must be LONG or SHORT"}`},
		"a misspelt theta":   {strings.Replace(goodLine, `"theta":null`, `"theta":{"kill_treshold":0.7}`, 1), `{"id":1,"error":"theta: read line: json: unknown field \"kill_treshold\""}`},
		"an impossible one":  {strings.Replace(goodLine, `"theta":null`, `"theta":{"sigma_ref":0}`, 1), `{"id":1,"error":"theta: sigma_ref must be above 0 (got 0)"}`},
		"an endless age":     {strings.Replace(goodLine, `"theta":null`, `"theta":{"max_age_sec":1e300}`, 1), `{"id":1,"error":"theta: max_age_sec must be above 0 and at most 9e+09 (got 1e+300)"}`},
		"blank":              {" \t", ""},
	} {
		var out bytes.Buffer
		failed, err := EvalHarvest(strings.NewReader(c.in), &out, specHarvestParams())
		if got := strings.TrimSpace(out.String()); got != c.want || err != nil || (failed == 1) != strings.Contains(c.want, "error") {
			t.Errorf("%s: %d errors, %v\n got %s\nwant %s", name, failed, err, got, c.want)
		}
	}
}

func TestEvalMarketStateLines(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"too few":        {`{"id":"a","theta":null,"prices":[1,2]}`, `{"id":"a","out":null}`},
		"none":           {`{"id":1,"prices":[ ]}`, `{"id":1,"out":null}`},
		"no prices":      {`{"id":1,"theta":null}`, `{"id":1,"error":"prices are missing"}`},
		"a missing one":  {`{"id":1,"prices":[1, null,2]}`, `{"id":1,"error":"read line: price 2 must be a number (got  null)"}`},
		"one in another": {`{"id":1,"prices":[[1]]}`, `{"id":1,"error":"read line: price 1 must be a number (got [1])"}`},
		"no list":        {`{"id":1,"prices":{}}`, `{"id":1,"error":"read line: prices must be a list (got {})"}`},
		"two windows":    {`{"id":1,"theta":{"trend":{"windows":[1,2]}},"prices":[1]}`, `{"id":1,"error":"theta: trend.windows must be 3 (got 2)"}`},
		"four weights":   {`{"id":1,"theta":{"trend":{"weights":[1,2,3,4]}},"prices":[1]}`, `{"id":1,"error":"theta: trend.weights must be 3 (got 4)"}`},
		"a method":       {`{"id":1,"theta":{"trend":{"method":"guess"}},"prices":[1]}`, `{"id":1,"error":"theta: trend_method must be theil_sen or ols (got \"guess\")"}`},
		"below zero": {
			`{"id":1,"theta":{"vol":{"window":2,"ewma_seed":2},"regime":{"window":2,"vr_k":1},"trend":{"windows":[2,2,2]}},"prices":[1,-2,3]}`,
			`{"id":1,"error":"close -2 is no price"}`,
		},
	} {
		var out bytes.Buffer
		failed, err := EvalMarketState(strings.NewReader(c.in), &out, specMarketParams())
		if got := strings.TrimSpace(out.String()); got != c.want || err != nil || (failed == 1) != strings.Contains(c.want, "error") {
			t.Errorf("%s: %d errors, %v\n got %s\nwant %s", name, failed, err, got, c.want)
		}
	}
}

// TestAnAnswerThatIsNoNumberEndsNothing: the line says so, and the next is answered.
func TestAnAnswerThatIsNoNumberEndsNothing(t *testing.T) {
	huge := "[" + strings.TrimSuffix(strings.Repeat("1e308,", 300), ",") + "]"
	in := `{"id":1,"theta":{"epsilon":1.7e308},"prices":` + huge + "}\n" + `{"id":2,"prices":[1]}` + "\n"
	var out bytes.Buffer
	failed, err := EvalMarketState(strings.NewReader(in), &out, specMarketParams())
	want := `{"id":1,"error":"the answer is out of range: NaN"}` + "\n" + `{"id":2,"out":null}` + "\n"
	if out.String() != want || failed != 1 || err != nil {
		t.Errorf("%d errors, %v, %s", failed, err, out.String())
	}
}

func TestEvalReportsItsOwnTroubles(t *testing.T) {
	broken := errors.New("broken")
	if _, err := EvalHarvest(io.MultiReader(strings.NewReader(goodLine+"\n"), iotest.ErrReader(broken)), io.Discard, specHarvestParams()); !errors.Is(err, broken) {
		t.Errorf("a reader that breaks: %v", err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no device that is always full: ", err)
	}
	defer full.Close()
	if _, err := EvalHarvest(strings.NewReader(goodLine), full, specHarvestParams()); err == nil {
		t.Error("a full disk went unnoticed")
	}
	if _, err := EvalHarvest(strings.NewReader(goodLine), io.Discard, HarvestParams{}); err == nil {
		t.Error("parameters that cannot work were used")
	}
	if _, err := EvalMarketState(strings.NewReader("{}"), io.Discard, MarketParams{}); err == nil {
		t.Error("parameters that cannot work were used")
	}
}

// repeated is text n times over.
type repeated struct {
	text string
	n    int
	rest string
}

func (r *repeated) Read(b []byte) (int, error) {
	if r.rest == "" {
		if r.n == 0 {
			return 0, io.EOF
		}
		r.n, r.rest = r.n-1, r.text
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// watcher notes the most memory in use while it is written to.
type watcher struct {
	lines int
	peak  uint64
}

func (w *watcher) Write(b []byte) (int, error) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	w.peak = max(w.peak, m.HeapAlloc)
	w.lines += bytes.Count(b, []byte("\n"))
	return len(b), nil
}

func TestEvalNeedsTheSameMemoryForAnyLength(t *testing.T) {
	const lines = 100_000
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w := &watcher{}
	failed, err := EvalHarvest(&repeated{text: goodLine + "\n", n: lines}, w, specHarvestParams())
	if failed != 0 || err != nil || w.lines != lines {
		t.Fatalf("%d of %d lines, %d failed: %v", w.lines, lines, failed, err)
	}
	if grown := int64(w.peak) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("%d bytes more in use for %d bytes of input", grown, lines*len(goodLine))
	}
}

func TestEvalSkipsALineThatIsTooLong(t *testing.T) {
	var out bytes.Buffer
	in := io.MultiReader(strings.NewReader(goodLine+"\n"), &repeated{text: strings.Repeat("[", 1<<20), n: 17}, strings.NewReader("\n"+goodLine))
	failed, err := EvalHarvest(in, &out, specHarvestParams())
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if failed != 1 || err != nil || len(lines) != 3 || lines[1] != `{"id":null,"error":"the line is longer than 16777216 bytes"}` || lines[0] != lines[2] {
		t.Errorf("%d errors, %v: %.300q", failed, err, lines)
	}
}

// answered checks that each line that is not blank has one answer, with either out or error.
func answered(t *testing.T, text []byte, eval func(r io.Reader, w io.Writer) (int, error)) {
	var out bytes.Buffer
	failed, err := eval(bytes.NewReader(text), &out)
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for line := range bytes.Lines(text) {
		if len(bytes.TrimSpace(line)) > 0 {
			want++
		}
	}
	for line := range bytes.Lines(out.Bytes()) {
		var a map[string]json.RawMessage
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		_, id := a["id"]
		_, ok := a["out"]
		_, wrong := a["error"]
		if !id || ok == wrong || len(a) != 2 {
			t.Fatalf("%q", line)
		}
		want--
		if wrong {
			failed--
		}
	}
	if want != 0 || failed != 0 {
		t.Fatalf("%d lines without an answer, the count of errors off by %d", want, failed)
	}
}

func FuzzEval(f *testing.F) {
	f.Add([]byte(goodLine))
	f.Add([]byte(goodLine + "\n\n{\"id\":[\"\xff\"]}\r\n{"))
	f.Add([]byte(strings.Replace(goodLine, `"theta":null`, `"theta":{"T1_R":3,"max_age_sec":0.5,"u1":800}`, 1)))
	f.Add([]byte(`{"id":1,"theta":{"vol":{"window":4,"ewma_seed":2},"regime":{"window":4,"vr_k":2},"trend":{"windows":[2,3,5],"weights":[1,1,2],"method":"ols"}},"prices":[1,2,0,4.5,1e308,3]}`))
	market, harvest := specMarketParams(), specHarvestParams()
	f.Fuzz(func(t *testing.T, text []byte) {
		answered(t, text, func(r io.Reader, w io.Writer) (int, error) { return EvalHarvest(r, w, harvest) })
		answered(t, text, func(r io.Reader, w io.Writer) (int, error) { return EvalMarketState(r, w, market) })
	})
}
