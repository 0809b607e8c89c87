package doctor

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/exchange/binance"
	"permitchain/ledger"
	"permitchain/stages"
	"permitchain/stages/governor"
)

const (
	listenFor = 8 * time.Second  // that the streams may take to deliver; a mark price comes each second
	patience  = 15 * time.Second // with a request: it may have to wait for weight that a running chain uses
)

// Examine looks at everything that a chain of this configuration would need.
func Examine(ctx context.Context, cfg *stages.Config) Facts {
	f := Facts{
		Mode: cfg.Mode, Warnings: cfg.Warnings(), Symbols: cfg.SymbolNames(), Limits: map[string]governor.Config{}, Host: LookAtHost(), Disk: LookAtDisk(cfg.StateDir),
	}
	for _, symbol := range f.Symbols {
		f.Limits[symbol] = cfg.For(symbol).Governor
	}
	options := cfg.StoreOptions()
	var creds binance.Credentials
	if cfg.Mode != ledger.Paper {
		f.Key = &Key{}
		if creds, f.Key.Missing = stages.Credentials(); f.Key.Missing == nil {
			f.Key.Tail, options.Host, options.Account = creds.Tail(), cfg.Host(), creds.Tail()
		}
	}
	f.Ledger = LookAtLedger(filepath.Join(cfg.Dir(), stages.LedgerFile), options)
	f.API = LookAtAPI(cfg.HTTP.Listen, cfg.HTTP.TokenFile, f.Ledger.Running)
	if f.Key == nil || f.Key.Missing != nil {
		return f
	}
	if cfg.Mode == ledger.Live {
		confirmed := cfg.Confirmed(creds)
		f.Confirm = &confirmed
	}
	f.askExchange(ctx, cfg, creds)
	return f
}

// askExchange asks by REST, and listens to the streams where no chain does.
func (f *Facts) askExchange(ctx context.Context, cfg *stages.Config, creds binance.Credentials) {
	x := &Exchange{Host: cfg.Host(), Marks: map[string]ledger.Price{}, ChainRunning: f.Ledger.Running}
	f.Exchange = x
	options := cfg.Binance(creds, zerolog.Nop())
	options.Timeout = max(options.Timeout, patience)
	b, err := binance.Open(ctx, options)
	if err != nil {
		if x.Unreachable = err; errors.Is(err, binance.ErrKey) {
			f.Key.Refused = err
		}
		return
	}
	defer func() { _ = b.Close() }() // It only ends what it began; nothing that could fail of it matters any more.
	if a, err := b.Account(ctx); err == nil {
		f.Key.Trades = &a.CanTrade
		if a.Key != nil {
			trades := a.CanTrade && a.Key.Futures
			f.Key.Trades, f.Key.Pays = &trades, &a.Key.Withdrawals
		}
	}
	if x.Markets, err = b.Markets(ctx, f.Symbols); err != nil {
		x.Unreachable = err
		return
	}
	snap, err := b.Snapshot(ctx)
	if x.SnapshotErr = err; err == nil {
		x.Snapshot = &snap
	}
	x.Open, x.OpenErr = b.OpenOrders(ctx)
	if !x.ChainRunning {
		x.listen(ctx, b)
	}
	h := b.Health()
	x.Offset, x.Uncertainty, x.Weight, x.WeightAMin = h.Offset, h.Uncertainty, h.UsedWeight, h.WeightLimit
}

// listen waits until every symbol's mark has come and the account's stream is connected, and no longer than listenFor.
func (x *Exchange) listen(ctx context.Context, b *binance.Binance) {
	ctx, cancel := context.WithTimeout(ctx, listenFor)
	defer cancel()
	begun := time.Now()
	err := b.Stream(ctx, func(e exchange.StreamEvent) {
		if e.Order != nil || e.Trade != nil {
			x.UserEvents++
		}
		if e.Mark != nil && x.Marks[e.Mark.Symbol].IsZero() {
			x.Marks[e.Mark.Symbol], x.MarksIn = e.Mark.Price, time.Since(begun)
		}
		x.UserStream = x.UserStream || b.Health().Stream.User.Connected
		if len(x.Marks) == len(x.Markets) && x.UserStream {
			cancel()
		}
	})
	streams := b.Health().Stream
	x.UserStream, x.Listened = x.UserStream || streams.User.Connected, time.Since(begun)
	x.MarketFault, x.UserFault = streams.Market.LastError, streams.User.LastError
	if ctx.Err() == nil {
		x.StreamErr = err
	}
}
