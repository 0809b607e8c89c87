package exchange

import (
	"context"
	"fmt"

	"permitchain/ledger"
)

// tradePages bounds one look at the account's trades; an account with more of them behind its cursor needs ledger sync.
const tradePages = 20

// TradesAfter pages through all trades of a symbol whose id is above after, in order of their ids.
// It gives all of them or an error: a part would explain the amount wrongly.
func TradesAfter(ctx context.Context, x Exchange, symbol string, after int64) ([]ledger.Trade, error) {
	var all []ledger.Trade
	cursor := after
	for range tradePages {
		page, err := x.Trades(ctx, symbol, cursor)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < TradesPage {
			return all, nil
		}
		cursor = page[len(page)-1].ID
	}
	return nil, fmt.Errorf("more than %d trades of %s after id %d", len(all), symbol, after)
}
