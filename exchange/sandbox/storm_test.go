package sandbox

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"testing"
	"time"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// TestStorm throws everything at the account at once. The chain's part is played by
// reduce-only orders of new ids, so the verdict must be clean whatever befalls them.
func TestStorm(t *testing.T) {
	for seed := range uint64(15) {
		luck := rand.New(rand.NewPCG(seed, 0))
		now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		profile := Profile{}
		for _, k := range Kinds(OnAnswer, OnOrder, OnQuery, OnOthers) {
			profile[k] = 0.02
		}
		delete(profile, ModeFlip)
		eth := ledger.Key{Symbol: "ETHUSDT", Side: ledger.Both}
		s := New(Options{
			Seed: seed, Key: testKey, Secret: testSecret, Speed: 300, Reopen: 3 * time.Second, Faults: profile, Weight: 1 << 30,
			Odds: venue.Odds{Split: 0.3, Expire: 0.2, Rest: 0.2}, Now: func() time.Time { return now },
			Positions: map[ledger.Key]ledger.Qty{btc: ledger.MustQty("0.5"), eth: ledger.MustQty("-3")},
		})
		routes := s.routes()
		call := func(name string, pairs ...string) answer {
			params := url.Values{"timestamp": {id(now.UnixMilli())}}
			for i := 0; i < len(pairs); i += 2 {
				params.Set(pairs[i], pairs[i+1])
			}
			query := params.Encode()
			return s.serve(routes[name], &call{name: name, key: testKey, query: query + "&signature=" + sign(query)})
		}
		granted := map[string]ledger.Qty{}
		for i := range 400 {
			now = now.Add(time.Duration(luck.IntN(1500)) * time.Millisecond)
			if luck.IntN(2) == 0 {
				s.mu.Lock()
				s.tick(s.advance())
				s.mu.Unlock()
			}
			symbol, side, near := "BTCUSDT", "SELL", "99"
			if luck.IntN(2) == 0 {
				symbol, side, near = "ETHUSDT", "BUY", "101"
			}
			clientID := fmt.Sprintf("pc-%d", i)
			granted[clientID] = ledger.MustQty("0.2")
			order := []string{"symbol", symbol, "side", side, "reduceOnly", "true", "quantity", "0.2"}
			switch luck.IntN(6) {
			case 0, 1:
				call("POST /fapi/v1/order", append(order, "type", "MARKET", "newClientOrderId", clientID)...)
			case 2:
				trigger := s.venue.Price(symbol).Of(ledger.MustPercent(near)).FloorTo(s.markets[symbol].Tick)
				call("POST /fapi/v1/algoOrder", append(order, "type", "STOP_MARKET", "algoType", "CONDITIONAL", "triggerPrice", trigger.String(), "clientAlgoId", clientID)...)
			case 3:
				call("GET /fapi/v3/positionRisk")
			case 4:
				call("GET /fapi/v1/allOrders", "symbol", symbol)
			case 5:
				call("GET /fapi/v1/openAlgoOrders")
			}
		}
		if wrong := s.Verdict(granted); len(wrong) > 0 {
			t.Errorf("seed %d: %v", seed, wrong)
		}
		executed := 0
		for clientID, q := range s.Executed() {
			if ledger.OfOurForm(clientID) && q.Sign() > 0 {
				executed++
			}
		}
		if executed < 20 {
			t.Errorf("seed %d: %d orders executed anything", seed, executed)
		}
		if struck := s.Struck(); len(struck) < 20 {
			t.Errorf("seed %d: %v struck", seed, struck)
		}
	}
}
