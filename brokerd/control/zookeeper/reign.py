"""The time in which one candidate is the controller: its epoch, its session, its lease, and every write it makes."""

from __future__ import annotations

from collections.abc import Sequence

from brokerd.control.zookeeper.lease import Lease
from brokerd.control.zookeeper.session import CONNECT_MS_MAX, Grant, Node, Refused, Requests, Session, now_ms
from brokerd.control.zookeeper.tree import CONTROLLER, CONTROLLER_EPOCH, Check, Operation, SetData
from ingest.errors import Fenced, StorageError
from ingest.wire.codes import ErrorCode

_TRIES = 2  # the second with the version that was read again


class Reign:
    """From winning to the first doubt; once over, it stays over.

    Thread: the controller's, but for `renew`.

    Attributes:
        outcome_unknown: Of a transaction: what is known of the records may be wrong.
    """

    def __init__(self, session: Session, *, epoch: int, version: int, grant: Grant, sent_ms: int) -> None:
        self.epoch = epoch
        self.outcome_unknown = False
        self._session = session
        self._version = version  # of /controller_epoch
        self._session_id = grant.session_id
        self._lease = Lease()
        self._lease.renew(sent_ms, grant.session_ms)
        self._over = ""
        self._ask = Requests(session)

    def check(self) -> None:
        """Look at the clock, before each act.

        Raises:
            Fenced: nothing was sent.
        """
        grant = self._session.grant()
        if not self._over and (grant is None or grant.session_id != self._session_id):
            self._over = f"the session of controller epoch {self.epoch} has ended"
        left_ms = self._lease.left_ms(now_ms())
        if not self._over and left_ms <= 0:
            self._over = f"controller epoch {self.epoch} was not confirmed in time: {-left_ms} ms too late"
        if self._over:
            raise fenced(f"{self._session.where}: {self._over}")

    def write(self, operations: Sequence[Operation]) -> None:
        """Carry out one transaction on the condition that this is still the controller.

        Raises:
            Fenced: nothing was changed.
            StorageError: the outcome is unknown, or the records are not as they should be.
        """
        where = self._session.where
        for _ in range(_TRIES):
            self.check()
            # a server that went is replaced by another in no time, and nothing has been sent yet
            self._session.client(CONNECT_MS_MAX, self.check)
            self.check()
            checks = [Check(CONTROLLER_EPOCH, self._version), Check(CONTROLLER, 0)]
            grant, sent_ms = self._session.grant(), now_ms()
            self.outcome_unknown = True
            try:
                self._ask.transact([*checks, *operations])
            except Refused as refused:
                if refused.index >= len(checks):
                    raise StorageError(
                        f"{where}: {refused}: someone else changed the records; nothing was written, load again",
                        path=where,
                    ) from None
                self._look_again()
                continue
            self.outcome_unknown = False
            self._renewed(grant, sent_ms)
            return
        raise StorageError(f"{where}{CONTROLLER_EPOCH} changes all the time; load again", path=where)

    def overtake(self) -> None:
        """Make sure that a transaction without an answer has either taken effect or never will.

        It checks the version of the epoch's node. Once that is raised it can't succeed any more, wherever it is.

        Raises:
            Fenced, StorageError: as `write`.
        """
        self.write([SetData(CONTROLLER_EPOCH, b"%d" % self.epoch)])
        self._version += 1

    def renew(self, requests: Requests) -> None:
        """Ask whether /controller is ours. The leader confirms the session, not only the server that we talk to.

        Raises:
            StorageError: there is no answer; the lease runs on.
        """
        grant, sent_ms = self._session.grant(), now_ms()
        requests.sync()
        node = requests.get(CONTROLLER)
        if node is None or node.owner != self._session_id:
            self._over = self._over or f"{CONTROLLER} is no longer this process's"
        else:
            self._renewed(grant, sent_ms)

    def _renewed(self, grant: Grant | None, sent_ms: int) -> None:
        if grant is not None and grant.session_id == self._session_id and self._session.grant() == grant:
            self._lease.renew(sent_ms, grant.session_ms)

    def _look_again(self) -> None:
        """Find out why a check failed: another controller, or only a version we had not heard of."""
        node = epoch_node(self._session.where, self._ask)
        controller = self._ask.get(CONTROLLER)
        epoch = epoch_of(self._session.where, node)
        if epoch != self.epoch:
            self._over = f"controller epoch {self.epoch} is over, {epoch} has begun"
        elif controller is None or controller.owner != self._session_id:
            self._over = f"{CONTROLLER} is no longer this process's"
        self._version = node.version
        self.check()


def fenced(message: str) -> Fenced:
    return Fenced(message, code=ErrorCode.STALE_CONTROLLER_EPOCH)


def epoch_node(where: str, requests: Requests) -> Node:
    """Return the node of the controller epoch.

    Raises:
        StorageError: it is not there.
    """
    node = requests.get(CONTROLLER_EPOCH)
    if node is None:
        raise StorageError(f"{where}{CONTROLLER_EPOCH} is missing; restore it", path=where)
    return node


def epoch_of(where: str, node: Node) -> int:
    """Return the number it holds."""
    try:
        return int(node.value)
    except ValueError:
        raise StorageError(f"{where}{CONTROLLER_EPOCH} holds no number: {node.value[:32]!r}", path=where) from None
