package doctor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/stages/governor"
)

func to[T any](v T) *T { return &v }

// well are the facts of a chain that lacks nothing.
func well() Facts {
	btc := ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}
	return Facts{
		Mode: ledger.Live, Symbols: []string{"BTCUSDT"},
		Key: &Key{Tail: "9a1c", Trades: to(true), Pays: to(false)}, Confirm: to(true),
		Exchange: &Exchange{
			Host: "fapi.binance.com", Offset: 3 * time.Millisecond, Uncertainty: 2 * time.Millisecond, Weight: 10, WeightAMin: 2400,
			Markets: map[string]exchange.Market{"BTCUSDT": {
				Symbol: "BTCUSDT", Tick: ledger.MustPrice("0.1"), Lot: ledger.Lot{Step: ledger.MustQty("0.001"), Min: ledger.MustQty("0.001"), Max: ledger.MustQty("120")},
			}},
			Snapshot: &ledger.Snapshot{Holdings: []ledger.Holding{{Key: btc, Amount: ledger.MustQty("0.046")}}},
			Marks:    map[string]ledger.Price{"BTCUSDT": ledger.MustPrice("90000")}, MarksIn: time.Second, Listened: time.Second, UserStream: true, UserEvents: 1,
		},
		Host:   Host{ClockSynchronised: true},
		Disk:   Disk{Dir: "state", Free: 8 << 30, Flushes: []time.Duration{time.Millisecond, 2 * time.Millisecond}},
		Ledger: Ledger{Records: 12},
		Limits: map[string]governor.Config{"BTCUSDT": {DailyNotional: ledger.MustUSD("5000"), OnDailyLimit: governor.DenyPast}},
	}
}

func TestWhatIsWellIsHealthy(t *testing.T) {
	r := Judge(well())
	for _, f := range r.Findings {
		if f.Level != OK || f.Do != "" && f.What != "ledger" {
			t.Errorf("%+v", f)
		}
	}
	if !r.Healthy || len(r.Findings) < 15 {
		t.Errorf("healthy %v of %d findings", r.Healthy, len(r.Findings))
	}
}

// Each fact that is not well is found, is found alone, and comes with something to do.
func TestEachFindingIsFoundAlone(t *testing.T) {
	gone := errors.New("it is broken")
	btc := ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}
	order := exchange.OrderState{ClientOrderID: "web_1", Key: btc, Direction: ledger.Sell, Qty: ledger.MustQty("0.01")}
	limit := func(f *Facts, name string, usd string, to governor.OnDailyLimit) {
		g := governor.Config{OnDailyLimit: to}
		if name == "daily" {
			g.DailyNotional = ledger.MustUSD(usd)
		} else {
			g.PortfolioDailyNotional = ledger.MustUSD(usd)
		}
		f.Limits = map[string]governor.Config{"BTCUSDT": g}
	}
	for _, c := range []struct {
		spoil func(*Facts)
		want  string // level, what, and part of what was seen
	}{
		{func(f *Facts) { f.Warnings = []string{"c.yaml:1:1: something"} }, "warn configuration: c.yaml:1:1"},
		{func(f *Facts) { f.Key = &Key{Missing: gone}; f.Exchange = nil }, "fail API key: it is broken"},
		{func(f *Facts) { f.Key = &Key{Refused: gone}; f.Exchange = &Exchange{Unreachable: gone} }, "fail API key: it is broken"},
		{func(f *Facts) { f.Key.Trades = to(false) }, "fail trading: "},
		{func(f *Facts) { f.Key.Pays = to(true) }, "warn withdrawals: possible"},
		{func(f *Facts) { f.Key.Trades, f.Key.Pays = nil, nil }, "note permissions: "},
		{func(f *Facts) { f.Confirm = to(false) }, "fail confirmation: "},
		{func(f *Facts) { f.Exchange = &Exchange{Host: "h", Unreachable: gone} }, "fail exchange: h: it is broken"},
		{func(f *Facts) { f.Exchange.Weight = 2000 }, "warn exchange: "},
		{func(f *Facts) { f.Exchange.Offset = -2 * time.Second }, "warn exchange's clock: 2s behind"},
		{func(f *Facts) { f.Exchange.Uncertainty = time.Second }, "warn exchange's clock: 3ms ahead of this machine's, known to ± 1s"},
		{func(f *Facts) { f.Symbols = append(f.Symbols, "NOPEUSDT") }, "fail markets: not traded here: NOPEUSDT"},
		{func(f *Facts) { f.Exchange.SnapshotErr, f.Exchange.Snapshot = gone, nil }, "fail positions: it is broken"},
		{func(f *Facts) {
			f.Exchange.Snapshot.Holdings = append(f.Exchange.Snapshot.Holdings, ledger.Holding{Key: ledger.Key{Symbol: "XRPUSDT", Side: ledger.Both}, Amount: ledger.MustQty("5")})
		}, "note positions: held and not watched: XRPUSDT 5"},
		{func(f *Facts) { f.Exchange.Snapshot.Holdings[0].Amount = ledger.MustQty("-0.0004") }, "warn positions: BTCUSDT -0.0004 is under"},
		{func(f *Facts) { f.Exchange.Open = []exchange.OrderState{order} }, "warn open orders: 1 of others would reduce what is held: BTCUSDT SELL 0.01 (web_1)"},
		{func(f *Facts) { f.Exchange.OpenErr = gone }, "fail open orders: it is broken"},
		{func(f *Facts) { limit(f, "daily", "80", governor.TrimTo) }, "fail limits: BTCUSDT: the smallest order is 90.00 USD, and daily_notional is 80.00"},
		{func(f *Facts) { limit(f, "daily", "900", governor.DenyPast) }, "warn limits: BTCUSDT: the smallest partial close of what is held, 0.011, is 990.00 USD, and daily_notional is 900.00"},
		{func(f *Facts) { limit(f, "portfolio", "900", governor.TrimTo) }, "warn limits: BTCUSDT: the smallest partial close of what is held, 0.011, is 990.00 USD, and portfolio_daily_notional is 900.00"},
		{func(f *Facts) { delete(f.Exchange.Marks, "BTCUSDT"); f.Exchange.StreamErr = gone }, "fail market stream: no mark price of BTCUSDT in 1s: it is broken"},
		{func(f *Facts) { f.Exchange.UserEvents = 0 }, "note account stream: connected; that it delivers cannot be proved"},
		{func(f *Facts) { f.Exchange.UserEvents, f.Exchange.UserStream = 0, false }, "fail account stream: not connected"},
		{func(f *Facts) {
			f.Exchange.UserEvents, f.Exchange.UserStream, f.Exchange.UserFault = 0, false, "connection refused"
		}, "fail account stream: not connected: connection refused"},
		{func(f *Facts) { delete(f.Exchange.Marks, "BTCUSDT"); f.Exchange.MarketFault = "connection refused" }, "fail market stream: no mark price of BTCUSDT in 1s: connection refused"},
		{func(f *Facts) {
			f.Confirm, f.Warnings = to(false), []string{"c.yaml:1:1: live.confirm_key_tail: mode live does not start"}
		}, "fail confirmation: "},
		{func(f *Facts) { f.Host.ClockSynchronised = false }, "note host's clock: "},
		{func(f *Facts) { f.Host.ClockErr = gone }, "note host's clock: "},
		{func(f *Facts) { f.Disk.WriteErr = gone }, "fail state_dir: it is broken"},
		{func(f *Facts) { f.Disk.Free = 50 << 20 }, "fail state_dir: state: 50 MiB free"},
		{func(f *Facts) { f.Disk.Free = 500 << 20 }, "warn state_dir: state: 500 MiB free"},
		{func(f *Facts) { f.Disk.Flushes[1] = 300 * time.Millisecond; f.Disk.Flushes[0] = 0 }, "warn disk: flushes in 300ms"},
		{func(f *Facts) { f.Disk.Flushes[1] = time.Second }, "fail disk: flushes in 1s"},
		{func(f *Facts) { f.Ledger = Ledger{Err: gone} }, "fail ledger: it is broken"},
		{func(f *Facts) { f.Ledger = Ledger{Err: store.ErrForeign} }, "fail ledger: the ledger belongs to something else"},
		{func(f *Facts) { f.API.Err = gone }, "fail API: it is broken"},
	} {
		f := well()
		c.spoil(&f)
		r := Judge(f)
		var found []string
		for _, l := range r.Findings {
			if l.Level != OK {
				found = append(found, fmt.Sprintf("%s %s: %s", l.Level, l.What, l.Seen))
			}
			if (l.Level == Warn || l.Level == Fail) && l.Do == "" {
				t.Errorf("%s: nothing to do about it", l.What)
			}
		}
		if len(found) != 1 || !strings.HasPrefix(found[0], c.want) {
			t.Errorf("found %q, want %q alone", found, c.want)
		}
		if want := strings.HasPrefix(c.want, "note"); r.Healthy != want {
			t.Errorf("%s: healthy is %v", c.want, r.Healthy)
		}
	}
}

func TestWhatDoesNotApplyIsNoFinding(t *testing.T) {
	for name, change := range map[string]func(*Facts){
		"a key that only reads, in dry_run": func(f *Facts) { f.Mode, f.Key.Trades, f.Confirm = ledger.DryRun, to(false), nil },
		"an order of ours": func(f *Facts) {
			f.Exchange.Open = []exchange.OrderState{{ClientOrderID: "pc-17ea8e86355b2c66-1-1", Direction: ledger.Sell, Key: ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}}}
		},
		"an order that adds": func(f *Facts) {
			f.Exchange.Open = []exchange.OrderState{{ClientOrderID: "x", Direction: ledger.Buy, Key: ledger.Key{Symbol: "BTCUSDT", Side: ledger.Both}}}
		},
		"a limit of a mode that is auto-approved": func(f *Facts) {
			f.Limits["BTCUSDT"] = governor.Config{AutoApprove: []ledger.Mode{ledger.Live}, DailyNotional: ledger.MustUSD("5")}
		},
		"no ledger yet":   func(f *Facts) { f.Ledger = Ledger{None: true} },
		"a running chain": func(f *Facts) { f.Ledger = Ledger{Running: true}; f.Exchange.ChainRunning = true },
		"paper": func(f *Facts) {
			f.Mode, f.Key, f.Confirm, f.Exchange, f.Host.ClockSynchronised = ledger.Paper, nil, nil, nil, false
		},
	} {
		f := well()
		change(&f)
		if r := Judge(f); !r.Healthy {
			t.Errorf("%s: %s", name, r.Summary())
		}
	}
}

// A ledger of another account is in order: a backup would not mend it.
func TestAnotherAccountsLedgerIsNotDamaged(t *testing.T) {
	f := well()
	f.Ledger = Ledger{Err: store.ErrForeign}
	if do := f.ledger().Do; strings.Contains(do, "backup") || !strings.Contains(do, "state_dir") {
		t.Errorf("advice: %s", do)
	}
}

func TestReportsForPeopleAndPrograms(t *testing.T) {
	f := well()
	f.Key.Pays = to(true)
	r := Judge(f)
	var text, data bytes.Buffer
	if err := errors.Join(r.Write(&text, false), r.WriteJSON(&data)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "\nwarn  withdrawals") || !strings.Contains(text.String(), "→ take withdrawals off") {
		t.Errorf("text:\n%s", text.String())
	}
	var back Report
	if err := json.Unmarshal(data.Bytes(), &back); err != nil || !slices.Equal(back.Findings, r.Findings) || back.Healthy {
		t.Errorf("JSON %s: %v", data.String(), err)
	}
}

// Looking leaves nothing behind, whether the folder is there or not.
func TestLookingLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if d := LookAtDisk(filepath.Join(dir, "deep", "er")); d.WriteErr != nil || !d.Missing || len(d.Flushes) != flushes || d.Free == 0 {
		t.Errorf("a folder that will be made: %+v", d)
	}
	if d := LookAtDisk(dir); d.WriteErr != nil || d.Missing {
		t.Errorf("a folder: %+v", d)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if d := LookAtDisk(filepath.Join(file, "state")); d.WriteErr == nil {
		t.Errorf("a file where a folder should be: %+v", d)
	}
	path := filepath.Join(dir, "ledger.db")
	if l := LookAtLedger(path, store.Options{Mode: ledger.Live}); !l.None || l.Err != nil {
		t.Errorf("no ledger: %+v", l)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if err := store.Create(path, store.Options{Mode: ledger.Live, Host: "h", Account: "9a1c"}); err != nil {
		t.Fatal(err)
	}
	if l := LookAtLedger(path, store.Options{Mode: ledger.Live}); l.None || l.Err != nil {
		t.Errorf("an empty ledger: %+v", l)
	}
	if l := LookAtLedger(path, store.Options{Mode: ledger.Live, Host: "h", Account: "9a1d"}); !errors.Is(l.Err, store.ErrForeign) {
		t.Errorf("another account's ledger: %+v", l)
	}
}
