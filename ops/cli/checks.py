"""What `forebay doctor` looks at: each check says what it found, why that matters and what to do."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import msgspec

from ingest.errors import ForebayError, StorageError
from ingest.limits import GIB, MIB
from ops.cli.found import Found, find
from ops.cli.status import SAME_FLAGS, describe
from ops.config.paths import default_run_dir, shared_memory_dir
from ops.config.settings import Settings
from ops.supervisor.appliance import OPEN_FILES
from ops.supervisor.broker_directories import BrokerDirectories
from ops.supervisor.compose import listeners, process_names
from ops.supervisor.data_dir import check_content
from ops.supervisor.filesystem import filesystem_type, is_in_memory
from ops.supervisor.ports import check_port
from ops.supervisor.run_dir import check_length

OK, WARNING, PROBLEM = "ok", "warning", "problem"

DISK_FREE_BYTES = 1 * GIB  # one segment
DISK_FREE_BYTES_MIN = 64 * MIB
SHARED_MEMORY_BYTES_MIN = 16 * MIB  # a state page is 128 bytes a partition
NOFILE_MIN = 4096  # three files a segment, one a connection
CLOCK_FLOOR_S = 1_735_689_600  # 2025-01-01: before this program was written
LOSSY = ("tmpfs", "ramfs", "overlay")
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs")


class Check(msgspec.Struct, frozen=True):
    """One finding; `why` and `next` are empty when all is well."""

    name: str
    state: str
    what: str
    why: str = ""
    next: str = ""


def run_checks(data_dir: Path, settings: Settings) -> Iterator[Check]:
    """Yield every finding. Nothing is changed, and nothing is created."""
    found: Found | None = None
    try:
        found = find(data_dir)
    except ForebayError as error:
        yield Check("appliance", PROBLEM, str(error), "it can't be started or asked", "choose another --data-dir")
    yield _python()
    yield from _directory(data_dir, found)
    for place in _disks(data_dir, settings):
        yield _filesystem(place)
        yield _disk(place, data_dir)
    yield _shared_memory(data_dir)
    yield _run_dir(data_dir, settings)
    yield _open_files()
    yield _clock()
    yield from _ports(data_dir, settings, found)
    if found is not None:
        yield _appliance(found)


def _python() -> Check:
    version = f"Python {sys.version.split()[0]} on {os.uname().machine}, Linux {os.uname().release}"
    if sys.maxsize < 2**32:
        return Check("python", PROBLEM, version, "logs are mapped, and 32 bits are too few", "install a 64-bit Python")
    return Check("python", OK, version)


def _directory(data_dir: Path, found: Found | None) -> Iterator[Check]:
    if not data_dir.exists():
        parent = _existing(data_dir)
        if os.access(parent, os.W_OK | os.X_OK):
            yield Check("permissions", OK, f"{data_dir} will be made by `forebay up`")
        else:
            what = f"{data_dir} is not there, and can't be made in {parent}"
            yield Check("permissions", PROBLEM, what, "`forebay up` would fail", "choose another with --data-dir")
        return
    status = data_dir.stat()
    if status.st_uid != os.geteuid():
        what = f"{data_dir} is another user's (uid {status.st_uid})"
        yield Check("permissions", PROBLEM, what, "files would be of two owners", "run as that user")
    elif not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
        why = "nothing can be stored"
        yield Check("permissions", PROBLEM, f"can't write to {data_dir}", why, f"chmod u+rwx {data_dir}")
    elif status.st_mode & 0o022:
        why = "others can replace what is acknowledged"
        yield Check("permissions", PROBLEM, f"others may write to {data_dir}", why, f"chmod go-w {data_dir}")
    else:
        yield Check("permissions", OK, f"{data_dir} is ours alone to write")
    if found is not None and not found.runs:
        yield from _content(data_dir)


def _content(data_dir: Path) -> Iterator[Check]:
    why = "`forebay up` would refuse it"
    try:
        appliance = check_content(data_dir)
    except (ForebayError, OSError) as error:
        yield Check("directory", PROBLEM, str(error), why, "choose another with --data-dir")
        return
    try:
        shared = bool(appliance and appliance.zookeeper)
        BrokerDirectories(data_dir, appliance.kept_by if appliance else (), shared=shared).check()
    except StorageError as error:
        yield Check("directory", PROBLEM, str(error), why, "mount it, or restore it from a backup")


def _disks(data_dir: Path, settings: Settings) -> list[Path]:
    """Return a directory on each file system that metadata and records are on, or will be."""
    brokers: list[Path] = []
    with contextlib.suppress(OSError):
        brokers = sorted((data_dir / "brokers").iterdir())
    found: dict[int, Path] = {}
    for place in (_existing(data_dir), *brokers, *settings.log_dirs):
        with contextlib.suppress(OSError):  # a disk that is not there: that is another check's
            found.setdefault(place.stat().st_dev, place.resolve())
    return list(found.values())


def _filesystem(path: Path) -> Check:
    kind = filesystem_type(path) or "unknown"
    what = f"{path} is on {kind}"
    if kind in LOSSY:
        why = "what is stored there is gone with the machine or container, acknowledged or not"
        return Check("file system", WARNING, what, why, "choose a directory on ext4 or xfs with --data-dir")
    if kind in REMOTE:
        why = "locks and fsync of a remote file system may not mean what they say"
        return Check("file system", PROBLEM, what, why, "choose a directory on a local disk with --data-dir")
    return Check("file system", OK, what)


def _disk(path: Path, data_dir: Path) -> Check:
    alter = f"forebay topic alter-config NAME --set retention.ms=MS --data-dir {quote(str(data_dir))}"
    free = shutil.disk_usage(path).free
    what = f"{free / GIB:.1f} GiB free for {path}"
    if free < DISK_FREE_BYTES_MIN:
        why = "produce requests are refused when the disk is full"
        return Check("disk", PROBLEM, what, why, f"free some, or lower retention: {alter}")
    if free < DISK_FREE_BYTES:
        why = "that is less than one segment (1 GiB)"
        return Check("disk", WARNING, what, why, f"free some, or lower retention: {alter}")
    return Check("disk", OK, what)


def _shared_memory(data_dir: Path) -> Check:
    place = shared_memory_dir(data_dir).parent
    run_dir = _existing(default_run_dir(data_dir))
    if is_in_memory(run_dir):
        place = run_dir
    elif not place.is_dir() or not is_in_memory(place) or not os.access(place, os.W_OK):
        why = "state pages go to a disk, where a store may stall readers and brokers"
        return Check("tmpfs", WARNING, f"{place} is no tmpfs we may write to", why, f"mount -t tmpfs tmpfs {place}")
    free = shutil.disk_usage(place).free
    what = f"{free / MIB:.0f} MiB free on the tmpfs {place}"
    if free < SHARED_MEMORY_BYTES_MIN:
        return Check("tmpfs", PROBLEM, what, "state pages need some", f"remove what fills {place}, or make it larger")
    return Check("tmpfs", OK, what)


def _run_dir(data_dir: Path, settings: Settings) -> Check:
    run_dir = default_run_dir(data_dir)
    try:
        check_length(run_dir, process_names(settings, BrokerDirectories(data_dir, shared=True).ids or [1]))
    except ForebayError as error:
        return Check("run directory", PROBLEM, str(error), "`forebay up` would fail", "see what it says")
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if session and str(run_dir).startswith(session) and session.startswith("/run/user/") and os.geteuid() != 0:
        user = os.environ.get("USER", "")
        if not Path("/var/lib/systemd/linger", user).exists():
            why = "systemd removes it, sockets included, when you log out"
            return Check("run directory", WARNING, str(run_dir), why, f"loginctl enable-linger {user}")
    return Check("run directory", OK, str(run_dir))


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    what = f"{soft} open files (hard limit {hard})"
    if 0 <= hard < NOFILE_MIN:  # the soft limit `up` raises itself; -1 is no limit
        why = "each segment takes three and each connection one"
        return Check("ulimit", WARNING, what, why, f"ulimit -Hn {OPEN_FILES} as root, or LimitNOFILE= in the service")
    return Check("ulimit", OK, what)


def _clock() -> Check:
    now = time.time()
    what = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < CLOCK_FLOOR_S:
        why = "records get wrong timestamps; what is kept does not depend on it"
        return Check("clock", WARNING, what, why, "set it, or run an NTP client: timedatectl set-ntp true")
    return Check("clock", OK, what)


def _ports(data_dir: Path, settings: Settings, found: Found | None) -> Iterator[Check]:
    if found is not None and found.runs:
        addresses = found.status.addresses if found.status else {}
        yield Check(
            "ports", OK, ", ".join(f"{name} {address}" for name, address in addresses.items()) or "in use by us"
        )
        return
    for listener in listeners(settings, BrokerDirectories(data_dir, shared=True).ids or [1]):
        if listener.port <= 0:
            continue
        what = f"{listener.name} {listener.host}:{listener.port}"
        try:
            check_port(listener)
        except ForebayError as error:
            state = WARNING if listener.optional else PROBLEM
            why = f"`forebay up` would {'leave it out' if listener.optional else 'fail'}"
            yield Check("ports", state, str(error), why, f"set another with {listener.setting}")
        else:
            yield Check("ports", OK, f"{what} is free")


def _appliance(found: Found) -> Check:
    up = f"forebay up --data-dir {quote(str(found.data_dir))}"
    if not found.runs:
        return Check("appliance", OK, f"none runs on {found.data_dir}; start it with: {up}")
    if found.orphans:
        what = f"{len(found.orphans)} processes run without a supervisor"
        return Check(
            "appliance", PROBLEM, what, "none is restarted if it dies", f"take them over with: {up}{SAME_FLAGS}"
        )
    if found.status is None:
        why = "it may be stopped or starved"
        return Check("appliance", PROBLEM, "its supervisor does not answer", why, "see forebay.log")
    waiting = [process for process in found.status.processes if process.state != "running"]
    if waiting:
        what = ", ".join(f"{p.name} is {p.state}{': ' * bool(p.reason)}{p.reason}" for p in waiting)
        return Check("appliance", PROBLEM, what, "not all of it serves", f"see {found.status.log_path}")
    if found.status.ready and (reasons := describe(found)["reasons"]):
        why, see = "not every record with acks=all is acknowledged", "forebay cluster health, and troubleshooting.md"
        return Check("appliance", PROBLEM, f"it is not ready: {'; '.join(reasons)}", why, see)
    state = OK if found.status.ready else WARNING
    return Check("appliance", state, "it runs" if found.status.ready else "it is starting")


def _existing(path: Path) -> Path:
    """Return the nearest directory above that is there."""
    while not path.exists():
        path = path.parent
    return path
