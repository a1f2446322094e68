"""Reads everything back as it is acknowledged: columns from the mapped log, tallied and watched for anomalies."""

from __future__ import annotations

import time
from collections.abc import Callable

from ingest.consumer import Consumer
from ingest.errors import CorruptBatch, ForebayError, LogTruncation
from ops.demo.detector import Detector
from ops.demo.payload import Readings
from ops.demo.tally import Tally

POLL_MS = 50


class Reader:
    """One consumer over all partitions. Thread: the demo's.

    Attributes:
        bytes_total: Of keys and values.
        problems: Errors that no run should have.
    """

    def __init__(
        self,
        data_dir: str,
        topic: str,
        partitions: int,
        tally: Tally,
        detector: Detector,
        on_batch: Callable[[int, int], None],
    ) -> None:
        self._consumer = Consumer(data_dir, auto_offset_reset="earliest", client_id="demo-reader")
        self._consumer.assign([(topic, partition) for partition in range(partitions)])
        self._tally = tally
        self._detector = detector
        self._on_batch = on_batch
        self.batches_total = 0
        self.problems: list[str] = []

    def read(self) -> int:
        """Read what is there, waiting a moment for it; return how many records."""
        try:
            batches = self._consumer.poll_arrays(POLL_MS)
        except (CorruptBatch, LogTruncation) as error:
            self.problems.append(str(error))
            return 0
        count = 0
        for columns in batches:
            try:
                readings = Readings(columns.values)
            except (ValueError, AttributeError):
                continue  # somebody else's records
            self._tally.add(readings.devices, readings.seqs)
            self._detector.add(readings, time.monotonic())
            self._on_batch(columns.partition, columns.leader_epoch)
            count += len(columns)
        self.batches_total += len(batches)
        return count

    @property
    def lag(self) -> int:
        """Records below the high watermarks that were not read yet."""
        return sum(lag or 0 for lag in self._consumer.lag().values())

    def close(self) -> None:
        try:
            self._consumer.close()
        except ForebayError as error:
            self.problems.append(str(error))
