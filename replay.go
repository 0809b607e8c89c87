package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/stages"
	"permitchain/stages/operator"
	"permitchain/stages/replay"
)

// Run decides recorded logs again.
func (r replayCmd) Run(a *app) (err error) {
	switch {
	case r.Journal != "" && (len(r.Logs) > 0 || len(r.Set) > 0 || r.Unknown):
		return usageError{errors.New("--journal takes no logs, and neither --set nor --unknown: --with FILE changes a configuration")}
	case r.Journal != "":
		return r.journal(a)
	case len(r.Logs) == 0 || r.With != "":
		return usageError{errors.New("logs are wanted, or --journal FILE, with which --with FILE goes")}
	}
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
		return c.Rules, nil
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

// journal takes every decision of a ledger again.
func (r replayCmd) journal(a *app) (err error) {
	o := replay.AgainOptions{Recorded: stages.RecordedRules}
	if r.With != "" {
		c, err := stages.LoadConfig(defaults, r.With)
		if err != nil {
			return usageError{err}
		}
		o.With = c.Rules
	}
	records, closeFile, err := openJournal(r.Journal)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeFile()) }()
	report, err := replay.Again(o, records)
	if wrong := (*ledger.BrokenError)(nil); errors.As(err, &wrong) {
		err = fmt.Errorf("%w: journal %s: %w", store.ErrDamaged, r.Journal, err)
	}
	if err != nil {
		return err
	}
	report.Source, report.With = r.Journal, r.With
	if a.Output == "json" {
		err = json.NewEncoder(a.out).Encode(report)
	} else {
		err = report.WriteTable(a.out)
	}
	if err == nil && report.Differs() {
		err = &operator.Failure{Kind: operator.Unhealthy, Text: fmt.Sprintf("%d of %d decisions differ", report.Differ, report.Decided)}
	}
	return err
}

// openJournal opens what holds a journal: JSON lines, or else a ledger file.
func openJournal(path string) (replay.Journal, func() error, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	first := make([]byte, 1)
	if n, err := f.Read(first); err == nil && n == 1 && first[0] == '{' {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("open journal: %w", err), f.Close())
		}
		return replay.Lines(f), f.Close, nil
	}
	if err := f.Close(); err != nil {
		return nil, nil, err
	}
	reader, err := store.OpenReader(path, store.Options{})
	if errors.Is(err, store.ErrLocked) {
		err = fmt.Errorf("%w: a running chain holds it; permitchain ledger backup makes a copy to read", err)
	}
	if err != nil {
		return nil, nil, err
	}
	records := func(fn func(ledger.Record) error) error {
		return reader.Records(1, 0, func(rec ledger.Record, _ string) error { return fn(rec) })
	}
	return records, reader.Close, nil
}
