package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// handAct is what the other control calls say.
type handAct struct {
	Symbol string      `json:"symbol"`
	Side   ledger.Side `json:"side"` // "": BOTH
	Qty    ledger.Qty  `json:"qty"`  // signed
	Hedge  bool        `json:"hedge"`
}

func (a handAct) key() ledger.Key {
	if a.Side == ledger.AnySide {
		a.Side = ledger.Both
	}
	return ledger.Key{Symbol: a.Symbol, Side: a.Side}
}

func (a handAct) check() error {
	if a.Side != ledger.AnySide && !a.Side.Valid() {
		return fmt.Errorf("side %q is not one of BOTH, LONG, SHORT", a.Side)
	}
	return nil
}

// control serves the calls below /sandbox/, which no exchange has. They need no key: the sandbox is for loopback alone.
func (s *Sandbox) control(mux *http.ServeMux) {
	mux.HandleFunc("GET /sandbox/faults", func(w http.ResponseWriter, r *http.Request) {
		reply(w, map[string]any{"kinds": Catalogue(), "armed": list(s.Armed()), "profile": s.Profile(), "struck": s.Struck()}, nil)
	})
	mux.HandleFunc("DELETE /sandbox/faults", func(w http.ResponseWriter, r *http.Request) {
		s.Disarm()
		reply(w, map[string]any{}, nil)
	})
	mux.HandleFunc("POST /sandbox/faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		err := decode(r, &f)
		if err == nil {
			err = s.Arm(f)
		}
		reply(w, map[string]any{"armed": list(s.Armed())}, err)
	})
	mux.HandleFunc("POST /sandbox/profile", func(w http.ResponseWriter, r *http.Request) {
		var wanted struct {
			Name string `json:"name"`
		}
		var p Profile
		err := decode(r, &wanted)
		if err == nil {
			p, err = Preset(wanted.Name)
		}
		if err == nil {
			err = s.SetProfile(p)
		}
		reply(w, map[string]any{"profile": s.Profile()}, err)
	})
	mux.HandleFunc("GET /sandbox/log", func(w http.ResponseWriter, r *http.Request) {
		reply(w, map[string]any{"orders": list(s.Log()), "executed": s.Executed(), "verdict": list(s.Verdict(nil))}, nil)
	})
	mux.HandleFunc("GET /sandbox/state", func(w http.ResponseWriter, r *http.Request) { reply(w, s.State(), nil) })
	acts := map[string]func(v *venue.Venue, now time.Time, a handAct) (venue.Change, error){
		"trade": func(v *venue.Venue, now time.Time, a handAct) (venue.Change, error) {
			return v.Trade(now, a.key(), a.Qty)
		},
		"liquidate": func(v *venue.Venue, now time.Time, a handAct) (venue.Change, error) { return v.Liquidate(now, a.key()) },
		"mode":      func(v *venue.Venue, now time.Time, a handAct) (venue.Change, error) { return v.SetHedge(now, a.Hedge) },
	}
	for name, act := range acts {
		mux.HandleFunc("POST /sandbox/"+name, func(w http.ResponseWriter, r *http.Request) {
			var a handAct
			err := decode(r, &a)
			if err == nil {
				err = a.check()
			}
			if err == nil {
				err = s.Do(func(v *venue.Venue, now time.Time) (venue.Change, error) { return act(v, now, a) })
			}
			reply(w, s.State(), err)
		})
	}
}

// State is the account as it is.
func (s *Sandbox) State() venue.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.venue.State(s.advance().Add(-forgetOrders))
}

// decode reads what a call was sent.
func decode(r *http.Request, into any) error {
	if err := strict(io.LimitReader(r.Body, bodyMax), into); err != nil {
		return fmt.Errorf("the body is not what this call wants: %w", err)
	}
	return nil
}

// strict reads one JSON value, all of whose fields are known, and nothing after it.
func strict(r io.Reader, into any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the first value")
	}
	return nil
}

// list is what JSON shows as a list, also when it is empty.
func list[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

func reply(w http.ResponseWriter, body any, err error) {
	status := http.StatusOK
	if err != nil {
		status, body = http.StatusBadRequest, map[string]string{"error": err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // Whether it is read is the client's affair.
}
