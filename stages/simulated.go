package stages

import (
	"permitchain/stages/reconcile"
	"permitchain/stages/simulate"
)

// Simulated are the rules that a configuration is simulated with.
func (c *Config) Simulated() *simulate.Rules {
	return &simulate.Rules{
		Mode: c.Mode, Symbols: c.SymbolNames(), Config: c.Digest(), Apply: c.ApplyRules, Governor: c.GovernorRules, Global: c.Governor,
		Reconcile: func(symbol string) reconcile.Config { return c.For(symbol).Reconcile }, Interval: c.Reconcile.SnapshotInterval,
		RecvWindow: c.Exchange.RecvWindow, Timeout: c.Exchange.Timeout, Hedge: c.Paper.Hedge, Positions: c.Paper.Positions, Ledger: c.Paper.Ledger,
	}
}
