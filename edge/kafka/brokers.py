"""The brokers behind the gateway: requests to them from coroutines, and what metadata says of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ingest.client.cluster import ANY_BROKER, Answered, Cluster, monotonic_ms
from ingest.errors import ForebayError, RemoteError, TransportError
from ingest.limits import LIMITS
from ingest.wire.codes import OUTDATED, ErrorCode
from ingest.wire.message import Message
from ingest.wire.messages import BrokerMetadata, PartitionMetadata, TopicMetadata

if TYPE_CHECKING:
    from typing_extensions import Buffer

WAIT_MS_MAX = 1_000
RETRY_MS = 20
FULL_S = 0.002  # before a connection that takes no more is tried again
METADATA_TIMEOUT_MS = 5_000
DEAD_GRACE_MS = 300  # for an answer that is on its way


class Brokers:
    """All brokers of a cluster. Thread: the loop's.

    Args:
        bootstrap: A data directory on this machine, or tcp://host:port,…
    Raises:
        ConfigError: there is no appliance at `bootstrap`.
    """

    def __init__(self, bootstrap: str, loop: asyncio.AbstractEventLoop, *, client_id: str) -> None:
        self._loop = loop
        self._cluster = Cluster(bootstrap, client_id=client_id, all_topics=True)
        self._cluster.on_metadata = self._on_metadata
        self._news: list[asyncio.Future[None]] = []
        self._sending: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)  # by broker
        self._produces = defaultdict[int, asyncio.Semaphore](lambda: asyncio.Semaphore(LIMITS.parked_produces_max))
        self._asked: dict[asyncio.Future[Answered], int] = {}  # which broker
        self._fds: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = False
        self._closed = False
        self._turn()

    # ---- asking ------------------------------------------------------------------------------------------------------

    async def ask(
        self,
        broker_id: int,
        body: Message,
        *,
        timeout_ms: int,
        payload: Sequence[Buffer] = (),
        client_id: str | None = None,
    ) -> tuple[Any, Sequence[Any]]:
        """Ask a broker; return the body of its answer, and the frames that came with it.

        Args:
            client_id: In whose name; None: the gateway's own.

        Raises:
            RemoteError: it refused.
            TransportError: there is no connection, or no answer came: where it was sent the outcome is unknown. One
                that the cluster holds for dead is not waited for: it may stand still with its connections open.
        """
        answered: asyncio.Future[Answered] = self._loop.create_future()

        def on_done(outcome: Answered) -> None:
            if not answered.done():  # else nobody waits any more
                answered.set_result(outcome)

        deadline_ms = monotonic_ms() + timeout_ms
        async with self._sending[broker_id]:  # while a connection is full requests wait in their order
            while True:
                if self._is_dead(broker_id):
                    raise NoConnection(f"broker {broker_id} is not alive")
                sent = self._cluster.send(
                    broker_id, body, on_done, timeout_ms=timeout_ms, payload=payload, client_id=client_id
                )
                self._soon()
                if sent:
                    break
                if not self._cluster.is_connected(broker_id) or monotonic_ms() >= deadline_ms:
                    raise NoConnection(f"no connection to broker {broker_id}")
                await asyncio.sleep(FULL_S)
        self._asked[answered] = broker_id
        try:
            outcome = await answered
        finally:
            del self._asked[answered]
        if outcome.error is not None:
            raise outcome.error
        return outcome.body, outcome.payload

    def produces(self, broker_id: int) -> asyncio.Semaphore:
        """Return what to hold during a Produce: a broker refuses those of one connection beyond a number."""
        return self._produces[broker_id]

    async def ask_any(self, body: Message, *, timeout_ms: int) -> Any:
        """Ask whichever broker is connected, again while there is none.

        Raises:
            RemoteError, TransportError: as `ask`.
        """
        deadline_ms = monotonic_ms() + timeout_ms
        while True:
            try:
                found, _ = await self.ask(ANY_BROKER, body, timeout_ms=max(1, deadline_ms - monotonic_ms()))
                return found
            except NoConnection:
                if monotonic_ms() >= deadline_ms:
                    raise
            await asyncio.sleep(RETRY_MS / 1000)

    # ---- metadata ----------------------------------------------------------------------------------------------------

    async def known(self, timeout_ms: int = METADATA_TIMEOUT_MS) -> bool:
        """Wait until there is metadata at all; False: none came in time."""
        return self._cluster.version >= 0 or await self.newer(timeout_ms)

    async def newer(self, timeout_ms: int) -> bool:
        """Ask for metadata and wait until some comes; False: none came in time."""
        self._cluster.wait_for_newer(monotonic_ms())
        news: asyncio.Future[None] = self._loop.create_future()
        self._news.append(news)
        self._soon()
        try:
            await asyncio.wait_for(news, timeout_ms / 1000)
        except TimeoutError:
            return False
        return True

    @property
    def cluster_id(self) -> str:
        """Return the cluster's id, empty before the first metadata."""
        return self._cluster.cluster_id

    @property
    def version(self) -> int:
        """Return the version of the metadata, -1 before the first."""
        return self._cluster.version

    @property
    def all(self) -> dict[int, BrokerMetadata]:
        """Return the brokers by id, those that are not alive too."""
        return self._cluster.brokers

    @property
    def topics(self) -> dict[str, TopicMetadata]:
        """Return all topics by name."""
        return self._cluster.topics

    def partition(self, topic: str, partition: int) -> tuple[TopicMetadata, PartitionMetadata] | None:
        """Return a partition as metadata knows it."""
        found = self._cluster.topics.get(topic)
        if found is None:
            return None
        if 0 <= partition < len(found.partitions) and found.partitions[partition].partition == partition:
            return found, found.partitions[partition]
        return next(((found, item) for item in found.partitions if item.partition == partition), None)

    def led(self, topic: str, partition: int) -> tuple[TopicMetadata, PartitionMetadata] | ErrorCode:
        """Return a partition that has a leader, or else what to tell of it; newer metadata is asked for then."""
        found = self.partition(topic, partition)
        if found is not None and found[1].leader >= 0:
            return found
        code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if found is None else ErrorCode.LEADER_NOT_AVAILABLE
        self.outdated(code)
        return code

    def outdated(self, code: int) -> None:
        """Take note that a broker's answer proved the metadata held here old."""
        if code in OUTDATED:
            self._cluster.wait_for_newer(monotonic_ms())
            self._soon()

    def local(self, broker_id: int) -> BrokerMetadata | None:
        """Return a broker if it runs on this machine."""
        broker = self._cluster.brokers.get(broker_id)
        return broker if broker is not None and self._cluster.is_local(broker) else None

    def _is_dead(self, broker_id: int) -> bool:
        broker = self._cluster.brokers.get(broker_id)
        return broker is not None and not broker.alive

    def _on_metadata(self) -> None:
        waiting, self._news = self._news, []
        for news in waiting:
            if not news.done():
                news.set_result(None)
        for answered, broker_id in self._asked.items():
            if self._is_dead(broker_id):
                self._loop.call_later(DEAD_GRACE_MS / 1000, _give_up, answered, broker_id)

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def _soon(self) -> None:
        """Poll at the end of this turn of the loop: a send may have swallowed the signal of an answer."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._due = False
        if self._closed:
            return
        cluster = self._cluster
        try:
            cluster.poll()
        except ForebayError:  # no appliance there now
            wait_ms = WAIT_MS_MAX
        else:
            wait_ms = min(WAIT_MS_MAX, max(1, cluster.deadline_ms() - monotonic_ms()))
        for fd in cluster.fds():
            if fd not in self._fds:
                self._fds.add(fd)
                self._loop.add_reader(fd, self._turn)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(wait_ms / 1000, self._turn)
        if cluster.unsure:
            self._soon()

    def close(self) -> None:
        """Close the connections; what is under way is not answered."""
        self._closed = True
        for fd in self._fds:
            self._loop.remove_reader(fd)
        if self._timer is not None:
            self._timer.cancel()
        self._cluster.close()


def _give_up(answered: asyncio.Future[Answered], broker_id: int) -> None:
    if not answered.done():
        answered.set_result(Answered(None, (), TransportError(f"broker {broker_id} is not alive; outcome unknown")))


class NoConnection(TransportError):
    """Nothing was sent."""


def leader_code(error: Exception) -> int:
    """Return what to tell of a leader that refused, or could not be asked."""
    return error.code if isinstance(error, RemoteError) else int(ErrorCode.NOT_LEADER_OR_FOLLOWER)
