"""What a gateway counted of requests, by API: how many, how long they took, and with which errors."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from edge.kafka.codec import APIS
from ingest.latency import Histogram, LatencyRecorder
from ingest.wire.codes import ErrorCode


class RequestStats(msgspec.Struct, frozen=True):
    """The requests of one API; `errors_total` by Kafka's name, of each answer those of all its parts."""

    seconds: Histogram
    errors_total: dict[str, int]


class RequestCounts:
    """Thread: the loop writes; any may take stats."""

    def __init__(self) -> None:
        self._seconds = {key: LatencyRecorder() for key in APIS}
        self._errors: dict[tuple[int, int], int] = {}

    def answered(self, api_key: int, seconds: float) -> None:
        """Count a request that was served, from its being read to its answer, waiting included."""
        self._seconds[api_key].observe(seconds)

    def refused(self, api_key: int, codes: Iterable[int]) -> None:
        """Count the error codes of an answer; 0 is none."""
        for code in codes:
            if code:
                self._errors[api_key, code] = self._errors.get((api_key, code), 0) + 1

    def stats(self) -> dict[str, RequestStats]:
        """Return what was counted of each API that was asked for, by Kafka's name."""
        errors: dict[int, dict[str, int]] = {}
        for (api_key, code), count in dict(self._errors).items():
            errors.setdefault(api_key, {})[_name_of(code)] = count
        seen = ((key, recorder.snapshot()) for key, recorder in self._seconds.items())
        return {
            APIS[key].name: RequestStats(seconds, errors.get(key, {})) for key, seconds in seen if any(seconds.counts)
        }


def _name_of(code: int) -> str:
    try:
        return ErrorCode(code).name
    except ValueError:
        return str(code)
