"""Forebay's client library under the distribution's own name: `from forebay import Producer`."""

from ingest import Admin, Consumer, Producer

__all__ = ["Admin", "Consumer", "Producer"]
