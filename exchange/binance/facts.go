package binance

import (
	"maps"
	"sync"
	"time"
)

// StreamFacts are what is known about the streams themselves, for people.
type StreamFacts struct {
	Market, User SocketFacts
	Events       map[string]int64 // by type
	Unknown      map[string]int64 // of types nobody knows, by type; of them only so many are told apart
	Malformed    int64            // messages that were not what their type promises
	Repeated     int64            // said before, or overtaken
	Silences     int64            // times that REST knew of a trade the account stream had not told
}

// SocketFacts are about one of the two streams.
type SocketFacts struct {
	Connected bool
	Since     time.Time // of the newest connection
	LastEvent time.Time
	Connects  int64
	Losses    int64 // connections that ended without being replaced first
	Rollovers int64 // connections replaced, the new one first
	LastError string
}

// facts are StreamFacts with a lock, which is held for an assignment only.
type facts struct {
	mu    sync.Mutex
	open  map[string]int // connections of a stream; two while one replaces the other
	value StreamFacts
}

const (
	marketLine  = "market"
	userLine    = "account"
	typesKept   = 32
	otherTypes  = "others"
	messageKept = 512 // bytes of a message that are logged
)

func newFacts() *facts {
	return &facts{open: map[string]int{}, value: StreamFacts{Events: map[string]int64{}, Unknown: map[string]int64{}}}
}

// read is a copy.
func (f *facts) read() StreamFacts {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.value
	v.Events, v.Unknown = maps.Clone(v.Events), maps.Clone(v.Unknown)
	return v
}

func (f *facts) change(fn func(*StreamFacts)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn(&f.value)
}

func (f *facts) socket(name string, fn func(*SocketFacts)) {
	f.change(func(v *StreamFacts) {
		if name == marketLine {
			fn(&v.Market)
		} else {
			fn(&v.User)
		}
	})
}

func (f *facts) up(name string) {
	f.socket(name, func(s *SocketFacts) {
		f.open[name]++
		s.Connected, s.Since = true, time.Now()
		s.Connects++
	})
}

func (f *facts) down(name string) {
	f.socket(name, func(s *SocketFacts) {
		f.open[name]--
		s.Connected = f.open[name] > 0
	})
}

func (f *facts) lost(name string)   { f.socket(name, func(s *SocketFacts) { s.Losses++ }) }
func (f *facts) rolled(name string) { f.socket(name, func(s *SocketFacts) { s.Rollovers++ }) }

func (f *facts) failed(name string, err error) {
	f.socket(name, func(s *SocketFacts) { s.LastError = clip(err.Error()) })
}

func (f *facts) event(name, kind string) {
	f.change(func(v *StreamFacts) { v.Events[kind]++ })
	f.socket(name, func(s *SocketFacts) { s.LastEvent = time.Now() })
}

// unknown counts a type nobody knows, and tells whether it is the first of it.
func (f *facts) unknown(kind string) (first bool) {
	f.change(func(v *StreamFacts) {
		kind = clip(kind)
		if _, known := v.Unknown[kind]; !known && len(v.Unknown) >= typesKept {
			kind = otherTypes
		}
		v.Unknown[kind]++
		first = v.Unknown[kind] == 1
	})
	return first
}
