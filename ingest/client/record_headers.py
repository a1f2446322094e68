"""Record headers as a caller gives them, checked first: what no reader decodes must not be stored."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.errors import RemoteError, UsageError
from ingest.limits import LIMITS
from ingest.records.columns import Headers
from ingest.wire.codes import ErrorCode

_BYTES_OF_ONE = 8  # beside name and value: lengths and types, at most


class HeaderChecker:
    """Check headers once for a run of records that share one tuple."""

    __slots__ = ("_checked", "_last")

    def __init__(self) -> None:
        self._last: object = None
        self._checked: tuple[Headers, int] = ((), 0)

    def check(self, headers: Sequence[tuple[str, bytes | None]]) -> tuple[Headers, int]:
        """Do as `check_headers`; a tuple that was the last one checked is known to be good."""
        if headers is not self._last or type(headers) is not tuple:
            self._checked = check_headers(headers)
            self._last = headers
        return self._checked


def check_headers(headers: Sequence[tuple[str, bytes | None]]) -> tuple[Headers, int]:
    """Return the headers frozen, and about how many bytes they take.

    Raises:
        RemoteError: INVALID_RECORD (87): more than a record may have.
        UsageError: a name is no str that UTF-8 can hold, or a value neither bytes nor None.
    """
    if len(headers) > LIMITS.record_headers_max:
        raise RemoteError(
            f"INVALID_RECORD: {len(headers)} headers on a record > {LIMITS.record_headers_max}",
            code=int(ErrorCode.INVALID_RECORD),
        )
    size = 0
    for name, value in headers:
        if not isinstance(name, str) or not (value is None or isinstance(value, bytes)):
            raise UsageError(f"record header ({name!r}, {value!r:.50}) is not (str, bytes or None)")
        try:
            size += len(name.encode()) + len(value or b"") + _BYTES_OF_ONE
        except UnicodeEncodeError as error:
            raise UsageError(f"record header name {name!r}: {error.reason}") from None
    return tuple(headers), size
