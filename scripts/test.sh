#!/bin/sh
# Everything CI runs: what the tests need, static checks, tests. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
scripts/packages.sh
scripts/venv.sh test
scripts/lint.sh
say "pytest $*"
exec .venv/bin/python -m pytest "$@"
