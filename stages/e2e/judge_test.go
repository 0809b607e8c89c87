package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"permitchain/ledger"
)

// verify has the binary check the ledger.
func (l *lane) verify() error {
	if out, err := l.command("ledger", "verify").CombinedOutput(); err != nil {
		return fmt.Errorf("verify: %w\n%s", err, out)
	}
	return nil
}

// judge compares the journal with what the sandbox itself wrote down, and with what was acknowledged.
func (l *lane) judge() (journal, error) {
	if err := l.verify(); err != nil {
		return journal{}, err
	}
	out, err := l.command("ledger", "export").Output()
	if err != nil {
		return journal{}, fmt.Errorf("export: %w", err)
	}
	j, err := readJournal(out)
	if err != nil {
		return j, err
	}
	j.doubles, j.late = append(l.sandbox.Verdict(j.promised()), l.amounts(j)...), l.lateness(j)
	for _, id := range l.acknowledged {
		if !j.plans[id] {
			j.lost = append(j.lost, "plan "+id+" was acknowledged, and is not on record")
		}
	}
	if wrong := slices.Concat(j.doubles, j.late, j.lost); len(wrong) > 0 {
		slices.Sort(wrong)
		return j, errors.New(strings.Join(wrong, "\n"))
	}
	return j, nil
}

// amounts finds what was executed and not promised, not booked or not granted.
func (l *lane) amounts(j journal) (wrong []string) {
	took := map[string]ledger.Qty{}
	for id, q := range l.sandbox.Executed() {
		if !ledger.OfOurForm(id) {
			continue
		}
		i, known := j.intents[id]
		if !known {
			wrong = append(wrong, id+" executed, and the journal never promised it")
		}
		if !q.Equal(j.booked[id]) {
			wrong = append(wrong, fmt.Sprintf("%s executed %s, booked %s", id, q, j.booked[id]))
		}
		took[stepOf(i.Intent.Plan, i.Intent.Step)] = took[stepOf(i.Intent.Plan, i.Intent.Step)].Add(q)
	}
	for step, q := range took {
		if j.grants[step].Qty.Less(q) {
			wrong = append(wrong, fmt.Sprintf("step %s executed %s, granted %s", step, q, j.grants[step].Qty))
		}
	}
	return wrong
}

// lateness finds what was acted on after its time: orders that were signed or took effect late, and promises that
// rest on an old snapshot or on a grant that had expired.
func (l *lane) lateness(j journal) (wrong []string) {
	for _, e := range l.sandbox.Log() {
		i, known := j.intents[e.ClientID]
		if !known {
			if ledger.OfOurForm(e.ClientID) {
				wrong = append(wrong, e.ClientID+" was sent, and the journal never promised it")
			}
			continue
		}
		if !e.SignedAt.IsZero() && !e.SignedAt.Before(i.Intent.SendBefore) {
			wrong = append(wrong, fmt.Sprintf("%s was signed at %s, and not to be sent from %s on", e.ClientID, e.SignedAt, i.Intent.SendBefore))
		}
		if e.OrderID != 0 && e.EngineAt.After(i.Intent.Fence) {
			wrong = append(wrong, fmt.Sprintf("%s took effect at %s, after its fence %s", e.ClientID, e.EngineAt, i.Intent.Fence))
		}
	}
	for id, i := range j.intents {
		// The first order of a step rests on its permit, which was given on a snapshot that was fresh then; a later one on its own.
		if age := i.Seen.At.Sub(i.Seen.SnapshotAt); i.Intent.Attempt > 1 && i.Intent.Kind == ledger.CloseStep && !i.Seen.SnapshotAt.IsZero() && age > staleAfter {
			wrong = append(wrong, fmt.Sprintf("%s rests on a snapshot of %s ago", id, age))
		}
		if g, granted := j.grants[stepOf(i.Intent.Plan, i.Intent.Step)]; granted && i.Intent.Kind == ledger.CloseStep && i.Seen.At.After(g.Expires) {
			wrong = append(wrong, fmt.Sprintf("%s was promised at %s on a grant that expired at %s", id, i.Seen.At.Format(time.RFC3339Nano), g.Expires))
		}
	}
	for _, d := range j.permits {
		allowed := slices.ContainsFunc(d.Verdicts, func(v ledger.Verdict) bool { return v.Ruling == ledger.Allow })
		if age := d.At.Sub(d.SnapshotAt); allowed && age > staleAfter {
			wrong = append(wrong, fmt.Sprintf("the position permit of plan %s rests on a snapshot of %s ago", d.ID, age))
		}
	}
	return wrong
}

func stepOf(id ledger.PlanID, step int) string { return fmt.Sprintf("%s-%d", id, step) }

// journal is what an export says that the judge needs.
type journal struct {
	plans             map[string]bool
	intents           map[string]*ledger.IntentOpened // by client order id
	booked            map[string]ledger.Qty           // by client order id
	grants            map[string]*ledger.StepGranted  // by plan and step
	permits           []*ledger.PositionDecided
	executed, unknown int
	holds             int            // set or cleared by an operator
	fates             map[string]int // what became of the plans

	doubles, late, lost []string // what is wrong: executed beyond what was granted or known, acted on too late, not on record
}

// promised is how much each order was to execute.
func (j journal) promised() map[string]ledger.Qty {
	m := map[string]ledger.Qty{}
	for id, i := range j.intents {
		m[id] = i.Intent.Qty
	}
	return m
}

func readJournal(export []byte) (journal, error) {
	j := journal{
		plans: map[string]bool{}, intents: map[string]*ledger.IntentOpened{}, booked: map[string]ledger.Qty{}, grants: map[string]*ledger.StepGranted{}, fates: map[string]int{},
	}
	lines := bufio.NewScanner(bytes.NewReader(export))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var line struct {
			Seq     uint64          `json:"seq"`
			Kind    ledger.Kind     `json:"kind"`
			Version int             `json:"version"`
			Event   json.RawMessage `json:"event"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return j, fmt.Errorf("export: %w", err)
		}
		if line.Seq == 0 {
			continue // The header.
		}
		event, err := ledger.DecodeEvent(line.Kind, line.Version, line.Event)
		if err != nil {
			return j, fmt.Errorf("record %d: %w", line.Seq, err)
		}
		switch e := event.(type) {
		case *ledger.PlanDecided:
			j.plans[string(e.ID)] = true
		case *ledger.PlanEnded:
			j.fates[fmt.Sprintf("%s %s", e.Outcome, e.Reason)]++
			if e.Outcome == ledger.Executed || e.Outcome == ledger.PartlyExecuted {
				j.executed++
			}
		case *ledger.PositionDecided:
			j.permits = append(j.permits, e)
		case *ledger.HoldPut:
			if e.Reason == ledger.HoldOperator {
				j.holds++
			}
		case *ledger.HoldCleared:
			if e.Reason == ledger.HoldOperator {
				j.holds++
			}
		case *ledger.StepGranted:
			j.grants[stepOf(e.ID, e.Step)] = e
		case *ledger.IntentOpened:
			j.intents[e.Intent.ClientOrderID] = e
		case *ledger.IntentAnswered:
			if e.State == ledger.Unknown {
				j.unknown++
			}
		case *ledger.FillBooked:
			j.booked[e.Trade.ClientOrderID] = j.booked[e.Trade.ClientOrderID].Add(e.Trade.Qty)
		}
	}
	return j, lines.Err()
}
