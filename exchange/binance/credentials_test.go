package binance

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"permitchain/exchange"
)

func pemOf(t *testing.T, kind string, key any) string {
	t.Helper()
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}))
}

func TestCredentialsForm(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPEM := pemOf(t, "PRIVATE KEY", ed)
	for name, c := range map[string]struct{ key, secret, says string }{
		"as documented":        {testKey, testSecret, ""},
		"with blanks around":   {" " + testKey + "\n", "\t" + testSecret + "\r\n", ""},
		"Ed25519":              {testKey, edPEM, ""},
		"no key":               {"", testSecret, "its key has 0 characters; 8 to 256 are possible"},
		"no secret":            {testKey, "", "its secret has 0 characters"},
		"a blank inside":       {testKey[:10] + " " + testKey[10:], testSecret, "at position 11"},
		"two lines":            {testKey, testSecret + "\n" + testSecret, "at position 65"},
		"not ASCII":            {testKey, testSecret[:63] + "é", "at position 64"},
		"too long":             {testKey, strings.Repeat(testSecret, 5), "has 320 characters"},
		"the same twice":       {testKey, testKey, "the same text"},
		"another curve":        {testKey, pemOf(t, "PRIVATE KEY", ec), "neither an Ed25519 nor an RSA key"},
		"encrypted":            {testKey, pemOf(t, "ENCRYPTED PRIVATE KEY", ed), "PKCS#8"},
		"two blocks":           {testKey, edPEM + edPEM, "not one PEM block"},
		"cut":                  {testKey, edPEM[:60], "not one PEM block"},
		"a PEM of other bytes": {testKey, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte(testSecret)})), "holds no PKCS#8 key"},
	} {
		got, err := NewCredentials(c.key, c.secret)
		if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || !errors.Is(err, ErrKey)) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			sane(t, err.Error())
		} else if got.Tail() != testKey[len(testKey)-4:] {
			t.Errorf("%s: the tail is %q", name, got.Tail())
		}
	}
}

func TestLoadCredentials(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, secret := write("key", testKey+"\n"), write("secret", testSecret+"\n")
	systemd := filepath.Join(dir, "systemd")
	if err := os.Mkdir(systemd, 0o700); err != nil {
		t.Fatal(err)
	}
	write("systemd/binance_api_key", testKey)
	write("systemd/binance_api_secret", testSecret)
	for name, c := range map[string]struct {
		env  map[string]string
		says string
	}{
		"environment":   {map[string]string{"BINANCE_API_KEY": testKey, "BINANCE_API_SECRET": testSecret}, ""},
		"files":         {map[string]string{"BINANCE_API_KEY_FILE": key, "BINANCE_API_SECRET_FILE": secret}, ""},
		"one of each":   {map[string]string{"BINANCE_API_KEY": testKey, "BINANCE_API_SECRET_FILE": secret}, ""},
		"systemd":       {map[string]string{"CREDENTIALS_DIRECTORY": systemd}, ""},
		"both":          {map[string]string{"BINANCE_API_KEY": testKey, "BINANCE_API_KEY_FILE": key}, "both BINANCE_API_KEY and"},
		"none":          {nil, "neither BINANCE_API_KEY nor BINANCE_API_KEY_FILE is set"},
		"no secret":     {map[string]string{"BINANCE_API_KEY": testKey}, "neither BINANCE_API_SECRET nor"},
		"no such file":  {map[string]string{"BINANCE_API_KEY_FILE": filepath.Join(dir, "other")}, "is not there"},
		"other systemd": {map[string]string{"CREDENTIALS_DIRECTORY": dir}, "is not there"},
		"a directory":   {map[string]string{"BINANCE_API_KEY_FILE": dir}, "read its file"},
		"a short one":   {map[string]string{"BINANCE_API_KEY": testKey, "BINANCE_API_SECRET": "abc"}, "BINANCE_API_SECRET has 3 characters; 8 to 256 are possible"},
		"a short file":  {map[string]string{"BINANCE_API_KEY_FILE": write("short", "abc"), "BINANCE_API_SECRET": testSecret}, filepath.Join(dir, "short") + " has 3 characters; 8 to 256"},
		"twice":         {map[string]string{"BINANCE_API_KEY": testKey, "BINANCE_API_SECRET": testKey}, "(BINANCE_API_KEY, BINANCE_API_SECRET) are the same text"},
		"a big file":    {map[string]string{"BINANCE_API_KEY_FILE": write("big", strings.Repeat("x", longestFile+1))}, "longer than any key"},
	} {
		got, err := LoadCredentials(func(name string) string { return c.env[name] })
		if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || !errors.Is(err, ErrKey)) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err != nil {
			sane(t, err.Error())
			continue
		}
		if k, s := got.reveal(); k != testKey || s != testSecret {
			t.Errorf("%s: another key, or another secret", name)
		}
	}
}

// Whatever prints the credentials, or what holds them, shows no more than the key's last four characters.
func TestCredentialsAreNeverShown(t *testing.T) {
	f := newFake(t)
	var logged bytes.Buffer
	b := f.open(func(o *Options) { o.Log = zerolog.New(&logged) })
	type holder struct {
		Open   Credentials
		hidden Credentials
		Ptr    *Credentials
		List   []Credentials
		Map    map[string]Credentials
	}
	c := b.opt.Credentials
	still, err := build(b.opt) // Printing one that works would race with it.
	if err != nil {
		t.Fatal(err)
	}
	h := holder{c, c, &c, []Credentials{c}, map[string]Credentials{"a": c}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%c", "%U", "%T", "%p", "%t", "%10.3v", "%e"} {
		for _, v := range []any{c, &c, h, &h, b.opt, &b.opt, still, still.http} {
			sane(t, fmt.Sprintf(verb, v))
		}
	}
	for _, v := range []any{c, &c, h, b.opt.Credentials} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		sane(t, string(text))
	}
	if text, err := c.MarshalText(); err != nil || string(text) != "API key …"+testKey[60:] {
		t.Errorf("%s, %v", text, err)
	}
	log := zerolog.New(&logged)
	log.Info().Interface("a", c).Any("b", h).Object("c", c).Stringer("d", c).EmbedObject(c).Msgf("%v %+v", c, h)
	log.Info().Ctx(context.Background()).Fields(map[string]any{"e": c}).Send()

	// Errors of every kind, among them an answer that gives the URL back.
	f.says(postOrder, 500, "POST /fapi/v1/order?timestamp=1&signature=abc ")
	f.on("GET /fapi/v1/order", cut)
	_ = fmt.Sprint(b.Place(context.Background(), anOrder(b)))
	for _, verb := range []string{"%v", "%+v", "%#v", "%q", "%s"} {
		_, err := b.Find(context.Background(), btc, "pc-1")
		sane(t, fmt.Sprintf(verb, err))
		for ; err != nil; err = errors.Unwrap(err) {
			sane(t, fmt.Sprintf(verb, err))
			if u := (*url.Error)(nil); errors.As(err, &u) {
				t.Errorf("the URL is in it: %v", u)
			}
		}
		sane(t, fmt.Sprintf(verb, b.Place(context.Background(), anOrder(b))))
	}
	f.says(postOrder, 401, `{"code":-2015,"msg":"no"}`)
	b.Place(context.Background(), anOrder(b))
	sane(t, fmt.Sprintf("%+v %#v", b.Health(), b.Health()))
	sane(t, logged.String())
	if logged.Len() == 0 {
		t.Error("nothing was logged, and so nothing was looked at")
	}
}

// An Ed25519 and an RSA key sign what they should.
func TestAsymmetricSignatures(t *testing.T) {
	edPublic, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		secret string
		verify func(payload, signature []byte) bool
	}{
		"Ed25519": {pemOf(t, "PRIVATE KEY", ed), func(p, s []byte) bool { return ed25519.Verify(edPublic, p, s) }},
		"RSA": {pemOf(t, "PRIVATE KEY", rs), func(p, s []byte) bool {
			sum := sha256.Sum256(p)
			return rsa.VerifyPKCS1v15(&rs.PublicKey, crypto.SHA256, sum[:], s) == nil
		}},
	} {
		f := newFake(t)
		credentials, err := NewCredentials(testKey, c.secret)
		if err != nil {
			t.Fatal(err)
		}
		b := f.open(func(o *Options) { o.Credentials = credentials })
		f.says(postOrder, 200, bodyFilled)
		f.says("GET /fapi/v1/userTrades", 200, "[]")
		if a := b.Place(context.Background(), anOrder(b)); a.Outcome != exchange.Placed {
			t.Errorf("%s: %+v", name, a)
		}
		if _, err := b.Trades(context.Background(), "BTCUSDT", 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, what := range []string{postOrder, "GET /fapi/v1/userTrades"} {
			_, q := f.times(what)
			payload, text, ok := strings.Cut(q.query, "&signature=")
			plain, err := url.QueryUnescape(text)
			if err != nil || !ok {
				t.Errorf("%s: %s: %v", name, what, err)
			}
			signature, err := base64.StdEncoding.DecodeString(plain)
			if err != nil || !c.verify([]byte(payload+q.body), signature) {
				t.Errorf("%s: %s is signed wrongly: %v", name, what, err)
			}
		}
	}
}

func TestOpenRefusesABadKey(t *testing.T) {
	for _, body := range []string{`{"code":-2014,"msg":"API-key format invalid."}`, `{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}`, `{"code":-1022,"msg":"Signature for this request is not valid."}`} {
		f := newFake(t)
		f.says("GET /fapi/v1/accountConfig", 401, body)
		_, err := Open(context.Background(), Options{RESTURL: f.server.URL, Credentials: testCredentials(t), RecvWindow: 1e9, Timeout: 1e9, Bar: 60e9, Log: zerolog.Nop()})
		if !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", body, err)
		}
	}
	f := newFake(t)
	for name, o := range map[string]Options{
		"no key":   {RESTURL: f.server.URL, RecvWindow: 1e9, Timeout: 1e9, Bar: 60e9},
		"no URL":   {Credentials: testCredentials(t), RecvWindow: 1e9, Timeout: 1e9, Bar: 60e9},
		"a slash":  {RESTURL: f.server.URL + "/", Credentials: testCredentials(t), RecvWindow: 1e9, Timeout: 1e9, Bar: 60e9},
		"2 m bars": {RESTURL: f.server.URL, Credentials: testCredentials(t), RecvWindow: 1e9, Timeout: 1e9, Bar: 120e9},
		"window":   {RESTURL: f.server.URL, Credentials: testCredentials(t), RecvWindow: 61e9, Timeout: 1e9, Bar: 60e9},
	} {
		if _, err := Open(context.Background(), o); err == nil || errors.Is(err, ErrKey) != (name == "no key") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(f.asked) != 0 {
		t.Errorf("%d requests were made", len(f.asked))
	}
}
