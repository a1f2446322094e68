"""How many may be connected, and how many may be half way in. Pure."""

from __future__ import annotations

from collections import Counter


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
        self.connections = 0
        self.unauthenticated = 0

    def enter(self, ip: str) -> str:
        """Count a new connection in, unless there is a reason not to, which is returned."""
        if self.connections >= self._connections_max:
            return f"{self.connections} connections already"
        if self._by_ip[ip] >= self._per_ip_max:
            return f"{self._by_ip[ip]} connections from {ip} already"
        if self.unauthenticated >= self._unauthenticated_max:
            return f"{self.unauthenticated} connections that have not logged in already"
        if self._unauthenticated_by_ip[ip] >= self._unauthenticated_per_ip_max:
            return f"{self._unauthenticated_by_ip[ip]} connections from {ip} that have not logged in already"
        self.connections += 1
        self.unauthenticated += 1
        self._unauthenticated_by_ip[ip] += 1
        self._by_ip[ip] += 1
        return ""

    def let_in(self, ip: str) -> None:
        """A connection has logged in."""
        self.unauthenticated -= 1
        _take_one(self._unauthenticated_by_ip, ip)

    def leave(self, ip: str, *, authenticated: bool) -> None:
        """Count a connection out."""
        self.connections -= 1
        _take_one(self._by_ip, ip)
        if not authenticated:
            self.unauthenticated -= 1
            _take_one(self._unauthenticated_by_ip, ip)


def _take_one(counts: Counter[str], ip: str) -> None:
    counts[ip] -= 1
    if not counts[ip]:
        del counts[ip]
