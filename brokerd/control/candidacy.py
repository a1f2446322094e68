"""How a process becomes the controller: on one machine by a lock, among several machines by a lock and ZooKeeper."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from brokerd.control.config import ControllerConfig, ZookeeperConfig
from brokerd.control.embedded import EmbeddedStore
from brokerd.control.guide import Guide
from brokerd.control.lock import IN_ZOOKEEPER, ControllerLock
from brokerd.control.store import MetadataStore
from brokerd.control.zookeeper.store import ZookeeperStore
from ingest.errors import StorageError
from ingest.lifeline import Lifeline
from ingest.machine import machine_id

Won = tuple[MetadataStore, int]


@contextlib.contextmanager
def candidacy(config: ControllerConfig, lifeline: Lifeline, wait_for: Callable[[str], None]) -> Iterator[Won | None]:
    """Wait for the office; yield the store and the controller epoch, or None if told to stop; leave it at the end.

    Args:
        wait_for: Called with what is lacking before anyone can have the office, "" once it is there.
    Raises:
        ConfigError: the endpoint can't be bound, or the store's address can't be used.
        StorageError: the store can't be used.
    """
    if config.zookeeper is None:
        store = EmbeddedStore(config.directory, cluster_id=config.cluster_id)
        with contextlib.closing(store):
            yield _won(store, store.campaign(lifeline.stop_fd, lifeline.beat))
    else:
        with _machine_lock(config, config.zookeeper, lifeline) as holder:
            if not holder:
                yield None
                return
            with contextlib.closing(_store(config, config.zookeeper, holder, wait_for)) as shared:
                yield _won(shared, _campaign(config, config.zookeeper, shared, lifeline))


def _campaign(
    config: ControllerConfig, zookeeper: ZookeeperConfig, store: ZookeeperStore, lifeline: Lifeline
) -> int | None:
    with Guide(config.endpoint, store.controller_endpoint):
        lifeline.ready()  # a machine serves as well while another one's process is the controller
        for broker_id in zookeeper.broker_ids:
            store.register_broker(broker_id, zookeeper.kafka_endpoints.get(broker_id, ()))
        return store.campaign(lifeline.stop_fd, lifeline.beat)


def _store(
    config: ControllerConfig, zookeeper: ZookeeperConfig, holder: str, wait_for: Callable[[str], None]
) -> ZookeeperStore:
    return ZookeeperStore(
        zookeeper.connect,
        cluster_id=config.cluster_id,
        endpoint=config.advertised_tcp_endpoint,
        machine=holder,
        credentials=zookeeper.credentials,
        session_timeout_ms=zookeeper.session_timeout_ms,
        wait_for=wait_for,
    )


@contextlib.contextmanager
def _machine_lock(config: ControllerConfig, zookeeper: ZookeeperConfig, lifeline: Lifeline) -> Iterator[str]:
    """Let one process of this machine be a candidate; yield a name of the lock it holds, "" if told to stop.

    The name is of the file, in this life of the machine: who holds the lock of a copy of the directory proves nothing.
    """
    directory = Path(config.directory)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{directory}: {error.strerror}", path=directory) from None
    lock = ControllerLock(directory / "lock")
    try:
        if lock.acquire(lifeline.stop_fd, lifeline.beat):
            lock.note(f"cluster {config.cluster_id}{IN_ZOOKEEPER}{zookeeper.connect}")
            file = os.stat(directory / "lock")
            yield f"{zookeeper.machine} {machine_id()} {file.st_dev:x}.{file.st_ino:x}"
        else:
            yield ""
    finally:
        lock.release()


def _won(store: MetadataStore, controller_epoch: int | None) -> Won | None:
    return None if controller_epoch is None else (store, controller_epoch)
