package exitbrain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// specMarketParams are the constants as SPEC §3.1 has them.
func specMarketParams() MarketParams {
	return MarketParams{
		VolWindow: 256, WinsorLow: 0.01, WinsorHigh: 0.99, EWMASeed: 10, EWMALambda: 0.94, MADScale: 1.4826,
		SpikeCap: 5, SpikeCenter: 1.2, SpikeScale: 0.3, SpikeClip: 50, SigmaMin: 1e-6,
		TrendMethod: TheilSen, TrendWindow1: 64, TrendWindow2: 128, TrendWindow3: 256, TrendWeight1: 0.5, TrendWeight2: 0.3, TrendWeight3: 0.2,
		RegimeWindow: 256, VRLag: 5, RegimeTemp: 1, A1: 1, A2: 1, A3: 1, B1: 1, B2: 1, B3: 1, C1: 1, C2: 1, C3: 1, Epsilon: 1e-12,
	}
}

// specHarvestParams are the constants as SPEC §3.2 has them.
func specHarvestParams() HarvestParams {
	return HarvestParams{
		FallbackStop: 0.02, RiskUnitMin: 1e-9, CostBps: 10, Partial25R: 2, Partial50R: 4, Partial75R: 6, LockR: 1.5, LockMargin: 0.002,
		TrendMin: 0.3, NoTrendMin: 0.5, SigmaRef: 0.01, SigmaSpikeMax: 2, TSRef: 0.3, TSDropMax: 0.5, MaxAge: 24 * time.Hour,
		KRegimeFlip: 1, KSigmaSpike: 0.5, KTSDrop: 0.5, KAgePenalty: 0.3, KillThreshold: 0.6,
		NameSigmaSpike: 0.5, NameTSDrop: 0.2, NameAgePenalty: 0.5, TrancheTemp: 1,
	}
}

// near is the agreement that SPEC §3 asks for.
func near(a, b, tolerance float64) bool {
	return a == b || math.Abs(a-b) <= tolerance*max(1, math.Abs(b))
}

// difference is where two decoded JSON values differ, "" where nowhere; keys of skip are not compared.
func difference(path string, got, want any, skip ...string) string {
	for _, s := range skip {
		if strings.HasSuffix(path, s) {
			return ""
		}
	}
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok || len(got) != len(want) {
			return fmt.Sprintf("%s: %v, want the keys of %v", path, got, want)
		}
		for k := range want {
			if d := difference(path+"."+k, got[k], want[k], skip...); d != "" {
				return d
			}
		}
		return ""
	case []any:
		got, ok := got.([]any)
		if !ok || len(got) != len(want) {
			return fmt.Sprintf("%s: %v, want %v", path, got, want)
		}
		for i := range want {
			if d := difference(fmt.Sprintf("%s[%d]", path, i), got[i], want[i], skip...); d != "" {
				return d
			}
		}
		return ""
	case float64:
		if got, ok := got.(float64); ok && near(got, want, 1e-9) {
			return ""
		}
	default:
		if reflect.DeepEqual(got, want) {
			return ""
		}
	}
	return fmt.Sprintf("%s: %v, want %v", path, got, want)
}

// vector is a line of either file of vectors.
type vector struct {
	ID     int                `json:"id"`
	Tag    string             `json:"tag"`
	Out    any                `json:"out"`
	Aux    map[string]float64 `json:"aux"`
	Theta  json.RawMessage    `json:"theta"`
	Prices []float64          `json:"prices"`
	KUlp   bool               `json:"k_ulp_sensitive"`
}

// vectors are a file's lines, and what eval answers to each.
func vectors(t *testing.T, name string, eval func(in *bytes.Reader, out *bytes.Buffer) (int, error)) (lines []vector, answers []map[string]any) {
	t.Helper()
	text, err := os.ReadFile("../../testdata/exitbrain/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	failed, err := eval(bytes.NewReader(text), &out)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var v vector
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, v)
	}
	for line := range bytes.Lines(out.Bytes()) {
		var a map[string]any
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
		if a["error"] != nil {
			failed--
		}
	}
	if len(lines) != len(answers) || failed != 0 {
		t.Fatalf("%d answers to %d lines; the count of errors is off by %d", len(answers), len(lines), failed)
	}
	return lines, answers
}

func TestHarvestVectors(t *testing.T) {
	lines, answers := vectors(t, "harvest.jsonl", func(in *bytes.Reader, out *bytes.Buffer) (int, error) {
		return EvalHarvest(in, out, specHarvestParams())
	})
	compared := 0
	for i, v := range lines {
		a := answers[i]
		if a["id"] != float64(v.ID) {
			t.Fatalf("line %d: id %v, want %d", i, a["id"], v.ID)
		}
		if v.Tag == "raises" || v.Tag == "side_other_is_short" {
			if a["error"] == nil {
				t.Errorf("%d (%s): %v, want an error", v.ID, v.Tag, a["out"])
			}
			continue
		}
		var skip []string
		if v.KUlp {
			skip = []string{".harvest_action", ".reason_codes"}
		}
		if d := difference("out", a["out"], v.Out, skip...); d != "" {
			t.Errorf("%d (%s): %s (%v)", v.ID, v.Tag, d, a["error"])
		}
		compared++
	}
	if compared != 1961 {
		t.Errorf("%d vectors compared, want 1961", compared)
	}
}

func TestMarketStateVectors(t *testing.T) {
	lines, answers := vectors(t, "market_state.jsonl", func(in *bytes.Reader, out *bytes.Buffer) (int, error) {
		return EvalMarketState(in, out, specMarketParams())
	})
	states := 0
	for i, v := range lines {
		a := answers[i]
		if d := difference("out", a["out"], v.Out); d != "" || a["error"] != nil || a["id"] != float64(v.ID) {
			t.Errorf("%d: %s (%v)", v.ID, d, a)
		}
		p := specMarketParams()
		if err := p.overlay(v.Theta); err != nil {
			t.Fatal(err)
		}
		batch, err := StateOf(&p, v.Prices)
		m := NewMarket(p)
		for _, c := range v.Prices {
			if err := m.Add(c); err != nil {
				t.Fatal(err)
			}
		}
		stepped, stepErr := m.State()
		if d := apart(stepped, batch); d != "" || !errors.Is(stepErr, err) {
			t.Errorf("%d: step by step %s (%v), at once %v", v.ID, d, stepErr, err)
		}
		if v.Out == nil {
			continue
		}
		states++
		for name, got := range map[string]float64{"sigma_ewma": batch.SigmaEWMA, "sigma_mad": batch.SigmaMAD, "blend_weight": batch.Blend} {
			if want, ok := v.Aux[name]; ok && !near(got, want, 1e-9) {
				t.Errorf("%d: %s %v, want %v", v.ID, name, got, want)
			}
		}
	}
	if states != 193 {
		t.Errorf("%d states compared, want 193", states)
	}
}
