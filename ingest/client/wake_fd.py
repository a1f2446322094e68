"""A descriptor by which one thread ends another's wait."""

from __future__ import annotations

import os
import weakref


class WakeFd:
    """An eventfd that is open as long as somebody holds it: a thread that wakes too late wakes nobody, and no other.

    It is watched edge-triggered: each `set` ends one wait, and nobody needs to read it.
    """

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self.fd).atexit = False

    def set(self) -> None:
        """End the wait of whoever watches it, now or the next one. Thread: any."""
        os.eventfd_write(self.fd, 1)
