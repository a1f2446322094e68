"""What a client knows of its cluster, and how it reaches it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingest import Admin
from ingest.client import cluster
from ingest.client.cluster import OLDER_MS, Answered, Cluster
from ingest.errors import TransportError
from ingest.wire.messages import MetadataResponse


@pytest.fixture
def client() -> Iterator[Cluster]:
    client = Cluster("tcp://127.0.0.1:1")
    yield client
    client.close()


def hear(client: Cluster, version: int) -> None:
    client._take_metadata(Answered(MetadataResponse("c", version, 1, [], []), (), None), False)


def test_an_older_version_is_taken_once_nobody_has_known_a_newer_one_for_long(
    client: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ms = 0
    monkeypatch.setattr(cluster, "monotonic_ms", lambda: now_ms)
    hear(client, 20)
    hear(client, 12)
    now_ms = OLDER_MS - 1
    hear(client, 12)
    assert client.version == 20, "that broker has not heard yet"
    hear(client, 20)
    now_ms += OLDER_MS - 1
    hear(client, 12)
    assert client.version == 20
    now_ms += OLDER_MS
    hear(client, 12)
    assert client.version == 12, "the store was set back"
    hear(client, 13)
    assert client.version == 13


@pytest.mark.parametrize("endpoint", ["tcp://localhost", "tcp://no such host:9192", f"ipc:///{'x' * 120}"])
def test_an_endpoint_that_is_none_is_an_error_and_keeps_nobody_from_ending(endpoint: str) -> None:
    with pytest.raises(TransportError, match="can't be connected to"), Admin(endpoint) as admin:
        admin.metadata()
