package binance

import (
	"fmt"
	"strings"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// The messages that are understood. Anything else is counted, kept, and leads to a look by REST.
const (
	saidMark          = "markPriceUpdate"
	saidBar           = "kline"
	saidOrder         = "ORDER_TRADE_UPDATE"
	saidLite          = "TRADE_LITE"
	saidAccount       = "ACCOUNT_UPDATE"
	saidConfig        = "ACCOUNT_CONFIG_UPDATE"
	saidMargin        = "MARGIN_CALL"
	saidAlgo          = "ALGO_UPDATE"
	saidExpired       = "listenKeyExpired"
	saidTriggerReject = "CONDITIONAL_ORDER_TRIGGER_REJECT"
	saidReply         = "reply" // to something sent on the socket; it has no type of its own
)

// message is what one message of a stream comes to.
type message struct {
	kind    string
	known   bool
	mark    *ledger.Mark
	bar     *ledger.Bar // only one that has closed
	order   *orderSaid
	algo    *algoSaid
	changed []ledger.Key // the zero key: anything may have
	expired string       // the listen key that is no more
}

// orderSaid is one step of an order's life.
type orderSaid struct {
	state    exchange.OrderState
	at       time.Time     // of the step
	tradeID  int64         // 0: nothing was executed in it
	trade    *ledger.Trade // what was; nil also where the exchange executed it in a way of its own, of which REST tells
	fromStop bool          // a conditional order became it: its client id may be the exchange's
}

// algoSaid is one step of a conditional order's life.
type algoSaid struct {
	state   exchange.OrderState
	at      time.Time
	orderID int64 // the order it became, or 0
}

// decode reads a message of either stream, as it is or in a combined stream's wrapper. It is all there or an error.
func decode(raw []byte) (message, error) {
	f := fieldsOf(raw)
	if f.has("data") && f.has("stream") {
		f = f.object("data")
	}
	if f.err == nil && !f.has("e") && (f.has("id") || f.has("result")) {
		return message{kind: saidReply, known: true}, nil
	}
	m := message{kind: f.text("e"), known: true}
	switch m.kind {
	case saidMark:
		m.mark = markOf(f)
	case saidBar:
		m.bar = barOf(f)
	case saidOrder:
		m.order = orderOf(f)
	case saidAlgo:
		m.algo = algoOf(f)
	case saidLite:
		m.changed = []ledger.Key{{}} // It says less than the order's own event, which follows: nothing is booked by it.
	case saidAccount:
		account := f.object("a")
		m.changed = f.keys(account.objects("P"))
		f.also(account)
	case saidMargin:
		m.changed = f.keys(f.objects("p"))
	case saidConfig, saidTriggerReject:
		m.changed = []ledger.Key{{}}
	case saidExpired:
		if f.has("listenKey") {
			m.expired = f.text("listenKey")
		}
	default:
		m.known = false
		m.changed = []ledger.Key{{}}
	}
	if f.err != nil {
		return message{}, f.err
	}
	return m, nil
}

// also makes what is wrong in a part wrong in the whole.
func (f *fields) also(part *fields) {
	if f.err == nil {
		f.err = part.err
	}
}

// keys are the positions that rows of a message speak of.
func (f *fields) keys(rows []*fields) []ledger.Key {
	var keys []ledger.Key
	for _, row := range rows {
		keys = append(keys, row.key())
		f.also(row)
	}
	return keys
}

func markOf(f *fields) *ledger.Mark {
	m := &ledger.Mark{Symbol: f.text("s"), Price: f.price("p"), At: f.at("E")}
	if m.Symbol == "" || m.Price.Sign() <= 0 {
		f.fail("it is no mark price")
	}
	return m
}

// barOf is a bar that has closed; one that is still being made is checked, and nothing.
func barOf(f *fields) *ledger.Bar {
	k := f.object("k")
	// The exchange ends a bar a millisecond before the next begins.
	b := &ledger.Bar{
		Symbol: k.text("s"), OpenAt: k.at("t"), CloseAt: k.at("T").Add(time.Millisecond),
		High: k.price("h"), Low: k.price("l"), Close: k.price("c"),
	}
	closed := k.flag("x")
	f.also(k)
	if b.Symbol == "" || !b.OpenAt.Before(b.CloseAt) || b.Low.Sign() <= 0 || b.High.Less(b.Close) || b.Close.Less(b.Low) {
		f.fail("it is no bar")
	}
	if !closed {
		return nil
	}
	return b
}

func orderOf(f *fields) *orderSaid {
	o := f.object("o")
	said := &orderSaid{at: o.at("T"), tradeID: o.integer("t"), fromStop: conditional(o.text("ot"))}
	said.state = exchange.OrderState{
		ClientOrderID: o.text("c"), OrderID: o.integer("i"), Key: o.key(), Direction: o.direction("S"),
		Status: o.text("X"), Qty: o.qty("q"), Executed: o.qty("z"), Trigger: o.price("sp"),
	}
	if o.text("x") == "NEW" {
		said.state.CreatedAt = said.at
	}
	if s := said.state; s.OrderID <= 0 || s.Status == "" || s.Executed.Sign() < 0 || s.Qty.Less(s.Executed) {
		o.fail("it is no order")
	}
	if o.text("x") == "TRADE" {
		said.trade = tradeOf(o, said)
	}
	f.also(o)
	return said
}

// conditional tells whether an order's original type is one that waits for a price.
func conditional(originalType string) bool {
	return strings.Contains(originalType, "STOP") || strings.Contains(originalType, "TAKE_PROFIT")
}

func tradeOf(o *fields, said *orderSaid) *ledger.Trade {
	t := &ledger.Trade{
		Key: said.state.Key, ID: o.integer("t"), OrderID: said.state.OrderID, ClientOrderID: said.state.ClientOrderID,
		Direction: said.state.Direction, Qty: o.qty("l"), Price: o.price("L"), At: said.at,
	}
	if o.has("N") { // Both are missing where nothing was charged.
		t.FeeUSD = feeUSD(o.usd("n"), o.text("N"))
	}
	if t.ID <= 0 || t.Qty.Sign() <= 0 || t.Price.Sign() <= 0 || said.state.Executed.Less(t.Qty) {
		o.fail("it is no trade")
	}
	return t
}

// feeUSD is a trade's fee where it is charged in dollars. One charged in another coin is not known in dollars: it
// is 0 here, and nothing is decided on it.
func feeUSD(fee ledger.USD, asset string) ledger.USD {
	switch asset {
	case "USDT", "USDC", "BUSD", "FDUSD", "BFUSD", "USD1":
		return fee
	}
	return ledger.USD{}
}

func algoOf(f *fields) *algoSaid {
	o := f.object("o")
	said := &algoSaid{at: f.at("T"), state: exchange.OrderState{
		ClientOrderID: o.text("caid"), OrderID: o.integer("aid"), Key: o.key(), Direction: o.direction("S"), Status: o.text("X"), Trigger: o.price("tp"),
	}}
	if q := o.number("q"); q != "" { // A stop that closes all has no quantity.
		said.state.Qty = o.qty("q")
	}
	if o.has("ai") && o.number("ai") != "" { // Empty until there is one.
		said.orderID = o.integer("ai")
	}
	if said.state.Status == "NEW" {
		said.state.CreatedAt = said.at
	}
	if said.state.OrderID <= 0 || said.state.Status == "" || said.orderID < 0 {
		o.fail("it is no conditional order")
	}
	f.also(o)
	return said
}

// subscription is what the market stream is asked for: prices each second, and bars.
func subscription(symbols []string, interval string) []string {
	var streams []string
	for _, s := range symbols {
		s = strings.ToLower(s)
		streams = append(streams, s+"@markPrice@1s", fmt.Sprintf("%s@kline_%s", s, interval))
	}
	return streams
}
