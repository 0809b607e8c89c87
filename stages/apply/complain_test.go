package apply

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/ledger"
)

// What the exchange has shown makes an unknown answer harmless. That it says "not placed" of what it has shown does not.
func TestAnAnswerThatCameTooLateToMatter(t *testing.T) {
	for _, c := range []struct {
		state   ledger.IntentState
		outcome exchange.Outcome
		want    string
	}{
		{ledger.Settled, exchange.Unknown, "warn"},
		{ledger.Placed, exchange.Unknown, "warn"},
		{ledger.Settled, exchange.NotPlaced, "error"},
		{ledger.NotPlaced, exchange.NotPlaced, "warn"},
		{ledger.Sending, exchange.Unknown, ""},
		{ledger.Settled, exchange.Placed, ""},
	} {
		var log bytes.Buffer
		a := &Stage{Log: zerolog.New(&log)}
		a.complain(ledger.Intent{State: c.state}, answer{"pc-1", exchange.Answer{Outcome: c.outcome, Message: "timeout"}})
		if got := log.String(); (c.want == "") != (got == "") || c.want != "" && (!strings.Contains(got, `"level":"`+c.want) || !strings.Contains(got, "(timeout)")) {
			t.Errorf("%s, and its answer is %s: %q, want %s", c.state, c.outcome, got, c.want)
		}
	}
}
