package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"permitchain/ledger"
)

// Fault is one armed fault.
type Fault struct {
	Kind       Kind          `json:"kind"`
	Call       string        `json:"call,omitzero"`       // "POST /fapi/v1/order", "GET /fapi/v3/positionRisk", "ws private", "ws market"; "": any that the kind can befall
	Symbol     string        `json:"symbol,omitzero"`     // "": any
	Skip       int           `json:"skip,omitzero"`       // so many calls pass unharmed first
	Times      int           `json:"times,omitzero"`      // 0 is once, a negative number is until it is disarmed
	Lasts      time.Duration `json:"lasts,omitzero"`      // written like 2s; it is disarmed so long after it was armed; 0: never
	For        time.Duration `json:"for,omitzero"`        // what the kind says
	Qty        ledger.Qty    `json:"qty,omitzero"`        // what the kind says
	Unexecuted bool          `json:"unexecuted,omitzero"` // of an answer that is lost: the request is not executed either
}

// plainFault is a fault without methods.
type plainFault Fault

// writtenFault is a fault whose times are written like 2s.
type writtenFault struct {
	plainFault
	Lasts string `json:"lasts,omitzero"`
	For   string `json:"for,omitzero"`
}

// MarshalJSON writes times like 2s.
func (f Fault) MarshalJSON() ([]byte, error) {
	w := writtenFault{plainFault: plainFault(f)}
	if f.Lasts != 0 {
		w.Lasts = f.Lasts.String()
	}
	if f.For != 0 {
		w.For = f.For.String()
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON writes, and nothing else.
func (f *Fault) UnmarshalJSON(text []byte) (err error) {
	var w writtenFault
	if err := strict(bytes.NewReader(text), &w); err != nil {
		return err
	}
	*f = Fault(w.plainFault)
	if f.Lasts, err = duration(w.Lasts); err != nil {
		return err
	}
	f.For, err = duration(w.For)
	return err
}

func duration(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("duration %q is not like 2s", text)
	}
	return d, nil
}

// forOr is what For says, or what it is when it says nothing.
func (f Fault) forOr(d time.Duration) time.Duration {
	if f.For == 0 {
		return d
	}
	return f.For
}

// Profile is how often each kind happens by itself, from 0 to 1, for each call that it can befall.
type Profile map[Kind]float64

func (p Profile) check() error {
	for k, odds := range p {
		if !slices.Contains(Kinds(), k) || !(odds >= 0 && odds <= 1) {
			return fmt.Errorf("fault %q with odds %v: the kinds are %v, odds are from 0 to 1", k, odds, Kinds())
		}
	}
	return nil
}

// Preset is a profile by name: "none", "calm" (a bad day) or "hostile" (a day that never was).
func Preset(name string) (Profile, error) {
	scale := map[string]float64{"none": 0, "calm": 1, "hostile": 10}
	factor, ok := scale[name]
	if !ok {
		return nil, fmt.Errorf("fault profile %q is not one of none, calm, hostile", name)
	}
	p := Profile{}
	odds := map[Where]float64{OnAnswer: 0.0005, OnOrder: 0.0005, OnSocket: 0.0005, OnCall: 0.0002, OnQuery: 0.002, OnOthers: 0.00005}
	for _, d := range Catalogue() {
		p[d.Kind] = odds[d.Where] * factor
	}
	// Minutes of silence, a key that is gone and an account that is emptied are tried on purpose, not by luck.
	delete(p, Banned)
	delete(p, KeyGone)
	delete(p, ModeFlip)
	return p, nil
}

// faults are what is armed, and how often the rest happens.
type faults struct {
	armed   []*armed
	profile Profile
	banned  time.Time // until when every call is refused
}

type armed struct {
	Fault
	until time.Time // zero: for ever
	done  int
}

// expire drops what has happened as often, or was armed as long, as it should be.
func (f *faults) expire(now time.Time) {
	f.armed = slices.DeleteFunc(f.armed, func(a *armed) bool {
		return (!a.until.IsZero() && !now.Before(a.until)) || (a.Times >= 0 && a.done >= max(a.Times, 1))
	})
}

// check tells what is wrong with a fault: one that could never happen would be waited for in vain.
func (s *Sandbox) check(f Fault) error {
	all := Catalogue()
	n := slices.IndexFunc(all, func(d Described) bool { return d.Kind == f.Kind })
	if n < 0 {
		return fmt.Errorf("fault %q is not one of %v", f.Kind, Kinds())
	}
	calls := []string{callPrivate, callMarket}
	if where := all[n].Where; where != OnSocket {
		routes := s.routes()
		maps.DeleteFunc(routes, func(_ string, r route) bool { return where == OnOrder && !r.order })
		calls = slices.Sorted(maps.Keys(routes))
	}
	_, listed := s.markets[f.Symbol]
	switch {
	case f.Call != "" && !slices.Contains(calls, f.Call):
		return fmt.Errorf("fault %s cannot befall the call %q; those that it can: %s", f.Kind, f.Call, strings.Join(calls, ", "))
	case f.Symbol != "" && !listed:
		return fmt.Errorf("fault %s: the symbol %q is not listed here", f.Kind, f.Symbol)
	case f.Skip < 0:
		return fmt.Errorf("fault %s: skip %d is negative", f.Kind, f.Skip)
	case f.Qty.Sign() < 0 && f.Kind != HandTrade:
		return fmt.Errorf("fault %s: qty %s is negative", f.Kind, f.Qty)
	}
	return nil
}

// Arm has a fault happen from now on.
func (s *Sandbox) Arm(f Fault) error {
	if err := s.check(f); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &armed{Fault: f}
	if f.Lasts > 0 {
		a.until = s.now().Add(f.Lasts)
	}
	s.faults.armed = append(s.faults.armed, a)
	return nil
}

// Disarm takes all faults away, the ban and the profile included.
func (s *Sandbox) Disarm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = faults{}
}

// Armed is what is armed and has not happened yet as often as it should.
func (s *Sandbox) Armed() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.expire(s.now())
	var all []Fault
	for _, a := range s.faults.armed {
		all = append(all, a.Fault)
	}
	return all
}

// Struck is how often each kind has happened since the beginning.
func (s *Sandbox) Struck() map[Kind]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.struck)
}

// fault takes one fault of a kind that is armed for a call, or that luck wants. Sockets
// ask once for each thing that it could befall. The caller does not hold the mutex.
func (s *Sandbox) fault(call string, kind Kind) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.strike(s.now(), call, "", kind)
}

// strike takes the first fault of some kinds that is armed for a call, or that luck wants. The caller holds the mutex.
func (s *Sandbox) strike(now time.Time, call, symbol string, kinds ...Kind) (Fault, bool) {
	s.faults.expire(now)
	for _, a := range s.faults.armed {
		if !slices.Contains(kinds, a.Kind) || (a.Call != "" && a.Call != call) || (a.Symbol != "" && symbol != "" && a.Symbol != symbol) {
			continue
		}
		if a.Skip > 0 {
			a.Skip--
			continue
		}
		a.done++
		s.struck[a.Kind]++
		return a.Fault, true
	}
	if len(s.faults.profile) == 0 {
		return Fault{}, false
	}
	for _, k := range kinds {
		if odds := s.faults.profile[k]; odds > 0 && s.luck.Float64() < odds {
			s.struck[k]++
			return Fault{Kind: k, For: time.Duration(1+s.luck.IntN(4000)) * time.Millisecond, Unexecuted: s.luck.IntN(2) == 0}, true
		}
	}
	return Fault{}, false
}

// SetProfile changes how often each kind happens by itself.
func (s *Sandbox) SetProfile(p Profile) error {
	if err := p.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.profile = maps.Clone(p)
	return nil
}

// Profile is how often each kind happens by itself now.
func (s *Sandbox) Profile() Profile {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.faults.profile)
}
