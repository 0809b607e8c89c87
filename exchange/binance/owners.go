package binance

import (
	"sync"

	"permitchain/ledger"
)

// owners remembers which client order id an order has: trades name the order only. A stop's order is under the stop's id.
type owners struct {
	mu  sync.Mutex
	ids *recent[numbered, string]
}

// ownersMost bounds what is remembered; what is forgotten is asked again.
const ownersMost = 1 << 14

func newOwners() *owners { return &owners{ids: newRecent[numbered, string](ownersMost)} }

// put learns an order's client id. An id of ours stays: the exchange may give a triggered stop's order one of its own.
func (o *owners) put(symbol string, orderID int64, clientOrderID string) {
	if orderID <= 0 || clientOrderID == "" {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	order := numbered{symbol, orderID}
	if was, known := o.ids.get(order); !known || !ledger.OfOurForm(was) || ledger.OfStopForm(clientOrderID) {
		o.ids.put(order, clientOrderID)
	}
}

// of is an order's client id, where it is known.
func (o *owners) of(symbol string, orderID int64) (string, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ids.get(numbered{symbol, orderID})
}
