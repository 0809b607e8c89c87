package reconcile

import (
	"time"

	"permitchain/ledger"
)

// Config are the rules of reconciliation for one symbol.
type Config struct {
	SnapshotInterval time.Duration  `yaml:"snapshot_interval"` // of the whole process
	StaleAfter       time.Duration  `yaml:"stale_after"`
	TolerancePct     ledger.Percent `yaml:"tolerance_pct"`
	ToleranceUSD     ledger.USD     `yaml:"tolerance_usd"`
	Cooldown         time.Duration  `yaml:"cooldown"`
	PermitTTL        time.Duration  `yaml:"permit_ttl"`
	Initial          Policy         `yaml:"initial"`
	ExternalTrades   Policy         `yaml:"external_trades"`
	Dust             Dust           `yaml:"dust"`
}

// Policy is what is done about something others did.
type Policy string

// The policies.
const (
	Adopt    Policy = "adopt"
	HoldOnIt Policy = "hold"
)

// Dust is what is done about a rest too small to close by itself.
type Dust string

// What can be done.
const (
	DustCloseAll Dust = "close_all"
	DustLeave    Dust = "leave"
)
