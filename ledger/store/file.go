package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
)

// How bbolt is used; RELIABILITY §5.5 has the reasons.
const (
	lockWait    = 900 * time.Millisecond // a second process is told within a second
	lockRetry   = 50 * time.Millisecond
	mappedBytes = 256 << 20 // up to here no reader holds the writer up
	fileMax     = 8 << 30   // a limit on everything
	pageBytes   = 4096
	growBytes   = 1 << 20 // a young ledger is a small file; bbolt's own step is 16 MiB
	journalFill = 0.9     // sequences only grow, so pages need little room for more
)

// openBolt opens an existing file. Lock and page check come before bbolt touches
// it: bbolt maps the file and follows its page numbers, and a wrong one ends the process.
func openBolt(path string, readOnly bool) (*bolt.DB, error) {
	return boltOn(path, readOnly, func(f *os.File) error { return checkPages(f, path) })
}

// createBolt begins a new file that will be renamed to path.
func createBolt(path, fresh string) (*bolt.DB, error) {
	return boltOn(fresh, false, func(f *os.File) error {
		if _, err := os.Stat(path); err == nil {
			return fmt.Errorf("create ledger %s: %w", path, fs.ErrExist)
		}
		// Whoever held the lock may have renamed the file since: then it is not ours to empty.
		held, err := f.Stat()
		if err != nil {
			return err
		}
		if named, err := os.Stat(fresh); err != nil || !os.SameFile(held, named) {
			return fmt.Errorf("create ledger %s: %w", path, fs.ErrExist)
		}
		return f.Truncate(0)
	}, os.O_CREATE)
}

func boltOn(path string, readOnly bool, ready func(*os.File) error, flags ...int) (db *bolt.DB, err error) {
	var file *os.File
	open := func(name string, flag int, mode os.FileMode) (*os.File, error) {
		flag &^= os.O_CREATE
		for _, f := range flags {
			flag |= f
		}
		f, err := os.OpenFile(name, flag, mode)
		if err != nil {
			return nil, fmt.Errorf("open ledger: %w", err)
		}
		file = f
		if err := lock(f, readOnly); err != nil {
			return nil, err
		}
		return f, ready(f)
	}
	err = guard(path, func() error {
		db, err = bolt.Open(path, 0o600, &bolt.Options{
			Timeout: time.Second, FreelistType: bolt.FreelistMapType, InitialMmapSize: mappedBytes, MaxSize: fileMax,
			PageSize: pageBytes, ReadOnly: readOnly, PreLoadFreelist: true, OpenFile: open,
		})
		return err
	})
	if err != nil {
		if file != nil {
			_ = file.Close() // It may be closed already; what matters is that the lock is gone.
		}
		return nil, err
	}
	db.AllocSize = growBytes
	return db, nil
}

// lock takes the lock bbolt takes, on the same open file, a moment earlier.
func lock(f *os.File, shared bool) error {
	how := syscall.LOCK_EX | syscall.LOCK_NB
	if shared {
		how = syscall.LOCK_SH | syscall.LOCK_NB
	}
	for begun := time.Now(); ; time.Sleep(lockRetry) {
		err := syscall.Flock(int(f.Fd()), how)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return fmt.Errorf("lock ledger %s: %w", f.Name(), err)
		case time.Since(begun) > lockWait:
			return fmt.Errorf("open ledger %s: %w", f.Name(), ErrLocked)
		}
	}
}

// guard turns a panic over a damaged file, and an access beyond its end, into an error.
func guard(path string, fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &DamagedError{Path: path, What: fmt.Sprint(p)}
		}
	}()
	return fn()
}
