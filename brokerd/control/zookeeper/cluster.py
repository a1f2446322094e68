"""Whose folder of an ensemble it is: founded by the first machine, checked by every one, and the ids of its brokers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import msgspec

from brokerd.control.zookeeper.session import CONNECT_MS_MAX, Refused, Requests, Session
from brokerd.control.zookeeper.tree import (
    APPLICATION,
    FORMAT,
    IDENTITY,
    NEXT_BROKER_ID,
    Identity,
    SetData,
    new_tree,
)
from ingest.errors import ForeignDirectory, StorageError

_TRIES = 10  # each loses only to another machine that takes ids


class ClusterFolder:
    """What a machine does once, before anything of it runs: found the cluster or join it, and take ids for brokers.

    Thread: one at a time. A context manager; its session ends with it.

    Raises:
        ConfigError: kazoo is not installed, or the address can't be parsed.
    """

    def __init__(self, connect: str, *, credentials: str, session_timeout_ms: int) -> None:
        self._session = Session(
            connect, session_timeout_ms=session_timeout_ms, credentials=credentials, on_change=lambda: None
        )
        self._where = self._session.where
        self._requests = Requests(self._session, connect_wait_ms=CONNECT_MS_MAX)

    def __enter__(self) -> ClusterFolder:
        self._session.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def cluster_id(self) -> str:
        """Return the cluster whose folder this is, "" if it is nobody's yet.

        Raises:
            ForeignDirectory: it is another program's, or of a newer format.
            StorageError: there is no answer.
        """
        self._requests.sync()
        identity = read_identity(self._where, self._requests)
        return "" if identity is None else identity.cluster_id

    def found(self, cluster_id: str, broker_configs: Mapping[str, str]) -> None:
        """Make the folder this cluster's, and these the settings of all its brokers.

        Raises:
            ForeignDirectory: another was quicker.
            StorageError: the outcome is unknown.
        """
        self._requests.make_chroot()
        with contextlib.suppress(Refused):
            self._requests.transact(new_tree(cluster_id, broker_configs))
        check_cluster(self._where, self._requests, cluster_id)

    def take_broker_ids(self, count: int) -> list[int]:
        """Return ids that no broker of the cluster has had; those of an unknown outcome are never handed out.

        Raises:
            StorageError: the outcome is unknown: ask again.
        """
        for _ in range(_TRIES):
            node = self._requests.get(NEXT_BROKER_ID)
            if node is None or not node.value.isdigit():
                raise StorageError(f"{self._where}{NEXT_BROKER_ID} holds no number; restore it", path=self._where)
            first = int(node.value)
            with contextlib.suppress(Refused):
                self._requests.transact([SetData(NEXT_BROKER_ID, b"%d" % (first + count), node.version)])
                return list(range(first, first + count))
        raise StorageError(f"{self._where}{NEXT_BROKER_ID} changes all the time; try again", path=self._where)


def read_identity(where: str, requests: Requests) -> Identity | None:
    """Return whose folder this is, None if there is nothing in it.

    Raises:
        ForeignDirectory: it is another program's, or of a newer format.
        StorageError: it can't be read, or there is no answer.
    """
    node = requests.get(IDENTITY)
    if node is None:
        names = requests.children("")
        if names is not None and set(names) - {"zookeeper"}:  # which is in every root
            raise ForeignDirectory(
                f"{where} is not a Forebay metadata store; name a folder of its own: HOST:2181,…/forebay", path=where
            )
        return None
    try:
        fields = msgspec.json.decode(node.value)
        if not isinstance(fields, dict) or fields.get("application") != APPLICATION:
            raise ForeignDirectory(f"{where} is not a Forebay metadata store", path=where)
        identity = msgspec.convert(fields, Identity)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StorageError(f"{where}{IDENTITY} can't be read: {error}", path=where) from None
    if identity.format > FORMAT:
        raise ForeignDirectory(
            f"{where} has format {identity.format}; this version reads up to {FORMAT}: use a newer forebay", path=where
        )
    return identity


def check_cluster(where: str, requests: Requests, cluster_id: str) -> None:
    """Make sure that the folder is this cluster's.

    Raises:
        ForeignDirectory: it is another's.
        StorageError: it is nobody's, or there is no answer.
    """
    identity = read_identity(where, requests)
    if identity is None:
        raise StorageError(
            f"{where} holds no cluster, though this one has data; correct the address, or restore it", path=where
        )
    if identity.cluster_id != cluster_id:
        raise ForeignDirectory(f"{where} belongs to cluster {identity.cluster_id}, not to {cluster_id}", path=where)
