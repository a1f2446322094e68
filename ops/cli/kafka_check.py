"""`forebay doctor` looks at the Kafka gateway as a client does: what it serves, and where it sends clients."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from edge.kafka.fields import Malformed
from edge.kafka.probe import CertificateWanted, Seen, look
from edge.security.listener import is_loopback
from ingest.errors import ForebayError
from ops.cli.checks import OK, PROBLEM, WARNING, Check
from ops.cli.found import find
from ops.supervisor.compose import ANY_HOST, KAFKA, KAFKA_TLS
from ops.supervisor.ports import address

KINDS = (KAFKA, KAFKA_TLS)  # listeners without TLS, and with it
TIMEOUT_S = 2.0
SHOWN = {"Produce": 0, "Fetch": 1, "Metadata": 3, "JoinGroup": 11}
_WHY = "clients ask bootstrap.servers where brokers are, and then connect to what they are told, to nothing else"
_SETTINGS = "advertised_host, advertised_port and advertised_tls_port under [kafka]"


def kafka_checks(data_dir: Path) -> Iterator[Check]:
    """Yield what a client would meet with; nothing of an appliance that does not run."""
    with contextlib.suppress(ForebayError, OSError):
        found = find(data_dir)
        if found.status is None:
            return
        addresses = {kind: found.status.addresses[kind] for kind in KINDS if kind in found.status.addresses}
        if not addresses:
            what = "no Kafka gateway runs; `forebay up --kafka-port 9092` starts one, or says who has the port"
            yield Check(KAFKA, OK, what)
        for kind, bound in addresses.items():
            yield from _listener(kind, bound, found.status.log_path)


def _listener(kind: str, bound: str, log_path: str) -> Iterator[Check]:
    host, _, port = bound.rpartition(":")
    host = host.strip("[]")
    asked = _own_address() if host in ANY_HOST else host  # as another machine would
    try:
        seen = look(asked, int(port), timeout_s=TIMEOUT_S, tls=kind == KAFKA_TLS)
    except CertificateWanted:
        yield Check(
            kind, OK, f"the gateway at {bound} lets in only clients with a certificate; no more is seen without"
        )
    except (OSError, Malformed) as error:
        what = f"the gateway at {bound} does not answer: {error}"
        yield Check(kind, PROBLEM, what, "Kafka clients can't connect", f"see {log_path}")
    else:
        yield from judge(kind, bound, asked, seen, resolve=_resolve, connects=_connects)


def judge(
    kind: str,
    bound: str,
    asked: str,
    seen: Seen,
    *,
    resolve: Callable[[str], list[str]],
    connects: Callable[[str, int], str],
) -> Iterator[Check]:
    """Yield what is right and wrong with what a gateway told. Pure, but for what it is given.

    Args:
        kind: The listener, one of `KINDS`.
        bound: Where it listens, host:port.
        asked: The address by which it was asked: it tells brokers on this machine to be there, if nothing is set.
        resolve: Returns the addresses of a name, none if there are none.
        connects: Returns why nobody takes a connection there, "" if somebody does.
    """
    ranges = [(name, seen.versions[key]) for name, key in SHOWN.items() if key in seen.versions]
    served = ", ".join(f"{name} {lowest}-{highest}" for name, (lowest, highest) in ranges)
    who = "programs on this machine alone reach it" if is_loopback(asked) else "other machines may reach it"
    login = "everybody is let in" if seen.brokers is not None else "it wants a login (SASL)"
    secret = "it speaks TLS" if kind == KAFKA_TLS else "it does not encrypt"
    what = f"the gateway at {bound} serves {len(seen.versions)} APIs ({served}); {who}; {secret}; {login}"
    yield Check(kind, OK, what)
    wrong = False
    for broker_id, (told, told_port) in (seen.brokers or {}).items():
        for check in _advertised(kind, broker_id, told, told_port, asked, resolve, connects):
            wrong = True
            yield check
    if seen.brokers and not wrong:
        places = ", ".join(f"{broker_id} at {address(told, at)}" for broker_id, (told, at) in seen.brokers.items())
        yield Check(kind, OK, f"clients are told of brokers {places}; all take connections from here")


def _advertised(
    kind: str,
    broker_id: int,
    told: str,
    port: int,
    asked: str,
    resolve: Callable[[str], list[str]],
    connects: Callable[[str, int], str],
) -> Iterator[Check]:
    """Yield what is wrong with where clients are told that a broker is."""
    what = f"clients are told that broker {broker_id} is at {address(told, port)}"
    addresses = resolve(told)
    local = all(map(is_loopback, addresses))
    if not addresses:
        yield Check(kind, PROBLEM, f"{what}, a name that can't be resolved here", _WHY, f"set {_SETTINGS}")
    elif (reason := connects(told, port)) != "":
        why = f"{_WHY}; from here it is: {reason}"
        if is_loopback(asked) and not local:
            why += f". The gateway listens on {asked} alone"
        next_step = f"set {_SETTINGS}, or let that port through; host under [kafka] is where it listens"
        yield Check(kind, PROBLEM, f"{what}, where nobody takes connections", why, next_step)
    elif local and not is_loopback(asked):
        why = "a client on another machine connects to itself there"
        yield Check(kind, WARNING, what, why, f"set {_SETTINGS} to what other machines reach")


def _own_address() -> str:
    """Return the address by which this machine goes to others, which takes no packet to find out."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # RFC 5737: nobody's
        return str(probe.getsockname()[0])
    return "127.0.0.1"


def _resolve(name: str) -> list[str]:
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    except OSError:
        return []


def _connects(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), TIMEOUT_S).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""
