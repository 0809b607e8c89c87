package stages

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"permitchain/ledger"
	"permitchain/pipeline"
	"permitchain/stages/exitbrain"
	"permitchain/stages/operator"
)

type (
	reloadRequest = pipeline.Request[struct{}, reloadResult]
	reloadResult  struct {
		text string
		err  error
	}
)

// ErrNeedsRestart tells that a configuration changes what only a start takes up.
var ErrNeedsRestart = errors.New("only exit_brain and log can be changed without a restart")

// serveReloads takes reloads up, one after the other, until it is stopped.
func (c *chain) serveReloads(stop pipeline.Stop) error {
	defer close(c.deaf)
	for {
		select {
		case <-c.Hangup:
			if text, err := c.reload(stop); err != nil {
				c.Log.Error().Err(err).Msg("the configuration was not reloaded: the one in force stays")
			} else {
				c.Log.Info().Msg(text)
			}
		case r := <-c.asked:
			text, err := c.reload(stop)
			r.Reply <- reloadResult{text, err}
		case <-stop.Soft:
			return nil
		}
	}
}

// Reload asks for a reload and waits for what comes of it.
func (c *chain) Reload(ctx context.Context) (string, error) {
	r := pipeline.Ask[struct{}, reloadResult](struct{}{})
	select {
	case c.asked <- r:
	case <-c.deaf:
		return "", errors.New("the chain is stopping")
	case <-ctx.Done():
		return "", ctx.Err()
	}
	select {
	case res := <-r.Reply:
		if wrong := (*ConfigError)(nil); errors.As(res.err, &wrong) {
			return "", operator.Failed(operator.BadRequest, "%v", res.err)
		}
		return res.text, res.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// reload brings the changed configuration into force, all of it or nothing: it is read and checked
// first, then journalled, and only then taken up.
func (c *chain) reload(stop pipeline.Stop) (string, error) {
	if c.Load == nil {
		return "", ErrNeedsRestart
	}
	fresh, err := c.Load()
	if err != nil {
		return "", err
	}
	if fresh.Digest() == c.inForce.Digest() {
		return "the configuration has not changed", nil
	}
	if !c.inForce.reloadable(fresh) {
		return "", ErrNeedsRestart
	}
	commit, err := c.store.Decide(stop.Hard, func(*ledger.State, time.Time) []ledger.Event {
		return []ledger.Event{&ledger.ConfigUsed{Digest: fresh.Digest(), Text: string(fresh.Effective())}}
	})
	if err == nil {
		err = commit.Wait(stop.Hard)
	}
	if err != nil {
		return "", fmt.Errorf("journal the configuration: %w", err)
	}
	r := pipeline.Ask[map[string]exitbrain.Config, struct{}](fresh.brains())
	select {
	case c.reloads <- r:
		<-r.Reply
	case <-stop.Soft:
		return "", errors.New("the chain is stopping")
	}
	if level, err := zerolog.ParseLevel(string(fresh.Log.Level)); err == nil {
		zerolog.SetGlobalLevel(level)
	}
	c.inForce = fresh
	return "reloaded: configuration " + fresh.Digest()[:12] + " is in force", nil
}

// reloadable tells whether fresh differs in nothing but what a reload takes up.
func (c *Config) reloadable(fresh *Config) bool {
	like := *fresh
	like.Log, like.ExitBrain, like.Symbols = c.Log, c.ExitBrain, slices.Clone(fresh.Symbols)
	for i := range like.Symbols {
		like.Symbols[i].ExitBrain = c.For(like.Symbols[i].Name).ExitBrain
	}
	return like.Digest() == c.Digest() && fresh.ExitBrain.Bar == c.ExitBrain.Bar
}
