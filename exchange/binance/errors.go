package binance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"permitchain/exchange"
)

// Why a call of ours was not made, or does not count.
var (
	ErrLimited = errors.New("rate limited")
	errLate    = errors.New("it is too late to send it")
	errClock   = errors.New("the clock is in doubt")
)

// Error is a call that did not succeed. It shows neither URL nor header.
type Error struct {
	Call    string // "GET /fapi/v1/order"
	Status  int    // of HTTP; 0: there was no answer
	Code    int64  // the exchange's, 0: it gave none
	Message string
	notSent bool // certainly nothing was written
	limited bool // by our own budget, or a ban that is not over
	cause   error
}

// Error implements error.
func (e *Error) Error() string {
	text := e.Call
	if e.Status != 0 {
		text += fmt.Sprintf(": HTTP %d", e.Status)
	}
	if e.Code != 0 {
		text += fmt.Sprintf(": code %d", e.Code)
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return hide(text)
}

// Unwrap gives what the failure is to a caller: a refused key, a rate limit, an order that is not there.
func (e *Error) Unwrap() []error {
	var all []error
	if e.cause != nil {
		all = append(all, e.cause)
	}
	switch v := e.verdict(); {
	case v.stop && (e.Code == -1022 || e.Code == -1002 || e.Code == -1099 || e.Code <= -2014 && e.Code >= -2017):
		all = append(all, ErrKey)
	case v.limited:
		all = append(all, ErrLimited)
	}
	if e.Code == -2013 && e.Status/100 == 4 {
		all = append(all, exchange.ErrNotFound)
	}
	return all
}

// read takes code and message from an answer that is no success. A body that is no such JSON is the message.
func (e *Error) read(body []byte) {
	said := struct {
		Code json.Number `json:"code"`
		Msg  string      `json:"msg"`
	}{}
	if json.Unmarshal(body, &said) == nil && (said.Code != "" || said.Msg != "") {
		e.Code, _ = said.Code.Int64() // What is no whole number is no code.
		e.Message = oneLine(said.Msg)
		return
	}
	e.Message = oneLine(string(bytes.TrimSpace(body)))
}

// oneLine bounds a foreign text and makes it printable.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return hide(clip(s))
}

// beginning is as much of an answer as it takes to see what it is.
func beginning(body []byte) string {
	text := []rune(strings.TrimSpace(oneLine(string(body))))
	if len(text) == 0 {
		return "it is empty"
	}
	if len(text) > beginningKept {
		text = append(text[:beginningKept], '…')
	}
	return string(text)
}

const beginningKept = 60 // characters

var (
	signature = regexp.MustCompile(`(?i)(signature|listenKey)(=|"\s*:\s*")[^&\s"]+`)
	query     = regexp.MustCompile(`(https?|wss?)://[^\s"?]*\?[^\s"]*`)
)

// hide takes out of a text what must not be shown: signatures, listen keys and queries of URLs.
func hide(s string) string {
	s = query.ReplaceAllStringFunc(s, func(u string) string { return u[:strings.IndexByte(u, '?')] })
	return signature.ReplaceAllString(s, "${1}${2}…")
}

// redact drops the URL that net/http puts around an error: it holds the signature.
func redact(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	if text := err.Error(); text != hide(text) {
		return errors.New(hide(text))
	}
	return err
}

func isNotFound(err error) bool { return errors.Is(err, exchange.ErrNotFound) }

// notYet is an error without ErrNotFound in it: what was not found is not what was asked for.
func notYet(err error) error {
	if isNotFound(err) {
		return errors.New("it is not there yet")
	}
	return err
}
