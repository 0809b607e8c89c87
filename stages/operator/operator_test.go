package operator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/pipeline"
)

var btc = ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}

// rig is a stage on a real ledger, with a stand-in for the rest of the chain.
type rig struct {
	*Stage
	t     *testing.T
	path  string
	http  http.Handler
	offer chan Offer
	soft  chan struct{}
	stop  func()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.db")
	st, err := store.Open(path, store.Options{Mode: ledger.Paper, Host: "paper", Account: "paper"})
	if err != nil {
		t.Fatal(err)
	}
	storeSoft, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- st.Run(pipeline.Stop{Soft: storeSoft, Hard: context.Background()}) }()
	lot := ledger.Lot{Step: ledger.MustQty("0.001"), Min: ledger.MustQty("0.001"), Max: ledger.MustQty("100")}
	board := exchange.NewBoard(map[string]exchange.Market{"BTCUSDT": {Symbol: "BTCUSDT", Lot: lot}})
	r := &rig{t: t, path: path, offer: make(chan Offer, 4), soft: make(chan struct{})}
	r.Stage = &Stage{
		Mode: ledger.Paper, Version: "test", Symbols: []string{"BTCUSDT", "ETHUSDT"}, Store: st, Board: board, Clock: time.Now, Offers: r.offer,
		Limits: func(*ledger.State, time.Time) []LimitView { return nil }, Log: zerolog.Nop(), Socket: filepath.Join(t.TempDir(), "control.sock"),
	}
	r.http = r.begin(r.soft)
	closed := false
	r.stop = func() {
		if closed {
			return
		}
		closed = true
		close(storeSoft)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := store.Verify(path); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

func (r *rig) do(method, target, body string) (int, string) {
	r.t.Helper()
	rec := httptest.NewRecorder()
	r.http.ServeHTTP(rec, httptest.NewRequest(method, target, strings.NewReader(body)))
	return rec.Code, rec.Body.String()
}

func (r *rig) want(status int, method, target, body string, parts ...string) string {
	r.t.Helper()
	code, text := r.do(method, target, body)
	if code != status {
		r.t.Fatalf("%s %s %s: %d %s, want %d", method, target, body, code, text, status)
	}
	for _, p := range parts {
		if !strings.Contains(text, p) {
			r.t.Fatalf("%s %s %s: %s, want %s in it", method, target, body, text, p)
		}
	}
	return text
}

// record makes events durable, as the other stages would.
func (r *rig) record(events ...ledger.Event) {
	r.t.Helper()
	c, err := r.Store.Decide(r.t.Context(), func(*ledger.State, time.Time) []ledger.Event { return events })
	if err == nil {
		err = c.Wait(r.t.Context())
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func proposal(action ledger.Action, score float64) ledger.Proposal {
	return ledger.Proposal{
		Symbol: btc.Symbol, Side: btc.Side, Action: action, KillScore: score, ComputedAt: time.Date(2026, 1, 25, 0, 26, 8, 0, time.UTC), Source: ledger.FromBrain,
	}
}

// denied are the events of a plan that the position permit denies on the report's numbers.
func denied(p ledger.Proposal) []ledger.Event {
	id, now := p.ID(), time.Now()
	allow := ledger.Verdict{Ruling: ledger.Allow, Reason: ledger.WithinLimits, Expires: now.Add(time.Minute), Budget: ledger.Normal}
	deny := ledger.Verdict{Ruling: ledger.Deny, Reason: ledger.QtyMismatch, Expires: now.Add(time.Minute), Context: ledger.Facts{
		{Name: "exchange_amt", Value: "0.046"}, {Name: "ledger_amt", Value: "0.002"}, {Name: "diff", Value: "0.044"}, {Name: "tolerance", Value: "0.001"},
	}}
	return []ledger.Event{
		&ledger.PlanDecided{ID: id, Proposal: p, Decision: ledger.Execute, Steps: p.Steps()},
		&ledger.GovernorDecided{ID: id, Verdicts: []ledger.Verdict{allow}},
		&ledger.PositionDecided{ID: id, At: now, Holding: ledger.Holding{Key: btc}, Verdicts: []ledger.Verdict{deny}},
		&ledger.StepEnded{ID: id, Outcome: ledger.Denied, Stage: ledger.StagePosition, Reason: ledger.QtyMismatch},
		&ledger.PlanEnded{ID: id, Outcome: ledger.Denied, Stage: ledger.StagePosition, Reason: ledger.QtyMismatch},
	}
}

func TestRunStateActions(t *testing.T) {
	r := newRig(t)
	r.want(400, "POST", "/v1/kill", `{}`, "reason is missing")
	r.want(400, "POST", "/v1/kill", `{"reason":"  "}`, "reason")
	r.want(400, "POST", "/v1/kill", `{"reason":"x","reason":"y"}`, "repeated")
	r.want(400, "POST", "/v1/kill", `{"Reason":"x"}`, `write \"reason\"`)
	r.want(400, "POST", "/v1/kill", `{"reason":"a\u001b[2Jb"}`, "plain text")
	r.want(405, "GET", "/v1/kill", "")
	r.want(200, "POST", "/v1/kill", `{"reason":"smoke","by":"ann"}`, `"run_state":"killed","was":"armed","changed":true`)
	r.want(200, "POST", "/v1/kill", `{"reason":"smoke"}`, `"changed":false`)
	r.want(409, "POST", "/v1/disarm", `{"reason":"softer"}`, "stricter")
	r.want(400, "POST", "/v1/rearm", `{"reason":"x","to":"killed"}`, "armed, protective_only or disarmed")
	r.want(200, "POST", "/v1/rearm", `{"reason":"x","to":"disarmed"}`, `"was":"killed"`)
	r.want(200, "POST", "/v1/rearm", `{"reason":"fixed","to":"armed"}`, `"run_state":"armed"`)
	// What was answered is on the disk: another process finds it.
	r.stop()
	reader, err := store.OpenReader(r.path, store.Options{Mode: ledger.Paper})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var moves []string
	if err := reader.Records(1, 0, func(rec ledger.Record, _ string) error {
		e := rec.Event.(*ledger.RunStateChanged)
		moves = append(moves, string(e.From)+">"+string(e.To)+" "+e.Who+": "+e.Why)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := "armed>killed operator ann: smoke|killed>disarmed operator: x|disarmed>armed operator: fixed"
	if got := strings.Join(moves, "|"); got != want {
		t.Errorf("journal %s, want %s", got, want)
	}
}

func TestHoldsAreSetAndClearedByTheOperator(t *testing.T) {
	r := newRig(t)
	r.record(&ledger.HoldPut{Key: btc, Reason: ledger.HoldQtyMismatch, Owner: "reconcile", Evidence: "exchange 0.046, ledger 0.002"})
	for body, want := range map[string]string{
		`{"op":"set","symbol":"DOGEUSDT","reason":"x"}`: `symbol \"DOGEUSDT\": one of BTCUSDT, ETHUSDT is wanted`, `{"op":"put","symbol":"BTCUSDT","reason":"x"}`: `op \"put\": set or clear is wanted`,
	} {
		if text := r.want(400, "POST", "/v1/holds", body, want); strings.Contains(text, "op ") && strings.Contains(text, "symbol ") {
			t.Errorf("only the wrong one should be named: %s", text)
		}
	}
	r.want(200, "POST", "/v1/holds", `{"op":"clear","symbol":"BTCUSDT","reason":"x"}`, `"hold":false,"changed":false`, "qty_mismatch_no_evidence")
	r.want(200, "POST", "/v1/holds", `{"op":"set","symbol":"BTCUSDT","reason":"fed day"}`, `"changed":true`)
	r.want(200, "POST", "/v1/holds", `{"op":"set","symbol":"BTCUSDT","reason":"fed day"}`, `"changed":false`)
	r.want(200, "GET", "/v1/holds", "", `"reason":"operator"`, "fed day", `"reason":"qty_mismatch_no_evidence"`)
	r.want(200, "GET", "/v1/status", "", `"hold":"qty_mismatch_no_evidence,operator"`)
	r.want(200, "POST", "/v1/holds", `{"op":"clear","symbol":"BTCUSDT","reason":"over"}`, `"changed":true`)
	if text := r.want(200, "GET", "/v1/holds", ""); strings.Contains(text, "fed day") || !strings.Contains(text, "qty_mismatch") {
		t.Errorf("only the operator's own hold may go: %s", text)
	}
}

const good = `{"symbol":"BTCUSDT","side":"BOTH","action":"PARTIAL_25","kill_score":0.54,"computed_at":"2026-01-25T00:26:08.000Z"`

func TestBadProposalsNameTheField(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct{ body, want string }{
		{good + `,"kill_score":0.5}`, `\"kill_score\" is repeated`},
		{good + `,"Symbol":"X"}`, `write \"symbol\"`},
		{good + `,"source":"operator"}`, `\"source\" is not a known key`},
		{good + `,"new_sl":"-1"}`, "new_sl"},
		{good + `,"new_sl":"0"}`, "new_sl"},
		{good + `,"new_sl":1e30}`, "new_sl"},
		{good + `,"new_sl":"9999999999999999999999"}`, "new_sl"},
		{good + `,"r_net":"2"}`, "r_net"},
		{good + `,"r_net":1e999}`, "r_net"},
		{good + `,"k_components":{"a":1,"a":2}}`, "k_components"},
		{good + `,"k_components":{"a":"x"}}`, "k_components"},
		{good + `,"reason_codes":["a\nb"]}`, "reason_codes"},
		{good + `,"reason_codes":"a"}`, "reason_codes"},
		{strings.Replace(good, "0.54", "NaN", 1) + "}", "kill_score"},
		{strings.Replace(good, "0.54", "1.01", 1) + "}", "kill_score: 0 to 1"},
		{strings.Replace(good, "0.54", "-0.1", 1) + "}", "kill_score: 0 to 1"},
		{strings.Replace(good, "0.54", `"0.54"`, 1) + "}", "kill_score"},
		{strings.Replace(good, `"kill_score":0.54,`, "", 1) + "}", "kill_score is missing"},
		{strings.Replace(good, "2026-01-25T00:26:08.000Z", "yesterday", 1) + "}", "computed_at"},
		{strings.Replace(good, "BTCUSDT", `BTC\u001b[31m`, 1) + "}", "symbol"},
		{good + "} {}", "something follows"},
		{good, "does not end"},
		{`[1]`, "not a JSON object"},
		{`7`, "not a JSON object"},
	} {
		text := r.want(400, "POST", "/v1/proposals", c.body, c.want)
		var res Result
		if err := json.Unmarshal([]byte(text), &res); err != nil || res.ID != nil || res.Decision != ledger.Errored || res.Reason != ledger.InvalidProposal {
			t.Errorf("%s: %s", c.body, text)
		}
	}
	r.want(400, "POST", "/v1/proposals", "", "1 to 1000 proposals")
	if code, text := r.do("POST", "/v1/proposals", strings.Repeat(" ", bodyMax+1)); code != http.StatusRequestEntityTooLarge || !strings.Contains(text, "larger than") {
		t.Errorf("%d %s", code, text)
	}
	if len(r.offer) != 0 {
		t.Error("a bad proposal went on")
	}
}

func TestParseProposalReadsAmountsToTheLastDigit(t *testing.T) {
	for _, sl := range []string{`"61234.500000000000000001"`, `61234.500000000000000001`} {
		p, err := ParseProposal([]byte(good + `,"new_sl":` + sl + `,"r_net":2.5,"k_components":{"z":1},"reason_codes":["a"]}`))
		if err != nil || p.NewSL.String() != "61234.500000000000000001" || p.Source != ledger.FromExternal || p.RNet != 2.5 || p.KComponents["z"] != 1 {
			t.Errorf("%+v, %v", p, err)
		}
	}
	p, err := ParseProposal([]byte(strings.Replace(good, "08.000Z", "08.0009+02:00", 1) + "}"))
	if want := time.Date(2026, 1, 24, 22, 26, 8, 0, time.UTC); err != nil || !p.ComputedAt.Equal(want) {
		t.Errorf("computed_at %v, %v: want %v", p.ComputedAt, err, want)
	}
	if p, _ := ParseProposal([]byte(good + "}")); p.ID() != "17ea8e86355b2c66" {
		t.Errorf("SPEC's example has id %s", p.ID())
	}
}

// brain answers every offer with the same receipt.
func (r *rig) brain(decision ledger.Decision, reason ledger.Reason) {
	done := make(chan struct{})
	r.t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case o := <-r.offer:
				o.Reply <- ledger.Receipt{ID: o.Value.ID(), Decision: decision, Reason: reason}
			case <-done:
				return
			}
		}
	}()
}

func TestProposalsAreAnsweredInOrderAndPaced(t *testing.T) {
	r := newRig(t)
	r.brain(ledger.Skip, ledger.StaleProposal)
	eth := strings.Replace(good, "BTC", "ETH", 1) + "}"
	text := r.want(200, "POST", "/v1/proposals", "\n"+good+"}\nnonsense\n"+good+"}\n"+eth+"\n")
	var got []string
	for line := range strings.Lines(text) {
		var res Result
		if err := json.Unmarshal([]byte(line), &res); err != nil {
			t.Fatal(err)
		}
		got = append(got, string(res.Reason))
	}
	if want := "stale_proposal invalid_proposal rate_limited stale_proposal"; strings.Join(got, " ") != want {
		t.Errorf("%s, want %s", got, want)
	}
	rec := httptest.NewRecorder()
	r.http.ServeHTTP(rec, httptest.NewRequest("POST", "/v1/proposals", strings.NewReader(good+"}")))
	if rec.Code != http.StatusTooManyRequests || rec.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

func TestPaceIsBoundedAndFreesItself(t *testing.T) {
	p, now := &pace{last: map[string]time.Time{}}, time.Unix(1000, 0)
	for i := range paceMax {
		if !p.take(string(rune('a'+i)), now) {
			t.Fatal("refused too early")
		}
	}
	if p.take("more", now) || p.take("a", now.Add(999*time.Millisecond)) {
		t.Error("nothing was refused")
	}
	if !p.take("more", now.Add(time.Second)) || len(p.last) != 1 {
		t.Errorf("%d symbols are still remembered", len(p.last))
	}
}

func TestFullChannelIsBusy(t *testing.T) {
	r := newRig(t)
	for range cap(r.offer) {
		r.offer <- Offer{}
	}
	r.want(429, "POST", "/v1/proposals", good+"}", "busy")
}

func TestWaitForOutcome(t *testing.T) {
	r := newRig(t)
	p, err := ParseProposal([]byte(good + "}"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		o := <-r.offer
		events := denied(o.Value)
		r.record(events[0])
		o.Reply <- ledger.Receipt{ID: o.Value.ID(), Decision: ledger.Execute}
		r.record(events[1:]...)
	}()
	r.want(200, "POST", "/v1/proposals?wait=outcome", good+"}", `"plan_id":"`+string(p.ID())+`"`, `"decision":"EXECUTE"`, `"outcome":"denied"`,
		"reconcile_required_qty_mismatch", "diff 0.044, tolerance 0.001", "ledger sync")
}

func TestWithoutAChainOnlyStopsArePossible(t *testing.T) {
	r := newRig(t)
	r.record(denied(proposal(ledger.Partial75, 0.539))...)
	live := r.want(200, "GET", "/v1/plans", "")
	r.stop()
	reader, err := store.OpenReader(r.path, store.Options{Mode: ledger.Paper})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if r.http, err = OnFile(Stage{Mode: ledger.Paper, Symbols: r.Symbols, Limits: r.Limits}, reader); err != nil {
		t.Fatal(err)
	}
	if file := r.want(200, "GET", "/v1/plans", ""); file != live {
		t.Errorf("the file says %s, the process said %s", file, live)
	}
	r.want(200, "GET", "/v1/status", "", `"running":false`, `"exchange_amt":null`, `"total":1,"executed":0,"denied":1`)
	for _, path := range []string{"/v1/kill", "/v1/flatten", "/v1/ledger/sync", "/v1/paper/trade"} {
		body := map[string]string{"/v1/paper/trade": `{"symbol":"BTCUSDT","qty":"1"}`, "/v1/ledger/sync": `{"symbol":"BTCUSDT","reason":"x"}`}[path]
		if body == "" {
			body = `{"reason":"x"}`
		}
		r.want(503, "POST", path, body, `"kind":"not_running"`)
	}
}

func TestViews(t *testing.T) {
	r := newRig(t)
	p := proposal(ledger.Partial75, 0.539)
	r.record(&ledger.LedgerOpened{Holding: ledger.Holding{Key: btc, Amount: ledger.MustQty("0.002")}, By: "test"})
	r.record(denied(p)...)
	r.Board.PutSnapshot(ledger.Snapshot{SentAt: time.Now().Add(time.Millisecond), Holdings: []ledger.Holding{{Key: btc, Amount: ledger.MustQty("0.046")}}})
	r.want(200, "GET", "/v1/status", "", `"mode":"paper","run_state":"armed"`, `"exchange_amt":"0.046","ledger_amt":"0.002","drift":"0.044","hold":null`, "drift of 0.044",
		`"plans":{"total":1,"executed":0,"denied":1,"skipped":0,"errors":0,"would_execute":0,"pending":0,"duplicates":0},"open_intents":0`)
	r.want(200, "GET", "/v1/plans?outcome=denied", "", `"plan_id":"`+string(p.ID()), `"reason":"reconcile_required_qty_mismatch","stage":"position","executed":false,"qty":"0"`, `"client_order_ids":[]`)
	if text := r.want(200, "GET", "/v1/plans?outcome=executed", ""); text != "[]\n" {
		t.Errorf("%s", text)
	}
	r.want(400, "GET", "/v1/plans?limit=0", "")
	r.want(400, "GET", "/v1/plans?outcome=bogus", "", "executed, partial, denied, would_execute, failed, unknown, pending, none")
	r.want(200, "GET", "/v1/plans?outcome=none", "")
	r.want(404, "GET", "/v1/why?subject=NOPE", "", `\"NOPE\" is neither a symbol (BTCUSDT, ETHUSDT) nor a plan`)
	r.want(200, "GET", "/v1/plans/"+p.ID().Short(), "", `"governor":{"verdict":"ALLOW"`, `"context":{"exchange_amt":"0.046","ledger_amt":"0.002","diff":"0.044","tolerance":"0.001"}`, `"journal":[2,3,4,5,6]`)
	r.want(404, "GET", "/v1/plans/ffff", "", "not_found")
	r.want(200, "GET", "/v1/ledger", "", `{"symbol":"BTCUSDT","side":"BOTH","amount":"0.002","entry_price":"0","last_trade_id":0,"version":1,"updated_at":`)
	r.want(200, "GET", "/v1/ledger/history", "", `"change":"0.002","amount":"0.002","what":"opened, test"`)
	r.want(200, "GET", "/v1/why?subject=btcusdt", "", "drift 0.044", "ledger sync BTCUSDT", "last plan "+p.ID().Short())
	r.want(200, "GET", "/v1/why?subject="+p.ID().Short(), "", "position: DENY reconcile_required_qty_mismatch (exchange_amt 0.046, ledger_amt 0.002, diff 0.044, tolerance 0.001)")
	r.want(200, "GET", "/readyz", "")
	r.record(&ledger.HoldPut{Key: btc, Reason: ledger.HoldStaleExchange, Owner: "reconcile"})
	r.want(503, "GET", "/readyz", "")
	r.want(200, "GET", "/healthz", "")
}

func TestOrdersAreFlat(t *testing.T) {
	state := &ledger.State{Intents: map[string]*ledger.Intent{"pc-1": {ClientOrderID: "pc-1", Key: btc, Qty: ledger.MustQty("1")}}}
	text, err := json.Marshal(orders(state, 1))
	if err != nil || strings.Contains(string(text), `"key"`) || !strings.HasPrefix(string(text), `[{"symbol":"BTCUSDT","side":"BOTH","client_order_id":"pc-1",`) {
		t.Errorf("%s, %v", text, err)
	}
	var back []OrderView
	if err := json.Unmarshal(text, &back); err != nil || back[0].Symbol != btc.Symbol || back[0].Side != btc.Side || !back[0].Qty.Equal(ledger.MustQty("1")) {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestSettlingAnOrder(t *testing.T) {
	r := newRig(t)
	r.want(503, "POST", "/v1/orders/settle", `{"id":"pc-0123456789abcdef-1-1","not_placed":true,"reason":"x"}`) // Nobody is there to take it.
	settles := make(chan Settle)
	r.Settles = settles
	for _, body := range []string{
		`{"id":"pc-1","not_placed":true}`, `{"id":"web_1","not_placed":true,"reason":"x"}`, `{"id":"pc-1","reason":"x"}`, `{"not_placed":true,"reason":"x"}`,
		`{"id":"pc-1","not_placed":true,"order_id":"7","reason":"x"}`, `{"id":"pc-1","order_id":"0","reason":"x"}`, `{"id":"pc-1","order_id":"7x","reason":"x"}`,
		`{"id":"pc-1","order_id":"-7","reason":"x"}`, `{"id":"pc-1","not_placed":true,"reason":"x","symbol":"BTCUSDT"}`,
	} {
		r.want(400, "POST", "/v1/orders/settle", body)
	}
	go func() {
		o := <-settles
		o.Reply <- ledger.SettleResult{Error: "the exchange shows it"}
		o = <-settles
		if o.Value != (ledger.SettleOrder{ClientOrderID: "pc-1", OrderID: 7, Who: "operator ann", Why: "seen"}) {
			t.Errorf("%+v", o.Value)
		}
		o.Reply <- ledger.SettleResult{State: ledger.Placed}
	}()
	r.want(409, "POST", "/v1/orders/settle", `{"id":"pc-1","not_placed":true,"reason":"x"}`, "the exchange shows it")
	r.want(200, "POST", "/v1/orders/settle", `{"id":"pc-1","order_id":"7","by":"ann","reason":"seen"}`, `"client_order_id":"pc-1"`, `"state":"placed"`)
}

func TestASideThatThePositionModeDoesNotHaveIsSaid(t *testing.T) {
	r := newRig(t)
	r.record(&ledger.Started{Instance: 1, Version: "test", Mode: ledger.Paper})
	r.record(&ledger.LedgerOpened{Holding: ledger.Holding{Key: btc}, By: "test"})
	deny := func(side ledger.Side) ledger.PlanID {
		p := proposal(ledger.Partial25, 0.5)
		p.Side = side
		now := time.Now()
		allow := ledger.Verdict{Ruling: ledger.Allow, Reason: ledger.WithinLimits, Expires: now.Add(time.Minute), Budget: ledger.Normal}
		r.record(
			&ledger.PlanDecided{ID: p.ID(), Proposal: p, Decision: ledger.Execute, Steps: p.Steps()},
			&ledger.GovernorDecided{ID: p.ID(), Verdicts: []ledger.Verdict{allow}},
			&ledger.PositionDecided{ID: p.ID(), At: now, Holding: ledger.Holding{Key: p.Key()}, Verdicts: []ledger.Verdict{{Ruling: ledger.Deny, Reason: ledger.NoPosition, Expires: now.Add(time.Minute)}}},
			&ledger.StepEnded{ID: p.ID(), Outcome: ledger.Denied, Stage: ledger.StagePosition, Reason: ledger.NoPosition},
			&ledger.PlanEnded{ID: p.ID(), Outcome: ledger.Denied, Stage: ledger.StagePosition, Reason: ledger.NoPosition},
		)
		return p.ID()
	}
	const said = "position mode has no such side; propose one of BOTH"
	r.want(200, "GET", "/v1/why?subject="+string(deny(ledger.Long)), "", said)
	if text := r.want(200, "GET", "/v1/why?subject="+string(deny(ledger.Both)), ""); strings.Contains(text, "position mode") {
		t.Errorf("%s", text)
	}
	if log := r.narrated(); strings.Count(log, said) != 1 {
		t.Errorf("narrated:\n%s", log)
	}
}

func TestWhatTheBrainThinks(t *testing.T) {
	r := newRig(t)
	if text := r.want(200, "GET", "/v1/why?subject=BTCUSDT", ""); strings.Contains(text, "brain") {
		t.Errorf("%s", text)
	}
	r.Brain = func(symbol string) []string { return []string{"trend of " + symbol, "  0.7"} }
	r.want(200, "GET", "/v1/why", "", `"brain":["trend of BTCUSDT","  0.7"]`, `"brain":["trend of ETHUSDT","  0.7"]`)
}

func TestReload(t *testing.T) {
	r := newRig(t)
	r.want(409, "POST", "/v1/config/reload", `{}`, "only when it starts")
	var err error
	r.Reload = func(context.Context) (string, error) { return "2 parameters changed", err }
	r.want(200, "POST", "/v1/config/reload", `{}`, `{"result":"2 parameters changed"}`)
	err = Failed(BadRequest, "c.yaml:3:1: mod: is not a known key")
	r.want(400, "POST", "/v1/config/reload", "", "c.yaml:3:1")
	err = errors.New("mode cannot change")
	r.want(409, "POST", "/v1/config/reload", "", `"kind":"refused"`, "mode cannot change")
	rec := httptest.NewRecorder()
	r.token = "secret"
	r.guard(r.routes(false)).ServeHTTP(rec, httptest.NewRequest("POST", "/v1/config/reload", nil))
	if rec.Code != http.StatusUnauthorized {
		t.Errorf("without the token: %d", rec.Code)
	}
}

// A chain that ends after it took a proposal says which plan it is: it may have executed.
func TestAPlanThatIsTakenAndNotAnswered(t *testing.T) {
	const hint = "permitchain plans show 17ea8e86355b2c66 tells what became of plan_id 17ea8e86355b2c66"
	r := newRig(t)
	gone, leave := context.WithCancel(t.Context())
	go func() { <-r.offer; leave() }()
	if _, err := r.submit(gone, []byte(good+"}")); failure(err).Kind != Internal || !strings.Contains(err.Error(), hint) {
		t.Errorf("%v", err)
	}
	id := ledger.PlanID("17ea8e86355b2c66")
	r.stop() // The ledger is closed while an outcome is awaited.
	if err := r.await(t.Context(), &Result{ID: &id}, time.Now().Add(time.Second)); failure(err).Kind != Internal || !strings.Contains(err.Error(), hint) {
		t.Errorf("%v", err)
	}
}

func TestGuardOnTCP(t *testing.T) {
	r := newRig(t)
	ask := func(host string, header ...string) int {
		req := httptest.NewRequest("POST", "http://"+host+"/v1/kill", strings.NewReader(`{"reason":"x"}`))
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		rec := httptest.NewRecorder()
		r.guard(r.routes(false)).ServeHTTP(rec, req)
		return rec.Code
	}
	check := func(name string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
	check("another name for this machine", ask("evil.example:8787"), 403)
	check("from another page", ask("127.0.0.1:8787", "Origin", "http://evil.example", "Sec-Fetch-Site", "cross-site"), 403)
	check("loopback", ask("127.0.0.1:8787"), 200)
	check("loopback by name", ask("localhost:8787"), 200)
	check("IPv6 loopback", ask("[::1]:8787"), 200)
	r.Mode = ledger.Live
	check("live without a token", ask("127.0.0.1:8787"), 403)
	r.token = "secret"
	check("no token", ask("127.0.0.1:8787"), 401)
	check("wrong token", ask("127.0.0.1:8787", "Authorization", "Bearer secret2"), 401)
	check("not a bearer", ask("127.0.0.1:8787", "Authorization", "secret"), 401)
	check("token", ask("other.example:8787", "Authorization", "Bearer secret"), 200)
	rec := httptest.NewRecorder()
	r.routes(false).ServeHTTP(rec, httptest.NewRequest("POST", "/v1/ledger/backup", strings.NewReader(`{"path":"/tmp/x"}`)))
	check("backup over TCP", rec.Code, 404)
}

func TestEventsStreamAndEndWithTheProcess(t *testing.T) {
	r := newRig(t)
	r.record(denied(proposal(ledger.Partial75, 0.539))...)
	server := httptest.NewServer(r.http)
	defer server.Close()
	res, err := http.Get(server.URL + "/v1/events?from=4")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var text strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(text.String(), "plan.ended") {
		n, err := res.Body.Read(buf)
		if err != nil {
			t.Fatalf("%v after %s", err, text.String())
		}
		text.Write(buf[:n])
	}
	if !strings.Contains(text.String(), "id: 5\nevent: plan.ended\ndata: {\"seq\":5,") || strings.Contains(text.String(), "id: 4\n") {
		t.Errorf("%s", text.String())
	}
	close(r.soft)
	for err == nil {
		_, err = res.Body.Read(buf)
	}
}

func TestSocketAndPort(t *testing.T) {
	r := newRig(t)
	if l, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.Socket}); err != nil {
		t.Fatal(err)
	} else {
		l.SetUnlinkOnClose(false)
		l.Close() // What kill -9 leaves behind.
	}
	hard, cancel := context.WithCancel(t.Context())
	defer cancel()
	soft, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- r.Run(pipeline.Stop{Soft: soft, Hard: hard}) }()
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", r.Socket) }}}
	var err error
	for ok := false; !ok; {
		var res *http.Response
		if res, err = client.Get("http://x/healthz"); err == nil {
			ok = res.StatusCode == 200
			res.Body.Close()
		} else if !errors.Is(err, os.ErrNotExist) && !strings.Contains(err.Error(), "refused") {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(r.Socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := listenControl(r.Socket); err == nil {
		t.Error("a second process took the socket over")
	}
	close(soft)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	r.Listen = busy.Addr().String()
	if err := r.Run(pipeline.Stop{Soft: soft, Hard: hard}); !errors.Is(err, ErrServe) || !strings.Contains(err.Error(), r.Listen) {
		t.Errorf("%v, want an ErrServe that names %s", err, r.Listen)
	}
	r.Listen, r.TokenFile = "127.0.0.1:0", filepath.Join(t.TempDir(), "none")
	if err := r.Run(pipeline.Stop{Soft: soft, Hard: hard}); !errors.Is(err, ErrServe) {
		t.Errorf("%v, want an ErrServe for a missing token file", err)
	}
}

// narrated is everything that a narrator says of the journal.
func (r *rig) narrated() string {
	r.t.Helper()
	var log bytes.Buffer
	soft := make(chan struct{})
	close(soft)
	n := &Narrator{Store: r.Store, Log: zerolog.New(&log).Level(zerolog.InfoLevel)}
	if err := n.Run(pipeline.Stop{Soft: soft, Hard: r.t.Context()}); err != nil {
		r.t.Fatal(err)
	}
	return log.String()
}

func TestNarratorSaysADenialLegiblyAndRepeatsOnce(t *testing.T) {
	r := newRig(t)
	p := proposal(ledger.Partial75, 0.539)
	r.record(&ledger.Started{Instance: 1, Version: "test", Mode: ledger.Paper})
	r.record(denied(p)...)
	r.record(&ledger.PlanRepeated{ID: p.ID()})
	for i := range 3 {
		s := proposal(ledger.Hold, float64(i)/10)
		r.record(&ledger.PlanDecided{ID: s.ID(), Proposal: s, Decision: ledger.Skip, Reason: ledger.ActionHold})
	}
	r.record(&ledger.RunStateChanged{From: ledger.Armed, To: ledger.ProtectiveOnly, Who: "governor", Why: "5 attempts", Reason: ledger.AttemptErrors})
	text := r.narrated()
	for _, want := range []string{
		"ready: process 1",
		`"level":"warn","symbol":"BTCUSDT","plan":"` + p.ID().Short() + `","message":"DENIED PARTIAL_75 by position 4, reconcile_required_qty_mismatch (exchange_amt 0.046, ledger_amt 0.002, diff 0.044, tolerance 0.001): exchange and ledger differ`,
		"permitchain ledger sync BTCUSDT --reason", "duplicate: decided and denied", `"level":"error","message":"RUN STATE armed → protective_only by governor: 5 attempts`,
		"stopped: plans decided since the start 4, executed 0\"}\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
	if n := strings.Count(text, string(ledger.ActionHold)); n != 1 {
		t.Errorf("the same skip is said %d times", n)
	}
}
