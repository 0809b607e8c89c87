package binance

import (
	"slices"
	"strings"

	"permitchain/exchange"
)

// verdict is what an answer that is no success says about the order it answers.
type verdict struct {
	outcome exchange.Outcome
	limited bool // a rate limit: it says nothing about the order
	stop    bool // the account or its key may not trade: somebody has to look
	clock   bool // our idea of the exchange's clock is wrong
}

// certain are the codes that say no order came of the request, with the HTTP statuses 400 to 499. What is not named
// here is Unknown, among it -4116 and -2010 with "duplicate": a twin of the order exists or existed.
var certain = []struct{ from, to int64 }{
	{-1002, -1002},
	{-1003, -1003},
	{-1008, -1008},
	{-1015, -1016},
	{-1021, -1022},
	{-1099, -1099},
	{-1136, -1100},
	{-2010, -2010},
	{-2015, -2014},
	{-2017, -2017},
	{-2028, -2018},
	{-4005, -4003},
	{-4016, -4013},
	{-4024, -4023},
	{-4045, -4045},
	{-4062, -4061},
	{-4088, -4087},
	{-4107, -4105},
	{-4109, -4109},
	{-4118, -4118},
	{-4120, -4120},
	{-4131, -4131},
	{-4138, -4137},
	{-4141, -4140},
	{-4164, -4164},
	{-4189, -4189},
	{-4192, -4192},
	{-4402, -4400},
	{-5022, -5021},
	{-5028, -5028},
	{-5041, -5041},
}

// Codes after which somebody has to look before anything can be traded, and those of a clock that is off.
var (
	stopCodes  = []int64{-1002, -1022, -1099, -2014, -2015, -2017, -4088, -4109, -4192}
	clockCodes = []int64{-1021, -5028}
)

// verdict is the one place that says what an unsuccessful answer means.
func (e *Error) verdict() verdict {
	v := verdict{outcome: exchange.Unknown}
	switch {
	case e.limited:
		return verdict{outcome: exchange.NotPlaced, limited: true}
	case e.notSent:
		return verdict{outcome: exchange.NotPlaced}
	case e.Status == 408:
		return v // The exchange's own back end did not answer in time.
	case e.Status == 429 || e.Status == 418:
		return verdict{outcome: exchange.NotPlaced, limited: true}
	case e.Status == 403 && e.Code == 0:
		return verdict{outcome: exchange.NotPlaced, limited: true} // The firewall before the exchange.
	case e.Status == 451:
		return verdict{outcome: exchange.NotPlaced, stop: true}
	case e.Status >= 500 && (e.Code == -1008 || e.Code == -1016 || e.unavailable()):
		v.outcome = exchange.NotPlaced
	case e.Status/100 == 4 && e.Code != 0 && isCertain(e.Code) && !e.duplicate():
		v.outcome = exchange.NotPlaced
	}
	if e.Status/100 == 4 {
		v.limited = v.outcome == exchange.NotPlaced && (e.Code == -1003 || e.Code == -1015)
		v.stop = slices.Contains(stopCodes, e.Code)
		v.clock = slices.Contains(clockCodes, e.Code)
	}
	return v
}

func isCertain(code int64) bool {
	for _, r := range certain {
		if code >= min(r.from, r.to) && code <= max(r.from, r.to) {
			return true
		}
	}
	return false
}

// unavailable is the 503 that the documentation calls a failure for certain; any other text may be a success.
func (e *Error) unavailable() bool {
	return e.Status == 503 && e.Code == 0 && e.Message == "Service Unavailable."
}

func (e *Error) duplicate() bool {
	return e.Code == -2010 && strings.Contains(strings.ToLower(e.Message), "duplicate")
}
