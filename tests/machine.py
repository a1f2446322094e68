"""What this machine lets a test do: loop mounts, namespaces, ptrace, other programs. Probed once a run, by trying.

A test says `@pytest.mark.needs("loop_mounts")`; where that is missing it is skipped with the reason. CI names the
set it requires in FOREBAY_REQUIRED_CAPABILITIES, and a run that lacks one of those ends before its first test.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

REQUIRED_VARIABLE = "FOREBAY_REQUIRED_CAPABILITIES"

# Debian installs servers here, which the PATH of a user who is not root leaves out
_PROGRAM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
_PROBE_SECONDS = 20

ZOOKEEPER_JAR = Path("/usr/share/java/zookeeper.jar")  # Debian's; its manifest names what else it needs


def program(name: str) -> str | None:
    """Return the path of an installed program, or None."""
    return shutil.which(name, path=_PROGRAM_PATH)


@lru_cache(maxsize=1)
def missing() -> dict[str, str]:
    """Return the capabilities this machine lacks, each with the reason. Cost: some 0.2 s, once."""
    reasons = {name: probe() for name, probe in _PROBES.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def capabilities() -> list[str]:
    """Return the names a test may ask for."""
    return list(_PROBES)


def required() -> list[str]:
    """Return the capabilities whose lack is an error, from the environment."""
    return [name for name in os.environ.get(REQUIRED_VARIABLE, "").replace(",", " ").split() if name]


def _run(*command: str) -> str:
    """Run one command; return why it failed, or nothing."""
    path = program(command[0])
    if path is None:
        return f"{command[0]} is not installed"
    try:
        done = subprocess.run(
            [path, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}"
    if done.returncode == 0:
        return ""
    words = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
    return f"{command[0]}: {words[-1]}"


def _installed(*names: str) -> Callable[[], str]:
    def probe() -> str:
        absent = [name for name in names if program(name) is None]
        return f"{', '.join(absent)} not installed" if absent else ""

    return probe


def _importable(module: str) -> Callable[[], str]:
    return lambda: "" if importlib.util.find_spec(module) else f"Python module {module} not installed"


def _root() -> str:
    return "" if os.geteuid() == 0 else "not root"


def _tmpfs_mount() -> str:
    """Mount a tmpfs in a mount namespace of its own, which ends with the command."""
    return _root() or _run("unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt && umount /mnt")


def _loop_mounts() -> str:
    """Make, mount and unmount an ext4 file system in a small file."""
    if reason := _root():
        return reason
    with tempfile.TemporaryDirectory() as folder:
        image, target = Path(folder) / "image", Path(folder) / "target"
        target.mkdir()
        image.write_bytes(b"")
        os.truncate(image, 1 << 20)
        if reason := _run("mkfs.ext4", "-q", "-F", str(image)):
            return reason
        if reason := _run("mount", "-o", "loop", str(image), str(target)):
            return reason
        return _run("umount", str(target))


def _network_namespaces() -> str:
    """Join two of them by a bridge, and have one lose packets."""
    if absent := _installed("ip", "nft")():
        return absent
    pair = "ip link add name br0 type bridge && ip link add name v0 type veth peer name v1"
    return _root() or _run("unshare", "-n", "sh", "-c", f"{pair} && {program('nft')} add table inet cut")


def _ptrace() -> str:
    """Let strace start and trace a program; containers often forbid it."""
    return _run("strace", "-o", os.devnull, "-e", "trace=none", "true")


def faketime_library() -> Path | None:
    """Return the library that shows a program another wall clock, None where it is not installed."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def _zookeeper() -> str:
    return _installed("java")() or ("" if ZOOKEEPER_JAR.exists() else f"{ZOOKEEPER_JAR} is not there")


def _rsyslog() -> str:
    """Rsyslog with the module that speaks to Kafka, which is a package of its own."""
    plugin = next(Path("/usr/lib").glob("*/rsyslog/omkafka.so"), None)
    return _installed("rsyslogd")() or ("" if plugin else "rsyslog's omkafka not installed")


_PROBES: dict[str, Callable[[], str]] = {
    "root": _root,
    "tmpfs_mount": _tmpfs_mount,
    "loop_mounts": _loop_mounts,
    "network_namespaces": _network_namespaces,
    "ptrace": _ptrace,
    "mosquitto": _installed("mosquitto"),
    "mosquitto_clients": _installed("mosquitto_pub", "mosquitto_sub"),
    "prometheus": _installed("prometheus", "promtool"),
    "openssl": _installed("openssl"),
    "kcat": _installed("kcat"),
    "tshark": _installed("tshark"),
    "rsyslog": _rsyslog,
    "faketime": lambda: "" if faketime_library() else "libfaketime not installed",
    "zookeeper": _zookeeper,
    "confluent_kafka": _importable("confluent_kafka"),
}


def header_lines(lacking: dict[str, str]) -> Iterable[str]:
    """Describe the machine for pytest's header."""
    present = [name for name in _PROBES if name not in lacking]
    yield "machine: " + (" ".join(present) or "nothing special")
    for name, reason in lacking.items():
        yield f"machine lacks {name}: {reason}"
