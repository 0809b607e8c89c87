package operator

import (
	"fmt"
	"strings"
	"time"
)

// ExchangeView is how the way to the exchange is: what may keep it from being asked, or from answering. Instants are the
// exchange's clock's, those of streams this host's.
type ExchangeView struct {
	Host             string     `json:"host"`
	ClockOffsetMS    float64    `json:"clock_offset_ms"` // exchange clock minus ours
	ClockUncertainMS float64    `json:"clock_uncertainty_ms"`
	ClockInDoubt     bool       `json:"clock_in_doubt"` // too vague to send an order by
	WeightUsed       int        `json:"weight_used"`    // of this minute and address, others' requests included
	WeightLimit      int        `json:"weight_limit"`
	OrderCount       string     `json:"order_count"`
	PausedUntil      time.Time  `json:"paused_until,omitzero"` // nothing is asked before
	Banned           bool       `json:"banned"`                // the exchange named that instant; otherwise we pause by ourselves
	NoOrdersUntil    time.Time  `json:"no_orders_until,omitzero"`
	Refusal          string     `json:"refusal"` // the last answer that says: stop trading
	Silence          string     `json:"silence"` // why the last call had no answer at all
	Account          StreamView `json:"account_stream"`
	Market           StreamView `json:"market_stream"`
	UnknownEvents    int64      `json:"unknown_events"`   // of types nobody knows
	MalformedEvents  int64      `json:"malformed_events"` // that were not what their type promises
	Silences         int64      `json:"silences"`         // times that the account stream told nothing of a trade
}

// StreamView is one of the two streams.
type StreamView struct {
	Connected  bool      `json:"connected"`
	Since      time.Time `json:"since,omitzero"` // of the newest connection
	LastEvent  time.Time `json:"last_event,omitzero"`
	Reconnects int64     `json:"reconnects"` // without those that replaced a connection in good time
	LastError  string    `json:"last_error"`
}

// Problems are what keeps the exchange silent.
func (v *ExchangeView) Problems() []string {
	var found []string
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	switch {
	case v.PausedUntil.IsZero():
	case v.Banned:
		say("it refuses this address until %s, by its own word: nothing is asked before", Stamp(v.PausedUntil))
	default:
		say("it refused a request and named no end of that: we pause until %s", Stamp(v.PausedUntil))
	}
	if !v.NoOrdersUntil.IsZero() {
		say("it refused an order as one too many: none is sent before %s", Stamp(v.NoOrdersUntil))
	}
	if v.Refusal != "" {
		say("it refused the account or its key (%s): permitchain doctor says what to do", v.Refusal)
	}
	if v.Silence != "" {
		say("the last call had no answer (%s)", v.Silence)
	}
	if v.ClockInDoubt {
		say("its clock is known to ± %.1f ms only: no order is sent", v.ClockUncertainMS)
	}
	for _, s := range []struct {
		name string
		StreamView
	}{{"account", v.Account}, {"market", v.Market}} {
		if !s.Connected {
			say("the %s stream is down%s", s.name, strings.TrimSuffix(" ("+s.LastError+")", " ()"))
		}
	}
	return found
}

// Summary is all of it in one line.
func (v *ExchangeView) Summary() string {
	text := fmt.Sprintf("%s, clock %+.1f ms ± %.1f ms, weight %d of %d, account stream ", v.Host, v.ClockOffsetMS, v.ClockUncertainMS, v.WeightUsed, v.WeightLimit)
	if v.Account.Connected {
		text += "since " + Stamp(v.Account.Since)
	} else {
		text += "DOWN"
	}
	if !v.Account.LastEvent.IsZero() {
		text += ", last event " + Stamp(v.Account.LastEvent)
	}
	for _, c := range []struct {
		n    int64
		what string
	}{
		{v.Account.Reconnects, "reconnects"},
		{v.UnknownEvents, "unknown events"},
		{v.MalformedEvents, "malformed events"},
		{v.Silences, "trades it left out"},
	} {
		if c.n > 0 {
			text += fmt.Sprintf(", %s %d", c.what, c.n)
		}
	}
	return text
}

// explained is the part of why that is about the exchange itself.
func (v *ExchangeView) explained() Explanation {
	return Explanation{Subject: "exchange", Lines: append([]string{v.Summary()}, v.Problems()...)}
}
