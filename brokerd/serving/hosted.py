"""The partitions this broker has replicas of, kept as the controller's metadata says: led, followed, deleted."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from brokerd.serving.partition import Partition
from brokerd.storage.compaction.cleaner import CleanerSettings
from brokerd.storage.config import LogConfig
from brokerd.storage.errors import DamagedLog
from ingest.errors import LogDirOffline, StorageError, UnsupportedFormat
from ingest.topic_name import CONSUMER_OFFSETS
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import DamagedReplica, LeaderlessEnd, LocalPartition, MetadataResponse, PartitionMetadata
from replicas.domains import Domains, Place
from replicas.puller import Followed, Puller, PullSettings
from replicas.refill import RefillStep, next_step
from replicas.state import PartitionState
from replicas.throttle import UNBOUNDED, Throttle, names_replica

if TYPE_CHECKING:
    from brokerd.storage.directory import LogDirectory

log = structlog.get_logger()

APPLY_AT_ONCE = 16  # partitions opened or created between two looks at the sockets: about 20 ms on a slow disk
CHEAP = 32  # a change of role of a log that is open already costs so much less

Key = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class _Assigned:
    """What metadata says of a partition that has a replica here."""

    key: Key
    topic: str
    partition: PartitionMetadata
    configs: dict[str, str]


@dataclass(slots=True)
class Applied:
    """What `apply_some` did.

    Attributes:
        touched: Partitions that lead or follow under a new epoch since, or have another in-sync set.
        ended: Partitions that are led here no longer, or not here at all.
    """

    touched: list[Partition] = field(default_factory=list)
    ended: list[Partition] = field(default_factory=list)


class HostedPartitions:
    """Map of the replicas here. Thread: the broker loop.

    Attributes:
        snapshot: The metadata that `plan` was given last; `version` is its version.
        pullers: By the broker they follow.
        pull: Their settings.
        cleaning: What is set for compaction.
        leader_throttle, follower_throttle: What this broker sends, and fetches, for replicas that catch up.
        damage_found: How many replicas were found damaged, to be refilled.
        refills: How many of them were begun anew.
    """

    def __init__(self, directory: LogDirectory, broker_id: int) -> None:
        self._directory = directory
        self._broker_id = broker_id
        self.pull = PullSettings()
        self.cleaning = CleanerSettings()
        self.leader_throttle = Throttle()
        self.follower_throttle = Throttle()
        self._hosted: dict[Key, Partition] = {}
        self._led: dict[Key, Partition] = {}
        self._known: set[Key] = set()
        self._assigned: dict[Key, _Assigned] = {}
        self._work: deque[_Assigned | Key] = deque()
        self._unavailable: dict[Key, _Assigned] = {}
        self._marked: list[Key] = []  # to be refilled at once, if nobody counts on them
        self._domains = Domains()
        self._broker_epochs: dict[int, int] = {}
        self.pullers: dict[int, Puller] = {}
        self._following: dict[Key, Puller] = {}
        self.snapshot: MetadataResponse | None = None
        self.version = -1
        self.pending = False
        self._confirmed = True
        self.damage_found = self.refills = 0
        self._scrubbed = -1

    def find(self, topic_id: bytes, partition: int) -> Partition | ErrorCode:
        """Return the led partition, or why a request for it is refused."""
        key = (topic_id, partition)
        found = self._led.get(key)
        if found is not None:
            return found
        if key in self._unavailable:
            return ErrorCode.KAFKA_STORAGE_ERROR
        return ErrorCode.NOT_LEADER_OR_FOLLOWER if key in self._known else ErrorCode.UNKNOWN_TOPIC_ID

    def find_replica(self, topic_id: bytes, partition: int) -> Partition | ErrorCode:
        """Return the partition, led or followed, or why a reader's fetch is refused."""
        key = (topic_id, partition)
        puller = self._following.get(key)
        if puller is None or puller.followed[key].offline:
            return self.find(topic_id, partition)
        return self._hosted[key]

    def hosted(self, topic_id: bytes, partition: int) -> Partition | None:
        """Return the partition, led or followed."""
        return self._hosted.get((topic_id, partition))

    def broker_epoch(self, broker_id: int) -> int:
        """Return the registered epoch of a broker, -1 for one that is not known."""
        return self._broker_epochs.get(broker_id, -1)

    @property
    def unavailable(self) -> int:
        """How many partitions with a replica here can't be opened."""
        return len(self._unavailable)

    @property
    def offline(self) -> int:
        """How many replicas here contradict their leader below what was committed. Thread: any."""
        pullers = list(self.pullers.values())  # copies, for the loop goes on adding and removing
        return sum(bool(followed.offline) for puller in pullers for followed in list(puller.followed.values()))

    def retry_unavailable(self) -> None:
        """Try again, with the next `apply_some`, what could not be opened or created: a disk may have room again."""
        if self._unavailable and not self.pending:
            self._work.extend(self._unavailable.values())
            self.pending = True

    def is_applied(self) -> bool:
        """Tell whether everything is as the last plan says."""
        return not self.pending

    def led(self) -> list[Partition]:
        """Return the partitions led here."""
        return list(self._led.values())

    def all(self) -> list[Partition]:
        """Return the partitions that have a replica here."""
        return list(self._hosted.values())

    def confirm(self, confirmed: bool) -> list[Partition]:
        """Note whether the controller was heard in time; return the partitions for which that is news."""
        if confirmed == self._confirmed:
            return []
        self._confirmed = confirmed
        for partition in self._led.values():
            assert partition.leadership is not None
            partition.leadership.confirmed = confirmed
        return self.led()

    def local_partitions(self) -> list[LocalPartition]:
        """Return what is on disk, for the controller to grant epochs above."""
        return [
            LocalPartition(topic_id, partition, epoch, end)
            for topic_id, partition, epoch, end in self._directory.found_ends()
        ]

    def leaderless_ends(self) -> list[LeaderlessEnd]:
        """Return where the logs end whose partitions nobody may lead, for the controller to find the greatest."""
        return [
            LeaderlessEnd(*key, item.partition.leader_epoch, hosted.log.last_epoch, hosted.log.end_offset)
            for key, item in self._assigned.items()
            if item.partition.leader < 0 and (hosted := self._hosted.get(key)) is not None
        ]

    def damaged_replicas(self) -> list[DamagedReplica]:
        """Return the replicas that want to give up their seats, to be refilled."""
        damaged = []
        for key in self._directory.refills:
            item = self._assigned.get(key) or self._unavailable.get(key)
            if item is not None and self._next_step(item) == RefillStep.LEAVE:
                damaged.append(DamagedReplica(*key, item.partition.partition_epoch))
        return damaged

    def producer_id_floor(self) -> int:
        """Return the greatest producer id any log here holds, -1 for none."""
        return self._directory.producer_id_max()

    def plan(self, snapshot: MetadataResponse) -> None:
        """Work out what to do to be as `snapshot` says; `apply_some` does it, what leads first."""
        self.snapshot = snapshot
        self.version = snapshot.version
        self._unavailable.clear()
        self._known = {(t.topic_id, p.partition) for t in snapshot.topics for p in t.partitions}
        self._domains = Domains({b.broker_id: Place(b.rack or b.site, b.device) for b in snapshot.brokers})
        broker_epochs = {b.broker_id: b.broker_epoch for b in snapshot.brokers}
        new_epochs, self._broker_epochs = broker_epochs != self._broker_epochs, broker_epochs
        configs = snapshot.broker_configs
        self.pull = replace(
            self.pull,
            wait_max_ms=int(configs.get("replica.fetch.wait.max.ms", self.pull.wait_max_ms)),
            partition_bytes_max=int(configs.get("replica.fetch.max.bytes", self.pull.partition_bytes_max)),
        )
        for puller in self.pullers.values():
            puller.settings = self.pull
        self.cleaning = CleanerSettings.of(configs)
        moves = [
            item.throttle_bytes_per_s
            for topic in snapshot.topics
            for item in topic.partitions
            if item.throttle_bytes_per_s and self._broker_id in item.replicas
        ]
        for name, throttle in (("leader", self.leader_throttle), ("follower", self.follower_throttle)):
            throttle.bytes_per_s = min([int(configs.get(f"{name}.replication.throttled.rate", UNBOUNDED)), *moves])
        self._work.clear()
        mine: set[Key] = set()
        followed: list[_Assigned] = []
        for topic in snapshot.topics:
            for item in topic.partitions:
                if self._broker_id not in item.replicas:
                    continue
                wanted = _Assigned((topic.topic_id, item.partition), topic.name, item, topic.configs)
                mine.add(wanted.key)
                if self._assigned.get(wanted.key) == wanted:
                    if new_epochs and wanted.key in self._led:
                        self._update(self._led[wanted.key], wanted)
                elif item.leader == self._broker_id:
                    self._work.append(wanted)
                else:
                    followed.append(wanted)
        self._work.extend(followed)
        self._work.extend(key for key in self._on_disk() if self._is_gone(key, mine, snapshot))
        self.pending = True

    def _on_disk(self) -> list[Key]:
        try:
            found = self._directory.found()
        except OSError as error:  # no descriptor left: what is to be deleted waits for the next plan
            log.warning("the directory can't be listed", reason=str(error))
            found = []
        return sorted({*found, *self._hosted})

    def _is_gone(self, key: Key, mine: set[Key], snapshot: MetadataResponse) -> bool:
        """Whether a log is to be deleted: its topic was, or its partition has moved elsewhere.

        Of a topic that metadata does not know at all nothing is deleted: it may be that of another cluster's store.
        """
        return key[0] in snapshot.deleted_topic_ids or (key in self._known and key not in mine)

    def apply_some(self, now_ms: int) -> Applied:
        """Do the next few steps of the plan."""
        applied = Applied()
        cost = 0
        while cost < APPLY_AT_ONCE * CHEAP:
            if not self._work:
                marked, self._marked = self._marked, []
                known = (self._assigned.get(key) or self._unavailable.get(key) for key in marked)
                self._work.extend(item for item in known if item is not None)
            if not self._work:
                self.pending = False
                break
            item = self._work.popleft()
            key = item.key if isinstance(item, _Assigned) else item
            cost += 1 if key in self._hosted else CHEAP
            try:
                if isinstance(item, _Assigned):
                    self._assign(item, applied, now_ms)
                else:
                    self._delete(item, applied)
                self._unavailable.pop(key, None)
            except LogDirOffline:
                raise
            except (StorageError, UnsupportedFormat) as error:
                if isinstance(item, _Assigned):
                    if key not in self._unavailable:
                        log.error("a partition is unavailable", topic=item.topic, partition=key[1], reason=str(error))
                    self._unavailable[key] = item
                else:
                    log.error("a partition was not deleted", reason=str(error))
        return applied

    # ---- damage

    def damaged(self, key: Key, reason: str) -> None:
        """Note that a replica can't be read in full, or is of no use: if there are others it will be refilled."""
        found = self._assigned.get(key)
        if found is not None:
            self._damaged(found, reason)

    def _damaged(self, found: _Assigned, reason: str) -> None:
        key = found.key
        if len(found.partition.replicas) == 1 or key in self._directory.refills:
            return
        if self._directory.mark_for_refill(*key, reason):  # else the next read finds it again
            self.damage_found += 1
            log.error("a replica will be refilled", topic=found.topic, partition=key[1], reason=reason)
            self._marked.append(key)
            self.pending = True

    def scrub(self, bytes_max: int) -> int:
        """Look for damage in the next stretch of one log, of each in turn; return how many bytes were verified."""
        keys = list(self._hosted)
        if not keys:
            return 0
        self._scrubbed = (self._scrubbed + 1) % len(keys)
        key = keys[self._scrubbed]
        size, reason = self._hosted[key].log.scrub(bytes_max)
        if reason:
            self.damaged(key, reason)
        return size

    def cleaned(self, key: Key) -> None:
        """Note that more of a log is compacted: its leader waits for that with tombstones."""
        puller = self._following.get(key)
        if puller is not None:
            puller.cleaned(key)

    def _next_step(self, wanted: _Assigned) -> RefillStep:
        hosted = self._hosted.get(wanted.key)
        acted_epoch = -1 if hosted is None else hosted.log.leader_epoch
        return next_step(self._broker_id, _state(wanted.partition), acted_epoch)

    def _refill(self, wanted: _Assigned, applied: Applied) -> bool:
        """Put a damaged log aside if nothing counts on it any more; tell whether the next one begins empty."""
        key = wanted.key
        if key not in self._directory.refills or self._next_step(wanted) != RefillStep.BEGIN:
            return False
        self._stop_following(key)
        hosted = self._hosted.pop(key, None)
        if hosted is not None:
            self._end_leadership(key, hosted, applied)
        self._directory.begin_anew(*key)
        self.refills += 1
        log.warning("a replica is being refilled", topic=wanted.topic, partition=key[1])
        return True

    def _open(self, wanted: _Assigned, config: LogConfig) -> Partition:
        try:
            opened = self._directory.partition(*wanted.key, config)
        except DamagedLog as error:
            self._damaged(wanted, str(error))
            raise
        if opened.damage:
            self._damaged(wanted, opened.damage)
        return Partition(wanted.topic, opened, self._broker_id)

    # ---- one partition

    def _assign(self, wanted: _Assigned, applied: Applied, now_ms: int) -> None:
        key, item = wanted.key, wanted.partition
        self._refill(wanted, applied)
        hosted = self._hosted.get(key)
        config = LogConfig.from_topic_configs(wanted.configs, uses_reserve=wanted.topic == CONSUMER_OFFSETS)
        if hosted is None:
            hosted = self._hosted[key] = self._open(wanted, config)
            if self._refill(wanted, applied):  # recovery has found damage that nobody counts on
                hosted = self._hosted[key] = self._open(wanted, config)
        elif hosted.log.config != config:
            hosted.log.alter_config(config)
        listed = wanted.configs.get("leader.replication.throttled.replicas", "")
        hosted.throttled = names_replica(listed, key[1], self._broker_id)
        if item.leader == self._broker_id:
            self._stop_following(key)
            if hosted.leadership is not None and hosted.leadership.leader_epoch == item.leader_epoch:
                self._update(hosted, wanted)
                applied.touched.append(hosted)
            else:
                self._end_leadership(key, hosted, applied)
                hosted.lead(
                    _state(item),
                    self._broker_epochs,
                    min_in_sync=config.min_insync_replicas,
                    domains=self._domains,
                    now_ms=now_ms,
                )
                assert hosted.leadership is not None
                hosted.leadership.confirmed = self._confirmed
                self._led[key] = hosted
                applied.touched.append(hosted)
        else:
            self._end_leadership(key, hosted, applied)
            self._follow(key, hosted, item, applied)
            if key in self._following:
                self._following[key].set_throttled(key, self._catches_up_throttled(wanted))
        self._assigned[key] = wanted

    def _catches_up_throttled(self, wanted: _Assigned) -> bool:
        item, own = wanted.partition, self._broker_id
        listed = wanted.configs.get("follower.replication.throttled.replicas", "")
        added = own in item.adding and item.throttle_bytes_per_s > 0
        return own not in item.isr and (added or names_replica(listed, item.partition, own))

    def _update(self, led: Partition, wanted: _Assigned) -> None:
        """Take over a new in-sync set, setting or incarnation under the same leader epoch."""
        assert led.leadership is not None
        led.leadership.update(
            _state(wanted.partition),
            self._broker_epochs,
            min_in_sync=led.log.config.min_insync_replicas,
            domains=self._domains,
        )

    def _follow(self, key: Key, hosted: Partition, item: PartitionMetadata, applied: Applied) -> None:
        puller = self._following.get(key)
        known = puller.followed.get(key) if puller is not None else None
        if (
            puller is not None
            and known is not None
            and (puller.leader_id, known.leader_epoch) == (item.leader, item.leader_epoch)
        ):
            puller.set_durable(key, hosted.durable)
            return
        self._stop_following(key)
        hosted.follow(item.leader_epoch)
        applied.touched.append(hosted)
        if item.leader < 0 or key in self._directory.refills:  # known damage does not come in sync again
            return
        puller = self.pullers.get(item.leader)
        if puller is None:
            puller = self.pullers[item.leader] = Puller(self._broker_id, item.leader, self.pull, self.follower_throttle)
        followed = Followed(hosted.log, item.leader_epoch, durable=hosted.durable, unclean_epoch=item.unclean_epoch)
        puller.follow(key, followed)
        self._following[key] = puller

    def _stop_following(self, key: Key) -> None:
        puller = self._following.pop(key, None)
        if puller is not None:
            puller.forget(key)

    def _end_leadership(self, key: Key, hosted: Partition, applied: Applied) -> None:
        if self._led.pop(key, None) is not None:
            hosted.leadership = None
            applied.ended.append(hosted)

    def _delete(self, key: Key, applied: Applied) -> None:
        hosted = self._hosted.pop(key, None)
        self._stop_following(key)
        if hosted is not None:
            self._led.pop(key, None)
            hosted.leadership = None
            applied.ended.append(hosted)
        self._assigned.pop(key, None)
        self._directory.delete_partition(*key)


def _state(item: PartitionMetadata) -> PartitionState:
    return PartitionState(
        leader=item.leader,
        leader_epoch=item.leader_epoch,
        partition_epoch=item.partition_epoch,
        replicas=item.replicas,
        isr=item.isr,
        eligible=item.eligible,
        recovering=item.recovering,
        adding=item.adding,
        removing=item.removing,
        unclean_epoch=item.unclean_epoch,
        throttle_bytes_per_s=item.throttle_bytes_per_s,
    )
