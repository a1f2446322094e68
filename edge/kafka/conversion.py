"""Batches for the answer to one Fetch, those of columns made anew: beside the loop, and no more than may be held.

Rows are views of what was read, and cost nothing while a client does not read them. Of columns each client has copies
of its own, and a batch of a million records takes a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from edge.kafka.batches import to_kafka
from ingest.limits import MIB
from ingest.records.header import BatchHeader

if TYPE_CHECKING:
    from typing_extensions import Buffer

RECORDS_MAX = 500_000  # of columns in one answer; one batch may have more
BYTES_MAX = 4 * MIB
INLINE_RECORDS_MAX = 1_000  # within the loop

Batches = Sequence[tuple[BatchHeader, memoryview]]


class Conversion:
    """What one Fetch has made anew so far. Thread: the loop's.

    Args:
        executor: Of one thread.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._records = 0
        self._bytes = 0

    async def to_kafka(self, batches: Batches) -> tuple[list[Buffer], int]:
        """Return batches of one partition in Kafka's form, and how many records these have.

        Args:
            batches: Whole ones whose CRCs were checked; the last are left out where there is no more room for columns.
        Raises:
            CorruptBatch: a body of columns that can't be read.
        """
        columns = sum(header.record_count for header, _ in batches if header.is_columns)
        if columns + self._records <= INLINE_RECORDS_MAX or not columns:
            return self._made(batches)
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._made, batches)

    def _made(self, batches: Batches) -> tuple[list[Buffer], int]:
        parts: list[Buffer] = []
        count = 0
        for header, batch in batches:
            full = self._records + header.record_count > RECORDS_MAX or self._bytes >= BYTES_MAX
            if header.is_columns and self._records and full:
                break
            head, body = to_kafka(batch, header)
            if header.is_columns:
                self._records += header.record_count
                self._bytes += memoryview(body).nbytes
            parts += (head, body)
            count += header.record_count
        return parts, count
