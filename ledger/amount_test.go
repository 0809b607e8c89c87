package ledger

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseAmount(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "-0": "0", "0.10": "0.1", "-3": "-3", "007": "7", "0.000000000000000001": "0.000000000000000001",
		"999999999999999999.999999999999999999": "999999999999999999.999999999999999999",
	} {
		if q, err := ParseQty(text); err != nil || q.String() != want {
			t.Errorf("%q is %s, not %s: %v", text, q, want, err)
		}
	}
	for _, text := range []string{
		"", "-", "--1", "+1", "1e9", "1E9", "NaN", "Inf", "-Infinity", ".5", "1.", "1.2.3", "1,5", " 1", "1 ", "0x10", "1_000", "١",
		"1000000000000000000", "0.0000000000000000001", strings.Repeat("9", 41), strings.Repeat("0", 1<<20), "1\x00",
	} {
		q, err := ParseQty(text)
		if err == nil {
			t.Errorf("%.50q is read as %s", text, q)
		} else if len(err.Error()) > 200 {
			t.Errorf("%.50q makes an error of %d bytes", text, len(err.Error()))
		}
	}
	var v struct{ Q Qty }
	for _, text := range []string{`{"Q":"1e9"}`, `{"Q":5}`, `{"Q":""}`} {
		if err := json.Unmarshal([]byte(text), &v); err == nil {
			t.Errorf("%s is read as %s", text, v.Q)
		}
	}
}

func TestAmountForms(t *testing.T) {
	for _, c := range []struct{ amount, step, want string }{
		{"0.06", "0.001", "0.060"}, {"0.06", "0.00100000", "0.060"}, {"0.0605", "0.01", "0.0605"}, {"3", "1", "3"}, {"100", "10", "100"}, {"-1.5", "0", "-1.5"},
	} {
		if got := MustQty(c.amount).Padded(MustQty(c.step)); got != c.want {
			t.Errorf("%s padded to %s is %s, not %s", c.amount, c.step, got, c.want)
		}
	}
	if got := MustQty("0.0345").FloorTo(MustQty("0.001")).String(); got != "0.034" {
		t.Errorf("floored: %s", got)
	}
	if got := MustQty("0.046").Of(MustPercent("75")).FloorTo(MustQty("0.001")).String(); got != "0.034" {
		t.Errorf("75 %% of 0.046: %s", got)
	}
}

// amountText draws the decimal texts that Parse accepts.
func amountText(t *rapid.T, label string) string {
	return rapid.StringMatching(`-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?`).Draw(t, label)
}

// exact is the dumb twin of an amount.
func exact(t *rapid.T, text string) *big.Rat {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		t.Fatalf("%q is no rational", text)
	}
	return r
}

func TestAmountsAgreeWithTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, y := amountText(t, "x"), amountText(t, "y")
		a, b := MustQty(x), MustQty(y)
		p, q := exact(t, x), exact(t, y)
		for name, pair := range map[string][2]*big.Rat{
			"text":     {exact(t, a.String()), p},
			"sum":      {exact(t, a.Add(b).String()), new(big.Rat).Add(p, q)},
			"rest":     {exact(t, a.Sub(b).String()), new(big.Rat).Sub(p, q)},
			"notional": {exact(t, Notional(a, MustPrice(y)).String()), new(big.Rat).Mul(new(big.Rat).Abs(p), q)},
			"percent":  {exact(t, a.Of(MustPercent(y)).String()), new(big.Rat).Mul(p, new(big.Rat).Mul(q, big.NewRat(1, 100)))},
		} {
			if pair[0].Cmp(pair[1]) != 0 {
				t.Fatalf("%s of %s and %s is %s, and exactly %s", name, x, y, pair[0], pair[1])
			}
		}
		if a.Cmp(b) != p.Cmp(q) || a.Sign() != p.Sign() || a.Equal(b) != (p.Cmp(q) == 0) {
			t.Fatalf("%s and %s compare wrong", x, y)
		}
		back, err := ParseQty(a.String())
		if err != nil || !back.Equal(a) || back.String() != a.String() {
			t.Fatalf("%s comes back as %s: %v", a, back, err)
		}
	})
}

func TestFloorToAgreesWithTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := amountText(t, "x")
		step := rapid.SampledFrom([]string{"1", "0.1", "0.001", "0.00100000", "0.5", "0.00000001", "10", "3", "0.07"}).Draw(t, "step")
		got := MustQty(x).FloorTo(MustQty(step))
		ratio := new(big.Rat).Quo(exact(t, x), exact(t, step))
		n := new(big.Int).Quo(ratio.Num(), ratio.Denom()) // Quo truncates toward zero.
		want := new(big.Rat).Mul(new(big.Rat).SetInt(n), exact(t, step))
		if exact(t, got.String()).Cmp(want) != 0 {
			t.Fatalf("%s floored to %s is %s, not %s", x, step, got, want.FloatString(18))
		}
	})
}

func TestQtyForAgreesWithTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		money := rapid.StringMatching(`-?[0-9]{1,9}(\.[0-9]{1,8})?`).Draw(t, "usd")
		price := rapid.StringMatching(`-?[0-9]{1,7}(\.[0-9]{1,8})?`).Draw(t, "price")
		step := rapid.SampledFrom([]string{"1", "0.1", "0.001", "0.00000001", "25"}).Draw(t, "step")
		got := exact(t, QtyFor(MustUSD(money), MustPrice(price), MustQty(step)).String())
		usd, p, s := exact(t, money), exact(t, price), exact(t, step)
		want := new(big.Rat)
		if usd.Sign() > 0 && p.Sign() > 0 {
			ratio := new(big.Rat).Quo(new(big.Rat).Quo(usd, p), s)
			want.Mul(new(big.Rat).SetInt(new(big.Int).Quo(ratio.Num(), ratio.Denom())), s)
		}
		if got.Cmp(want) != 0 {
			t.Fatalf("%s USD at %s in steps of %s is %s, not %s", money, price, step, got.FloatString(18), want.FloatString(18))
		}
	})
}

func TestReadable(t *testing.T) {
	for _, c := range []struct{ step, q, want string }{
		{"0.001", "0.001148105625717566", "0.00114"}, {"0.001", "0.001", "0.001"}, {"1", "12.34567", "12.34"}, {"10", "12.34567", "12.34"}, {"0.001", "-0.0019999", "-0.00199"},
	} {
		if got := MustQty(c.q).Readable(MustQty(c.step)); got != c.want {
			t.Errorf("%s by steps of %s is %s, want %s", c.q, c.step, got, c.want)
		}
	}
}
