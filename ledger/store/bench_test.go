package store

import (
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"permitchain/ledger"
)

// BenchmarkAppend compares one decision made durable with a bare bbolt transaction of the same entries.
func BenchmarkAppend(b *testing.B) {
	decided := func(n int) []ledger.Event { return close25(n)[0] }
	b.Run("decide", func(b *testing.B) {
		r := start(b, filepath.Join(b.TempDir(), "ledger.db"), testOptions)
		n := 0
		for b.Loop() {
			n++
			r.must(b, decided(n)...)
		}
	})
	b.Run("decide-32", func(b *testing.B) {
		r := start(b, filepath.Join(b.TempDir(), "ledger.db"), testOptions)
		b.SetParallelism(16) // Times GOMAXPROCS.
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				r.must(b, &ledger.ConfigUsed{Digest: "x", Text: string(make([]byte, 60))})
			}
		})
	})
	b.Run("bare", func(b *testing.B) {
		s, err := Open(filepath.Join(b.TempDir(), "ledger.db"), testOptions)
		if err != nil {
			b.Fatal(err)
		}
		defer s.db.Close()
		n := 0
		for b.Loop() {
			b.StopTimer()
			n++
			batch, err := s.fold(decided(n), s.now())
			if err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			err = s.db.Update(func(tx *bolt.Tx) error {
				tx.Bucket(journalBucket).FillPercent = journalFill
				for _, p := range batch.puts {
					if err := tx.Bucket(p.bucket).Put(p.key, p.value); err != nil {
						return err
					}
				}
				return tx.Bucket(metaBucket).Put(headKey, seal(headKey, batch.head))
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkFold is the owner's part of a decision, without the disk.
func BenchmarkFold(b *testing.B) {
	s, err := Open(filepath.Join(b.TempDir(), "ledger.db"), testOptions)
	if err != nil {
		b.Fatal(err)
	}
	defer s.db.Close()
	n := 0
	for b.Loop() {
		n++
		if _, err := s.fold(close25(n)[0], time.Unix(1e9, 0)); err != nil {
			b.Fatal(err)
		}
	}
}
