"""Where to begin reading: the `-o` of `topic consume`, as rpk and kcat write it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ingest.errors import UsageError
from ingest.wire.messages import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP

if TYPE_CHECKING:
    from ingest.admin import Admin


class Whence(Enum):
    """What a number of `-o` counts from."""

    START = "start"
    END = "end"
    OFFSET = "offset"
    TIME_MS = "time"


class StartOffset(NamedTuple):
    """A place in each partition: `amount` records behind the start, before the end; an offset; or a time in ms."""

    whence: Whence
    amount: int = 0


def parse_start_offset(text: str) -> StartOffset:
    """Return what `start`, `end`, `N`, `+N`, `-N` or `@MS` means; Kafka's earliest and latest are understood.

    Raises:
        UsageError: it is none of them.
    """
    word = text.strip().lower()
    if word in ("start", "earliest", "oldest", "beginning"):
        return StartOffset(Whence.START)
    if word in ("end", "latest", "newest"):
        return StartOffset(Whence.END)
    signs = {"@": Whence.TIME_MS, "+": Whence.START, "-": Whence.END}
    whence = signs.get(word[:1], Whence.OFFSET)
    digits = word if whence is Whence.OFFSET else word[1:]
    if not (digits.isascii() and digits.isdigit()) or int(digits) > 2**63 - 1:
        raise UsageError(
            f"-o {text}: expected start, end, an offset N, +N after the start, -N before the end,"
            " or @MS for a time in ms since 1970"
        )
    return StartOffset(whence, int(digits))


def offset_of(admin: Admin, topic: str, partition: int, start: StartOffset) -> int:
    """Return the offset that a place is in one partition; a time later than every record is the end.

    Raises:
        RemoteError: there is no such partition, or its leader refused.
    """
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
