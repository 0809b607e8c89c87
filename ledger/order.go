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
