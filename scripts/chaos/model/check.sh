#!/usr/bin/env bash
# Checks the models of this folder with spin: every run with all the rules in must keep
# them, and with one rule taken out spin must find the flaw that the rule is there for.
# A search that is not complete counts as failed. Exit status: 0 all as it should be,
# 1 something is not, 3 spin or gcc is missing. One core, less than 900 MB.
set -u
cd "$(dirname "$0")" || exit 1
for tool in spin gcc; do
	command -v "$tool" >/dev/null || { echo "model: $tool is not installed (Debian: apt-get install spin gcc libc6-dev)"; exit 3; }
done
models=$PWD
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
cd "$tmp" || exit 1
passed=0 failed=0

# search <gcc option> <pan option> <file> <spin options…> writes pan.out.
search() {
	local how=$1 opt=$2 file=$3
	shift 3
	rm -rf ./* && cp "$models"/*.pml . || return
	# shellcheck disable=SC2086
	{ spin -a "$@" "$file" && gcc -O1 -w "$how" -DCOLLAPSE -DMEMLIM=850 -o pan pan.c && ./pan -n -m20000 $opt; } >pan.out 2>&1
}

ok() {
	passed=$((passed + 1))
	echo "ok   $1, $((SECONDS - began)) s"
}

bad() {
	failed=$((failed + 1))
	echo "FAIL $1"
	sed 's/^/     | /' pan.out | head -40
}

# incomplete prints why the search that wrote pan.out says nothing, if it does.
incomplete() {
	grep -m1 -i -E 'max search depth too small|out of memory|reached -DMEMLIM|VECTORSZ|syntax error|index out of bounds' pan.out && return
	grep -q 'errors: [0-9]' pan.out || echo "it did not run to its end"
}

states() { sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.out | sed -E ':a; s/([0-9])([0-9]{3})(,|$)/\1,\2\3/; ta'; }

# keeps <what> <gcc option> <pan option> <file> <spin options…>: no run breaks a rule.
keeps() {
	local what=$1 why began=$SECONDS
	shift
	search "$@"
	why=$(incomplete)
	if [ -n "$why" ]; then
		bad "$what: $why"
	elif grep -q 'errors: 0' pan.out && ! grep -q 'Search not completed' pan.out; then
		ok "$what: $(states) states"
	else
		bad "$what"
		spin -t -p "${@:4}" "$3" 2>&1 | tail -60
	fi
}

# finds <rule> <file> <spin options…>: there is a run that breaks the rule.
finds() {
	local rule=$1 file=$2 why began=$SECONDS what="$2 ${*:3}"
	shift
	search -DSAFETY '' "$@"
	why=$(incomplete)
	if [ -n "$why" ]; then
		bad "$what: $why"
	elif grep -q -E "^pan:1: (assertion violated )?$rule \(at depth" pan.out; then
		ok "$what: finds '${rule//_/ }'"
	elif grep -q 'errors: 0' pan.out; then
		bad "$what: finds nothing, and should find '$rule'"
	else
		bad "$what: should find '$rule'"
	fi
}

keeps "the store keeps the rules, two lanes" -DSAFETY '' store.pml
keeps "the store keeps the rules, a lane with two owners" -DSAFETY '' store.pml -DWOKEN -DLOST=3
keeps "the lane keeps the rules, 3 messages, 2 faults" -DSAFETY '' lane.pml
keeps "the lane keeps the rules, 2 messages, 3 faults of worker and lane" -DSAFETY '' lane.pml -DMESSAGES=2 -DFAULTS=3 -DWIPES=0 -DBREAKS=0
keeps "every run of the store ends" -DNP -l store.pml -DFAILOVERS=1 -DLOST=0
keeps "every run of the lane ends" -DNP -l lane.pml -DFAULTS=1

# An end is reached at all.
finds never_all_resolved store.pml -DSHOW_END
finds never_all_resolved lane.pml -DSHOW_END

# One rule taken out.
finds acked_is_stored store.pml -DACK_BEFORE_COMMIT
finds once store.pml -DNO_UNIQUE_KEY
finds gapless store.pml -DNO_UNIQUE_SEQ
finds gapless store.pml -DUNORDERED_BATCH
finds gapless store.pml -DLOCAL_LAST
finds frame_is_there lane.pml -DUPACK_BEFORE_DOWNACK
finds once lane.pml -DNO_UNIQUE_KEY
finds sender_order lane.pml -DNO_RESET
finds sender_order lane.pml -DWOKEN_OWNER
finds sender_order lane.pml -DBROKEN_RUN
finds sender_order lane.pml -DPIPELINED
finds sender_order lane.pml -DDISCARD_OLD
finds "invalid end state" lane.pml -DMSGID_DEDUP -DWIPES=0
finds sender_order lane.pml -DSAME_NUMBERS -DECHO_LAST -DBREAKS=0
finds sender_order lane.pml -DFRAME_BEHIND_LOSS
finds sender_order lane.pml -DSTAY_CONNECTED
finds sender_order lane.pml -DHOLE_ACCEPTED -DBREAKS=0

# The known weakness, and what would end it: see the head of lane.pml.
finds frame_is_there lane.pml -DHALF_DELIVERED -DMESSAGES=2 -DBREAKS=0
keeps "no weakness is left with the echo behind the frames" -DSAFETY '' lane.pml -DHALF_DELIVERED -DECHO_LAST -DMESSAGES=2

echo "model: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
