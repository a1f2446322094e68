"""The floor of Forebay and the library applications import: `from ingest import Producer, Consumer, Admin`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.admin import Admin, NewTopic
    from ingest.client.groups.committed import Committed
    from ingest.client.groups.listener import RebalanceListener
    from ingest.client.lag import Lag
    from ingest.client.positions import TopicPartition
    from ingest.consumer import Consumer
    from ingest.errors import (
        BufferFull,
        CommitFailed,
        ConfigError,
        CorruptBatch,
        DeserializationError,
        Fenced,
        ForebayError,
        ForkedHandle,
        LogTruncation,
        NoOffset,
        RemoteError,
        RequestTimedOut,
        TransportError,
        UsageError,
    )
    from ingest.producer import Producer
    from ingest.records.batch import Columns, Record

_ERRORS = [
    "BufferFull",
    "CommitFailed",
    "ConfigError",
    "CorruptBatch",
    "DeserializationError",
    "Fenced",
    "ForebayError",
    "ForkedHandle",
    "LogTruncation",
    "NoOffset",
    "RemoteError",
    "RequestTimedOut",
    "TransportError",
    "UsageError",
]
_HOMES = {
    "Admin": "ingest.admin",
    "Columns": "ingest.records.batch",
    "Committed": "ingest.client.groups.committed",
    "Consumer": "ingest.consumer",
    "Lag": "ingest.client.lag",
    "NewTopic": "ingest.admin",
    "Producer": "ingest.producer",
    "RebalanceListener": "ingest.client.groups.listener",
    "Record": "ingest.records.batch",
    "TopicPartition": "ingest.client.positions",
    **dict.fromkeys(_ERRORS, "ingest.errors"),
}
__all__ = [
    "Admin",
    "BufferFull",
    "Columns",
    "CommitFailed",
    "Committed",
    "ConfigError",
    "Consumer",
    "CorruptBatch",
    "DeserializationError",
    "Fenced",
    "ForebayError",
    "ForkedHandle",
    "Lag",
    "LogTruncation",
    "NewTopic",
    "NoOffset",
    "Producer",
    "RebalanceListener",
    "Record",
    "RemoteError",
    "RequestTimedOut",
    "TopicPartition",
    "TransportError",
    "UsageError",
]


def __getattr__(name: str) -> object:
    """Import what is named when it is first named: who needs only the floor does not pay for the clients."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ingest' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
