package exitbrain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// logsOf are the log prices of a market.
func logsOf(name string, n int, seed uint64) []float64 {
	y := prices(name, n, seed)
	for i, c := range y {
		y[i] = math.Log(c + 1e-12)
	}
	return y
}

// dumbSlope is the median of all slopes, sorted.
func dumbSlope(y []float64) float64 {
	var all []float64
	for j := range y {
		for i := range j {
			all = append(all, (y[j]-y[i])/float64(j-i))
		}
	}
	return dumbMedian(all)
}

func TestSelectorIsTheMedianOfAllSlopes(t *testing.T) {
	s := &slopeSelector{} // One for all, as in eval: nothing may be left over from one window to the next.
	names := make([]string, 0, len(markets))
	for name := range markets {
		names = append(names, name)
	}
	slices.Sort(names)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 300).Draw(t, "window")
		y := numbers(t, n, n)
		if rapid.IntRange(0, 3).Draw(t, "market") > 0 {
			y = y[:0]
			for len(y) < n {
				y = append(y, logsOf(rapid.SampledFrom(names).Draw(t, "name"), rapid.IntRange(1, n).Draw(t, "bars"), rapid.Uint64().Draw(t, "seed"))...)
			}
			y = y[:n]
		}
		if got, want := s.slope(TheilSen, y), dumbSlope(y); got != want {
			t.Fatalf("slope %v, want %v", got, want)
		}
	})
}

// TestSelectorSeldomComputesAllSlopes: it would be right, but slow.
func TestSelectorSeldomComputesAllSlopes(t *testing.T) {
	s, rng := &slopeSelector{}, rand.New(rand.NewPCG(3, 7))
	for name := range markets {
		missed := 0
		const windows = 1000
		y := logsOf(name, 20_000, 5)
		for range windows {
			w := []int{33, 64, 128, 256}[rng.IntN(4)]
			at := rng.IntN(len(y) - w)
			m, ok := s.median(y[at : at+w])
			if !ok {
				missed++
			} else if want := slope(TheilSen, y[at:at+w]); m != want {
				t.Fatalf("%s: %v, want %v", name, m, want)
			}
		}
		if missed > windows/40 && name != "geometric" { // In which all slopes are equal but for rounding.
			t.Errorf("%s: all slopes were computed in %d of %d windows", name, missed, windows)
		}
	}
}

func TestSelectedStateIsThatOfTheBatch(t *testing.T) {
	s, p := &slopeSelector{}, specMarketParams()
	for name := range markets {
		closes := prices(name, 20_000, 11)
		for at := 0; at+257 <= len(closes); at += 331 {
			got, err := stateOf(&p, closes[at:at+257], s.slope)
			want, batchErr := StateOf(&p, closes[at:at+257])
			if got != want || !errors.Is(err, batchErr) {
				t.Fatalf("%s from %d: %+v (%v), want %+v (%v)", name, at, got, err, want, batchErr)
			}
		}
	}
}

// BenchmarkEvalParts are the two parts of a line of EvalMarketState, reading it as JSON and the kernel, over the lines
// of the vectors and over lines of the least length in some markets.
func BenchmarkEvalParts(b *testing.B) {
	text, err := os.ReadFile("../../testdata/exitbrain/market_state.jsonl")
	if err != nil {
		b.Fatal(err)
	}
	evalParts(b, "vectors", slices.Collect(bytes.Lines(text)))
	for _, name := range []string{"walk", "trend", "ticks", "jumps", "constant"} {
		var lines [][]byte
		for closes := range slices.Chunk(prices(name, 257*200, 1), 257) {
			list, err := json.Marshal(closes)
			if err != nil {
				b.Fatal(err)
			}
			lines = append(lines, fmt.Appendf(nil, `{"id":1,"theta":null,"prices":%s}`, list))
		}
		evalParts(b, name, lines)
	}
}

func evalParts(b *testing.B, name string, lines [][]byte) {
	read := make([]marketLine, len(lines))
	thetas := make([]MarketParams, len(lines))
	for i, line := range lines {
		thetas[i] = specMarketParams()
		if err := errors.Join(json.Unmarshal(line, &read[i]), thetas[i].overlay(read[i].Theta)); err != nil {
			b.Fatal(err)
		}
	}
	b.Run(name+"/json", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			var q marketLine
			if err := json.Unmarshal(lines[i%len(lines)], &q); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run(name+"/kernel", func(b *testing.B) {
		s := &slopeSelector{}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			at := i % len(lines)
			if _, err := stateOf(&thetas[at], read[at].Prices, s.slope); err != nil && !errors.Is(err, ErrTooFew) {
				b.Fatal(err)
			}
		}
	})
}
