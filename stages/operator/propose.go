package operator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"permitchain/ledger"
)

// unsettled is the answer where a plan was handed on and what became of it is not known: it may execute all the same.
func unsettled(id ledger.PlanID, err error) error {
	f := failure(fmt.Errorf("%w; permitchain plans show %s tells what became of plan_id %s", err, id, id))
	if f.Kind == NotRunning {
		f.Kind = Internal
	}
	return f
}

// Result is planning's answer to one proposal, and later its outcome.
type Result struct {
	ID       *ledger.PlanID  `json:"plan_id"`
	Decision ledger.Decision `json:"decision"`
	Reason   ledger.Reason   `json:"reason"`
	Outcome  ledger.Outcome  `json:"outcome,omitzero"`
	Became   string          `json:"became,omitzero"`  // of a duplicate: what is on record
	Explain  string          `json:"explain,omitzero"` // of an outcome: why, and what to do
	Error    string          `json:"error,omitzero"`
}

func invalid(reason ledger.Reason, err error) Result {
	return Result{Decision: ledger.Errored, Reason: reason, Error: err.Error()}
}

func resultOf(r ledger.Receipt) Result {
	res := Result{Decision: r.Decision, Reason: r.Reason, Became: r.Became, Error: r.Error}
	if r.ID != "" {
		res.ID = &r.ID
	}
	return res
}

// proposals takes one object, or one a line, and answers each in its place.
func (o *Stage) proposals(w http.ResponseWriter, r *http.Request) error {
	if o.Offers == nil {
		return ErrNotRunning
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	lines := [][]byte{bytes.TrimSpace(body)}
	if !json.Valid(body) {
		lines = slices.DeleteFunc(bytes.Split(body, []byte("\n")), func(l []byte) bool { return len(bytes.TrimSpace(l)) == 0 })
	}
	if len(lines) == 0 || len(lines) > linesMax {
		return Failed(BadRequest, "1 to %d proposals are wanted, one a line", linesMax)
	}
	results, status := make([]Result, len(lines)), http.StatusBadRequest
	for i, line := range lines {
		res, err := o.submit(r.Context(), line)
		if busy := (*Failure)(nil); errors.As(err, &busy) && busy.Kind == Busy && len(lines) > 1 {
			res, err = invalid(ledger.RateLimited, err), nil
		}
		if err != nil {
			return err
		}
		if results[i] = res; res.Reason != ledger.InvalidProposal {
			status = http.StatusOK
		}
	}
	if r.URL.Query().Get("wait") == "outcome" {
		until := time.Now().Add(outcomeWait)
		for i := range results {
			if err := o.await(r.Context(), &results[i], until); err != nil {
				return err
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	out := json.NewEncoder(w)
	for _, res := range results {
		if err := out.Encode(res); err != nil {
			return nil // The client has gone.
		}
	}
	return nil
}

// submit hands one proposal on; a Busy failure says that it may be sent again.
func (o *Stage) submit(ctx context.Context, line []byte) (Result, error) {
	if len(line) > lineMax {
		return invalid(ledger.InvalidProposal, fmt.Errorf("a proposal of %d bytes is too long (at most %d)", len(line), lineMax)), nil
	}
	p, err := ParseProposal(line)
	if err != nil {
		return invalid(ledger.InvalidProposal, err), nil
	}
	if !o.pace.take(p.Symbol, time.Now()) {
		return Result{}, Failed(Busy, "%s: one proposal a second is taken from outside", p.Symbol)
	}
	receipt, err := ask(ctx, o, o.Offers, p, busyWait)
	if errors.Is(err, errUnanswered) {
		err = unsettled(p.ID(), err)
	}
	return resultOf(receipt), err
}

// pace lets one proposal a second through per symbol.
type pace struct {
	mu   sync.Mutex // guards last, which handlers share
	last map[string]time.Time
}

const (
	paceEvery = time.Second
	paceMax   = 1024 // symbols remembered; more within a second are refused
)

func (p *pace) take(symbol string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.last[symbol]) < paceEvery {
		return false
	}
	for known, at := range p.last {
		if now.Sub(at) >= paceEvery {
			delete(p.last, known)
		}
	}
	if len(p.last) >= paceMax {
		return false
	}
	p.last[symbol] = now
	return true
}

// await adds the outcome, once it is final and durable; at until it tells the one that stands then.
func (o *Stage) await(ctx context.Context, res *Result, until time.Time) error {
	if res.ID == nil {
		return nil
	}
	poll, late := time.NewTicker(outcomePoll), time.NewTimer(time.Until(until))
	defer poll.Stop()
	defer late.Stop()
	for waited := false; ; {
		commit, err := o.Store.Decide(ctx, func(s *ledger.State, now time.Time) []ledger.Event {
			if p := s.Plans[*res.ID]; p != nil {
				res.Outcome, res.Explain = p.Outcome, fate(p, s, now)
			}
			return nil
		})
		if err == nil && (waited || res.Outcome.Final()) {
			if err = commit.Wait(ctx); err == nil {
				return nil
			}
		}
		if err != nil {
			return unsettled(*res.ID, err)
		}
		select {
		case <-poll.C:
		case <-late.C:
			waited = true
		case <-o.stopping:
			waited = true
		case <-ctx.Done():
			return unsettled(*res.ID, ctx.Err())
		}
	}
}
