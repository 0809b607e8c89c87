package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"permitchain/exchange/sandbox"
	"permitchain/ledger"
	"permitchain/stages"
)

// sandboxCmd serves an exchange that speaks Binance's REST and WebSocket, with one made-up account.
type sandboxCmd struct {
	Listen   string                `default:"127.0.0.1:8790" placeholder:"ADDRESS" help:"Address and port on this machine (${default}); port 0 takes a free one."`
	Seed     uint64                `default:"1" help:"The same seed makes the same market, luck, and made-up key."`
	Speed    float64               `default:"1" placeholder:"N" help:"How many times faster its market passes (${default})."`
	Position map[string]ledger.Qty `placeholder:"SYMBOL=QTY" help:"What the account holds at first (BTCUSDT=0.046); without it 1 of the first symbol. In hedge mode by SYMBOL:LONG or SYMBOL:SHORT; a short is negative."`
	Hedge    bool                  `help:"Hedge mode: LONG and SHORT side by side."`
	Reopen   time.Duration         `default:"0s" help:"Somebody opens a closed position again after so long; 0s: nobody does."`
	Faults   string                `enum:"none,calm,hostile" default:"none" help:"What goes wrong by itself: none, calm (a bad day) or hostile (a day that never was)."`
	Key      string                `help:"The API key that it accepts; without one it makes one up."`
	Secret   string                `help:"The secret of --key; or the public half of an Ed25519 pair, as PEM."`
}

// options are the sandbox's; a user's mistake is a usage error.
func (c sandboxCmd) options(symbols []string) (sandbox.Options, error) {
	o := sandbox.Options{Seed: c.Seed, Speed: c.Speed, Symbols: symbols, Hedge: c.Hedge, Reopen: c.Reopen, Key: c.Key, Secret: c.Secret, Positions: map[ledger.Key]ledger.Qty{}}
	if (c.Key == "") != (c.Secret == "") {
		return o, usageError{errors.New("--key and --secret go together")}
	}
	if c.Key == "" {
		o.Key, o.Secret = madeUp("key", c.Seed), madeUp("secret", c.Seed)
	}
	for name, q := range c.Position {
		k, err := stages.SeedKey(name)
		if err != nil {
			return o, usageError{fmt.Errorf("--position: %w", err)}
		}
		o.Positions[k] = q
	}
	if c.Position == nil {
		side := ledger.Both
		if c.Hedge {
			side = ledger.Long
		}
		o.Positions[ledger.Key{Symbol: symbols[0], Side: side}] = ledger.MustQty("1")
	}
	var err error
	if o.Faults, err = sandbox.Preset(c.Faults); err == nil {
		err = o.Check()
	}
	if err != nil {
		return o, usageError{err}
	}
	return o, nil
}

// madeUp is a key, or a secret, that opens nothing but a sandbox of that seed.
func madeUp(what string, seed uint64) string {
	sum := sha256.Sum256([]byte("permitchain sandbox " + what + " " + strconv.FormatUint(seed, 10)))
	return hex.EncodeToString(sum[:])
}

// Run serves the sandbox until it is stopped.
func (c sandboxCmd) Run(a *app) error {
	config, err := a.config()
	if err != nil {
		return err
	}
	o, err := c.options(config.SymbolNames())
	if err != nil {
		return err
	}
	at, err := netip.ParseAddrPort(c.Listen)
	if err != nil || !at.Addr().IsLoopback() {
		return usageError{errors.New("--listen: an address of this machine with a port, like 127.0.0.1:8790, is wanted")}
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("serve the sandbox: %w", err)
	}
	if err := c.announce(a, l.Addr().String(), o); err != nil {
		return errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	s := sandbox.New(o)
	server := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	ran := make(chan error, 2)
	go func() { ran <- s.Run(ctx) }()
	go func() { ran <- server.Serve(l) }()
	err = <-ran
	cancel()
	err = errors.Join(err, server.Close(), <-ran)
	if a.ctx.Err() != nil {
		return nil // It was stopped, and whatever ended with it may say so.
	}
	return fmt.Errorf("serve the sandbox: %w", err)
}

// announce tells what to type to trade on it.
func (c sandboxCmd) announce(a *app, address string, o sandbox.Options) error {
	rest, stream := "http://"+address, "ws://"+address
	if a.Output == "json" {
		return json.NewEncoder(a.out).Encode(map[string]string{"rest_url": rest, "stream_url": stream, "key": o.Key, "secret": o.Secret})
	}
	exports := fmt.Sprintf("    export BINANCE_API_KEY=%s\n    export BINANCE_API_SECRET=%s\n", o.Key, o.Secret)
	if c.Key != "" {
		exports = "    (export BINANCE_API_KEY and BINANCE_API_SECRET as you gave them)\n"
	}
	fmt.Fprintf(a.out, "A sandbox of Binance USD-M futures at %s: nothing in it is real, and it forgets everything when it ends. Ctrl-C ends it.\nThe account holds:", rest)
	for _, k := range slices.SortedFunc(maps.Keys(o.Positions), ledger.Key.Compare) {
		fmt.Fprintf(a.out, " %s %s", k.Label(), o.Positions[k])
	}
	fmt.Fprintf(a.out, "\n\nIn a second terminal:\n\n%s    permitchain run --mode testnet --rest-url %s --stream-url %s\n\n"+
		"In a third one: permitchain status --mode testnet. What goes wrong is switched with curl:\n\n"+
		"    curl %s/sandbox/faults                                     # every kind of fault there is\n"+
		"    curl %s/sandbox/faults -d '{\"kind\":\"hang\",\"call\":\"POST /fapi/v1/order\"}'   # the next order is executed, and its answer is lost\n"+
		"    curl %s/sandbox/log                                        # every order as it came, and what it did\n", exports, rest, stream, rest, rest, rest)
	return nil
}
