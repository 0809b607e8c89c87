package exchange

import (
	"fmt"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"permitchain/ledger"
)

func lot(step, smallest, largest string) ledger.Lot {
	return ledger.Lot{Step: ledger.MustQty(step), Min: ledger.MustQty(smallest), Max: ledger.MustQty(largest)}
}

func TestFloor(t *testing.T) {
	for _, c := range []struct{ step, min, q, want string }{
		{"0.001", "0.001", "0.0345", "0.034"},
		{"0.001", "0.001", "0.034", "0.034"},
		{"0.001", "0.001", "0.001", "0.001"},
		{"0.001", "0.001", "0.0009", "0"},
		{"0.001", "0.005", "0.0049", "0"},
		{"0.001", "0.005", "0.0059", "0.005"},
		{"1", "1", "17.9", "17"},
		{"0.5", "0.5", "1.4", "1"},
		{"0.001", "0.001", "0", "0"},
		{"0.001", "0.001", "-3", "0"},
	} {
		if got := Floor(lot(c.step, c.min, "120"), ledger.MustQty(c.q)); got.String() != c.want {
			t.Errorf("Floor(step %s, min %s, %s) = %s, want %s", c.step, c.min, c.q, got, c.want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct{ step, min, max, q, want string }{
		{"0.001", "0.001", "120", "0.046", "0.046"},
		{"0.001", "0.001", "120", "120", "120"},
		{"0.001", "0.001", "120", "500", "120"},
		{"0.001", "0.005", "120", "120.001", "119.996"}, // 0.001 alone could not be sent
		{"0.001", "0.005", "120", "120.005", "120"},
		{"0.3", "0.3", "1", "1.2", "0.9"}, // the maximum is not on the step
		{"1", "5", "6", "7", "6"},         // no two orders of 5 or 6 make 7: what can be sent is
		{"0.001", "0.001", "0", "500", "500"},
	} {
		if got := Cut(lot(c.step, c.min, c.max), ledger.MustQty(c.q)); got.String() != c.want {
			t.Errorf("Cut(step %s, min %s, max %s, %s) = %s, want %s", c.step, c.min, c.max, c.q, got, c.want)
		}
	}
}

func TestCloseQty(t *testing.T) {
	l := lot("0.001", "0.001", "120")
	coarse := lot("0.001", "0.005", "120")
	for _, c := range []struct {
		lot        ledger.Lot
		held, want string
		dust       bool
		q          string
	}{
		{l, "0.046", "0.0345", true, "0.034"},       // 75 % of the report's position
		{l, "-0.046", "0.0345", true, "0.034"},      // a short is as large as a long
		{l, "0.046", "0.046", true, "0.046"},        // a full close
		{l, "0.046", "1", true, "0.046"},            // never more than is held
		{l, "0.003", "0.00075", true, "0"},          // a quarter of little is under the minimum
		{coarse, "0.009", "0.006", true, "0.009"},   // the rest could never be closed by itself
		{coarse, "0.009", "0.006", false, "0.006"},  // and is left where that is wanted
		{coarse, "0.010", "0.005", true, "0.005"},   // this rest could
		{coarse, "0.004", "0.004", true, "0"},       // dust already
		{coarse, "0.0059", "0.0059", true, "0.005"}, // what is off the step cannot be sent
		{l, "0", "1", true, "0"},
	} {
		if got := CloseQty(c.lot, ledger.MustQty(c.held), ledger.MustQty(c.want), c.dust); got.String() != c.q {
			t.Errorf("CloseQty(min %s, held %s, want %s, dust %v) = %s, want %s", c.lot.Min, c.held, c.want, c.dust, got, c.q)
		}
	}
}

// drawLot draws a lot whose minimum and maximum are on its step, as every market's are,
// and whose maximum holds two minima. All is counted in thousandths.
func drawLot(t *rapid.T) (l ledger.Lot, step, smallest, largest int) {
	step = rapid.SampledFrom([]int{1, 2, 5, 10, 50, 100}).Draw(t, "step")
	smallest = step * rapid.IntRange(1, 6).Draw(t, "min")
	largest = 2*smallest + step*rapid.IntRange(0, 20).Draw(t, "max")
	return ledger.Lot{Step: milli(step), Min: milli(smallest), Max: milli(largest)}, step, smallest, largest
}

func milli(n int) ledger.Qty {
	q := ledger.MustQty(fmt.Sprintf("%d.%03d", n/1000, n%1000))
	return q
}

// thousandths is the way back; the amounts here have no more digits.
func thousandths(t *rapid.T, q ledger.Qty) int {
	f, err := strconv.ParseFloat(q.String(), 64)
	if err != nil {
		t.Fatal(err)
	}
	n := int(f*1000 + 0.5)
	if !milli(n).Equal(q) {
		t.Fatalf("%s is not a number of thousandths", q)
	}
	return n
}

// The twin tries every quantity there is.
func TestFloorAndCloseQtyAgainstEveryQuantity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, step, smallest, _ := drawLot(t)
		held := rapid.IntRange(0, 3000).Draw(t, "held")
		want := rapid.IntRange(-10, 4000).Draw(t, "want")
		dust := rapid.Bool().Draw(t, "dust")
		best := func(limit int) int {
			q := 0
			for n := smallest; n <= limit; n++ {
				if n%step == 0 {
					q = n
				}
			}
			return q
		}
		w := milli(max(want, 0))
		if want < 0 {
			w = milli(-want).Neg()
		}
		if got := thousandths(t, Floor(l, w)); got != best(want) {
			t.Fatalf("Floor(%v, %d) = %d, want %d", l, want, got, best(want))
		}
		expect := best(min(want, held))
		if dust && expect > 0 && held-expect < smallest {
			expect = best(held)
		}
		h := milli(held)
		if rapid.Bool().Draw(t, "short") {
			h = h.Neg()
		}
		got := thousandths(t, CloseQty(l, h, w, dust))
		switch {
		case got != expect:
			t.Fatalf("CloseQty(%v, %d, %d, %v) = %d, want %d", l, held, want, dust, got, expect)
		case got > held || got%step != 0 || (got > 0 && got < smallest):
			t.Fatalf("CloseQty(%v, %d, %d, %v) = %d cannot be sent", l, held, want, dust, got)
		case want >= held && held >= smallest && got == 0:
			t.Fatalf("a full close of %d came to nothing", held)
		}
	})
}

// Every order that a quantity is cut into can be sent, and together they are the quantity.
func TestCutPartsCanAllBeSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, step, smallest, largest := drawLot(t)
		q := Floor(l, milli(rapid.IntRange(0, 10000).Draw(t, "q")))
		rest := thousandths(t, q)
		fewest := (rest + largest - 1) / largest
		for parts := 1; rest > 0; parts++ {
			n := thousandths(t, Cut(l, milli(rest)))
			if n < smallest || n > largest || n%step != 0 || n > rest {
				t.Fatalf("part %d of %s is %d on step %d, min %d, max %d", parts, q, n, step, smallest, largest)
			}
			if parts > fewest {
				t.Fatalf("%s is cut into more than %d parts", q, fewest)
			}
			rest -= n
		}
	})
}
