package replay

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"permitchain/ledger"
	"permitchain/stages/operator"
)

// flip is a change of one input that may turn a refusal.
type flip struct {
	change string
	apply  func(*Case)
}

// together bounds how many changes at once are looked for.
const together = 4

// Nearest is the least that would have let a refused step pass its stage: each change was made to the case, one input at a
// time, and the kernel asked again; what does not turn its verdict is not shown. Where no single change does, because gate
// after gate refuses, one change of each is tried together.
func Nearest(c Case) []operator.Flip {
	reason := c.ruled()
	if reason == "" {
		return nil
	}
	found := []operator.Flip{}
	tell := func(change string) {
		found = append(found, operator.Flip{Step: c.Step + 1, Stage: c.Stage, Gate: reason, Change: change})
	}
	for _, f := range c.flips(reason) {
		tried := c.copied()
		f.apply(&tried)
		if tried.ruled() == "" {
			tell(f.change)
		}
	}
	if len(found) > 0 {
		return found
	}
	tried, changes, met := c.copied(), []string{}, map[ledger.Reason]bool{}
	for next := reason; len(changes) < together && !met[next]; next = tried.ruled() {
		if next == "" {
			tell(strings.Join(changes, ", and "))
			break
		}
		met[next] = true
		step, ok := tried.past(next)
		if !ok {
			break
		}
		changes = append(changes, step)
	}
	if len(found) == 0 && len(changes) > 0 && tried.ruled() == "" {
		tell(strings.Join(changes, ", and "))
	}
	return found
}

// past makes the first change that leads past a gate, whatever refuses next.
func (c *Case) past(reason ledger.Reason) (string, bool) {
	for _, f := range c.flips(reason) {
		tried := c.copied()
		f.apply(&tried)
		if tried.ruled() != reason {
			*c = tried
			return f.change, true
		}
	}
	return "", false
}

// Margin is the gate with the least room of those that a step passed, and the bound that would have closed it: nil where no
// gate has one. It is decided again as well.
func Margin(c Case) (least *operator.Flip, room float64) {
	if c.ruled() != "" {
		return nil, 1
	}
	gates := c.gates()
	slices.SortStableFunc(gates, func(a, b gate) int {
		switch {
		case a.room < b.room:
			return -1
		case a.room > b.room:
			return 1
		}
		return 0
	})
	for _, g := range gates {
		if g.room < 0 || g.least == nil {
			continue
		}
		tried := c.copied()
		g.least(&tried)
		if reason := tried.ruled(); reason != "" {
			return &operator.Flip{
				Step: c.Step + 1, Stage: c.Stage, Gate: reason,
				Change: fmt.Sprintf("%s: %s, %s; %.0f %% of room; %s would have denied it", g.Name, g.Value, g.Bound, g.room*100, g.words),
			}, g.room
		}
	}
	return nil, 1
}

// copied is the case, with what flips change its own.
func (c *Case) copied() Case {
	k := *c
	s := *c.State
	s.Positions, s.Holds, s.Intents = maps.Clone(s.Positions), maps.Clone(s.Holds), maps.Clone(s.Intents)
	if pos := s.Positions[c.Plan.Key()]; pos != nil {
		own := *pos
		s.Positions[c.Plan.Key()] = &own
	}
	p := *c.Plan
	p.Steps = slices.Clone(p.Steps)
	k.State, k.Plan = &s, &p
	if c.Seen.Snapshot != nil {
		snap := *c.Seen.Snapshot
		snap.Holdings = slices.Clone(snap.Holdings)
		k.Seen.Snapshot = &snap
	}
	return k
}
