// Command permitchain decides when to take a futures position off, and closes it with
// reduce-only orders, but only when two independent permits agree.
//
// This file is the grammar of its command line and the wiring; other files have single commands. A command reads the
// configuration, builds what it needs, and calls one function of the package that owns the noun.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"

	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/stages"
	"permitchain/stages/operator"
	"permitchain/stages/operator/terminal"
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
