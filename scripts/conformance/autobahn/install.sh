#!/bin/sh
# install.sh <folder>: a virtualenv of Python 2.7 with the Autobahn test suite in
# <folder>/env. The suite was never moved to Python 3. Needs Python 3 with pip, and a
# Python 2.7: PYTHON27, python2.7 or python2 on PATH, or one that pyenv has.
set -eu
dir=$1
suite=autobahntestsuite==0.8.2
virtualenv=virtualenv==20.15.1 # the last that makes environments of Python 2.7

is27() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' >/dev/null 2>&1; }

python=
for p in "${PYTHON27:-}" python2.7 python2 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7; do
	if [ -n "$p" ] && is27 "$p"; then
		python=$(command -v "$p")
		break
	fi
done
if [ -z "$python" ]; then
	echo "the Autobahn test suite needs Python 2.7 (package python2.7 or python2, where the distribution still has one, or pyenv)." >&2
	echo "Its container image does without: docs/conformance.md says how." >&2
	exit 1
fi

rm -rf "$dir"
mkdir -p "$dir"
PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --target "$dir/tools" "$virtualenv"
PYTHONPATH=$dir/tools python3 -m virtualenv --quiet --python "$python" "$dir/env"
"$dir/env/bin/pip" --disable-pip-version-check --no-python-version-warning install --quiet "$suite"
test -x "$dir/env/bin/wstest"
