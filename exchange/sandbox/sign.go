package sandbox

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"permitchain/exchange/venue"
)

// verifier tells whether a signature is that of a payload.
type verifier func(payload, signature string) bool

// newVerifier is that of an HMAC secret, or of an Ed25519 public key in PEM.
func newVerifier(secret string) (verifier, error) {
	if !strings.HasPrefix(strings.TrimSpace(secret), "-----BEGIN") {
		return func(payload, signature string) bool {
			mac := hmac.New(sha256.New, []byte(secret))
			mac.Write([]byte(payload))
			given, err := hex.DecodeString(signature)
			return err == nil && hmac.Equal(mac.Sum(nil), given)
		}, nil
	}
	block, _ := pem.Decode([]byte(secret))
	if block == nil {
		return nil, errors.New("it is not PEM")
	}
	key, _ := x509.ParsePKIXPublicKey(block.Bytes) // What its error says of a private key is not for reading.
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("it is PEM, and not an Ed25519 public key (openssl pkey -pubout makes it of the private one)")
	}
	return func(payload, signature string) bool {
		given, err := base64.StdEncoding.DecodeString(signature)
		return err == nil && ed25519.Verify(public, []byte(payload), given)
	}, nil
}

// payload is what was signed: the query and the body as they came, without a character between them
// and without the signature, which is the last parameter of one of them.
func payload(query, body string) (signed, signature string) {
	if q, sig, ok := cutSignature(query); ok {
		return q + body, sig
	}
	b, sig, _ := cutSignature(body)
	return query + b, sig
}

func cutSignature(params string) (rest, signature string, ok bool) {
	rest, signature, ok = strings.Cut("&"+params, "&signature=")
	if !ok {
		return params, "", false
	}
	signature, after, more := strings.Cut(signature, "&")
	if more {
		rest += "&" + after
	}
	signature, err := url.QueryUnescape(signature)
	return strings.TrimPrefix(rest, "&"), signature, err == nil
}

// Binance's recvWindow.
const (
	windowDefault = 5 * time.Second
	windowMax     = 60 * time.Second
)

// admit checks a signed request at the door: its age first, then its signature.
func (s *Sandbox) admit(c *call) error {
	stamp, err := strconv.ParseInt(c.params.Get("timestamp"), 10, 64)
	if err != nil {
		return venue.Reject{Code: -1102, Msg: "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed."}
	}
	c.signedAt, c.window = time.UnixMilli(stamp).UTC(), windowDefault
	if text := c.params.Get("recvWindow"); text != "" {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil || ms <= 0 {
			return malformed("recvWindow")
		}
		if c.window = time.Duration(ms) * time.Millisecond; ms > windowMax.Milliseconds() {
			return venue.Reject{Code: -1131, Msg: "Invalid recvWindow: it must be no more than 60000."}
		}
	}
	if !c.signedAt.Before(c.now.Add(time.Second)) || c.now.Sub(c.signedAt) > c.window {
		return errTimestamp
	}
	signed, signature := payload(c.query, c.body)
	if signature == "" {
		return venue.Reject{Code: -1102, Msg: "Mandatory parameter 'signature' was not sent, was empty/null, or malformed."}
	}
	if !s.verify(signed, signature) {
		return venue.Reject{Code: -1022, Msg: "Signature for this request is not valid."}
	}
	return nil
}
