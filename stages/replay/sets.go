package replay

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"permitchain/ledger"
)

// Overrides are what is taken instead of what the logs record.
type Overrides struct {
	Ledger map[ledger.Key]ledger.Qty // what the ledger holds at every decision on a position
	Mark   map[string]ledger.Price   // the mark price at every decision on a symbol
	Mode   ledger.Mode               // "": the recorded one
	// AutoApprove tells that governor.auto_approve was set, so that a recorded approval no longer stands for it.
	AutoApprove bool
}

// Set is one KEY=VALUE that is not an override, and so a parameter of the configuration.
type Set struct{ Key, Value string }

// SetError tells what is wrong with one KEY=VALUE.
type SetError struct{ Key, Problem string }

func (e *SetError) Error() string { return fmt.Sprintf("--set %s: %s", e.Key, e.Problem) }

// ParseSets reads what was set: ledger.SYMBOL and ledger.SYMBOL:SIDE, mark.SYMBOL and mode are overrides, the rest is
// the configuration's and checked by it.
func ParseSets(args []string) (Overrides, []Set, error) {
	o := Overrides{Ledger: map[ledger.Key]ledger.Qty{}, Mark: map[string]ledger.Price{}}
	var rest []Set
	seen := map[string]bool{}
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case !ok || key == "" || value == "":
			return o, nil, &SetError{fmt.Sprintf("%.80q", arg), "KEY=VALUE is wanted, like ledger.BTCUSDT=0.046"}
		case seen[key]:
			return o, nil, &SetError{key, "is set twice"}
		}
		seen[key] = true
		taken, err := o.take(key, value)
		if err != nil {
			return o, nil, err
		}
		if !taken {
			o.AutoApprove = o.AutoApprove || key == "governor.auto_approve"
			rest = append(rest, Set{key, value})
		}
	}
	return o, rest, nil
}

// take reads one override; it tells whether the key is one, or a parameter of the configuration.
func (o *Overrides) take(key, value string) (bool, error) {
	section, name, dotted := strings.Cut(key, ".")
	switch {
	case key == "mode":
		o.Mode = ledger.Mode(value)
		if !slices.Contains(ledger.Modes[:], o.Mode) {
			return true, &SetError{key, fmt.Sprintf("%.40q is not paper, dry_run, testnet or live", value)}
		}
	case section == "ledger" && dotted:
		if !strings.Contains(name, ":") {
			name += ":" + string(ledger.Both)
		}
		k, err := ledger.ParseKey(name)
		if err != nil || !k.Side.Valid() {
			return true, &SetError{key, "ledger.SYMBOL, ledger.SYMBOL:LONG or ledger.SYMBOL:SHORT is wanted"}
		}
		if _, again := o.Ledger[k]; again {
			return true, &SetError{key, "is set twice"}
		}
		if o.Ledger[k], err = ledger.ParseQty(value); err != nil {
			return true, &SetError{key, err.Error()}
		}
	case section == "mark" && dotted:
		p, err := ledger.ParsePrice(value)
		if err != nil || p.Sign() <= 0 || name == "" {
			return true, &SetError{key, fmt.Sprintf("%.60q is not a price above 0, like 61234.5", value)}
		}
		o.Mark[name] = p
	case !isParameter(key, value):
		return true, &SetError{key, "is not ledger.SYMBOL, mark.SYMBOL, mode, or a parameter like governor.max_per_hour with a value of one line"}
	default:
		return false, nil
	}
	return true, nil
}

// isParameter tells whether a key has the form of a parameter of exit_brain, apply, governor or reconcile: nothing else decides.
func isParameter(key, value string) bool {
	section, name, _ := strings.Cut(key, ".")
	odd := func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' }
	return slices.Contains([]string{"apply", "governor", "reconcile"}, section) &&
		name != "" && !strings.ContainsFunc(name, odd) && !strings.ContainsAny(value, "\r\n")
}

// Overlay is a configuration file that sets these parameters and nothing else.
func Overlay(sets []Set) []byte {
	sections := map[string]string{}
	for _, s := range sets {
		section, name, _ := strings.Cut(s.Key, ".")
		sections[section] += fmt.Sprintf("  %s: %s\n", name, s.Value)
	}
	var text strings.Builder
	for _, section := range slices.Sorted(maps.Keys(sections)) {
		fmt.Fprintf(&text, "%s:\n%s", section, sections[section])
	}
	return []byte(text.String())
}

// unused is an error for an override that no decision met: a slip in its name must not look like an answer.
func (b *book) unused() error {
	for _, k := range slices.SortedFunc(maps.Keys(b.o.Overrides.Ledger), ledger.Key.Compare) {
		if name := "ledger." + k.String(); !b.used[name] {
			return &SetError{strings.TrimSuffix(name, ":"+string(ledger.Both)), "no plan in the logs is on this position"}
		}
	}
	for _, symbol := range slices.Sorted(maps.Keys(b.o.Overrides.Mark)) {
		if name := "mark." + symbol; !b.used[name] {
			return &SetError{name, "no plan in the logs is on this symbol"}
		}
	}
	return nil
}
