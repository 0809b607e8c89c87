// Package doctor finds what would keep a chain from doing its work, before it is needed.
//
// Contract: it only looks. It sends no order, changes nothing on the account, and leaves nothing on the disk. What
// it saw are Facts; Judge, which is pure, makes findings of them, and each that is not well says what to do.
package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/stages/governor"
)

// Level is how well something is.
type Level string

// The levels. A note is what could not be proved either way, or does not matter here; it is no finding.
const (
	OK   Level = "ok"
	Note Level = "note"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is one line of the report.
type Finding struct {
	Level Level  `json:"level"`
	What  string `json:"what"`
	Seen  string `json:"seen"`
	Do    string `json:"do"` // "" where nothing needs to be done
}

// Report is everything that was looked at.
type Report struct {
	Healthy  bool      `json:"healthy"`
	Findings []Finding `json:"findings"`
}

// Facts are what was seen. A nil part was not looked at, because the mode or an earlier finding leaves nothing to look at.
type Facts struct {
	Mode     ledger.Mode
	Warnings []string // of the configuration
	Key      *Key
	Confirm  *bool // live only: the key's tail is the one confirmed
	Exchange *Exchange
	Host     Host
	Disk     Disk
	Ledger   Ledger
	API      API
	Limits   map[string]governor.Config // by symbol
	Symbols  []string
}

// Key is what became of looking for the API key, and of using it.
type Key struct {
	Missing error // none was found, or it can't be read
	Refused error // the exchange doesn't take it
	Tail    string
	Trades  *bool // nil: the exchange didn't say
	Pays    *bool // withdrawals are possible
}

// Exchange is what the exchange said.
type Exchange struct {
	Host         string
	Unreachable  error // and nothing below is known
	Offset       time.Duration
	Uncertainty  time.Duration
	Markets      map[string]exchange.Market
	Snapshot     *ledger.Snapshot
	SnapshotErr  error
	Open         []exchange.OrderState
	OpenErr      error
	Marks        map[string]ledger.Price // that the stream delivered
	MarksIn      time.Duration           // how long the last of them took
	Listened     time.Duration           // how long the streams were listened to; 0: they weren't
	StreamErr    error
	MarketFault  string // why the market stream was last not connected
	UserFault    string // and the account stream
	UserStream   bool   // the account stream is connected
	UserEvents   int    // and so many events came over it
	Weight       int
	WeightAMin   int
	ChainRunning bool // its own streams are the ones that count, and are not disturbed
}

// Host is this machine.
type Host struct {
	ClockSynchronised bool
	ClockErr          error
}

// Disk is where the state is kept.
type Disk struct {
	Dir      string
	Missing  bool // it will be made when a chain starts
	WriteErr error
	Free     uint64
	Flushes  []time.Duration // of a page each, sorted
}

// Ledger is what became of looking at the ledger.
type Ledger struct {
	Path    string
	None    bool
	Running bool // a chain holds it
	Err     error
	Records uint64
}

// API is where the API would listen.
type API struct {
	Listen string
	Err    error
}

// Write shows the report to people.
func (r Report) Write(w io.Writer, color bool) error {
	colors := map[Level]string{OK: "32", Note: "36", Warn: "33", Fail: "31"}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range r.Findings {
		level := string(f.Level)
		if color {
			level = "\x1b[" + colors[f.Level] + "m" + level + "\x1b[0m"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", level, f.What, f.Seen)
		if f.Do != "" {
			fmt.Fprintf(t, "\t\t→ %s\n", f.Do)
		}
	}
	return t.Flush()
}

// WriteJSON shows the report to programs.
func (r Report) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// Summary is the report in a line.
func (r Report) Summary() string {
	var wrong []string
	for _, f := range r.Findings {
		if f.Level == Warn || f.Level == Fail {
			wrong = append(wrong, f.What)
		}
	}
	return fmt.Sprintf("%d of %d checks found something: %s", len(wrong), len(r.Findings), strings.Join(wrong, ", "))
}
