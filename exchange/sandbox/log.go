package sandbox

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"permitchain/ledger"
)

// Entry is one request for an order or a stop, as the sandbox received it, and what it did.
type Entry struct {
	At       time.Time        `json:"at"`                 // at the door
	SignedAt time.Time        `json:"signed_at,omitzero"` // what its timestamp says
	EngineAt time.Time        `json:"engine_at,omitzero"` // zero: it never reached the engine
	Stop     bool             `json:"stop,omitzero"`
	Symbol   string           `json:"symbol"`
	Side     ledger.Side      `json:"side,omitzero"`
	Dir      ledger.Direction `json:"direction"`
	Qty      string           `json:"qty"` // as it was written
	ClientID string           `json:"client_order_id"`
	Fault    Kind             `json:"fault,omitzero"`    // what befell it
	OrderID  int64            `json:"order_id,omitzero"` // what the engine made of it
	Code     int64            `json:"code,omitzero"`     // why it was refused
	Executed ledger.Qty       `json:"executed,omitzero"` // by this client id until now, from the trades
}

// Log is every request for an order or a stop, oldest first.
func (s *Sandbox) Log() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance()
	var all []Entry
	for _, e := range s.log {
		entry := *e
		entry.Executed = s.account.executed[e.ClientID]
		all = append(all, entry)
	}
	return all
}

// Executed is how much was traded under each client id, by whomever.
func (s *Sandbox) Executed() map[string]ledger.Qty {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance()
	return maps.Clone(s.account.executed)
}

// Verdict judges the account's orders of our form by the exchange's own trades; nothing is wrong where it is
// empty. Granted is how much each client id was allowed to execute; with nil, amounts are not judged.
func (s *Sandbox) Verdict(granted map[string]ledger.Qty) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance()
	wrong := slices.Clone(s.account.broken)
	for _, id := range slices.Sorted(maps.Keys(s.account.engine)) {
		if !ledger.OfOurForm(id) {
			continue
		}
		if orders := s.account.engine[id]; len(orders) > 1 {
			wrong = append(wrong, fmt.Sprintf("%s became %d orders: %v", id, len(orders), orders))
		}
		executed := s.account.executed[id]
		if allowed, ok := granted[id]; granted != nil && allowed.Less(executed) {
			wrong = append(wrong, fmt.Sprintf("%s executed %s, granted %s (known: %v)", id, executed, allowed, ok))
		}
	}
	return wrong
}
