package paper

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
)

// written is a book of a few orders, and what the account was before the last.
func written(t *testing.T) (text []byte, before, after account) {
	t.Helper()
	path := bookPath(t)
	p := mustOpen(t, path, options())
	p.Place(t.Context(), closing(p, "pc-1", "0.001"))
	p.Place(t.Context(), closing(p, "pc-2", "0.002"))
	before = accountOf(t, p)
	p.Place(t.Context(), closing(p, "pc-3", "0.003"))
	after = accountOf(t, p)
	p.Close()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text, before, after
}

func reopen(t *testing.T, text []byte) (*Paper, string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "book.jsonl")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Open(path, options())
	return p, path, err
}

// A crash in the middle of a write leaves any part of the last line. All before it is intact, and the book goes on.
func TestTornLastLineAtEveryByte(t *testing.T) {
	text, before, after := written(t)
	last := bytes.LastIndexByte(text[:len(text)-1], '\n') + 1
	for n := last; n < len(text); n++ {
		// The rest of the line is not there, or, after a power cut, reads as zeros with the line's end behind them.
		for _, tail := range [][]byte{nil, append(make([]byte, len(text)-n), '\n')} {
			p, path, err := reopen(t, append(bytes.Clone(text[:n]), tail...))
			if err != nil {
				t.Fatalf("cut at byte %d: %v", n, err)
			}
			if got := accountOf(t, p); got.String() != before.String() {
				t.Fatalf("cut at byte %d:\n%s\nwant\n%s", n, got, before)
			}
			if n%16 != 0 { // Writing on is tried now and then, because it waits for the disk.
				p.Close()
				continue
			}
			if a := p.Place(t.Context(), closing(p, "pc-4", "0.003")); a.Outcome != exchange.Placed {
				t.Fatalf("cut at byte %d: %+v", n, a)
			}
			want := accountOf(t, p)
			p.Close()
			again := mustOpen(t, path, options())
			if got := accountOf(t, again); got.String() != want.String() {
				t.Fatalf("cut at byte %d and written on:\n%s\nwant\n%s", n, got, want)
			}
			again.Close()
		}
	}
	p, _, err := reopen(t, text)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got := accountOf(t, p); got.String() != after.String() {
		t.Errorf("the whole book:\n%s\nwant\n%s", got, after)
	}
}

func TestDamageIsNamed(t *testing.T) {
	text, _, _ := written(t)
	lines := strings.SplitAfter(string(text), "\n")
	join := func(l ...string) []byte { return []byte(strings.Join(l, "")) }
	for _, c := range []struct {
		name string
		text []byte
		line string
	}{
		{"nothing in the file", nil, "line 1"},
		{"a torn first line", []byte(lines[0][:30]), "line 1"},
		{"a changed digit", join(lines[0], strings.Replace(lines[1], `"qty":"0.001"`, `"qty":"0.009"`, 1), lines[2], lines[3]), "line 2"},
		{"a changed last line", join(lines[0], lines[1], lines[2], strings.Replace(lines[3], `"qty":"0.003"`, `"qty":"0.009"`, 1)), "line 4"},
		{"a missing line", join(lines[0], lines[2], lines[3]), "line 2"},
		{"a line twice", join(lines[0], lines[1], lines[1]), "line 3"},
		{"half a line in the middle", join(lines[0], lines[1][:40]+"\n", lines[2]), "line 2"},
		{"no opening", join(strings.Replace(lines[1], `"n":2`, `"n":1`, 1)), "line 1"},
		{"an opening twice", join(lines[0], lines[0]), "line 2"},
		{"another kind of file", []byte("permitchain\n"), "line 1"},
		{"zeros in the middle", join(lines[0], lines[1][:40]+"\x00\x00"+lines[1][42:], lines[2]), "line 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, path, err := reopen(t, c.text)
			if err == nil {
				p.Close()
				t.Fatal("the book was opened")
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path+" "+c.line+":") {
				t.Errorf("%v does not name %s %s", err, path, c.line)
			}
			if left, _ := os.ReadFile(path); !bytes.Equal(left, c.text) {
				t.Error("the damaged book was changed")
			}
		})
	}
}

// A whole line that was never true of the account is damage too, whatever its checksum.
func TestImpossibleLineIsDamage(t *testing.T) {
	text, _, _ := written(t)
	var e entry
	path := bookPath(t)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := openBook(path, bookLimit, func(x entry) error { e = x; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := b.append(e); err != nil { // the last order again
		t.Fatal(err)
	}
	b.close()
	if _, err := Open(path, options()); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "line 5:") {
		t.Errorf("the same trades twice: %v", err)
	}
}

// A book over its limit is written anew when it is opened; what ended long ago is forgotten, and nothing else.
func TestCompaction(t *testing.T) {
	path := bookPath(t)
	clock := time.Date(2026, 1, 25, 0, 0, 0, 0, time.UTC)
	o := options()
	o.Now = func() time.Time { return clock }
	reopened := func(limit int64) *Paper {
		p, err := open(path, o, limit)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	}
	buy := func(p *Paper, times int) {
		for range times {
			if err := p.Trade(t.Context(), "BTCUSDT", ledger.Both, ledger.MustQty("1")); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := reopened(bookLimit)
	buy(p, 40)
	stop := closing(p, "pc-1-s1-1", "1")
	stop.Trigger = ledger.MustPrice("1000")
	if a := p.Place(t.Context(), stop); a.Outcome != exchange.Placed {
		t.Fatalf("stop %+v", a)
	}
	before := accountOf(t, p)
	p.Close()

	p = reopened(1000)
	if got := accountOf(t, p); got.String() != before.String() {
		t.Errorf("written anew:\n%s\nwant\n%s", got, before)
	}
	p.Close()
	if n := linesOf(t, path); n != 1 {
		t.Errorf("the book has %d lines, want 1", n)
	}

	clock = clock.Add(retention + time.Hour)
	p = reopened(bookLimit)
	buy(p, 100) // The book is now more than twice its opening.
	p.Close()
	reopened(1000).Close()
	p = reopened(bookLimit)
	got := accountOf(t, p)
	if n := linesOf(t, path); n != 1 || got.Holdings[0].Amount.String() != "140.046" || len(got.Trades) < 100 || got.Trades[0].ID <= before.Last {
		t.Errorf("much later %v is held in %d lines, and %d trades begin with %+v", got.Holdings, n, len(got.Trades), got.Trades[0])
	}
	if s, err := p.Find(t.Context(), btc, "pc-1-s1-1"); err != nil || s.Status != "NEW" {
		t.Errorf("the standing stop: %+v %v", s, err)
	}
}

// A process that never restarts does not fill the disk either.
func TestCompactionWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := bookPath(t)
		p, err := open(path, options(), 1000)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			if err := p.Trade(t.Context(), "BTCUSDT", ledger.Both, ledger.MustQty("1")); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(time.Second)
		synctest.Wait()
		if n := linesOf(t, path); n != 1 {
			t.Errorf("the book has %d lines, want 1", n)
		}
		p.Place(t.Context(), closing(p, "pc-1", "1"))
		want := accountOf(t, p)
		p.Close()
		if got := accountOf(t, mustOpen(t, path, options())); got.String() != want.String() {
			t.Errorf("after a restart\n%s\nwant\n%s", got, want)
		}
	})
}

func linesOf(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(text, []byte("\n"))
}
