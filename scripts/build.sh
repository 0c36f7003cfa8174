#!/bin/sh
# go build with visible progress: build.sh <arguments of go build>. A first build with
# empty caches takes minutes on a small machine, most of them in few large packages.
tty=
[ ! -t 1 ] || tty=1
fetched=0 built=0 code=1 shown=

clear() {
	[ -z "$shown" ] || printf '\r%78s\r' ''
	shown=
}

show() {
	if [ -n "$tty" ]; then
		clear
		printf '%.78s' "  $1"
		shown=1
	elif [ $(((fetched + built) % 50)) -eq 0 ]; then
		echo "  $1"
	fi
}

{
	go build -v "$@" 2>&1
	echo "exit $?"
} | {
	while IFS= read -r line; do
		case $line in
		"exit "[0-9]*) code=${line#exit } ;;
		"go: downloading "*)
			fetched=$((fetched + 1))
			show "downloaded $fetched modules, ${line#go: downloading }"
			;;
		*[!A-Za-z0-9_.~/-]* | '') clear; printf '%s\n' "$line" ;;
		*)
			built=$((built + 1))
			show "compiled $built packages, now $line"
			;;
		esac
	done
	clear
	exit "$code"
}
