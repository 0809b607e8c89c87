package stages

import (
	"slices"
	"strconv"
	"time"

	"permitchain/ledger"
	"permitchain/stages/apply"
	"permitchain/stages/exitbrain"
	"permitchain/stages/governor"
	"permitchain/stages/operator"
	"permitchain/stages/replay"
)

// GovernorRules are the governor's rules for a symbol.
func (c *Config) GovernorRules(symbol string) governor.Rules {
	s := c.For(symbol)
	return governor.Rules{Config: s.Governor, Mode: c.Mode, StaleAfter: s.Reconcile.StaleAfter}
}

// brains are the exit-brain's rules, by symbol.
func (c *Config) brains() map[string]exitbrain.Config {
	rules := map[string]exitbrain.Config{}
	for _, s := range c.Symbols {
		rules[s.Name] = s.ExitBrain
	}
	return rules
}

// ApplyRules are apply's rules for a symbol.
func (c *Config) ApplyRules(symbol string) apply.Rules {
	s := c.For(symbol)
	return apply.Rules{
		Config: s.Apply, Listed: slices.Contains(c.SymbolNames(), symbol), Mode: c.Mode, Tolerance: s.Reconcile.Tolerance(),
		StaleAfter: s.Reconcile.StaleAfter, RecvWindow: c.Exchange.RecvWindow,
	}
}

// Rules are all that decides about a symbol's plans.
func (c *Config) Rules(symbol string) replay.Rules {
	return replay.Rules{Apply: c.ApplyRules(symbol), Governor: c.GovernorRules(symbol), Reconcile: c.For(symbol).Reconcile}
}

// RecordedRules are the rules of a configuration that a journal records.
func RecordedRules(text string) (func(symbol string) replay.Rules, error) {
	c, err := ParseConfig([]byte(text), "the recorded configuration", nil)
	if err != nil {
		return nil, err
	}
	return c.Rules, nil
}

// Tell decides a plan again from its journal, under the configurations on record.
func Tell(journal func(fn func(ledger.Record) error) error, p *ledger.Plan) (*operator.Told, error) {
	return replay.Tell(replay.AgainOptions{Recorded: RecordedRules}, journal, p)
}

// Limits shows how much of each limit is used, and when room comes back.
func (c *Config) Limits(s *ledger.State, now time.Time) []operator.LimitView {
	var views []operator.LimitView
	rolling := func(symbol, name string, used []time.Time, bound int, window time.Duration) {
		v := operator.LimitView{Symbol: symbol, Limit: name, Used: strconv.Itoa(len(used)), Bound: strconv.Itoa(bound)}
		if len(used) >= bound {
			v.FreesAt = used[len(used)-bound].Add(window)
		}
		views = append(views, v)
	}
	daily := func(symbol, name string, used, bound ledger.USD) {
		v := operator.LimitView{Symbol: symbol, Limit: name, Used: used.Fixed(2), Bound: bound.Fixed(2)}
		if !used.Less(bound) {
			v.FreesAt = governor.Tomorrow(now)
		}
		views = append(views, v)
	}
	for _, symbol := range c.SymbolNames() {
		g := c.For(symbol).Governor
		times := func(b ledger.Budget, window time.Duration) []time.Time {
			return governor.Times(s, symbol, b, now.Add(-window))
		}
		rolling(symbol, "max_per_hour", times(ledger.Normal, time.Hour), g.MaxPerHour, time.Hour)
		rolling(symbol, "max_per_5min", times(ledger.Normal, 5*time.Minute), g.MaxPer5Min, 5*time.Minute)
		rolling(symbol, "protective_per_hour", times(ledger.Protective, time.Hour), g.ProtectivePerHour, time.Hour)
		rolling(symbol, "stops_per_hour", times(ledger.StopBudget, time.Hour), g.StopsPerHour, time.Hour)
		if g.DailyNotional.Sign() > 0 {
			daily(symbol, "daily_notional", governor.Today(s, symbol, now), g.DailyNotional)
		}
	}
	times, sum := governor.Portfolio(s, now)
	if g := c.Governor; g.PortfolioPerHour > 0 {
		rolling("all", "portfolio_per_hour", times, g.PortfolioPerHour, time.Hour)
	}
	if g := c.Governor; g.PortfolioDailyNotional.Sign() > 0 {
		daily("all", "portfolio_daily_notional", sum, g.PortfolioDailyNotional)
	}
	return views
}
