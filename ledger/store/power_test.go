package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"

	"permitchain/ledger"
)

// Power loss. A kill leaves the page cache as it is, so what a power cut leaves is made here: images of the file, from
// the sectors that each commit has changed. bbolt writes data pages, syncs, writes a meta page, syncs; a commit on an
// honest disk is therefore cut in two ways, and a disk that lies about its syncs may lose any sector.

const (
	sector = 512
	// imagesOfLane are made of one ledger, whose commits no other lane's are like.
	imagesOfLane = 500
	// lostOfLane are made of the same ledger, by a disk that lies.
	lostOfLane = 50
	imagesEnv  = "IMAGES" // how many images, instead of imagesDefault
	apartEnv   = "VERIFY_APART"
)

const imagesDefault = 2000

func TestPowerLossImages(t *testing.T) {
	n := imagesDefault
	if text := os.Getenv(imagesEnv); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	sum := &tally{fates: map[string]int{}}
	t.Run("lanes", func(t *testing.T) {
		for seed := range uint64(max(1, n/imagesOfLane)) {
			t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
				t.Parallel()
				sum.add(powerLane(t, seed))
			})
		}
	})
	t.Logf("figure power_images %d", sum.images)
	t.Logf("figure power_images_before %d", sum.older)
	t.Logf("figure power_images_after %d", sum.images-sum.older)
	t.Logf("figure power_images_bad %d", sum.bad)
	t.Logf("figure lying_images %d", sum.lying())
	for _, found := range fates {
		t.Logf("figure lying_images_%s %d", found, sum.fates[found])
	}
	if sum.older == 0 || sum.older == sum.images || sum.fates[detected] == 0 || sum.fates[harmless] == 0 {
		t.Error("the images do not reach both sides of a commit, or a lost sector was never found, or never harmless")
	}
	if sum.fates[silent] > 0 || sum.fates[died] > 0 {
		t.Error("a disk that lies was believed, or has ended the process that looked")
	}
}

// What became of an image from a disk that lies.
const (
	detected = "detected" // an error says what is wrong
	harmless = "harmless" // it reads as if nothing were lost
	silent   = "silent"   // it reads as something else, and nobody says so
	died     = "died"     // the process that looked at it did not live to tell
)

var fates = []string{detected, harmless, silent, died}

type tally struct {
	sync.Mutex
	images, older, bad int
	fates              map[string]int
}

func (s *tally) lying() (n int) {
	for _, m := range s.fates {
		n += m
	}
	return n
}

func (s *tally) add(o *tally) {
	s.Lock()
	defer s.Unlock()
	s.images, s.older, s.bad = s.images+o.images, s.older+o.older, s.bad+o.bad
	for fate, n := range o.fates {
		s.fates[fate] += n
	}
}

// side is a file beside a commit, and what it must read as.
type side struct {
	data    []byte
	head    head
	content string // of all buckets
}

// powerLane makes a ledger, and cuts every commit of it.
func powerLane(t *testing.T, seed uint64) *tally {
	dir := t.TempDir()
	path, image := filepath.Join(dir, "ledger.db"), filepath.Join(dir, "image.db")
	random := rand.New(rand.NewPCG(5, seed))
	r := start(t, path, testOptions)
	r.must(t, opened())
	apart := startApart(t)
	own := &tally{fates: map[string]int{}}
	stale := map[int][]byte{} // what each sector held before it was last written
	commits := laneCommits(random)
	now := look(t, path)
	for i, events := range commits {
		before := now
		r.must(t, events...)
		now = look(t, path)
		shared(imagesOfLane, len(commits), i, func() { own.cut(t, random, image, before, now) })
		changed := remember(stale, before.data, now.data)
		shared(lostOfLane, len(commits), i, func() { own.lose(t, random, apart, image, now, changed, stale) })
	}
	if err := r.end(); err != nil {
		t.Error(err)
	}
	apart.end()
	return own
}

// laneCommits are the commits of a lane: plans that close, their decisions alone or several in one transaction, as a
// group commit has them, and now and then a value of many pages.
func laneCommits(random *rand.Rand) (commits [][]ledger.Event) {
	for i := range 12 {
		var group []ledger.Event
		for _, events := range close25(i + 1) {
			if group = append(group, events...); random.IntN(3) > 0 {
				commits, group = append(commits, group), nil
			}
		}
		if random.IntN(4) == 0 {
			group = append(group, &ledger.ConfigUsed{Digest: fmt.Sprint(i), Text: strings.Repeat(fmt.Sprint(random.Uint64()), random.IntN(2000))})
		}
		if len(group) > 0 {
			commits = append(commits, group)
		}
	}
	return commits
}

// shared runs fn as often as commit i's share of n is.
func shared(n, of, i int, fn func()) {
	for range n*(i+1)/of - n*i/of {
		fn()
	}
}

// look copies a file at rest, and reads the copy: the file itself is locked.
func look(t *testing.T, path string) (s side) {
	s.data = read(t, path)
	replace(t, path+".copy", s.data)
	var err error
	if s.head, s.content, err = content(path + ".copy"); err != nil {
		t.Fatal(err)
	}
	return s
}

// content is everything that a file's buckets hold, as one hash; it does not ask whether that is right.
func content(path string) (at head, sum string, err error) {
	db, err := openBolt(path, true)
	if err != nil {
		return at, "", err
	}
	h := sha256.New()
	err = guard(path, func() error {
		return db.View(func(tx *bolt.Tx) error {
			m, err := readMeta(tx)
			if err != nil {
				return err
			}
			at = m.head
			return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
				fmt.Fprintf(h, "bucket %q\n", name)
				return b.ForEach(func(k, v []byte) error {
					fmt.Fprintf(h, "%q %q\n", k, v)
					return nil
				})
			})
		})
	})
	return at, fmt.Sprintf("%x", h.Sum(nil)), errors.Join(err, db.Close())
}

// cut makes one legal image of a commit. It is whole, and reads as before it or after it.
func (s *tally) cut(t *testing.T, random *rand.Rand, image string, before, after side) {
	data := crashImage(random, before.data, after.data)
	replace(t, image, data)
	s.images++
	report, err := Verify(image)
	at, sum, readErr := content(image)
	wrong := func(what string, err error) {
		s.bad++
		t.Errorf("the commit of records %d to %d, cut: %s: %+v, %v", before.head.Seq+1, after.head.Seq, what, report, err)
	}
	isBefore := at == before.head && sum == before.content
	switch {
	case err != nil || readErr != nil:
		wrong("it is not whole", errors.Join(err, readErr))
		return
	case !isBefore && (at != after.head || sum != after.content):
		wrong("it is neither what was nor what came", nil)
		return
	case isBefore:
		s.older++
	}
	if s.images%10 == 0 { // A chain goes on with it.
		if err := goOn(image); err != nil {
			wrong("it cannot be written on", err)
		}
	}
}

// goOn writes to a file, and checks it again.
func goOn(path string) error {
	s, err := Open(path, testOptions)
	if err != nil {
		return err
	}
	soft, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- s.Run(stopOn(soft)) }()
	r := &running{Store: s}
	err = r.append(&ledger.HoldPut{Key: ledger.Key{Symbol: "ETHUSDT"}, Reason: ledger.HoldOperator, Owner: "test", Evidence: "goes on"})
	close(soft)
	err = errors.Join(err, <-ended)
	return errors.Join(err, second(Verify(path)))
}

// crashImage is one of the files that a power cut during a commit may leave: any of its data sectors under the old
// meta page, or all of them and the new meta torn at any byte. Where the file had to grow, it may not have yet.
func crashImage(random *rand.Rand, before, after []byte) []byte {
	if len(before) < len(after) {
		if random.IntN(4) == 0 {
			return before
		}
		before = append(bytes.Clone(before), make([]byte, len(after)-len(before))...)
	}
	var data []int
	meta := -1
	for _, at := range sectorsOf(before, after) {
		if at < 2*pageBytes {
			meta = at
			continue
		}
		data = append(data, at)
	}
	if random.IntN(2) == 0 {
		cut := bytes.Clone(before)
		for _, at := range data {
			if random.IntN(2) == 0 {
				copy(cut[at:at+sector], after[at:])
			}
		}
		return cut
	}
	cut := bytes.Clone(after)
	torn := meta + random.IntN(sector+1)
	copy(cut[torn:meta+sector], before[torn:])
	return cut
}

// sectorsOf are where two files of one length differ.
func sectorsOf(before, after []byte) (at []int) {
	for i := 0; i < len(after); i += sector {
		if !bytes.Equal(before[i:i+sector], after[i:i+sector]) {
			at = append(at, i)
		}
	}
	return at
}

// remember notes what the sectors held that a commit has changed, and returns these; meta pages are not among them.
func remember(stale map[int][]byte, before, after []byte) (changed []int) {
	before = append(bytes.Clone(before), make([]byte, len(after)-len(before))...)
	for _, at := range sectorsOf(before, after) {
		if at >= 2*pageBytes {
			stale[at] = before[at : at+sector]
			changed = append(changed, at)
		}
	}
	return changed
}

// lose makes one image of a disk that lies: the commit was durable, it said, and a data sector of it, or of one long
// before it, holds what was there before, or nothing.
func (s *tally) lose(t *testing.T, random *rand.Rand, apart *apart, image string, now side, changed []int, stale map[int][]byte) {
	if random.IntN(3) == 0 {
		changed = slices.Sorted(maps.Keys(stale))
	}
	at := changed[random.IntN(len(changed))]
	data := bytes.Clone(now.data)
	lost := data[at : at+sector]
	clear(lost)
	if random.IntN(3) > 0 {
		copy(lost, stale[at])
	}
	replace(t, image, data)
	answer, lived := apart.verify(image)
	fate := silent
	switch {
	case !lived:
		fate = died
		t.Errorf("sector %d lost: the process that verified it ended: %s", at/sector, apart.said())
	case answer.Error != "":
		fate = detected
	case answer.Head == now.head && answer.Content == now.content:
		fate = harmless
		if err := goOn(image); err != nil {
			fate = silent
			t.Errorf("sector %d lost, and nobody says so before it is written on: %v", at/sector, err)
		}
	default:
		t.Errorf("sector %d lost, and it reads as something else: %+v, not %+v", at/sector, answer, now.head)
	}
	s.fates[fate]++
}

// apart is a process that verifies files for this one: a file damaged badly enough can take that one down, and nothing else.
type apart struct {
	t      *testing.T
	cmd    *exec.Cmd
	ask    io.WriteCloser
	answer *json.Decoder
	output *bytes.Buffer
}

type apartAnswer struct {
	Error   string `json:"error"`
	Head    head   `json:"head"`
	Content string `json:"content"`
}

func startApart(t *testing.T) *apart {
	a := &apart{t: t, output: &bytes.Buffer{}}
	a.cmd = exec.Command(os.Args[0], "-test.run=^TestVerifyApart$")
	a.cmd.Env, a.cmd.Stderr = append(os.Environ(), apartEnv+"=1"), a.output
	out, err := a.cmd.StdoutPipe()
	if err == nil {
		a.ask, err = a.cmd.StdinPipe()
	}
	if err == nil {
		err = a.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	a.answer = json.NewDecoder(out)
	return a
}

// verify asks for one file; it tells whether there was an answer. After none, another process is there for the next.
func (a *apart) verify(path string) (answer apartAnswer, lived bool) {
	_, err := fmt.Fprintln(a.ask, path)
	if err == nil {
		err = a.answer.Decode(&answer)
	}
	if err != nil {
		a.end()
		fresh := startApart(a.t)
		fresh.output, *a = a.output, *fresh
	}
	return answer, err == nil
}

func (a *apart) said() string { return a.output.String() }

func (a *apart) end() {
	_ = a.ask.Close()
	_ = a.cmd.Wait() // How it ended was seen in its answers.
}

// TestVerifyApart is no test: it is the process that apart starts.
func TestVerifyApart(t *testing.T) {
	if os.Getenv(apartEnv) == "" {
		t.Skip("it is started by TestPowerLossImages")
	}
	for paths := bufio.NewScanner(os.Stdin); paths.Scan(); {
		var answer apartAnswer
		report, err := Verify(paths.Text())
		if err == nil {
			answer.Head, answer.Content, err = content(paths.Text())
		}
		if err == nil && report.Head != answer.Head.Chain.String() {
			err = fmt.Errorf("verified %s, read %s", report.Head, answer.Head.Chain)
		}
		if err != nil {
			answer.Error = err.Error()
		}
		if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
			t.Fatal(err)
		}
	}
}
