"""Log directories and logs on simulated disks.

The log behaves as `brokerd.storage.log.Log` does and uses its rules for sequences, headers and compaction; only the
files are missing.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from brokerd.storage.compaction.log_compaction import Dirt
from brokerd.storage.config import LogConfig
from brokerd.storage.errors import OffsetOutOfRange, QuarantinedBatch, StaleLeaderEpoch
from brokerd.storage.log_values import Appended
from brokerd.storage.producer_state import ProducerState
from brokerd.storage.replicated import check_replicated
from brokerd.storage.retention import SealedSegment, count_expired
from brokerd.storage.staging import stage
from ingest.errors import DiskFull, LogDirOffline
from ingest.records.header import BatchHeader, verify_header
from tests.simulation.compaction import SimCompaction
from tests.simulation.disk import Batch, Disk, Files, Key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from brokerd.storage.compaction.job import Job


class SimDirectory:
    """What `LogDirectory` is to a broker."""

    def __init__(self, disk: Disk, name: str, incarnation: int) -> None:
        self.disk = disk
        self.directory_id = f"{name}-{disk.directory_number}"
        self.device = disk.device
        self.incarnation = incarnation
        salvaged = disk.failed
        if salvaged:
            self.salvage()
        cached = disk.page_incarnation == disk.checkpoint_incarnation
        self._was_killed = not disk.closed
        self.intact = not salvaged and (disk.closed or cached) and not disk.unproven
        disk.unproven = not self.intact
        self._logs: dict[Key, SimLog] = {}
        disk.refills &= set(disk.files)  # whoever died while it put files aside had finished but for the mark
        disk.page_incarnation = disk.checkpoint_incarnation = incarnation
        self.incarnations = list(disk.incarnations)
        disk.incarnations.append(incarnation)
        disk.closed = False
        self._surveyed = {key: self._survey(files) for key, files in disk.files.items()}

    def salvage(self) -> None:
        """Keep what the device returns, in new files."""
        for files in self.disk.files.values():
            files.cache = list(files.device)
            files.lost.clear()
        self.disk.failed = False

    def _survey(self, files: Files) -> tuple[int, int, int]:
        headers = [batch.header for batch in files.cache]
        epoch = max((header.leader_epoch for header in headers), default=-1)
        end = max([files.start_offset, *(header.next_offset for header in headers)])
        return epoch, end, max((header.producer_id for header in headers), default=-1)

    def found(self) -> list[Key]:
        return sorted(self.disk.files)

    def found_ends(self) -> list[tuple[bytes, int, int, int]]:
        ends = []
        for key in self.found():
            log = self._logs.get(key)
            epoch, end, _ = self._survey(self.disk.files[key])
            ends.append((*key, max(epoch, log.leader_epoch) if log else epoch, end))
        return ends

    def producer_id_max(self) -> int:
        return max((self._survey(files)[2] for files in self.disk.files.values()), default=-1)

    def partition(self, topic_id: bytes, partition: int, config: LogConfig) -> SimLog:
        key = (topic_id, partition)
        if key not in self._logs:
            files = self.disk.files.setdefault(key, Files())
            self._logs[key] = SimLog(self.disk, files, topic_id, partition, config)
        return self._logs[key]

    def delete_partition(self, topic_id: bytes, partition: int) -> None:
        log = self._logs.pop((topic_id, partition), None)
        if log is not None:
            log.closed = True
        self.disk.files.pop((topic_id, partition), None)
        self.disk.refills.discard((topic_id, partition))

    @property
    def refills(self) -> set[Key]:
        return self.disk.refills

    @property
    def disk_full(self) -> bool:
        return self.disk.full

    def mark_for_refill(self, topic_id: bytes, partition: int, reason: str) -> bool:
        self.disk.refills.add((topic_id, partition))
        return True

    def begin_anew(self, topic_id: bytes, partition: int) -> None:
        key = (topic_id, partition)
        assert key in self.disk.refills
        self.disk.on_refill(key)
        if self.disk.dies("kill_before_putting_aside"):
            raise LogDirOffline("killed")
        log = self._logs.pop(key, None)
        if log is not None:
            log.closed = True
        del self.disk.files[key]
        if self.disk.dies("kill_after_putting_aside"):
            raise LogDirOffline("killed")
        self.disk.refills.discard(key)

    def registered(self) -> None:
        """Take note that the cluster knows what this directory holds."""
        self.disk.unproven = False

    def checkpoint(self) -> None:
        """Write down from where recovery has to look."""
        for log in self._logs.values():
            log.checkpoint()

    def close(self) -> None:
        """Flush and leave in good order."""
        for log in self._logs.values():
            log.flushed(log.flush().run())
        self.checkpoint()
        self.disk.closed = not self._was_killed or set(self._logs) == set(self.disk.files)


class Flush:
    """A flush under way: its target was captured when it was asked for."""

    def __init__(self, log: SimLog) -> None:
        self.log = log
        self.end_offset = log.end_offset
        self._content = list(log.files.cache)
        self._cuts = log.cuts
        self._swaps = log.swaps

    def run(self) -> int:
        """Have the device hold the target."""
        disk, files = self.log.disk, self.log.files
        if disk.failing:
            disk.failed, disk.failing = True, False
            files.lost |= {id(batch) for batch in files.cache[len(files.device) :]}
            raise LogDirOffline("the flush failed")
        if self._swaps != self.log.swaps:  # compacted meanwhile, and flushed at that
            self._content = [batch for batch in files.cache if batch.header.next_offset <= self.end_offset]
        kept = takewhile(lambda batch: id(batch) not in files.lost, self._content)
        self._content = [batch for batch in kept if batch.header.next_offset > files.start_offset]  # deleted meanwhile
        if self.log.cuts == self._cuts and len(self._content) > len(files.device):  # flushes may overtake each other
            files.device = self._content
        return self.end_offset


class SimLog:
    """What `Log` is to a broker; see there."""

    def __init__(self, disk: Disk, files: Files, topic_id: bytes, partition: int, config: LogConfig) -> None:
        self.disk = disk
        self.files = files
        self.topic_id = topic_id
        self.partition = partition
        self.config = config
        self.row = 0
        self.closed = False
        self.path = f"{topic_id.hex()}-{partition}"
        self.cuts = self.swaps = 0
        self.flushes_under_way = 0
        self.leader_epoch = -1
        self.start_offset = files.start_offset
        self.end_offset = max([files.start_offset, *(batch.header.next_offset for batch in files.cache[-1:])])
        self.last_epoch = files.cache[-1].header.leader_epoch if files.cache else -1
        self.flushed_end = self._flushed_at_open()
        mark = max(files.checkpointed_mark, files.page_mark)
        self.high_watermark = max(self.start_offset, min(mark, self.end_offset))
        self._producers = self._producers_of_the_log()
        self.compaction = SimCompaction(self)
        self.damage = self._damage_at_open()
        self._publish()

    def _damage_at_open(self) -> str:
        """Recovery looks at little of what lies below the checkpoint."""
        return self._rotten() if any(offset % 2 for offset in self.files.rotten) else ""

    def _flushed_at_open(self) -> int:
        """Above the checkpoint all is in doubt until it is flushed again."""
        return min(self.files.recovery_point, self.end_offset)

    def _producers_of_the_log(self) -> ProducerState:
        state = ProducerState()
        for header in (*self.files.deleted, *(header for header, _ in self.files.cache)):
            state.apply(header, header.base_offset, header.append_time_ms, 0)
        return state

    def _publish(self) -> None:
        self.files.page_mark = self.high_watermark

    @property
    def flush_under_way(self) -> bool:
        return self.flushes_under_way > 0

    @property
    def cleaned_end(self) -> int:
        return self.compaction.cleaned.end_offset

    # ---- roles

    def become_leader(self, leader_epoch: int) -> None:
        if leader_epoch <= max(self.leader_epoch, self.last_epoch):
            raise StaleLeaderEpoch(f"epoch {leader_epoch}")
        self.leader_epoch = leader_epoch

    def become_follower(self, leader_epoch: int) -> None:
        self.leader_epoch = max(self.leader_epoch, leader_epoch)

    def alter_config(self, config: LogConfig) -> None:
        self.config = config

    # ---- appending

    def append(self, batches: Sequence[Buffer], *, wall_ms: int) -> list[Appended]:
        staged = stage(
            batches,
            self._producers,
            self.config,
            base_offset=self.end_offset,
            leader_epoch=self.leader_epoch,
            high_watermark=self.high_watermark,
            wall_ms=wall_ms,
            leader_flags=0,
        )
        if staged.news:
            data = b"".join(bytes(vector) for vector in staged.vectors)
            self._add(data, [0])
        return staged.appended

    def append_replicated(self, batches: Buffer, *, wall_ms: int) -> int:
        found = check_replicated(batches, self.end_offset, self.last_epoch)
        self._add(bytes(batches), [position for position, _ in found])
        return sum(header.record_count for _, header in found)

    def _add(self, data: bytes, positions: list[int]) -> None:
        if self.disk.full:
            raise DiskFull("no room")
        for position, end in zip(positions, [*positions[1:], len(data)], strict=True):
            header = verify_header(data, position)
            self.files.cache.append(Batch(header, data[position:end]))
            self._producers.apply(header, header.base_offset, header.append_time_ms, 0)
            self.end_offset = header.next_offset
            self.last_epoch = header.leader_epoch

    # ---- flushing

    def flush(self) -> Flush:
        """Capture what a flush has to write now."""
        self.flushes_under_way += 1
        return Flush(self)

    def flushed(self, end_offset: int) -> None:
        self.flushes_under_way -= 1
        self.flushed_end = max(self.flushed_end, end_offset)

    def checkpoint(self) -> None:
        self.files.recovery_point = self.flushed_end
        self.files.checkpointed_mark = min(self.high_watermark, self.flushed_end)
        self.files.cleaned_on_device = self.files.cleaned

    # ---- marks

    def advance_high_watermark(self, offset: int) -> None:
        assert offset <= self.end_offset, "high watermark beyond the log's end"
        if offset > self.high_watermark:
            self.high_watermark = offset
            self._publish()

    # ---- reading

    def read(self, offset: int, max_bytes: int, *, end: int) -> bytes:
        if not self.start_offset <= offset <= end:
            raise OffsetOutOfRange(f"offset {offset} is not in {self.start_offset}..{end}")
        data = b""
        for header, batch in self.files.cache:
            if header.last_offset < offset:
                continue
            if header.base_offset >= end or (data and len(data) + len(batch) > max_bytes):
                break
            if header.base_offset in self.files.rotten:
                if data:
                    break
                raise QuarantinedBatch(self._rotten(), next_offset=header.next_offset)
            data += batch
        return data

    def scrub(self, bytes_max: int) -> tuple[int, str]:
        return 0, self._rotten()

    def _rotten(self) -> str:
        files = self.files
        if not files.rotten:
            return ""
        if files.found_in is None:
            files.found_in = self.leader_epoch
        return f"rotten at {min(files.rotten)}"

    def epoch_end(self, epoch: int) -> tuple[int, int] | None:
        if epoch >= self.last_epoch:
            return self.last_epoch, self.end_offset
        found = -1
        for header, _ in self.files.cache:
            if header.leader_epoch > epoch:
                return found, header.base_offset
            found = header.leader_epoch
        return found, self.end_offset

    # ---- what goes

    def truncate_to(self, offset: int) -> None:
        assert not self.flushes_under_way, "a flush under way would vouch for what replaces the tail"
        files = self.files
        if offset >= self.end_offset:
            return
        seen = offset < self.high_watermark
        self.compaction.cut(offset)
        self.disk.on_truncation((self.topic_id, self.partition), offset)
        files.cache = [batch for batch in files.cache if batch.header.last_offset < offset]
        files.device = [batch for batch in files.device if batch.header.last_offset < offset]
        files.rotten &= {batch.header.base_offset for batch in files.cache}
        files.generation += seen
        self.cuts += 1
        self.end_offset = max([self.start_offset, *(batch.header.next_offset for batch in files.cache[-1:])])
        self.last_epoch = files.cache[-1].header.leader_epoch if files.cache else -1
        self.flushed_end = min(self.flushed_end, self.end_offset)
        self.high_watermark = min(self.high_watermark, self.end_offset)
        files.recovery_point = min(files.recovery_point, self.end_offset)
        files.checkpointed_mark = min(files.checkpointed_mark, self.end_offset)
        self._after_truncation()
        self._publish()

    def _after_truncation(self) -> None:
        self._producers = self._producers_of_the_log()

    def restart_at(self, offset: int) -> None:
        assert offset > self.end_offset
        files = self.files
        self.compaction.cut(0)
        files.cache, files.device = [], []
        files.rotten.clear()
        self.cuts += 1
        files.start_offset = self.start_offset = self.end_offset = self.flushed_end = offset
        files.recovery_point = offset
        self.high_watermark = max(self.high_watermark, offset)
        self.last_epoch = -1
        self._producers = ProducerState()
        self.files.deleted.clear()
        self._publish()

    def maintain(self, age_ms: int, wall_ms: int) -> None:
        """Delete by time: each batch counts as a segment."""
        if not self.config.deletes:
            return
        headers = [batch.header for batch in self.files.cache]
        sealed = [SealedSegment(1, self._age(header, age_ms, wall_ms), header.next_offset) for header in headers[:-1]]
        count = count_expired(
            sealed,
            1,
            high_watermark=self.high_watermark,
            retention_ms=self.config.retention_ms,
            retention_bytes=-1,
        )
        if count:
            self.delete_records(headers[count - 1].next_offset)

    def _age(self, header: BatchHeader, age_ms: int, wall_ms: int) -> int:
        """Return how old a batch is, in running time: the run began it all."""
        return age_ms

    def delete_records(self, offset: int) -> None:
        files = self.files
        files.start_offset = self.start_offset = max(self.start_offset, offset)
        files.deleted += [header for header, _ in files.cache if header.next_offset <= offset]
        files.cache = [batch for batch in files.cache if batch.header.next_offset > offset]
        files.device = [batch for batch in files.device if batch.header.next_offset > offset]
        files.rotten &= {batch.header.base_offset for batch in files.cache}

    # ---- compaction

    def dirt(self) -> Dirt:
        end_max = min(self.high_watermark, self.flushed_end, self.files.recovery_point)
        return self.compaction.dirt(self.config, log_start=self.start_offset, end_max=end_max)

    def begin_compaction(self, dirt: Dirt, run: str, *, purge_end: int, map_bytes_max: int, io_bytes_per_s: int) -> Job:
        return self.compaction.begin(
            self.config,
            dirt,
            run,
            log_start=self.start_offset,
            purge_end=purge_end,
            kept_batches=self._producers.batches_below(dirt.end_offset),
            map_bytes_max=map_bytes_max,
            io_bytes_per_s=io_bytes_per_s,
        )

    def put_in_place(self, index: int, count: int, written: Sequence[tuple[BatchHeader, bytes]]) -> None:
        """Replace batches, at once and for good."""
        files = self.files
        gone, flushed = files.cache[index : index + count], files.device[index : index + count]
        assert list(map(id, gone)) == list(map(id, flushed)), "only what is flushed is compacted"
        fresh = [Batch(header, data) for header, data in written]
        files.cache[index : index + count] = fresh
        files.device = [*files.device[:index], *fresh, *files.device[index + count :]]
        files.rotten -= {batch.header.base_offset for batch in gone}
        self.swaps += 1
