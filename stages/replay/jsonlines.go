package replay

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"permitchain/ledger"
	"permitchain/stages/operator"
	"permitchain/stages/reconcile"
)

// observation is one JSON line that is a proposal, a snapshot or a mark.
type observation struct {
	at       time.Time
	proposal *ledger.Proposal
	snapshot *ledger.Snapshot
	mark     *ledger.Mark
}

// entry is one line of an export.
type entry struct {
	Seq     uint64          `json:"seq"`
	At      time.Time       `json:"at"`
	Kind    ledger.Kind     `json:"kind"`
	Version int             `json:"version"`
	Event   json.RawMessage `json:"event"`
	Hash    string          `json:"hash"`
}

// exportFormat is what the first line of an export calls itself, exportVersion the newest that is known.
const (
	exportFormat  = "permitchain-journal"
	exportVersion = 1
)

// object reads a JSON line: a record or the first line of an export, a proposal (SPEC §10), or a ledger.Snapshot or
// ledger.Mark as they marshal.
func (r *reader) object(text string) (bool, error) {
	if strings.HasPrefix(text, `{"seq":`) {
		return r.export(text)
	}
	var shape struct {
		Format  string          `json:"format"`
		Version int             `json:"version"`
		Event   json.RawMessage `json:"event"`
		SentAt  json.RawMessage `json:"sent_at"`
		Action  json.RawMessage `json:"action"`
		Price   json.RawMessage `json:"price"`
	}
	if err := json.Unmarshal([]byte(text), &shape); err != nil {
		return false, &stray{"not JSON: " + err.Error()}
	}
	switch {
	case shape.Format == exportFormat && shape.Version > exportVersion:
		return false, &stray{fmt.Sprintf("an export of version %d; known is %d", shape.Version, exportVersion)}
	case shape.Format == exportFormat:
		r.journal = newJournal(r.book)
		return true, nil
	case shape.Event != nil:
		return r.export(text)
	case shape.SentAt != nil:
		return r.snapshot(text)
	case shape.Action != nil:
		p, err := operator.ParseProposal([]byte(text))
		if err != nil {
			return false, &stray{"not a proposal: " + err.Error()}
		}
		r.note(observation{at: p.ComputedAt, proposal: &p})
		return true, nil
	case shape.Price != nil:
		var m ledger.Mark
		if err := strict(text, &m); err != nil || m.Symbol == "" || m.Price.Sign() <= 0 || m.At.IsZero() {
			return false, &stray{"not a mark price: symbol, price and at are wanted"}
		}
		r.note(observation{at: m.At, mark: &m})
		return true, nil
	default:
		return false, nil
	}
}

func (r *reader) snapshot(text string) (bool, error) {
	var s ledger.Snapshot
	if err := strict(text, &s); err != nil {
		return false, &stray{"not a snapshot: " + err.Error()}
	}
	for _, h := range s.Holdings {
		if h.Symbol == "" || !h.Side.Valid() {
			return false, &stray{fmt.Sprintf("not a snapshot: %q is no position", h.Key)}
		}
	}
	r.note(observation{at: s.SentAt, snapshot: &s})
	return !s.SentAt.IsZero(), nil
}

func (r *reader) note(o observation) {
	r.at, r.last = o.at, o.at
	r.seen = append(r.seen, o)
}

// strict decodes one JSON value whose every key is known.
func strict(text string, into any) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// export reads one record; without the first line of its export the records stand for a part of one.
func (r *reader) export(text string) (bool, error) {
	var e entry
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return false, &stray{"not a record: " + err.Error()}
	}
	event, err := ledger.DecodeEvent(e.Kind, max(e.Version, 1), bytes.TrimSpace(e.Event))
	if err != nil {
		return false, &stray{err.Error()}
	}
	if r.journal == nil {
		r.journal = newJournal(r.book)
	}
	r.at, r.last = e.At, e.At
	return true, r.journal.take(ledger.Record{Seq: e.Seq, At: e.At, Event: event})
}

// observe goes through proposals, snapshots and marks in order of time: each proposal becomes a plan that knows the
// latest snapshot and mark before it. The first snapshot is where its ledger begins, as reconcile.initial says.
func (b *book) observe() {
	slices.SortStableFunc(b.seen, func(x, y observation) int { return x.at.Compare(y.at) })
	var first, latest *ledger.Snapshot
	marks := map[string]*ledger.Mark{}
	for _, o := range b.seen {
		switch {
		case o.mark != nil:
			marks[o.mark.Symbol] = o.mark
		case o.snapshot != nil:
			latest = o.snapshot
			if first == nil {
				first = latest
			}
		default:
			b.propose(o.proposal, first, latest, marks[o.proposal.Symbol])
		}
	}
	b.seen = nil
}

func (b *book) propose(proposal *ledger.Proposal, first, latest *ledger.Snapshot, mark *ledger.Mark) {
	p := b.find(string(proposal.ID()))
	if p.proposed != nil {
		p.duplicates++
		return
	}
	k := proposal.Key()
	p.at, p.order, p.symbol, p.side, p.action, p.score = proposal.ComputedAt, proposal.ComputedAt, k.Symbol, k.Side, proposal.Action, &proposal.KillScore
	rules := b.o.Rules(k.Symbol)
	p.mode = rules.Governor.Mode
	p.lot = b.lotOf(k.Symbol)
	p.proposed = &inputs{rules: rules, at: proposal.ComputedAt, proposal: *proposal, aged: true, lot: p.lot}
	if latest != nil {
		held, own := latest.Of(k).Amount, first.Of(k).Amount
		if rules.Reconcile.Initial == reconcile.HoldOnIt {
			own = ledger.Qty{}
		}
		p.proposed.snapshotAt, p.proposed.held, p.proposed.own = latest.SentAt, &held, &own
	}
	if mark != nil {
		p.proposed.mark, p.proposed.markAt = mark.Price, mark.At
	}
}

// Lines is the journal that an export of it is.
func Lines(r io.Reader) Journal {
	return func(fn func(ledger.Record) error) error {
		lines := bufio.NewReader(r)
		for n := 1; ; n++ {
			text, err := lines.ReadBytes('\n')
			if len(bytes.TrimSpace(text)) > 0 {
				if wrong := line(n, text, fn); wrong != nil {
					return wrong
				}
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("read line %d: %w", n, err)
			}
		}
	}
}

// line reads one line of an export: the first tells its format, each other one is a record.
func line(n int, text []byte, fn func(ledger.Record) error) error {
	var e struct {
		entry
		Format string `json:"format"`
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return fmt.Errorf("line %d is not JSON: %w", n, err)
	}
	if n == 1 {
		if e.Format != exportFormat || e.Version != exportVersion {
			return fmt.Errorf("line 1 is not the beginning of what permitchain ledger export writes, version %d", exportVersion)
		}
		return nil
	}
	event, err := ledger.DecodeEvent(e.Kind, max(e.Version, 1), bytes.TrimSpace(e.Event))
	if err != nil {
		return fmt.Errorf("line %d: %w", n, err)
	}
	return fn(ledger.Record{Seq: e.Seq, At: e.At, Event: event})
}
