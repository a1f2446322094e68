"""Who had wrong passwords lately, and is not listened to for a while. Pure."""

from __future__ import annotations

FAILURES_MAX = 20  # wrong passwords for one user from one address within the window; then no more are looked at
WINDOW_MS = 60_000
REMEMBERED_MAX = 10_000


class Guesses:
    """Remember failed logins by address and user. Thread: the gateway's loop."""

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], list[int]] = {}

    def failed(self, ip: str, user: str, now_ms: int) -> None:
        """Remember a wrong password."""
        key = (ip, user)
        if len(self._failures) >= REMEMBERED_MAX and key not in self._failures:
            self._failures.clear()
        self._failures[key] = [*self._recent(key, now_ms), now_ms][-FAILURES_MAX:]

    def too_many(self, ip: str, user: str, now_ms: int) -> bool:
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
