package ledger

import (
	"bytes"
	"testing"
)

// FuzzDecodeEvent: no payload makes the reader panic, and what it accepts it writes so that it reads the same.
func FuzzDecodeEvent(f *testing.F) {
	kinds := constants(f, "event.go", "Kind")
	for i, k := range kinds {
		payload, err := EncodeEvent(newEvent(Kind(k)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), payload)
	}
	of := func(k Kind) uint8 {
		for i, text := range kinds {
			if text == string(k) {
				return uint8(i)
			}
		}
		f.Fatalf("kind %s", k)
		return 0
	}
	f.Add(of(KindPlanDecided), []byte(`{"id":"da7d5197","proposal":{"symbol":"BTCUSDT","side":"BOTH","action":"PARTIAL_75","kill_score":0.54,"computed_at":"2026-01-25T00:26:08Z","source":"external","k_components":{"z":0.25,"a":1e-7},"reason_codes":["x"]},"decision":"EXECUTE","steps":["close"]}`))
	f.Add(of(KindPositionDecided), []byte(`{"id":"x","verdicts":[{"verdict":"DENY","reason":"reconcile_required_qty_mismatch","context":{"exchange_amt":"0.046","ledger_amt":"0.002","a":"b"},"frees_at":"2026-01-25T00:26:08.123456789Z"}]}`))
	f.Add(of(KindIntentOpened), []byte(`{"intent":{"client_order_id":"pc-1-1-1","qty":"0.001","trigger":"1e-9","send_before":"2026-01-25T00:26:08+02:00"}}`))
	f.Add(of(KindFillBooked), []byte(`{"trade":{"symbol":"X","side":"LONG","id":9223372036854775807,"qty":"000.10","price":"-1"}}`))
	f.Add(of(KindConfigUsed), []byte(`{"digest":"`+"\xff"+`","text":"\ud800"}`))
	f.Fuzz(func(t *testing.T, kind uint8, payload []byte) {
		k := Kind(kinds[int(kind)%len(kinds)])
		e, err := DecodeEvent(k, PayloadVersion, payload)
		if err != nil {
			if len(err.Error()) > 4096 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		once, err := EncodeEvent(e)
		if err != nil {
			t.Fatalf("%s %q is read and can't be written: %v", k, payload, err)
		}
		again, err := DecodeEvent(k, PayloadVersion, once)
		if err != nil {
			t.Fatalf("%s %q is written as %q, which can't be read: %v", k, payload, once, err)
		}
		twice, err := EncodeEvent(again)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%s %q is written as %q and then as %q (%v)", k, payload, once, twice, err)
		}
	})
}
