"""Where the partitions of a topic are to go, and waiting until they are there."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ingest.admin import Admin
from ingest.errors import UsageError

LOOK_S = 0.2


def brokers_of(text: str) -> list[int]:
    """Return the broker ids of a list such as 1,2,3.

    Raises:
        UsageError: it is none.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--replicas {text}: expected broker ids, such as 1,2,3") from None


def spread(brokers: Sequence[int] | None, index: int) -> list[int] | None:
    """Return the replicas of the index-th partition: each begins with another broker. None stays None."""
    if brokers is None:
        return None
    at = index % len(brokers)
    return [*brokers[at:], *brokers[:at]]


def await_moves(admin: Admin, topic: str) -> None:
    """Return once nothing of a topic moves any more."""
    while any(item.adding or item.removing for item in admin.describe_topic(topic).partitions):
        time.sleep(LOOK_S)
