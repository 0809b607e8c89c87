package exitbrain

import (
	"bytes"
	"io"
	"os"
	"slices"
	"testing"

	"permitchain/ledger"
)

func BenchmarkHarvest(b *testing.B) {
	p, m := specHarvestParams(), MarketState{Sigma: 0.012, TS: 0.2, PTrend: 0.25, PMR: 0.4, PChop: 0.35}
	pos := Position{Side: ledger.Long, Entry: 60_000, PnL: 3100, Stop: 60_120, AgeSec: 50_000}
	b.ReportAllocs()
	for b.Loop() {
		pos.PnL += 0.01
		if _, err := Judge(&p, &pos, &m, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBar is one bar by the batch, and by the step, in each market.
func BenchmarkBar(b *testing.B) {
	p := specMarketParams()
	names := make([]string, 0, len(markets))
	for name := range markets {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		closes := prices(name, 50_000, 1)
		b.Run(name+"/batch", func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				at := i * 37 % (len(closes) - 257)
				if _, err := StateOf(&p, closes[at:at+257]); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/step", func(b *testing.B) {
			m := NewMarket(p)
			for _, c := range closes[:257] {
				if err := m.Add(c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for i := 257; b.Loop(); i++ {
				if err := m.Add(closes[i%len(closes)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEval is a line of eval's, kernel and JSON together.
func BenchmarkEval(b *testing.B) {
	b.Run("harvest", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(goodLine) + 1))
		if failed, err := EvalHarvest(&repeated{text: goodLine + "\n", n: b.N}, io.Discard, specHarvestParams()); failed != 0 || err != nil {
			b.Fatal(failed, err)
		}
	})
	b.Run("market-state", func(b *testing.B) {
		text, err := os.ReadFile("../../testdata/exitbrain/market_state.jsonl")
		if err != nil {
			b.Fatal(err)
		}
		line := string(text[:bytes.IndexByte(text, '\n')+1])
		b.ReportAllocs()
		b.SetBytes(int64(len(line)))
		if failed, err := EvalMarketState(&repeated{text: line, n: b.N}, io.Discard, specMarketParams()); failed != 0 || err != nil {
			b.Fatal(failed, err)
		}
	})
}
