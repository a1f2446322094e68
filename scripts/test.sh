#!/bin/sh
# Everything CI runs: what the tests need, static checks, tests. Arguments go to pytest. Faults come last, with the
# simulation beside them: what they kill and starve is their own, but it takes time from others.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
scripts/packages.sh
scripts/venv.sh test
scripts/lint.sh
say "pytest $*"
for argument in "$@"; do # a file or folder, or one test in it: that alone
    [ ! -e "${argument%%::*}" ] || exec .venv/bin/python -m pytest "$@"
done
first=0 second=0
workers=$(($(nproc) + 1)) # many of them wait for processes
.venv/bin/python -m pytest tests --ignore tests/faults --ignore tests/simulation -n "$workers" --dist loadfile "$@" || first=$?
.venv/bin/python -m pytest tests/simulation tests/faults -n auto --dist loadfile "$@" || second=$?
[ "$first" -ne 5 ] || exit "$second" # 5: with these arguments none of them is chosen
[ "$second" -ne 5 ] || exit "$first"
[ "$first" -eq 0 ] || exit "$first"
exit "$second"
