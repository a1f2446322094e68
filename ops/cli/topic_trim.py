"""Trim a partition up to a place given as `-o` gives it."""

from __future__ import annotations

from ingest.admin import Admin
from ingest.wire.messages import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP
from ops.cli.start_offset import StartOffset, Whence


def trim_partition(admin: Admin, topic: str, partition: int, start: StartOffset) -> int:
    """Delete the records below the place and return the new log start.

    Raises:
        RemoteError: the offset is not in the log, or the leader refused.
    """
    return admin.delete_records(topic, partition, _offset(admin, topic, partition, start))


def _offset(admin: Admin, topic: str, partition: int, start: StartOffset) -> int:
    match start.whence:
        case Whence.OFFSET:
            return start.amount
        case Whence.START:
            return admin.list_offset(topic, partition, EARLIEST_TIMESTAMP) + start.amount
        case Whence.END:
            first = admin.list_offset(topic, partition, EARLIEST_TIMESTAMP)
            return max(first, admin.list_offset(topic, partition, LATEST_TIMESTAMP) - start.amount)
        case Whence.TIME_MS:
            found = admin.list_offset(topic, partition, start.amount)
            return found if found >= 0 else admin.list_offset(topic, partition, LATEST_TIMESTAMP)
