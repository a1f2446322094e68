"""Where `group seek` goes: rpk's --to, Kafka's --to-earliest and its like, and files of offsets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ingest.errors import UsageError
from ops.cli.start_offset import StartOffset, Whence, offset_of, parse_start_offset

if TYPE_CHECKING:
    from ingest.admin import Admin

OFFSET_MAX = 2**63 - 1
TIME_DIGITS_MIN = 13  # of a bare number: so many ms are the year 2001, and hardly any log is as long

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TopicPartition = tuple[str, int]


class Shift(NamedTuple):
    """So many records on from where the group is; 0: stay."""

    by: int


def parse_destination(text: str) -> StartOffset | Shift:
    """Return what start, end, current, N, +N, -N, @MS, MS or a date and time means.

    Raises:
        UsageError: it is none of them.
    """
    word = text.strip()
    if word.lower() == "current":
        return Shift(0)
    if word.isascii() and word.isdigit() and len(word) >= TIME_DIGITS_MIN:
        word = f"@{word}"
    if word[:4].isdigit() and word[4:5] == "-":
        return StartOffset(Whence.TIME_MS, _time_ms(word))
    try:
        return parse_start_offset(word)
    except UsageError:
        raise UsageError(
            f"--to {text}: expected start, end, current, an offset N, +N after the start, -N before the end,"
            " or a time: @MS since 1970, or 2026-01-31T08:00:00Z"
        ) from None


def _time_ms(text: str) -> int:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--to {text}: expected a date and time such as 2026-01-31T08:00:00Z") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)  # as Kafka's tools have it
    since_1970_ms = (found - _EPOCH) // timedelta(milliseconds=1)
    if since_1970_ms < 0:
        raise UsageError(f"--to {text}: that is before 1970")
    return since_1970_ms


def new_offset(
    admin: Admin, name: TopicPartition, where: StartOffset | Shift, current: int | None
) -> tuple[int | None, str]:
    """Return the offset that a destination is in one partition, and what to say of it if it had to be changed.

    None: the group has no place there to go on from.
    """
    if isinstance(where, StartOffset):
        return within(admin, name, offset_of(admin, *name, where))
    if current is None:
        return None, f"{name[0]}-{name[1]}: nothing is committed there, so it stays without"
    return within(admin, name, current + where.by) if where.by else (current, "")


def within(admin: Admin, name: TopicPartition, offset: int) -> tuple[int, str]:
    """Return the offset, or the nearest one that the log has and what to say of that."""
    first = offset_of(admin, *name, StartOffset(Whence.START))
    last = offset_of(admin, *name, StartOffset(Whence.END))
    near = min(max(offset, first), last)
    return (
        near,
        "" if near == offset else f"{name[0]}-{name[1]}: offset {offset} is not in {first}..{last}; taking {near}",
    )


def read_offsets(path: str, group: str) -> dict[TopicPartition, int]:
    """Read lines of topic, partition, offset, by commas or blanks; with a group in front only those of this one.

    Raises:
        UsageError: the file can't be read, or a line of it; names the line.
    """
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"can't read {path}: {reason}") from None
    found: dict[TopicPartition, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) == 4 and words.pop(0).strip('"') != group:
            continue
        name, offset = _line(words, f"{path}, line {number}: {line.strip()!r}")
        if name in found:
            raise UsageError(f"{path}, line {number}: {name[0]}-{name[1]} stands there a second time")
        found[name] = offset
    if not found:
        raise UsageError(f"{path} names no offsets of group {group}; expected lines of: topic,partition,offset")
    return found


def _line(words: list[str], what: str) -> tuple[TopicPartition, int]:
    words = [word.strip('"') for word in words]
    if len(words) != 3 or not all(word.isascii() and word.isdigit() for word in words[1:]):
        raise UsageError(f"{what}: expected topic,partition,offset")
    partition, offset = int(words[1]), int(words[2])
    if partition > 2**31 - 1 or offset > OFFSET_MAX:
        raise UsageError(f"{what}: a number is too large")
    return (words[0], partition), offset


def as_lines(offsets: Mapping[TopicPartition, int]) -> str:
    """Return offsets as `read_offsets`, and Kafka's --from-file, read them."""
    return "".join(f"{topic},{partition},{offset}\n" for (topic, partition), offset in offsets.items())
