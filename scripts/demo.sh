#!/bin/sh
# Show Forebay at work on this machine: nothing but Python >= 3.11 is needed. Arguments go to `forebay demo`.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh
scripts/venv.sh base
[ $# -gt 0 ] || set -- --duration 20 --devices 50
exec .venv/bin/forebay demo "$@"
