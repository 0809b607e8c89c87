// Command permitchain decides when to take a futures position off, and closes it with
// reduce-only orders, but only when two independent permits agree.
//
// This file is the grammar of its command line and the wiring. A command reads the
// configuration, builds what it needs, and calls one function of the package that owns the noun.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"

	"permitchain/exchange/sandbox"
	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/stages"
	"permitchain/stages/doctor"
	"permitchain/stages/exitbrain"
	"permitchain/stages/operator"
	"permitchain/stages/operator/terminal"
	"permitchain/stages/replay"
	"permitchain/stages/simulate"
)

//go:embed config.yaml
var defaults []byte

const version = "0.1.0"

// streams are what a process reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// hooks are what tests reach into a process with; all are nil in production.
type hooks struct {
	point func(string) // called at every crash point
}

func main() { os.Exit(run(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}, hooks{})) }

// run is the program: it returns the exit code.
func run(args []string, s streams, h hooks) (code int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // The first signal asks; the second one kills.
	a := &app{ctx: ctx, streams: s, hooks: h}
	type left int // kong leaves by this when it has shown help
	defer func() {
		if l, ok := recover().(left); ok {
			code = int(l)
		}
	}()
	parser, err := kong.New(&a.cli, kong.Name("permitchain"), kong.Description(about), kong.Writers(s.out, s.err), kong.Bind(a),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.BindToProvider(a.terminal),
		kong.ExplicitGroups([]kong.Group{{Key: "look", Title: "Look:"}, {Key: "act", Title: "Act (each wants --reason):"}, {Key: "both", Title: "Look and act:"}}),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}), kong.Exit(func(c int) { panic(left(c)) }))
	if err != nil {
		panic(err) // The grammar itself is wrong.
	}
	command, err := parser.Parse(signedLast(args))
	if parse := (*kong.ParseError)(nil); len(args) == 0 && errors.As(err, &parse) {
		if err = parse.Context.PrintUsage(false); err == nil {
			return 2
		}
	}
	if err == nil {
		err = command.Run()
	}
	if err != nil {
		fmt.Fprintln(s.err, "permitchain:", err)
	}
	if parse := (*kong.ParseError)(nil); errors.As(err, &parse) {
		fmt.Fprintln(s.err, "permitchain --help tells how it is used")
	}
	return exitCode(err)
}

const about = `Decides when to take a futures position off, and closes it with reduce-only orders, when two independent permits agree.

Exit codes: 0 done, 1 failed or not found, 2 usage or config, 3 differs or unhealthy, 4 refused, 5 no chain is running,
6 ledger locked, broken or not durable, 7 exchange or key.`

// cli is the whole grammar.
type cli struct {
	Config string `short:"c" placeholder:"FILE" help:"Configuration; without one the built-in defaults, so mode paper."`
	Mode   string `placeholder:"MODE" help:"Instead of the configuration's mode: paper, dry_run, testnet or live."`
	Output string `short:"o" enum:"table,json" default:"table" help:"table or json."`
	Yes    string `placeholder:"TAIL" help:"In mode live, actions want the last 4 characters of the API key."`

	Run      runCmd      `cmd:"" help:"Start the chain (paper by default: no keys, a synthetic market)."`
	Replay   replayCmd   `cmd:"" help:"Decide recorded logs again, and show where the answers differ."`
	Simulate simulateCmd `cmd:"" help:"Run your configuration for virtual hours against a hostile exchange, and check every invariant."`
	Eval     evalCmd     `cmd:"" help:"Run a kernel of the exit-brain over JSON lines."`
	Conf     configCmd   `cmd:"" name:"config" help:"Check, show, begin or reload a configuration."`
	Doctor   doctorCmd   `cmd:"" help:"Find what would keep a chain from working: key, clock, exchange, streams, disk, ledger."`
	Sandbox  sandboxCmd  `cmd:"" help:"Serve an exchange that speaks Binance's REST and WebSocket, to trade on without a key."`
	Version  versionCmd  `cmd:"" help:"Show the version."`
	terminal.Commands
}

type (
	runCmd struct {
		addresses
		Speed float64 `placeholder:"N" help:"Instead of paper.speed: how many times faster the paper market passes."`
	}
	doctorCmd struct{ addresses }
	addresses struct {
		RestURL   string `placeholder:"URL" help:"Instead of exchange.rest_url."`
		StreamURL string `placeholder:"URL" help:"Instead of exchange.stream_url."`
	}
	replayCmd struct {
		Logs    []string `arg:"" optional:"" name:"log" help:"Logs, merged by time; - is standard input."`
		Journal string   `placeholder:"FILE" help:"Instead of logs: take every decision of a ledger again. The file of a chain that doesn't run, a backup, or what ledger export writes."`
		With    string   `placeholder:"FILE" help:"With --journal: this configuration decides, in place of each recorded one."`
		Set     []string `placeholder:"KEY=VALUE" help:"Change a parameter or an amount first: ledger.BTCUSDT=0.046, governor.max_per_hour=1."`
		Unknown bool     `help:"List the lines that were not understood."`
	}
	configCmd struct {
		Check configCheckCmd `cmd:"" help:"Find what is wrong with a configuration."`
		Show  configShowCmd  `cmd:"" help:"Show the effective configuration."`
		Init  configInitCmd  `cmd:"" help:"Write the commented defaults to a new file."`

		Reload configReloadCmd `cmd:"" help:"Have the running chain read its configuration again."`
	}
	configCheckCmd struct {
		File string `arg:"" optional:"" help:"Instead of --config."`
	}
	configShowCmd struct{}
	configInitCmd struct {
		File string `arg:"" default:"config.yaml" help:"The file to write; nothing is overwritten."`
	}
	configReloadCmd struct{}
	versionCmd      struct{}
)

// signed is an amount that would be read as a flag.
var signed = regexp.MustCompile(`^-[0-9.]+$`)

// signedLast moves negative amounts behind "--", where they are no flags.
func signedLast(args []string) []string {
	i := slices.IndexFunc(args, signed.MatchString)
	if i < 0 || slices.Contains(args[:i], "--") {
		return args
	}
	return append(slices.Delete(slices.Clone(args), i, i+1), "--", args[i])
}

// usageError is an exit with 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitCode is SPEC §10's code for an error. What concerns the ledger comes first: it matters most.
func exitCode(err error) int {
	var failure *operator.Failure
	var config *stages.ConfigError
	var usage usageError
	var parse *kong.ParseError
	is := func(any ...error) bool {
		return slices.ContainsFunc(any, func(e error) bool { return errors.Is(err, e) })
	}
	switch {
	case err == nil:
		return 0
	case is(store.ErrHalted, store.ErrDamaged, store.ErrLocked, store.ErrForeign, store.ErrUnwritten, syscall.ENOSPC):
		return 6
	case is(stages.ErrExchange):
		return 7
	case is(operator.ErrServe), errors.As(err, &config), errors.As(err, &usage), errors.As(err, &parse):
		return 2
	case errors.As(err, &failure):
		return failure.ExitCode()
	default:
		return 1
	}
}

// app is what commands work with.
type app struct {
	cli
	ctx context.Context
	streams
	hooks hooks
}

// isTerminal tells whether a person looks at w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

func colored(w io.Writer) bool {
	return isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

func (a *app) config() (*stages.Config, error) {
	c, err := stages.LoadConfig(defaults, a.Config)
	if err == nil && a.Mode != "" {
		c, err = flagged(c, "--mode", fmt.Sprintf("mode: %q\n", a.Mode))
	}
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// terminal is where commands on a chain are run; kong asks for it when one of them does.
func (a *app) terminal() (*terminal.Terminal, error) {
	c, err := a.config()
	if err != nil {
		return nil, err
	}
	t := &terminal.Terminal{In: a.in, Out: a.out, JSON: a.Output == "json", Color: colored(a.out)}
	if f, ok := a.out.(*os.File); ok && isTerminal(f) {
		t.Width = terminal.WidthOf(f)
	}
	if u, err := user.Current(); err == nil {
		t.By = u.Username
	}
	if tail := c.Live.ConfirmKeyTail; c.Mode == ledger.Live && (tail == "" || a.Yes != tail) {
		t.Unconfirmed = &operator.Failure{Kind: operator.Refused, Text: "in mode live an action wants --yes with the last 4 characters of the API key, as in live.confirm_key_tail"}
	}
	options := c.StoreOptions()
	options.Verify = a.verifyApart
	t.Door = terminal.Door{
		Stage: operator.Stage{
			Mode: c.Mode, Version: version, Config: string(c.Effective()), Digest: c.Digest(), Symbols: c.SymbolNames(), Limits: c.Limits, Tell: stages.Tell,
			Socket: filepath.Join(c.Dir(), stages.SocketFile),
		},
		Ledger: filepath.Join(c.Dir(), stages.LedgerFile), Options: options,
	}
	return t, nil
}

// verifyApart checks a ledger in a process of its own: a file damaged badly enough can take that one down, and nothing else.
func (a *app) verifyApart(path string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(a.ctx, self, "ledger", "verify", "--file", path).CombinedOutput()
	if err == nil || a.ctx.Err() != nil {
		return a.ctx.Err() // What was cut short says nothing about the ledger.
	}
	said := strings.TrimPrefix(strings.TrimSpace(string(out)), "permitchain: ")
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 6 && strings.Contains(said, store.ErrLocked.Error()) {
		return fmt.Errorf("%w: %s", store.ErrLocked, said)
	}
	return fmt.Errorf("%w: %s (%w)", store.ErrDamaged, said, err)
}

// logger writes what a person reads on a terminal, and JSON elsewhere.
func (a *app) logger(c stages.LogConfig) (log zerolog.Logger, pretty bool) {
	level, err := zerolog.ParseLevel(string(c.Level))
	if err != nil {
		level = zerolog.InfoLevel // The configuration knows no other words.
	}
	pretty = c.Format == "pretty" || c.Format == "auto" && isTerminal(a.err)
	w := a.err
	if pretty {
		first := []string{zerolog.TimestampFieldName, zerolog.LevelFieldName, "symbol", "plan", zerolog.MessageFieldName}
		w = zerolog.ConsoleWriter{
			Out: a.err, NoColor: !colored(a.err), TimeFormat: "15:04:05", TimeLocation: time.UTC, PartsOrder: first, FieldsExclude: []string{"stage", "symbol", "plan"},
			FormatPartValueByName: func(v any, name string) string {
				if v == nil {
					v = ""
				}
				return fmt.Sprintf("%-*s", map[string]int{"symbol": 8, "plan": 8}[name], v)
			},
		}
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger(), pretty
}

// config is the configuration with what the flags say laid over it.
func (r runCmd) config(a *app) (*stages.Config, error) {
	c, err := r.laid(a)
	if err == nil && r.Speed != 0 {
		c, err = flagged(c, fmt.Sprintf("--speed %g", r.Speed), fmt.Sprintf("paper: {speed: %g}\n", r.Speed))
	}
	return c, err
}

// flagged lays what a flag says over a configuration. Errors name the flag, and no line: nobody wrote one.
func flagged(c *stages.Config, flag, text string) (*stages.Config, error) {
	c, err := stages.ParseConfig(c.Effective(), flag, []byte(text))
	if wrong := (*stages.ConfigError)(nil); errors.As(err, &wrong) {
		err = &stages.ConfigError{File: flag, Key: wrong.Key, Problem: wrong.Problem}
	}
	return c, err
}

// Run starts the chain.
func (r runCmd) Run(a *app) error {
	c, err := r.config(a)
	if err != nil {
		return err
	}
	log, pretty := a.logger(c.Log)
	for _, w := range c.Warnings() {
		log.Warn().Msg(w)
	}
	if pretty {
		flag, api := "", "http://"+c.HTTP.Listen
		if c.HTTP.Listen == "" {
			api = "off; the control socket serves the command line"
		}
		if a.Config != "" {
			flag = " -c " + a.Config
		}
		if a.Mode != "" {
			flag += " --mode " + a.Mode
		}
		fmt.Fprintf(a.err, "permitchain %s, mode %s\n  state   %s\n  API     %s\n  In a second terminal: permitchain%s status, or why. Ctrl-C ends.\n",
			version, c.Mode, c.Dir(), api, flag)
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	err = stages.Run(a.ctx, stages.Options{
		Config: c, Version: version, Log: log, Load: func() (*stages.Config, error) { return r.config(a) }, Hangup: hangup, Point: a.hooks.point, Verify: a.verifyApart,
	})
	if errors.Is(err, context.Canceled) && a.ctx.Err() != nil {
		return nil // It was told to end before it had begun.
	}
	return err
}

// Run checks a configuration.
func (c configCheckCmd) Run(a *app) error {
	if c.File != "" {
		a.Config = c.File
	}
	config, err := a.config()
	if err != nil {
		return err
	}
	warnings := config.Warnings()
	if a.Output == "json" {
		return json.NewEncoder(a.out).Encode(map[string]any{"ok": true, "digest": config.Digest(), "warnings": append([]string{}, warnings...)})
	}
	for _, w := range warnings {
		fmt.Fprintln(a.out, "warning:", w)
	}
	fmt.Fprintf(a.out, "ok: mode %s, %d symbols, digest %.12s\n", config.Mode, len(config.Symbols), config.Digest())
	return nil
}

// Run shows the effective configuration.
func (configShowCmd) Run(a *app) error {
	c, err := a.config()
	if err != nil {
		return err
	}
	if a.Output == "json" {
		return json.NewEncoder(a.out).Encode(map[string]string{"digest": c.Digest(), "config": string(c.Effective())})
	}
	_, err = a.out.Write(c.Effective())
	return err
}

// Run writes the commented defaults to a new file.
func (c configInitCmd) Run(a *app) error {
	f, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	_, err = f.Write(defaults)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	fmt.Fprintf(a.out, "wrote %s; permitchain config check %s checks it\n", c.File, c.File)
	return nil
}

// Run has the running chain read its configuration again.
func (configReloadCmd) Run(ctx context.Context, t *terminal.Terminal) error { return t.Reload(ctx) }

// Run tells the version.
func (versionCmd) Run(a *app) error {
	if a.Output == "json" {
		return json.NewEncoder(a.out).Encode(map[string]string{"version": version})
	}
	fmt.Fprintln(a.out, "permitchain", version)
	return nil
}

type (
	evalCmd struct {
		Harvest     evalHarvestCmd `cmd:"" help:"Which close the harvest rule proposes for a position."`
		MarketState evalMarketCmd  `cmd:"" help:"What the prices say of the market."`
	}
	evalHarvestCmd struct{ evalInput }
	evalMarketCmd  struct{ evalInput }
	evalInput      struct {
		File string `arg:"" optional:"" default:"-" help:"JSON lines; - is standard input."`
	}
)

// Run evaluates the harvest rule.
func (e evalHarvestCmd) Run(a *app) error {
	return e.eval(a, func(in io.Reader, c exitbrain.Config) (int, error) {
		return exitbrain.EvalHarvest(in, a.out, c.HarvestParams)
	})
}

// Run evaluates the market state.
func (e evalMarketCmd) Run(a *app) error {
	return e.eval(a, func(in io.Reader, c exitbrain.Config) (int, error) {
		return exitbrain.EvalMarketState(in, a.out, c.MarketParams)
	})
}

// eval answers line by line; a line that is an error says so in its place, and is no failure of the command.
func (e evalInput) eval(a *app, kernel func(io.Reader, exitbrain.Config) (int, error)) error {
	c, err := a.config()
	if err != nil {
		return err
	}
	if e.File == "-" {
		_, err = kernel(a.in, c.ExitBrain)
		return err
	}
	f, err := os.Open(e.File)
	if err != nil {
		return fmt.Errorf("open lines: %w", err)
	}
	_, err = kernel(f, c.ExitBrain)
	return errors.Join(err, f.Close())
}

// Run decides recorded logs again.
func (r replayCmd) Run(a *app) (err error) {
	switch {
	case r.Journal != "" && (len(r.Logs) > 0 || len(r.Set) > 0 || r.Unknown):
		return usageError{errors.New("--journal takes no logs, and neither --set nor --unknown: --with FILE changes a configuration")}
	case r.Journal != "":
		return r.journal(a)
	case len(r.Logs) == 0 || r.With != "":
		return usageError{errors.New("logs are wanted, or --journal FILE, with which --with FILE goes")}
	}
	c, err := a.config()
	if err != nil {
		return err
	}
	overrides, sets, err := replay.ParseSets(r.Set)
	if err != nil {
		return usageError{err}
	}
	// What is set is laid over this configuration, and over each that an export records.
	rulesOf := func(base string) (func(string) replay.Rules, error) {
		c, err := stages.ParseConfig([]byte(base), "--set", replay.Overlay(sets))
		if err != nil {
			return nil, usageError{err}
		}
		return c.Rules, nil
	}
	rules, err := rulesOf(string(c.Effective()))
	if err != nil {
		return err
	}
	sources, closeAll, err := replay.OpenLogs(r.Logs, a.in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	report, err := replay.Run(replay.Options{Rules: rules, Overrides: overrides, Recorded: rulesOf, Unknown: r.Unknown}, sources)
	if set := (*replay.SetError)(nil); errors.As(err, &set) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	if a.Output == "json" {
		err = json.NewEncoder(a.out).Encode(report)
	} else {
		err = report.WriteTable(a.out, colored(a.out))
	}
	if err == nil && report.Plans == 0 {
		return replay.ErrNoPlans
	}
	if err == nil && report.Differs() {
		err = &operator.Failure{Kind: operator.Unhealthy, Text: fmt.Sprintf("%d of %d plans differ", report.Differ, report.Plans)}
	}
	return err
}

// journal takes every decision of a ledger again.
func (r replayCmd) journal(a *app) (err error) {
	o := replay.AgainOptions{Recorded: stages.RecordedRules}
	if r.With != "" {
		c, err := stages.LoadConfig(defaults, r.With)
		if err != nil {
			return usageError{err}
		}
		o.With = c.Rules
	}
	records, closeFile, err := openJournal(r.Journal)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeFile()) }()
	report, err := replay.Again(o, records)
	if wrong := (*ledger.BrokenError)(nil); errors.As(err, &wrong) {
		err = fmt.Errorf("%w: journal %s: %w", store.ErrDamaged, r.Journal, err)
	}
	if err != nil {
		return err
	}
	report.Source, report.With = r.Journal, r.With
	if a.Output == "json" {
		err = json.NewEncoder(a.out).Encode(report)
	} else {
		err = report.WriteTable(a.out)
	}
	if err == nil && report.Differs() {
		err = &operator.Failure{Kind: operator.Unhealthy, Text: fmt.Sprintf("%d of %d decisions differ", report.Differ, report.Decided)}
	}
	return err
}

// openJournal opens what holds a journal: JSON lines, or else a ledger file.
func openJournal(path string) (replay.Journal, func() error, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	first := make([]byte, 1)
	if n, err := f.Read(first); err == nil && n == 1 && first[0] == '{' {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("open journal: %w", err), f.Close())
		}
		return replay.Lines(f), f.Close, nil
	}
	if err := f.Close(); err != nil {
		return nil, nil, err
	}
	reader, err := store.OpenReader(path, store.Options{})
	if errors.Is(err, store.ErrLocked) {
		err = fmt.Errorf("%w: a running chain holds it; permitchain ledger backup makes a copy to read", err)
	}
	if err != nil {
		return nil, nil, err
	}
	records := func(fn func(ledger.Record) error) error {
		return reader.Records(1, 0, func(rec ledger.Record, _ string) error { return fn(rec) })
	}
	return records, reader.Close, nil
}

type simulateCmd struct {
	Seed   uint64  `default:"1" help:"The first seed. The same seed and configuration give the same trace to the byte."`
	Seeds  int     `default:"1" help:"How many seeds, on all cores."`
	Hours  float64 `help:"Virtual hours with faults, of each seed (24; of many seeds 0.02)."`
	Faults string  `default:"hostile" help:"none, calm, hostile, or names of faults with commas between."`
	Trace  bool    `help:"Show everything that happens, line by line. One seed only."`
	HTML   string  `name:"html" placeholder:"FILE" help:"Write a report that a browser shows."`
}

// Hours of each seed, where none are told: enough to see a day's limits, and of many enough for a few closes.
const (
	hoursOfOne  = 24
	hoursOfMany = 0.02
)

// Run simulates.
func (s simulateCmd) Run(a *app) (err error) {
	c, err := a.config()
	if err != nil {
		return err
	}
	faults, err := simulate.ParseFaults(s.Faults)
	switch {
	case err != nil:
		return usageError{err}
	case s.Seeds < 1, s.Hours < 0, s.Trace && s.Seeds > 1:
		return usageError{errors.New("at least one seed, hours above 0, and a trace of one seed alone are wanted")}
	case s.Hours == 0 && s.Seeds == 1:
		s.Hours = hoursOfOne
	case s.Hours == 0:
		s.Hours = hoursOfMany
	}
	o := simulate.Options{Seed: s.Seed, Seeds: s.Seeds, Hours: s.Hours, Faults: faults}
	trace := bufio.NewWriter(a.out)
	if s.Trace {
		o.Trace = trace
	}
	if isTerminal(a.err) {
		o.Progress = progress(a.err, s.Seeds)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // Worlds are small and die soon.
	r := simulate.Run(c.Simulated(), o)
	if s.Trace {
		if err := trace.Flush(); err != nil {
			return fmt.Errorf("write the trace: %w", err)
		}
	}
	r.Reproduce(func(seed uint64) string {
		command := fmt.Sprintf("permitchain simulate --seed %d --hours %g --faults %s --trace", seed, s.Hours, s.Faults)
		if a.Config != "" {
			command += " -c " + a.Config
		}
		return command
	})
	if s.HTML != "" {
		if err := writeReport(s.HTML, r); err != nil {
			return err
		}
	}
	switch {
	case a.Output == "json":
		err = r.WriteJSON(a.out)
	case !s.Trace:
		err = r.WriteTable(a.out)
	}
	if n := len(r.Violations); err == nil && n > 0 {
		err = &operator.Failure{Kind: operator.Unhealthy, Text: fmt.Sprintf("%d of %d seeds violate an invariant", n, r.Seeds)}
	}
	return err
}

// progress tells how far a run of many seeds is, on one line.
func progress(w io.Writer, seeds int) func(done, violations int) {
	began := time.Now()
	every := max(1, seeds/200)
	return func(done, violations int) {
		if done%every == 0 || done == seeds {
			fmt.Fprintf(w, "\r%d of %d seeds, %.0f a second, %d violations ", done, seeds, float64(done)/time.Since(began).Seconds(), violations)
		}
		if done == seeds {
			fmt.Fprintln(w)
		}
	}
}

func writeReport(path string, r *simulate.Result) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return errors.Join(r.WriteHTML(f), f.Close())
}

// sandboxCmd serves an exchange that speaks Binance's REST and WebSocket, with one made-up account.
type sandboxCmd struct {
	Listen   string                `default:"127.0.0.1:8790" placeholder:"ADDRESS" help:"Address and port on this machine (${default}); port 0 takes a free one."`
	Seed     uint64                `default:"1" help:"The same seed makes the same market, luck, and made-up key."`
	Speed    float64               `default:"1" placeholder:"N" help:"How many times faster its market passes (${default})."`
	Position map[string]ledger.Qty `placeholder:"SYMBOL=QTY" help:"What the account holds at first (BTCUSDT=0.046); without it 1 of the first symbol. In hedge mode by SYMBOL:LONG or SYMBOL:SHORT; a short is negative."`
	Hedge    bool                  `help:"Hedge mode: LONG and SHORT side by side."`
	Reopen   time.Duration         `default:"0s" help:"Somebody opens a closed position again after so long; 0s: nobody does."`
	Faults   string                `enum:"none,calm,hostile" default:"none" help:"What goes wrong by itself: none, calm (a bad day) or hostile (a day that never was)."`
	Key      string                `help:"The API key that it accepts; without one it makes one up."`
	Secret   string                `help:"The secret of --key; or the public half of an Ed25519 pair, as PEM."`
}

// options are the sandbox's; a user's mistake is a usage error.
func (c sandboxCmd) options(symbols []string) (sandbox.Options, error) {
	o := sandbox.Options{Seed: c.Seed, Speed: c.Speed, Symbols: symbols, Hedge: c.Hedge, Reopen: c.Reopen, Key: c.Key, Secret: c.Secret, Positions: map[ledger.Key]ledger.Qty{}}
	if (c.Key == "") != (c.Secret == "") {
		return o, usageError{errors.New("--key and --secret go together")}
	}
	if c.Key == "" {
		o.Key, o.Secret = madeUp("key", c.Seed), madeUp("secret", c.Seed)
	}
	for name, q := range c.Position {
		k, err := stages.SeedKey(name)
		if err != nil {
			return o, usageError{fmt.Errorf("--position: %w", err)}
		}
		o.Positions[k] = q
	}
	if c.Position == nil {
		side := ledger.Both
		if c.Hedge {
			side = ledger.Long
		}
		o.Positions[ledger.Key{Symbol: symbols[0], Side: side}] = ledger.MustQty("1")
	}
	var err error
	if o.Faults, err = sandbox.Preset(c.Faults); err == nil {
		err = o.Check()
	}
	if err != nil {
		return o, usageError{err}
	}
	return o, nil
}

// madeUp is a key, or a secret, that opens nothing but a sandbox of that seed.
func madeUp(what string, seed uint64) string {
	sum := sha256.Sum256([]byte("permitchain sandbox " + what + " " + strconv.FormatUint(seed, 10)))
	return hex.EncodeToString(sum[:])
}

// Run serves the sandbox until it is stopped.
func (c sandboxCmd) Run(a *app) error {
	config, err := a.config()
	if err != nil {
		return err
	}
	o, err := c.options(config.SymbolNames())
	if err != nil {
		return err
	}
	at, err := netip.ParseAddrPort(c.Listen)
	if err != nil || !at.Addr().IsLoopback() {
		return usageError{errors.New("--listen: an address of this machine with a port, like 127.0.0.1:8790, is wanted")}
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("serve the sandbox: %w", err)
	}
	if err := c.announce(a, l.Addr().String(), o); err != nil {
		return errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	s := sandbox.New(o)
	server := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	ran := make(chan error, 2)
	go func() { ran <- s.Run(ctx) }()
	go func() { ran <- server.Serve(l) }()
	err = <-ran
	cancel()
	err = errors.Join(err, server.Close(), <-ran)
	if a.ctx.Err() != nil {
		return nil // It was stopped, and whatever ended with it may say so.
	}
	return fmt.Errorf("serve the sandbox: %w", err)
}

// announce tells what to type to trade on it.
func (c sandboxCmd) announce(a *app, address string, o sandbox.Options) error {
	rest, stream := "http://"+address, "ws://"+address
	if a.Output == "json" {
		return json.NewEncoder(a.out).Encode(map[string]string{"rest_url": rest, "stream_url": stream, "key": o.Key, "secret": o.Secret})
	}
	exports := fmt.Sprintf("    export BINANCE_API_KEY=%s\n    export BINANCE_API_SECRET=%s\n", o.Key, o.Secret)
	if c.Key != "" {
		exports = "    (export BINANCE_API_KEY and BINANCE_API_SECRET as you gave them)\n"
	}
	fmt.Fprintf(a.out, "A sandbox of Binance USD-M futures at %s: nothing in it is real, and it forgets everything when it ends. Ctrl-C ends it.\nThe account holds:", rest)
	for _, k := range slices.SortedFunc(maps.Keys(o.Positions), ledger.Key.Compare) {
		fmt.Fprintf(a.out, " %s %s", k.Label(), o.Positions[k])
	}
	fmt.Fprintf(a.out, "\n\nIn a second terminal:\n\n%s    permitchain run --mode testnet --rest-url %s --stream-url %s\n\n"+
		"In a third one: permitchain status --mode testnet. What goes wrong is switched with curl:\n\n"+
		"    curl %s/sandbox/faults                                     # every kind of fault there is\n"+
		"    curl %s/sandbox/faults -d '{\"kind\":\"hang\",\"call\":\"POST /fapi/v1/order\"}'   # the next order is executed, and its answer is lost\n"+
		"    curl %s/sandbox/log                                        # every order as it came, and what it did\n", exports, rest, stream, rest, rest, rest)
	return nil
}

// laid is the configuration with the flags' addresses laid over it.
func (u addresses) laid(a *app) (*stages.Config, error) {
	c, err := a.config()
	if err == nil && u.RestURL != "" {
		c, err = flagged(c, "--rest-url", fmt.Sprintf("exchange: {rest_url: %q}\n", u.RestURL))
	}
	if err == nil && u.StreamURL != "" {
		c, err = flagged(c, "--stream-url", fmt.Sprintf("exchange: {stream_url: %q}\n", u.StreamURL))
	}
	return c, err
}

// Run examines everything that a chain would need.
func (d doctorCmd) Run(a *app) error {
	c, err := d.laid(a)
	if err != nil {
		return err
	}
	facts := doctor.Examine(a.ctx, c)
	report := doctor.Judge(facts)
	if a.Output == "json" {
		err = report.WriteJSON(a.out)
	} else {
		err = report.Write(a.out, colored(a.out))
	}
	switch k := facts.Key; {
	case err != nil:
		return err
	case k != nil && (k.Missing != nil || k.Refused != nil):
		return fmt.Errorf("%w: without a usable key nothing can be done", stages.ErrExchange)
	case !report.Healthy:
		return &operator.Failure{Kind: operator.Unhealthy, Text: report.Summary()}
	}
	return nil
}
