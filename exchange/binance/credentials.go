package binance

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/adshao/go-binance/v2/common"
	"github.com/rs/zerolog"
)

// ErrKey tells that there is no usable API key, or that the exchange refuses it.
var ErrKey = errors.New("the API key")

// Credentials are an API key and its secret. They are behind a function, because fmt prints the strings of a struct's
// unexported fields without asking anyone.
type Credentials struct {
	reveal func() (key, secret string)
	kind   string // of signature, as go-binance names it
}

// What a key and a secret may look like; beyond it something else was pasted.
const (
	shortestKey = 8
	longestKey  = 256
	longestFile = 16 << 10
)

// NewCredentials takes a key and its secret: a text for HMAC, or an Ed25519 or RSA private key as PKCS#8 PEM.
func NewCredentials(key, secret string) (Credentials, error) {
	return found{key, "its key"}.with(found{secret, "its secret"})
}

// found is a text and where it was, by which errors name it: the text itself is never shown.
type found struct{ text, place string }

func (k found) with(s found) (Credentials, error) {
	key, secret := strings.TrimSpace(k.text), strings.TrimSpace(s.text)
	if err := keyForm(key); err != nil {
		return Credentials{}, fmt.Errorf("%w: %s %w", ErrKey, k.place, err)
	}
	kind := common.KeyTypeHmac
	if strings.HasPrefix(secret, "-----BEGIN") {
		var err error
		if kind, err = pemKind(secret); err != nil {
			return Credentials{}, fmt.Errorf("%w: %s %w", ErrKey, s.place, err)
		}
	} else if err := keyForm(secret); err != nil {
		return Credentials{}, fmt.Errorf("%w: %s %w", ErrKey, s.place, err)
	}
	if key == secret {
		return Credentials{}, fmt.Errorf("%w: key and secret (%s, %s) are the same text", ErrKey, k.place, s.place)
	}
	return Credentials{reveal: func() (string, string) { return key, secret }, kind: kind}, nil
}

// keyForm says what is wrong with a text without showing any of it.
func keyForm(text string) error {
	if len(text) < shortestKey || len(text) > longestKey {
		return fmt.Errorf("has %d characters; %d to %d are possible", len(text), shortestKey, longestKey)
	}
	for i, c := range []byte(text) {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("has a blank or an unprintable character at position %d", i+1)
		}
	}
	return nil
}

func pemKind(secret string) (string, error) {
	block, rest := pem.Decode([]byte(secret))
	switch {
	case block == nil || len(strings.TrimSpace(string(rest))) > 0:
		return "", errors.New("is not one PEM block")
	case block.Type != "PRIVATE KEY":
		return "", errors.New("is not an unencrypted PKCS#8 key (openssl pkcs8 -topk8 -nocrypt makes it one)")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return "", errors.New("is a PEM block that holds no PKCS#8 key")
	}
	switch parsed.(type) {
	case ed25519.PrivateKey:
		return common.KeyTypeEd25519, nil
	case *rsa.PrivateKey:
		return common.KeyTypeRsa, nil
	default:
		return "", errors.New("is neither an Ed25519 nor an RSA key")
	}
}

// LoadCredentials finds the key and its secret: each in BINANCE_API_KEY and BINANCE_API_SECRET, in the file that
// BINANCE_API_KEY_FILE and BINANCE_API_SECRET_FILE name, or among systemd's credentials as binance_api_key and
// binance_api_secret. Two places for one of them are an error: nobody could tell which was meant.
func LoadCredentials(getenv func(string) string) (Credentials, error) {
	key, err := loadSecret(getenv, "BINANCE_API_KEY")
	if err != nil {
		return Credentials{}, err
	}
	secret, err := loadSecret(getenv, "BINANCE_API_SECRET")
	if err != nil {
		return Credentials{}, err
	}
	return key.with(secret)
}

func loadSecret(getenv func(string) string, name string) (found, error) {
	text, file := getenv(name), getenv(name+"_FILE")
	if text != "" && file != "" {
		return found{}, fmt.Errorf("%w: both %s and %s_FILE are set", ErrKey, name, name)
	}
	if text != "" {
		return found{text, name}, nil
	}
	dir := getenv("CREDENTIALS_DIRECTORY")
	if file == "" && dir != "" {
		file = filepath.Join(dir, strings.ToLower(name))
	}
	if file == "" {
		return found{}, fmt.Errorf("%w: neither %s nor %s_FILE is set", ErrKey, name, name)
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return found{}, fmt.Errorf("%w: %s is not there; set %s, or %s_FILE", ErrKey, file, name, name)
	} else if err != nil {
		return found{}, fmt.Errorf("%w: open its file: %w", ErrKey, err)
	}
	defer func() { _ = f.Close() }() // It was only read.
	raw, err := io.ReadAll(io.LimitReader(f, longestFile+1))
	if err != nil {
		return found{}, fmt.Errorf("%w: read its file: %w", ErrKey, err)
	}
	if len(raw) > longestFile {
		return found{}, fmt.Errorf("%w: %s is longer than any key", ErrKey, file)
	}
	return found{string(raw), file}, nil
}

// Tail is the last four characters of the key, which name it among an owner's keys; "" where there is none.
func (c Credentials) Tail() string {
	if c.reveal == nil {
		return ""
	}
	key, _ := c.reveal()
	return key[len(key)-4:]
}

// String is what may be shown.
func (c Credentials) String() string {
	if c.reveal == nil {
		return "no API key"
	}
	return "API key …" + c.Tail()
}

// Format is String for every verb: none shows more.
func (c Credentials) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, c.String()) }

// MarshalJSON is String.
func (c Credentials) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// MarshalText is String.
func (c Credentials) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalZerologObject is String.
func (c Credentials) MarshalZerologObject(e *zerolog.Event) { e.Str("key", c.String()) }
