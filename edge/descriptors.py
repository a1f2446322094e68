"""How many connections the limit of file descriptors leaves room for."""

from __future__ import annotations

import resource

import structlog

DESCRIPTORS_KEPT = 64  # for connections to brokers, listeners, the control socket, files

_log = structlog.get_logger("edge")


def connections_within_limit(wanted: int) -> int:
    """Raise the limit of this process as far as it goes; return how many connections it allows, `wanted` at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + DESCRIPTORS_KEPT
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != resource.RLIM_INFINITY and soft < needed:
        _log.warning("fewer connections than asked for", connections_max=soft - DESCRIPTORS_KEPT, nofile=soft)
        return int(soft - DESCRIPTORS_KEPT)
    return wanted
