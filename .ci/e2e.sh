#!/usr/bin/env bash
# The proof, end to end: an exchange that speaks Binance's REST and WebSocket, and a chain that trades on it, are two
# processes that talk over real sockets. Each step prints what was seen; the first that is not as it must be ends it.
#
#   drift is denied, with its numbers → ledger sync → both permits → one order → a fill, booked by its trade id →
#   the exchange's own log says the same → the journal is verified → the same decision again is not executed
#
# It needs bash, the usual tools, and a built permitchain (PERMITCHAIN, default bin/permitchain).
# It ends only what it started, and leaves nothing behind.
set -euo pipefail
shopt -s inherit_errexit

BIN=$(realpath "${PERMITCHAIN:-bin/permitchain}")
WORK=$(mktemp -d)
SANDBOX="" CHAIN="" STEP=0 BEGUN=$SECONDS

stop() { # PID: asks a process of ours to end, and waits until it has; after ten seconds it is made to
  local pid=$1 code=0
  kill -INT "$pid" 2>/dev/null || true
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || code=$?
  return $code
}

finish() {
  local code=$?
  trap - EXIT
  [ -z "$CHAIN" ] || stop "$CHAIN" || true
  [ -z "$SANDBOX" ] || stop "$SANDBOX" || true
  if [ $code -ne 0 ]; then
    echo "NOT PROVED, at step $STEP. What the chain said last:"
    tail -n 20 "$WORK/chain.log" 2>/dev/null || true
    tail -n 5 "$WORK/sandbox.log" 2>/dev/null || true
  fi
  rm -rf "$WORK"
  exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM

step() { STEP=$((STEP + 1)); printf '\n%d. %s\n' "$STEP" "$*"; }
show() { sed 's/^/     /'; }
die() { echo "   MISMATCH: $*"; exit 1; }

# must TEXT PATTERN WHY: the text holds the pattern (extended regular expression), or it ends here.
must() {
  grep -Eq -- "$2" <<<"$1" || { echo "$1" | show; die "$3 (wanted: $2)"; }
  echo "   ✓ $3"
}

# eventually SECONDS PATTERN COMMAND…: the command's output holds the pattern before the time is over.
eventually() {
  local until=$((SECONDS + $1)) pattern=$2 out=""
  shift 2
  while [ $SECONDS -le $until ]; do
    out=$("$@" 2>&1 || true)
    if grep -Eq -- "$pattern" <<<"$out"; then return 0; fi
    sleep 0.1
  done
  echo "$out" | show
  die "$* never showed $pattern"
}

# get PATH: what the sandbox answers. Bash alone does it, so that nothing has to be installed.
get() {
  exec 3<>"/dev/tcp/${ADDRESS%:*}/${ADDRESS#*:}"
  printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$1" "$ADDRESS" >&3
  sed '1,/^\r$/d' <&3
  exec 3>&-
}

pc() { (cd "$WORK" && "$BIN" -c config.yaml "$@"); }
field() { grep -Eo "\"$2\":(\"[^\"]*\"|[^,}\"]*)" <<<"$1" | head -n 1 | sed -E 's/^"[^"]*"://; s/"//g'; }

sandbox() { # ADDRESS QTY: an exchange whose account holds QTY, and has no trades to tell why
  "$BIN" -o json sandbox --listen "$1" --position "BTCUSDT=$2" >"$WORK/sandbox.out" 2>"$WORK/sandbox.log" &
  SANDBOX=$!
  eventually 30 '"rest_url"' cat "$WORK/sandbox.out"
  ADDRESS=$(field "$(cat "$WORK/sandbox.out")" rest_url)
  ADDRESS=${ADDRESS#http://}
  eventually 30 '"holdings"|"Holdings"' get /sandbox/state
}

chain() {
  (cd "$WORK" && exec "$BIN" -c config.yaml run) >>"$WORK/chain.log" 2>&1 &
  CHAIN=$!
  eventually 40 '^run state' pc status
}

proposal() { printf '{"symbol":"BTCUSDT","side":"BOTH","action":"PARTIAL_75","kill_score":0.539,"computed_at":"%s"}\n' "$(date -u +%FT%T.%3NZ)"; }

step "The exchange starts: an account that holds 0.002 BTC"
sandbox 127.0.0.1:0 0.002
BINANCE_API_KEY=$(field "$(cat "$WORK/sandbox.out")" key)
BINANCE_API_SECRET=$(field "$(cat "$WORK/sandbox.out")" secret)
export BINANCE_API_KEY BINANCE_API_SECRET
echo "   process $SANDBOX, at $ADDRESS; the key ends in ${BINANCE_API_KEY: -4}"
cat >"$WORK/config.yaml" <<END
mode: testnet
symbols: [BTCUSDT]
exchange: {rest_url: "http://$ADDRESS", stream_url: "ws://$ADDRESS"}
exit_brain: {enabled: false}
reconcile: {snapshot_interval: 1s, stale_after: 5s, cooldown: 1s}
http: {listen: ""}
log: {format: json}
END

step "Mode live refuses to start without a confirmation of the account"
code=0
out=$(pc --mode live run 2>&1) || code=$?
[ $code -eq 7 ] || die "exit $code, not 7: $out"
must "$out" 'confirm_key_tail' "exit 7, and what to write"
if grep -q "$BINANCE_API_KEY" <<<"$out"; then die "the key is shown"; fi

step "The chain starts, and takes over what is there"
chain
echo "   process $CHAIN"
eventually 40 '"exchange_amt":"0.002","ledger_amt":"0.002","drift":"0"' pc -o json status
pc status | show

step "Both end. The exchange comes back with 0.046 BTC and no trade that says why, as after three months of silence"
stop "$CHAIN" || die "the chain ended with $?"
CHAIN=""
stop "$SANDBOX" || die "the sandbox ended with $?"
sandbox "$ADDRESS" 0.046
chain
eventually 40 'qty_mismatch_no_evidence' pc -o json status
pc status | show

step "Drift is denied: a proposal to close three quarters"
proposal >"$WORK/denied.json"
code=0
out=$(pc -o json plans submit "$WORK/denied.json" 2>/dev/null) || code=$?
[ $code -eq 4 ] || die "exit $code, not 4: $out"
denied=$(field "$out" plan_id)
out=$(pc -o json plans show "$denied")
must "$out" '"governor":\{"verdict":"ALLOW","reason":"testnet_auto_approve"' "the governor allows plan ${denied:0:8}"
must "$out" '"position":\{"verdict":"DENY","reason":"reconcile_required_qty_mismatch"' "reconciliation denies it"
must "$out" '"exchange_amt":"0.046","ledger_amt":"0.002","diff":"0.044","tolerance":"0.001"' "on these numbers: exchange 0.046, ledger 0.002, diff 0.044, tolerance 0.001"
pc why "$denied" | show
must "$(get /sandbox/log)" '"orders":(null|\[\])' "the exchange has seen no order"

step "The operator looks, and takes the exchange's amount over"
pc ledger sync BTCUSDT --reason "the exchange is right" | show
eventually 30 '"drift":"0","hold":null' pc -o json status

step "The next plan is allowed by both permits, and executed"
proposal >"$WORK/allowed.json"
out=$(pc -o json plans submit "$WORK/allowed.json") || { echo "$out" | show; die "it was not executed"; }
plan=$(field "$out" plan_id)
out=$(pc -o json plans show "$plan")
must "$out" '"governor":\{"verdict":"ALLOW"' "the governor allows plan ${plan:0:8}"
must "$out" '"position":\{"verdict":"ALLOW","reason":"position_agrees"' "reconciliation allows it"
must "$out" '"outcome":"executed"' "it is executed"
must "$out" '"qty":"0.034"' "0.034 of 0.046: three quarters, rounded down to the step"
order=$(grep -Eo "pc-$plan-1-1" <<<"$out" | head -n 1)
pc plans show "$plan" | show

step "The fill is booked by its trade id"
history=$(pc ledger history BTCUSDT)
echo "$history" | show
trade=$(grep -Eo "trade [0-9]+: SELL 0.034 at [0-9.]+, order $order" <<<"$history") || die "no entry of order $order"
echo "   ✓ $trade"
eventually 30 '"exchange_amt":"0.012","ledger_amt":"0.012","drift":"0"' pc -o json status
echo "   ✓ exchange 0.012, ledger 0.012, drift 0"

step "The exchange's own log agrees"
log=$(get /sandbox/log)
echo "$log" | show
[ "$(grep -o '"client_order_id"' <<<"$log" | wc -l)" -eq 1 ] || die "not exactly one order"
must "$log" "\"client_order_id\":\"$order\"" "one order, ours"
must "$log" "\"executed\":\{\"$order\":\"0.034\"\}" "it executed 0.034"
must "$log" '"verdict":(null|\[\])' "nothing was executed twice, beyond what was granted, or the other way"

step "The same proposal again is answered from the record"
out=$(pc -o json plans submit "$WORK/allowed.json" || true)
must "$out" '"reason":"duplicate_plan"' "duplicate_plan"
[ "$(get /sandbox/log | grep -o '"client_order_id"' | wc -l)" -eq 1 ] || die "it was sent again"
echo "   ✓ still one order"

step "The journal is whole: its chain, and its fold against everything derived"
out=$(pc -o json ledger verify)
must "$out" '"chain":"ok","fold":"ok"' "$out"
stop "$CHAIN" || die "the chain ended with $?"
CHAIN=""
must "$(pc -o json ledger verify)" '"chain":"ok","fold":"ok"' "and after a clean end"
if grep -q -e "$BINANCE_API_KEY" -e "$BINANCE_API_SECRET" "$WORK/chain.log"; then die "the log shows a credential"; fi
echo "   ✓ neither key nor secret is in the log"

printf '\nPROVED in %d seconds.\n' $((SECONDS - BEGUN))
