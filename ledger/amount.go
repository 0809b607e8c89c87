package ledger

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/shopspring/decimal"
)

// Amount is an exact decimal whose unit is part of its type, so that a quantity
// cannot be added to a price and dollars cannot be sent as an order size.
// The zero value is the amount 0.
type Amount[Unit any] struct{ d decimal.Decimal }

type (
	baseUnit  struct{}
	priceUnit struct{}
	usdUnit   struct{}
	pctUnit   struct{}
)

type (
	// Qty is an amount of the base asset; a position's is negative when short.
	Qty = Amount[baseUnit]
	// Price is USD for one unit of the base asset.
	Price = Amount[priceUnit]
	// USD is an amount of money in the quote asset.
	USD = Amount[usdUnit]
	// Percent is a share in hundredths.
	Percent = Amount[pctUnit]
)

// Bounds of what is accepted as an amount: far beyond any market, and small
// enough that no input makes arithmetic slow.
const (
	amountTextMax   = 40
	amountDigitsMax = 18 // digits before the point
	amountScaleMax  = 18 // digits after the point
)

// Parse reads a plain decimal ("0.046", "-3"). Exponents, signs other than a
// leading minus, NaN and numbers beyond the bounds are errors that name the text.
func Parse[Unit any](text string) (Amount[Unit], error) {
	var a Amount[Unit]
	if err := plainDecimal(text); err != nil {
		return a, err
	}
	d, err := decimal.NewFromString(text)
	if err != nil {
		return a, fmt.Errorf("amount %q is not a decimal", text)
	}
	a.d = d
	return a, nil
}

func plainDecimal(text string) error {
	if len(text) > amountTextMax {
		return fmt.Errorf("amount of %d characters is too long (at most %d)", len(text), amountTextMax)
	}
	whole, fraction, pointed := strings.Cut(strings.TrimPrefix(text, "-"), ".")
	if !digits(whole) || (pointed && !digits(fraction)) {
		return fmt.Errorf("amount %q is not a plain decimal like 0.046", text)
	}
	if len(whole) > amountDigitsMax || len(fraction) > amountScaleMax {
		return fmt.Errorf("amount %q is beyond %d digits before or %d after the point", text, amountDigitsMax, amountScaleMax)
	}
	return nil
}

func digits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

// ParseQty reads a quantity of the base asset.
func ParseQty(text string) (Qty, error) { return Parse[baseUnit](text) }

// ParsePrice reads a price.
func ParsePrice(text string) (Price, error) { return Parse[priceUnit](text) }

// ParseUSD reads an amount of money.
func ParseUSD(text string) (USD, error) { return Parse[usdUnit](text) }

// ParsePercent reads a percentage.
func ParsePercent(text string) (Percent, error) { return Parse[pctUnit](text) }

// MustQty is ParseQty for constants in code; it panics on a bad one.
func MustQty(text string) Qty { return must(ParseQty(text)) }

// MustPrice is ParsePrice for constants in code; it panics on a bad one.
func MustPrice(text string) Price { return must(ParsePrice(text)) }

// MustUSD is ParseUSD for constants in code; it panics on a bad one.
func MustUSD(text string) USD { return must(ParseUSD(text)) }

// MustPercent is ParsePercent for constants in code; it panics on a bad one.
func MustPercent(text string) Percent { return must(ParsePercent(text)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Add returns a + b.
func (a Amount[U]) Add(b Amount[U]) Amount[U] { return Amount[U]{a.d.Add(b.d)} }

// Sub returns a - b.
func (a Amount[U]) Sub(b Amount[U]) Amount[U] { return Amount[U]{a.d.Sub(b.d)} }

// Neg returns -a.
func (a Amount[U]) Neg() Amount[U] { return Amount[U]{a.d.Neg()} }

// Abs returns |a|.
func (a Amount[U]) Abs() Amount[U] { return Amount[U]{a.d.Abs()} }

// Sign is -1, 0 or 1.
func (a Amount[U]) Sign() int { return a.d.Sign() }

// IsZero tells whether a is 0; encoding/json's omitzero asks it too.
func (a Amount[U]) IsZero() bool { return a.d.IsZero() }

// Cmp is -1, 0 or 1 as a is below, equal to or above b.
func (a Amount[U]) Cmp(b Amount[U]) int { return a.d.Cmp(b.d) }

// Less tells whether a < b.
func (a Amount[U]) Less(b Amount[U]) bool { return a.d.Cmp(b.d) < 0 }

// Equal compares values, not texts: 0.10 equals 0.1.
func (a Amount[U]) Equal(b Amount[U]) bool { return a.d.Equal(b.d) }

// Min returns the smaller of a and b.
func (a Amount[U]) Min(b Amount[U]) Amount[U] {
	if b.Less(a) {
		return b
	}
	return a
}

// Max returns the larger of a and b.
func (a Amount[U]) Max(b Amount[U]) Amount[U] {
	if a.Less(b) {
		return b
	}
	return a
}

// Of returns p percent of a, exactly.
func (a Amount[U]) Of(p Percent) Amount[U] { return Amount[U]{a.d.Mul(p.d).Shift(-2)} }

// FloorTo rounds toward zero to a multiple of step; a step of 0 leaves a alone.
func (a Amount[U]) FloorTo(step Amount[U]) Amount[U] {
	if step.IsZero() {
		return a
	}
	_, rest := a.d.QuoRem(step.d, 0)
	return Amount[U]{a.d.Sub(rest)}
}

// CeilTo rounds away from zero to a multiple of step; a step of 0 leaves a alone.
func (a Amount[U]) CeilTo(step Amount[U]) Amount[U] {
	down := a.FloorTo(step)
	switch {
	case down.Equal(a):
		return a
	case a.Sign() < 0:
		return down.Sub(step)
	default:
		return down.Add(step)
	}
}

// String is the shortest decimal form: "0.06", "-3", "0".
func (a Amount[U]) String() string { return a.d.String() }

// Padded is the table form, with as many digits after the point as step has ("0.060").
func (a Amount[U]) Padded(step Amount[U]) string {
	return a.d.StringFixed(max(0, -step.normal().Exponent(), -a.normal().Exponent()))
}

// Fixed is the form with exactly places digits after the point, rounded half up; for display only.
func (a Amount[U]) Fixed(places int32) string { return a.d.StringFixed(places) }

// Readable is a with at most two digits more after the point than step has, the rest cut off; for display only.
func (a Amount[U]) Readable(step Amount[U]) string {
	return Amount[U]{a.d.Truncate(max(0, -step.normal().Exponent()) + 2)}.String()
}

func (a Amount[U]) normal() decimal.Decimal {
	d, err := decimal.NewFromString(a.d.String())
	if err != nil {
		panic(err) // Its own text always parses.
	}
	return d
}

// Float is the nearest float64, for scores and statistics; money never comes back from one.
func (a Amount[U]) Float() float64 {
	exponent := a.d.Exponent()
	if a.d.NumDigits() <= 15 && exponent <= 0 && exponent >= -22 {
		return float64(a.d.CoefficientInt64()) / math.Pow10(int(-exponent)) // Both are exact, so the quotient is rounded once.
	}
	f, _ := strconv.ParseFloat(a.d.String(), 64) // A decimal always parses; beyond the range it is infinite.
	return f
}

// MarshalText writes the shortest decimal form; in JSON it is a string.
func (a Amount[U]) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what Parse reads.
func (a *Amount[U]) UnmarshalText(text []byte) error {
	parsed, err := Parse[U](string(text))
	if err != nil {
		return err
	}
	*a = parsed
	return nil
}

// Notional is what |q| is worth at p.
func Notional(q Qty, p Price) USD { return USD{q.d.Abs().Mul(p.d)} }

// QtyFor is the largest multiple of step that costs at most usd at p; 0 where p is not positive.
func QtyFor(usd USD, p Price, step Qty) Qty {
	if p.Sign() <= 0 || usd.Sign() <= 0 {
		return Qty{}
	}
	// 18 places exceed every market's step; rounding down keeps the cost under usd.
	q, _ := usd.d.QuoRem(p.d, amountScaleMax)
	return Qty{q}.FloorTo(step)
}

// AveragePrice is cost per unit, rounded half up to 8 places; 0 where q is 0.
func AveragePrice(cost USD, q Qty) Price {
	if q.IsZero() {
		return Price{}
	}
	return Price{cost.d.DivRound(q.d.Abs(), 8)}
}
