package simulate

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"strconv"

	"permitchain/exchange"
	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// tracer is everything that happened, line by line, and its hash.
type tracer struct {
	hash hash.Hash
	out  io.Writer // nil: nobody reads along
	line []byte
	err  error
}

func newTracer(out io.Writer) *tracer { return &tracer{hash: sha256.New(), out: out} }

func (t *tracer) reset() { t.hash.Reset() }

func (t *tracer) sum() string { return hex.EncodeToString(t.hash.Sum(nil)) }

func (t *tracer) end() {
	t.line = append(t.line, '\n')
	t.hash.Write(t.line)
	if t.out != nil && t.err == nil {
		_, t.err = t.out.Write(t.line)
	}
}

func (w *world) line(what string) *tracer {
	t := w.tracer
	t.line = strconv.AppendInt(t.line[:0], w.now/us, 10)
	t.line = append(append(append(t.line, ' '), what...), ' ')
	return t
}

func (w *world) trace(what, text string) {
	t := w.line(what)
	t.line = append(t.line, text...)
	t.end()
}

func (w *world) traceRecord(r ledger.Record, payload []byte) {
	t := w.line(string(r.Event.Kind()))
	t.line = append(strconv.AppendUint(t.line, r.Seq, 10), ' ')
	t.line = append(t.line, payload...)
	t.end()
}

func (w *world) traceSend(o exchange.Order) {
	w.trace("send", o.ClientOrderID+" "+string(o.Direction)+" "+o.Qty.String()+" "+o.Key.String())
}

func (w *world) traceChange(c venue.Change) {
	for _, o := range c.Orders {
		w.trace("order", o.ClientOrderID+" "+strconv.FormatInt(o.OrderID, 10)+" "+o.String()+" "+string(o.Direction)+" "+string(o.Status)+" "+o.Executed.String())
	}
	for _, t := range c.Trades {
		w.trace("trade", strconv.FormatInt(t.ID, 10)+" "+t.String()+" "+string(t.Direction)+" "+t.Qty.String()+" "+t.Price.String()+" "+t.ClientOrderID)
	}
	for _, s := range c.Stops {
		w.trace("stop", s.ClientAlgoID+" "+s.String()+" "+string(s.Status))
	}
}
