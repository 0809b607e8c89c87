package sandbox

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"permitchain/exchange/venue"
	"permitchain/ledger"
)

// errTimestamp is what a request that is too old, or from the future, gets at the door.
var errTimestamp error = venue.Reject{Code: -1021, Msg: "Timestamp for this request is outside of the recvWindow."}

func malformed(param string) error {
	return venue.Reject{Code: -1102, Msg: fmt.Sprintf("Mandatory parameter '%s' was not sent, was empty/null, or malformed.", param)}
}

// call is one request. Its fields from now on belong to the mutex's holder.
type call struct {
	name     string // "POST /fapi/v1/order"
	key      string
	query    string
	body     string
	params   url.Values // of both
	now      time.Time
	signedAt time.Time
	window   time.Duration
	fault    Fault // of an order between the door and the engine; its Kind may be ""
	noted    *Entry
}

// security is who may make a call.
type security int

const (
	public security = iota
	keyed           // with a key
	signed          // with a key and a signature
)

// route is one call that there is.
type route struct {
	security security
	weight   func(c *call) int
	order    bool // it counts as an order
	do       func(c *call) (any, error)
}

func weighs(n int) func(*call) int { return func(*call) int { return n } }

// unlessOne is the weight of a list, which is less for one symbol.
func unlessOne(one, all int) func(*call) int {
	return func(c *call) int {
		if c.params.Get("symbol") != "" {
			return one
		}
		return all
	}
}

func (s *Sandbox) routes() map[string]route {
	return map[string]route{
		"GET /fapi/v1/ping":         {public, weighs(1), false, func(*call) (any, error) { return map[string]any{}, nil }},
		"GET /fapi/v1/time":         {public, weighs(1), false, func(c *call) (any, error) { return map[string]int64{"serverTime": c.now.UnixMilli()}, nil }},
		"GET /fapi/v1/exchangeInfo": {public, weighs(1), false, s.exchangeInfo},
		"GET /fapi/v1/premiumIndex": {public, unlessOne(1, 10), false, s.premiumIndex},
		"GET /fapi/v1/klines":       {public, klineWeight, false, s.klines},

		"GET /fapi/v2/positionRisk":            {signed, weighs(5), false, s.positionRiskV2},
		"GET /fapi/v3/positionRisk":            {signed, weighs(5), false, s.positionRiskV3},
		"GET /fapi/v3/account":                 {signed, weighs(5), false, s.accountV3},
		"GET /fapi/v3/balance":                 {signed, weighs(5), false, s.balanceV3},
		"GET /fapi/v1/accountConfig":           {signed, weighs(5), false, s.accountConfig},
		"GET /fapi/v1/symbolConfig":            {signed, weighs(5), false, s.symbolConfig},
		"GET /fapi/v1/positionSide/dual":       {signed, weighs(30), false, s.getMode},
		"POST /fapi/v1/positionSide/dual":      {signed, weighs(1), false, s.setMode},
		"GET /fapi/v1/leverageBracket":         {signed, weighs(1), false, s.leverageBracket},
		"GET /sapi/v1/account/apiRestrictions": {signed, weighs(1), false, s.apiRestrictions},
		"POST /fapi/v1/order":                  {signed, weighs(0), true, s.postOrder},
		"GET /fapi/v1/order":                   {signed, weighs(1), false, s.getOrder},
		"DELETE /fapi/v1/order":                {signed, weighs(1), false, s.deleteOrder},
		"GET /fapi/v1/openOrder":               {signed, weighs(1), false, s.openOrder},
		"GET /fapi/v1/openOrders":              {signed, unlessOne(1, 40), false, s.openOrders},
		"GET /fapi/v1/allOrders":               {signed, weighs(5), false, s.allOrders},
		"GET /fapi/v1/userTrades":              {signed, weighs(5), false, s.userTrades},
		"POST /fapi/v1/algoOrder":              {signed, weighs(0), true, s.postAlgo},
		"GET /fapi/v1/algoOrder":               {signed, weighs(1), false, s.getAlgo},
		"DELETE /fapi/v1/algoOrder":            {signed, weighs(1), false, s.deleteAlgo},
		"GET /fapi/v1/openAlgoOrders":          {signed, unlessOne(1, 40), false, s.openAlgos},
		"GET /fapi/v1/allAlgoOrders":           {signed, weighs(5), false, s.allAlgos},
		"POST /fapi/v1/listenKey":              {keyed, weighs(1), false, s.postListenKey},
		"PUT /fapi/v1/listenKey":               {keyed, weighs(1), false, s.putListenKey},
		"DELETE /fapi/v1/listenKey":            {keyed, weighs(1), false, s.deleteListenKey},
	}
}

// bodyMax bounds what a request may send.
const bodyMax = 64 << 10

// Handler serves REST, the streams and the control calls.
func (s *Sandbox) Handler() http.Handler {
	mux := http.NewServeMux()
	routes := s.routes()
	rest := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyMax))
		if err != nil {
			return // Whoever sent it is gone, or floods us.
		}
		c := &call{name: r.Method + " " + r.URL.Path, key: r.Header.Get("X-MBX-APIKEY"), query: r.URL.RawQuery, body: string(body)}
		rt, ok := routes[c.name]
		if !ok {
			failure(http.StatusNotFound, -5000, fmt.Sprintf("Path %s, Method %s is invalid", r.URL.Path, r.Method)).write(w, r)
			return
		}
		s.serve(rt, c).write(w, r)
	}
	mux.HandleFunc("/fapi/", rest)
	mux.HandleFunc("/sapi/", rest)
	s.control(mux)
	s.sockets(mux)
	return mux
}

// serve is a call from the door to its answer, without any I/O.
func (s *Sandbox) serve(rt route, c *call) answer {
	c.params = parameters(c.query, c.body)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.now = s.advance()
	if rt.order {
		s.note(c)
	}
	if a, refused := s.limit(rt, c); refused {
		return a
	}
	symbol := c.params.Get("symbol")
	if f, ok := s.strike(c.now, c.name, symbol, s.kinds[OnCall]...); ok {
		c.mark(f)
		if a, refused := s.refusal(c, f); refused {
			return s.header(rt, a)
		}
		defer func() { s.limits.pretend = 0 }() // The weight header tells a lie once.
	}
	lost, strikes := s.strike(c.now, c.name, symbol, s.kinds[OnAnswer]...)
	if strikes {
		c.mark(lost)
	}
	if strikes && lost.Unexecuted {
		return s.header(rt, disguise(c, lost, success(map[string]any{})))
	}
	if f, ok := s.strike(c.now, c.name, symbol, s.kinds[OnOthers]...); ok {
		s.meddle(c.now, f, symbol)
	}
	if rt.order {
		if f, ok := s.strike(c.now, c.name, symbol, s.kinds[OnOrder]...); ok {
			c.fault = f
			c.mark(f)
		}
	}
	a := s.execute(rt, c)
	if strikes {
		a = disguise(c, lost, a)
	}
	return s.header(rt, a)
}

// parameters are those of the query and the body together.
func parameters(query, body string) url.Values {
	all, _ := url.ParseQuery(query) // What cannot be read is not there.
	more, _ := url.ParseQuery(body)
	for k, v := range more {
		all[k] = append(all[k], v...)
	}
	return all
}

// mark notes in the order log what befell a request.
func (c *call) mark(f Fault) {
	if c.noted != nil {
		c.noted.Fault = f.Kind
	}
}

// execute is what a call does once nothing keeps it from doing it.
func (s *Sandbox) execute(rt route, c *call) answer {
	if rt.security != public {
		switch {
		case len(c.key) == 0:
			return failure(http.StatusUnauthorized, -2014, "API-key format invalid.")
		case c.key != s.o.Key:
			return failure(http.StatusUnauthorized, -2015, "Invalid API-key, IP, or permissions for action.")
		}
	}
	if rt.security == signed {
		if err := s.admit(c); err != nil {
			return refused(c, err)
		}
		if c.noted != nil {
			c.noted.SignedAt = c.signedAt
		}
	}
	body, err := rt.do(c)
	if err != nil {
		return refused(c, err)
	}
	if a, ok := body.(answer); ok {
		return a
	}
	return success(body)
}

// refused is the answer to a request that the exchange refuses.
func refused(c *call, err error) answer {
	r, ok := errCode(err)
	if !ok {
		return failure(http.StatusInternalServerError, -1000, err.Error())
	}
	if c.noted != nil && c.noted.Code == 0 {
		c.noted.Code = r.Code
	}
	return failure(http.StatusBadRequest, r.Code, r.Msg)
}

// note writes a request for an order into the log, as it came.
func (s *Sandbox) note(c *call) {
	c.noted = &Entry{
		At: c.now, Stop: strings.HasSuffix(c.name, "/algoOrder"), Symbol: c.params.Get("symbol"), Side: ledger.Side(c.params.Get("positionSide")),
		Dir: ledger.Direction(c.params.Get("side")), Qty: c.params.Get("quantity"),
		ClientID: c.params.Get("newClientOrderId") + c.params.Get("clientAlgoId"),
	}
	s.log = append(s.log, c.noted)
}

// symbol is the call's, which must be listed; optional allows that there is none.
func (s *Sandbox) symbol(c *call, optional bool) (string, error) {
	symbol := c.params.Get("symbol")
	if symbol == "" && optional {
		return "", nil
	}
	if symbol == "" {
		return "", malformed("symbol")
	}
	if _, ok := s.markets[symbol]; !ok {
		return "", venue.Reject{Code: -1121, Msg: "Invalid symbol."}
	}
	return symbol, nil
}

// symbols are the call's symbol, or all of them.
func (s *Sandbox) symbolsOf(c *call) ([]string, error) {
	symbol, err := s.symbol(c, true)
	if err != nil || symbol != "" {
		return []string{symbol}, err
	}
	all := s.venue.Symbols()
	slices.Sort(all)
	return all, nil
}

// integer is a parameter that may be missing, in bounds.
func (c *call) integer(name string, missing, least, most int64) (int64, error) {
	text := c.params.Get(name)
	if text == "" {
		return missing, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, malformed(name)
	}
	if n < least || n > most {
		return 0, venue.Reject{Code: -1130, Msg: fmt.Sprintf("Data sent for parameter '%s' is not valid.", name)}
	}
	return n, nil
}
