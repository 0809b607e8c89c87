package store

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The file format of bbolt, as far as its page numbers and offsets go.
const (
	boltMagic, boltVersion                           = 0xED0CDAED, 2
	pageBranch, pageLeaf, pageMeta, pageFreelist     = 0x01, 0x02, 0x04, 0x10
	pageHeader, pageElement, bucketHeader, metaSumAt = 16, 16, 16, 56
	countInFirst                                     = 0xFFFF // a freelist this long counts in its first id
	depthMax                                         = 64
)

// pages follows every page number of a file, before bbolt does. Afterwards no walk
// can leave the file, leave a page, or go round in a circle; whether what is
// there is right is Verify's question.
type pages struct {
	file io.ReaderAt
	end  uint64 // pages in use
	seen []bool
}

var native = binary.NativeEndian

// checkPages is a DamagedError where a file was cut, is no ledger, or has a page that leads astray.
func checkPages(f *os.File, path string) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at ledger: %w", err)
	}
	if err := walkPages(f, info.Size()); err != nil {
		return &DamagedError{Path: path, What: err.Error()}
	}
	return nil
}

func walkPages(f io.ReaderAt, size int64) error {
	var root, freelist, txid uint64
	p := pages{file: f}
	var why error
	for id := range int64(2) {
		b := make([]byte, pageBytes)
		if _, err := f.ReadAt(b, id*pageBytes); err != nil {
			why = fmt.Errorf("it has %d bytes, too few for meta page %d", size, id)
			continue
		}
		if err := checkMeta(b); err != nil {
			why = fmt.Errorf("meta page %d: %w", id, err)
			continue
		}
		if is, flags := native.Uint64(b), native.Uint16(b[8:]); is != uint64(id) || flags != pageMeta {
			return fmt.Errorf("the header of meta page %d says page %d of kind %#x", id, is, flags)
		}
		m := b[pageHeader:]
		if tx := native.Uint64(m[48:]); p.end == 0 || tx > txid {
			root, freelist, p.end, txid = native.Uint64(m[16:]), native.Uint64(m[32:]), native.Uint64(m[40:]), tx
		}
	}
	if p.end == 0 {
		return why
	}
	if p.end > uint64(size)/pageBytes {
		return fmt.Errorf("it has %d bytes and should have at least %d pages of %d", size, p.end, pageBytes)
	}
	p.seen = make([]bool, p.end)
	if err := p.freelist(freelist); err != nil {
		return err
	}
	return p.tree(root, 0)
}

// checkMeta accepts a page with one of the two metas; a torn one is no damage while the other is whole.
func checkMeta(b []byte) error {
	m := b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(m[:metaSumAt])
	switch {
	case native.Uint32(m) != boltMagic:
		return fmt.Errorf("it begins with %08x, so this is not a bbolt file", native.Uint32(m))
	case native.Uint32(m[4:]) != boltVersion:
		return fmt.Errorf("its format is version %d, not %d", native.Uint32(m[4:]), boltVersion)
	case native.Uint64(m[metaSumAt:]) != sum.Sum64():
		return fmt.Errorf("its checksum is wrong")
	case native.Uint32(m[8:]) != pageBytes:
		return fmt.Errorf("its pages have %d bytes, not %d", native.Uint32(m[8:]), pageBytes)
	}
	return nil
}

// read returns a page with its overflow, once.
func (p *pages) read(id uint64) ([]byte, error) {
	head := make([]byte, pageHeader)
	if id < 2 || id >= p.end {
		return nil, fmt.Errorf("page %d is not one of %d", id, p.end)
	}
	if _, err := p.file.ReadAt(head, int64(id)*pageBytes); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	n := uint64(native.Uint32(head[12:])) + 1
	if own := native.Uint64(head); own != id || id+n > p.end {
		return nil, fmt.Errorf("page %d calls itself %d and takes %d of %d pages", id, own, n, p.end)
	}
	for i := range n {
		if p.seen[id+i] {
			return nil, fmt.Errorf("page %d is used twice", id+i)
		}
		p.seen[id+i] = true
	}
	b := make([]byte, n*pageBytes)
	if _, err := p.file.ReadAt(b, int64(id)*pageBytes); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return b, nil
}

func (p *pages) freelist(id uint64) error {
	b, err := p.read(id)
	if err != nil {
		return fmt.Errorf("freelist: %w", err)
	}
	if flags := native.Uint16(b[8:]); flags != pageFreelist {
		return fmt.Errorf("freelist: page %d has flags %#x", id, flags)
	}
	ids, n := b[pageHeader:], uint64(native.Uint16(b[10:]))
	if n == countInFirst {
		n, ids = native.Uint64(ids), ids[8:]
	}
	if n > uint64(len(ids))/8 {
		return fmt.Errorf("freelist: %d ids do not fit page %d", n, id)
	}
	for last := uint64(1); n > 0; n, ids = n-1, ids[8:] {
		free := native.Uint64(ids)
		if free <= last || free >= p.end {
			return fmt.Errorf("freelist: %d follows %d of %d pages", free, last, p.end)
		}
		last = free
	}
	return nil
}

// tree walks a page of a bucket and all below it.
func (p *pages) tree(id uint64, depth int) error {
	b, err := p.read(id)
	if err != nil {
		return err
	}
	flags, n := native.Uint16(b[8:]), int(native.Uint16(b[10:]))
	if flags == pageLeaf {
		return p.leaf(b, id, depth)
	}
	if flags != pageBranch || n == 0 || depth > depthMax || pageHeader+n*pageElement > len(b) {
		return fmt.Errorf("page %d has flags %#x, %d elements and depth %d", id, flags, n, depth)
	}
	for at := pageHeader; at < pageHeader+n*pageElement; at += pageElement {
		from, key := uint64(at)+uint64(native.Uint32(b[at:])), uint64(native.Uint32(b[at+4:]))
		if from+key > uint64(len(b)) {
			return fmt.Errorf("page %d has a key beyond its end", id)
		}
		if err := p.tree(native.Uint64(b[at+8:]), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// leaf walks the elements of a leaf page, or of a small bucket that lies inside one.
func (p *pages) leaf(b []byte, id uint64, depth int) error {
	if len(b) < pageHeader {
		return fmt.Errorf("page %d holds a bucket of %d bytes", id, len(b))
	}
	flags, n := native.Uint16(b[8:]), int(native.Uint16(b[10:]))
	if flags != pageLeaf || depth > depthMax || pageHeader+n*pageElement > len(b) {
		return fmt.Errorf("page %d has flags %#x, %d elements and depth %d", id, flags, n, depth)
	}
	for at := pageHeader; at < pageHeader+n*pageElement; at += pageElement {
		from := uint64(at) + uint64(native.Uint32(b[at+4:])) + uint64(native.Uint32(b[at+8:]))
		to := from + uint64(native.Uint32(b[at+12:]))
		if to > uint64(len(b)) {
			return fmt.Errorf("page %d has a value beyond its end", id)
		}
		if native.Uint32(b[at:])&pageBranch == 0 {
			continue
		}
		if to-from < bucketHeader {
			return fmt.Errorf("page %d holds a bucket of %d bytes", id, to-from)
		}
		var err error
		if root := native.Uint64(b[from:]); root != 0 {
			err = p.tree(root, depth+1)
		} else {
			err = p.leaf(b[from+bucketHeader:to], id, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
