package terminal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"permitchain/ledger"
	"permitchain/stages/operator"
)

// tell says what became of a proposal.
func (t *Terminal) tell(r operator.Result) {
	id := "no plan"
	if r.ID != nil {
		id = r.ID.Short()
	}
	// What became of it says it all, decision and reason included.
	text := strings.TrimSpace(string(r.Decision) + " " + string(r.Reason) + " " + r.Became)
	if r.Explain != "" {
		text = r.Explain
	}
	if r.Reason == ledger.DuplicatePlan {
		text = "duplicate of a plan on record: " + text
	}
	if r.Error != "" {
		text += ": " + r.Error
	}
	t.say("%s: %s", id, text)
}

// judge fails unless all executed.
func judge(results []operator.Result) error {
	bad, refused := 0, 0
	for _, r := range results {
		switch {
		case r.Reason == ledger.InvalidProposal:
			bad++
		case r.Outcome == "" && r.Decision == ledger.Execute, r.Outcome == ledger.Executed, r.Outcome == ledger.WouldExecute:
		default:
			refused++
		}
	}
	switch {
	case bad > 0:
		return operator.Failed(operator.BadRequest, "%d of %d proposals are malformed", bad, len(results))
	case refused > 0:
		return operator.Failed(operator.Refused, "%d of %d did not execute", refused, len(results))
	}
	return nil
}

// Submit proposes what a file says, one object or one a line, each when its symbol's pace allows it.
func (t *Terminal) Submit(ctx context.Context, path string, wait bool) error {
	text, err := t.readAll(path)
	if err != nil {
		return err
	}
	lines := [][]byte{bytes.TrimSpace(text)}
	if !json.Valid(text) {
		lines = bytes.Split(text, []byte("\n"))
	}
	if t.Unconfirmed != nil {
		return t.Unconfirmed
	}
	client, err := t.Door.Open(ctx, Chain)
	if err != nil {
		return err
	}
	target := "/v1/proposals"
	if wait {
		target += "?wait=outcome"
	}
	var results []operator.Result
	for _, line := range lines {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		res, err := t.submit(ctx, client, target, line)
		if err != nil {
			return errors.Join(err, client.Close())
		}
		t.tell(res)
		results = append(results, res)
	}
	if len(results) == 0 {
		return errors.Join(operator.Failed(operator.BadRequest, "%s holds no proposal", path), client.Close())
	}
	return errors.Join(judge(results), client.Close())
}

// readAll reads a file, or standard input for "-".
func (t *Terminal) readAll(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(io.LimitReader(t.In, proposalsMax))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read proposals: %w", err)
	}
	return text, nil
}

// proposalsMax bounds what is read from standard input.
const proposalsMax = 1 << 20

// submitTries bounds how often a proposal that came too soon is sent again.
const submitTries = 10

func (t *Terminal) submit(ctx context.Context, client *Client, target string, line []byte) (res operator.Result, err error) {
	for try := 0; ; try++ {
		body, err := client.Do(ctx, http.MethodPost, target, line)
		if busy := (*operator.Failure)(nil); errors.As(err, &busy) && busy.Kind == operator.Busy && try < submitTries {
			select {
			case <-time.After(time.Second):
				continue
			case <-ctx.Done():
				return res, ctx.Err()
			}
		}
		if errors.Is(err, errCut) {
			return res, cutOff(line, err)
		}
		if err != nil {
			return res, err
		}
		if t.JSON {
			if _, err := t.Out.Write(body); err != nil {
				return res, err
			}
		}
		return res, json.Unmarshal(body, &res)
	}
}

// cutOff says how to find out what became of a proposal whose answer never came.
func cutOff(line []byte, err error) error {
	p, bad := operator.ParseProposal(line)
	if bad != nil {
		return err
	}
	return fmt.Errorf("plan_id %s: permitchain plans show %s tells what became of it: %w", p.ID(), p.ID(), err)
}
