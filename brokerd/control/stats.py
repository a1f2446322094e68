"""What a controller says of itself."""

from __future__ import annotations

import msgspec

from ingest.latency import Histogram


class ControllerStats(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot; counters begin with the process.

    Attributes:
        role: "active", or "standby" while another process holds the lock.
        waits_for: What a standby lacks to become active, but for another's end; "" if nothing.
        requests: By the api's name.
        errors: Answers with a code, single topics of a request not counted.
        dropped: Messages that were none, and so had no one to answer to.
        unroutable: Answers whose peer had gone or did not read.
        elections: Leaders elected, by reason; `unclean` ones may lack acknowledged records.
        election_seconds: From what made elections necessary to their being durable.
        leaderless: Partitions that nobody may lead now.
        not_preferred: Partitions led by another than their first replica.
        parked: Requests that wait for an answer, heartbeats left out.
    """

    role: str
    waits_for: str = ""
    controller_epoch: int = -1
    version: int = -1
    topics: int = 0
    partitions: int = 0
    deleted_topics: int = 0
    brokers: int = 0
    brokers_alive: int = 0
    requests: dict[str, int] = {}
    errors: int = 0
    dropped: int = 0
    unroutable: int = 0
    parked: int = 0
    commits: int = 0
    commits_failed: int = 0
    commit_seconds_total: float = 0.0
    commit_seconds_max: float = 0.0
    elections: dict[str, int] = {}
    election_seconds: Histogram | None = None
    leaderless: int = 0
    not_preferred: int = 0
