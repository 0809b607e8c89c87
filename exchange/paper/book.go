package paper

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"permitchain/exchange/synthetic"
	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// bookVersion is the version of the entries; a book of another one is refused.
const bookVersion = 1

// ErrDamaged tells that a book cannot be trusted. It is left as it was found.
var ErrDamaged = errors.New("the book is damaged: put a good copy in its place, or move it away to begin a new one")

var errNoBook = errors.New("there is no book")

// line is a line of the file. Lines are counted from 1, and Sum covers the number and
// the entry, so that a line that changed, or is missing, is noticed.
type line struct {
	N     int             `json:"n"`
	Sum   string          `json:"crc"`
	Entry json.RawMessage `json:"entry"`
}

// entry is one of its fields: a fact about the account, never luck.
type entry struct {
	Opening *opening         `json:"opening,omitempty"` // the first line, and no other
	Pace    *synthetic.Clock `json:"pace,omitempty"`
	Change  *venue.Change    `json:"change,omitempty"`
}

// opening is the account as it was when the book was begun or written anew.
type opening struct {
	Version int              `json:"version"`
	Seed    uint64           `json:"seed"`
	Targets []ledger.Holding `json:"targets,omitempty"` // what the trader wants
	Pace    synthetic.Clock  `json:"pace"`
	State   venue.State      `json:"state"`
}

// book is the open file, at its end.
type book struct {
	path  string
	file  *os.File
	lines int
	size  int64
	begun int64 // size of the opening
	limit int64
}

// openBook gives every entry of a book to fn and leaves it open for more. A last line
// that was being written when the process died is cut off: nobody was answered on it.
func openBook(path string, limit int64, fn func(entry) error) (*book, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNoBook
	}
	if err != nil {
		return nil, err
	}
	b := &book{path: path, file: f, limit: limit}
	if err := b.read(fn); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return b, nil
}

func (b *book) read(fn func(entry) error) error {
	r := bufio.NewReader(b.file)
	for {
		text, err := r.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return err
		}
		if err == nil {
			// A power cut can leave a line's end on the disk and not its middle, which then reads as zeros.
			_, last := r.Peek(1)
			if bytes.IndexByte(text, 0) >= 0 && last == io.EOF {
				err = io.EOF
			}
		}
		if err == io.EOF {
			return b.cut(len(text) > 0)
		}
		if err := b.readLine(text, fn); err != nil {
			return fmt.Errorf("%s line %d: %w: %w", b.path, b.lines+1, err, ErrDamaged)
		}
		b.grow(len(text))
	}
}

func (b *book) readLine(text []byte, fn func(entry) error) error {
	var l line
	if err := strict(text, &l); err != nil {
		return err
	}
	if l.N != b.lines+1 {
		return fmt.Errorf("it says that it is line %d", l.N)
	}
	if sum(l.N, l.Entry) != l.Sum {
		return errors.New("its checksum is wrong")
	}
	var e entry
	if err := strict(l.Entry, &e); err != nil {
		return err
	}
	if e.Opening != nil && e.Opening.Version != bookVersion {
		return fmt.Errorf("it has version %d, this program knows %d", e.Opening.Version, bookVersion)
	}
	return fn(e)
}

func (b *book) grow(n int) {
	b.lines++
	b.size += int64(n)
	if b.lines == 1 {
		b.begun = b.size
	}
}

// cut takes off what follows the last whole line.
func (b *book) cut(torn bool) error {
	if b.lines == 0 {
		return fmt.Errorf("%s line 1: it is not whole: %w", b.path, ErrDamaged)
	}
	if !torn {
		return nil
	}
	if err := b.file.Truncate(b.size); err != nil {
		return fmt.Errorf("cut the last line off: %w", err)
	}
	return b.file.Sync()
}

// append writes an entry and returns when it is on the disk.
func (b *book) append(e entry) error {
	text, err := encode(b.lines+1, e)
	if err != nil {
		return err
	}
	if _, err := b.file.Write(text); err != nil {
		return err
	}
	if err := b.file.Sync(); err != nil {
		return err
	}
	b.grow(len(text))
	return nil
}

// long tells whether the book should be written anew: it is over the limit, and at
// least half of it is not its opening.
func (b *book) long() bool { return b.size > b.limit && b.size > 2*b.begun }

func (b *book) close() error { return b.file.Close() }

// createBook puts a new book in path's place: whole, or not at all.
func createBook(path string, limit int64, o opening) (*book, error) {
	text, err := encode(1, entry{Opening: &o})
	if err != nil {
		return nil, err
	}
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	b := &book{path: path, file: f, limit: limit}
	b.grow(len(text))
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(next, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return b, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func encode(n int, e entry) ([]byte, error) {
	payload, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(line{n, sum(n, payload), payload})
	return append(text, '\n'), err
}

func sum(n int, payload []byte) string {
	table := crc32.MakeTable(crc32.Castagnoli)
	return fmt.Sprintf("%08x", crc32.Update(crc32.Checksum(fmt.Appendf(nil, "%d:", n), table), table, payload))
}

// strict decodes one JSON value, all of whose fields are known.
func strict(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return errors.New("more than one value")
	}
	return nil
}
