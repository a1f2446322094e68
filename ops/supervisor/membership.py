"""Which cluster a data directory belongs to, and which of its brokers are here: decided before anything is started."""

from __future__ import annotations

import base64
import os
from collections.abc import Collection, Sequence

import msgspec

from brokerd.control.config import ZookeeperConfig
from brokerd.control.zookeeper.cluster import ClusterFolder
from ingest.errors import ConfigError, ForeignDirectory
from ops.config.settings import Settings
from ops.supervisor.data_dir import DataDir

DEFAULT_BROKERS_MAX = 2


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """This directory as a member of its cluster.

    Attributes:
        site: Tells it from every other directory of the cluster.
        zookeeper: Where the cluster's metadata is; None: here.
        kept_by: Ids of the brokers whose data is here.
    """

    cluster_id: str
    site: str
    broker_ids: list[int]
    kept_by: list[int]
    zookeeper: ZookeeperConfig | None = None


def become_member(directory: DataDir, settings: Settings, *, join: bool, accept_empty: Collection[int] = ()) -> Member:
    """Return who this directory is in its cluster; found that cluster or join it if the directory is new.

    Raises:
        ConfigError: the settings don't fit what the directory holds, or what ZooKeeper does.
        StorageError: brokers' data is missing, or ZooKeeper does not answer.
    """
    connect = settings["broker", "zookeeper.connect"]
    _check_store(directory, connect, join=join)
    brokers = directory.brokers(shared=bool(connect))
    kept_by = brokers.check(accept_empty)
    previous = directory.previous
    known = sorted({*brokers.ids, *(previous.broker_ids if previous else ())})
    count = choose_broker_count(settings, known, len(os.sched_getaffinity(0)))
    if not connect:
        cluster_id = directory.cluster_id or _new_id()
        last = max(known, default=0)
        ids = [*known, *range(last + 1, last + 1 + count - len(known))]
        return Member(cluster_id=cluster_id, site=cluster_id, broker_ids=ids, kept_by=kept_by)
    site = (previous.site if previous else "") or _new_id()
    cluster_id, taken = directory.cluster_id, list[int]()
    moved = previous is not None and previous.zookeeper not in ("", connect)  # this start will be remembered by it
    if not cluster_id or len(known) < count or moved:
        with ClusterFolder(
            connect, credentials=settings.zookeeper_credentials(), session_timeout_ms=settings.zookeeper_session_ms
        ) as folder:
            there = folder.cluster_id()
            if cluster_id not in ("", there):
                raise ForeignDirectory(
                    f"{directory.path} belongs to cluster {cluster_id}, and zookeeper {connect} to "
                    f"{there or 'none'}; correct the address",
                    path=directory.path,
                )
            cluster_id = cluster_id or _enter(folder, there, settings, join=join)
            if count > len(known):
                taken = folder.take_broker_ids(count - len(known))
    ids = [*known, *taken]
    zookeeper = ZookeeperConfig(
        connect=connect,
        credentials=settings.zookeeper_credentials(),
        session_timeout_ms=settings.zookeeper_session_ms,
        machine=site,
        broker_ids=ids,
    )
    return Member(cluster_id=cluster_id, site=site, broker_ids=ids, kept_by=kept_by, zookeeper=zookeeper)


def choose_broker_count(settings: Settings, known: Sequence[int], cores: int) -> int:
    """Return how many brokers to run: what is asked for, else as many as there were, else by cores.

    Raises:
        ConfigError: fewer than there were: what the others hold would be out of reach.
    """
    asked = settings["broker", "brokers"]
    if not asked:
        return len(known) or max(1, min(cores, DEFAULT_BROKERS_MAX))
    if int(asked) < len(known):
        raise ConfigError(
            f"--brokers {asked}: the directory holds the data of {len(known)} brokers, and what the others keep would "
            f"be out of reach; use --brokers {len(known)} or leave it out"
        )
    return int(asked)


def _enter(folder: ClusterFolder, there: str, settings: Settings, *, join: bool) -> str:
    """Return the cluster that a new directory belongs to from now on: the one that is there, or a new one."""
    connect = settings["broker", "zookeeper.connect"]
    if there and not join:
        raise ConfigError(f"zookeeper {connect} holds cluster {there} already; add --join to become part of it")
    if join and not there:
        raise ConfigError(
            f"zookeeper {connect} holds no cluster; correct the address, or leave --join out on the first machine"
        )
    if not there:
        there = _new_id()
        folder.found(there, settings.cluster_configs)
    return there


def _check_store(directory: DataDir, connect: str, *, join: bool) -> None:
    before = directory.previous.zookeeper if directory.previous else ""
    if not connect and join:
        raise ConfigError("--join needs to know the cluster: add --zookeeper host:2181,…/folder")
    if not connect and before:
        raise ConfigError(
            f"{directory.path} belongs to a cluster of several machines; give its address: --zookeeper {before}"
        )
    if connect and (directory.path / "controller" / "meta.db").exists():
        raise ConfigError(
            f"{directory.path} keeps the metadata of a cluster of its own, and can't become part of another; "
            "leave --zookeeper out, or choose an empty directory with --data-dir"
        )


def _new_id() -> str:
    """Return 22 characters, as Kafka's."""
    return base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
