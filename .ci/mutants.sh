#!/bin/sh
# Plants each bug of testdata/mutants in a copy of the tree and runs the command that its header names: it must fail there.
# A bug that nobody finds is a hole in the tests, and ends this with 1; so does a patch that does not apply or build.
#
#   .ci/mutants.sh              all of them
#   MUTANTS=A .ci/mutants.sh    those of one tier: unit, chain, B, A
#   MUTANTS=07 .ci/mutants.sh   one of them
set -u
cd "$(dirname "$0")/.." || exit 1
limit=${LIMIT:-300}
copy=$(mktemp -d) || exit 1
trap 'rm -rf "$copy"' EXIT
trap 'exit 1' INT TERM # What was cut short found nothing.
tar --exclude=./.git --exclude=./bin -cf - . | tar -xf - -C "$copy" || exit 1
export GIT_CEILING_DIRECTORIES="$copy"

field() { sed -n "s/^$1: *//p" "$2" | head -n 1; }

all=0 found=0
printf '%-40s %-6s %-10s %8s  %s\n' mutant tier result seconds 'found by'
for patch in testdata/mutants/*.patch; do
	name=$(basename "$patch" .patch)
	tier=$(field Tier "$patch") run=$(field Test "$patch")
	case ${MUTANTS:-all} in
	all | "$tier" | "${name%%-*}") ;;
	*) continue ;;
	esac
	all=$((all + 1)) begun=$(date +%s) by=
	if ! (cd "$copy" && git apply "$copy/$patch") 2>"$copy/said"; then
		result='no patch' by=$(head -n 1 "$copy/said")
	elif ! (cd "$copy" && go build ./...) >"$copy/said" 2>&1; then
		result='no build' by=$(sed -n 2p "$copy/said")
	elif (cd "$copy" && timeout "$limit" sh -c "$run") >"$copy/said" 2>&1; then
		result=SURVIVES by=$run
	elif grep -q 'build failed\|setup failed' "$copy/said"; then
		result='no build' by=$(grep -m 1 '\.go:' "$copy/said")
	else
		result=found found=$((found + 1))
		by=$(grep -o -m 1 -- '--- FAIL: [^ ]*' "$copy/said" | sed 's/--- FAIL: //')
		seed=$(grep -o 'SEED=[0-9]*\|--seed [0-9]*' "$copy/said" | head -n 1)
		by="${by:-${run}}${seed:+ ($seed)}"
	fi
	[ "$result" = 'no patch' ] || (cd "$copy" && git apply -R "$copy/$patch")
	printf '%-40s %-6s %-10s %8d  %s\n' "$name" "$tier" "$result" $(($(date +%s) - begun)) "$by"
	[ "$result" = found ] || [ -z "${VERBOSE:-}" ] || tail -n 30 "$copy/said"
done
echo "figure mutants_found $found"
echo "figure mutants_total $all"
[ "$all" -gt 0 ] && [ "$found" -eq "$all" ]
