"""The partitions this broker leads, kept as the controller's metadata says: opened, created, changed, deleted."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from brokerd.serving.partition import Partition
from brokerd.storage.config import LogConfig
from ingest.errors import LogDirOffline, StorageError, UnsupportedFormat
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import LocalPartition, MetadataResponse

if TYPE_CHECKING:
    from brokerd.storage.directory import LogDirectory

log = structlog.get_logger()

APPLY_AT_ONCE = 16  # partitions opened or created between two looks at the sockets: about 20 ms on a slow disk

Key = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class _Lead:
    """Lead a partition under an epoch."""

    key: Key
    topic: str
    leader_epoch: int
    configs: dict[str, str]


class LedPartitions:
    """Map of what is led here. Thread: the broker loop.

    Attributes:
        snapshot: The metadata that `plan` was given last; `version` is its version.
    """

    def __init__(self, directory: LogDirectory, broker_id: int) -> None:
        self._directory = directory
        self._broker_id = broker_id
        self._led: dict[Key, Partition] = {}
        self._known: set[Key] = set()
        self._configs: dict[Key, dict[str, str]] = {}
        self._work: deque[_Lead | Key] = deque()
        self._unavailable: dict[Key, _Lead] = {}
        self.snapshot: MetadataResponse | None = None
        self.version = -1
        self.pending = False

    def find(self, topic_id: bytes, partition: int) -> Partition | ErrorCode:
        """Return the led partition, or why a request for it is refused."""
        key = (topic_id, partition)
        found = self._led.get(key)
        if found is not None:
            return found
        if key in self._unavailable:
            return ErrorCode.KAFKA_STORAGE_ERROR
        return ErrorCode.NOT_LEADER_OR_FOLLOWER if key in self._known else ErrorCode.UNKNOWN_TOPIC_ID

    @property
    def unavailable(self) -> int:
        """How many partitions led here can't be opened."""
        return len(self._unavailable)

    def retry_unavailable(self) -> None:
        """Try again, with the next `apply_some`, what could not be opened or created: a disk may have room again."""
        if self._unavailable and not self.pending:
            self._work.extend(self._unavailable.values())
            self.pending = True

    def is_applied(self) -> bool:
        """Tell whether everything is as the last plan says."""
        return not self.pending

    def all(self) -> list[Partition]:
        return list(self._led.values())

    def local_partitions(self) -> list[LocalPartition]:
        """Return what is on disk, for the controller to grant epochs above."""
        return [
            LocalPartition(topic_id, partition, epoch, end)
            for topic_id, partition, epoch, end in self._directory.found_ends()
        ]

    def producer_id_floor(self) -> int:
        """Return the greatest producer id any log here holds, -1 for none."""
        return self._directory.producer_id_max()

    def plan(self, snapshot: MetadataResponse) -> None:
        """Work out what to do to be as `snapshot` says; `apply_some` does it."""
        self.snapshot = snapshot
        self.version = snapshot.version
        self._unavailable.clear()
        self._known = {(t.topic_id, p.partition) for t in snapshot.topics for p in t.partitions}
        self._work.clear()
        for topic in snapshot.topics:
            for item in topic.partitions:
                key = (topic.topic_id, item.partition)
                if item.leader != self._broker_id:
                    continue
                led = self._led.get(key)
                if led is None or led.log.leader_epoch < item.leader_epoch or self._configs.get(key) != topic.configs:
                    self._work.append(_Lead(key, topic.name, item.leader_epoch, topic.configs))
        deleted = set(snapshot.deleted_topic_ids)
        on_disk = {(topic_id, partition) for topic_id, partition in self._directory.found()}
        self._work.extend(key for key in on_disk | set(self._led) if key[0] in deleted)
        self.pending = True

    def apply_some(self) -> tuple[list[Partition], list[Partition]]:
        """Do the next few steps of the plan; return the partitions newly led, and those led no longer."""
        new: list[Partition] = []
        gone: list[Partition] = []
        for _ in range(APPLY_AT_ONCE):
            if not self._work:
                self.pending = False
                break
            item = self._work.popleft()
            key = item.key if isinstance(item, _Lead) else item
            try:
                if isinstance(item, _Lead):
                    new.append(self._lead(item))
                else:
                    led = self._led.pop(item, None)
                    if led is not None:
                        gone.append(led)
                    self._configs.pop(item, None)
                    self._directory.delete_partition(*item)
                self._unavailable.pop(key, None)
            except LogDirOffline:
                raise
            except (StorageError, UnsupportedFormat) as error:
                if isinstance(item, _Lead):
                    if key not in self._unavailable:
                        log.error("a partition is unavailable", topic=item.topic, partition=key[1], reason=str(error))
                    self._unavailable[key] = item
                else:
                    log.error("a partition was not deleted", reason=str(error))
        return new, gone

    def _lead(self, item: _Lead) -> Partition:
        led = self._led.get(item.key)
        config = LogConfig.from_topic_configs(item.configs)
        if led is None:
            led = Partition(item.topic, self._directory.partition(*item.key, config), self._broker_id)
        elif led.log.config != config:
            led.log.alter_config(config)
        self._configs[item.key] = item.configs
        if led.log.leader_epoch < item.leader_epoch:
            led.log.become_leader(item.leader_epoch)
            led.epoch_start = led.log.end_offset
        self._led[item.key] = led
        return led
