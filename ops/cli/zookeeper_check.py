"""`forebay doctor` on a machine of several: whether ZooKeeper's servers are reached, and share no disk with brokers."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ops.cli.checks import OK, PROBLEM, WARNING, Check

PORT = 2181
CONNECT_S = 1.0
_SERVER = "QuorumPeerMain"  # the class a server runs
_DIRECTORIES = ("dataDir", "dataLogDir")


def zookeeper_checks(connect: str, data_dir: Path) -> Iterator[Check]:
    """Yield what is found; nothing if the appliance keeps its metadata itself."""
    if not connect:
        return
    if importlib.util.find_spec("kazoo") is None:
        why = "the metadata store is reached with it"
        yield Check("zookeeper", PROBLEM, "kazoo is not installed", why, "pip install 'forebay[zookeeper]'")
    hosts = connect.partition("/")[0].split(",")
    silent = [host for host in hosts if not _answers(host)]
    what = f"{len(hosts) - len(silent)} of {len(hosts)} servers take connections"
    if silent:
        state = PROBLEM if len(silent) * 2 >= len(hosts) else WARNING
        why = "without most of them nothing is elected, created or changed"
        yield Check("zookeeper", state, f"{what}; not {', '.join(silent)}", why, "start them, or correct the address")
    else:
        yield Check("zookeeper", OK, what)
    for directory in _local_directories():
        if _device(directory) == _device(data_dir):
            why = "its writes wait for the log's flushes, and a session that waits too long is over: leaders move"
            next_step = "put dataLogDir of zoo.cfg, or the data directory, on another disk"
            yield Check("zookeeper", WARNING, f"a server keeps {directory} on the disk of the log", why, next_step)


def _answers(host: str) -> bool:
    try:
        address = urlsplit(f"//{host.strip()}")
        socket.create_connection((address.hostname or "", address.port or PORT), CONNECT_S).close()
    except (OSError, ValueError):
        return False
    return True


def _local_directories() -> list[Path]:
    """Return where servers on this machine keep their data, as far as we may see."""
    import psutil

    found: list[Path] = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if any(_SERVER in part for part in command):
            found += _directories_of(Path(command[-1]))
    return found


def _directories_of(config: Path) -> list[Path]:
    try:
        lines = config.read_text().splitlines()
    except OSError:
        return []
    settings = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return [Path(settings[key].strip()) for key in _DIRECTORIES if key in settings]


def _device(path: Path) -> int:
    """Return the device of the nearest directory above that we may look at."""
    while True:
        try:
            return path.stat().st_dev
        except OSError:
            path = path.parent
