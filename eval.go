package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"permitchain/stages/exitbrain"
)

type (
	evalCmd struct {
		Harvest     evalHarvestCmd `cmd:"" help:"Which close the harvest rule proposes for a position."`
		MarketState evalMarketCmd  `cmd:"" help:"What the prices say of the market."`
	}
	evalHarvestCmd struct{ evalInput }
	evalMarketCmd  struct{ evalInput }
	evalInput      struct {
		File string `arg:"" optional:"" default:"-" help:"JSON lines; - is standard input."`
	}
)

// Run evaluates the harvest rule.
func (e evalHarvestCmd) Run(a *app) error {
	return e.eval(a, func(in io.Reader, c exitbrain.Config) (int, error) {
		return exitbrain.EvalHarvest(in, a.out, c.HarvestParams)
	})
}

// Run evaluates the market state.
func (e evalMarketCmd) Run(a *app) error {
	return e.eval(a, func(in io.Reader, c exitbrain.Config) (int, error) {
		return exitbrain.EvalMarketState(in, a.out, c.MarketParams)
	})
}

// eval answers line by line; a line that is an error says so in its place, and is no failure of the command.
func (e evalInput) eval(a *app, kernel func(io.Reader, exitbrain.Config) (int, error)) error {
	c, err := a.config()
	if err != nil {
		return err
	}
	if e.File == "-" {
		_, err = kernel(a.in, c.ExitBrain)
		return err
	}
	f, err := os.Open(e.File)
	if err != nil {
		return fmt.Errorf("open lines: %w", err)
	}
	_, err = kernel(f, c.ExitBrain)
	return errors.Join(err, f.Close())
}
