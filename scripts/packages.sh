#!/bin/sh
# Install the Debian packages the tests use; where that is impossible, say once what is missing: those tests are skipped.
set -eu
cd "$(dirname "$0")/.."
. scripts/lib.sh

# mosquitto: the bridge's tests   prometheus: queries and alert rules   strace: injected I/O errors and fsync counts
# e2fsprogs, mount, util-linux: small file systems and namespaces   iproute2, nftables: network namespaces that are cut off
# openssl: TLS keys   libfaketime: jumps of the wall clock   zookeeper: an ensemble on loopback
# kcat, rsyslog, rsyslog-kafka: an old librdkafka at the Kafka listener   tshark: a foreign reader of its bytes
packages="mosquitto mosquitto-clients prometheus strace e2fsprogs mount util-linux iproute2 nftables openssl libfaketime zookeeper kcat rsyslog rsyslog-kafka tshark"

if ! has_apt; then
    say "this is no Debian: tests that need mosquitto, prometheus, strace, mkfs.ext4, openssl or zookeeper are skipped where these are missing"
    exit 0
fi
# shellcheck disable=SC2086  # a list of words
missing=$(missing_packages $packages)
[ -n "$missing" ] || exit 0
if is_root; then
    # shellcheck disable=SC2086
    install_packages $missing
else
    say "not root, so some tests are skipped; to run them all:  sudo apt-get install --no-install-recommends $missing"
fi
