"""How a process becomes the controller: on one machine by a lock, among several machines by a lock and ZooKeeper."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import structlog

from brokerd.control.config import ControllerConfig, ZookeeperConfig
from brokerd.control.embedded import EmbeddedStore
from brokerd.control.guide import Guide
from brokerd.control.lock import ControllerLock
from brokerd.control.store import MetadataStore
from brokerd.control.zookeeper.store import ZookeeperStore
from ingest.errors import StorageError
from ingest.lifeline import Lifeline

log = structlog.get_logger()

Won = tuple[MetadataStore, int]


@contextlib.contextmanager
def candidacy(config: ControllerConfig, lifeline: Lifeline) -> Iterator[Won | None]:
    """Wait for the office; yield the store and the controller epoch, or None if told to stop; leave it at the end.

    Raises:
        ConfigError: the endpoint can't be bound, or the store's address can't be used.
        StorageError: the store can't be used.
    """
    if config.zookeeper is None:
        store = EmbeddedStore(config.directory, cluster_id=config.cluster_id)
        with contextlib.closing(store):
            yield _won(store, store.campaign(lifeline.stop_fd, lifeline.beat))
    else:
        with _machine_lock(config.directory, lifeline) as held:
            if not held:
                yield None
                return
            with contextlib.closing(_store(config, config.zookeeper)) as shared:
                yield _won(shared, _campaign(config, config.zookeeper, shared, lifeline))


def _campaign(
    config: ControllerConfig, zookeeper: ZookeeperConfig, store: ZookeeperStore, lifeline: Lifeline
) -> int | None:
    with Guide(config.endpoint, store.controller_endpoint):
        lifeline.ready()  # a machine serves as well while another one's process is the controller
        for broker_id in zookeeper.broker_ids:
            try:
                store.register_broker(broker_id, 0)
            except StorageError as error:
                log.warning("the other machines do not see this one yet", broker=broker_id, reason=str(error))
        return store.campaign(lifeline.stop_fd, lifeline.beat)


def _store(config: ControllerConfig, zookeeper: ZookeeperConfig) -> ZookeeperStore:
    return ZookeeperStore(
        zookeeper.connect,
        cluster_id=config.cluster_id,
        endpoint=config.advertised_tcp_endpoint,
        machine=zookeeper.machine,
        credentials=zookeeper.credentials,
        session_timeout_ms=zookeeper.session_timeout_ms,
        may_create=False,
        alone=True,
    )


@contextlib.contextmanager
def _machine_lock(directory: str, lifeline: Lifeline) -> Iterator[bool]:
    """Let one process of this machine be a candidate; yield False if told to stop while waiting."""
    Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = ControllerLock(Path(directory) / "lock")
    try:
        yield lock.acquire(lifeline.stop_fd, lifeline.beat)
    finally:
        lock.release()


def _won(store: MetadataStore, controller_epoch: int | None) -> Won | None:
    return None if controller_epoch is None else (store, controller_epoch)
