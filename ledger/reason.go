package ledger

// Reason says why: one word from the closed list below, the same in the journal,
// the API, logs, metrics and the README.
type Reason string

// The reasons of planning.
const (
	DuplicatePlan    Reason = "duplicate_plan"
	KillSwitchActive Reason = "kill_switch_active"
	UnknownAction    Reason = "unknown_action"
	NotInAllowlist   Reason = "not_in_allowlist"
	ActionHold       Reason = "action_hold"
	MissingNewSL     Reason = "missing_new_sl"
	StopNotTighter   Reason = "stop_not_tighter"
	StaleProposal    Reason = "stale_proposal"
	TrancheDone      Reason = "tranche_done"
	InvalidProposal  Reason = "invalid_proposal"
	RateLimited      Reason = "rate_limited"
)

// The reasons of the governor.
const (
	WithinLimits           Reason = "within_limits"
	TrimmedToDailyLimit    Reason = "trimmed_to_daily_limit"
	WithinProtectiveBudget Reason = "within_protective_budget"
	TestnetAutoApprove     Reason = "testnet_auto_approve"
	DryRunAutoApprove      Reason = "dry_run_auto_approve"
	PaperAutoApprove       Reason = "paper_auto_approve"
	OperatorFlatten        Reason = "operator_flatten"
	OnlyProtective         Reason = "protective_only"
	KillScoreCritical      Reason = "kill_score_critical_non_close"
	SymbolCooldown         Reason = "symbol_cooldown"
	HourlyLimit            Reason = "hourly_limit_exceeded"
	BurstLimit             Reason = "burst_limit_exceeded"
	PositionUnknown        Reason = "position_unknown"
	PriceUnknown           Reason = "price_unknown"
	DailyLimit             Reason = "daily_limit_exceeded"
	PortfolioHourlyLimit   Reason = "portfolio_hourly_limit_exceeded"
	PortfolioDailyLimit    Reason = "portfolio_daily_limit_exceeded"
	ProtectiveLimit        Reason = "protective_limit_exceeded"
	StopLimit              Reason = "stop_limit_exceeded"
	RunawayOrders          Reason = "runaway_orders"
	AttemptErrors          Reason = "attempt_errors"
)

// The reasons of the position permit.
const (
	PositionAgrees     Reason = "position_agrees"
	NoExchangeSnapshot Reason = "no_exchange_snapshot"
	StaleExchangeState Reason = "stale_exchange_state"
	NoPosition         Reason = "no_position"
	SideMismatch       Reason = "reconcile_required_side_mismatch"
	QtyMismatch        Reason = "reconcile_required_qty_mismatch"
	HoldActive         Reason = "reconcile_hold_active"
	CooldownInFlight   Reason = "cooldown_in_flight"
	StopWouldTrigger   Reason = "stop_would_trigger"
	StopBeyondLiq      Reason = "stop_beyond_liquidation"
	QtyBelowMin        Reason = "qty_below_min"
)

// The reasons of execution.
const (
	GovernorTimeout   Reason = "permit_timeout:governor"
	PositionTimeout   Reason = "permit_timeout:position"
	PermitExpired     Reason = "permit_expired"
	RunStateForbids   Reason = "run_state_forbids"
	RunDisarmed       Reason = "disarmed"
	ModeDryRun        Reason = "dry_run"
	Restarted         Reason = "restarted"
	OrderNotPlaced    Reason = "order_not_placed"
	OrderUnfilled     Reason = "order_unfilled"
	GrantExpired      Reason = "grant_expired"
	NothingLeft       Reason = "nothing_left_to_close"
	AttemptsExhausted Reason = "attempts_exhausted"
)

// The reasons of holds.
const (
	HoldQtyMismatch     Reason = "qty_mismatch_no_evidence"
	HoldSideMismatch    Reason = "side_mismatch"
	HoldMissingExchange Reason = "missing_exchange"
	HoldStaleExchange   Reason = "stale_exchange"
	HoldNoLedger        Reason = "no_ledger"
	HoldExternalTrades  Reason = "external_trades"
	HoldForeignInstance Reason = "foreign_instance"
	HoldPositionMoving  Reason = "position_moving"
	HoldOperator        Reason = "operator"
)

// ReasonInfo explains a reason to the person who has to act on it.
type ReasonInfo struct {
	Reason  Reason
	Where   string // the gate, check or rule it belongs to
	Meaning string
	Frees   string // what ends it by itself, or what to do
}

// Reasons is the closed list, in the order of SPEC's gates; the README's table is generated from it.
var Reasons = []ReasonInfo{
	{DuplicatePlan, "planning", "this plan is on record already; it is answered from the record", "a new computed_at makes a new plan"},
	{KillSwitchActive, "planning, governor 1", "the run state is killed: everything is refused", "permitchain rearm --to armed --reason …"},
	{UnknownAction, "planning", "the proposal's action is not one of the known ones", "correct the sender"},
	{NotInAllowlist, "planning", "the symbol is not in the configuration's symbols", "add it to symbols and restart"},
	{ActionHold, "planning", "the proposal says HOLD: nothing to do", "nothing needs to be done"},
	{MissingNewSL, "planning", "UPDATE_SL came without new_sl", "correct the sender"},
	{StopNotTighter, "planning", "the proposed stop is not tighter than the standing one", "a tighter stop is accepted at once"},
	{StaleProposal, "planning", "the proposal is older than apply.proposal_ttl, from the future, or from another life of the position", "send it again, computed now; check the sender's clock"},
	{TrancheDone, "planning", "this partial close was done already in this life of the position", "the next epoch, or a position that has grown beyond its size then"},
	{InvalidProposal, "planning", "the proposal could not be read", "correct the field that the error names"},
	{RateLimited, "API", "more than one proposal a second came from outside for this symbol", "send it again a second later"},

	{WithinLimits, "governor", "every limit leaves room", ""},
	{TrimmedToDailyLimit, "governor 8", "allowed for no more than what is left of the daily limit", ""},
	{WithinProtectiveBudget, "governor", "a protective plan within its own budget", ""},
	{TestnetAutoApprove, "governor 2", "allowed at once, uncapped, because governor.auto_approve names testnet", ""},
	{DryRunAutoApprove, "governor 2", "allowed at once, uncapped, because governor.auto_approve names dry_run", ""},
	{PaperAutoApprove, "governor 2", "allowed at once, uncapped, because governor.auto_approve names paper", ""},
	{OperatorFlatten, "governor", "the operator ordered this close", ""},
	{OnlyProtective, "governor 1", "the run state lets only protective closes through", "permitchain rearm --to armed --reason …"},
	{KillScoreCritical, "governor 3", "the kill score is critical and the plan neither closes nor tightens a stop", "a close, or a tighter stop, passes"},
	{SymbolCooldown, "governor 4", "too soon after the symbol's last execution", "frees by itself when governor.cooldown has passed"},
	{HourlyLimit, "governor 5", "governor.max_per_hour executions in the last hour", "frees by itself when the oldest is an hour old"},
	{BurstLimit, "governor 6", "governor.max_per_5min executions in the last five minutes", "frees by itself when the oldest is five minutes old"},
	{PositionUnknown, "governor 7", "no fresh snapshot to size the close with", "frees with the next snapshot; see permitchain status"},
	{PriceUnknown, "governor 7", "no fresh mark price to value the close with", "frees with the next mark price"},
	{DailyLimit, "governor 8", "the close would take the symbol past governor.daily_notional today", "frees at 00:00 UTC; or raise the limit, or trim (on_daily_limit)"},
	{PortfolioHourlyLimit, "governor 9", "governor.portfolio_per_hour executions over all symbols in the last hour", "frees by itself when the oldest is an hour old"},
	{PortfolioDailyLimit, "governor 9", "the close would take all symbols together past governor.portfolio_daily_notional today", "frees at 00:00 UTC"},
	{ProtectiveLimit, "governor", "governor.protective_per_hour protective plans filled something in the last hour", "frees by itself when the oldest is an hour old; look why so many were needed, flatten by hand"},
	{StopLimit, "governor", "governor.stops_per_hour stops were moved in the last hour", "frees by itself when the oldest is an hour old"},
	{RunawayOrders, "auto-disarm", "more was sent for a symbol in five minutes than was granted", "find the other sender; then permitchain rearm"},
	{AttemptErrors, "auto-disarm", "governor.disarm_errors order attempts failed or stayed unknown within ten minutes", "look at permitchain orders ls; then permitchain rearm"},

	{PositionAgrees, "position", "exchange and ledger agree", ""},
	{NoExchangeSnapshot, "position 1", "no snapshot of the exchange has arrived yet", "frees with the first snapshot"},
	{StaleExchangeState, "position 1", "the newest snapshot is older than reconcile.stale_after, or dated in the future", "frees with the next snapshot; check the connection and the clock"},
	{NoPosition, "position 2", "the exchange says the position is flat", "nothing needs to be done"},
	{SideMismatch, "position 3", "exchange and ledger are on opposite sides", "look at the exchange; then permitchain ledger sync SYMBOL --reason …"},
	{QtyMismatch, "position 4", "exchange and ledger differ by more than the tolerance", "permitchain ledger sync SYMBOL --reason … makes the ledger take the exchange's amount"},
	{HoldActive, "position 5", "the position is on hold", "permitchain hold ls tells what clears it"},
	{CooldownInFlight, "position 6", "an order of ours is unresolved, the last one is younger than reconcile.cooldown, or no snapshot has left since the last trade", "frees by itself"},
	{StopWouldTrigger, "position, stops", "the mark price has passed the proposed stop already: it would trigger at once", "a stop on the other side of the mark price; or close the position"},
	{StopBeyondLiq, "position, stops", "the proposed stop lies at or beyond the liquidation price: the exchange would close the position before it", "a stop nearer to the mark price"},
	{QtyBelowMin, "position 7", "the share, rounded down to the market's step, is under the market's minimum", "a larger tranche or a full close passes"},

	{GovernorTimeout, "execution", "the governor gave no permit within apply.permit_wait", "a new proposal; if it goes on, the process is overloaded"},
	{PositionTimeout, "execution", "reconciliation gave no permit within apply.permit_wait", "a new proposal; if it goes on, the process is overloaded"},
	{PermitExpired, "execution", "a permit ran out before both could be used", "a new proposal"},
	{RunStateForbids, "execution", "the run state changed while the plan was on its way", "permitchain rearm --to armed --reason …"},
	{RunDisarmed, "execution", "decided, and not sent, because the run state is disarmed", "permitchain rearm --to armed --reason …"},
	{ModeDryRun, "execution", "decided, and not sent, because the mode is dry_run", "run in mode testnet or live"},
	{Restarted, "execution", "the process ended before an order was promised", "a new proposal"},
	{OrderNotPlaced, "execution", "the exchange refused the order", "the message says why"},
	{OrderUnfilled, "execution", "the order filled nothing, or not all of it", "a new proposal"},
	{GrantExpired, "execution", "the permits' time ran out before the rest could be sent", "a new proposal"},
	{NothingLeft, "execution", "nothing is left to close", "nothing needs to be done"},
	{AttemptsExhausted, "execution", "apply.attempts orders were refused", "look at permitchain orders ls; a new proposal"},

	{HoldQtyMismatch, "hold", "exchange and ledger differ and no trade explains it", "clears when they agree; or permitchain ledger sync SYMBOL --reason …"},
	{HoldSideMismatch, "hold", "exchange and ledger are on opposite sides", "permitchain ledger sync SYMBOL --reason …, or the position going flat"},
	{HoldMissingExchange, "hold", "the exchange gives no snapshot", "clears with the first snapshot"},
	{HoldStaleExchange, "hold", "the newest snapshot is too old", "clears with a fresh snapshot"},
	{HoldNoLedger, "hold", "the position has no ledger, and reconcile.initial is hold", "permitchain ledger sync SYMBOL --reason …, or the position going flat"},
	{HoldExternalTrades, "hold", "trades of others moved the position, and reconcile.external_trades is hold", "permitchain ledger sync SYMBOL --reason …, or the position going flat"},
	{HoldForeignInstance, "hold", "an order of our form traded, rests on the exchange or was sent lately, that this ledger never promised or knows not to have been placed", "find the other instance, cancel what rests; then permitchain ledger sync SYMBOL --reason …"},
	{HoldPositionMoving, "hold", "the position changed while its amount was being taken over", "tried again on every snapshot"},
	{HoldOperator, "hold", "the operator stopped it", "permitchain hold clear SYMBOL --reason …"},
}

// Explain is the table's entry for a reason.
func (r Reason) Explain() (ReasonInfo, bool) {
	for _, info := range Reasons {
		if info.Reason == r {
			return info, true
		}
	}
	return ReasonInfo{}, false
}
