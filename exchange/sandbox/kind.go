package sandbox

import "slices"

// Kind is something that the exchange, or the way to it, does to a program.
type Kind string

// Where says what a kind strikes.
type Where string

// What there is to strike.
const (
	OnAnswer Where = "answer"  // any REST call: its answer is not what happened. The request is executed first, unless the fault says that it is not
	OnCall   Where = "call"    // any REST call: it is refused, and certainly not executed
	OnOrder  Where = "order"   // an order or a stop, between the door and the engine or in it
	OnQuery  Where = "query"   // what queries tell
	OnOthers Where = "account" // what others do just before a call; Symbol tells where (empty: the symbol of the call, or the first position)
	OnSocket Where = "socket"  // a connection of a stream
)

// All kinds there are; Catalogue says what they do.
const (
	Closed     Kind = "closed"
	Hang       Kind = "hang"
	Unknown503 Kind = "503a"
	Internal   Kind = "503-1001"
	Timeout408 Kind = "408"
	BadGateway Kind = "502"
	Error500   Kind = "500"
	Code1000   Kind = "-1000"
	Code1006   Kind = "-1006"
	Code1007   Kind = "-1007"
	Truncated  Kind = "truncated"
	Cut        Kind = "cut"
	Empty      Kind = "empty"
	Code200    Kind = "200-1000"
	Redirect   Kind = "307"
	SlowBody   Kind = "slow_body"
	SlowAnswer Kind = "slow"

	Unavailable Kind = "503b"
	Throttled   Kind = "-1008"
	TooMany     Kind = "429"
	TooManyBare Kind = "429-bare"
	Banned      Kind = "418"
	WAF         Kind = "403"
	ClockSaid   Kind = "-1021"
	KeyGone     Kind = "-2015"
	HighWeight  Kind = "weight"

	Late      Kind = "late"
	TooLate   Kind = "too_late"
	Twin      Kind = "-4116"
	PartOnly  Kind = "partial"
	FlatFirst Kind = "-2022"
	LessFirst Kind = "reduced"
	RestFirst Kind = "-4118"
	Reopened  Kind = "reopened"

	LookupLag   Kind = "lookup_lag"
	TradesLag   Kind = "trades_lag"
	PositionLag Kind = "position_lag"
	Namesake    Kind = "namesake"

	HandTrade Kind = "hand"
	Liquidate Kind = "liquidation"
	ADL       Kind = "adl"
	ModeFlip  Kind = "mode_flip"

	WSRefused    Kind = "ws_refused"
	WSSilent     Kind = "ws_silent"
	WSDrop       Kind = "ws_drop"
	WSDropFill   Kind = "ws_drop_fill"
	WSDuplicate  Kind = "ws_duplicate"
	WSReorder    Kind = "ws_reorder"
	WSExpired    Kind = "ws_expired"
	WSUnknown    Kind = "ws_unknown"
	WSAmendment  Kind = "ws_amendment"
	WSNoPings    Kind = "ws_no_pings"
	WSLoseUpdate Kind = "ws_lose_update"
)

// Described is a kind and what it does.
type Described struct {
	Kind  Kind   `json:"kind"`
	Where Where  `json:"where"`
	Does  string `json:"does"`
}

// Catalogue is every kind there is.
func Catalogue() []Described {
	return []Described{
		{Closed, OnAnswer, "the connection is closed without an answer"},
		{Hang, OnAnswer, "there is no answer until For is over (0: until the client gives up); then the connection is closed"},
		{Unknown503, OnAnswer, "503 \"Unknown error, please check your request or try again later.\""},
		{Internal, OnAnswer, "503 with -1001"},
		{Timeout408, OnAnswer, "408, execution status unknown"},
		{BadGateway, OnAnswer, "502 with HTML"},
		{Error500, OnAnswer, "500 \"Request occur unknown error.\""},
		{Code1000, OnAnswer, "400 with -1000"},
		{Code1006, OnAnswer, "400 with -1006, execution status unknown"},
		{Code1007, OnAnswer, "400 with -1007, execution status unknown"},
		{Truncated, OnAnswer, "200 with half of its JSON"},
		{Cut, OnAnswer, "200, and the connection is closed in the middle of the body"},
		{Empty, OnAnswer, "200 without a body"},
		{Code200, OnAnswer, "200 whose body is {\"code\":-1000}"},
		{Redirect, OnAnswer, "307 to the same address: whoever follows it sends the request again"},
		{SlowBody, OnAnswer, "200, and after half of the body nothing for For (0: until the client gives up), then the rest"},
		{SlowAnswer, OnAnswer, "the answer comes For late (0: 2 s); what happened is on the stream long before"},
		{Unavailable, OnCall, "503 \"Service Unavailable.\""},
		{Throttled, OnCall, "503 with -1008"},
		{TooMany, OnCall, "429 with Retry-After: For (0: 3 s)"},
		{TooManyBare, OnCall, "429 without Retry-After"},
		{Banned, OnCall, "418: every REST call is refused for For (0: 2 min)"},
		{WAF, OnCall, "403 with HTML"},
		{ClockSaid, OnCall, "400 with -1021"},
		{KeyGone, OnCall, "401 with -2015, as if the key had been deleted"},
		{HighWeight, OnCall, "the request is executed and answered, but the weight header says that the minute's limit is nearly used up"},
		{Late, OnOrder, "it reaches the engine only after For (0: 2 s); the connection is closed at once"},
		{TooLate, OnOrder, "it reaches the engine after its recvWindow, which refuses it (-5028); the connection is closed at once"},
		{Twin, OnOrder, "it rests, open and perhaps partly filled, until the next mark price; the answer is that its client id is a duplicate"},
		{PartOnly, OnOrder, "it finds Qty (0: half), and the rest expires"},
		{FlatFirst, OnOrder, "someone closes the position just before it arrives"},
		{LessFirst, OnOrder, "someone takes Qty (0: half) off the position just before it arrives"},
		{RestFirst, OnOrder, "someone's reduce-only limit order for the whole position rests when it arrives, and is canceled after For (0: never)"},
		{Reopened, OnOrder, "someone opens the position again right after it was closed whole"},
		{LookupLag, OnQuery, "orders younger than For (0: 5 s) are not found (-2013) and not listed"},
		{TradesLag, OnQuery, "trades younger than For (0: 5 s) are not listed"},
		{PositionLag, OnQuery, "positions are as they were For (0: 5 s) ago"},
		{Namesake, OnQuery, "a lookup by client id finds an order of an hour ago instead, which executed Qty (0: nothing)"},
		{HandTrade, OnOthers, "someone trades Qty, signed (0: takes half off)"},
		{Liquidate, OnOthers, "the exchange closes the position"},
		{ADL, OnOthers, "the exchange takes Qty (0: half) off the position"},
		{ModeFlip, OnOthers, "someone closes everything and switches the position mode"},
		{WSRefused, OnSocket, "the handshake is answered with 503"},
		{WSSilent, OnSocket, "the connection is accepted, and nothing is ever said on it"},
		{WSDrop, OnSocket, "the connection is closed"},
		{WSDropFill, OnSocket, "the connection is closed in the middle of an order's events"},
		{WSDuplicate, OnSocket, "an event is said twice"},
		{WSReorder, OnSocket, "events of one change come in another order: TRADE_LITE first, ACCOUNT_UPDATE before the order's"},
		{WSExpired, OnSocket, "the listen key expires"},
		{WSUnknown, OnSocket, "an event of a type that nobody knows"},
		{WSAmendment, OnSocket, "an ORDER_TRADE_UPDATE of an AMENDMENT, with the field M"},
		{WSNoPings, OnSocket, "no pings are sent"},
		{WSLoseUpdate, OnSocket, "an event is never said"},
	}
}

// Kinds are the kinds that strike somewhere, or all of them.
func Kinds(where ...Where) []Kind {
	var all []Kind
	for _, d := range Catalogue() {
		if len(where) == 0 || slices.Contains(where, d.Where) {
			all = append(all, d.Kind)
		}
	}
	return all
}
