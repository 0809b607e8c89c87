package operator

import (
	"encoding/json"
	"strings"
	"testing"

	"permitchain/ledger"
	"permitchain/stages/apply"
)

const goodProposal = `{"symbol":"BTCUSDT","side":"BOTH","action":"PARTIAL_75","kill_score":0.54,"computed_at":"2026-01-25T00:26:08.000Z"}`

// FuzzParseProposal: no body makes the reader panic; what it accepts is plain, in its bounds, and reads the same when it is
// written; what it refuses it refuses in one printable line.
func FuzzParseProposal(f *testing.F) {
	f.Add([]byte(goodProposal))
	f.Add([]byte(`{"symbol":"ETHUSDT","side":"LONG","action":"UPDATE_SL","kill_score":1e-3,"computed_at":"2026-01-25T02:26:08.123456+02:00","new_sl":61234.50,"r_net":-0.5,"k_components":{"a":1,"b":0.5},"reason_codes":["x","y"]}`))
	f.Add([]byte(strings.Replace(goodProposal, `"kill_score":0.54`, `"kill_score":0.54,"kill_score":0.55`, 1)))
	f.Add([]byte(strings.Replace(goodProposal, `BOTH`, `BO\u0000TH`, 1)))
	f.Add([]byte(strings.Replace(goodProposal, `{`, `{"new_sl":"1e400",`, 1)))
	f.Add([]byte(strings.Replace(goodProposal, `{`, `{"k_components":{"a":{"b":1}},`, 1)))
	f.Add([]byte(goodProposal + "{}"))
	f.Add([]byte(`{"Symbol":null}`))
	f.Add([]byte("{\"symbol\":\"\x7f\"}")) // Found by this target: the error showed it as it was.
	f.Add([]byte("{\"k_components\":{\"\u202e\":\"\u009b\"}}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := ParseProposal(body)
		if err != nil {
			oneLine(t, err)
			return
		}
		if err := apply.Validate(p); err != nil {
			oneLine(t, err)
			return
		}
		if p.KillScore < 0 || p.KillScore > 1 || p.NewSL.Sign() < 0 || p.Source != ledger.FromExternal || p.Force || p.Operator != "" || p.Epoch != 0 {
			t.Errorf("%q makes %+v", body, p)
		}
		members := map[string]any{"symbol": p.Symbol, "side": p.Side, "action": p.Action, "kill_score": p.KillScore, "computed_at": p.ComputedAt, "r_net": p.RNet}
		if !p.NewSL.IsZero() {
			members["new_sl"] = p.NewSL
		}
		if p.KComponents != nil {
			members["k_components"] = p.KComponents
		}
		if p.ReasonCodes != nil {
			members["reason_codes"] = p.ReasonCodes
		}
		text, err := json.Marshal(members)
		if err != nil {
			t.Fatalf("%q makes %+v, which can't be written: %v", body, p, err)
		}
		again, err := ParseProposal(text)
		if written(t, again) != written(t, p) || again.ID() != p.ID() || err != nil {
			t.Errorf("%q makes %+v; written as %s it makes %+v (%v)", body, p, text, again, err)
		}
	})
}

// FuzzParseOrder: no body of an action makes the reader panic, and what it accepts is in its bounds and plain.
func FuzzParseOrder(f *testing.F) {
	f.Add([]byte(`{"symbol":"BTCUSDT","side":"LONG","force":true,"by":"me","reason":"storm"}`), true)
	f.Add([]byte(`{"op":"put","to":"armed","qty":"-0.5","path":"/tmp/x y","id":"pc-1-1-1","order_id":"7","not_placed":false,"reason":" x "}`), false)
	f.Add([]byte(`{"reason":"\n"}`), true)
	f.Add([]byte(`{"force":null,"side":"UP"}`), false)
	f.Add([]byte(`{"by":"`+strings.Repeat("ä", 40)+`"}`), false)
	f.Fuzz(func(t *testing.T, body []byte, reasoned bool) {
		o, err := parseOrder(strings.NewReader(string(body)), reasoned, "symbol", "side", "op", "to", "path", "qty", "force", "id", "order_id", "not_placed")
		if err != nil {
			oneLine(t, err)
			return
		}
		if reasoned && o.Reason == "" || len(o.Reason) > reasonMax || len(o.By) > byMax+len("operator ") || o.Side != ledger.AnySide && !o.Side.Valid() {
			t.Errorf("%q makes %+v", body, o)
		}
		for _, text := range []string{o.Symbol, o.Op, o.To, o.Path, o.Qty, o.ID, o.OrderID, o.By, o.Reason} {
			if !plain(text, false) {
				t.Errorf("%q lets %q through", body, text)
			}
		}
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		want := o
		if want.By = "operator " + o.By; len(o.By) > byMax || want.Reason == "" && reasoned {
			return
		}
		again, err := parseOrder(strings.NewReader(string(text)), reasoned, "symbol", "side", "op", "to", "path", "qty", "force", "id", "order_id", "not_placed")
		if err != nil || again != want {
			t.Errorf("%q makes %+v; written as %s it makes %+v (%v)", body, o, text, again, err)
		}
	})
}

func written(t *testing.T, p ledger.Proposal) string {
	t.Helper()
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func oneLine(t *testing.T, err error) {
	t.Helper()
	if text := err.Error(); text == "" || len(text) > 2048 || !plain(text, false) {
		t.Errorf("the error %q of %d bytes is not one short printable line", text, len(text))
	}
}
