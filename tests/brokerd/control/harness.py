"""A controller in a thread or a process of its own, and a broker that is only its talk with the controller."""

from __future__ import annotations

import os
import select
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import zmq

from brokerd.control import process
from brokerd.control.config import ControllerConfig
from brokerd.control.embedded import EmbeddedStore
from brokerd.control.image import ClusterImage
from brokerd.control.records import PartitionRecord, Put, Record
from brokerd.control.store import MetadataStore
from brokerd.control.zookeeper.cluster import ClusterFolder
from brokerd.control.zookeeper.store import ZookeeperStore
from ingest.wire.frames import Response, decode_body, decode_response, encode_request
from ingest.wire.message import Message
from ingest.wire.messages import (
    ApiKey,
    BrokerHeartbeatRequest,
    BrokerHeartbeatResponse,
    BrokerMetadata,
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    LocalPartition,
    MetadataResponse,
)

CLUSTER_ID = "test-cluster"
TIMEOUT_MS = 5000
NOTHING_SET: Mapping[str, str] = {}


SESSION_MS = 2000  # ZooKeeper's; the test ensemble grants 400 to 4000


def open_store(at: str, *, cluster_id: str = CLUSTER_ID, endpoint: str = "", **options: Any) -> MetadataStore:
    """Return the store at "embedded:DIRECTORY" or "zookeeper:CONNECT"."""
    kind, _, place = at.partition(":")
    if kind == "embedded":
        return EmbeddedStore(place, cluster_id=cluster_id)
    options = {"machine": uuid.uuid4().hex, "session_timeout_ms": SESSION_MS} | options
    return ZookeeperStore(place, cluster_id=cluster_id, endpoint=endpoint, **options)


def found_cluster(connect: str, cluster_id: str = CLUSTER_ID, broker_configs: Mapping[str, str] = NOTHING_SET) -> None:
    """Make a folder of an ensemble a cluster's, as the first machine does."""
    with ClusterFolder(connect, credentials="", session_timeout_ms=SESSION_MS) as folder:
        folder.found(cluster_id, broker_configs)


class ThreadLifeline:
    """A lifeline whose other end is the test."""

    def __init__(self) -> None:
        self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._ready_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.beats = 0
        self.stats: Callable[[], msgspec.Struct] | None = None

    @property
    def stop_fd(self) -> int:
        return self._stop_fd

    def beat(self) -> None:
        self.beats += 1

    def ready(self) -> None:
        os.eventfd_write(self._ready_fd, 1)

    def serve_stats(self, stats: Callable[[], msgspec.Struct]) -> None:
        self.stats = stats

    def stop(self) -> None:
        os.eventfd_write(self._stop_fd, 1)

    def wait_ready(self, seconds: float = 5) -> bool:
        return bool(select.select([self._ready_fd], [], [], seconds)[0])


class Candidate:
    """A store with the two arguments of a campaign."""

    def __init__(self, store: MetadataStore) -> None:
        self.store = store
        self.lifeline = ThreadLifeline()
        self.epoch = -1

    def campaign(self) -> int | None:
        return self.store.campaign(self.lifeline.stop_fd, self.lifeline.beat)

    def win(self) -> ClusterImage:
        epoch = self.campaign()
        assert epoch is not None
        self.epoch = epoch
        return self.store.load()

    def put(self, *records: Record) -> None:
        self.store.commit([Put(record) for record in records], controller_epoch=self.epoch)

    def wait_beats(self, count: int) -> None:
        """Wait until it has beaten so often; a beat tells nobody, so it is looked at."""
        deadline = time.monotonic() + 10
        while self.lifeline.beats < count:
            assert time.monotonic() < deadline, "it does not beat"
            time.sleep(0.01)


class RunningController:
    """`process.run` in a thread; an error it ends with is raised by `stop`."""

    def __init__(self, config: ControllerConfig) -> None:
        self.config = config
        self.lifeline = ThreadLifeline()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            process.run(self.config, self.lifeline)
        except BaseException as error:
            self.error = error

    def stats(self) -> Any:
        assert self.lifeline.stats is not None
        return self.lifeline.stats()

    def wait_stats(self, holds: Callable[[Any], bool], seconds: float = 5) -> Any:
        """Return the first snapshot for which `holds`; snapshots are taken after each round of the loop."""
        deadline = time.monotonic() + seconds
        while not holds(stats := self.stats()):
            assert time.monotonic() < deadline, f"did not come to hold: {stats}"
            time.sleep(0.005)
        return stats

    def stop(self) -> None:
        self.lifeline.stop()
        self._thread.join(5)
        assert not self._thread.is_alive(), "the controller does not stop"
        if self.error is not None:
            raise self.error


@contextmanager
def running_controller(config: ControllerConfig) -> Iterator[RunningController]:
    controller = RunningController(config)
    try:
        assert controller.lifeline.wait_ready(), controller.error
        yield controller
    finally:
        controller.stop()


class FakeBroker:
    """One connection to a controller that speaks as a broker or as a client."""

    def __init__(
        self,
        endpoint: str,
        broker_id: int = 1,
        *,
        incarnation: int = 1,
        directory_id: str = "",
        heartbeat_ms: int = 1000,
    ) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.RECONNECT_IVL, 10)
        self.socket.connect(endpoint)
        self.broker_id = broker_id
        self.incarnation = incarnation
        self.directory_id = directory_id or f"directory-{broker_id}"
        self.heartbeat_ms = heartbeat_ms
        self.broker_epoch = -1
        self.applied_version = -1
        self.metadata: MetadataResponse | None = None
        self._correlation_id = 0

    def __enter__(self) -> FakeBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close(linger=0)
        self._context.term()

    def send(self, body: Message, timeout_ms: int = TIMEOUT_MS) -> int:
        self._correlation_id += 1
        self.socket.send(encode_request(body, self._correlation_id, timeout_ms, f"broker-{self.broker_id}"))
        return self._correlation_id

    def receive(self, timeout_ms: int = TIMEOUT_MS) -> Response:
        assert self.socket.poll(timeout_ms), "no answer"
        return decode_response(self.socket.recv_multipart())

    def ask(self, body: Message, api_key: ApiKey, timeout_ms: int = TIMEOUT_MS) -> Any:
        """Send one request and return the decoded answer; answers to others are dropped."""
        correlation_id = self.send(body, timeout_ms)
        while (response := self.receive()).correlation_id != correlation_id:
            pass
        return decode_body(response, api_key)

    def registration(
        self, partitions: list[LocalPartition] | None = None, producer_id_floor: int = -1
    ) -> BrokerRegistrationRequest:
        return registration(
            self.broker_id,
            incarnation=self.incarnation,
            directory_id=self.directory_id,
            partitions=partitions,
            producer_id_floor=producer_id_floor,
        )

    def register(self, partitions: list[LocalPartition] | None = None, producer_id_floor: int = -1) -> int:
        answer: BrokerRegistrationResponse = self.ask(
            self.registration(partitions, producer_id_floor), ApiKey.BROKER_REGISTRATION
        )
        self.broker_epoch = answer.broker_epoch
        self.applied_version = -1
        return answer.version

    def heartbeat_request(self) -> BrokerHeartbeatRequest:
        return BrokerHeartbeatRequest(self.broker_id, self.broker_epoch, self.applied_version, self.heartbeat_ms)

    def heartbeat(self) -> MetadataResponse:
        """Wait for newer metadata, or the time; return what is in force, and count it applied."""
        answer: BrokerHeartbeatResponse = self.ask(self.heartbeat_request(), ApiKey.BROKER_HEARTBEAT)
        if answer.metadata is not None:
            self.metadata = answer.metadata
        assert self.metadata is not None
        assert self.metadata.version == answer.version
        self.applied_version = answer.version
        return self.metadata


class BeatingBroker:
    """A fake broker that registers and then applies whatever it hears, in a thread, until told to end."""

    def __init__(self, endpoint: str, broker_id: int = 1, **options: Any) -> None:
        self._broker = FakeBroker(endpoint, broker_id, heartbeat_ms=50, **options)
        self._broker.register()
        self._broker.heartbeat()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    @property
    def metadata(self) -> MetadataResponse:
        assert self._broker.metadata is not None
        return self._broker.metadata

    def _beat(self) -> None:
        while not self._end.is_set():
            self._broker.heartbeat()

    def __enter__(self) -> BeatingBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(5)
        self._broker.close()


def registration(
    broker_id: int = 1,
    *,
    incarnation: int = 1,
    directory_id: str = "",
    partitions: list[LocalPartition] | None = None,
    producer_id_floor: int = -1,
    cluster_id: str = CLUSTER_ID,
    site: str = "",
    device: int = 0,
    incarnations: Sequence[int] = (),
) -> BrokerRegistrationRequest:
    """Return what a broker says when it comes up."""
    broker = BrokerMetadata(
        broker_id=broker_id,
        broker_epoch=-1,
        endpoints=[f"ipc:///run/broker-{broker_id}.sock"],
        machine="boot-id",
        log_dir=f"/data/brokers/{broker_id}",
        page_path=f"/dev/shm/broker-{broker_id}.page",
        incarnation=incarnation,
        directory_id=directory_id or f"directory-{broker_id}",
        site=site,
        device=device,
    )
    return BrokerRegistrationRequest(
        broker, cluster_id, partitions or [], producer_id_floor, incarnations=list(incarnations)
    )


def partition_record(
    topic_id: bytes, partition: int, leader: int, replicas: list[int], isr: list[int], leader_epoch: int, epoch: int
) -> PartitionRecord:
    """Return a partition's record; `epoch` is the partition epoch."""
    return PartitionRecord(
        topic_id=topic_id,
        partition=partition,
        leader=leader,
        replicas=replicas,
        isr=isr,
        leader_epoch=leader_epoch,
        partition_epoch=epoch,
    )
