"""The border to kazoo: one session, requests with a time limit, and no exception of kazoo's beyond this file.

What kazoo says of its state is used for no decision that matters: during an outage it stays SUSPENDED for ever, after a
stop it says CONNECTED first, and a request made while it reconnects is sent later, whenever that is. What is used: the
session's id, the session time that the servers granted, and answers.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from brokerd.control.zookeeper.tree import Check, Create, Delete, Operation, SetData
from ingest.errors import ConfigError, StorageError

log = structlog.get_logger()

# the supervisor kills a controller that makes no progress for 6 s: together they are less
ANSWER_MS_MAX = 4000
CONNECT_MS_MAX = 1500
IDLE_MS = 250
CLOSE_SECONDS = 2
RECONNECT_SECONDS = 0.1
RECONNECT_SECONDS_MAX = 1.0
# kazoo writes a byte per request into a pair of blocking sockets, which holds some 270: more would block its caller
WINDOW = 64
_BEGIN_MS = 1000  # kazoo's state says CLOSED until its thread runs


class Unreachable(StorageError):
    """No answer: whether the request took effect is unknown."""


class Refused(Exception):
    """A transaction that changed nothing, because of its operation `index`. Ends at the store's border."""

    def __init__(self, index: int, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.index = index


@dataclass(frozen=True, slots=True)
class Node:
    """What was read of a node. `owner` is the session of an ephemeral one, else 0."""

    value: bytes
    version: int
    owner: int
    children: int


@dataclass(frozen=True, slots=True)
class Grant:
    """A session the servers gave us, and how long they keep it without hearing of us."""

    session_id: int
    session_ms: int


def now_ms() -> int:
    """Return a clock that never goes back and counts the time this machine slept."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Session:
    """A connection that is made again for ever, and its session, which may end and be followed by another.

    Thread: any; `on_change` is called in kazoo's threads.

    Args:
        connect: host:port,…/chroot as in Kafka's zookeeper.connect.
        credentials: "user:password" for digest authentication, or nothing.
    """

    def __init__(
        self, connect: str, *, session_timeout_ms: int, credentials: str, on_change: Callable[[], None]
    ) -> None:
        hosts, _, chroot = connect.partition("/")
        if not hosts or "//" in connect or connect.endswith("/"):
            raise ConfigError(f"zookeeper.connect={connect!r}: expected host:port,host:port/folder")
        if credentials and not all(credentials.partition(":")):
            raise ConfigError("zookeeper credentials: expected user:password")
        self.where = f"zookeeper {connect}"
        self.chroot = f"/{chroot}" if chroot else ""
        self._hosts = hosts
        self._session_timeout_ms = session_timeout_ms
        self._credentials = credentials
        self._on_change = on_change
        self._mutex = threading.Lock()
        self._client: Any = None
        self._live = threading.Event()
        self._grant: Grant | None = None
        self._begun_ms = 0

    def open(self) -> None:
        """Begin to connect, unless that goes on already; does not wait. `close` ends it.

        Raises:
            ConfigError: kazoo is not installed, or the hosts can't be parsed.
        """
        with self._mutex:
            if self._client is None:
                self._begin()

    def reopen(self) -> None:
        """Begin anew if kazoo gave up, which it does after an error of its own or a refused password."""
        with self._mutex:
            if self._client is not None and now_ms() >= self._begun_ms + _BEGIN_MS:
                from kazoo.protocol.states import KeeperState

                if self._client.client_state in (KeeperState.CLOSED, KeeperState.AUTH_FAILED):
                    self._end(self._client)
                    self._begin()

    def grant(self) -> Grant | None:
        """Return the session that was granted last; the servers may have ended it since."""
        return self._grant

    def client(self, wait_ms: int, idle: Callable[[], None]) -> Any:
        """Return a client that has a connection, waiting so long for one.

        Raises:
            Unreachable: there is none; nothing was sent.
        """
        deadline_ms = now_ms() + wait_ms
        while not self._live.is_set():
            left_ms = deadline_ms - now_ms()
            if self._client is None or left_ms <= 0:
                raise Unreachable(f"{self.where}: no server that belongs to a quorum answers", path=self.where)
            self._live.wait(min(left_ms, IDLE_MS) / 1000)
            idle()
        client = self._client
        if client is None:
            raise Unreachable(f"{self.where}: closed", path=self.where)
        return client

    def close(self) -> None:
        """End the session, and with it its nodes; without a connection they stay until the session times out."""
        with self._mutex:
            client, self._client, self._grant = self._client, None, None
            self._live = threading.Event()
            if client is not None:
                self._end(client)

    def _begin(self) -> None:
        try:
            from kazoo.client import KazooClient
            from kazoo.security import make_digest_acl
        except ImportError:
            raise ConfigError(
                "zookeeper.connect needs the Python package kazoo: pip install 'forebay[zookeeper]'"
            ) from None
        user, _, password = self._credentials.partition(":")
        logger = logging.getLogger("forebay.zookeeper")
        logger.setLevel(logging.ERROR)  # it warns at each attempt to connect; `_told` says what matters
        try:
            client = KazooClient(
                self._hosts,
                timeout=self._session_timeout_ms / 1000,
                connection_retry={
                    "max_tries": -1,
                    "delay": RECONNECT_SECONDS,
                    "max_delay": RECONNECT_SECONDS_MAX,
                },
                auth_data=[("digest", self._credentials)] if user else None,
                default_acl=[make_digest_acl(user, password, all=True)] if user else None,
                logger=logger,
            )
        except ValueError as error:
            raise ConfigError(f"{self.where}: {error}") from None
        self._note_grants(client)
        client.add_listener(self._told)
        self._client = client
        self._begun_ms = now_ms()
        self._live = client.start_async()

    @staticmethod
    def _end(client: Any) -> None:
        def end() -> None:
            from kazoo.exceptions import KazooException

            with contextlib.suppress(KazooException):
                client.stop()
                client.close()

        # a daemon: its wait for a server that hangs must not hold up the end of this process
        thread = threading.Thread(target=end, name="zookeeper-close", daemon=True)
        thread.start()
        thread.join(CLOSE_SECONDS)

    def _note_grants(self, client: Any) -> None:
        """Note the session time the servers grant, which may be less than was asked for; kazoo keeps it to itself."""
        connection = client._connection
        connect = connection._connect

        def connect_and_note(*arguments: Any) -> tuple[float, float]:
            read_ms, connect_ms = connect(*arguments)
            self._grant = Grant(client._session_id, int(read_ms * 3 / 2))  # kazoo reads for 2/3 of it
            self._on_change()
            return read_ms, connect_ms

        connection._connect = connect_and_note

    def _told(self, state: str) -> None:
        if state != "CONNECTED":
            log.warning("no connection to zookeeper", where=self.where, state=state)
        else:
            log.info("connected to zookeeper", where=self.where)
        self._on_change()


class Requests:
    """Ask the servers, and wait a limited time for the answer. Thread: one at a time.

    Args:
        idle: Called four times a second while waiting; what it raises ends the wait.
        connect_wait_ms: How long a request waits for a connection before it is given up unsent.
    """

    def __init__(self, session: Session, *, idle: Callable[[], None] = lambda: None, connect_wait_ms: int = 0) -> None:
        self._session = session
        self._idle = idle
        self._connect_wait_ms = connect_wait_ms

    def get(self, path: str, watch: Callable[[object], None] | None = None) -> Node | None:
        """Return a node, None if it is not there. The watch is called once when that changes, or the connection ends.

        Raises:
            StorageError: there is no answer, or it is not permitted.
        """
        if watch is not None:  # the watch of a get is not set on a node that is not there
            self._result(self._send(lambda client, full: client.exists_async(full, watch=watch), path), path)
        return self._node(self._send(lambda client, full: client.get_async(full), path), path)

    def get_all(self, paths: Iterable[str]) -> Iterator[Node | None]:
        """Yield many nodes in order, some requests ahead."""
        waiting: deque[tuple[Any, str]] = deque()
        for path in paths:
            if len(waiting) == WINDOW:
                yield self._node(*waiting.popleft())
            waiting.append((self._send(lambda client, full: client.get_async(full), path), path))
        while waiting:
            yield self._node(*waiting.popleft())

    def children(self, path: str) -> list[str] | None:
        """Return the names of a node's children, None if it is not there."""
        answer = self._send(lambda client, full: client.get_children_async(full or "/"), path)
        names: list[str] | None = self._result(answer, path)
        return names

    def sync(self) -> None:
        """Have the leader confirm this session, and our server catch up with it: later reads see what was committed."""
        self._result(self._send(lambda client, full: client.sync_async(full or "/"), ""), "")

    def transact(self, operations: Sequence[Operation]) -> None:
        """Carry out all operations or none.

        Raises:
            Refused: nothing was changed.
            StorageError: the outcome is unknown.
        """
        from kazoo.exceptions import NoAuthError, RolledBackError

        def send(client: Any, chroot: str) -> Any:
            transaction = client.transaction()
            for operation in operations:
                match operation:
                    case Create(path, value, ephemeral):
                        transaction.create(chroot + path, value, ephemeral=ephemeral)
                    case SetData(path, value, version):
                        transaction.set_data(chroot + path, value, version)
                    case Delete(path, version):
                        transaction.delete(chroot + path, version)
                    case Check(path, version):
                        transaction.check(chroot + path, version)
            return transaction.commit_async()

        for index, result in enumerate(self._result(self._send(send, ""), operations[0].path)):
            path = operations[index].path
            if isinstance(result, NoAuthError):
                raise self._not_permitted(path)
            if isinstance(result, Exception) and not isinstance(result, RolledBackError):
                raise Refused(index, path, _REASONS.get(type(result).__name__, repr(result)))

    def make_chroot(self) -> None:
        """Create the folder of this cluster, and those above it, which are everyone's."""
        from kazoo.security import OPEN_ACL_UNSAFE

        names = self._session.chroot.split("/")[1:]
        for count in range(1, len(names) + 1):
            path = "/" + "/".join(names[:count])
            acl = OPEN_ACL_UNSAFE if count < len(names) else None

            def send(client: Any, _: str, path: str = path, acl: Any = acl) -> Any:
                return client.create_async(path, b"", acl=acl)

            self._result(self._send(send, ""), path, may_exist=True)

    def _send(self, call: Callable[[Any, str], Any], path: str) -> Any:
        client = self._session.client(self._connect_wait_ms, self._idle)
        return call(client, self._session.chroot + path)

    def _node(self, answer: Any, path: str) -> Node | None:
        result = self._result(answer, path)
        if result is None:
            return None
        value, stat = result
        return Node(value, stat.version, stat.ephemeralOwner, stat.numChildren)

    def _result(self, answer: Any, path: str, *, may_exist: bool = False) -> Any:
        from kazoo.exceptions import AuthFailedError, NoAuthError, NodeExistsError, NoNodeError

        deadline_ms = now_ms() + ANSWER_MS_MAX
        while not answer.wait(IDLE_MS / 1000):
            self._idle()
            if now_ms() >= deadline_ms:
                raise Unreachable(
                    f"{self._session.where}: no answer about {path or '/'} within {ANSWER_MS_MAX} ms; "
                    "whether it took effect is unknown",
                    path=self._session.where,
                )
        error = answer.exception
        if isinstance(error, NoNodeError) or (may_exist and isinstance(error, NodeExistsError)):
            return None
        if isinstance(error, NoAuthError | AuthFailedError):
            raise self._not_permitted(path)
        if error is not None:
            raise Unreachable(
                f"{self._session.where}: no answer about {path or '/'}: {type(error).__name__}; "
                "whether it took effect is unknown",
                path=self._session.where,
            )
        return answer.value

    def _not_permitted(self, path: str) -> StorageError:
        where = self._session.where
        return StorageError(
            f"{where}: {path or '/'}: not permitted; use the user and password it was made with", path=where
        )


_REASONS = {
    "NoNodeError": "it, or the node above it, is not there",
    "NodeExistsError": "it is there already",
    "BadVersionError": "it was changed since",
    "NotEmptyError": "it has nodes below it",
}
