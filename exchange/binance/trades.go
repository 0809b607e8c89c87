package binance

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/adshao/go-binance/v2/common"
	"github.com/adshao/go-binance/v2/futures"

	"permitchain/exchange"
	"permitchain/ledger"
)

// get sends a signed GET of our own: the library misspells fromId, and has no call for a key's rights.
func (b *Binance) get(ctx context.Context, f *futures.Client, base, path string, params url.Values) error {
	params.Set("recvWindow", strconv.FormatInt(b.opt.RecvWindow.Milliseconds(), 10))
	params.Set("timestamp", strconv.FormatInt(time.Now().UnixMilli()-f.TimeOffset, 10))
	sign, err := common.SignFunc(f.KeyType)
	if err != nil {
		return err
	}
	query := params.Encode()
	signed, err := sign(f.SecretKey, query)
	if err != nil {
		return err
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path+"?"+query+"&signature="+url.QueryEscape(*signed), nil)
	if err != nil {
		return err
	}
	q.Header.Set("X-MBX-APIKEY", f.APIKey)
	resp, err := f.HTTPClient.Do(q)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// tradeRows is one page of a symbol's trades, in order of their ids.
func (b *Binance) tradeRows(ctx context.Context, symbol string, params url.Values) ([]ledger.Trade, error) {
	params.Set("symbol", symbol)
	params.Set("limit", strconv.Itoa(exchange.TradesPage))
	c := &call{what: "GET /fapi/v1/userTrades", weight: 5, essential: true, list: true}
	e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) error {
		return b.get(ctx, f, b.opt.RESTURL, "/fapi/v1/userTrades", params)
	})
	if e != nil {
		return nil, fmt.Errorf("read trades: %w", e)
	}
	rows, err := rowsOf(c.body, func(f *fields) ledger.Trade { return readTrade(f, symbol) })
	if err != nil {
		return nil, fmt.Errorf("read trades: %w", err)
	}
	for i := range rows {
		if i > 0 && rows[i].ID <= rows[i-1].ID {
			return nil, fmt.Errorf("read trades: %w: id %d comes after %d", errMalformed, rows[i].ID, rows[i-1].ID)
		}
	}
	return rows, nil
}

func readTrade(f *fields, symbol string) ledger.Trade {
	t := ledger.Trade{
		Key: keyRow(f), ID: f.integer("id"), OrderID: f.integer("orderId"), Direction: f.direction("side"),
		Qty: f.qty("qty"), Price: f.price("price"), At: f.at("time"), FeeUSD: feeUSD(f.usd("commission"), f.text("commissionAsset")),
	}
	if t.Symbol != symbol || t.ID <= 0 || t.OrderID <= 0 || t.Qty.Sign() <= 0 || t.Price.Sign() <= 0 {
		f.fail("it is no trade of %s", symbol)
	}
	return t
}

// Trades implements exchange.Exchange.
func (b *Binance) Trades(ctx context.Context, symbol string, after int64) ([]ledger.Trade, error) {
	rows, err := b.tradeRows(ctx, symbol, url.Values{"fromId": {strconv.FormatInt(max(0, after)+1, 10)}})
	if err != nil {
		return nil, err
	}
	if len(rows) > 0 && rows[0].ID <= after {
		return nil, fmt.Errorf("read trades: %w: id %d is not above %d", errMalformed, rows[0].ID, after)
	}
	if err := b.attribute(ctx, symbol, rows); err != nil {
		return nil, err
	}
	b.streams.witness(rows)
	return rows, nil
}

// LastTradeID implements exchange.Exchange. Without an id the exchange looks back a week; where nothing was traded in it,
// the oldest trades that it still has are where the search for the newest begins.
func (b *Binance) LastTradeID(ctx context.Context, symbol string) (int64, error) {
	rows, err := b.tradeRows(ctx, symbol, url.Values{})
	if err == nil && len(rows) == 0 {
		rows, err = b.tradeRows(ctx, symbol, url.Values{"fromId": {"1"}})
	}
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	return b.newest(ctx, symbol, rows)
}

// newest goes on from a page of trades to the last there is: a full page may begin at either end.
func (b *Binance) newest(ctx context.Context, symbol string, rows []ledger.Trade) (int64, error) {
	last := rows[len(rows)-1].ID
	for len(rows) > 0 {
		var err error
		if rows, err = b.tradeRows(ctx, symbol, url.Values{"fromId": {strconv.FormatInt(last+1, 10)}}); err != nil {
			return 0, err
		}
		if n := len(rows); n > 0 {
			if rows[0].ID <= last {
				return 0, fmt.Errorf("read trades: %w: id %d is not above %d", errMalformed, rows[0].ID, last)
			}
			last = rows[n-1].ID
		}
	}
	return last, nil
}

// lagging is how long the exchange may need until it finds an order that has traded.
const lagging = time.Minute

// singles is how many orders are looked up one by one; more are listed.
const singles = 3

// attribute says of each trade whose order it was. An order that the exchange has forgotten is nobody's; one that it
// does not find yet is an error, because taking our own trade for another's would be worse than asking again.
func (b *Binance) attribute(ctx context.Context, symbol string, trades []ledger.Trade) error {
	missing := map[int64]time.Time{}
	for _, t := range trades {
		if _, ok := b.owners.of(symbol, t.OrderID); !ok {
			missing[t.OrderID] = t.At
		}
	}
	var found []orderKind
	if len(missing) > singles {
		listed, err := b.listFrom(ctx, symbol, missing)
		if err != nil {
			return err
		}
		found = listed
	}
	for id, at := range missing {
		if slices.ContainsFunc(found, func(o orderKind) bool { return o.OrderID == id }) {
			continue
		}
		o, kind, err := b.order(ctx, symbol, func(s *futures.GetOrderService) { s.OrderID(id) })
		switch {
		case err == nil && o.OrderID == id:
			found = append(found, orderKind{o, kind})
		case err == nil:
			return fmt.Errorf("look up order %d of a trade: the answer speaks of %d", id, o.OrderID)
		case !isNotFound(err) || b.Now().Sub(at) < lagging:
			return fmt.Errorf("look up order %d of a trade: %w", id, notYet(err))
		}
	}
	if err := b.remember(ctx, symbol, found); err != nil {
		return err
	}
	for i := range trades {
		trades[i].ClientOrderID, _ = b.owners.of(symbol, trades[i].OrderID)
	}
	return nil
}

// listFrom lists the orders from the smallest missing id to the largest, a page at a time.
func (b *Binance) listFrom(ctx context.Context, symbol string, missing map[int64]time.Time) ([]orderKind, error) {
	var found []orderKind
	first, last := int64(0), int64(0)
	for id := range missing {
		if first == 0 || id < first {
			first = id
		}
		last = max(last, id)
	}
	for first <= last {
		rows, err := b.orderRows(ctx, symbol, func(s *futures.ListOrdersService) { s.OrderID(first) })
		if err != nil {
			return nil, err
		}
		for _, o := range rows {
			if _, wanted := missing[o.OrderID]; wanted {
				found = append(found, o)
			}
			if o.OrderID < first {
				return nil, fmt.Errorf("list orders: %w: id %d is below %d", errMalformed, o.OrderID, first)
			}
		}
		if len(rows) < exchange.OrdersPage {
			break
		}
		first = rows[len(rows)-1].OrderID + 1
	}
	return found, nil
}

// remember keeps whose orders these are. One with an id that is not ours may be what a stop of ours became: nobody
// documents the client id of such an order.
func (b *Binance) remember(ctx context.Context, symbol string, found []orderKind) error {
	var strange []orderKind
	for _, o := range found {
		if ledger.OfOurForm(o.ClientOrderID) || byExchange(o.ClientOrderID) {
			b.owners.put(symbol, o.OrderID, o.ClientOrderID)
		} else {
			strange = append(strange, o)
		}
	}
	if len(strange) == 0 {
		return nil
	}
	if err := b.becameOf(ctx, symbol, strange); err != nil {
		return err
	}
	for _, o := range strange {
		b.owners.put(symbol, o.OrderID, o.ClientOrderID) // An id of a stop of ours stays.
	}
	return nil
}

// byExchange are the ids of liquidations, deleveraging and settlements.
func byExchange(clientOrderID string) bool {
	return strings.HasPrefix(clientOrderID, "autoclose-") || strings.HasPrefix(clientOrderID, "adl_autoclose") || strings.HasPrefix(clientOrderID, "settlement_autoclose-")
}

// becameOf learns which of these orders were stops: it reads the stops of the week before them and, for one that says
// that it was conditional, those of the weeks before that.
func (b *Binance) becameOf(ctx context.Context, symbol string, orders []orderKind) error {
	first, last := orders[0].CreatedAt, orders[0].CreatedAt
	for _, o := range orders {
		if o.CreatedAt.Before(first) {
			first = o.CreatedAt
		}
		last = later(last, o.CreatedAt)
	}
	oldest := b.Now().Add(-listAge)
	for until := last.Add(time.Second); ; until = until.Add(-listSpan) {
		stops, err := b.stopsIn(ctx, symbol, until.Add(-listSpan+time.Millisecond), until)
		if err != nil {
			return err
		}
		for _, s := range stops {
			if b.unnamed(s) && ledger.OfOurForm(s.ClientOrderID) {
				return fmt.Errorf("whose order a trade was: %w", errTriggering)
			}
			if s.orderID != 0 {
				b.owners.put(symbol, s.orderID, s.ClientOrderID)
			}
		}
		unexplained := slices.ContainsFunc(orders, func(o orderKind) bool {
			_, known := b.owners.of(symbol, o.OrderID)
			return !known && conditional(o.kind)
		})
		begun := until.Add(-listSpan)
		if begun.Before(oldest) || (begun.Before(first.Add(-listSpan/2)) && !unexplained) {
			return nil
		}
	}
}
