"""The floor of Forebay and the library applications import: `from ingest import Producer, Consumer, Admin`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.admin import Admin
    from ingest.client.groups.listener import RebalanceListener
    from ingest.client.positions import TopicPartition
    from ingest.consumer import Consumer
    from ingest.errors import (
        CommitFailed,
        ConfigError,
        ForebayError,
        RemoteError,
        RequestTimedOut,
        TransportError,
        UsageError,
    )
    from ingest.producer import Producer

__all__ = [
    "Admin",
    "CommitFailed",
    "ConfigError",
    "Consumer",
    "ForebayError",
    "Producer",
    "RebalanceListener",
    "RemoteError",
    "RequestTimedOut",
    "TopicPartition",
    "TransportError",
    "UsageError",
]

_HOMES = {
    "Admin": "ingest.admin",
    "Consumer": "ingest.consumer",
    "Producer": "ingest.producer",
    "RebalanceListener": "ingest.client.groups.listener",
    "TopicPartition": "ingest.client.positions",
}


def __getattr__(name: str) -> object:
    """Import what is named when it is first named: who needs only the floor does not pay for the clients."""
    if name not in __all__:
        raise AttributeError(f"module 'ingest' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "ingest.errors")), name)
