package exitbrain

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"permitchain/ledger"
)

// lineBytesMax bounds a line of eval's input, and with it the memory; a longer one is an error of its own.
const lineBytesMax = 16 << 20

// EvalHarvest runs the harvest kernel over JSON lines (SPEC §12) and writes one for each that is not blank. It returns how
// many of them are errors; err is of reading or writing. A theta overrides p for its line.
func EvalHarvest(r io.Reader, w io.Writer, p HarvestParams) (failed int, err error) {
	if err := firstProblem(p.Problems()); err != nil {
		return 0, err
	}
	return evalLines(r, w, func(line []byte) (json.RawMessage, any, error) {
		var q harvestLine
		if err := json.Unmarshal(line, &q); err != nil {
			return idOf(line), nil, badJSON(err)
		}
		out, err := q.run(p)
		return q.ID, out, err
	})
}

// EvalMarketState is EvalHarvest for the market state, with null where a line has too few prices.
func EvalMarketState(r io.Reader, w io.Writer, p MarketParams) (failed int, err error) {
	if err := firstProblem(p.Problems()); err != nil {
		return 0, err
	}
	slopes := &slopeSelector{}
	return evalLines(r, w, func(line []byte) (json.RawMessage, any, error) {
		var q marketLine
		if err := json.Unmarshal(line, &q); err != nil {
			return idOf(line), nil, badJSON(err)
		}
		out, err := q.run(p, slopes)
		return q.ID, out, err
	})
}

// idOf is the id of a line that is JSON but not of the right form, else null.
func idOf(line []byte) json.RawMessage {
	var q struct {
		ID json.RawMessage `json:"id"`
	}
	if json.Unmarshal(line, &q) != nil {
		return nil
	}
	return q.ID
}

// badJSON says what is wrong with a line in terms of the line.
func badJSON(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) && wrong.Field != "" {
		return fmt.Errorf("%s must not be a %s", wrong.Field, wrong.Value)
	}
	return fmt.Errorf("read line: %w", err)
}

func evalLines(r io.Reader, w io.Writer, run func(line []byte) (id json.RawMessage, out any, err error)) (failed int, err error) {
	type answer struct {
		ID  json.RawMessage `json:"id"`
		Out any             `json:"out"`
	}
	type failure struct {
		ID    json.RawMessage `json:"id"`
		Error string          `json:"error"`
	}
	in, out := bufio.NewReaderSize(r, 1<<16), bufio.NewWriterSize(w, 1<<16)
	encode := json.NewEncoder(out)
	encode.SetEscapeHTML(false)
	var line []byte
	for ended := false; !ended; {
		var long bool
		if line, long, err = readLine(in, line[:0]); err != nil && !errors.Is(err, io.EOF) {
			return failed, errors.Join(fmt.Errorf("read line: %w", err), out.Flush())
		}
		ended = err != nil
		if line = bytes.TrimSpace(line); len(line) == 0 && !long {
			continue
		}
		id, result, wrong := json.RawMessage(nil), any(nil), fmt.Errorf("the line is longer than %d bytes", lineBytesMax)
		if !long {
			id, result, wrong = run(line)
		}
		reply := any(answer{id, result})
		if wrong != nil {
			failed++
			reply = failure{id, wrong.Error()}
		}
		err := encode.Encode(reply)
		if unsaid := (*json.UnsupportedValueError)(nil); errors.As(err, &unsaid) { // An answer that is no number is none.
			failed++
			err = encode.Encode(failure{id, "the answer is out of range: " + unsaid.Str})
		}
		if err != nil {
			return failed, fmt.Errorf("write line: %w", err)
		}
		if in.Buffered() == 0 { // Nothing more waits to be read: whoever sent this may wait for its answer.
			if err := out.Flush(); err != nil {
				return failed, fmt.Errorf("write line: %w", err)
			}
		}
	}
	if err := out.Flush(); err != nil {
		return failed, fmt.Errorf("write line: %w", err)
	}
	return failed, nil
}

// readLine appends the next line to buf, or tells that it was too long and skips it.
func readLine(in *bufio.Reader, buf []byte) (line []byte, long bool, err error) {
	for {
		part, err := in.ReadSlice('\n')
		if long = long || len(buf)+len(part) > lineBytesMax; !long {
			buf = append(buf, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return buf, long, err
		}
	}
}

// overlay reads theta over what target points to. A name it does not know is an error: the
// threshold somebody meant to try would otherwise not have been tried.
func overlay(theta json.RawMessage, target any) error {
	d := json.NewDecoder(bytes.NewReader(theta))
	d.DisallowUnknownFields()
	if err := d.Decode(target); err != nil {
		return fmt.Errorf("theta: %w", badJSON(err))
	}
	return nil
}

// said tells whether there is a theta at all.
func said(theta json.RawMessage) bool { return theta != nil && !bytes.Equal(theta, []byte("null")) }

func firstProblem(ps []Problem) error {
	if len(ps) == 0 {
		return nil
	}
	return ps[0]
}

type harvestLine struct {
	ID json.RawMessage `json:"id"`
	In *struct {
		Position *struct {
			Side  string   `json:"side"`
			Entry *float64 `json:"entry_price"`
			Age   *float64 `json:"age_sec"`
			PnL   *float64 `json:"unrealized_pnl"`
			Stop  float64  `json:"current_sl"`
		} `json:"position"`
		Market *struct {
			Sigma  *float64 `json:"sigma"`
			TS     *float64 `json:"ts"`
			PTrend *float64 `json:"p_trend"`
			PMR    *float64 `json:"p_mr"`
			PChop  *float64 `json:"p_chop"`
		} `json:"market_state"`
		Proposal *struct {
			StopDist float64 `json:"stop_dist_pct"`
		} `json:"p1_proposal"`
		Theta json.RawMessage `json:"theta"`
	} `json:"in"`
}

type harvestOut struct {
	Action     string     `json:"harvest_action"`
	NewStop    *float64   `json:"new_sl_proposed"`
	RNet       float64    `json:"R_net"`
	RiskUnit   float64    `json:"risk_unit"`
	Cost       float64    `json:"cost_est"`
	KillScore  float64    `json:"kill_score"`
	Reasons    []string   `json:"reason_codes"`
	Components Components `json:"k_components"`
	Weights    [3]float64 `json:"tranche_weights"`
}

// run judges the line with p and its theta.
func (q *harvestLine) run(p HarvestParams) (any, error) {
	switch {
	case q.In == nil:
		return nil, errors.New("in is missing")
	case q.In.Position == nil:
		return nil, errors.New("in.position is missing")
	case q.In.Market == nil:
		return nil, errors.New("in.market_state is missing")
	}
	at, m := q.In.Position, q.In.Market
	for _, f := range [...]struct {
		name  string
		value *float64
	}{
		{"position.entry_price", at.Entry},
		{"position.age_sec", at.Age},
		{"position.unrealized_pnl", at.PnL},
		{"market_state.sigma", m.Sigma},
		{"market_state.ts", m.TS},
		{"market_state.p_trend", m.PTrend},
		{"market_state.p_mr", m.PMR},
		{"market_state.p_chop", m.PChop},
	} {
		if f.value == nil {
			return nil, fmt.Errorf("in.%s is missing", f.name)
		}
	}
	if err := p.overlay(q.In.Theta); err != nil {
		return nil, err
	}
	stopDist := 0.0
	if q.In.Proposal != nil {
		stopDist = q.In.Proposal.StopDist
	}
	h, err := Judge(&p, &Position{Side: ledger.Side(at.Side), Entry: *at.Entry, PnL: *at.PnL, Stop: at.Stop, AgeSec: *at.Age},
		&MarketState{Sigma: *m.Sigma, TS: *m.TS, PTrend: *m.PTrend, PMR: *m.PMR, PChop: *m.PChop}, stopDist)
	if err != nil {
		return nil, err
	}
	out := harvestOut{string(h.Action), nil, h.RNet, h.RiskUnit, h.Cost, h.KillScore, h.Reasons.Codes(), h.Parts, h.Weights}
	if h.Action == ledger.Hold {
		out.Action = "NONE"
	}
	if h.Reasons.Has(ProfitLock) {
		out.NewStop = &h.NewStop
	}
	return out, nil
}

// overlay reads a theta over p, in which the greatest age is in seconds.
func (p *HarvestParams) overlay(theta json.RawMessage) error {
	const longest = 9e9 // seconds that a duration can hold
	if !said(theta) {
		return nil
	}
	age := p.MaxAge.Seconds()
	if err := overlay(theta, &struct {
		*HarvestParams
		MaxAge *float64 `json:"max_age_sec"`
	}{p, &age}); err != nil {
		return err
	}
	if !(age > 0 && age <= longest) {
		return fmt.Errorf("theta: max_age_sec must be above 0 and at most %v (got %v)", longest, age)
	}
	p.MaxAge = time.Duration(age * float64(time.Second))
	if err := firstProblem(p.Problems()); err != nil {
		return fmt.Errorf("theta: %w", err)
	}
	return nil
}

type marketLine struct {
	ID     json.RawMessage `json:"id"`
	Theta  json.RawMessage `json:"theta"`
	Prices priceList       `json:"prices"`
}

// priceList is read number by number: encoding/json would take a null, a missing price, for 0.
type priceList []float64

// UnmarshalJSON gets valid JSON, of which only numbers parse.
func (p *priceList) UnmarshalJSON(text []byte) error {
	if len(text) < 2 || text[0] != '[' {
		return fmt.Errorf("prices must be a list (got %.20s)", text)
	}
	*p = priceList{}
	body := bytes.TrimSpace(text[1 : len(text)-1])
	for len(body) > 0 {
		item, rest, _ := bytes.Cut(body, []byte(","))
		x, err := strconv.ParseFloat(string(bytes.TrimSpace(item)), 64)
		if err != nil {
			return fmt.Errorf("price %d must be a number (got %.20s)", len(*p)+1, item)
		}
		*p, body = append(*p, x), rest
	}
	return nil
}

// marketTheta names the parameters as the vectors do, and points to where they are kept.
type marketTheta struct {
	Vol struct {
		Window      *int     `json:"window"`
		WinsorLow   *float64 `json:"winsor_q_low"`
		WinsorHigh  *float64 `json:"winsor_q_high"`
		Seed        *int     `json:"ewma_seed"`
		Lambda      *float64 `json:"ewma_lambda"`
		MADScale    *float64 `json:"mad_scale"`
		SpikeCap    *float64 `json:"spike_proxy_cap"`
		SpikeCenter *float64 `json:"spike_center"`
		SpikeScale  *float64 `json:"spike_scale"`
		SpikeClip   *float64 `json:"spike_clip"`
		SigmaMin    *float64 `json:"sigma_floor"`
	} `json:"vol"`
	Trend struct {
		Method  *Slope    `json:"method"`
		Windows []int     `json:"windows"`
		Weights []float64 `json:"weights"`
	} `json:"trend"`
	Regime struct {
		Window *int     `json:"window"`
		VRLag  *int     `json:"vr_k"`
		Temp   *float64 `json:"softmax_temp"`
		Score  struct {
			A1 *float64 `json:"a1"`
			A2 *float64 `json:"a2"`
			A3 *float64 `json:"a3"`
			B1 *float64 `json:"b1"`
			B2 *float64 `json:"b2"`
			B3 *float64 `json:"b3"`
			C1 *float64 `json:"c1"`
			C2 *float64 `json:"c2"`
			C3 *float64 `json:"c3"`
		} `json:"score"`
	} `json:"regime"`
	Epsilon *float64 `json:"epsilon"`
}

type marketOut struct {
	Sigma  float64 `json:"sigma"`
	Mu     float64 `json:"mu"`
	TS     float64 `json:"ts"`
	Regime struct {
		Trend float64 `json:"trend"`
		MR    float64 `json:"mr"`
		Chop  float64 `json:"chop"`
	} `json:"regime_probs"`
	Features struct {
		DP    float64 `json:"dp"`
		VR    float64 `json:"vr"`
		Spike float64 `json:"spike_proxy"`
	} `json:"features"`
}

// run computes the state of the line's prices with p and its theta.
func (q *marketLine) run(p MarketParams, slopes *slopeSelector) (any, error) {
	if q.Prices == nil {
		return nil, errors.New("prices are missing")
	}
	if err := p.overlay(q.Theta); err != nil {
		return nil, err
	}
	s, err := stateOf(&p, q.Prices, slopes.slope)
	if errors.Is(err, ErrTooFew) {
		return json.RawMessage("null"), nil
	}
	if err != nil {
		return nil, err
	}
	out := marketOut{Sigma: s.Sigma, Mu: s.Mu, TS: s.TS}
	out.Regime.Trend, out.Regime.MR, out.Regime.Chop = s.PTrend, s.PMR, s.PChop
	out.Features.DP, out.Features.VR, out.Features.Spike = s.DP, s.VR, s.Spike
	return out, nil
}

// overlay reads a theta over p.
func (p *MarketParams) overlay(theta json.RawMessage) error {
	if !said(theta) {
		return nil
	}
	var t marketTheta
	v := &t.Vol
	v.Window, v.WinsorLow, v.WinsorHigh, v.Seed, v.Lambda, v.MADScale = &p.VolWindow, &p.WinsorLow, &p.WinsorHigh, &p.EWMASeed, &p.EWMALambda, &p.MADScale
	v.SpikeCap, v.SpikeCenter, v.SpikeScale, v.SpikeClip, v.SigmaMin = &p.SpikeCap, &p.SpikeCenter, &p.SpikeScale, &p.SpikeClip, &p.SigmaMin
	t.Regime.Window, t.Regime.VRLag, t.Regime.Temp, t.Trend.Method, t.Epsilon = &p.RegimeWindow, &p.VRLag, &p.RegimeTemp, &p.TrendMethod, &p.Epsilon
	s := &t.Regime.Score
	s.A1, s.A2, s.A3, s.B1, s.B2, s.B3, s.C1, s.C2, s.C3 = &p.A1, &p.A2, &p.A3, &p.B1, &p.B2, &p.B3, &p.C1, &p.C2, &p.C3
	if err := overlay(theta, &t); err != nil {
		return err
	}
	if w := t.Trend.Windows; len(w) == 3 {
		p.TrendWindow1, p.TrendWindow2, p.TrendWindow3 = w[0], w[1], w[2]
	} else if w != nil {
		return fmt.Errorf("theta: trend.windows must be 3 (got %d)", len(w))
	}
	if w := t.Trend.Weights; len(w) == 3 {
		p.TrendWeight1, p.TrendWeight2, p.TrendWeight3 = w[0], w[1], w[2]
	} else if w != nil {
		return fmt.Errorf("theta: trend.weights must be 3 (got %d)", len(w))
	}
	if err := firstProblem(p.Problems()); err != nil {
		return fmt.Errorf("theta: %w", err)
	}
	return nil
}
