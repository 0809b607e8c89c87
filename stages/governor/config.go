package governor

import (
	"time"

	"permitchain/ledger"
)

// Config are the governor's limits for one symbol.
type Config struct {
	AutoApprove            []ledger.Mode   `yaml:"auto_approve"`
	MaxPerHour             int             `yaml:"max_per_hour"`
	MaxPer5Min             int             `yaml:"max_per_5min"`
	Cooldown               time.Duration   `yaml:"cooldown"`
	DailyNotional          ledger.USD      `yaml:"daily_notional"` // 0: no limit
	OnDailyLimit           OnDailyLimit    `yaml:"on_daily_limit"`
	ProtectivePerHour      int             `yaml:"protective_per_hour"`
	StopsPerHour           int             `yaml:"stops_per_hour"`
	KillScoreCritical      float64         `yaml:"kill_score_critical"`
	PermitTTL              time.Duration   `yaml:"permit_ttl"`
	DisarmTo               ledger.RunState `yaml:"disarm_to"`                // of the whole process
	DisarmErrors           int             `yaml:"disarm_errors"`            // of the whole process
	PortfolioPerHour       int             `yaml:"portfolio_per_hour"`       // of the whole process; 0: no limit
	PortfolioDailyNotional ledger.USD      `yaml:"portfolio_daily_notional"` // of the whole process; 0: no limit
}

// OnDailyLimit is what happens to a close that would pass the daily limit.
type OnDailyLimit string

// What can happen.
const (
	DenyPast OnDailyLimit = "deny"
	TrimTo   OnDailyLimit = "trim"
)
