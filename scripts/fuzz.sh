#!/bin/sh
# fuzz.sh <time> [<name>]: runs every fuzz target of the workspace for <time>, one after
# the other, or those whose name holds <name>. The first crasher ends it; go test leaves
# the input in the target's testdata, from where it is committed together with the fix.
set -eu
cd "$(dirname "$0")/.."
found=0
for file in $(grep -rl --include='*_test.go' '^func Fuzz' edge worker shared scripts | sort); do
	dir=$(dirname "$file")
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' "$file"); do
		case $target in *"${2:-}"*) ;; *) continue ;; esac
		found=1
		echo "== $dir $target"
		(cd "$dir" && go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" .)
	done
done
[ $found = 1 ] || { echo "there is no fuzz target named ${2:-}" >&2; exit 1; }
