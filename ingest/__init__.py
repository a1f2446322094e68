"""The floor of Forebay and the library applications import: `from ingest import Producer, Consumer, Admin`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.admin import Admin
    from ingest.consumer import Consumer
    from ingest.producer import Producer

__all__ = ["Admin", "Consumer", "Producer"]

_HOMES = {"Admin": "ingest.admin", "Consumer": "ingest.consumer", "Producer": "ingest.producer"}


def __getattr__(name: str) -> object:
    """Import the clients when they are first named: who needs only the floor does not pay for them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ingest' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
