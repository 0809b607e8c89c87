#!/usr/bin/env bash
# The full figures: what CI runs a share of, whole. Each test prints lines "figure NAME VALUE"; they are collected into
# one JSON file, with the day, the commit and the machine, so that no number has to be typed.
#
#   .ci/proof.sh [FILE]      FILE defaults to proof.json
#
# KILLS, IMAGES and SWEEP change how much is run. It takes about an hour on two cores, and ends with 1 where a part fails.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

GO=${GO:-go}
OUT=${1:-proof.json}
FIGURES=$(mktemp) LOG=$(mktemp)
trap 'rm -f "$FIGURES" "$LOG"' EXIT
export KILLS=${KILLS:-2000} IMAGES=${IMAGES:-20000} SWEEP=${SWEEP:-all}

# collect NAME COMMAND…: runs a part, shows what it says, and keeps its figures; a failure is one as well.
FAILED=()
collect() {
  local name=$1 begun=$SECONDS code=0
  shift
  printf '\n== %s: %s\n' "$name" "$*"
  "$@" 2>&1 | tee "$LOG" || code=$?
  grep -Eo 'figure [a-z0-9_]+ [0-9]+(\.[0-9]+)?' "$LOG" | sed 's/^figure //' >>"$FIGURES" || true # It may have none.
  echo "seconds_$name $((SECONDS - begun))" >>"$FIGURES"
  if [ $code -ne 0 ]; then
    FAILED+=("$name")
    echo "== $name FAILED with $code"
  fi
}

test_of() { # PACKAGE TEST
  "$GO" test -count=1 -v -timeout 3h -run "$2" "$1"
}

# Tier A: the simulator. What it says is one JSON object.
tier_a() {
  local said=0 json
  json=$(mktemp)
  bin/permitchain simulate --seeds "${SEEDS_A:-1000000}" -o json >"$json" || said=$?
  for name in seeds plans orders executed crashes virtual_s; do
    printf 'figure tier_a_%s %s\n' "$name" "$(grep -Eo "\"$name\":[0-9]+" "$json" | head -n 1 | cut -d: -f2)"
  done
  printf 'figure tier_a_violations %s\n' "$(grep -Eo '"invariant":' "$json" | wc -l)"
  grep -Eo '"trace_sha256":"[0-9a-f]+"' "$json"
  rm -f "$json"
  return $said
}
collect tier_a tier_a

# Tier B: the real chain, adapter and sandbox in virtual time; then faults over real sockets.
SEEDS=${SEEDS_B:-500} collect tier_b test_of ./stages '^TestSwarm$'
collect fault_matrix test_of ./stages '^TestFaultMatrix$'

# Tier C: the shipped binary, real signals, a real disk.
collect power_loss test_of ./ledger/store '^TestPowerLossImages$'
collect system_calls test_of ./stages/e2e '^TestEveryCall$'
collect disk_full test_of ./stages/e2e '^TestDiskFull$'
collect random_kills test_of ./stages/e2e '^TestKilledAtRandom$'

# Whether all of this can fail.
collect mutants .ci/mutants.sh

{
  printf '{\n  "date": "%s",\n  "commit": "%s",\n' "$(date -u +%FT%TZ)" "$(git rev-parse HEAD 2>/dev/null || echo unknown)$([ -z "$(git status --porcelain 2>/dev/null)" ] || echo +changes)"
  printf '  "machine": {"cores": %d, "cpu": "%s", "kernel": "%s", "go": "%s"},\n' "$(nproc)" \
    "$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1 | tr -d '"\\')" "$(uname -sr)" "$("$GO" env GOVERSION)"
  printf '  "failed": [%s],\n' "$(printf '"%s"\n' ${FAILED[@]+"${FAILED[@]}"} | sed '/^""$/d' | paste -sd, -)"
  printf '  "figures": {\n'
  awk '{ printf "%s    \"%s\": %s", (NR > 1 ? ",\n" : ""), $1, $2 } END { print "" }' "$FIGURES"
  printf '  }\n}\n'
} >"$OUT"

printf '\nwritten to %s\n' "$OUT"
if [ ${#FAILED[@]} -gt 0 ]; then
  printf 'NOT PROVED: %s\n' "${FAILED[*]}"
  exit 1
fi
echo PROVED
