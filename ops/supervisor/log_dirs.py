"""`log.dirs`: the disks that new brokers of this machine are put on, by turns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ingest.errors import ConfigError


def of_others(disks: Iterable[Path], site: str) -> list[Path]:
    """Return the directories on these disks that brokers of other data directories have, or had."""
    return [
        path for disk in disks for path in sorted(disk.glob("forebay-*-*")) if not path.name.startswith(_home(site, ""))
    ]


def spread(brokers_dir: Path, broker_ids: Sequence[int], disks: Sequence[Path], site: str) -> None:
    """Put the brokers that have no directory yet on these disks: `<brokers_dir>/<id>` leads there.

    Args:
        site: Tells the directories of this data directory from others' on the same disk.
    Raises:
        ConfigError: a disk can't be used.
    """
    if not disks:
        return
    for index, broker_id in enumerate(broker_ids):
        entry, disk = brokers_dir / str(broker_id), disks[index % len(disks)]
        if entry.exists() or entry.is_symlink():
            continue
        home = disk / _home(site, broker_id)
        try:
            if not disk.is_dir():
                raise ConfigError(f"log.dirs: {disk} is no directory; is a disk not mounted?")
            home.mkdir(mode=0o750, exist_ok=True)
            entry.symlink_to(home.resolve())
        except OSError as error:
            raise ConfigError(f"log.dirs: can't use {disk}: {error.strerror}") from None


def _home(site: str, broker_id: int | str) -> str:
    return f"forebay-{site[:8]}-{broker_id}"
