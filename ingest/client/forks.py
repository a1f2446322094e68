"""Clients that live on in a forked child: there they start anew, and the parent's sockets are left alone."""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol


class Forking(Protocol):
    """A client with sockets, threads or locks that a forked child can't use."""

    def after_fork(self) -> None:
        """In the child: start anew; hand what belongs to the parent to `leave_to_parent`."""
        ...


_live: weakref.WeakSet[Any] = weakref.WeakSet()
_left: list[Any] = []


def survive_forks(client: Forking) -> None:
    """Call the client's `after_fork` in every child forked from now on."""
    _live.add(client)


def leave_to_parent(*belongings: object) -> None:
    """Keep what is the parent's for the child's whole life, so that nothing closes its sockets."""
    _left.append(belongings)


def _after_fork() -> None:
    for client in list(_live):
        client.after_fork()


os.register_at_fork(after_in_child=_after_fork)
