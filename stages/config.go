package stages

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"permitchain/ledger"
	"permitchain/stages/apply"
	"permitchain/stages/exitbrain"
	"permitchain/stages/governor"
	"permitchain/stages/reconcile"
)

// Config is everything a process is told by its config.yaml. It is complete: what the
// user's file leaves out has the value of the built-in config.yaml, the only source of defaults.
type Config struct {
	Mode         ledger.Mode    `yaml:"mode"`
	StateDir     string         `yaml:"state_dir"`
	Symbols      []Symbol       `yaml:"symbols"`
	Exchange     ExchangeConfig `yaml:"exchange"`
	Live         LiveConfig     `yaml:"live"`
	SymbolConfig                // what holds for symbols without overrides
	HTTP         HTTPConfig     `yaml:"http"`
	Paper        PaperConfig    `yaml:"paper"`
	Log          LogConfig      `yaml:"log"`

	warnings []string
}

// SymbolConfig are the parameters that may differ between symbols, but for those of the whole process.
type SymbolConfig struct {
	ExitBrain exitbrain.Config `yaml:"exit_brain"`
	Apply     apply.Config     `yaml:"apply"`
	Governor  governor.Config  `yaml:"governor"`
	Reconcile reconcile.Config `yaml:"reconcile"`
}

// Symbol is a market to work on, with the parameters that hold for it.
type Symbol struct {
	Name string `yaml:"name"`
	SymbolConfig
}

// ExchangeConfig is how the real exchange is reached. An empty URL means the mode's own.
type ExchangeConfig struct {
	RESTURL    string        `yaml:"rest_url"`
	StreamURL  string        `yaml:"stream_url"`
	RecvWindow time.Duration `yaml:"recv_window"`
	Timeout    time.Duration `yaml:"timeout"`
}

// LiveConfig is the operator's word that live is meant.
type LiveConfig struct {
	ConfirmKeyTail string `yaml:"confirm_key_tail"`
}

// HTTPConfig is where the API and the console listen.
type HTTPConfig struct {
	Listen    string `yaml:"listen"`
	TokenFile string `yaml:"token_file"`
}

// PaperConfig is the embedded exchange: Positions seed a new book, Ledger a new ledger.
type PaperConfig struct {
	Seed      int64                     `yaml:"seed"`
	Speed     float64                   `yaml:"speed"`
	Hedge     bool                      `yaml:"hedge"`
	Positions map[ledger.Key]ledger.Qty `yaml:"positions"`
	Ledger    map[ledger.Key]ledger.Qty `yaml:"ledger"`
}

// LogConfig is what is logged, and in which form.
type LogConfig struct {
	Level  LogLevel  `yaml:"level"`
	Format LogFormat `yaml:"format"`
}

// LogLevel is the least severity that is logged: debug, info, warn or error.
type LogLevel string

// LogFormat is pretty, json, or auto: pretty on a terminal and json elsewhere.
type LogFormat string

// wholeProcess are the parameters that no symbol can have a value of its own for.
var wholeProcess = [...]string{
	"exit_brain.enabled", "exit_brain.bar", "apply.dedupe_ttl", "governor.disarm_to", "governor.disarm_errors",
	"governor.portfolio_per_hour", "governor.portfolio_daily_notional", "reconcile.snapshot_interval",
}

// choices are the texts a closed type accepts; nil where any text goes.
func choices(t reflect.Type) []string {
	switch t {
	case reflect.TypeFor[ledger.Mode]():
		return []string{string(ledger.Paper), string(ledger.DryRun), string(ledger.Testnet), string(ledger.Live)}
	case reflect.TypeFor[ledger.RunState](): // Only disarm_to is one, and disarming goes nowhere else.
		return []string{string(ledger.ProtectiveOnly), string(ledger.Disarmed)}
	case reflect.TypeFor[exitbrain.Slope]():
		return []string{string(exitbrain.TheilSen), string(exitbrain.LeastSquares)}
	case reflect.TypeFor[apply.OnStopFailure]():
		return []string{string(apply.AlertOnly), string(apply.CloseAll)}
	case reflect.TypeFor[governor.OnDailyLimit]():
		return []string{string(governor.DenyPast), string(governor.TrimTo)}
	case reflect.TypeFor[reconcile.Policy]():
		return []string{string(reconcile.Adopt), string(reconcile.HoldOnIt)}
	case reflect.TypeFor[reconcile.Dust]():
		return []string{string(reconcile.DustCloseAll), string(reconcile.DustLeave)}
	case reflect.TypeFor[LogLevel]():
		return []string{"debug", "info", "warn", "error"}
	case reflect.TypeFor[LogFormat]():
		return []string{"auto", "pretty", "json"}
	default:
		return nil
	}
}

// configBytesMax bounds what is read of a file: no configuration comes near it.
const configBytesMax = 1 << 20

// LoadConfig lays the file at path over defaults, the text of the built-in config.yaml.
// Without a path the defaults are the configuration.
func LoadConfig(defaults []byte, path string) (*Config, error) {
	if path == "" {
		return ParseConfig(defaults, "config.yaml", nil)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open config: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, configBytesMax+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	return ParseConfig(defaults, path, text)
}

// ParseConfig lays text, a file called name, over defaults. It reports all errors at once, joined,
// each a *ConfigError. defaults may be any complete configuration, also another's Effective.
func ParseConfig(defaults []byte, name string, text []byte) (*Config, error) {
	r := &configReader{file: builtIn, at: map[string]*yaml.Node{}, failed: map[string]bool{}, said: map[string]bool{}}
	r.read(defaults)
	r.file = name
	r.read(text)
	r.readSymbols()
	r.fitSeeds()
	r.check()
	if err := r.err(); err != nil {
		return nil, err
	}
	return &r.c, nil
}

// ConfigError is one thing wrong with a configuration. Line is 0 where no line of a file is to blame.
type ConfigError struct {
	File         string
	Line, Column int
	Key, Problem string
}

func (e *ConfigError) Error() string {
	text := e.File
	if e.Line > 0 {
		text = fmt.Sprintf("%s:%d:%d", e.File, e.Line, e.Column)
	}
	if e.Key != "" {
		text += ": " + e.Key
	}
	return text + ": " + e.Problem
}

// For returns the parameters that hold for symbol; those of one that is not listed are everybody's.
func (c *Config) For(symbol string) SymbolConfig {
	for _, s := range c.Symbols {
		if s.Name == symbol {
			return s.SymbolConfig
		}
	}
	return c.SymbolConfig
}

// SymbolNames lists the symbols in the order of the file.
func (c *Config) SymbolNames() []string {
	names := make([]string, len(c.Symbols))
	for i, s := range c.Symbols {
		names[i] = s.Name
	}
	return names
}

// Warnings are settings that are possible but do not do what they seem to.
func (c *Config) Warnings() []string { return slices.Clone(c.warnings) }

// Digest identifies the effective configuration: equal digests decide alike.
func (c *Config) Digest() string {
	sum := sha256.Sum256(c.Effective())
	return hex.EncodeToString(sum[:])
}

// Effective is the whole configuration as canonical YAML: every key in a fixed order, and of each
// symbol what differs from the rest. It holds no secrets, and parsed again gives the same configuration.
func (c *Config) Effective() []byte {
	var b strings.Builder
	for _, f := range fieldsOf(reflect.ValueOf(*c)) {
		switch {
		case f.key == "symbols":
			b.WriteString("symbols:\n")
			for _, s := range c.Symbols {
				overrides := flow(reflect.ValueOf(s), reflect.ValueOf(Symbol{SymbolConfig: c.SymbolConfig}))
				fmt.Fprintf(&b, "  - %s\n", overrides)
			}
		case isSection(f.value.Type()):
			fmt.Fprintf(&b, "%s:\n", f.key)
			for _, inner := range fieldsOf(f.value) {
				fmt.Fprintf(&b, "  %s: %s\n", inner.key, yamlText(inner.value))
			}
		default:
			fmt.Fprintf(&b, "%s: %s\n", f.key, yamlText(f.value))
		}
	}
	return []byte(b.String())
}

// flow writes the fields of v that differ from base as one flow mapping, "" where none does.
func flow(v, base reflect.Value) string {
	var parts []string
	ours := fieldsOf(base)
	for i, f := range fieldsOf(v) {
		text := ""
		if isSection(f.value.Type()) {
			text = flow(f.value, ours[i].value)
		} else if mine := yamlText(f.value); mine != yamlText(ours[i].value) {
			text = mine
		}
		if text != "" {
			parts = append(parts, f.key+": "+text)
		}
	}
	if parts == nil {
		return ""
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// yamlText writes one value the way configReader reads it.
func yamlText(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return durationText(x)
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64)
	case map[ledger.Key]ledger.Qty:
		parts := make([]string, 0, len(x))
		for k, q := range x {
			parts = append(parts, fmt.Sprintf("%q: %q", seedName(k), q))
		}
		slices.Sort(parts)
		return "{" + strings.Join(parts, ", ") + "}"
	case encoding.TextMarshaler:
		return fmt.Sprintf("%q", x)
	}
	switch {
	case v.Kind() == reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = yamlText(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case v.Kind() == reflect.String && choices(v.Type()) == nil:
		return strconv.Quote(v.String())
	default:
		return fmt.Sprint(v.Interface())
	}
}

// durationText is d in its shortest form: 1m rather than 1m0s.
func durationText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// seedName is how a position is named below paper.positions and paper.ledger.
func seedName(k ledger.Key) string { return strings.TrimSuffix(k.String(), ":"+string(ledger.Both)) }

// SeedKey reads how a position is named where amounts are given by SYMBOL or SYMBOL:SIDE.
func SeedKey(name string) (ledger.Key, error) {
	if !strings.Contains(name, ":") {
		name += ":" + string(ledger.Both)
	}
	k, err := ledger.ParseKey(name)
	if err != nil || !k.Side.Valid() {
		return k, errors.New("wants SYMBOL, SYMBOL:LONG or SYMBOL:SHORT as its key")
	}
	return k, nil
}
