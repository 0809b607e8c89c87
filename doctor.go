package main

import (
	"fmt"

	"permitchain/stages"
	"permitchain/stages/doctor"
	"permitchain/stages/operator"
)

// laid is the configuration with the flags' addresses laid over it.
func (u addresses) laid(a *app) (*stages.Config, error) {
	c, err := a.config()
	if err == nil && u.RestURL != "" {
		c, err = flagged(c, "--rest-url", fmt.Sprintf("exchange: {rest_url: %q}\n", u.RestURL))
	}
	if err == nil && u.StreamURL != "" {
		c, err = flagged(c, "--stream-url", fmt.Sprintf("exchange: {stream_url: %q}\n", u.StreamURL))
	}
	return c, err
}

// Run examines everything that a chain would need.
func (d doctorCmd) Run(a *app) error {
	c, err := d.laid(a)
	if err != nil {
		return err
	}
	facts := doctor.Examine(a.ctx, c)
	report := doctor.Judge(facts)
	if a.Output == "json" {
		err = report.WriteJSON(a.out)
	} else {
		err = report.Write(a.out, colored(a.out))
	}
	switch k := facts.Key; {
	case err != nil:
		return err
	case k != nil && (k.Missing != nil || k.Refused != nil):
		return fmt.Errorf("%w: without a usable key nothing can be done", stages.ErrExchange)
	case !report.Healthy:
		return &operator.Failure{Kind: operator.Unhealthy, Text: report.Summary()}
	}
	return nil
}
