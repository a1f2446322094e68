"""Requests to the coordinator of a group, from a consumer's or an administrator's own connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ingest.client.cluster import ANY_BROKER, Answered, Cluster, monotonic_ms
from ingest.errors import ForebayError, RemoteError, RequestTimedOut
from ingest.wire.codes import ErrorCode, error_from_code
from ingest.wire.group_messages import (
    DeleteGroupsResponse,
    DescribeGroupsResponse,
    FindCoordinatorRequest,
)
from ingest.wire.message import Message

RETRY_MS = 20
TRY_MS = 5_000

OnOutcome = Callable[[Any, ForebayError | None], None]


class _Call:
    """One request to the coordinator, asked again until it is answered for good or its time is over."""

    __slots__ = ("body", "deadline_ms", "on_outcome", "under_way")

    def __init__(self, body: Message, deadline_ms: int, on_outcome: OnOutcome) -> None:
        self.body = body
        self.deadline_ms = deadline_ms
        self.on_outcome = on_outcome
        self.under_way = False


class Coordinator:
    """Requests to the coordinator of one group, which moves. Thread: the cluster's.

    Requests are sent in order, each after the one before was answered, so that an older commit never follows a newer.

    Attributes:
        asked_again: Something was asked again of which nobody knows whether the first time took effect.
    """

    def __init__(self, cluster: Cluster, group: str) -> None:
        self._cluster = cluster
        self.group = group
        self._broker_id = -1
        self._looking = False
        self._retry_at_ms = 0
        self._calls: list[_Call] = []
        self.asked_again = False

    def ask(self, body: Message, on_outcome: OnOutcome, *, timeout_ms: int) -> None:
        """Ask; `on_outcome` is called from a later `poll` with the body or an error."""
        self._calls.append(_Call(body, monotonic_ms() + timeout_ms, on_outcome))
        self.poll()

    def call(self, body: Message, *, timeout_ms: int) -> Any:
        """Ask and wait for the body.

        Raises:
            RemoteError: the coordinator refused for good.
            RequestTimedOut: no answer in time; the outcome is unknown.
        """
        outcome: list[tuple[Any, ForebayError | None]] = []
        self.ask(body, lambda found, error: outcome.append((found, error)), timeout_ms=timeout_ms)
        while not outcome:
            self._cluster.poll()
            self.poll()
            if not outcome:
                self._cluster.wait(5)
        found, error = outcome[0]
        if error is not None:
            raise error
        return found

    @property
    def broker_id(self) -> int:
        """Return the broker that coordinates the group, -1 while that is not known."""
        return self._broker_id

    @property
    def busy(self) -> bool:
        """Whether something is still to be answered."""
        return bool(self._calls)

    def poll(self) -> None:
        """Send what is due, give up on what is overdue; the cluster was polled before."""
        now_ms = monotonic_ms()
        while (call := next((call for call in self._calls if now_ms >= call.deadline_ms), None)) is not None:
            self._calls.remove(call)  # who is told may ask on, and have others given up
            what = type(call.body).__name__.removesuffix("Request")
            error = RequestTimedOut(f"the coordinator of group {self.group} did not answer to {what} in time")
            call.on_outcome(None, error)
        if not self._calls or self._calls[0].under_way or now_ms < self._retry_at_ms:
            return
        if self._broker_id < 0:
            self._look(now_ms)
            return
        call = self._calls[0]
        left_ms = min(TRY_MS, call.deadline_ms - now_ms)
        call.under_way = self._cluster.send(
            self._broker_id, call.body, lambda answered: self._answered(call, answered), timeout_ms=left_ms
        )
        if not call.under_way:
            self._again(now_ms, moved=True)

    def _look(self, now_ms: int) -> None:
        if self._looking:
            return

        def on_found(answered: Answered) -> None:
            self._looking = False
            found = answered.body.coordinators[0] if answered.error is None else None
            if found is not None and not found.error_code:
                self._broker_id = found.broker_id
                if found.broker_id not in self._cluster.brokers:
                    self._cluster.refresh()
            elif found is not None and not ErrorCode(found.error_code).retriable and self._calls:
                self._calls.pop(0).on_outcome(
                    None, error_from_code(found.error_code, found.message or f"group {self.group!r}")
                )
            else:
                self._retry_at_ms = monotonic_ms() + RETRY_MS

        request = FindCoordinatorRequest([self.group])
        self._looking = self._cluster.send(ANY_BROKER, request, on_found, timeout_ms=TRY_MS)
        if not self._looking:
            self._retry_at_ms = now_ms + RETRY_MS

    def _answered(self, call: _Call, answered: Answered) -> None:
        call.under_way = False
        if call not in self._calls:
            return
        error = answered.error
        code = error.code if isinstance(error, RemoteError) else _code_of(answered.body) if error is None else None
        again = code is not None and ErrorCode(code).retriable and code != ErrorCode.REBALANCE_IN_PROGRESS
        if code is None or again:
            self.asked_again = self.asked_again or error is not None
            moved = code in (None, ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE)
            self._again(monotonic_ms(), moved=moved)
            return
        self._calls.remove(call)
        if error is None and code:
            error = error_from_code(code, getattr(answered.body, "message", "") or f"group {self.group}")
        call.on_outcome(answered.body, error)

    def _again(self, now_ms: int, *, moved: bool) -> None:
        self._retry_at_ms = now_ms + RETRY_MS
        if moved:
            self._broker_id = -1


def _code_of(body: Any) -> int:
    """Return the outcome that an answer about one group tells, whatever it is of the partitions in it."""
    match body:
        case DescribeGroupsResponse(groups=[one]):
            return one.error_code
        case DeleteGroupsResponse(groups=[code]):
            return code
        case _:
            code = body.error_code
            return int(code)
