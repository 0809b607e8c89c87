package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"permitchain/ledger"
)

// schema is the version of the file's layout; a newer one is refused.
const schema = 1

// The buckets. Those of derived things are named after their ledger.RefKind.
var (
	metaBucket    = []byte("meta")
	journalBucket = []byte("journal")
)

// The keys of meta.
var (
	identityKey = []byte("identity")
	headKey     = []byte("head")
	cleanKey    = []byte("clean")
)

// controlName is the key of the one entry in the control bucket; bbolt has no empty keys.
const controlName = "control"

// digest is a SHA-256; in JSON it is hexadecimal.
type digest [sha256.Size]byte

func (d digest) String() string               { return hex.EncodeToString(d[:]) }
func (d digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d *digest) UnmarshalText(text []byte) error {
	if hex.DecodedLen(len(text)) != len(d) {
		return fmt.Errorf("hash %q is not %d hex digits", text, hex.EncodedLen(len(d)))
	}
	_, err := hex.Decode(d[:], text)
	return err
}

// entry is one journal record as it is stored under its sequence:
//
//	prev 32 | at, ns 8 | version 2 | length of kind 1 | kind | payload | CRC32-C of key and all before 4
//
// The chain hash of a record is the SHA-256 of its whole value.
type entry struct {
	seq     uint64
	at      time.Time
	kind    ledger.Kind
	version int
	prev    digest
	payload []byte
}

const (
	entryFixed = sha256.Size + 8 + 2 + 1
	crcSize    = 4
)

func (e *entry) encode() []byte {
	b := make([]byte, 0, entryFixed+len(e.kind)+len(e.payload)+crcSize)
	b = append(b, e.prev[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(e.at.UnixNano()))
	b = binary.BigEndian.AppendUint16(b, uint16(e.version))
	b = append(b, byte(len(e.kind)))
	b = append(b, e.kind...)
	b = append(b, e.payload...)
	return binary.BigEndian.AppendUint32(b, checksum(seqKey(e.seq), b))
}

// parseEntry reads what encode wrote; the payload is a copy, good beyond the transaction.
func parseEntry(key, value []byte) (entry, error) {
	var e entry
	if len(key) != 8 || len(value) < entryFixed+crcSize {
		return e, fmt.Errorf("a key of %d and a value of %d bytes are no record", len(key), len(value))
	}
	body := value[:len(value)-crcSize]
	want, have := binary.BigEndian.Uint32(value[len(body):]), checksum(key, body)
	if want != have {
		return e, fmt.Errorf("its checksum is %08x and should be %08x", have, want)
	}
	rest := body[copy(e.prev[:], body):]
	e.seq = binary.BigEndian.Uint64(key)
	e.at = time.Unix(0, int64(binary.BigEndian.Uint64(rest))).UTC()
	e.version = int(binary.BigEndian.Uint16(rest[8:]))
	n := int(rest[10])
	if len(rest) < 11+n {
		return e, fmt.Errorf("its kind has %d bytes and there are %d", n, len(rest)-11)
	}
	e.kind, e.payload = ledger.Kind(rest[11:11+n]), bytes.Clone(rest[11+n:])
	return e, nil
}

// record decodes the payload: the event shares no memory with the one it was made from.
func (e *entry) record() (ledger.Record, error) {
	event, err := ledger.DecodeEvent(e.kind, e.version, e.payload)
	return ledger.Record{Seq: e.seq, At: e.at, Event: event}, err
}

func checksum(parts ...[]byte) uint32 {
	var sum uint32
	for _, p := range parts {
		sum = crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), p)
	}
	return sum
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// identity says whose ledger a file is. The first record's prev is its SHA-256.
type identity struct {
	Schema    int         `json:"schema"`
	Mode      ledger.Mode `json:"mode"`
	Host      string      `json:"host"`
	Account   string      `json:"account"`
	CreatedAt time.Time   `json:"created_at"`
}

// mustBe refuses another's ledger. Who names no host or no account only reads, or stops what runs on this file,
// which must be possible without the key; who names no mode reads whatever it is.
func (i identity) mustBe(path string, o Options) error {
	switch {
	case o.Mode != "" && i.Mode != o.Mode:
		return fmt.Errorf("open ledger %s: %w: its mode is %s, not %s", path, ErrForeign, i.Mode, o.Mode)
	case o.Host != "" && i.Host != o.Host:
		return fmt.Errorf("open ledger %s: %w: its exchange is %q, not %q", path, ErrForeign, i.Host, o.Host)
	case o.Account != "" && i.Account != o.Account:
		return fmt.Errorf("open ledger %s: %w: its account ends in %q, not %q", path, ErrForeign, i.Account, o.Account)
	}
	return nil
}

// head is the end of the chain.
type head struct {
	Seq   uint64 `json:"seq"`
	Chain digest `json:"chain"`
}

// checkpoint is the mark of a clean end: what was in memory then, and its hash.
type checkpoint struct {
	head
	State digest          `json:"state"`
	Plans []ledger.PlanID `json:"plans"`
}

// meta is everything in the bucket of that name.
type meta struct {
	identity identity
	genesis  digest
	head     head
	clean    *checkpoint // nil after a crash, and while a process works on the file
}

// readMeta refuses a newer schema before it looks at anything that could differ in one.
func readMeta(tx *bolt.Tx) (meta, error) {
	var m meta
	path := tx.DB().Path()
	b := tx.Bucket(metaBucket)
	if b == nil {
		return m, fmt.Errorf("open ledger %s: %w: a bbolt file without the bucket meta", path, ErrForeign)
	}
	text, err := unseal(path, identityKey, b.Get(identityKey))
	if err != nil {
		return m, err
	}
	m.genesis = sha256.Sum256(text)
	if err := json.Unmarshal(text, &m.identity); err != nil {
		return m, &DamagedError{path, "meta", string(identityKey), err.Error()}
	}
	if m.identity.Schema != schema {
		return m, fmt.Errorf("open ledger %s: %w: its schema is %d, and this program knows %d",
			path, ErrForeign, m.identity.Schema, schema)
	}
	if err := checkBuckets(tx, b); err != nil {
		return m, err
	}
	if err := readSealed(path, b, headKey, &m.head); err != nil {
		return m, err
	}
	if b.Get(cleanKey) != nil {
		m.clean = new(checkpoint)
		return m, readSealed(path, b, cleanKey, m.clean)
	}
	return m, nil
}

// checkBuckets finds a bucket, or a key of meta, that is missing or that this schema does not have.
func checkBuckets(tx *bolt.Tx, metas *bolt.Bucket) error {
	want := bucketNames()
	for _, name := range want {
		if tx.Bucket([]byte(name)) == nil {
			return damaged(tx, name, "", "the bucket is missing")
		}
	}
	err := tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
		if !slices.Contains(want, string(name)) {
			return damaged(tx, string(name), "", "a ledger has no such bucket")
		}
		return nil
	})
	if err != nil {
		return err
	}
	return metas.ForEach(func(key, _ []byte) error {
		if !bytes.Equal(key, identityKey) && !bytes.Equal(key, headKey) && !bytes.Equal(key, cleanKey) {
			return damaged(tx, "meta", string(key), "a ledger has no such entry")
		}
		return nil
	})
}

func bucketNames() []string {
	names := []string{string(metaBucket), string(journalBucket)}
	for _, k := range ledger.RefKinds {
		names = append(names, string(k))
	}
	return names
}

// seal makes a value of meta: JSON and its checksum, for nothing in the journal vouches for these.
func seal(key []byte, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // Plain structs of this package always marshal.
	}
	return binary.BigEndian.AppendUint32(text, checksum(key, text))
}

func unseal(path string, key, value []byte) ([]byte, error) {
	n := len(value) - crcSize
	if n < 0 || binary.BigEndian.Uint32(value[n:]) != checksum(key, value[:n]) {
		return nil, &DamagedError{path, "meta", string(key), fmt.Sprintf("its %d bytes do not match their checksum", len(value))}
	}
	return bytes.Clone(value[:n]), nil
}

func readSealed(path string, b *bolt.Bucket, key []byte, v any) error {
	text, err := unseal(path, key, b.Get(key))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return &DamagedError{path, "meta", string(key), err.Error()}
	}
	return nil
}

func writeFresh(tx *bolt.Tx, o Options) error {
	for _, name := range bucketNames() {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	who := seal(identityKey, identity{schema, o.Mode, o.Host, o.Account, now().UTC()})
	start := head{Chain: sha256.Sum256(who[:len(who)-crcSize])}
	b := tx.Bucket(metaBucket)
	if err := b.Put(identityKey, who); err != nil {
		return err
	}
	if err := b.Put(headKey, seal(headKey, start)); err != nil {
		return err
	}
	return b.Put(cleanKey, seal(cleanKey, mark(ledger.NewState(), start)))
}
