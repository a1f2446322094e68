"""Requests to a coordinator that says nothing: each has its outcome once, whatever callers do when they hear of it."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from ingest.client.cluster import Answered, Cluster
from ingest.client.groups.coordinator import RETRY_MS, Coordinator
from ingest.errors import RequestTimedOut
from ingest.wire.codes import ErrorCode, error_from_code
from ingest.wire.group_messages import FindCoordinatorResponse, FoundCoordinator, OffsetFetchRequest


class SilentCluster:
    """Takes requests and answers none by itself."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def send(self, broker_id: int, body: object, on_done: Any, *, timeout_ms: int) -> bool:
        self.waiting.append(on_done)
        return True


@pytest.fixture
def cluster() -> SilentCluster:
    return SilentCluster()


@pytest.fixture
def coordinator(cluster: SilentCluster) -> Coordinator:
    return Coordinator(cast(Cluster, cluster), "g")


def test_who_asks_on_from_an_outcome_does_not_disturb_those_of_others(coordinator: Coordinator) -> None:
    errors: list[object] = []

    def on_outcome(body: object, error: object) -> None:
        errors.append(error)
        coordinator.poll()

    for _ in range(3):
        coordinator.ask(OffsetFetchRequest("g"), on_outcome, timeout_ms=1)
    time.sleep(0.01)
    coordinator.poll()
    assert [type(error) for error in errors] == [RequestTimedOut] * 3
    assert not coordinator.busy


def test_a_refusal_that_comes_after_all_was_given_up_is_nobodys(
    coordinator: Coordinator, cluster: SilentCluster
) -> None:
    errors: list[object] = []
    coordinator.ask(OffsetFetchRequest("g"), lambda body, error: errors.append(error), timeout_ms=1)
    time.sleep(0.01)
    coordinator.poll()
    refused = FindCoordinatorResponse([FoundCoordinator(int(ErrorCode.INVALID_GROUP_ID))])
    cluster.waiting.pop()(Answered(refused, (), None))
    coordinator.ask(OffsetFetchRequest("g"), lambda body, error: errors.append(error), timeout_ms=60_000)
    time.sleep(2 * RETRY_MS / 1000)
    coordinator.poll()
    cluster.waiting.pop()(Answered(refused, (), None))
    assert [type(error) for error in errors] == [RequestTimedOut, type(error_from_code(ErrorCode.INVALID_GROUP_ID, ""))]
