"""One DeleteGroups: answered once every partition of `__consumer_offsets` that it concerns has committed its part."""

from __future__ import annotations

from collections.abc import Sequence

from brokerd.serving.outbox import Outbox, Peer
from ingest.wire.codes import ErrorCode
from ingest.wire.group_messages import DeleteGroupsResponse


class GroupDeletion:
    """Thread: the broker loop.

    Args:
        codes: One for each group of the request; those of groups that go are NONE.
        parts: How many partitions have to commit; none of them: it is answered now.
    """

    def __init__(self, outbox: Outbox, peer: Peer, correlation_id: int, codes: list[ErrorCode], parts: int) -> None:
        self._outbox = outbox
        self._peer = peer
        self._correlation_id = correlation_id
        self._codes = codes
        self._parts = parts
        if not parts:
            self._answer()

    def settle(self, indexes: Sequence[int], code: ErrorCode) -> None:
        """Take note of what became of the groups in one partition: NONE, it is committed; else that is not known."""
        if code is not ErrorCode.NONE:
            for index in indexes:
                self._codes[index] = code
        self._parts -= 1
        if self._parts == 0 and code is not ErrorCode.NONE and all(one is code for one in self._codes):
            self._outbox.refuse(self._peer, self._correlation_id, code, "the outcome is unknown")
        elif self._parts == 0:
            self._answer()

    def _answer(self) -> None:
        self._outbox.answer(self._peer, self._correlation_id, DeleteGroupsResponse([int(code) for code in self._codes]))
