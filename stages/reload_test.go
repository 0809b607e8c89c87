package stages

import (
	"strings"
	"testing"

	"permitchain/ledger"
)

// reload brings a configuration into force as a file that was edited would.
func (r *rig) reload(config string) (string, error) {
	r.chain.Load = func() (*Config, error) { return ParseConfig(defaults(r.t), "test.yaml", []byte(config)) }
	return r.Reload(r.t.Context())
}

// TestReloadIsAllOrNothing: thresholds change without a restart; what needs one, or is wrong, changes nothing.
func TestReloadIsAllOrNothing(t *testing.T) {
	inBrain(t, calm, func(r *rig, s *script) {
		s.mark("90000") // R_net 1.67
		wantProposed(r)
		if text, err := r.reload(calm); err != nil || !strings.Contains(text, "has not changed") {
			r.t.Fatalf("%s %v", text, err)
		}
		lower := strings.Replace(calm, "lock_r: 100", "lock_r: 100, partial_25_r: 1.5", 1)
		for _, c := range []struct{ config, want string }{
			{strings.Replace(lower, "max_per_hour: 100", "max_per_hour: 99", 1), "without a restart"},
			{strings.Replace(lower, "partial_25_r: 1.5", "partial_25_r: much", 1), "test.yaml:2:"},
		} {
			if _, err := r.reload(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
				r.t.Fatalf("error %v, wanted %s", err, c.want)
			}
		}
		r.wait(settled)
		s.mark("90000")
		wantProposed(r) // Nothing of what was refused is in force.
		if text, err := r.reload(lower); err != nil || !strings.Contains(text, "in force") {
			r.t.Fatalf("%s %v", text, err)
		}
		r.wait(settled)
		s.mark("90000")
		wantProposed(r, ledger.Partial25)
		r.view(func(st *ledger.State) {
			if digest := r.inForce.Digest(); st.Control.Config != digest || digest == r.Config.Digest() {
				r.t.Errorf("the ledger knows %.12s, %.12s is in force", st.Control.Config, digest)
			}
			for _, p := range st.Plans {
				if p.Config != st.Control.Config {
					r.t.Errorf("plan %s names configuration %.12s", p.ID, p.Config)
				}
			}
		})
	})
}
