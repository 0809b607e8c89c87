package store

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"permitchain/ledger"
)

// FuzzParseEntry: a value is a record only if it is the one that encode would write, to the last bit.
func FuzzParseEntry(f *testing.F) {
	for i, events := range close25(1) {
		payload, err := ledger.EncodeEvent(events[0])
		if err != nil {
			f.Fatal(err)
		}
		e := entry{uint64(i + 1), began.Add(time.Duration(i) * time.Millisecond), events[0].Kind(), ledger.PayloadVersion, digest{byte(i)}, payload}
		f.Add(seqKey(e.seq), e.encode(), false)
		f.Add(seqKey(e.seq+1), e.encode(), true)
	}
	f.Add(seqKey(1), bytes.Repeat([]byte{0xff}, entryFixed+crcSize), true)
	f.Add([]byte{}, []byte{}, true)
	f.Fuzz(func(t *testing.T, key, value []byte, mend bool) {
		if n := len(value) - crcSize; mend && n >= 0 { // A right checksum lets what is behind it be seen.
			value = binary.BigEndian.AppendUint32(bytes.Clone(value[:n]), checksum(key, value[:n]))
		}
		e, err := parseEntry(key, value)
		if err != nil {
			return
		}
		if again := e.encode(); !bytes.Equal(again, value) || !bytes.Equal(seqKey(e.seq), key) {
			t.Fatalf("%x is read as %+v, which is written as %x", value, e, again)
		}
		record, err := e.record()
		if err != nil {
			return
		}
		if record.Seq != e.seq || !record.At.Equal(e.at) || record.Event.Kind() != e.kind {
			t.Errorf("%+v is the record %+v", e, record)
		}
	})
}
