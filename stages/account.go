package stages

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/exchange/binance"
	"permitchain/exchange/paper"
	"permitchain/ledger"
	"permitchain/stages/operator"
)

// account is whose positions a mode trades: what a ledger is bound to, and how to get there.
type account struct {
	host, tail string
	open       func(context.Context, Options) (*line, error)
}

// line is an open exchange, and what only one of them can do.
type line struct {
	exchange.Exchange
	io.Closer
	trade func(context.Context, string, ledger.Side, ledger.Qty) error // nil but for paper
	view  func() *operator.ExchangeView                                // nil for paper
}

// accountOf finds the account of a configuration, and with it the key. It asks nobody yet.
func accountOf(cfg *Config) (account, error) {
	if cfg.Mode == ledger.Paper {
		return account{"paper", "paper", openPaper}, nil
	}
	creds, err := Credentials()
	if err != nil {
		return account{}, err
	}
	if cfg.Mode == ledger.Live && !cfg.Confirmed(creds) {
		there := "what stands there is not those"
		if cfg.Live.ConfirmKeyTail == "" {
			there = "nothing stands there"
		}
		return account{}, fmt.Errorf(`%w: mode live sends real orders: write live: {confirm_key_tail: "…"} into the configuration, with the last 4 characters of the API key of the account that you mean; %s`, ErrExchange, there)
	}
	return account{cfg.Host(), creds.Tail(), func(ctx context.Context, o Options) (*line, error) {
		if cfg.Mode == ledger.Live {
			o.Log.Warn().Msg("LIVE: this chain sends real orders for real money, on the account whose API key ends in " + creds.Tail())
		}
		opt := cfg.Binance(creds, o.Log.With().Str("stage", "exchange").Logger())
		opt.Patience = 2 * time.Minute // Longer than a minute's weight; who runs a supervisor restarts less often than that.
		x, err := binance.Open(ctx, opt)
		if errors.Is(err, binance.ErrKey) {
			return nil, fmt.Errorf("%w (%s permitchain doctor looks at everything)", err, RefusedKey)
		}
		if err != nil {
			return nil, err
		}
		return &line{x, x, nil, func() *operator.ExchangeView { return viewOf(cfg.Host(), x.Health()) }}, nil
	}}, nil
}

// RefusedKey is what to do when the exchange does not take the key.
const RefusedKey = "do key and secret belong together, and to this host? On the exchange's API page: is the key not expired, and allowed from this address?"

// Credentials are the API key and its secret, from where they may be; the configuration is no such place.
func Credentials() (binance.Credentials, error) {
	creds, err := binance.LoadCredentials(os.Getenv)
	if err != nil {
		err = fmt.Errorf("%w: %w. A key and its secret are given in the environment (BINANCE_API_KEY, BINANCE_API_SECRET), in files (BINANCE_API_KEY_FILE, "+
			"BINANCE_API_SECRET_FILE), or as systemd credentials (LoadCredential=binance_api_key:… and binance_api_secret:…)", ErrExchange, err)
	}
	return creds, err
}

// Confirmed tells whether the operator has named the account that the key is of.
func (c *Config) Confirmed(creds binance.Credentials) bool {
	return c.Live.ConfirmKeyTail != "" && c.Live.ConfirmKeyTail == creds.Tail()
}

// urls are the base URLs of the exchange: the configuration's, or the mode's own.
func (c *Config) urls() (rest, stream string) {
	rest, stream = binance.Hosts(c.Mode)
	if c.Exchange.RESTURL != "" {
		rest = strings.TrimRight(c.Exchange.RESTURL, "/")
	}
	if c.Exchange.StreamURL != "" {
		stream = strings.TrimRight(c.Exchange.StreamURL, "/")
	}
	return rest, stream
}

// Host is where the exchange's REST is; a ledger belongs to it.
func (c *Config) Host() string {
	rest, _ := c.urls()
	u, err := url.Parse(rest)
	if err != nil {
		return rest // The configuration's was read as a URL already.
	}
	return u.Host
}

// Binance is how the configuration wants the exchange to be reached.
func (c *Config) Binance(creds binance.Credentials, log zerolog.Logger) binance.Options {
	rest, stream := c.urls()
	return binance.Options{
		RESTURL: rest, StreamURL: stream, Credentials: creds, RecvWindow: c.Exchange.RecvWindow, Timeout: c.Exchange.Timeout,
		ReadOnly: c.Mode == ledger.DryRun, Symbols: c.SymbolNames(), Bar: c.ExitBrain.Bar, Log: log,
	}
}

// viewOf is the adapter's health as people and programs are told of it.
func viewOf(host string, h binance.Health) *operator.ExchangeView {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	stream := func(s binance.SocketFacts) operator.StreamView {
		return operator.StreamView{Connected: s.Connected, Since: s.Since, LastEvent: s.LastEvent, Reconnects: max(0, s.Connects-1-s.Rollovers), LastError: s.LastError}
	}
	v := &operator.ExchangeView{
		Host: host, ClockOffsetMS: ms(h.Offset), ClockUncertainMS: ms(h.Uncertainty), ClockInDoubt: h.ClockInDoubt, WeightUsed: h.UsedWeight, WeightLimit: h.WeightLimit,
		OrderCount: h.OrderCount, PausedUntil: h.PausedUntil, Banned: h.Banned, NoOrdersUntil: h.NoOrdersUntil, Refusal: h.Refusal, Silence: h.Silence,
		Account: stream(h.Stream.User), Market: stream(h.Stream.Market), MalformedEvents: h.Stream.Malformed, Silences: h.Stream.Silences,
	}
	for _, n := range h.Stream.Unknown {
		v.UnknownEvents += n
	}
	return v
}

func openPaper(_ context.Context, o Options) (*line, error) {
	cfg := o.Config
	x, err := paper.Open(filepath.Join(cfg.Dir(), BookFile), paper.Options{
		Seed: uint64(cfg.Paper.Seed), Speed: cfg.Paper.Speed, Symbols: cfg.SymbolNames(), Positions: cfg.Paper.Positions, Hedge: cfg.Paper.Hedge, Bar: cfg.ExitBrain.Bar, Trader: true,
	})
	if err != nil {
		return nil, err
	}
	return &line{x, x, x.Trade, nil}, nil
}
