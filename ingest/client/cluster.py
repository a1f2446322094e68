"""A client's view of the cluster: connections by broker, requests under way, metadata kept fresh by a long poll.

Thread: one at a time; the owner (producer, consumer, admin) holds its lock around every call.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import select
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import zmq

from ingest.client.connection import Connection, nearest_endpoint
from ingest.client.wake_fd import WakeFd
from ingest.discovery import bootstrap_endpoints
from ingest.errors import ForebayError, ProtocolError, RequestTimedOut, TransportError, UsageError
from ingest.limits import LIMITS
from ingest.machine import machine_id
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import api_key_of, decode_body, encode_request
from ingest.wire.message import Message
from ingest.wire.messages import ApiKey, BrokerMetadata, MetadataRequest, MetadataResponse, TopicMetadata

if TYPE_CHECKING:
    from typing_extensions import Buffer

METADATA_WAIT_MS = 30_000
METADATA_GRACE_MS = 5_000
RETRY_MS = 20  # between two tries to learn metadata: a broker restarts in 100 to 200 ms
BOOTSTRAP_TIMEOUT_MS = 500
CREATION_TIMEOUT_MS = 1_000
OLDER_MS = 10_000  # a broker may be behind another; if all are for so long, the store was set back, to a backup say
SILENCE_MS = 3_000
SLOW_MS = 1_000  # without an answer for so long: perhaps the broker stands still, and others know who took its place
ANY_BROKER = -1
_MAY_WAIT = (ApiKey.METADATA, ApiKey.FETCH, ApiKey.JOIN_GROUP, ApiKey.SYNC_GROUP, ApiKey.HEARTBEAT)
NAMES_CHARS_MAX = 32_768  # of topics in one request, whose header may take 64 KiB


class Answered(NamedTuple):
    """The outcome of one request: a body with its payload frames, or an error."""

    body: Any
    payload: Sequence[Any]
    error: ForebayError | None


log = logging.getLogger("forebay.client")

OnDone = Callable[[Answered], None]


class _UnderWay:
    __slots__ = ("api_key", "connection", "deadline_ms", "lost", "on_done", "sent_ms")

    def __init__(self, api_key: int, connection: Connection, sent_ms: int, deadline_ms: int, on_done: OnDone) -> None:
        self.sent_ms = sent_ms
        self.api_key = api_key
        self.connection = connection
        self.lost = connection.lost
        self.deadline_ms = deadline_ms
        self.on_done = on_done


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _fitting(names: list[str]) -> list[str]:
    """Return as many of the names as one request takes, one at least."""
    room = NAMES_CHARS_MAX
    for count, name in enumerate(names):
        room -= len(name)
        if room < 0 and count:
            return names[:count]
    return names


def _release(pid: int, connections: dict[str, Connection], context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """Close sockets, then their context; in a forked child they are the parent's and left alone."""
    if os.getpid() != pid:
        return
    for connection in connections.values():
        connection.close()
    connections.clear()
    context.term()


class Cluster:
    """Requests to brokers by id, answered through callbacks from within `poll`.

    Attributes:
        version: The version of the metadata held, -1 before the first.
        brokers: By id, those alive.
        topics: By name, those of `interest` that exist.
        missing: By name, those that don't, with the code that says so: any but UNKNOWN_TOPIC_OR_PARTITION tells why it
            can't be created either.

    Raises:
        ConfigError, ForeignDirectory: see `bootstrap_endpoints`.
    """

    def __init__(self, bootstrap: str, *, client_id: str = "", all_topics: bool = False) -> None:
        bootstrap_endpoints(bootstrap)  # what can't be reached at all is said at once
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 4096)
        self._connections: dict[str, Connection] = {}
        # A client that is dropped without close(): its sockets go first, or the context would wait for them for ever.
        self._release = weakref.finalize(self, _release, os.getpid(), self._connections, self._context)
        self._by_broker: dict[int, Connection] = {}
        self._under_way: dict[int, _UnderWay] = {}
        self._ids = itertools.count(1)
        self._machine = machine_id()
        self._all_topics = all_topics
        self._interest: set[str] = set()
        self._auto_create: set[str] = set()
        self._metadata_under_way = False
        self._metadata_generation = 0
        self._metadata_retry_ms = 0
        self._known_version = -1
        self.version = -1
        self.cluster_id = ""
        self.brokers: dict[int, BrokerMetadata] = {}
        self.topics: dict[str, TopicMetadata] = {}
        self.missing: dict[str, int] = {}
        self.on_metadata: Callable[[], None] | None = None
        self._fds: dict[int, Connection] = {}
        self._epoll = select.epoll()
        self._older_since_ms: int | None = None
        self._silent_since_ms: int | None = None
        self._silence_told = False
        self._unsure: dict[Connection, None] = {}  # sent to since they were polled: that can swallow an answer's signal
        self._next_deadline_ms = 0
        self._silent: dict[Connection, int] = {}  # when they were last found not to answer
        self._look_ms = 0

    @property
    def closed(self) -> bool:
        """Whether its sockets are: by `close`, or because the interpreter ends."""
        return not self._release.alive

    @property
    def unsure(self) -> bool:
        """Whether something was sent since `poll`: that may have swallowed the signal of an answer."""
        return bool(self._unsure)

    # ---- requests ----------------------------------------------------------------------------------------------------

    def send(
        self,
        broker_id: int,
        body: Message,
        on_done: OnDone | None,
        *,
        timeout_ms: int,
        payload: Sequence[Buffer] = (),
        now_ms: int | None = None,
        client_id: str | None = None,
    ) -> bool:
        """Send a request; `on_done` is called from a later `poll`. False: nothing was sent, there is no connection now.

        Args:
            broker_id: ANY_BROKER takes one that is connected.
            client_id: In whose name it is; None: this cluster's.
            on_done: None: no answer comes (acks 0).
        Raises:
            UsageError: the request names more than a broker takes at once.
        """
        connection = self._connection(broker_id)
        if connection is None:
            return False
        number = next(self._ids)
        header = encode_request(body, number, timeout_ms, self._client_id if client_id is None else client_id)
        if len(header) > LIMITS.request_header_bytes_max:
            raise UsageError(f"a {type(body).__name__} of {len(header)} bytes; ask for fewer things at once")
        self._unsure[connection] = None
        if not connection.send(header, payload):
            return False
        if on_done is not None:
            sent_ms = monotonic_ms() if now_ms is None else now_ms
            deadline_ms = sent_ms + timeout_ms
            self._under_way[number] = _UnderWay(api_key_of(body), connection, sent_ms, deadline_ms, on_done)
            self._next_deadline_ms = min(self._next_deadline_ms, deadline_ms)
        return True

    def is_connected(self, broker_id: int) -> bool:
        """Tell whether there was a connection to a broker when it was polled last: if `send` fails, it is full."""
        connection = self._by_broker.get(broker_id)
        return connection is not None and connection.connected

    def call(self, broker_id: int, body: Message, *, timeout_ms: int) -> Any:
        """Send a request and wait for its body, asking again while there is no connection.

        Raises:
            RemoteError: the broker refused.
            RequestTimedOut: no answer in time; the outcome is unknown.
            TransportError: the broker went away meanwhile; the outcome is unknown.
        """
        deadline_ms = monotonic_ms() + timeout_ms
        outcome: list[Answered] = []
        sent = False
        while not outcome:
            left_ms = deadline_ms - monotonic_ms()
            if left_ms <= 0 and not sent:
                raise RequestTimedOut(f"no answer to {type(body).__name__} within {timeout_ms} ms")
            if not sent:
                sent = self.send(broker_id, body, outcome.append, timeout_ms=left_ms)
            self.poll()
            if not outcome:
                self.wait(min(left_ms, 50 if sent else 5))  # overdue: `poll` gives up on it
        if outcome[0].error is not None:
            raise outcome[0].error
        return outcome[0].body

    def poll(self, now_ms: int | None = None) -> None:
        """Take all answers that have come and call their `on_done`; give up on what is overdue or lost."""
        if now_ms is None:
            now_ms = monotonic_ms()
        self._check_open()
        for connection, watch in self._to_poll():
            self._check_open()
            lost = connection.lost
            for response in connection.poll(watch=watch):
                waiting = self._under_way.pop(response.correlation_id, None)
                self._silent.pop(connection, None)
                if waiting is None:
                    continue
                try:
                    body = decode_body(response, waiting.api_key)
                except ForebayError as error:
                    waiting.on_done(Answered(None, (), error))
                    continue
                waiting.on_done(Answered(body, response.payload, None))
            if connection.lost != lost:
                self._give_up(lambda waiting, gone=connection: waiting.connection is gone and waiting.lost != gone.lost)  # type: ignore[misc]
        if now_ms >= self._look_ms:
            self._look_ms = now_ms + SLOW_MS // 2
            self._look_for_silence(now_ms)
        if now_ms >= self._next_deadline_ms:
            self._give_up(lambda waiting: waiting.deadline_ms <= now_ms)
            self._next_deadline_ms = min(
                (waiting.deadline_ms for waiting in self._under_way.values()), default=now_ms + 60_000
            )
        self._keep_metadata(now_ms)

    def _look_for_silence(self, now_ms: int) -> None:
        """Ask others who leads now, where a broker does not answer a request that should not wait."""
        for waiting in self._under_way.values():
            connection = waiting.connection
            if (
                now_ms - waiting.sent_ms >= SLOW_MS
                and waiting.api_key not in _MAY_WAIT
                and now_ms - self._silent.get(connection, -SLOW_MS) >= SLOW_MS
            ):
                self._silent[connection] = now_ms
                self.refresh()

    def _to_poll(self) -> list[tuple[Connection, bool]]:
        """Return the connections that may have something, and whether it may be news of their broker."""
        unsure, self._unsure = self._unsure, {}
        readable = {self._fds[fd] for fd, _ in self._epoll.poll(0) if fd in self._fds}
        return [(connection, True) for connection in readable] + [
            (connection, False) for connection in unsure if connection not in readable
        ]

    def _give_up(self, hopeless: Callable[[_UnderWay], bool]) -> None:
        for number in [number for number, waiting in self._under_way.items() if hopeless(waiting)]:
            waiting = self._under_way.pop(number, None)
            if waiting is None:
                continue
            error: TransportError
            if waiting.lost != waiting.connection.lost:
                error = TransportError(f"connection to {waiting.connection.endpoint} lost; the outcome is unknown")
            else:
                error = RequestTimedOut("no answer in time; the outcome is unknown")
                self._silent.setdefault(waiting.connection, monotonic_ms())
            waiting.on_done(Answered(None, (), error))

    # ---- waiting -----------------------------------------------------------------------------------------------------

    def fds(self) -> list[int]:
        """Descriptors to wait on; after one is readable, and after each send, call `poll`."""
        return list(self._fds)

    def wait(self, timeout_ms: int) -> bool:
        """Sleep until an answer may have come or the time is over; `poll` found nothing before. Thread: any."""
        self._check_open()
        return bool(self._epoll.poll(max(0, timeout_ms) / 1000))

    def _check_open(self) -> None:
        """Say so if somebody closed it when told of an answer, or before."""
        if self._epoll.closed:
            raise UsageError("it is closed")

    def watch(self, wake: WakeFd) -> None:
        """Have `wait` end when this is set, too: once, also where `poll` came in between and nobody has looked yet."""
        self._epoll.register(wake.fd, select.EPOLLIN | select.EPOLLET)

    def deadline_ms(self) -> int:
        """Return when `poll` is due at the latest."""
        due = self._next_deadline_ms
        if not self._metadata_under_way:
            due = min(due, self._metadata_retry_ms)
        return due

    # ---- metadata ----------------------------------------------------------------------------------------------------

    def want(self, topics: Iterable[str], *, auto_create: bool = False) -> None:
        """Keep metadata of these topics as well from now on."""
        new = set(topics) - self._interest
        if not new:
            return
        self._interest |= new
        if auto_create:
            self._auto_create |= new
        self.refresh()

    def want_all(self) -> None:
        """Keep metadata of all topics from now on."""
        if not self._all_topics:
            self._all_topics = True
            self.refresh()

    def refresh(self) -> None:
        """Ask for metadata at the next `poll`, without waiting for a newer version."""
        self._known_version = -1
        self._metadata_under_way = False
        self._metadata_generation += 1
        self._metadata_retry_ms = 0

    def wait_for_newer(self, now_ms: int) -> None:
        """Ask again soon: somebody's answer proved the metadata held here old."""
        if self._known_version != -1:
            self.refresh()
            self._metadata_retry_ms = now_ms + RETRY_MS

    def _keep_metadata(self, now_ms: int) -> None:
        if self._metadata_under_way or now_ms < self._metadata_retry_ms or self.closed:
            return
        absent = self._auto_create - self.topics.keys()
        create = bool(absent)
        names = None if self._all_topics else sorted(self._interest)
        partial = False
        if names is not None and sum(map(len, names)) > NAMES_CHARS_MAX:  # then all topics, or some to be created
            partial = create
            names = _fitting(sorted(absent)) if create else None
        wait_ms = METADATA_WAIT_MS if self._known_version >= 0 and not partial else 0
        body = MetadataRequest(names, self._known_version, create, wait_ms)
        timeout_ms = wait_ms + (
            METADATA_GRACE_MS if wait_ms else CREATION_TIMEOUT_MS if create else BOOTSTRAP_TIMEOUT_MS
        )
        generation = self._metadata_generation

        def on_done(answered: Answered) -> None:
            if generation == self._metadata_generation:
                self._take_metadata(answered, partial)

        if self.send(ANY_BROKER, body, on_done, timeout_ms=timeout_ms, now_ms=now_ms):
            self._metadata_under_way = True
            self._silent_since_ms = None
        else:
            self._metadata_retry_ms = now_ms + RETRY_MS
            self._tell_silence(now_ms)

    def _tell_silence(self, now_ms: int) -> None:
        """Say once that nobody can be reached: a caller who waits for records would think that there are none."""
        if self._silent_since_ms is None:
            self._silent_since_ms, self._silence_told = now_ms, False
        elif not self._silence_told and now_ms - self._silent_since_ms >= SILENCE_MS:
            self._silence_told = True
            log.warning("no broker of %s can be reached: does it run? see `forebay status`; trying on", self._bootstrap)

    def _is_set_back(self, now_ms: int) -> bool:
        """Tell whether nobody has known for long what we know."""
        if self._older_since_ms is None:
            self._older_since_ms = now_ms
        return now_ms - self._older_since_ms >= OLDER_MS

    def _take_metadata(self, answered: Answered, partial: bool) -> None:
        """Take an answer; a partial one tells of some topics and leaves the others as they were known."""
        self._metadata_under_way = False
        if answered.error is not None:
            self._metadata_retry_ms = monotonic_ms() + RETRY_MS
            return
        body: MetadataResponse = answered.body
        if self.cluster_id and body.cluster_id != self.cluster_id:
            raise ProtocolError(
                f"{self._bootstrap} is now cluster {body.cluster_id}; this client knows {self.cluster_id}"
            )
        self.cluster_id = body.cluster_id
        self._known_version = -1 if partial else body.version
        if body.version < self.version and not self._is_set_back(monotonic_ms()):
            return  # another broker, that has not heard yet what we know
        self._older_since_ms = None
        self.version = body.version
        self.brokers = {broker.broker_id: broker for broker in body.brokers}
        self._by_broker.clear()
        found = {topic.name: topic for topic in body.topics if topic.error_code == 0}
        if not self._all_topics:
            found = {name: topic for name, topic in found.items() if name in self._interest}
        self.topics = {**self.topics, **found} if partial else found
        codes = {topic.name: topic.error_code for topic in body.topics}
        absent = set() if self._all_topics else self._interest - self.topics.keys()
        self.missing = {name: codes.get(name, int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)) for name in absent}
        if self._auto_create & absent:
            self._known_version = -1
            self._metadata_retry_ms = monotonic_ms() + RETRY_MS
        if self.on_metadata is not None:
            self.on_metadata()

    # ---- connections -------------------------------------------------------------------------------------------------

    def endpoint_of(self, broker: BrokerMetadata) -> str | None:
        """Return the endpoint to reach a broker by, None if there is none for us."""
        return nearest_endpoint(broker.endpoints, broker.machine, self._machine)

    def is_local(self, broker: BrokerMetadata) -> bool:
        """Tell whether the broker runs on this machine."""
        return bool(broker.machine == self._machine)

    def _connection(self, broker_id: int) -> Connection | None:
        if broker_id != ANY_BROKER:
            connection = self._by_broker.get(broker_id)
            if (
                connection is None
                and (broker := self.brokers.get(broker_id))
                and (endpoint := self.endpoint_of(broker))
            ):
                connection = self._by_broker[broker_id] = self._open(endpoint)
            return connection
        known = [self.endpoint_of(broker) for broker in self.brokers.values() if broker.alive]
        endpoints = [endpoint for endpoint in known if endpoint] or bootstrap_endpoints(self._bootstrap)
        for endpoint in endpoints:
            self._open(endpoint)
        connected = [self._connections[endpoint] for endpoint in endpoints if self._connections[endpoint].connected]
        talking = [connection for connection in connected if connection not in self._silent]
        return random.choice(talking or connected) if connected else None

    def _open(self, endpoint: str) -> Connection:
        connection = self._connections.get(endpoint)
        if connection is None:
            connection = self._connections[endpoint] = Connection(self._context, endpoint)
            self._unsure[connection] = None
            for fd in connection.fds:
                self._fds[fd] = connection
                self._epoll.register(fd, select.EPOLLIN)
        return connection

    def close(self) -> None:
        """Close all sockets; what is under way is not answered."""
        self._under_way.clear()
        self._release()
        self._epoll.close()
