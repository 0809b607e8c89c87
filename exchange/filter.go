package exchange

import "permitchain/ledger"

// Floor is the largest quantity the market accepts that is at most q: q rounded
// down to the step, 0 where that is under the minimum. It does not look at the maximum; see Cut.
func Floor(lot ledger.Lot, q ledger.Qty) ledger.Qty {
	q = q.FloorTo(lot.Step)
	if q.Less(lot.Min) || q.Sign() <= 0 {
		return ledger.Qty{}
	}
	return q
}

// Cut is what the first of the orders that make up q may take: q, or the market's maximum.
// A rest that would be under the minimum, and so could never be sent, is avoided by taking less.
func Cut(lot ledger.Lot, q ledger.Qty) ledger.Qty {
	if lot.Max.Sign() <= 0 || !lot.Max.Less(q) {
		return q
	}
	first := lot.Max.FloorTo(lot.Step)
	if rest := q.Sub(first); rest.Less(lot.Min) {
		// Where no two orders make up q, what can be sent now is better than nothing.
		if less := first.Sub(lot.Min.Sub(rest)).FloorTo(lot.Step); !less.Less(lot.Min) {
			return less
		}
	}
	return first
}

// CloseQty is how much of a holding an order may take off when want is wanted: rounded
// down, never more than is held, 0 where that is under the minimum. With closeDust a rest
// that could never be closed by itself is closed too.
func CloseQty(lot ledger.Lot, held, want ledger.Qty, closeDust bool) ledger.Qty {
	held = held.Abs()
	q := Floor(lot, want.Min(held))
	if rest := held.Sub(q); closeDust && q.Sign() > 0 && rest.Less(lot.Min) {
		return Floor(lot, held)
	}
	return q
}
