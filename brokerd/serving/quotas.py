"""Quotas of clients: how fast each client id may produce, and fetch; pure. Source: Kafka's ClientQuotaManager, KIP-219.

Kafka takes the rate over 11 windows of a second, of which the last is running: `quota.window.num`,
`quota.window.size.seconds`. Here the window slides: a client may use what its rate gives in WINDOW_MS at once, and is
throttled until the rate over the window is its quota again. For what comes after a rest both give the same time; here
nothing is forgiven when a window ends, however much one request was, and a client costs one number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ingest.limits import LIMITS

WINDOW_MS = 10_000
THROTTLE_MS_MAX = WINDOW_MS  # told at once; who comes back earlier than it has paid is told again
CLIENTS_MAX = 10_000  # counted one by one
PURGE_MS = 1000
_OTHERS = None  # clients that are counted together: ids beyond CLIENTS_MAX, or too long to be kept


class Quota:
    """The rates of one kind, and what clients have used of them.

    Attributes:
        bytes_total: Of clients that have a quota.
        throttled_total, throttle_ms_total: How often clients were told to wait, and for how long.
    """

    def __init__(self) -> None:
        self._default = 0
        self._own: Mapping[str, int] = {}
        self._paid_ms: dict[str | None, float] = {}  # until when what a client has used is paid for, at its rate
        self._purge_ms = 0
        self.bytes_total = 0
        self.throttled_total = 0
        self.throttle_ms_total = 0

    def set(self, rates: Mapping[str, int]) -> None:
        """Take rates in bytes a second by client id, under the empty one that of all others; none: no quota.

        Whose rate changes begins anew.
        """
        before = {client_id: self.bytes_per_s(client_id) for client_id in self._paid_ms}
        self._default, self._own = rates.get("", 0), {name: rate for name, rate in rates.items() if name}
        for client_id, rate in before.items():
            if self.bytes_per_s(client_id) != rate:
                del self._paid_ms[client_id]

    @property
    def clients(self) -> int:
        """Return how many clients are remembered."""
        return len(self._paid_ms)

    def bytes_per_s(self, client_id: str | None) -> int:
        """Return a client's rate, 0: none."""
        return self._default if client_id is None else self._own.get(client_id, self._default)

    def spend(self, client_id: str, size_bytes: int, now_ms: int) -> int:
        """Take note of what a client has used; return for how many ms it is to send nothing more."""
        rate = self.bytes_per_s(client_id)
        if not rate:
            return 0
        idle_ms = now_ms - WINDOW_MS
        if now_ms >= self._purge_ms:
            self._purge_ms = now_ms + PURGE_MS
            self._paid_ms = {key: paid_ms for key, paid_ms in self._paid_ms.items() if paid_ms > idle_ms}
        key = self._key(client_id)
        self._paid_ms[key] = max(self._paid_ms.get(key, idle_ms), idle_ms) + size_bytes * 1000 / rate
        self.bytes_total += size_bytes
        throttle_ms = self.throttle_ms(client_id, now_ms)
        if throttle_ms:
            self.throttled_total += 1
            self.throttle_ms_total += throttle_ms
        return throttle_ms

    def throttle_ms(self, client_id: str, now_ms: int) -> int:
        """Return for how long a client is to send nothing, 0: it may."""
        return min(max(0, self.ready_ms(client_id) - now_ms), THROTTLE_MS_MAX)

    def ready_ms(self, client_id: str) -> int:
        """Return from when on a client may send."""
        if not self.bytes_per_s(client_id):
            return 0
        return math.ceil(self._paid_ms.get(self._key(client_id), 0))

    def _key(self, client_id: str) -> str | None:
        if client_id in self._paid_ms or client_id in self._own:
            return client_id
        fits = len(self._paid_ms) < CLIENTS_MAX and len(client_id) <= LIMITS.client_id_chars_max
        return client_id if fits else _OTHERS
