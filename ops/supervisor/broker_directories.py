"""The brokers' directories below a data directory: which are there, and which were and are missing."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path
from shlex import quote

from ingest.errors import ConfigError, StorageError

IDENTITY_FILE = "directory.json"  # a broker writes it before anything else


class BrokerDirectories:
    """Look at the directories.

    Attributes:
        kept_by: Ids of the brokers that kept data when the appliance was last ready.
        shared: Other directories have brokers of the same cluster: ids that are missing here are theirs.
    """

    def __init__(self, data_dir: Path, kept_by: Collection[int] = (), *, shared: bool = False) -> None:
        self.path = data_dir / "brokers"
        self.kept_by = kept_by
        self.shared = shared

    @property
    def ids(self) -> list[int]:
        """The ids of the brokers that have a directory or had one; of one that shares with no other, with no gap."""
        if self.shared:  # a bare folder names nobody: its id may be another machine's broker's
            return sorted({*self.with_data(), *self.kept_by})
        named: list[int] = []
        with contextlib.suppress(OSError):
            named = [int(folder.name) for folder in self.path.iterdir() if folder.name.isdecimal()]
        return self._without_gap({*named, *self.kept_by})

    def _without_gap(self, ids: Collection[int]) -> list[int]:
        return sorted(ids) if self.shared else list(range(1, max(ids, default=0) + 1))

    def with_data(self) -> list[int]:
        """Return the ids of the brokers that have begun to keep data; a bare folder may be where a disk belongs."""
        names = [identity.parent.name for identity in self.path.glob(f"*/{IDENTITY_FILE}")]
        return sorted(int(name) for name in names if name.isdecimal())

    def check(self, accepted: Collection[int] = ()) -> list[int]:
        """Return the ids of the brokers whose data is there.

        Args:
            accepted: Brokers that may start empty though they had data.
        Raises:
            StorageError: the data of others that had some is not there.
            ConfigError: an accepted one is not missing: told for ever, it would hide the next disk that is.
        """
        there = self.with_data()
        had = {*self.kept_by, *self._without_gap(there)}
        missing = sorted(had - set(there))
        for broker_id in accepted:
            if broker_id not in missing:
                raise ConfigError(
                    f"--accept-empty-broker {broker_id}: nothing of broker {broker_id} is missing; leave the flag out"
                )
        lost = [broker_id for broker_id in missing if broker_id not in accepted]
        if lost:
            raise StorageError(self._complaint(lost), path=self.path / str(lost[0]))
        return there

    def _complaint(self, lost: list[int]) -> str:
        folders = " and ".join(str(self.path / str(broker_id)) for broker_id in lost)
        flags = " ".join(f"--accept-empty-broker {broker_id}" for broker_id in lost)
        one = len(lost) == 1
        up = f"forebay up --data-dir {quote(str(self.path.parent))}"
        return (
            f"{folders} {'holds' if one else 'hold'} no data, and did before. Is a disk not mounted? Mount it, or "
            f"put the {'directory' if one else 'directories'} back, and run `{up}` again. If what was there "
            f"is lost for good, start {'that broker' if one else 'those brokers'} empty: {up} {flags}"
        )
