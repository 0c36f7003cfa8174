#!/bin/sh
# Builds the container images of edge and worker: images.sh <prefix> <version> <commit>.
# Their names are <prefix>edge:<version> and <prefix>worker:<version>.
set -eu
cd "$(dirname "$0")/.."
prefix=$1 version=$2 commit=$3

# works tells whether a tool is there and can build: docker also needs its daemon.
works() { command -v "$1" >/dev/null 2>&1 && "$1" info >/dev/null 2>&1; }

tool=
for candidate in docker podman buildah; do
	if works $candidate; then
		tool=$candidate
		break
	fi
done
if [ -z "$tool" ]; then
	echo "make images needs docker (and its daemon), podman or buildah. None of them works here:" >&2
	for candidate in docker podman buildah; do
		if command -v $candidate >/dev/null 2>&1; then
			echo "  $candidate: $($candidate info 2>&1 | grep -i -m 1 -e error -e cannot -e daemon || echo 'info fails')" >&2
		else
			echo "  $candidate: not installed" >&2
		fi
	done
	exit 1
fi
for binary in edge worker; do
	image=$prefix$binary:$version
	echo "$image (by $tool)"
	"$tool" build -f $binary/Dockerfile --build-arg VERSION="$version" --build-arg COMMIT="$commit" -t "$image" .
done
