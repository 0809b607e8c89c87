// Package terminal is the command line's side of the control API: it finds a chain, or the file
// of one that doesn't run, asks, and shows the answer as tables or as the JSON it is.
package terminal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"permitchain/ledger"
	"permitchain/ledger/store"
	"permitchain/stages/operator"
)

// Door is where a command finds a chain: its control socket while it runs, its file otherwise.
type Door struct {
	Stage   operator.Stage // what views of the file need: Mode, Version, Config, Symbols, Limits, and Socket
	Ledger  string
	Options store.Options
}

// Need is what a command needs to be answered.
type Need int

// The needs.
const (
	Chain     Need = iota // a running chain
	ToRead                // or the file
	ToWrite               // or the file, under its lock: what must be possible when everything else fails
	connectIn = time.Second
)

// errCut tells that a chain was reached and did not answer to the end: what it was asked for may have been done.
var errCut = errors.New("the connection ended before the answer")

// Client asks one chain, or one file, for views and actions.
type Client struct {
	http  *http.Client
	close func() error
}

// Open finds who can answer. Close must follow.
func (d Door) Open(ctx context.Context, need Need) (*Client, error) {
	dialer := net.Dialer{Timeout: connectIn}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", d.Stage.Socket)
	}
	if conn, err := dial(ctx, "", ""); err == nil {
		return &Client{&http.Client{Transport: &http.Transport{DialContext: dial}}, func() error { return nil }}, conn.Close()
	}
	d.Stage.Elsewhere = d.elsewhere()
	if need == Chain {
		return nil, operator.Failed(operator.NotRunning, "%s%s", operator.ErrNotRunning.Text, d.Stage.Elsewhere)
	}
	if need == ToRead {
		return d.openFile()
	}
	s, err := store.Open(d.Ledger, d.Options)
	if err != nil {
		return nil, d.none(err)
	}
	h, closeStore := operator.OnStore(d.Stage, s)
	return &Client{&http.Client{Transport: inProcess{h}}, closeStore}, nil
}

func (d Door) openFile() (*Client, error) {
	reader, err := store.OpenReader(d.Ledger, d.Options)
	if err != nil {
		return nil, d.none(err)
	}
	h, err := operator.OnFile(d.Stage, reader)
	if err != nil {
		return nil, errors.Join(err, reader.Close())
	}
	return &Client{&http.Client{Transport: inProcess{h}}, reader.Close}, nil
}

// none says it of a ledger that is not there: nobody has begun one, so there is nothing to read or to stop.
func (d Door) none(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return operator.Failed(operator.NotRunning, "no chain is running, and there is no ledger at %s yet: start one with permitchain run%s", d.Ledger, d.Stage.Elsewhere)
	}
	return err
}

// elsewhere names the chains of other modes that run where the one asked doesn't: likely one of them was meant.
func (d Door) elsewhere() (text string) {
	folder, name := filepath.Split(d.Stage.Socket)
	for _, mode := range ledger.Modes {
		socket := filepath.Join(filepath.Dir(filepath.Clean(folder)), string(mode), name)
		conn, err := net.DialTimeout("unix", socket, connectIn)
		if err != nil {
			continue
		}
		_ = conn.Close()
		if mode == d.Stage.Mode {
			return ""
		}
		text += fmt.Sprintf("; a chain runs in mode %s: --mode %s", mode, mode)
	}
	return text
}

// Close ends what Open began.
func (c *Client) Close() error { return c.close() }

// Do asks, and returns the answer's body; a refusal is a *Failure.
func (c *Client) Do(ctx context.Context, method, path string, in any) ([]byte, error) {
	var body io.Reader = http.NoBody
	switch v := in.(type) {
	case nil:
	case []byte:
		body = bytes.NewReader(v)
	default:
		text, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://permitchain"+path, body)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(r)
	if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
		return nil, operator.Failed(operator.NotRunning, "no chain can be reached: %v", dial)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCut, err)
	}
	answer, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return nil, fmt.Errorf("%w: %w", errCut, err)
	}
	if res.StatusCode < http.StatusBadRequest {
		return answer, nil
	}
	f := new(operator.Failure)
	switch err := json.Unmarshal(answer, f); {
	case err == nil && f.Kind != "":
		return nil, f
	case json.Valid(answer): // Of proposals, which say themselves what is wrong.
		return answer, nil
	default:
		return nil, fmt.Errorf("the chain answers %s: %.200s", res.Status, bytes.TrimSpace(answer))
	}
}

// inProcess serves requests without a network: the views of a file are made by the code that serves a chain's.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := &recorder{header: http.Header{}, status: http.StatusOK}
	p.ServeHTTP(rec, r)
	return &http.Response{
		StatusCode: rec.status, Header: rec.header, Body: io.NopCloser(&rec.body), Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}, nil
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

// hotCopy has the chain copy its ledger, and hands the copy to use.
func (c *Client) hotCopy(ctx context.Context, beside string, use func(path string) error) error {
	path := fmt.Sprintf("%s.verify-%d", beside, os.Getpid())
	if _, err := c.Do(ctx, http.MethodPost, "/v1/ledger/backup", map[string]string{"path": path}); err != nil {
		return err
	}
	return errors.Join(use(path), os.Remove(path))
}
