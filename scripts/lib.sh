# shellcheck shell=sh
# What the scripts share; read with `. scripts/lib.sh` from the top of the repository. POSIX sh.

say() { printf 'forebay: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

is_root() { [ "$(id -u)" -eq 0 ]; }
has_apt() { command -v apt-get >/dev/null 2>&1 && command -v dpkg-query >/dev/null 2>&1; }

# missing_packages NAME...: print those that are not installed.
missing_packages() {
    for package in "$@"; do
        status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) || status=
        [ "$status" = "install ok installed" ] || printf '%s ' "$package"
    done
}

# install_packages NAME...: install Debian packages as root, without letting them start the services they bring:
# their ports stay free, and what the machine does after its next boot does not change.
install_packages() {
    say "installing Debian packages: $*"
    policy=/usr/sbin/policy-rc.d
    ours=
    if [ ! -e "$policy" ]; then
        ours=$policy
        # shellcheck disable=SC2064  # the name as it is now
        trap "rm -f '$policy'" EXIT
        trap 'exit 1' INT TERM HUP
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    # the lists may be absent or old on a fresh machine: fetch them only where it does not work without
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2 </dev/null || {
        apt-get -q update >&2 </dev/null || die "apt-get update failed; see above"
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2 </dev/null ||
            die "apt-get install $* failed; see above"
    }
    if [ -n "$ours" ]; then
        rm -f "$policy"
        trap - EXIT INT TERM HUP
    fi
    if command -v systemctl >/dev/null 2>&1; then
        for package in "$@"; do
            case $package in
            mosquitto | prometheus) systemctl disable "$package.service" >/dev/null 2>&1 || : ;;
            esac
        done
    fi
}

# Is this Python new enough, and can it make virtual environments?
python_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
python_makes_venvs() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# find_python: set `python` to a Python >= 3.11 that makes virtual environments; install what Debian splits off.
find_python() {
    python=
    for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 /usr/bin/python3}; do
        if command -v "$candidate" >/dev/null 2>&1 && python_new_enough "$candidate"; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON is not a Python >= 3.11"
        if is_root && has_apt; then
            install_packages python3 python3-venv
            python=/usr/bin/python3
            python_new_enough "$python" || die "Python >= 3.11 is needed, and this Debian has only $("$python" --version)"
        else
            die "Python >= 3.11 is needed. On Debian 12:  sudo apt-get install python3 python3-venv"
        fi
    fi
    python_makes_venvs "$python" && return
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if is_root && has_apt; then
        install_packages "python$version-venv"
        python_makes_venvs "$python" && return
    fi
    die "$python can't make virtual environments. On Debian:  sudo apt-get install python$version-venv"
}
