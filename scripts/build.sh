#!/bin/sh
# go build with visible progress: build.sh <arguments of go build>. A first build with
# empty caches takes minutes on a small machine, most of them in few large packages.
{
	go build -v "$@" 2>&1
	echo "exit $?"
} | awk -v tty="$([ -t 1 ] && echo 1)" '
	/^exit [0-9]+$/ { code = $2; next }
	/^go: downloading / { got++; show("downloaded " got " modules, " $3); next }
	/^[A-Za-z0-9_.~\/-]+$/ { built++; show("compiled " built " packages, " $0); next }
	{ clear(); print }
	function clear() { if (tty && wide) printf "\r%*s\r", wide, ""; wide = 0 }
	function show(s) {
		if (tty) { clear(); s = substr("  " s, 1, 78); printf "%s", s; wide = length(s); fflush() }
		else if ((got + built) % 50 == 0) { print "  " s; fflush() }
	}
	END { clear(); exit code }'
