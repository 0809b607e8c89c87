package sandbox

import (
	"slices"
	"strings"
	"time"

	"permitchain/ledger"
)

// say sends what a message means to this connection, and tells whether the connection lives on.
func (p *peer) say(m message) bool {
	switch {
	case p.silent:
		return true
	case p.want.call == callMarket && m.Mark != nil:
		return p.sayMark(m.Mark)
	case p.want.call == callMarket && m.Bar != nil:
		name := strings.ToLower(m.Bar.Symbol) + "@kline_1m"
		return !p.want.streams[name] || p.write(klineUpdate(m.Bar, m.At, name))
	case p.want.call == callPrivate && m.Gone != "":
		return p.sayGone(m)
	case p.want.call == callPrivate && len(m.Execs)+len(m.Stops)+len(m.Holdings) > 0:
		return p.sayAccount(m)
	}
	return true
}

// underWay is every how many seconds the bar that is being made is sent; the exchange sends it four times a second.
const underWay = 5

// sayMark sends a price to the streams of one second, and every third to the others.
func (p *peer) sayMark(mark *ledger.Mark) bool {
	name := strings.ToLower(mark.Symbol) + "@markPrice"
	if p.want.streams[name+"@1s"] && !p.write(markUpdate(mark, name+"@1s")) {
		return false
	}
	return !p.want.streams[name] || mark.At.Unix()%3 != 0 || p.write(markUpdate(mark, name))
}

// sayGone ends what is said, and not the connection.
func (p *peer) sayGone(m message) bool {
	if m.Gone != p.want.key {
		return true
	}
	alive := !m.Expired || p.write(keyExpired(m.Gone, m.At))
	p.silent = true
	return alive
}

// sayAccount sends what happened on the account, as faults would have it.
func (p *peer) sayAccount(m message) bool {
	events := accountEvents(m)
	struck := func(k Kind) bool { _, ok := p.s.fault(p.want.call, k); return ok }
	if n := len(m.Execs); n > 0 && struck(WSAmendment) {
		x := m.Execs[n-1]
		events = append(events, event{"ORDER_TRADE_UPDATE", orderUpdate(x, becameOrder(m.Stops, x.Order), m.At.UnixMilli()+1, "AMENDMENT"), ""})
	}
	events = slices.DeleteFunc(events, func(e event) bool { return !p.want.events[e.kind] })
	if len(events) == 0 {
		return true
	}
	if len(events) > 1 && struck(WSReorder) {
		// Events of one type keep their order, whatever happens.
		slices.SortStableFunc(events, func(a, b event) int { return unexpected(a.kind) - unexpected(b.kind) })
	}
	if struck(WSDuplicate) {
		events = slices.Concat(events, events)
	}
	if struck(WSLoseUpdate) {
		events = events[1:]
	}
	if len(events) > 1 && struck(WSDropFill) {
		for _, e := range events[:len(events)/2] {
			p.write(e)
		}
		return false
	}
	for _, e := range events {
		if !p.write(e) {
			return false
		}
	}
	return true
}

// unexpected is an order of types in which what follows comes first.
func unexpected(kind string) int {
	return slices.Index([]string{"TRADE_LITE", "ACCOUNT_UPDATE", "ALGO_UPDATE", "ORDER_TRADE_UPDATE"}, kind)
}

// unknownEvent is of a type that came after the program was written.
func unknownEvent(now time.Time) event {
	return event{"STRATEGY_UPDATE", object("e", "STRATEGY_UPDATE", "T", now.UnixMilli(), "E", now.UnixMilli(), "su", object("si", 176054594, "st", "GRID", "ss", "NEW", "s", "BTCUSDT")), ""}
}

func keyExpired(key string, at time.Time) event {
	return event{"listenKeyExpired", object("e", "listenKeyExpired", "E", at.UnixMilli(), "listenKey", key), ""}
}

func markUpdate(m *ledger.Mark, stream string) event {
	p := m.Price.Fixed(8)
	return event{"markPriceUpdate", object("e", "markPriceUpdate", "E", m.At.UnixMilli(), "s", m.Symbol, "p", p, "ap", p, "i", p, "P", p,
		"r", "0.00010000", "T", m.At.Truncate(8*time.Hour).Add(8*time.Hour).UnixMilli()), stream}
}

func klineUpdate(k *kline, at time.Time, stream string) event {
	quote := ledger.Notional(k.Volume, k.Last).Fixed(5)
	return event{"kline", object("e", "kline", "E", at.UnixMilli(), "s", k.Symbol, "k", object("t", k.Open.UnixMilli(), "T", k.Close.UnixMilli(),
		"s", k.Symbol, "i", k.Interval, "f", k.FirstID, "L", k.LastID, "o", k.First.String(), "c", k.Last.String(), "h", k.High.String(), "l", k.Low.String(),
		"v", k.Volume.String(), "n", k.Trades, "x", k.Closed, "q", quote, "V", k.Volume.String(), "Q", quote, "B", "0")), stream}
}
