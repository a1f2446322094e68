"""The metadata store of several machines: the records as nodes of a ZooKeeper ensemble, election by an ephemeral node.

What makes it safe is in the servers: each transaction of a controller checks the version of /controller_epoch, which
every winner raises in the transaction that makes it the winner. So a controller that was stopped, or cut off, for any
time commits nothing once another has won. A deadline of our own (`Lease`) ends it sooner: past it, nothing is sent.
What kazoo says of its connection, its Lock and its Election are used for neither.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterable, Sequence

import msgspec
import structlog

from brokerd.control.config import SESSION_TIMEOUT_MS
from brokerd.control.image import ClusterImage
from brokerd.control.records import Change
from brokerd.control.zookeeper.cluster import check_cluster
from brokerd.control.zookeeper.presence import Presence
from brokerd.control.zookeeper.records import Records
from brokerd.control.zookeeper.reign import Reign, epoch_node, epoch_of, fenced
from brokerd.control.zookeeper.session import (
    CONNECT_MS_MAX,
    Node,
    Refused,
    Requests,
    Session,
    Unreachable,
    now_ms,
)
from brokerd.control.zookeeper.tree import (
    CONTROLLER,
    CONTROLLER_EPOCH,
    ControllerNode,
    Create,
    Delete,
    Operation,
    SetData,
)
from ingest.errors import StorageError

log = structlog.get_logger()

REQUEST_BYTES_MAX = 512 << 10  # half of ZooKeeper's jute.maxbuffer; some 2,000 partitions
BEAT_MS = 250  # twice as often as the store's contract asks; a watch that got lost is made up for by then
KEEP_MS_MAX = 1000
PATIENCE_MS = 1000  # making a connection takes a while


class _Stopped(Exception):
    """The campaign's stop_fd is readable."""


class ZookeeperStore:
    """The records of one cluster in one folder of an ensemble.

    Thread: the controller's; register_broker any. A thread of its own keeps the lease and the
    presence of brokers.

    Args:
        connect: host:port,host:port/folder, as in Kafka's zookeeper.connect; a folder a cluster.
        endpoint: Where brokers reach this process once it is the controller.
        machine: Of a lock that the caller holds: what its last holder left, the office too, is that of one who is dead;
            nobody waits until its session times out.
        credentials: "user:password": nodes are this user's alone (digest). Without, anyone who reaches the servers may
            read and change them.
        wait_for: Called when a campaign can't go on for want of an answer, with the reason, and with "" when it can.
    """

    def __init__(
        self,
        connect: str,
        *,
        cluster_id: str,
        endpoint: str,
        machine: str,
        credentials: str = "",
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
        wait_for: Callable[[str], None] = lambda _: None,
        request_bytes_max: int = REQUEST_BYTES_MAX,
    ) -> None:
        self._cluster_id = cluster_id
        self._endpoint = endpoint
        self._machine = machine
        self._wait_for = wait_for
        self._request_bytes_max = request_bytes_max
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._session = Session(
            connect, session_timeout_ms=session_timeout_ms, credentials=credentials, on_change=self._on_connection
        )
        self._where = self._session.where
        self._presence = Presence(self._session, machine)
        self._ask = Requests(self._session)
        self._patient = Requests(self._session, connect_wait_ms=CONNECT_MS_MAX)
        self._known = False  # whether the folder was found to be this cluster's
        self._reign: Reign | None = None
        self._records: Records | None = None
        self._office = threading.Lock()  # held while /controller is won or left
        self._leaving = False
        self._seen_endpoint = ""
        self._keeper: threading.Thread | None = None
        self._closing = threading.Event()
        self._hurry = threading.Event()  # the keeper has something to do

    # ---- election ----------------------------------------------------------------------------------------------------

    def campaign(self, stop_fd: int, beat: Callable[[], None]) -> int | None:
        """Wait until /controller is ours. See `MetadataStore.campaign`; without a quorum it goes on waiting."""
        with self._office:
            self._reign = self._records = None
            self._leaving = False
        self._start()
        poller = select.poll()
        poller.register(stop_fd, select.POLLIN)

        def idle() -> None:
            beat()
            if poller.poll(0):
                raise _Stopped

        requests = Requests(self._session, idle=idle)
        poller_of_both = select.poll()
        poller_of_both.register(stop_fd, select.POLLIN)
        poller_of_both.register(self._wake_fd, select.POLLIN)
        told, trying_since_ms = "", now_ms()
        try:
            while True:
                idle()
                self._drain()
                reason, reign = "", None
                try:
                    reign = self._win(requests)
                    trying_since_ms = now_ms()
                except Unreachable as error:
                    if now_ms() - trying_since_ms >= PATIENCE_MS:
                        reason = str(error)
                if reason != told:
                    told = reason
                    self._wait_for(reason)
                    if reason:
                        log.warning("waiting for zookeeper", reason=reason)
                if reign is not None:
                    self._records = Records(self._session, reign, self._request_bytes_max)
                    self._reign = reign
                    return reign.epoch
                poller_of_both.poll(BEAT_MS)
        except _Stopped:
            self.resign()  # it may have won without hearing of it
            return None
        except BaseException:
            self.resign()
            raise

    def _win(self, requests: Requests) -> Reign | None:
        """Try once; None if another is the controller."""
        self._enter(requests)
        grant = self._session.grant()
        controller = requests.get(CONTROLLER, self._watch)
        reigning = None if controller is None else self._decode(controller)
        self._seen_endpoint = reigning.endpoint if reigning else ""
        if grant is None or (reigning is not None and reigning.machine != self._machine):
            return None
        node = epoch_node(self._where, requests)
        epoch = epoch_of(self._where, node) + 1
        mine = ControllerNode(self._endpoint, self._machine, os.getpid(), epoch)
        operations: list[Operation] = [SetData(CONTROLLER_EPOCH, b"%d" % epoch, node.version)]
        if controller is not None:  # won before without hearing of it, gave up since, or left by one that was killed
            operations.append(Delete(CONTROLLER, controller.version))
        operations.append(Create(CONTROLLER, msgspec.json.encode(mine), ephemeral=True))
        sent_ms = now_ms()
        try:
            requests.transact(operations)
        except Refused:
            self._wake()  # another was quicker, or has just gone: look again at once
            return None
        reign = Reign(self._session, epoch=epoch, version=node.version + 1, grant=grant, sent_ms=sent_ms)
        self._seen_endpoint = self._endpoint
        return reign if self._session.grant() == grant else None

    def _decode(self, node: Node) -> ControllerNode:
        try:
            return msgspec.json.decode(node.value, type=ControllerNode)
        except msgspec.DecodeError as error:
            raise StorageError(f"{self._where}{CONTROLLER} can't be read: {error}", path=self._where) from None

    def _enter(self, requests: Requests) -> None:
        """Make sure once that the folder is this cluster's."""
        if self._known:
            return
        requests.sync()  # a server that lags must not show a cluster of ours as an empty folder
        check_cluster(self._where, requests, self._cluster_id)
        self._known = True

    def resign(self) -> None:
        """Remove /controller, or have the keeper do so as soon as it can. Without brokers here the session ends too."""
        self._reign = self._records = None
        if not self._presence.wanted:
            self.close()
            return
        self._leaving = True
        with contextlib.suppress(StorageError):
            self._leave()

    def close(self) -> None:
        """End the session: /controller and the presence of the brokers registered here go with it."""
        self._reign = self._records = None
        self._closing.set()
        self._hurry.set()
        self._session.close()
        self._presence.forget()
        keeper, self._keeper = self._keeper, None
        if keeper is not None and keeper is not threading.current_thread():
            keeper.join(KEEP_MS_MAX / 1000)

    def _leave(self) -> None:
        """Remove /controller if it is ours, also one that a transaction given up long ago makes only now."""
        with self._office:
            if not self._leaving:
                return
            controller, grant = self._ask.get(CONTROLLER), self._session.grant()
            if controller is not None and grant is not None and controller.owner == grant.session_id:
                with contextlib.suppress(Refused):
                    self._ask.transact([Delete(CONTROLLER, controller.version)])

    # ---- records -----------------------------------------------------------------------------------------------------

    def load(self) -> ClusterImage:
        """Return all records; each one's checksum is verified. Cost: about 0.3 ms a record."""
        return self._in_office().load()

    def commit(self, changes: Sequence[Change], *, controller_epoch: int) -> None:
        """Write one transaction, or through the journal. Cost: 1 partition about 3 ms, 1,000 about 30 ms."""
        records, reign = self._in_office(), self._reign
        if reign is not None and controller_epoch != reign.epoch:
            raise fenced(f"{self._where}: controller epoch {controller_epoch} is over, {reign.epoch} has begun")
        records.commit(changes)

    def _in_office(self) -> Records:
        if self._records is None:
            raise fenced("this controller has resigned")
        return self._records

    # ---- others ------------------------------------------------------------------------------------------------------

    def register_broker(self, broker_id: int, kafka_endpoints: Sequence[str] = ()) -> None:
        """Have the keeper keep an ephemeral node for it, for as long as this process lives. Does not wait.

        A node this machine left from before is replaced, another machine's is not.

        Args:
            kafka_endpoints: Where Kafka's clients find it, PLAINTEXT://host:port; told to Kafka's tools by that node.
        """
        self._presence.want(broker_id, kafka_endpoints)
        self._start()
        self._hurry.set()

    def absent(self, broker_ids: Iterable[int]) -> set[int]:
        """Return which of them have no node, as of now. Cost: two round trips."""
        self._start()
        self._enter(self._patient)
        self._patient.sync()
        return set(broker_ids) - self._presence.read(self._patient)

    def controller_endpoint(self) -> str:
        """Return what the active controller wrote into /controller, as the campaign read it last. Thread: any."""
        return self._seen_endpoint

    def check(self) -> None:
        """Look at the clock: what the servers confirmed last lasts so long, whatever became of the connection."""
        if self._reign is not None:
            self._reign.check()

    def _watch(self, _: object) -> None:
        """Called by kazoo; one bound method, so that setting a watch again does not add another."""
        self._wake()

    def _on_connection(self) -> None:
        """Called by the session's threads when a connection was made or has ended."""
        self._hurry.set()
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._wake_fd, 1)

    def _drain(self) -> bool:
        try:
            return os.eventfd_read(self._wake_fd) > 0
        except BlockingIOError:
            return False

    # ---- the keeper --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Connect, if need be; have the keeper run."""
        self._session.open()
        if self._keeper is None or not self._keeper.is_alive():
            self._closing = threading.Event()
            self._keeper = threading.Thread(
                target=self._keep, args=(self._closing,), name="zookeeper-keeper", daemon=True
            )
            self._keeper.start()

    def _keep(self, closing: threading.Event) -> None:
        """Several times a session: renew the lease, finish a resignation, keep the presence of brokers."""
        reason = ""
        requests = Requests(self._session)
        while True:
            grant = self._session.grant()
            wait_ms = KEEP_MS_MAX if grant is None else min(KEEP_MS_MAX, grant.session_ms // 6)
            self._hurry.wait(wait_ms / 1000)
            self._hurry.clear()
            if closing.is_set():
                return
            try:
                self._session.reopen()
                if (reign := self._reign) is not None:
                    reign.renew(requests)
                self._leave()
                if self._presence.wanted:
                    self._enter(requests)
                    self._presence.keep(requests)
            except Unreachable:
                pass  # the session tells of its connection
            except StorageError as error:
                if str(error) != reason:
                    reason = str(error)
                    log.warning("zookeeper", reason=reason)
