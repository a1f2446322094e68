"""What the fuzz harness must know of one decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ingest.errors import ForebayError

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Decoder:
    """One decoder and the promise it makes.

    Attributes:
        corpus: Valid inputs, which are changed at random.
        bombs: Inputs made to use as much memory or time as they can; tried as they are. Made late: they are large.
        errors: What it may raise.
        rss_bytes_max: How far the process may grow over the whole run.
        seconds_max: The longest one input may take.
    """

    name: str
    corpus: Sequence[bytes]
    decode: Callable[[bytes], object]
    bombs: Callable[[], Sequence[bytes]] = field(default=lambda: ())
    errors: tuple[type[Exception], ...] = (ForebayError,)
    rss_bytes_max: int = 128 * MIB
    seconds_max: float = 5.0
