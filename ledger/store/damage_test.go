package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"permitchain/ledger"
)

// tryOpen opens what may be damaged, and closes it again if it is not.
func tryOpen(t testing.TB, path string) error {
	t.Helper()
	s, err := Open(path, testOptions)
	if err != nil {
		return err
	}
	r := &running{Store: s}
	soft, ended := make(chan struct{}), make(chan error, 1)
	close(soft)
	go func() { ended <- r.Run(stopOn(soft)) }()
	return <-ended
}

// A file cut at any length is an error that names it, and never a crash.
func TestTruncatedFile(t *testing.T) {
	for _, clean := range []bool{true, false} {
		dir := t.TempDir()
		path, cut := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "cut.db")
		fill(t, path, 10, clean)
		data := read(t, path)
		used := used(t, path)
		lengths := []int{1, 15, 16, 80, 4095, 4096, 4097, 8191, 8192, 8193, 12288, used / 2, used - 4096, used - 1}
		for n := 16384; n < used; n += 4096 * 3 {
			lengths = append(lengths, n, n+17)
		}
		for _, n := range lengths {
			replace(t, cut, data[:n])
			for name, err := range map[string]error{"Open": tryOpen(t, cut), "Verify": second(Verify(cut)), "OpenReader": second(OpenReader(cut, testOptions))} {
				if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), cut) {
					t.Fatalf("%s of %d of %d bytes (clean %v): %v", name, n, len(data), clean, err)
				}
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

// used is how many bytes of a file its pages take.
func used(t testing.TB, path string) (n int) {
	t.Helper()
	db, err := openBolt(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.View(func(tx *bolt.Tx) error { n = int(tx.Size()); return nil }), db.Close()); err != nil {
		t.Fatal(err)
	}
	return n
}

// An empty file, and one of something else, are not made into a ledger.
func TestNotALedgerFile(t *testing.T) {
	for name, data := range map[string][]byte{
		"empty": {}, "text": bytes.Repeat([]byte("plan executed\n"), 5000), "zeros": make([]byte, 1<<16),
	} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		replace(t, path, data)
		if err := tryOpen(t, path); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(read(t, path), data) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

// One changed byte in any value of any bucket is found by Verify, by the name of its entry.
func TestEveryEditedValueIsFound(t *testing.T) {
	dir := t.TempDir()
	path, bad := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "bad.db")
	for _, clean := range []bool{true, false} {
		_ = os.Remove(path)
		fill(t, path, 3, clean)
		data := read(t, path)
		type place struct {
			bucket string
			key    []byte
			size   int
		}
		var places []place
		edit(t, path, func(tx *bolt.Tx) error {
			return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
				return b.ForEach(func(k, v []byte) error {
					places = append(places, place{string(name), bytes.Clone(k), len(v)})
					return nil
				})
			})
		})
		random := rand.New(rand.NewPCG(1, 2))
		for _, p := range places {
			for range 3 {
				at, bit := random.IntN(p.size), byte(1)<<random.IntN(8)
				replace(t, bad, data)
				edit(t, bad, func(tx *bolt.Tx) error {
					b := tx.Bucket([]byte(p.bucket))
					v := bytes.Clone(b.Get(p.key))
					v[at] ^= bit
					return b.Put(p.key, v)
				})
				_, err := Verify(bad)
				var damage *DamagedError
				if !errors.As(err, &damage) || damage.Path != bad {
					t.Fatalf("%s %q with bit %#x of byte %d flipped (clean %v): %v", p.bucket, p.key, bit, at, clean, err)
				}
				if p.bucket == "journal" && damage.Key != fmt.Sprintf("record %d", binary.BigEndian.Uint64(p.key)) || damage.Bucket != p.bucket {
					t.Errorf("%s %q is damaged and the error names %s %s", p.bucket, p.key, damage.Bucket, damage.Key)
				}
				// Open reads it all after an unclean end; after a clean one, what is live, and that is everything here but old records.
				err = tryOpen(t, bad)
				if old := clean && p.bucket == "journal"; !old && !errors.Is(err, ErrDamaged) {
					t.Errorf("%s %q (clean %v): Open says %v", p.bucket, p.key, clean, err)
				}
			}
		}
	}
}

// An entry that is gone, or one too many, is found as well.
func TestEntriesMissingOrTooMany(t *testing.T) {
	for _, bucket := range bucketNames() {
		path := filepath.Join(t.TempDir(), "ledger.db")
		fill(t, path, 3, false)
		data := read(t, path)
		for name, change := range map[string]func(tx *bolt.Tx) error{
			"missing": func(tx *bolt.Tx) error {
				c := tx.Bucket([]byte(bucket)).Cursor()
				c.First()
				return c.Delete()
			},
			"too many": func(tx *bolt.Tx) error {
				b := tx.Bucket([]byte(bucket))
				_, v := b.Cursor().First()
				return b.Put([]byte{0xff, 1, 2, 3, 4, 5, 6, 7}, bytes.Clone(v))
			},
			"the bucket": func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte(bucket)) },
			"a bucket":   func(tx *bolt.Tx) error { return second(tx.CreateBucket([]byte("extra"))) },
		} {
			replace(t, path, data)
			edit(t, path, change)
			_, err := Verify(path)
			foreign := bucket == "meta" && name == "the bucket"
			if !errors.Is(err, ErrDamaged) && !(foreign && errors.Is(err, ErrForeign)) {
				t.Errorf("%s in %s: %v", name, bucket, err)
			}
		}
	}
}

// A record replaced with all checksums made right again breaks the chain at its successor.
func TestForgedRecordBreaksTheChain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	fill(t, path, 3, false)
	edit(t, path, func(tx *bolt.Tx) error {
		b := tx.Bucket(journalBucket)
		e, err := parseEntry(seqKey(2), b.Get(seqKey(2)))
		if err != nil {
			return err
		}
		e.payload = bytes.Replace(e.payload, []byte(`"1000"`), []byte(`"1001"`), 1)
		return b.Put(seqKey(2), e.encode())
	})
	if _, err := Verify(path); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "record 3: it follows") {
		t.Errorf("%v", err)
	}
}

// Flipped bits anywhere in the pages, bbolt's own included, are an error or harmless, and never crash or hang.
func TestFlippedPagesNeverCrash(t *testing.T) {
	for _, clean := range []bool{true, false} {
		dir := t.TempDir()
		path, bad := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "bad.db")
		fill(t, path, 12, clean)
		want := fsck(t, path)
		data := read(t, path)[:used(t, path)]
		random := rand.New(rand.NewPCG(3, 4))
		harmless := 0
		const flips = 250
		for range flips {
			at := random.IntN(len(data))
			if random.IntN(2) == 0 { // Page headers and element headers are the dangerous part.
				at = at&^4095 + random.IntN(160)
			}
			at, bit := min(at, len(data)-1), byte(1)<<random.IntN(8)
			data[at] ^= bit
			replace(t, bad, data)
			data[at] ^= bit
			report, err := Verify(bad)
			switch {
			case err == nil && (report == want || at < 2*pageBytes && report.Records+5 >= want.Records):
				harmless++ // Unused bytes; or one meta page, which leaves the commit before.
			case err == nil:
				t.Fatalf("bit %#x of byte %d is flipped and Verify reports %+v, not %+v", bit, at, report, want)
			case !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign):
				t.Fatalf("bit %#x of byte %d: %v", bit, at, err)
			}
			if err := tryOpen(t, bad); err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) {
				t.Fatalf("bit %#x of byte %d: Open says %v", bit, at, err)
			}
		}
		t.Logf("clean %v: %d of %d flips were harmless", clean, harmless, flips)
	}
}

// A derived entry that nobody damaged but the journal does not lead to is a difference Verify names.
func TestDerivedDifferenceIsFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	fill(t, path, 1, false)
	edit(t, path, func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(ledger.PositionRef))
		v := bytes.Replace(b.Get([]byte(btc.String())), []byte(`"amount":"999.999"`), []byte(`"amount":"5"`), 1)
		return b.Put([]byte(btc.String()), v)
	})
	_, err := Verify(path)
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "positions BTCUSDT:BOTH") || !strings.Contains(err.Error(), "999.999") {
		t.Errorf("%v", err)
	}
}

// A page that leads back to itself is damage, not an endless walk.
func TestPagesInACircle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	fill(t, path, 12, true)
	data := read(t, path)
	circles := 0
	for at := 2 * pageBytes; at+pageBytes <= len(data); at += pageBytes {
		page := bytes.Clone(data[at : at+pageBytes])
		if id := native.Uint64(page); native.Uint16(page[8:]) != pageBranch || id != uint64(at/pageBytes) {
			continue
		}
		copy(data[at+pageHeader+8:], page[:8]) // Its first child is itself.
		replace(t, path, data)
		if err := tryOpen(t, path); errors.Is(err, ErrDamaged) && strings.Contains(err.Error(), "used twice") {
			circles++
		} else if err != nil {
			t.Errorf("page %d: %v", at/pageBytes, err)
		}
		copy(data[at:], page)
	}
	if circles == 0 {
		t.Error("no branch page is in use")
	}
}
