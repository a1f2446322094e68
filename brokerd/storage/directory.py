"""A broker's log directory: its lock, identity, partitions, checkpoint, and what is done to all of them."""

from __future__ import annotations

import os
import secrets
import shutil
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from brokerd.storage.checkpoint import CLOSED, INTACT, OPENED, RUNNING, UNPROVEN, Checkpoint, CheckpointRecord
from brokerd.storage.config import LogConfig
from brokerd.storage.disk import RESERVE_BYTES, Disk, Space
from brokerd.storage.flusher import flush
from brokerd.storage.history import Survey, survey
from brokerd.storage.identity import check_identity, check_new, read_identity, write_identity
from brokerd.storage.lock import DirectoryLock
from brokerd.storage.log import Log
from brokerd.storage.page import StatePage
from brokerd.storage.recovery import Recovery
from brokerd.storage.salvage import salvage
from ingest.atomic_file import fsync_directory
from ingest.errors import ConfigError, LogDirOffline, StorageError
from ingest.failpoints import failpoint
from ingest.log.names import COMPACTION, REFILL, parse_partition_name, partition_name
from ingest.log.state_page import row_tag
from ingest.machine import machine_id

_logger = structlog.get_logger()

_DELETED = ".deleted"
_FLUSH_AFTER_MS = 5_000  # under durability=os data is written back at leisure, so that recovery stays short
_FLUSH_AFTER_BYTES = 64 << 20
_RUNNING_TIME_EVERY_MS = 60_000


class LogDirectory:
    """Everything a broker stores. Thread: the owner's.

    Attributes:
        directory_id: The UUID that the cluster remembers; another one means an empty replica.
        incarnation: Random, 63 bits, new at each open.
        incarnations: Those of the processes that had it open before, as far as it remembers.
        intact: Nothing the last owner had written is lost: it closed in good order, or only its process died.
        refills: Partitions that are damaged, and marked to begin anew.
        torn_bytes_total, damaged_batches_total, lost_offsets_total: What recovery found since this was opened, the sums
            of those of `Log`; partitions that were deleted since still count.
    """

    def __init__(
        self, path: Path, lock: DirectoryLock, disk: Disk, directory_id: str, page_path: Path, *, salvaged: bool
    ) -> None:
        self.path = path
        self.page_path = page_path
        self.directory_id = directory_id
        self.incarnation = secrets.randbits(63)
        self._lock = lock
        self._disk = disk
        self._logs: dict[tuple[bytes, int], Log] = {}
        self._checkpoint = Checkpoint(disk)
        last = self._checkpoint.last
        self.incarnations = list(self._checkpoint.incarnations)
        self._boot_id = uuid.UUID(machine_id()).bytes
        same_boot = last is not None and last.topic_id == self._boot_id
        disk.time.restore(self._checkpoint.age_ms, last.boot_ms if last and same_boot and last.boot_ms >= 0 else None)
        self._page = StatePage(page_path, self.incarnation, disk.file_mode)
        # The page is memory: if it still names the last owner, the page cache has outlived that process too.
        cached = last is not None and self._page.previous_incarnation == last.incarnation
        if last is None:  # a new directory, or one whose checkpoint is lost: that proves nothing of its logs
            whole = not self.found()
        else:
            whole = (last.kind == CLOSED or cached) and last.partition == INTACT
        self.intact = whole and not salvaged
        self._state = INTACT if self.intact else UNPROVEN
        self._was_killed = last is not None and last.kind != CLOSED  # then the cache may hold what the disk does not
        self.torn_bytes_total = self.damaged_batches_total = self.lost_offsets_total = 0
        self._boot_ms = -1
        self._stamped_age_ms = -1
        self._dirty_since_ms: dict[tuple[bytes, int], int] = {}
        self._surveys: dict[tuple[bytes, int], Survey] = {}  # of logs not opened yet: nobody else changes them
        self._deleted: dict[Path, int] = {
            entry: -1 for entry in path.iterdir() if entry.name.endswith(_DELETED) and entry.is_dir()
        }
        for left in path.glob("*.tmp"):  # by an owner that died replacing a file
            if left.is_file():
                left.unlink()
        self._checkpoint.write([self._event(OPENED)])
        self.refills: set[tuple[bytes, int]] = set()
        for mark in path.glob(f"*{REFILL}"):
            key = parse_partition_name(mark.stem)
            if key is not None and self._partition_path(key).is_dir():
                self.refills.add(key)
            else:
                mark.unlink()  # the owner died between putting the files aside and this
        disk.take_reserve()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        cluster_id: str,
        broker_id: int,
        page_path: str | Path,
        failed_dir: str | Path,
        local_read: str = "group",
        reserve_bytes: int = RESERVE_BYTES,
        beat: Callable[[], None] = lambda: None,
    ) -> LogDirectory:
        """Take the directory's lock, then everything else.

        Args:
            page_path: The state page, on tmpfs; if the directory fails, a mark is left beside it.
            failed_dir: Where a durable mark is left too; on another disk if there is one.
            beat: Called during what may take long: salvage, surveys, recoveries.
            local_read: "group": local readers of the same group may map the files; "off": nobody else may.
        Raises:
            DirectoryLocked: another process has it.
            ForeignDirectory: it belongs to another cluster or broker, or a newer program; nothing was changed.
            LogDirOffline: it failed before and still does.
            StorageError: it can't be used, with the reason.
        """
        if local_read not in ("group", "off"):
            raise ConfigError(f"local.read={local_read}: expected group or off")
        root = Path(path)
        directory_mode, file_mode = (0o750, 0o640) if local_read == "group" else (0o700, 0o600)
        try:
            root.mkdir(mode=directory_mode, parents=True, exist_ok=True)
            if root.stat().st_mode & 0o022:
                raise StorageError(f"{root} may be written by others: chmod {directory_mode:o} it", path=root)
            read_identity(root)  # refuse a newer format before anything is touched
            os.chmod(root, directory_mode)
            lock = DirectoryLock(root, file_mode)
            identity = read_identity(root)
            if identity is None:
                check_new(root)
                fsync_directory(root.parent)
                identity = write_identity(root, cluster_id, broker_id, file_mode)
            check_identity(root, identity, cluster_id, broker_id)
            disk = Disk(
                root,
                failed_marks(Path(page_path), Path(failed_dir), identity.directory_id),
                directory_mode=directory_mode,
                file_mode=file_mode,
                reserve_bytes=reserve_bytes,
            )
            disk.beat = beat
            salvaged = bool(disk.failed_before())
            if salvaged:
                salvage(disk)
            return cls(root, lock, disk, identity.directory_id, Path(page_path), salvaged=salvaged)
        except OSError as error:
            raise StorageError(f"{root} can't be used: {error}", path=root) from error

    def registered(self) -> None:
        """Take note that the cluster knows what this directory holds: only what comes now can make it less.

        Cost: one fdatasync after an unclean start, else none.
        """
        if self._state == UNPROVEN:
            self._state = INTACT
            self._checkpoint.write([self._event(RUNNING)])

    # ---- gauges

    @property
    def failed(self) -> bool:
        return bool(self._disk.failed)

    @property
    def disk_full(self) -> bool:
        return self._disk.full

    def space(self) -> Space:
        """Look at the file system that it lies on."""
        return self._disk.space()

    @property
    def device(self) -> int:
        """The device number: copies on one device share its fate."""
        return self.path.stat().st_dev

    def found(self) -> list[tuple[bytes, int]]:
        """Return the partitions on disk as (topic id, partition)."""
        names = (parse_partition_name(entry.name) for entry in self.path.iterdir() if entry.is_dir())
        return sorted(name for name in names if name is not None)

    def found_ends(self) -> list[tuple[bytes, int, int, int]]:
        """Return (topic id, partition, last leader epoch, end offset) of what is on disk, opened or not.

        Cost: the first time, for a partition not yet opened, headers from the last checkpoint on; nothing is changed.
        """
        seen = ((key, self._survey(key)) for key in self.found())
        return [(*key, found.leader_epoch, found.end_offset) for key, found in seen]

    def producer_id_max(self) -> int:
        """Return the greatest producer id any log here knows, -1 for none. Cost: as `found_ends`."""
        return max((self._survey(key).producer_id_max for key in self.found()), default=-1)

    def _survey(self, key: tuple[bytes, int]) -> Survey:
        log = self._logs.get(key)
        if log is not None:
            return Survey(max(log.last_epoch, log.leader_epoch), log.end_offset, log.producer_id_max)
        known = self._surveys.get(key)
        if known is None:
            record = self._checkpoint.partitions.get(key)
            known = self._surveys[key] = survey(self._disk, self._partition_path(key), record)
        return known

    def logs(self) -> list[Log]:
        """Return the open logs."""
        return list(self._logs.values())

    # ---- partitions

    def _partition_path(self, key: tuple[bytes, int]) -> Path:
        return self.path / partition_name(*key)

    def partition(self, topic_id: bytes, partition: int, config: LogConfig) -> Log:
        """Return the partition's log, opened, or created if it is not on disk."""
        log = self._logs.get((topic_id, partition))
        if log is not None:
            return log
        if self._partition_path((topic_id, partition)).is_dir():
            return self.open_partition(topic_id, partition, config)
        return self.create_partition(topic_id, partition, config)

    def create_partition(self, topic_id: bytes, partition: int, config: LogConfig) -> Log:
        """Make an empty log. Its name is durable with its first flush.

        Raises:
            DiskFull: nothing was made.
            LogDirOffline: the system refused.
        """
        self._disk.check_online()
        path = self._partition_path((topic_id, partition))
        self._checkpoint.begin(topic_id, partition)
        try:
            path.mkdir(mode=self._disk.directory_mode)
            os.chmod(path, self._disk.directory_mode)
        except FileExistsError:
            raise StorageError(f"{path} exists already", path=path) from None
        except OSError as error:
            raise self._disk.refused(error, f"creating {path}") from error
        try:
            return self._open(topic_id, partition, config)
        except StorageError:
            shutil.rmtree(path, ignore_errors=True)
            raise

    def open_partition(self, topic_id: bytes, partition: int, config: LogConfig) -> Log:
        """Recover a log from its files. What lies above the checkpoint counts as flushed after a flush, not before.

        Raises:
            DamagedLog: files that don't make up one log; nothing was changed.
            UnsupportedFormat: a newer program wrote here; nothing was changed.
            LogDirOffline: the device refused.
        Cost: by the number of segments and the bytes above the checkpoint.
        """
        self._disk.check_online()
        return self._open(topic_id, partition, config)

    def _open(self, topic_id: bytes, partition: int, config: LogConfig) -> Log:
        key = (topic_id, partition)
        assert key not in self._logs, "a partition is opened once"
        self._surveys.pop(key, None)
        path = self._partition_path(key)
        try:
            recovered = Recovery(
                self._disk,
                path,
                index_interval_bytes=config.index_interval_bytes,
                durable=config.durability == "fsync",
                has_holes=config.compacts or (path / COMPACTION).exists(),
                checkpoint=self._checkpoint.partitions.get(key),
            ).run()
            row = self._page.claim(row_tag(topic_id, partition))
        except OSError as error:  # no descriptor left, no room for the state page: this partition's trouble alone
            raise StorageError(f"can't open {path}: {error.strerror}", path=path) from error
        # The last owner may have died between making a name and flushing it: the first flush covers both directories.
        names = (self.path, path)
        log = Log(self._disk, path, topic_id, partition, config, row, recovered, self._checkpoint, names)
        self._logs[key] = log
        self._tell_losses(log)
        return log

    def _tell_losses(self, log: Log) -> None:
        """Count what the recovery of a log cut, set aside or missed, and say it in one line."""
        self.torn_bytes_total += log.torn_bytes_total
        self.damaged_batches_total += log.damaged_batches_total
        self.lost_offsets_total += log.lost_offsets_total
        if log.damaged_batches_total or log.lost_offsets_total:
            say, what = _logger.error, "flushed records are damaged or lost"
        elif log.torn_bytes_total:
            say, what = _logger.warning, "a torn tail was cut"
        else:
            return
        say(
            what,
            log=str(log.path),
            torn_bytes=log.torn_bytes_total,
            damaged_batches=log.damaged_batches_total,
            lost_offsets=log.lost_offsets_total,
            log_end_offset=log.end_offset,
        )

    def delete_partition(self, topic_id: bytes, partition: int) -> None:
        """Put a partition's directory aside; `maintain` removes it after file.delete.delay.ms."""
        self._page.release(row_tag(topic_id, partition))
        self._put_aside((topic_id, partition))

    # ---- refill

    def mark_for_refill(self, topic_id: bytes, partition: int, reason: str) -> bool:
        """Note durably that a partition is damaged and to begin anew; False: there is no room to say so.

        Raises:
            LogDirOffline: the system refused.
        Cost: an fsync of a file and one of the directory.
        """
        key = (topic_id, partition)
        if not self._disk.replace(self._refill_path(key), reason.encode(), durable=True):
            return False
        failpoint("refill.marked")
        self.refills.add(key)
        return True

    def begin_anew(self, topic_id: bytes, partition: int) -> None:
        """Put a damaged partition's files aside, as those of a deleted one; the next `partition` makes an empty log.

        Nobody may count on what it holds any more. Readers that map the files keep their views; those that read the
        state page are told that what they saw was replaced.

        Raises:
            LogDirOffline: the system refused.
        Cost: two fsyncs of the directory.
        """
        key = (topic_id, partition)
        assert key in self.refills, "it is put aside only once that is on record"
        failpoint("refill.before_putting_aside")
        log = self._logs.get(key)
        if log is not None:
            log.replaced()
        self._put_aside(key)

    def _refill_path(self, key: tuple[bytes, int]) -> Path:
        return self.path / (partition_name(*key) + REFILL)

    def _put_aside(self, key: tuple[bytes, int]) -> None:
        path = self._partition_path(key)
        log = self._logs.pop(key, None)
        self._dirty_since_ms.pop(key, None)
        self._surveys.pop(key, None)
        delay_ms = 0
        if log is not None:
            delay_ms = log.config.file_delete_delay_ms
            log.close()
        self._checkpoint.forget(*key)
        aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{_DELETED}")
        try:
            os.rename(path, aside)
            fsync_directory(self.path)
            failpoint("refill.put_aside")
            self._deleted[aside] = self._disk.time.age_ms + delay_ms
            if key in self.refills:  # from here on an empty partition is what it should be
                self._refill_path(key).unlink(missing_ok=True)
                fsync_directory(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._disk.fail(error, f"deleting {path}") from error
        self.refills.discard(key)

    # ---- upkeep

    def _event(self, kind: int) -> CheckpointRecord:
        return CheckpointRecord(
            kind=kind,
            topic_id=self._boot_id,
            partition=self._state,
            age_ms=self._disk.time.age_ms,
            incarnation=self.incarnation,
            boot_ms=self._boot_ms,
        )

    def maintain(self, boot_ms: int) -> list[Log]:
        """Roll, retain and clean up; call it about once a second. No age depends on the wall clock.

        Args:
            boot_ms: CLOCK_BOOTTIME.
        Returns:
            The logs to hand to the flusher although nobody waits for them: under durability=os, so that recovery
            stays short.
        """
        self._boot_ms = boot_ms
        self._disk.time.tick(boot_ms)
        if self._disk.failed:
            return []
        age_ms = self._disk.time.age_ms
        self._disk.look_for_room()
        for aside in [aside for aside, due_ms in self._deleted.items() if due_ms <= age_ms]:
            self._disk.in_background(partial(shutil.rmtree, aside, ignore_errors=True))
            del self._deleted[aside]
        due = []
        for key, log in self._logs.items():
            if log.maintain_age_ms <= age_ms:
                log.maintain()
            if log.flushed_end == log.end_offset and not log.names_unflushed:
                self._dirty_since_ms.pop(key, None)
                continue
            since_ms = self._dirty_since_ms.setdefault(key, age_ms)
            if age_ms - since_ms >= _FLUSH_AFTER_MS or log.unflushed_bytes >= _FLUSH_AFTER_BYTES:
                self._dirty_since_ms.pop(key)
                due.append(log)
        return due

    def checkpoint(self) -> None:
        """Write down from where recovery has to look; call it every few seconds. Cost: one fdatasync."""
        if self._disk.failed:
            return
        records = [record for log in self._logs.values() if (record := log.checkpoint_record()) is not None]
        age_ms = self._disk.time.age_ms
        if records or age_ms - self._stamped_age_ms >= _RUNNING_TIME_EVERY_MS:
            self._stamped_age_ms = age_ms
            self._checkpoint.write([*records, self._event(RUNNING)])

    def flush_all(self) -> None:
        """Flush every log now, in this thread.

        Raises:
            LogDirOffline: the device refused.
        """
        self._disk.check_online()
        targets = [
            log.flush_target() for log in self._logs.values() if log.flushed_end < log.end_offset or log.names_unflushed
        ]
        for log, end_offset in flush(targets):
            if isinstance(end_offset, BaseException):
                raise end_offset
            log.flushed(end_offset)

    def close(self) -> None:
        """Flush, checkpoint, and let the next owner in. After a failure only the lock is released."""
        try:
            if not self._disk.failed:
                self.flush_all()
                self.checkpoint()
                self._checkpoint.write([self._event(CLOSED if self._all_flushed() else RUNNING)])
        except LogDirOffline:
            pass  # the mark is left; the next open looks at what the device returns
        finally:
            for log in self._logs.values():
                log.close()
            self._disk.join_background()
            self._lock.release()

    def _all_flushed(self) -> bool:
        """Whether what a killed owner left in the page cache is on the disk too: each log was opened since."""
        return not self._was_killed or all(key in self._logs for key in self.found())


def failed_marks(page_path: Path, failed_dir: Path, directory_id: str) -> tuple[Path, Path]:
    """Return where a log directory's failure is noted: in memory, for the next process, and for after a power cut."""
    return page_path.with_name(f"{directory_id}.failed"), failed_dir / directory_id
