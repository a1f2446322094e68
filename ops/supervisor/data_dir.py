"""The data directory: whether it is ours to use, and who we are according to it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from ingest.discovery import APPLIANCE_FILE, Appliance, read_appliance
from ingest.errors import ConfigError, ForeignDirectory, StorageError
from ops.supervisor.broker_directories import IDENTITY_FILE, BrokerDirectories
from ops.supervisor.instance_lock import InstanceLock

LOG_NAME = "forebay.log"
FOLDERS = {"controller": 0o700, "brokers": 0o750, "failed": 0o750, "mqtt": 0o750}  # name -> mode
_TOLERATED = {*FOLDERS, LOG_NAME, f"{LOG_NAME}.1", "supervisor.lock", "lost+found", "forebay.toml"}


class _BrokerIdentity(msgspec.Struct, frozen=True):
    cluster_id: str


class DataDir:
    """A directory that this supervisor owns: it holds the lock.

    Attributes:
        cluster_id: Whose data it holds, "" if nobody's yet.
        previous: What the last appliance on it told of itself.
    """

    def __init__(self, path: Path, lock: InstanceLock, cluster_id: str, previous: Appliance | None) -> None:
        self.path = path
        self.lock = lock
        self.cluster_id = cluster_id
        self.previous = previous

    @classmethod
    def open(cls, path: Path) -> DataDir:
        """Check the directory, make it if it is not there, take its lock. What is refused is not touched.

        Raises:
            ConfigError: it can't be made, entered or written, or is another user's.
            ForeignDirectory: it holds something else, or what a newer version wrote.
            DirectoryLocked: an appliance runs on it.
        """
        fresh = _make(path)
        previous = None if fresh else check_content(path)
        try:
            lock = InstanceLock(path)
            for name, mode in FOLDERS.items():
                (path / name).mkdir(mode=mode, exist_ok=True)
                if (path / name).stat().st_mode & 0o777 & ~mode:
                    (path / name).chmod(mode)
        except StorageError:
            raise
        except OSError as error:
            raise ConfigError(f"can't write to {path}: {error.strerror}") from None
        cluster_id = previous.cluster_id if previous else _cluster_id_of_brokers(path)
        return cls(path, lock, cluster_id, previous)

    def brokers(self, *, shared: bool) -> BrokerDirectories:
        return BrokerDirectories(self.path, self.previous.kept_by if self.previous else (), shared=shared)


def _make(path: Path) -> bool:
    """Return whether the directory is new or empty."""
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
        found = path.stat()
        empty = not any(path.iterdir())
    except FileExistsError:
        raise ConfigError(f"{path} is a file; choose a directory with --data-dir") from None
    except OSError as error:
        raise ConfigError(
            f"can't use {path} as data directory: {error.strerror}; choose another with --data-dir"
        ) from None
    if found.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to {_user(found.st_uid)}; run as that user, or choose another --data-dir")
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"can't write to {path}; choose another with --data-dir, or: chmod u+rwx {path}")
    if found.st_mode & 0o022:
        if not empty:
            raise ConfigError(f"others may write to {path}, and so replace what is acknowledged; chmod go-w {path}")
        path.chmod(0o750)
    return empty


def check_content(path: Path) -> Appliance | None:
    """Return what the last appliance there told of itself; None if none has run there yet.

    Raises:
        ConfigError: what it told can't be read.
        ForeignDirectory: it holds something else, or what a newer version wrote.
    """
    if (path / APPLIANCE_FILE).exists():
        return read_appliance(path)
    others = sorted(entry.name for entry in path.iterdir() if not _is_ours(entry.name))
    if others:
        shown = ", ".join(others[:3]) + (" …" if len(others) > 3 else "")
        raise ForeignDirectory(
            f"{path} is no data directory of Forebay: it holds {shown}; choose an empty or new one with --data-dir",
            path=path,
        )
    return None


def _is_ours(name: str) -> bool:
    return name in _TOLERATED or name.startswith(f"{APPLIANCE_FILE}.")  # one that was never put in place


def _cluster_id_of_brokers(path: Path) -> str:
    """Return the cluster that brokers' directories belong to, where appliance.json was lost."""
    found = set()
    for identity in (path / "brokers").glob(f"*/{IDENTITY_FILE}"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            found.add(msgspec.json.decode(identity.read_bytes(), type=_BrokerIdentity).cluster_id)
    if len(found) > 1:
        raise ForeignDirectory(f"{path}/brokers holds directories of several clusters: {sorted(found)}", path=path)
    return found.pop() if found else ""


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
