package stages

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/stages/replay"
)

// wantAgain takes every decision of a ledger again under the configurations on record, and wants each to be the recorded one.
func wantAgain(t *testing.T, path string) {
	t.Helper()
	if err := decidedAgain(path); err != nil {
		t.Error(err)
	}
}

// decidedAgain is an error where a decision of a ledger comes out another way, or can't be taken again.
func decidedAgain(path string) (err error) {
	reader, err := store.OpenReader(path, store.Options{})
	if err != nil {
		return fmt.Errorf("decide again: %w", err)
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	report, err := replay.Again(replay.AgainOptions{Recorded: RecordedRules}, func(fn func(ledger.Record) error) error {
		return reader.Records(1, 0, func(rec ledger.Record, _ string) error { return fn(rec) })
	})
	if err != nil {
		return fmt.Errorf("decide again: %w", err)
	}
	decisions := []ledger.Kind{
		ledger.KindPlanDecided, ledger.KindGovernorDecided, ledger.KindPositionDecided, ledger.KindStepGranted,
		ledger.KindIntentOpened, ledger.KindStepEnded, ledger.KindPlanEnded, ledger.KindFillBooked,
	}
	for _, k := range report.Kinds {
		if k.Undecided > 0 && slices.Contains(decisions, k.Kind) {
			err = errors.Join(err, fmt.Errorf("%d of %s are not decided again: %v", k.Undecided, k.Kind, k.Why))
		}
	}
	if report.Differs() {
		var text bytes.Buffer
		err = errors.Join(err, report.WriteTable(&text), fmt.Errorf("decided again:\n%s", text.String()))
	}
	return err
}
