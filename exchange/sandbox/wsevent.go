package sandbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// event is one message of a stream, as it is written.
type event struct {
	kind   string // its "e"
	json   json.RawMessage
	stream string // of the market's: its name
}

// object is a JSON object of names and values in turn, in that order: names that differ in case alone differ.
func object(pairs ...any) json.RawMessage {
	b := append(make([]byte, 0, 512), '{')
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(strconv.AppendQuote(b, pairs[i].(string)), ':')
		switch v := pairs[i+1].(type) {
		case json.RawMessage:
			b = append(b, v...)
		case int64:
			b = strconv.AppendInt(b, v, 10)
		default:
			value, err := json.Marshal(v)
			if err != nil {
				panic(fmt.Sprintf("event field %v: %v", pairs[i], err)) // Only texts, numbers and flags are put in.
			}
			b = append(b, value...)
		}
	}
	return append(b, '}')
}

// accountEvents are what one message says about the account, in the order of an ordinary day.
func accountEvents(m message) []event {
	at := m.At.UnixMilli()
	var events []event
	add := func(kind string, body json.RawMessage) { events = append(events, event{kind, body, ""}) }
	if slices.ContainsFunc(m.Execs, func(x execution) bool { return x.Type == "CALCULATED" }) {
		add("MARGIN_CALL", marginCall(m, at))
	}
	for _, s := range m.Stops {
		for _, step := range beforeOrder(s) {
			add("ALGO_UPDATE", algoUpdate(step, at))
		}
	}
	for _, x := range m.Execs {
		add("ORDER_TRADE_UPDATE", orderUpdate(x, becameOrder(m.Stops, x.Order), at, x.Type))
		if x.Trade != nil {
			add("TRADE_LITE", tradeLite(x, at))
		}
	}
	if len(m.Holdings) > 0 {
		add("ACCOUNT_UPDATE", accountUpdate(m, at))
	}
	for _, s := range m.Stops {
		if s.Status == venue.StatusTriggered {
			s.Status = "FINISHED"
			add("ALGO_UPDATE", algoUpdate(s, at))
		}
	}
	return events
}

// beforeOrder are the steps of a stop that come before those of the order it becomes.
func beforeOrder(s venue.Stop) []venue.Stop {
	if s.Status != venue.StatusTriggered && s.Status != venue.StatusRejected {
		return []venue.Stop{s}
	}
	triggering := s
	triggering.Status, triggering.OrderID = "TRIGGERING", 0
	return []venue.Stop{triggering, s}
}

func becameOrder(stops []venue.Stop, o venue.Order) bool {
	return ledger.OfStopForm(o.ClientOrderID) || slices.ContainsFunc(stops, func(s venue.Stop) bool { return s.Symbol == o.Symbol && s.OrderID == o.OrderID })
}

// orderUpdate is ORDER_TRADE_UPDATE. An amendment says again how the order is, and who modified it, under "M".
func orderUpdate(x execution, stop bool, at int64, execType string) json.RawMessage {
	o := x.Order
	kind, original, tif := "MARKET", "MARKET", "GTC"
	switch {
	case execType == "CALCULATED":
		kind, original, tif = "LIMIT", "LIQUIDATION", "IOC"
	case stop:
		original = "STOP_MARKET"
	case !o.Limit.IsZero():
		kind, original = "LIMIT", "LIMIT"
	}
	last, price, tradeID, realized, fee := "0", "0", int64(0), "0", "0"
	if t := x.Trade; t != nil && execType != "AMENDMENT" {
		last, price, tradeID, realized, fee = t.Qty.String(), t.Price.String(), t.ID, x.Realized.Fixed(8), t.FeeUSD.Fixed(8)
	}
	pairs := []any{
		"s", o.Symbol, "c", o.ClientOrderID, "S", o.Direction, "o", kind, "f", tif, "q", o.Qty.String(), "p", o.Limit.String(),
		"ap", ledger.AveragePrice(x.Cost, o.Executed).String(), "sp", "0", "x", execType, "X", o.Status, "i", o.OrderID,
		"l", last, "z", o.Executed.String(), "L", price, "n", fee, "N", "USDT", "T", at, "t", tradeID, "b", "0", "a", "0", "m", false, "R", o.Reducing, "wt", "CONTRACT_PRICE", "ot", original, "ps", o.Side,
		"cp", false, "rp", realized, "pP", false, "si", 0, "ss", 0, "V", "EXPIRE_MAKER", "pm", "NONE", "gtd", 0, "er", reasonOf(o),
	}
	if execType == "AMENDMENT" {
		pairs = append(pairs, "M", "176057039")
	}
	return object("e", "ORDER_TRADE_UPDATE", "T", at, "E", at+1, "o", object(pairs...))
}

// reasonOf is why an order expired, by the exchange's number.
func reasonOf(o venue.Order) string {
	if o.Status != venue.StatusExpired {
		return "0"
	}
	return fmt.Sprint(o.Expiry)
}

func tradeLite(x execution, at int64) json.RawMessage {
	t := x.Trade
	return object("e", "TRADE_LITE", "E", at, "T", at, "s", t.Symbol, "q", x.Order.Qty.String(), "p", "0", "m", false,
		"c", t.ClientOrderID, "S", t.Direction, "L", t.Price.String(), "l", t.Qty.String(), "t", t.ID, "i", t.OrderID)
}

func accountUpdate(m message, at int64) json.RawMessage {
	var rows []json.RawMessage
	for _, h := range m.Holdings {
		rows = append(rows, object("s", h.Symbol, "pa", h.Amount.String(), "ep", h.Entry.String(), "bep", h.Entry.String(),
			"cr", "0", "up", "0", "mt", "cross", "iw", "0", "ps", h.Side))
	}
	wallet := m.Wallet.String()
	return object("e", "ACCOUNT_UPDATE", "E", at+1, "T", at, "a", object("m", "ORDER",
		"B", []json.RawMessage{object("a", "USDT", "wb", wallet, "cw", wallet, "bc", "0")}, "P", rows))
}

func algoUpdate(s venue.Stop, at int64) json.RawMessage {
	became, reason := "", ""
	if s.OrderID != 0 {
		became = fmt.Sprint(s.OrderID)
	}
	if s.Status == venue.StatusRejected {
		reason = "Reduce Only reject"
	}
	return object("e", "ALGO_UPDATE", "T", at, "E", at+6, "o", object("caid", s.ClientAlgoID, "aid", s.AlgoID, "at", "CONDITIONAL",
		"o", "STOP_MARKET", "s", s.Symbol, "S", s.Direction, "ps", s.Side, "f", "GTC", "q", s.Qty.String(), "X", s.Status, "ai", became,
		"ap", "0.00000", "aq", "0.00000", "act", "0", "tp", s.Trigger.String(), "p", "0", "V", "EXPIRE_MAKER", "wt", "MARK_PRICE",
		"pm", "NONE", "cp", false, "pP", false, "R", s.ReduceOnly, "tt", 0, "gtd", 0, "rm", reason))
}

func marginCall(m message, at int64) json.RawMessage {
	var rows []json.RawMessage
	for _, h := range m.Holdings {
		rows = append(rows, object("s", h.Symbol, "ps", h.Side, "pa", h.Amount.String(), "mt", "CROSSED", "iw", "0",
			"mp", h.Entry.String(), "up", "0", "mm", "0"))
	}
	return object("e", "MARGIN_CALL", "E", at, "cw", m.Wallet.String(), "p", rows)
}
