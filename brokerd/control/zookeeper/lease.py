"""How long a controller whose session may have ended goes on acting as one; pure."""

from __future__ import annotations


class Lease:
    """A deadline that every good reply moves: 2/3 of the session after the request was *sent*.

    The servers count a session from when they last received something, which is after it was sent, so the lease ends a
    third of the session before they let another candidate win. It keeps a zombie silent; what keeps it harmless is the
    check of the controller epoch in each transaction. Thread: any, renewals from one at a time.
    """

    def __init__(self) -> None:
        self._until_ms = -1

    def renew(self, sent_ms: int, session_ms: int) -> None:
        """Take a reply to a request of `sent_ms` into account; an older one than known changes nothing."""
        self._until_ms = max(self._until_ms, sent_ms + session_ms * 2 // 3)

    def left_ms(self, now_ms: int) -> int:
        """Return how long it lasts; 0 or less: it is over."""
        return self._until_ms - now_ms
