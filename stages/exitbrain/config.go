package exitbrain

import "time"

// Config are the rules of the exit-brain for one symbol: when it looks and speaks, and every constant of its kernels.
type Config struct {
	Enabled       bool          `yaml:"enabled"`        // of the whole process
	Interval      time.Duration `yaml:"interval"`       // between proposals that say the same
	CloseInterval time.Duration `yaml:"close_interval"` // the same, while a protective close is wanted and not done
	MinGap        time.Duration `yaml:"min_gap"`        // between proposals, unless the action tightens
	Bar           time.Duration `yaml:"bar"`            // of the whole process
	StopDist      float64       `yaml:"stop_dist"`      // distance of the stop that risk is measured by, as a share of the entry price; 0: fallback_stop
	MaxMove       float64       `yaml:"max_move"`       // share by which a mark may differ from the last close; beyond it is absurd
	MarketParams  `yaml:",inline"`
	HarvestParams `yaml:",inline"`
}
