package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"permitchain/exchange"
	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/stages"
	"permitchain/stages/governor"
)

// Bounds of what is well.
const (
	offsetMax    = time.Second            // a clock further off makes its owner's logs hard to compare; ours is corrected
	doubtMax     = 250 * time.Millisecond // the exchange's own bound on a timestamp in the future is a second
	freeLow      = 1 << 30
	freeLeast    = 100 << 20
	flushSlow    = 250 * time.Millisecond // an order waits for one flush, its answer for another
	flushTooSlow = 500 * time.Millisecond
	ordersShown  = 5
)

// Judge makes findings of facts.
func Judge(f Facts) Report {
	var all []Finding
	add := func(found ...Finding) { all = append(all, found...) }
	for _, w := range f.Warnings {
		if f.Confirm != nil && !*f.Confirm && strings.Contains(w, "live.confirm_key_tail") {
			continue // The finding about the confirmation says it, and what to do.
		}
		add(Finding{Warn, "configuration", w, "correct the configuration"})
	}
	add(f.key()...)
	if x := f.Exchange; x != nil {
		add(f.reach()...)
		if x.Unreachable == nil {
			add(f.markets()...)
			add(f.held()...)
			add(f.orders()...)
			add(f.limits()...)
			add(f.streams()...)
		}
	}
	add(f.clock(), f.disk(), f.flushes(), f.ledger(), f.api())
	wrong := func(l Finding) bool { return l.Level == Warn || l.Level == Fail }
	return Report{!slices.ContainsFunc(all, wrong), all}
}

func (f Facts) key() []Finding {
	k := f.Key
	if k == nil {
		return []Finding{{Note, "API key", "mode " + string(f.Mode) + " needs none", ""}}
	}
	switch {
	case k.Missing != nil:
		return []Finding{{Fail, "API key", k.Missing.Error(), "give the key in one of these three ways, and never in the configuration"}}
	case k.Refused != nil:
		return []Finding{{Fail, "API key", k.Refused.Error(), stages.RefusedKey}}
	}
	found := []Finding{{OK, "API key", "found; it ends in " + k.Tail, ""}}
	switch {
	case k.Trades == nil:
		found = append(found, Finding{Note, "permissions", "the exchange did not say what the key may do", ""})
	case !*k.Trades && f.Mode == ledger.DryRun:
		found = append(found, Finding{OK, "trading", "not permitted, and dry_run needs only to read", ""})
	case !*k.Trades:
		found = append(found, Finding{Fail, "trading", "the account may not trade futures", "permit futures trading for the key on the exchange's API page"})
	default:
		found = append(found, Finding{OK, "trading", "permitted", ""})
	}
	if k.Pays != nil && *k.Pays {
		found = append(found, Finding{Warn, "withdrawals", "possible", "take withdrawals off the key on the exchange's API page: a chain that closes positions never needs them"})
	} else if k.Pays != nil {
		found = append(found, Finding{OK, "withdrawals", "not possible", ""})
	}
	if f.Confirm != nil && !*f.Confirm {
		found = append(found, Finding{Fail, "confirmation", "live.confirm_key_tail is not the key's last 4 characters", "if it is this account that you mean, write them there; the chain does not start before"})
	}
	return found
}

func (f Facts) reach() []Finding {
	x := f.Exchange
	if x.Unreachable != nil {
		if f.Key != nil && f.Key.Refused != nil {
			return nil // Said of the key already.
		}
		return []Finding{{Fail, "exchange", x.Host + ": " + x.Unreachable.Error(), "look at the network, and at exchange.rest_url"}}
	}
	clock := Finding{OK, "exchange's clock", fmt.Sprintf("%s ahead of this machine's, known to ± %s", rounded(x.Offset), rounded(x.Uncertainty)), ""}
	if x.Offset < 0 {
		clock.Seen = fmt.Sprintf("%s behind this machine's, known to ± %s", rounded(-x.Offset), rounded(x.Uncertainty))
	}
	switch {
	case x.Uncertainty > doubtMax:
		clock.Level, clock.Do = Warn, "the way to the exchange is slow: orders may be refused as late; run nearer to it"
	case x.Offset.Abs() > offsetMax:
		clock.Level, clock.Do = Warn, "set this machine's clock (timedatectl set-ntp true); the chain corrects for it, its logs don't"
	}
	reached := Finding{OK, "exchange", fmt.Sprintf("%s answers", x.Host), ""}
	if x.WeightAMin > 0 {
		reached.Seen += fmt.Sprintf("; %d of %d request weight a minute used", x.Weight, x.WeightAMin)
		if x.Weight*4 > x.WeightAMin*3 {
			reached.Level, reached.Do = Warn, "others on this address use it up: find them, or a ban follows"
		}
	}
	return []Finding{reached, clock}
}

func rounded(d time.Duration) string {
	return d.Round(100 * time.Microsecond).String()
}

func (f Facts) markets() []Finding {
	var missing, rules []string
	for _, symbol := range f.Symbols {
		m, traded := f.Exchange.Markets[symbol]
		if !traded {
			missing = append(missing, symbol)
			continue
		}
		rules = append(rules, fmt.Sprintf("%s step %s, at market %s to %s, tick %s", symbol, m.Lot.Step, m.Lot.Min, m.Lot.Max, m.Tick))
	}
	var found []Finding
	if len(rules) > 0 {
		found = append(found, Finding{OK, "markets", strings.Join(rules, "; "), ""})
	}
	if len(missing) > 0 {
		found = append(found, Finding{Fail, "markets", "not traded here: " + strings.Join(missing, ", "), "correct symbols in the configuration"})
	}
	return found
}

func (f Facts) held() []Finding {
	x := f.Exchange
	if x.SnapshotErr != nil {
		return []Finding{{Fail, "positions", x.SnapshotErr.Error(), "without them nothing is permitted: see what the exchange says"}}
	}
	if x.Snapshot == nil {
		return nil
	}
	mode := Finding{OK, "position mode", "one-way", ""}
	if x.Snapshot.Hedge {
		mode.Seen = "hedge: proposals name LONG or SHORT"
	}
	found := []Finding{mode}
	var ours, others []string
	for _, h := range x.Snapshot.Holdings {
		if h.Amount.IsZero() {
			continue
		}
		text := h.Label() + " " + h.Amount.String()
		if !slices.Contains(f.Symbols, h.Symbol) {
			others = append(others, text)
			continue
		}
		ours = append(ours, text)
		if m, traded := x.Markets[h.Symbol]; traded && exchange.Floor(m.Lot, h.Amount.Abs()).IsZero() {
			found = append(found, Finding{Warn, "positions", fmt.Sprintf("%s is under the market's smallest order, %s", text, m.Lot.Min), "no order can close it: trade it up, or leave it"})
		}
	}
	if ours == nil {
		ours = []string{"none of ours"}
	}
	found = append(found, Finding{OK, "positions", strings.Join(ours, ", "), ""})
	if others != nil {
		found = append(found, Finding{Note, "positions", "held and not watched: " + strings.Join(others, ", "), "add the symbol, if the chain is to close it"})
	}
	return found
}

// orders are those of others that would take part of a position off before our close comes to it.
func (f Facts) orders() []Finding {
	x := f.Exchange
	if x.OpenErr != nil {
		return []Finding{{Fail, "open orders", x.OpenErr.Error(), "see what the exchange says"}}
	}
	var inTheWay []string
	for _, o := range x.Open {
		if !slices.Contains(f.Symbols, o.Key.Symbol) || ledger.OfOurForm(o.ClientOrderID) || x.Snapshot == nil {
			continue
		}
		held := x.Snapshot.Of(o.Key).Amount
		if !held.IsZero() && o.Direction == ledger.Reducing(held) {
			inTheWay = append(inTheWay, fmt.Sprintf("%s %s %s (%s)", o.Key.Label(), o.Direction, o.Qty, o.ClientOrderID))
		}
	}
	if inTheWay == nil {
		return []Finding{{OK, "open orders", fmt.Sprintf("%d, none in the way of a close", len(x.Open)), ""}}
	}
	shown := strings.Join(inTheWay[:min(len(inTheWay), ordersShown)], ", ")
	return []Finding{{Warn, "open orders", fmt.Sprintf("%d of others would reduce what is held: %s", len(inTheWay), shown), "if they are reduce-only, a close can be refused because of them (-4118): cancel what is not wanted"}}
}

// limits finds those that what is held can never pass. Full closes don't have to: they are protective.
func (f Facts) limits() []Finding {
	x := f.Exchange
	var found []Finding
	for _, symbol := range f.Symbols {
		g, m := f.Limits[symbol], x.Markets[symbol]
		mark := x.Marks[symbol]
		if slices.Contains(g.AutoApprove, f.Mode) || mark.IsZero() {
			continue
		}
		for _, limit := range []struct {
			name  string
			bound ledger.USD
		}{{"daily_notional", g.DailyNotional}, {"portfolio_daily_notional", g.PortfolioDailyNotional}} {
			if limit.bound.Sign() <= 0 {
				continue
			}
			if least := ledger.Notional(m.Lot.Min, mark); limit.bound.Less(least) {
				found = append(found, Finding{
					Fail, "limits", fmt.Sprintf("%s: the smallest order is %s USD, and %s is %s", symbol, least.Fixed(2), limit.name, limit.bound.Fixed(2)),
					"raise governor." + limit.name + ": no partial close can ever pass",
				})
				continue
			}
			if q := smallestClose(x.Snapshot, symbol, m.Lot); !q.IsZero() && limit.bound.Less(ledger.Notional(q, mark)) && !(g.OnDailyLimit == governor.TrimTo && limit.name == "daily_notional") {
				found = append(found, Finding{
					Warn, "limits", fmt.Sprintf("%s: the smallest partial close of what is held, %s, is %s USD, and %s is %s", symbol, q, ledger.Notional(q, mark).Fixed(2), limit.name, limit.bound.Fixed(2)),
					"raise governor." + limit.name + ", or trim (governor.on_daily_limit); until then only full closes pass",
				})
			}
		}
	}
	if found == nil {
		return []Finding{{OK, "limits", "what is held can pass them", ""}}
	}
	return found
}

// smallestClose is the least that a partial close would take off any position of a symbol; 0 where none can.
func smallestClose(snap *ledger.Snapshot, symbol string, lot ledger.Lot) (least ledger.Qty) {
	if snap == nil {
		return least
	}
	for _, k := range snap.Keys(symbol) {
		held := snap.Of(k).Amount.Abs()
		for _, a := range ledger.Tranches {
			if q := exchange.CloseQty(lot, held, held.Of(a.Share()), true); !q.IsZero() && (least.IsZero() || q.Less(least)) {
				least = q
			}
		}
	}
	return least
}

func (f Facts) streams() []Finding {
	x := f.Exchange
	switch {
	case x.ChainRunning:
		return []Finding{{Note, "streams", "those of the running chain are not disturbed", "permitchain status shows how old what it sees is"}}
	case x.Listened == 0:
		return nil
	}
	var silent []string
	for _, symbol := range f.Symbols {
		if _, traded := x.Markets[symbol]; traded && x.Marks[symbol].IsZero() {
			silent = append(silent, symbol)
		}
	}
	market := Finding{OK, "market stream", fmt.Sprintf("a mark price of every symbol within %s", rounded(x.MarksIn)), ""}
	if silent != nil {
		market = Finding{Fail, "market stream", fmt.Sprintf("no mark price of %s in %s", strings.Join(silent, ", "), rounded(x.Listened)), "look at exchange.stream_url; a wrong path connects and stays silent"}
		if x.StreamErr != nil {
			market.Seen += ": " + x.StreamErr.Error()
		} else if x.MarketFault != "" {
			market.Seen += ": " + x.MarketFault
		}
	}
	user := Finding{Note, "account stream", "connected; that it delivers cannot be proved while nothing happens on the account, as a silent stream looks the same", "the chain does not rely on it: it asks by REST as well"}
	switch {
	case x.UserEvents > 0:
		user = Finding{OK, "account stream", fmt.Sprintf("%d events came", x.UserEvents), ""}
	case !x.UserStream:
		user = Finding{Fail, "account stream", strings.TrimSuffix("not connected: "+x.UserFault, ": "), "look at exchange.stream_url and at the key"}
	}
	return []Finding{market, user}
}

func (f Facts) clock() Finding {
	h, real := f.Host, f.Exchange != nil
	switch {
	case h.ClockErr != nil:
		return Finding{Note, "host's clock", "the kernel does not say whether it is synchronised: " + h.ClockErr.Error(), ""}
	case h.ClockSynchronised:
		return Finding{OK, "host's clock", "synchronised", ""}
	case real && f.Exchange.Unreachable == nil && f.Exchange.Offset.Abs() <= offsetMax:
		return Finding{Note, "host's clock", "the kernel does not call it synchronised, and it is right at the moment", "have it kept right: timedatectl set-ntp true"}
	case real:
		return Finding{Warn, "host's clock", "not synchronised", "timedatectl set-ntp true"}
	default:
		return Finding{Note, "host's clock", "not synchronised; no exchange was asked for the time", ""}
	}
}

func (f Facts) disk() Finding {
	d := f.Disk
	what := d.Dir
	if d.Missing {
		what += " (will be made)"
	}
	switch {
	case d.WriteErr != nil:
		return Finding{Fail, "state_dir", d.WriteErr.Error(), "make it a folder that this user may write to"}
	case d.Free < freeLeast:
		return Finding{Fail, "state_dir", fmt.Sprintf("%s: %d MiB free", what, d.Free>>20), "make room: a ledger that cannot grow halts the chain"}
	case d.Free < freeLow:
		return Finding{Warn, "state_dir", fmt.Sprintf("%s: %d MiB free", what, d.Free>>20), "make room: a ledger that cannot grow halts the chain"}
	}
	return Finding{OK, "state_dir", fmt.Sprintf("%s: writable, %d GiB free", what, d.Free>>30), ""}
}

func (f Facts) flushes() Finding {
	d := f.Disk.Flushes
	if len(d) == 0 {
		return Finding{Note, "disk", "how fast it flushes was not measured", ""}
	}
	median, worst := d[len(d)/2], d[len(d)-1]
	found := Finding{OK, "disk", fmt.Sprintf("flushes in %s, at worst %s of %d", median.Round(10*time.Microsecond), worst.Round(10*time.Microsecond), len(d)), ""}
	switch {
	case median > flushTooSlow:
		found.Level, found.Do = Fail, "permits run out while the disk flushes: use another disk"
	case worst > flushSlow:
		found.Level, found.Do = Warn, "every order waits for it: use a faster disk, or find what else writes"
	}
	return found
}

func (f Facts) ledger() Finding {
	l := f.Ledger
	switch {
	case f.Disk.WriteErr != nil && errors.Is(l.Err, unix.ENOTDIR):
		return Finding{Note, "ledger", "not looked at: state_dir is no folder", ""}
	case l.None:
		return Finding{OK, "ledger", "none yet: the first start makes one", ""}
	case l.Running:
		return Finding{OK, "ledger", "in use by a running chain", "permitchain ledger verify checks a copy of it"}
	case errors.Is(l.Err, store.ErrForeign):
		return Finding{Fail, "ledger", l.Err.Error(), stages.ForeignLedger}
	case l.Err != nil:
		return Finding{Fail, "ledger", l.Err.Error(), "permitchain ledger verify says where; go back to a backup, or to another state_dir"}
	}
	return Finding{OK, "ledger", fmt.Sprintf("%d records, chain and fold verified", l.Records), ""}
}

func (f Facts) api() Finding {
	a := f.API
	switch {
	case a.Err != nil:
		return Finding{Fail, "API", a.Err.Error(), "free the address, or change http.listen"}
	case a.Listen == "":
		return Finding{OK, "API", "off: the control socket serves the command line", ""}
	}
	return Finding{OK, "API", a.Listen, ""}
}
