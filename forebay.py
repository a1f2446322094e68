"""Forebay's client library under the distribution's own name: `from forebay import Producer`."""

from ingest import *  # noqa: F403
from ingest import __all__ as __all__
