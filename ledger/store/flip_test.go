package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	bolt "go.etcd.io/bbolt"

	"permitchain/ledger"
)

// spot is a key or a value where it lies in the file.
type spot struct {
	bucket string
	name   string // of the entry, as an error names it
	what   string // key or value
	at     int
	size   int
}

// spots are all keys and values that a ledger's file holds. What else it has is bbolt's: page headers, whose damage is
// found by other means, copies that earlier transactions left, and bytes that nothing uses.
func spots(t testing.TB, path string) (found []spot) {
	t.Helper()
	db, err := openBolt(path, true)
	if err != nil {
		t.Fatal(err)
	}
	base, data := db.Info().Data, read(t, path)
	err = db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(bucket []byte, b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				name := string(k)
				if bytes.Equal(bucket, journalBucket) {
					name = fmt.Sprintf("record %d", binary.BigEndian.Uint64(k))
				}
				at := int(uintptr(unsafe.Pointer(&k[0])) - base)
				if at < 0 || at >= len(data) { // A small bucket lies within its parent's page, and bbolt reads a copy of it.
					at = live(t, path, data, bucket, k, v)
				}
				found = append(found, spot{string(bucket), name, "key", at, len(k)}, spot{string(bucket), name, "value", at + len(k), len(v)})
				return nil
			})
		})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return found
}

// live finds the place of an entry that is read from there: elsewhere lie copies that earlier transactions left.
func live(t testing.TB, path string, data, bucket, k, v []byte) int {
	t.Helper()
	entry, copied := slices.Concat(k, v), path+".copy"
	defer os.Remove(copied)
	for at := 0; ; at++ {
		i := bytes.Index(data[at:], entry)
		if i < 0 {
			t.Fatalf("%s %q is not in the file", bucket, k)
		}
		at += i
		data[at+len(k)] ^= 1
		replace(t, copied, data)
		data[at+len(k)] ^= 1
		same := true
		db, err := openBolt(copied, true)
		if err == nil {
			err = errors.Join(db.View(func(tx *bolt.Tx) error {
				same = bytes.Equal(tx.Bucket(bucket).Get(k), v)
				return nil
			}), db.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		if !same {
			return at
		}
	}
}

// flip changes one byte of a file, has it verified, and changes it back.
func flip(t testing.TB, f *os.File, at int, mask byte) error {
	t.Helper()
	b := []byte{0}
	_, read := f.ReadAt(b, int64(at))
	_, wrote := f.WriteAt([]byte{b[0] ^ mask}, int64(at))
	_, err := Verify(f.Name())
	_, back := f.WriteAt(b, int64(at))
	if bad := errors.Join(read, wrote, back); bad != nil {
		t.Fatal(bad)
	}
	return err
}

// flips flips bytes of everything a ledger holds: each byte, or some of each place where some is above 0.
func flips(t *testing.T, path string, some int) {
	all := spots(t, path)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	random, n, wrong := rand.New(rand.NewPCG(8, 9)), 0, 0
	for _, s := range all {
		places := make([]int, s.size)
		for i := range places {
			places[i] = i
		}
		if some > 0 && s.size > some {
			random.Shuffle(len(places), func(i, j int) { places[i], places[j] = places[j], places[i] })
			places = places[:some]
		}
		for _, i := range places {
			mask := byte(1 + random.IntN(255))
			err := flip(t, f, s.at+i, mask)
			n++
			var damage *DamagedError
			named := errors.As(err, &damage) && damage.Path == path && damage.Bucket == s.bucket && damage.Key == s.name
			if s.what == "key" && s.bucket != "journal" { // An entry under another name: one is missing, or one too many, or out of order.
				named = errors.As(err, &damage) && damage.Bucket == s.bucket
			}
			if !named {
				if wrong++; wrong < 20 {
					t.Errorf("byte %d of the %s of %s %s flipped by %#x: %v", i, s.what, s.bucket, s.name, mask, err)
				}
			}
		}
	}
	if report, err := Verify(path); err != nil || report.Records < 8 {
		t.Errorf("with every byte back in its place: %+v, %v", report, err)
	}
	t.Logf("%d bytes of %d keys and values flipped, %d not named", n, len(all), wrong)
}

// Every byte of every record of a journal, and of every derived entry, is found when it changes, by the name of its entry.
func TestEveryByteIsFound(t *testing.T) {
	for _, clean := range []bool{false, true} {
		t.Run(fmt.Sprintf("clean_%v", clean), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			fill(t, path, 1, clean)
			flips(t, path, map[bool]int{true: 8}[clean]) // The same records, and a mark: some bytes of each will do.
		})
	}
}

// The same of a ledger of many pages, at some bytes of each.
func TestSomeBytesOfManyAreFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	fill(t, path, 24, false)
	flips(t, path, 2)
	if kinds := slices.Collect(func(yield func(string) bool) {
		for _, s := range spots(t, path) {
			if !yield(s.bucket) {
				return
			}
		}
	}); !slices.Contains(kinds, string(ledger.UsageRef)) || !slices.Contains(kinds, string(ledger.IntentRef)) {
		t.Errorf("only %v", slices.Compact(kinds))
	}
}
