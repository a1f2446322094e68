"""Produce requests that came while their client is over its quota: they are appended later, one after another.

It is what a socket does that is not read; a ROUTER can't stop reading one peer alone. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from brokerd.serving.outbox import Peer
from brokerd.serving.quotas import Quota
from ingest.limits import MIB
from ingest.wire.frames import Request

REQUESTS_MAX = 1000  # of one client
BYTES_MAX = 16 * MIB  # of one client, or one request
TOTAL_BYTES_MAX = 64 * MIB


class HeldProduce(NamedTuple):
    """`deadline_ms` is when its sender gives up."""

    peer: Peer
    request: Request
    size_bytes: int
    deadline_ms: int


class _Waiting:
    """What is held of one client."""

    __slots__ = ("requests", "size_bytes")

    def __init__(self) -> None:
        self.requests: deque[HeldProduce] = deque()
        self.size_bytes = 0


class HeldProduces:
    """First in, first out for each client id. Thread: the broker loop."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._by_client: dict[str, _Waiting] = {}
        self.size_bytes = 0

    def must_wait(self, client_id: str, now_ms: int) -> bool:
        """Tell whether a client is over its quota, or has something waiting."""
        return client_id in self._by_client or self._quota.throttle_ms(client_id, now_ms) > 0

    def add(self, peer: Peer, request: Request, now_ms: int) -> bool:
        """Hold a request; False: there is no room for it."""
        size_bytes = payload_bytes(request)
        waiting = self._by_client.get(request.client_id) or _Waiting()
        if waiting.requests and (len(waiting.requests) >= REQUESTS_MAX or waiting.size_bytes + size_bytes > BYTES_MAX):
            return False
        if self.size_bytes + size_bytes > TOTAL_BYTES_MAX:
            return False
        self._by_client[request.client_id] = waiting
        waiting.requests.append(HeldProduce(peer, request, size_bytes, now_ms + request.timeout_ms))
        waiting.size_bytes += size_bytes
        self.size_bytes += size_bytes
        return True

    def due(self, now_ms: int) -> Iterator[HeldProduce]:
        """Take out what may be appended now, or is waited for no longer; the taker spends it before the next."""
        for client_id, waiting in list(self._by_client.items()):
            requests = waiting.requests
            while requests and (requests[0].deadline_ms <= now_ms or not self._quota.throttle_ms(client_id, now_ms)):
                held = requests.popleft()
                waiting.size_bytes -= held.size_bytes
                self.size_bytes -= held.size_bytes
                yield held
            if not requests:
                del self._by_client[client_id]

    def next_ms(self) -> int | None:
        """Return when something is due, None: nothing is held."""
        return min(
            (
                min(self._quota.ready_ms(client_id), waiting.requests[0].deadline_ms)
                for client_id, waiting in self._by_client.items()
            ),
            default=None,
        )


def payload_bytes(request: Request) -> int:
    """Return how large the batches of a request are."""
    return sum(memoryview(frame).nbytes for frame in request.payload)
