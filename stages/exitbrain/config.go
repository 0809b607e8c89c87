package exitbrain

import "time"

// Config are the rules of the exit-brain for one symbol.
type Config struct {
	Enabled  bool          `yaml:"enabled"`  // of the whole process
	Interval time.Duration `yaml:"interval"` // in which the paper source makes ten proposals; of the whole process
}
