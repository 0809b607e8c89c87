package stages

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"permitchain/exchange"
	"permitchain/exchange/binance"
	"permitchain/ledger"
	"permitchain/stages/exitbrain"
)

// refuse reports a well-formed value that the chain cannot work with, under the first of keys, where the
// first of them that the user wrote stands. What was said of the parameters of all symbols is not said
// again of each that shares them.
func (r *configReader) refuse(problem string, keys ...string) {
	if e := r.finding(problem, keys); e != nil {
		r.errs = append(r.errs, e)
	}
}

func (r *configReader) warn(problem string, keys ...string) {
	if e := r.finding(problem, keys); e != nil {
		r.c.warnings = append(r.c.warnings, e.Error())
	}
}

// finding is nil where nothing new is to be said.
func (r *configReader) finding(problem string, keys []string) *ConfigError {
	unread := func(key string) bool { return r.failed[key] || r.failed[r.symbol+key] }
	if r.said[keys[0]+problem] || slices.ContainsFunc(keys, unread) {
		return nil
	}
	r.said[keys[0]+problem] = r.symbol == ""
	e := &ConfigError{File: r.file, Key: r.symbol + keys[0], Problem: problem}
	for _, prefix := range []string{r.symbol, ""} {
		for _, key := range keys {
			if n, ok := r.at[prefix+key]; ok {
				e.Line, e.Column = n.Line, n.Column
				return e
			}
		}
	}
	return e
}

func textOf(v any) string { return strings.Trim(yamlText(reflect.ValueOf(v)), `"`) }

// span reports a value outside of lo to hi.
func span[T cmp.Ordered](r *configReader, key string, v, lo, hi T) {
	if !(lo <= v && v <= hi) {
		r.refuse(got(fmt.Sprintf("must be from %s to %s", textOf(lo), textOf(hi)), textOf(v)), key)
	}
}

// dailyLimit refuses a limit that nothing could ever pass: no market's smallest order costs less than leastUSD.
func dailyLimit(r *configReader, key string, v ledger.USD) {
	switch {
	case v.Sign() < 0:
		r.refuse(got("must not be negative", v.String()), key)
	case v.Sign() > 0 && v.Less(ledger.MustUSD(leastUSD)):
		r.refuse(got("is less than the smallest order of any market, so nothing would ever pass; 0 is no limit", v.String()), key)
	}
}

const leastUSD = "5"

func (r *configReader) check() {
	if r.full() {
		return
	}
	r.process()
	r.paper()
	r.parameters(r.c.SymbolConfig)
	for _, s := range r.c.Symbols {
		r.symbol = "symbols." + s.Name + "."
		r.parameters(s.SymbolConfig)
	}
}

var keyTailForm = regexp.MustCompile(`^[A-Za-z0-9]{4}$`)

func (r *configReader) process() {
	c := &r.c
	if c.StateDir == "" || strings.Contains(c.StateDir, "://") {
		r.refuse("must name a folder", "state_dir")
	}
	if strings.Contains(c.HTTP.TokenFile, "://") {
		r.refuse("must name a file", "http.token_file")
	}
	if r.symbols == nil || len(r.symbols.Content) == 0 {
		r.refuse("must name at least one symbol", "symbols")
	}
	if tail := c.Live.ConfirmKeyTail; tail != "" && !keyTailForm.MatchString(tail) {
		r.refuse("must be the last 4 characters of the API key, no more and no less", "live.confirm_key_tail")
	} else if tail == "" && c.Mode == ledger.Live {
		r.warn("mode live does not start without the last 4 characters of the API key here", "live.confirm_key_tail", "mode")
	}
	r.url("exchange.rest_url", c.Exchange.RESTURL, "http")
	if c.Mode == ledger.Testnet && c.Exchange.RESTURL != "" && binance.RealMoney(c.Exchange.RESTURL) {
		r.refuse("is where real money is traded, which is mode live", "exchange.rest_url", "mode")
	}
	r.url("exchange.stream_url", c.Exchange.StreamURL, "ws")
	span(r, "exchange.recv_window", c.Exchange.RecvWindow, 100*time.Millisecond, time.Minute)
	span(r, "exchange.timeout", c.Exchange.Timeout, 100*time.Millisecond, time.Minute)
	if c.HTTP.Listen == "" {
		return // No TCP: the control socket serves the command line.
	}
	host, port, err := net.SplitHostPort(c.HTTP.Listen)
	if _, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil {
		r.refuse(got("must be an address and a port, like 127.0.0.1:8787", c.HTTP.Listen), "http.listen")
	} else if !loopback(host) && c.HTTP.TokenFile == "" {
		r.refuse(got("is reachable from other machines, which wants http.token_file", c.HTTP.Listen),
			"http.listen", "http.token_file")
	}
}

// url accepts no address, or one with TLS; without TLS only on this machine.
func (r *configReader) url(key, text, scheme string) {
	u, err := url.Parse(text)
	switch {
	case text == "":
	case err != nil || !(strings.Contains(u.Hostname(), ".") || loopback(u.Hostname())) || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		r.refuse("must be an address like "+scheme+"s://host/path, without user, query or fragment", key)
	case u.Scheme != scheme+"s" && !(u.Scheme == scheme && loopback(u.Hostname())):
		r.refuse("must begin with "+scheme+"s:// (or, on this machine, "+scheme+"://)", key)
	}
}

// loopback tells whether host is this machine and nothing else.
func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

func (r *configReader) paper() {
	p := r.c.Paper
	if p.Seed < 0 {
		r.refuse(got("must not be negative", textOf(p.Seed)), "paper.seed")
	}
	if !(p.Speed > 0 && p.Speed <= 1000) {
		r.refuse(got("must be above 0 and at most 1000", textOf(p.Speed)), "paper.speed")
	}
	for path, m := range r.seedMaps() {
		for key, q := range m {
			if problem := seedProblem(&r.c, key, q); problem != "" {
				r.refuse(problem, path+"."+seedName(key))
			}
		}
	}
}

// seedMaps are the maps of amounts that seed the paper exchange, by their key.
func (r *configReader) seedMaps() map[string]map[ledger.Key]ledger.Qty {
	return map[string]map[ledger.Key]ledger.Qty{"paper.positions": r.c.Paper.Positions, "paper.ledger": r.c.Paper.Ledger}
}

// fitSeeds leaves out seeds of the defaults that do not fit the user's symbols or position mode:
// nobody who lists other symbols should have to empty them. The user's own must fit.
func (r *configReader) fitSeeds() {
	for path, m := range r.seedMaps() {
		_, own := r.at[path]
		maps.DeleteFunc(m, func(k ledger.Key, q ledger.Qty) bool { return !own && seedProblem(&r.c, k, q) != "" })
	}
}

// seedProblem is what keeps the paper exchange from holding q under key.
func seedProblem(c *Config, key ledger.Key, q ledger.Qty) string {
	switch {
	case !slices.Contains(c.SymbolNames(), key.Symbol):
		return "is of a symbol that is not in symbols"
	case c.Paper.Hedge && key.Side == ledger.Both:
		return "must name its side, :LONG or :SHORT, where paper.hedge is true"
	case !c.Paper.Hedge && key.Side != ledger.Both:
		return "can name a side only where paper.hedge is true"
	case key.Side == ledger.Long && q.Sign() < 0, key.Side == ledger.Short && q.Sign() > 0:
		return got("is of the other side: a LONG is positive, a SHORT negative", q.String())
	}
	return ""
}

// brain reports what the exit-brain can't work with; what concerns a kernel's constants the kernel itself says.
func (r *configReader) brain(b exitbrain.Config) {
	span(r, "exit_brain.interval", b.Interval, time.Second, time.Hour)
	span(r, "exit_brain.close_interval", b.CloseInterval, time.Second, time.Hour)
	span(r, "exit_brain.min_gap", b.MinGap, 0, time.Hour)
	span(r, "exit_brain.bar", b.Bar, time.Minute, 24*time.Hour)
	if r.c.Mode != ledger.Paper && binance.Interval(b.Bar) == "" {
		r.refuse(got("must be a length that the exchange has: 1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 8h, 12h or 24h", textOf(b.Bar)), "exit_brain.bar", "mode")
	}
	span(r, "exit_brain.stop_dist", b.StopDist, 0, 1)
	span(r, "exit_brain.max_move", b.MaxMove, 0.001, 10)
	if closes := b.Closes(); closes > exchange.BarsPage {
		r.refuse(fmt.Sprintf("the windows want %d closes, and the exchange gives %d at once", closes, exchange.BarsPage), "exit_brain.vol_window", "exit_brain.regime_window")
	}
	for _, p := range append(b.MarketParams.Problems(), b.HarvestParams.Problems()...) {
		r.refuse(p.Text, "exit_brain."+p.Key)
	}
}

// parameters judges what may differ between symbols.
func (r *configReader) parameters(c SymbolConfig) {
	const day = 24 * time.Hour
	hundred := ledger.MustPercent("100")
	a, g, rec := c.Apply, c.Governor, c.Reconcile
	r.brain(c.ExitBrain)
	span(r, "apply.proposal_ttl", a.ProposalTTL, time.Second, 10*time.Minute)
	span(r, "apply.dedupe_ttl", a.DedupeTTL, time.Hour, 90*day)
	span(r, "apply.permit_wait", a.PermitWait, 10*time.Millisecond, time.Minute)
	span(r, "apply.attempts", a.Attempts, 1, 10)
	if slices.Contains(g.AutoApprove, ledger.Live) {
		r.refuse("must not contain live: nothing would be limited there", "governor.auto_approve")
	}
	span(r, "governor.max_per_hour", g.MaxPerHour, 1, 3600)
	span(r, "governor.max_per_5min", g.MaxPer5Min, 1, 3600)
	span(r, "governor.cooldown", g.Cooldown, 0, day)
	dailyLimit(r, "governor.daily_notional", g.DailyNotional)
	span(r, "governor.protective_per_hour", g.ProtectivePerHour, 1, 3600)
	span(r, "governor.stops_per_hour", g.StopsPerHour, 1, 3600)
	if !(g.KillScoreCritical > 0 && g.KillScoreCritical <= 1) {
		r.refuse(got("must be above 0 and at most 1", textOf(g.KillScoreCritical)), "governor.kill_score_critical")
	}
	span(r, "governor.permit_ttl", g.PermitTTL, time.Second, 10*time.Minute)
	span(r, "governor.disarm_errors", g.DisarmErrors, 1, 1000)
	span(r, "governor.portfolio_per_hour", g.PortfolioPerHour, 0, 1_000_000)
	dailyLimit(r, "governor.portfolio_daily_notional", g.PortfolioDailyNotional)
	span(r, "reconcile.snapshot_interval", rec.SnapshotInterval, 500*time.Millisecond, 5*time.Minute)
	span(r, "reconcile.stale_after", rec.StaleAfter, time.Second, 10*time.Minute)
	if rec.TolerancePct.Sign() <= 0 || hundred.Less(rec.TolerancePct) {
		r.refuse(got("must be above 0 and at most 100", rec.TolerancePct.String()), "reconcile.tolerance_pct")
	}
	if rec.ToleranceUSD.Sign() < 0 {
		r.refuse(got("must not be negative", rec.ToleranceUSD.String()), "reconcile.tolerance_usd")
	}
	span(r, "reconcile.cooldown", rec.Cooldown, time.Second, day) // Without one, orders that fill nothing could follow each other at once.
	span(r, "reconcile.permit_ttl", rec.PermitTTL, time.Second, 10*time.Minute)
	r.together(c)
}

// together judges parameters that are each possible but may not go with each other.
func (r *configReader) together(c SymbolConfig) {
	a, g, rec := c.Apply, c.Governor, c.Reconcile
	if least := a.ProposalTTL + time.Hour; a.DedupeTTL < least {
		r.refuse(got("must be at least an hour more than apply.proposal_ttl, "+textOf(least), textOf(a.DedupeTTL)),
			"apply.dedupe_ttl", "apply.proposal_ttl")
	}
	if a.PermitWait >= g.PermitTTL {
		r.refuse(got("must be below governor.permit_ttl: permits would expire while awaited", textOf(a.PermitWait)),
			"apply.permit_wait", "governor.permit_ttl")
	}
	if a.PermitWait >= rec.PermitTTL {
		r.refuse(got("must be below reconcile.permit_ttl: permits would expire while awaited", textOf(a.PermitWait)),
			"apply.permit_wait", "reconcile.permit_ttl")
	}
	if rec.StaleAfter < rec.SnapshotInterval {
		r.refuse(got("must not be below reconcile.snapshot_interval, "+textOf(rec.SnapshotInterval)+
			": every permit would be denied", textOf(rec.StaleAfter)), "reconcile.stale_after", "reconcile.snapshot_interval")
	}
	if g.MaxPer5Min > g.MaxPerHour {
		r.warn("is above governor.max_per_hour, so that it never binds", "governor.max_per_5min", "governor.max_per_hour")
	}
	if g.MaxPerHour > 1 && g.Cooldown >= time.Hour/time.Duration(g.MaxPerHour-1) {
		r.warn(fmt.Sprintf("is so long that governor.max_per_hour, %d, is never reached", g.MaxPerHour),
			"governor.cooldown", "governor.max_per_hour")
	}
}

// suggest names the known key that was probably meant: the nearest of its section, or the same elsewhere.
func suggest(path string) string {
	cut := strings.LastIndexByte(path, '.')
	section, key := path[:cut+1], path[cut+1:]
	best, distance := "", min(3, len(key)/2)+1
	var walk func(prefix string, t reflect.Value)
	walk = func(prefix string, t reflect.Value) {
		for _, f := range fieldsOf(t) {
			if d := edits(key, f.key); d < distance && (prefix == section || d == 0) {
				best, distance = prefix+f.key, d
			}
			if isSection(f.value.Type()) {
				walk(prefix+f.key+".", f.value)
			}
		}
	}
	walk("", reflect.ValueOf(Config{}))
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// edits is the number of letters to add, drop or change to make b of a.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
