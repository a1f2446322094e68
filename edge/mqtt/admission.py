"""How many may be connected, how many may be half way in, and who has to wait after wrong passwords. Pure."""

from __future__ import annotations

from collections import Counter

FAILURES_MAX = 20  # wrong passwords for one user from one address within the window; then no more are looked at
WINDOW_MS = 60_000
REMEMBERED_MAX = 10_000


class Admission:
    """Count connections by address. Thread: the gateway's loop."""

    def __init__(
        self, *, connections_max: int, per_ip_max: int, unauthenticated_max: int, unauthenticated_per_ip_max: int
    ) -> None:
        self._connections_max = connections_max
        self._per_ip_max = per_ip_max
        self._unauthenticated_max = unauthenticated_max
        self._unauthenticated_per_ip_max = unauthenticated_per_ip_max
        self._by_ip: Counter[str] = Counter()
        self._unauthenticated_by_ip: Counter[str] = Counter()
        self._failures: dict[tuple[str, str], list[int]] = {}
        self.connections = 0
        self.unauthenticated = 0

    def enter(self, ip: str) -> str:
        """Count a new connection in, unless there is a reason not to, which is returned."""
        if self.connections >= self._connections_max:
            return f"{self.connections} connections already"
        if self._by_ip[ip] >= self._per_ip_max:
            return f"{self._by_ip[ip]} connections from {ip} already"
        if self.unauthenticated >= self._unauthenticated_max:
            return f"{self.unauthenticated} connections without CONNECT already"
        if self._unauthenticated_by_ip[ip] >= self._unauthenticated_per_ip_max:
            return f"{self._unauthenticated_by_ip[ip]} connections without CONNECT from {ip} already"
        self.connections += 1
        self.unauthenticated += 1
        self._unauthenticated_by_ip[ip] += 1
        self._by_ip[ip] += 1
        return ""

    def let_in(self, ip: str) -> None:
        """A connection is past CONNECT."""
        self.unauthenticated -= 1
        _take_one(self._unauthenticated_by_ip, ip)

    def leave(self, ip: str, *, authenticated: bool) -> None:
        """Count a connection out."""
        self.connections -= 1
        _take_one(self._by_ip, ip)
        if not authenticated:
            self.unauthenticated -= 1
            _take_one(self._unauthenticated_by_ip, ip)

    def login_failed(self, ip: str, user: str, now_ms: int) -> None:
        """Remember a wrong password."""
        key = (ip, user)
        if len(self._failures) >= REMEMBERED_MAX and key not in self._failures:
            self._failures.clear()
        self._failures[key] = [*self._recent(key, now_ms), now_ms][-FAILURES_MAX:]

    def is_guessing(self, ip: str, user: str, now_ms: int) -> bool:
        """Tell whether an address had too many wrong passwords for a user lately.

        Not by address alone: one device with an old password must not shut out the fleet behind the same router.
        """
        return len(self._recent((ip, user), now_ms)) >= FAILURES_MAX

    def _recent(self, key: tuple[str, str], now_ms: int) -> list[int]:
        times = self._failures.get(key)
        if times is None:
            return []
        recent = [at for at in times if now_ms - at < WINDOW_MS]
        if not recent:
            del self._failures[key]
        return recent


def _take_one(counts: Counter[str], ip: str) -> None:
    counts[ip] -= 1
    if not counts[ip]:
        del counts[ip]
