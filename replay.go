package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"permitchain/stages"
	"permitchain/stages/operator"
	"permitchain/stages/replay"
)

// Run decides recorded logs again.
func (r replayCmd) Run(a *app) (err error) {
	c, err := a.config()
	if err != nil {
		return err
	}
	overrides, sets, err := replay.ParseSets(r.Set)
	if err != nil {
		return usageError{err}
	}
	// What is set is laid over this configuration, and over each that an export records.
	rulesOf := func(base string) (func(string) replay.Rules, error) {
		c, err := stages.ParseConfig([]byte(base), "--set", replay.Overlay(sets))
		if err != nil {
			return nil, usageError{err}
		}
		return func(symbol string) replay.Rules {
			return replay.Rules{Apply: c.ApplyRules(symbol), Governor: c.GovernorRules(symbol), Reconcile: c.For(symbol).Reconcile}
		}, nil
	}
	rules, err := rulesOf(string(c.Effective()))
	if err != nil {
		return err
	}
	sources, closeAll, err := replay.OpenLogs(r.Logs, a.in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	report, err := replay.Run(replay.Options{Rules: rules, Overrides: overrides, Recorded: rulesOf, Unknown: r.Unknown}, sources)
	if set := (*replay.SetError)(nil); errors.As(err, &set) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	if a.Output == "json" {
		err = json.NewEncoder(a.out).Encode(report)
	} else {
		err = report.WriteTable(a.out, colored(a.out))
	}
	if err == nil && report.Plans == 0 {
		return replay.ErrNoPlans
	}
	if err == nil && report.Differs() {
		err = &operator.Failure{Kind: operator.Unhealthy, Text: fmt.Sprintf("%d of %d plans differ", report.Differ, report.Plans)}
	}
	return err
}
