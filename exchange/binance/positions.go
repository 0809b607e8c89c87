package binance

import (
	"context"
	"fmt"

	"github.com/adshao/go-binance/v2/futures"

	"permitchain/ledger"
)

// Snapshot implements exchange.Exchange. The position mode is read first, each time: its owner may change it, and then
// the rows contradict it.
func (b *Binance) Snapshot(ctx context.Context) (ledger.Snapshot, error) {
	sent := b.Now()
	if r := b.reading.Load(); r != nil {
		sent = sent.Add(-r.doubt()) // It must not look younger than it is.
	}
	account, err := b.account(ctx)
	if err != nil {
		return ledger.Snapshot{}, err
	}
	c := &call{what: "GET /fapi/v3/positionRisk", weight: 5, essential: true, list: true}
	e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) error {
		_, err := f.NewGetPositionRiskV3Service().Do(ctx, b.window())
		return err
	})
	if e != nil {
		return ledger.Snapshot{}, fmt.Errorf("read positions: %w", e)
	}
	rows, err := rowsOf(c.body, func(f *fields) ledger.Holding { return holding(f, account.Hedge) })
	if err != nil {
		return ledger.Snapshot{}, fmt.Errorf("read positions: %w", err)
	}
	s := ledger.Snapshot{SentAt: sent, Hedge: account.Hedge}
	seen := map[ledger.Key]bool{}
	for _, h := range rows {
		if seen[h.Key] {
			return ledger.Snapshot{}, fmt.Errorf("read positions: %s comes twice", h.Key)
		}
		seen[h.Key] = true
		if !h.Amount.IsZero() {
			s.Holdings = append(s.Holdings, h)
		}
	}
	return s, nil
}

// holding reads one row. A row with an amount that cannot be in the account's mode means that the mode was changed
// between two requests; it can be changed only while there are no positions, so a row without one proves nothing.
func holding(f *fields, hedge bool) ledger.Holding {
	h := ledger.Holding{Key: keyRow(f), Amount: f.qty("positionAmt"), Entry: f.price("entryPrice")}
	if h.Side == ledger.Short {
		h.Amount = h.Amount.Abs().Neg()
	}
	switch {
	case h.Amount.IsZero():
		return h
	case (h.Side == ledger.Both) == hedge:
		f.fail("%s cannot be held with dualSidePosition %t", h.Key, hedge)
	case h.Side == ledger.Long && h.Amount.Sign() < 0:
		f.fail("%s is %s", h.Key, h.Amount)
	case h.Entry.Sign() <= 0:
		f.fail("%s was entered at %s", h.Key, h.Entry)
	}
	// Where it cannot be read it is not known: it warns, and must not keep a position from being seen.
	if p, err := ledger.ParsePrice(f.number("liquidationPrice")); err == nil && p.Sign() > 0 {
		h.Liquidation = p
	}
	return h
}
