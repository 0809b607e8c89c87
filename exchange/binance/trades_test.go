package binance

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// tradeRow is a trade as userTrades shows it.
func tradeRow(id, order int64, at time.Time) string {
	return strings.NewReplacer("698759", strconv.FormatInt(id, 10), "25851813", strconv.FormatInt(order, 10), "1569514978020", strconv.FormatInt(at.UnixMilli(), 10)).Replace(bodyTrades[1 : len(bodyTrades)-1])
}

func orderRowBody(id int64, client, kind string, at time.Time) string {
	return strings.NewReplacer("4087922045", strconv.FormatInt(id, 10), "pc-01J9Z:a1", client, `"origType":"MARKET"`, fmt.Sprintf(`"origType":%q`, kind), "1789478303090", strconv.FormatInt(at.UnixMilli(), 10)).Replace(bodyQueried)
}

func TestTrades(t *testing.T) {
	f := newFake(t)
	b := f.open()
	b.learnOrder("BTCUSDT", 25851813, "pc-0123456789abcdef-1-1")
	f.says("GET /fapi/v1/userTrades", 200, bodyTrades)
	trades, err := b.Trades(context.Background(), "BTCUSDT", 698758)
	if err != nil || len(trades) != 1 {
		t.Fatalf("%v, %v", trades, err)
	}
	got := trades[0]
	if got.Key != btc || got.ID != 698759 || got.OrderID != 25851813 || got.ClientOrderID != "pc-0123456789abcdef-1-1" || got.Direction != ledger.Sell ||
		got.Qty.String() != "0.002" || got.Price.String() != "7819.01" || got.FeeUSD.String() != "0.0781901" || got.At.UnixMilli() != 1569514978020 {
		t.Errorf("the trade is %+v", got)
	}
	_, q := f.times("GET /fapi/v1/userTrades")
	if !strings.HasPrefix(q.query, "fromId=698759&limit=1000&recvWindow=3000&symbol=BTCUSDT&timestamp=") {
		t.Errorf("the query is %s", q.query)
	}
	checkSignature(t, q)
	now := b.Now()
	for name, body := range map[string]string{
		"not after the cursor": "[" + tradeRow(5, 25851813, now) + "]",
		"out of order":         "[" + tradeRow(12, 25851813, now) + "," + tradeRow(11, 25851813, now) + "]",
		"twice":                "[" + tradeRow(12, 25851813, now) + "," + tradeRow(12, 25851813, now) + "]",
		"of another symbol":    strings.ReplaceAll(bodyTrades, "BTCUSDT", "ETHUSDT"),
		"null":                 "null",
		"an error":             bodyDisguised,
		"no fee":               strings.Replace(bodyTrades, `"commission":"0.07819010",`, "", 1),
	} {
		f.says("GET /fapi/v1/userTrades", 200, body)
		if trades, err := b.Trades(context.Background(), "BTCUSDT", 10); err == nil {
			t.Errorf("%s: %v", name, trades)
		}
	}
}

func TestTradesSayWhoseTheyAre(t *testing.T) {
	now := time.Now()
	old := now.Add(-time.Hour)
	mine, foreign := "pc-0123456789abcdef-1-1", "web_x"
	for name, c := range map[string]struct {
		at     time.Time
		trades []int64 // by their orders
		orders map[int64]string
		stops  string
		want   string // "" is an error
	}{
		"ours":                    {now, []int64{1}, map[int64]string{1: orderRowBody(1, mine, "MARKET", now)}, "[]", "[" + mine + "]"},
		"somebody's":              {now, []int64{1}, map[int64]string{1: orderRowBody(1, foreign, "LIMIT", now)}, "[]", "[web_x]"},
		"a liquidation":           {now, []int64{1}, map[int64]string{1: orderRowBody(1, "autoclose-1", "LIMIT", now)}, "", "[autoclose-1]"},
		"a stop of ours":          {now, []int64{1}, map[int64]string{1: orderRowBody(1, foreign, "STOP_MARKET", now)}, "[" + stopBody(stopID, "FINISHED", "1", now) + "]", "[" + stopID + "]"},
		"a stop, typed MARKET":    {now, []int64{1}, map[int64]string{1: orderRowBody(1, foreign, "MARKET", now)}, "[" + stopBody(stopID, "FINISHED", "1", now) + "]", "[" + stopID + "]"},
		"a stop under its id":     {now, []int64{1}, map[int64]string{1: orderRowBody(1, stopID, "STOP_MARKET", now)}, "", "[" + stopID + "]"},
		"somebody's stop":         {now, []int64{1}, map[int64]string{1: orderRowBody(1, foreign, "STOP_MARKET", now)}, "[]", "[web_x]"},
		"a stop still triggering": {now, []int64{1}, map[int64]string{1: orderRowBody(1, foreign, "STOP_MARKET", now)}, "[" + stopBody(stopID, "TRIGGERING", "", now) + "]", ""},
		"a stop stuck for long":   {now, []int64{1}, map[int64]string{1: orderRowBody(1, foreign, "LIMIT", now)}, "[" + stopBody(stopID, "TRIGGERED", "", old) + "]", "[web_x]"},
		"not found yet":           {now, []int64{1}, nil, "[]", ""},
		"forgotten":               {old, []int64{1}, nil, "[]", "[]"},
		"many, listed": {old, []int64{1, 2, 3, 4, 4}, map[int64]string{
			1: orderRowBody(1, mine, "MARKET", old), 2: orderRowBody(2, foreign, "LIMIT", old), 3: orderRowBody(3, foreign, "STOP_MARKET", old), 4: orderRowBody(4, "c", "LIMIT", old),
		}, "[" + stopBody(stopID, "FINISHED", "3", old) + "]", "[" + mine + " web_x " + stopID + " c c]"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			b := f.open()
			var rows []string
			for i, order := range c.trades {
				rows = append(rows, tradeRow(int64(i+1), order, c.at))
			}
			f.says("GET /fapi/v1/userTrades", 200, "["+strings.Join(rows, ",")+"]")
			if c.stops != "" {
				f.says("GET /fapi/v1/allAlgoOrders", 200, c.stops)
			}
			f.on("GET /fapi/v1/order", func(w http.ResponseWriter, r *http.Request) {
				id, _ := strconv.ParseInt(r.URL.Query().Get("orderId"), 10, 64)
				if body, ok := c.orders[id]; ok {
					fmt.Fprint(w, body)
					return
				}
				w.WriteHeader(400)
				fmt.Fprint(w, bodyNoOrder)
			})
			f.on("GET /fapi/v1/allOrders", func(w http.ResponseWriter, r *http.Request) {
				first, _ := strconv.ParseInt(r.URL.Query().Get("orderId"), 10, 64)
				var rows []string
				for id := first; id < 10; id++ {
					if body, ok := c.orders[id]; ok {
						rows = append(rows, body)
					}
				}
				fmt.Fprint(w, "["+strings.Join(rows, ",")+"]")
			})
			trades, err := b.Trades(context.Background(), "BTCUSDT", 0)
			got := ""
			if err == nil {
				var ids []string
				for _, tr := range trades {
					ids = append(ids, tr.ClientOrderID)
				}
				got = fmt.Sprint(ids)
			}
			if got != c.want {
				t.Errorf("%s, %v; want %s", got, err, c.want)
			}
			asked, _ := f.times("GET /fapi/v1/order")
			if singly := len(c.orders) > singles; singly && asked != 0 {
				t.Errorf("%d orders were looked up one by one", asked)
			}
			if err == nil && got != "[]" { // Once known it is not asked again.
				n := len(f.asked)
				if _, err := b.Trades(context.Background(), "BTCUSDT", 0); err != nil || len(f.asked) != n+1 {
					t.Errorf("known orders were asked about: %v, %v", f.asked[n:], err)
				}
			}
		})
	}
}

func TestLastTradeID(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		age  time.Duration // of the newest trade; 0: there is none
		full bool
		want int64
	}{
		"this week":          {time.Hour, false, 3},
		"weeks ago":          {40 * 24 * time.Hour, false, 3},
		"months ago":         {89 * 24 * time.Hour, false, 3},
		"never":              {0, false, 0},
		"more than one page": {time.Hour, true, 2500},
	} {
		f := newFake(t)
		b := f.open()
		ids := []int64{1, 2, 3}
		if c.full {
			ids = nil
			for id := int64(1); id <= c.want; id++ {
				ids = append(ids, id)
			}
		}
		f.on("GET /fapi/v1/userTrades", func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			from, until := now.Add(-7*24*time.Hour), now.Add(time.Hour)
			if q.Has("startTime") {
				from, until = instant(q, "startTime"), instant(q, "endTime")
				if until.Sub(from) > 7*24*time.Hour || q.Has("fromId") {
					t.Errorf("%s: the span is %s", name, until.Sub(from))
				}
			}
			first, _ := strconv.ParseInt(q.Get("fromId"), 10, 64)
			var rows []string
			for _, id := range ids {
				at := now.Add(-c.age)
				if c.age > 0 && len(rows) < 1000 && (q.Has("fromId") && id >= first || !q.Has("fromId") && !at.Before(from) && at.Before(until)) {
					rows = append(rows, tradeRow(id, 7, at))
				}
			}
			fmt.Fprint(w, "["+strings.Join(rows, ",")+"]")
		})
		if id, err := b.LastTradeID(context.Background(), "BTCUSDT"); err != nil || id != c.want {
			t.Errorf("%s: %d, %v; want %d", name, id, err, c.want)
		}
	}
}

func instant(q url.Values, name string) time.Time {
	ms, _ := strconv.ParseInt(q.Get(name), 10, 64)
	return time.UnixMilli(ms)
}

func TestOrdersSince(t *testing.T) {
	f := newFake(t)
	b := f.open()
	now := b.Now().Truncate(time.Millisecond)
	f.says("GET /fapi/v1/allOrders", 200, "["+orderRowBody(4, "web_1", "LIMIT", now.Add(-time.Second))+","+orderRowBody(5, "web_2", "STOP_MARKET", now)+","+orderRowBody(3, "pc-before", "MARKET", now.Add(-time.Hour))+"]")
	f.says("GET /fapi/v1/allAlgoOrders", 200, "["+stopBody(stopID, "FINISHED", "5", now.Add(-time.Minute))+","+stopBody("pc-0123456789abcdef-s1-2", "NEW", "", now.Add(-2*time.Second))+"]")
	all, err := b.OrdersSince(context.Background(), "BTCUSDT", now.Add(-10*time.Second))
	var got []string
	for _, o := range all {
		got = append(got, fmt.Sprintf("%s %d %s", o.ClientOrderID, o.OrderID, o.Trigger))
	}
	if want := "[pc-0123456789abcdef-s1-2 2146760 750 web_1 4 0 " + stopID + " 5 750]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v; want %s", got, err, want)
	}
	for _, what := range []string{"GET /fapi/v1/allOrders", "GET /fapi/v1/allAlgoOrders"} {
		_, q := f.times(what)
		v, err := url.ParseQuery(q.query)
		if err != nil || instant(v, "startTime").After(now.Add(-10*time.Second)) || instant(v, "endTime").Before(now) || instant(v, "endTime").Sub(instant(v, "startTime")) >= 7*24*time.Hour {
			t.Errorf("%s: %s, %v", what, q.query, err)
		}
	}
	f.says("GET /fapi/v1/allAlgoOrders", 200, bodyDisguised)
	if _, err := b.OrdersSince(context.Background(), "BTCUSDT", now); err == nil {
		t.Error("half a list was taken for all of it")
	}
}

// An answer that is full is asked for again in halves, whichever end the exchange leaves out; a long time is asked for in weeks.
func TestOrdersSinceIsWhole(t *testing.T) {
	for newest, apart := range map[bool]time.Duration{false: 19 * time.Minute, true: 5 * time.Minute} {
		f := newFake(t)
		b := f.open()
		now := b.Now().Truncate(time.Millisecond)
		begin := now.Add(-20 * 24 * time.Hour)
		f.says("GET /fapi/v1/allAlgoOrders", 200, "[]")
		f.on("GET /fapi/v1/allOrders", func(w http.ResponseWriter, r *http.Request) {
			from, until := instant(r.URL.Query(), "startTime"), instant(r.URL.Query(), "endTime")
			var rows []string
			for i := range 1500 {
				if at := begin.Add(time.Duration(i) * apart); !at.Before(from) && !at.After(until) {
					rows = append(rows, orderRowBody(int64(i+1), "web", "LIMIT", at))
				}
			}
			if len(rows) > 1000 && newest {
				rows = rows[len(rows)-1000:]
			}
			fmt.Fprint(w, "["+strings.Join(rows[:min(len(rows), 1000)], ",")+"]")
		})
		all, err := b.OrdersSince(context.Background(), "BTCUSDT", begin)
		if err != nil || len(all) != exchange.OrdersPage {
			t.Fatalf("newest %t: %d orders, %v", newest, len(all), err)
		}
		for i, o := range all {
			if o.OrderID != int64(i+1) {
				t.Fatalf("newest %t: order %d is at %d", newest, o.OrderID, i)
			}
		}
	}
}
