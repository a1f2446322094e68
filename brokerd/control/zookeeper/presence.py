"""Presence of brokers: an ephemeral node each, kept by the candidate of the broker's machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import msgspec

from brokerd.control.zookeeper.session import Grant, Refused, Requests, Session, Unreachable
from brokerd.control.zookeeper.tree import (
    BROKER_IDS,
    BrokerNode,
    Create,
    Delete,
    Operation,
    broker_node,
    broker_path,
)
from ingest.errors import StorageError

_TRIES = 3  # each loses only to another change of the same node


class Presence:
    """Keep the nodes of this machine's brokers and read everyone's. Thread: any.

    A node is replaced in one transaction, so that nobody sees a broker gone for the moment between.
    """

    def __init__(self, session: Session, machine: str) -> None:
        self._session = session
        self._machine = machine
        self._mutex = threading.Lock()
        self._here: dict[int, tuple[str, ...]] = {}  # with the endpoints of Kafka's clients

    @property
    def wanted(self) -> bool:
        """Whether any broker of this machine is registered."""
        return bool(self._here)

    def want(self, broker_id: int, kafka_endpoints: Sequence[str]) -> None:
        """Note that a broker is here; `keep` makes it so."""
        with self._mutex:
            self._here[broker_id] = tuple(kafka_endpoints)

    def keep(self, requests: Requests) -> None:
        """Make what is missing, also after the session ended or someone removed it.

        A node of an earlier session of this machine is replaced.

        Raises:
            StorageError: another machine has a broker of this id, or there is no answer: it is for the next time.
        """
        refusal: StorageError | None = None
        with self._mutex:
            for broker_id, kafka_endpoints in self._here.items():
                try:
                    self._announce(requests, broker_id, kafka_endpoints)
                except StorageError as error:
                    refusal = error
        if refusal is not None:
            raise refusal

    def forget(self) -> None:
        """Keep no node any more; they go with the session."""
        with self._mutex:
            self._here.clear()

    def read(self, requests: Requests) -> set[int]:
        """Return the ids of the brokers that are there.

        Raises:
            StorageError: there is no answer, or a node is nobody's.
        """
        names = requests.children(BROKER_IDS) or []
        if strange := [name for name in names if not name.isdecimal()]:
            where = f"{self._session.where}: {BROKER_IDS}/{strange[0]}"
            raise StorageError(f"{where}: no broker's id; remove the node", path=where)
        return set(map(int, names))

    def _grant(self) -> Grant:
        grant = self._session.grant()
        if grant is None:
            raise Unreachable(f"{self._session.where}: there is no session yet", path=self._session.where)
        return grant

    def _announce(self, requests: Requests, broker_id: int, kafka_endpoints: Sequence[str]) -> None:
        path = broker_path(broker_id)
        where = f"{self._session.where}: {path}"
        value = msgspec.json.encode(broker_node(self._machine, kafka_endpoints, time.time_ns() // 1_000_000))
        for _ in range(_TRIES):
            node = requests.get(path)
            session_id = self._grant().session_id
            operations: list[Operation] = [Create(path, value, ephemeral=True)]
            if node is not None:
                if node.owner == session_id:
                    return
                machine = _decode(where, node.value).machine
                if machine != self._machine:
                    raise StorageError(
                        f"{where} is kept by machine {machine}, not by {self._machine}: if there are two brokers with "
                        f"id {broker_id}, give one another; if it moved, its old session ends by itself",
                        path=where,
                    )
                operations.insert(0, Delete(path, node.version))
            try:
                requests.transact(operations)
            except Refused:
                continue
            return
        raise StorageError(f"{where} changes all the time: two candidates announce broker {broker_id}", path=where)


def _decode(where: str, value: bytes) -> BrokerNode:
    try:
        return msgspec.json.decode(value, type=BrokerNode)
    except msgspec.DecodeError as error:
        raise StorageError(f"{where} can't be read: {error}", path=where) from None
