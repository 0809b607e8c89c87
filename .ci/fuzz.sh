#!/bin/sh
# Runs every fuzz target for FUZZTIME; what one finds is written to testdata/fuzz beside it, and every later test run tries it.
set -eu
cd "$(dirname "$0")/.."
n=0
for file in $(grep -rl --include='*_test.go' '^func Fuzz' . | sort); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' "$file"); do
		echo "$(dirname "$file") $target"
		go test "$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-30s}"
		n=$((n + 1))
	done
done
echo "figure fuzz_targets $n"
