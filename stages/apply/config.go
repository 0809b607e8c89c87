package apply

import "time"

// Config are the rules of planning and execution for one symbol.
type Config struct {
	ProposalTTL        time.Duration `yaml:"proposal_ttl"`
	DedupeTTL          time.Duration `yaml:"dedupe_ttl"` // of the whole process
	PermitWait         time.Duration `yaml:"permit_wait"`
	Attempts           int           `yaml:"attempts"`
	ExternalProtective bool          `yaml:"external_protective"`
	OnStopFailure      OnStopFailure `yaml:"on_stop_failure"`
}

// OnStopFailure is what follows a stop that could not be placed.
type OnStopFailure string

// What can follow.
const (
	AlertOnly OnStopFailure = "alert"
	CloseAll  OnStopFailure = "close"
)
