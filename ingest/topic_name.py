"""What a topic may be called: Kafka's rule. Source: org.apache.kafka.common.internals.Topic."""

from __future__ import annotations

import re

from ingest.errors import RemoteError
from ingest.limits import LIMITS
from ingest.wire.codes import ErrorCode

CONSUMER_OFFSETS = "__consumer_offsets"
_LEGAL = re.compile(r"[a-zA-Z0-9._-]+")
_SHOWN_CHARS = 60


def why_illegal(name: str) -> str:
    """Return why no topic can have this name, or an empty string."""
    shown = repr(name if len(name) <= _SHOWN_CHARS else name[:_SHOWN_CHARS] + "…")
    if not name:
        return "a topic name can't be empty"
    if name in (".", ".."):
        return f"topic name {shown} can't be '.' or '..'"
    if len(name) > LIMITS.topic_name_chars_max:
        return f"topic name {shown} has {len(name)} characters; at most {LIMITS.topic_name_chars_max} are allowed"
    if not _LEGAL.fullmatch(name):
        return f"topic name {shown} may hold ASCII letters, digits, '.', '_' and '-' alone"
    return ""


def is_internal(name: str) -> bool:
    """Tell whether a topic is the brokers' own: they alone write to it."""
    return name.startswith("__")


def why_internal(name: str) -> str:
    """Return why clients may not create a topic of this name, or an empty string."""
    if is_internal(name):
        return f"topic name {name!r} is internal: names that begin with '__' are the brokers' own"
    return ""


def check_topic_name(name: str) -> None:
    """Refuse a name no topic can have.

    Raises:
        RemoteError: INVALID_TOPIC_EXCEPTION (17), as a broker would answer.
    """
    if reason := why_illegal(name):
        raise RemoteError(f"INVALID_TOPIC_EXCEPTION: {reason}", code=int(ErrorCode.INVALID_TOPIC_EXCEPTION))


def collision_key(name: str) -> str:
    """Return what two names share if metrics could not tell them apart: there '.' becomes '_'."""
    return name.replace(".", "_")
