"""What any store does with a record it reads: check that it is whole, and that all of them fit together; pure."""

from __future__ import annotations

from collections.abc import Iterable

import crc32c
import msgspec

from brokerd.control.image import ClusterImage
from brokerd.control.records import Record, decode_record
from ingest.errors import StorageError


def checksum(path: str, value: bytes) -> int:
    """Return the CRC-32C of a record's path, then its value."""
    return int(crc32c.crc32c(value, crc32c.crc32c(path.encode())))


def check_value(where: object, path: str, value: bytes, crc: int) -> None:
    """Compare a value with its checksum.

    Raises:
        StorageError: naming the store and the record.
    """
    found = checksum(path, value)
    if found != crc:
        raise StorageError(f"{where}: {path} is damaged: checksum {found:08x}, expected {crc:08x}", path=where)


def decode_stored(where: object, path: str, value: bytes) -> Record:
    """Return the record of a value whose checksum was right.

    Raises:
        StorageError: it is of no type this version knows.
    """
    try:
        record: Record = decode_record(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise StorageError(f"{where}: {path} can't be read: {error}", path=where) from None
    return record


def image_of(where: object, records: Iterable[Record]) -> ClusterImage:
    """Return the image of all records of a store.

    Raises:
        StorageError: each is whole, so some are missing: the world's fault, not ours.
    """
    try:
        return ClusterImage(records)
    except AssertionError as error:
        raise StorageError(f"{where}: the records don't fit together: {error}", path=where) from None
