#!/bin/sh
# Make or refresh .venv with Forebay in it, editable.   usage: scripts/venv.sh [base|test]
#   base: what `forebay` needs to run.   test: the tools of `make test` too.
# Quick when nothing changed: a stamp in .venv holds what it was made from.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

kind=${1:-base}
case $kind in
base) target=. ;;
test) target='.[test,bench]' ;;
*) die "usage: scripts/venv.sh [base|test]" ;;
esac

wanted="$kind $(pwd) $(cat pyproject.toml constraints.txt scripts/venv.sh | cksum)"
stamp=.venv/.forebay-$kind
if [ -x .venv/bin/python ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

if ! { [ -x .venv/bin/python ] && .venv/bin/python -c 'import pip' 2>/dev/null && python_new_enough .venv/bin/python; }; then
    find_python
    say "making a virtual environment in .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv || { rm -rf .venv; die "$python -m venv .venv failed; see above"; }
fi
# compat: by a path, not by a finder, which comes second to a folder called forebay beside the script that is run
say "installing Forebay's Python packages ($kind) into .venv; the first time this takes a minute"
PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 \
    .venv/bin/python -m pip install --quiet --editable "$target" --config-settings editable_mode=compat </dev/null ||
    die "pip could not install the packages; see above. Behind a proxy or a mirror, set pip's own configuration (pip config)"
printf '%s\n' "$wanted" >"$stamp"
