"""Batches and log directories for the storage tests."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from brokerd.storage.config import LogConfig
from brokerd.storage.directory import LogDirectory
from brokerd.storage.log import Log
from ingest.records.header import (
    ATTRIBUTE_COLUMNS,
    HEADER_SIZE,
    BatchHeader,
    encode_producer_half,
    hop_headers,
    verify_batch,
)

TOPIC = uuid.UUID("12345678-1234-4321-8765-0123456789ab").bytes
PARTITION_DIRECTORY = "12345678-1234-4321-8765-0123456789ab-0"


def make_batch(
    body: bytes = b"x" * 100,
    count: int = 1,
    *,
    timestamp_ms: int = 1000,
    producer: tuple[int, int, int] = (-1, -1, -1),
) -> bytes:
    """Return a batch whose body is any bytes, for storage never looks inside; producer: (id, epoch, sequence)."""
    header = encode_producer_half(
        body,
        attributes=ATTRIBUTE_COLUMNS,
        base_timestamp_ms=timestamp_ms,
        max_timestamp_ms=timestamp_ms,
        record_count=count,
        last_offset_delta=count - 1,
        uncompressed_size=len(body),
        producer_id=producer[0],
        producer_epoch=producer[1],
        base_sequence=producer[2],
    )
    return header + body


class Store:
    """A log directory in a test: opened, killed, opened again. `run` stands for tmpfs and survives a kill."""

    def __init__(self, root: Path, config: LogConfig | None = None, **options: object) -> None:
        self.root = root
        self.path = root / "broker"
        self.page_path = root / "run" / "broker-1.page"
        self.failed_dir = root / "failed"
        self.config = config or LogConfig()
        self.options = options
        self.epoch = 0
        self.directory: LogDirectory | None = None

    def open_directory(self) -> LogDirectory:
        self.directory = LogDirectory.open(
            self.path,
            cluster_id="cluster",
            broker_id=1,
            page_path=self.page_path,
            failed_dir=self.failed_dir,
            **self.options,  # type: ignore[arg-type]
        )
        return self.directory

    def open(self, partition: int = 0) -> Log:
        """Open or make the partition and lead it under the next epoch."""
        directory = self.directory or self.open_directory()
        log = directory.partition(TOPIC, partition, self.config)
        self.epoch = max(self.epoch, log.last_epoch) + 1
        log.become_leader(self.epoch)
        return log

    def kill(self) -> None:
        """Leave everything as SIGKILL would: nothing is flushed or written down, the lock is free."""
        assert self.directory is not None
        self.directory._lock.release()
        self.directory = None

    def close(self) -> None:
        if self.directory is not None:
            self.directory.close()
            self.directory = None

    def reopen(self) -> Log:
        """Kill and open again."""
        self.kill()
        return self.open()

    def flush(self) -> None:
        """Flush all logs and move their high watermarks, as a broker does."""
        assert self.directory is not None
        self.directory.flush_all()
        for log in self.directory.logs():
            log.advance_high_watermark(log.flushed_end)

    def failed_marks(self) -> list[Path]:
        """Return the marks that say that the directory failed."""
        durable = self.failed_dir.iterdir() if self.failed_dir.is_dir() else ()
        marks = [*self.page_path.parent.glob("*.failed"), *durable]
        return [mark for mark in marks if mark.suffix != ".tmp"]  # one that the device refused

    @property
    def partition_path(self) -> Path:
        return self.path / PARTITION_DIRECTORY


def stored(log: Log, offset: int | None = None, max_bytes: int = 1 << 20) -> list[tuple[BatchHeader, bytes]]:
    """Read everything from `offset` to the log's end through the broker's path: [(header, body)]."""
    found = []
    offset = log.start_offset if offset is None else offset
    while offset < log.end_offset:
        data = log.read(offset, max_bytes, end=log.end_offset)
        for position, header in hop_headers(data):
            verify_batch(data[position : position + header.size], header)
            found.append((header, bytes(data[position + HEADER_SIZE : position + header.size])))
            offset = header.next_offset
    return found


def bodies(log: Log, offset: int | None = None) -> list[bytes]:
    return [body for _, body in stored(log, offset)]


def flip(path: Path, position: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    fd = os.open(path, os.O_RDWR)
    try:
        byte = os.pread(fd, 1, position)[0] ^ (1 << bit)
        os.pwrite(fd, bytes([byte]), position)
    finally:
        os.close(fd)
