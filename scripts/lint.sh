#!/bin/sh
# Every static check: ruff, formatting, mypy --strict, the import arrows.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
scripts/venv.sh test
PATH="$(pwd)/.venv/bin:$PATH"
failed=
check() {
    say "$*"
    "$@" || failed="$failed $1"
}
check ruff check --quiet .
check ruff format --quiet --check .
check mypy --no-error-summary
check lint-imports --no-cache --no-logo
[ -z "$failed" ] || die "failed:$failed"
