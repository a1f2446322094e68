"""Where to begin reading: the `-o` of `topic consume`, as rpk and kcat write it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from ingest.errors import UsageError


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
