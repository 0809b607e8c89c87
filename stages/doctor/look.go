package doctor

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"permitchain/ledger/store"
)

const (
	flushes   = 16
	flushSize = 4096 // as much as the ledger writes at least
)

// LookAtHost asks the kernel whether it keeps the clock right.
func LookAtHost() Host {
	state, err := unix.Adjtimex(&unix.Timex{}) // No mode is set: it only reads.
	return Host{ClockSynchronised: state != unix.TIME_ERROR, ClockErr: err}
}

// LookAtDisk tries whether the folder, or where it will be made, can be written to, and how fast that becomes durable.
func LookAtDisk(dir string) Disk {
	d := Disk{Dir: dir}
	at, err := filepath.Abs(dir)
	for err == nil {
		var info fs.FileInfo
		if info, err = os.Stat(at); errors.Is(err, fs.ErrNotExist) {
			d.Missing, at, err = true, filepath.Dir(at), nil
			continue
		}
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a folder", at)
		}
		break
	}
	if d.WriteErr = err; err != nil {
		return d
	}
	var stat unix.Statfs_t
	if d.WriteErr = unix.Statfs(at, &stat); d.WriteErr != nil {
		return d
	}
	d.Free = stat.Bavail * uint64(stat.Bsize)
	d.Flushes, d.WriteErr = flush(at)
	return d
}

// flush measures how long a page takes to be durable, in a file that it removes.
func flush(dir string) (took []time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	page := make([]byte, flushSize)
	for range flushes {
		_, _ = rand.Read(page) // It never fails.
		begun := time.Now()
		if _, err = f.Write(page); err == nil {
			err = f.Sync()
		}
		if err != nil {
			return nil, err
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	return took, nil
}

// LookAtLedger verifies the file of a chain that doesn't run. What is said of another account's ledger is its error.
func LookAtLedger(path string, o store.Options) Ledger {
	l := Ledger{Path: path}
	reader, err := store.OpenReader(path, o)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.None = true
		return l
	case errors.Is(err, store.ErrLocked):
		l.Running = true
		return l
	case err != nil:
		l.Err = err
		return l
	}
	if l.Err = reader.Close(); l.Err != nil {
		return l
	}
	report, err := store.Verify(path)
	l.Records, l.Err = report.Records, err
	return l
}

// LookAtAPI tries the address on which the API would listen; nothing is accepted on it.
func LookAtAPI(listen, tokenFile string, running bool) API {
	a := API{Listen: listen}
	if listen == "" || running {
		return a
	}
	l, err := net.Listen("tcp", listen)
	if err == nil {
		err = l.Close()
	}
	if tokenFile != "" {
		_, readable := os.ReadFile(tokenFile)
		err = errors.Join(err, readable)
	}
	a.Err = err
	return a
}
