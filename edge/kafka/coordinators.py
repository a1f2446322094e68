"""Who coordinates which group: asked for once, and again when a coordinator says that it is another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from edge.kafka.brokers import Brokers, NoConnection
from ingest.errors import ForebayError, RemoteError
from ingest.wire.codes import ErrorCode
from ingest.wire.group_messages import FindCoordinatorRequest
from ingest.wire.message import Message

if TYPE_CHECKING:
    from typing_extensions import Buffer

FIND_TIMEOUT_MS = 5_000
GROUPS_REMEMBERED_MAX = 10_000
AT_ONCE = 100  # groups of one request: a megabyte may name 300,000
_MOVED = (ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE)

Item = TypeVar("Item")
Answer = TypeVar("Answer")


async def ask_each(ask: Callable[[Item], Awaitable[Answer]], items: Sequence[Item]) -> list[Answer]:
    """Ask about each item, some at once; return the answers in the items' order."""
    answers: list[Answer] = []
    for start in range(0, len(items), AT_ONCE):
        answers += await asyncio.gather(*map(ask, items[start : start + AT_ONCE]))
    return answers


class Coordinators:
    """Requests to the coordinators of groups. Thread: the loop's."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._found: dict[str, int] = {}

    async def find(self, group: str) -> int:
        """Return the broker that coordinates a group.

        Raises:
            RemoteError: COORDINATOR_NOT_AVAILABLE and the like.
            TransportError: no broker answered.
        """
        answer = await self._brokers.ask_any(FindCoordinatorRequest([group]), timeout_ms=FIND_TIMEOUT_MS)
        (found,) = answer.coordinators
        if found.error_code:
            raise RemoteError(found.message, code=found.error_code)
        if len(self._found) >= GROUPS_REMEMBERED_MAX:
            self._found.clear()
        self._found[group] = found.broker_id
        return int(found.broker_id)

    async def ask(
        self, group: str, body: Message, *, timeout_ms: int, client_id: str = "", payload: Sequence[Buffer] = ()
    ) -> Any:
        """Ask the coordinator of a group once; the body's own error code is the caller's to look at, `told` it here.

        Raises:
            RemoteError: it refused the whole request; NOT_COORDINATOR where it could not be reached, so that the client
                looks for it anew.
        """
        try:
            broker_id = self._found.get(group)
            if broker_id is None:
                broker_id = await self.find(group)
            answer, _ = await self._brokers.ask(
                broker_id, body, timeout_ms=timeout_ms, payload=payload, client_id=client_id
            )
        except RemoteError as error:
            self.told(group, error.code)
            raise
        except NoConnection as error:
            self.told(group, ErrorCode.NOT_COORDINATOR)
            self._brokers.outdated(ErrorCode.NOT_LEADER_OR_FOLLOWER)
            raise RemoteError(str(error), code=int(ErrorCode.NOT_COORDINATOR)) from None
        except ForebayError as error:
            self.told(group, ErrorCode.NOT_COORDINATOR)
            raise RemoteError(str(error), code=int(ErrorCode.NOT_COORDINATOR), definite=False) from None
        self.told(group, getattr(answer, "error_code", 0))
        return answer

    def told(self, group: str, code: int) -> None:
        """Take note of a code that a coordinator answered with."""
        if code in _MOVED:
            self._found.pop(group, None)
