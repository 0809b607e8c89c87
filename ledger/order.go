package ledger

// FlattenOrder is the operator's order to close what is held.
type FlattenOrder struct {
	Symbol   string // "" for all
	Force    bool   // skip the checks that compare exchange and ledger, and holds
	Who, Why string
}

// SyncOrder is the operator's word that the exchange is right about a position.
type SyncOrder struct {
	Key      Key
	Who, Why string
}

// SyncResult is what came of it.
type SyncResult struct {
	From, To Qty
	Error    string // "" when the ledger was adjusted
}

// Useless says why a stop at trigger would not protect h, "" where it would: the mark price has passed it, or the exchange
// would have closed the position before it. What is not known speaks against no stop.
func (h Holding) Useless(trigger, mark Price) Reason {
	beyond := func(bound Price) bool { // at bound, or on the far side of it as seen from a price where h still gains
		if h.Amount.Sign() < 0 {
			return !trigger.Less(bound)
		}
		return !bound.Less(trigger)
	}
	switch {
	case h.Amount.IsZero():
		return ""
	case !mark.IsZero() && (!beyond(mark) || trigger.Equal(mark)):
		return StopWouldTrigger
	case !h.Liquidation.IsZero() && beyond(h.Liquidation):
		return StopBeyondLiq
	default:
		return ""
	}
}

// SettleOrder is the operator's evidence about an order whose outcome nothing else tells: the exchange's
// id of it, or that it was never placed.
type SettleOrder struct {
	ClientOrderID string
	OrderID       int64 // 0: it was not placed
	Who, Why      string
}

// SettleResult is what came of it.
type SettleResult struct {
	State IntentState
	Error string // "" when the evidence was taken
}
