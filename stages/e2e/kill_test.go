// Package e2e has the tests that need processes: the binary is built as it ships, started, killed and judged from outside.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"permitchain/exchange/sandbox"
	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// The random ends: the shipped binary closes positions without end on a hostile sandbox, and is ended at random
// instants: by SIGKILL, by SIGTERM and SIGKILL before it is done, or by SIGKILL after it was stopped for longer than its
// permits, snapshots and orders are good for. The sandbox lives in this process and so outlives it: its own order log
// is the judge.

// kills is how many; KILLS says otherwise.
const kills = 100

// lanes are binaries that run at the same time, each with a sandbox and a ledger of its own.
const lanes = 10

var symbols = []string{"BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT", "DOGEUSDT"}

// tally is what happened, over all lanes.
type tally struct {
	kills, stops, terms, refused, answered, repeated, plans, executed, orders, unanswered, unknown, double, late, lost atomic.Int64
}

func (s *tally) figures(t *testing.T, prefix string) {
	for _, f := range []struct {
		name string
		of   *atomic.Int64
	}{
		{"kills", &s.kills},
		{"stops", &s.stops},
		{"terms", &s.terms},
		{"second_instances_refused", &s.refused},
		{"proposals_acknowledged", &s.answered},
		{"proposals_repeated", &s.repeated},
		{"plans", &s.plans},
		{"plans_executed", &s.executed},
		{"orders", &s.orders},
		{"answers_lost", &s.unanswered},
		{"orders_unknown", &s.unknown},
		{"double_executions", &s.double},
		{"acted_on_late", &s.late},
		{"acknowledged_lost", &s.lost},
	} {
		t.Logf("figure %s_%s %d", prefix, f.name, f.of.Load())
	}
}

func TestKilledAtRandom(t *testing.T) {
	n, seed := number(t, "KILLS", kills), uint64(number(t, "SEED", int(time.Now().UnixNano())))
	t.Parallel()
	build(t)
	begun := time.Now()
	var sum tally
	var group sync.WaitGroup
	for i := range lanes {
		group.Go(func() {
			l, err := newLane(t, hostile(seed+uint64(i)))
			if err != nil {
				t.Error(err)
				return
			}
			err = l.run((n+i)/lanes, &sum)
			l.close(err != nil)
			if err != nil {
				t.Errorf("lane %d, SEED=%d, files in %s: %v", i, seed, l.dir, err)
			}
		})
	}
	group.Wait()
	t.Logf("SEED=%d, %s", seed, time.Since(begun).Round(time.Second))
	sum.figures(t, "random")
	if sum.kills.Load() < int64(n) || sum.executed.Load() == 0 {
		t.Errorf("the drill proves nothing: %d kills, %d executed", sum.kills.Load(), sum.executed.Load())
	}
}

// hostile is an exchange whose engine splits, rests and drops orders, with positions that come back.
func hostile(seed uint64) sandbox.Options {
	positions := map[ledger.Key]ledger.Qty{}
	for i, q := range []string{"0.046", "-1.2", "9.5", "-2.41", "350", "2000"} {
		positions[ledger.Key{Symbol: symbols[i], Side: ledger.Both}] = ledger.MustQty(q)
	}
	return sandbox.Options{
		Seed: seed, Symbols: symbols, Positions: positions, Reopen: time.Second, Odds: venue.Odds{Split: 0.3, Expire: 0.1, Rest: 0.1},
	}
}

// run kills n processes, lets one more settle everything, and judges.
func (l *lane) run(n int, sum *tally) error {
	profile, err := sandbox.Preset("hostile")
	if err != nil {
		return err
	}
	feed, stop := context.WithCancel(context.Background())
	var feeder sync.WaitGroup
	luck := rand.New(rand.NewPCG(l.luck.Uint64(), 1))
	feeder.Go(func() { l.feed(feed, luck, sum) })
	defer func() { stop(); feeder.Wait() }()
	for _, k := range []sandbox.Kind{sandbox.WAF, sandbox.TooManyBare, sandbox.HighWeight} {
		delete(profile, k) // A minute's silence each: no process would live to see its end.
	}
	for _, k := range []sandbox.Kind{sandbox.Closed, sandbox.Late, sandbox.TooLate, sandbox.Twin, sandbox.PartOnly, sandbox.Reopened} {
		profile[k] = 0.05
	}
	for killed := 0; killed < n; {
		if killed == 1 { // The first process takes the positions over.
			if err := l.sandbox.SetProfile(profile); err != nil {
				return err
			}
		}
		p, err := l.start()
		if err != nil {
			return err
		}
		select {
		case <-time.After(l.life(killed)):
			if err := l.strike(p, sum); err != nil {
				return err
			}
			killed++
		case <-p.ended: // The exchange was too hostile to start on; nothing else is an excuse.
			if exitOf(p.err) != 7 {
				return fmt.Errorf("ended by itself: %w\n%s", p.err, p.output)
			}
		}
	}
	stop()
	feeder.Wait()
	return l.settle(sum)
}

// life is how long a process lives: the first long enough to take the positions over, the others mostly not long enough
// to finish what the one before left.
func (l *lane) life(killed int) time.Duration {
	if killed == 0 || l.luck.IntN(10) == 0 {
		return 10*time.Second + time.Duration(l.luck.Int64N(int64(5*time.Second)))
	}
	return 100*time.Millisecond + time.Duration(l.luck.Int64N(int64(4*time.Second)))
}

// stopped is how long a process is stopped: longer than a snapshot is fresh (4 s), an order may be sent (1 s) or a
// proposal be planned on.
const stopped = 5 * time.Second

// strike ends a process in one of several ways; whichever it is, it ends with SIGKILL, unless the process was quicker.
func (l *lane) strike(p *process, sum *tally) error {
	signal := func(s syscall.Signal) { _ = p.cmd.Process.Signal(s) } // Where it has ended, that shows below.
	_, silent := l.call(http.MethodGet, "/v1/status", "")
	serves, another, err := silent == nil, false, error(nil) // Before it serves, the ledger may be free.
	switch l.luck.IntN(10) {
	case 0, 1:
		signal(syscall.SIGSTOP)
		<-time.After(stopped)
		another = l.luck.IntN(2) == 0 // It holds its lock, also in its sleep.
		if another && serves {
			err = l.second(p)
		}
		signal(syscall.SIGCONT)
		sum.stops.Add(1)
		<-time.After(time.Duration(l.luck.Int64N(int64(2 * time.Second))))
	case 2:
		if another = true; serves {
			err = l.second(p)
		}
	case 3, 4:
		signal(syscall.SIGTERM)
		sum.terms.Add(1)
		<-time.After(time.Duration(l.luck.Int64N(int64(300 * time.Millisecond))))
	}
	_ = p.cmd.Process.Kill()
	sum.kills.Add(1)
	if ended := p.wait(); exitOf(ended) > 0 && exitOf(ended) != 7 {
		return fmt.Errorf("ended by itself: %w\n%s", ended, p.output)
	}
	if serves && another && err == nil {
		sum.refused.Add(1)
	}
	return err
}

// feed proposes closes without end, and now and then one again that was proposed before.
func (l *lane) feed(ctx context.Context, luck *rand.Rand, sum *tally) {
	actions := []string{"PARTIAL_25", "PARTIAL_50", "PARTIAL_75", "FULL_CLOSE_PROPOSED", "FULL_CLOSE_PROPOSED"}
	for ctx.Err() == nil {
		select {
		case <-time.After(time.Duration(50+luck.IntN(200)) * time.Millisecond):
		case <-ctx.Done():
			return
		}
		symbol := symbols[luck.IntN(len(symbols))]
		stop := ""
		if symbol == "BTCUSDT" && luck.IntN(2) == 0 { // Some way below what it begins at.
			stop = fmt.Sprintf(`,"new_sl":"8%d.%d"`, 4000+luck.IntN(2000), luck.IntN(10))
		}
		body := fmt.Sprintf(`{"symbol":%q,"side":"BOTH","action":%q,"kill_score":0.%d,"computed_at":%q%s}`, symbol, actions[luck.IntN(len(actions))],
			10+luck.IntN(80), time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), stop)
		if len(l.sent) > 0 && luck.IntN(5) == 0 {
			body = l.sent[len(l.sent)-1-luck.IntN(min(len(l.sent), 20))]
			sum.repeated.Add(1)
		}
		if answer, err := l.call(http.MethodPost, "/v1/proposals", body); err == nil && l.acknowledge(answer) == nil {
			sum.answered.Add(1)
		}
		l.sent = append(l.sent, body) // Also when nobody answered: it may be on record all the same.
	}
}

// settle ends all faults, and gives one process the time to end everything that is open.
func (l *lane) settle(sum *tally) error {
	for _, e := range l.sandbox.Log() {
		sum.orders.Add(1)
		if e.Fault != "" {
			sum.unanswered.Add(1)
		}
	}
	l.sandbox.Disarm()
	p, err := l.start()
	if err != nil {
		return err
	}
	deadline := time.After(4 * time.Minute)
	for agreed := 0; agreed < 3; { // More than once: the reopening goes on.
		fine, text := l.settled()
		if fine {
			agreed++
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-p.ended:
			if exitOf(p.err) != 7 {
				return fmt.Errorf("the last process ended: %w\n%s", p.err, p.output)
			}
			if p, err = l.start(); err != nil { // It was told that the minute's weight is used up: a supervisor tries again.
				return err
			}
		case <-deadline:
			_ = p.cmd.Process.Kill()
			return errors.Join(fmt.Errorf("not settled after four minutes without faults: %s\n%s", text, p.output), l.dump())
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	if err := p.wait(); err != nil {
		return fmt.Errorf("the last process: %w\n%s", err, p.output)
	}
	j, err := l.judge()
	sum.plans.Add(int64(len(j.plans)))
	sum.executed.Add(int64(j.executed))
	sum.unknown.Add(int64(j.unknown))
	sum.double.Add(int64(len(j.doubles)))
	sum.late.Add(int64(len(j.late)))
	sum.lost.Add(int64(len(j.lost)))
	l.t.Logf("plans: %v; faults: %v", j.fates, l.sandbox.Struck())
	return err
}
