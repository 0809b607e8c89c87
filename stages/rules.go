package stages

import (
	"slices"
	"strconv"
	"time"

	"permitchain/ledger"
	"permitchain/stages/apply"
	"permitchain/stages/governor"
	"permitchain/stages/operator"
	"permitchain/stages/reconcile"
)

// GovernorRules are the governor's rules for a symbol.
func (c *Config) GovernorRules(symbol string) governor.Rules {
	s := c.For(symbol)
	return governor.Rules{Config: s.Governor, Mode: c.Mode, StaleAfter: s.Reconcile.StaleAfter}
}

// ApplyRules are apply's rules for a symbol.
func (c *Config) ApplyRules(symbol string) apply.Rules {
	s := c.For(symbol)
	return apply.Rules{
		Config: s.Apply, Listed: slices.Contains(c.SymbolNames(), symbol), Mode: c.Mode, Tolerance: s.Reconcile.Tolerance(),
		CloseDust: s.Reconcile.Dust == reconcile.DustCloseAll, StaleAfter: s.Reconcile.StaleAfter, RecvWindow: c.Exchange.RecvWindow,
	}
}

// Limits shows how much of each limit is used, and when room comes back.
func (c *Config) Limits(s *ledger.State, now time.Time) []operator.LimitView {
	var views []operator.LimitView
	for _, symbol := range c.SymbolNames() {
		g := c.For(symbol).Governor
		rolling := func(name string, b ledger.Budget, window time.Duration, bound int) {
			used := governor.Times(s, symbol, b, now.Add(-window))
			v := operator.LimitView{Symbol: symbol, Limit: name, Used: strconv.Itoa(len(used)), Bound: strconv.Itoa(bound)}
			if len(used) >= bound {
				v.FreesAt = used[len(used)-bound].Add(window)
			}
			views = append(views, v)
		}
		rolling("max_per_hour", ledger.Normal, time.Hour, g.MaxPerHour)
		rolling("max_per_5min", ledger.Normal, 5*time.Minute, g.MaxPer5Min)
		rolling("protective_per_hour", ledger.Protective, time.Hour, g.ProtectivePerHour)
		rolling("stops_per_hour", ledger.StopBudget, time.Hour, g.StopsPerHour)
		if g.DailyNotional.Sign() > 0 {
			used := governor.Today(s, symbol, now)
			v := operator.LimitView{Symbol: symbol, Limit: "daily_notional", Used: used.Fixed(2), Bound: g.DailyNotional.Fixed(2)}
			if !used.Less(g.DailyNotional) {
				v.FreesAt = now.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
			}
			views = append(views, v)
		}
	}
	return views
}
