package binance

import (
	"context"
	"fmt"

	"github.com/adshao/go-binance/v2/futures"

	"permitchain/exchange"
)

// Stream implements exchange.Exchange. It also ends when the key is refused for good.
func (b *Binance) Stream(ctx context.Context, emit func(exchange.StreamEvent)) error {
	if err := b.streams.run(ctx, emit); err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	return nil
}

// codeNoListenKey is said of a listen key that is no more.
const codeNoListenKey = -1125

func (b *Binance) createListenKey(ctx context.Context) (string, error) {
	c := &call{what: "POST /fapi/v1/listenKey", weight: 1, essential: true}
	e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) error {
		_, err := f.NewStartUserStreamService().Do(ctx, b.window())
		return err
	})
	if e != nil {
		return "", e
	}
	f := fieldsOf(c.body)
	key := f.text("listenKey")
	return key, f.err
}

func (b *Binance) keepListenKey(ctx context.Context, listenKey string) error {
	c := &call{what: "PUT /fapi/v1/listenKey", weight: 1, essential: true}
	e := b.do(ctx, c, func(ctx context.Context, f *futures.Client) error {
		return f.NewKeepaliveUserStreamService().ListenKey(listenKey).Do(ctx, b.window())
	})
	switch {
	case e == nil:
		return nil
	case e.Code == codeNoListenKey:
		return fmt.Errorf("%w: %w", errListenKeyGone, e)
	default:
		return e
	}
}

func (b *Binance) learnOrder(symbol string, orderID int64, clientOrderID string) {
	b.owners.put(symbol, orderID, clientOrderID)
}

func (b *Binance) orderName(symbol string, orderID int64) string {
	id, _ := b.owners.of(symbol, orderID)
	return id
}
