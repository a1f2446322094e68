"""Consumers that commit how far they are in a group of their own, without being members, and look it up again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from brokerd.groups.offsets import CommittedOffsets
from brokerd.groups.records import OffsetKey, OffsetValue, decode
from ingest.errors import RemoteError
from ingest.records.batch import decode_batch
from ingest.topic_name import CONSUMER_OFFSETS
from ingest.wire.codes import ErrorCode
from ingest.wire.group_messages import (
    CommittedOffset,
    FindCoordinatorRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
)
from tests.simulation.clients import Client
from tests.simulation.disk import TOPIC_ID, Batch

if TYPE_CHECKING:
    from tests.simulation.world import World

PLACE = (TOPIC_ID, 0)
RETRY_MS = 30


class SimCommitter(Client):
    """Commit ever greater offsets, each until it is acknowledged, and fetch what is committed.

    A broker takes its requests in order, as by one connection, whatever the network does with them.

    Attributes:
        offset: What was tried last; `acknowledged` may be one less.
        stopped_committing: It only finishes what it has begun, and looks whether it is there.
    """

    def __init__(self, world: World, name: str) -> None:
        self.group = name
        self.offset = self.acknowledged = 0
        self.stopped_committing = self.seen_at_the_end = False
        self._coordinator = -1
        self._delivered: dict[str, int] = {}
        super().__init__(world, name)
        self.after(5, self._go_on)

    def deliver(self, process: Any, number: int, header: bytes, payload: list[bytes]) -> None:
        if number > self._delivered.get(process.name, 0):
            self._delivered[process.name] = number
            super().deliver(process, number, header, payload)

    def _go_on(self) -> None:
        dice = self.world.schedule.dice
        if self._coordinator < 0:
            self.ask(self._any_broker(), FindCoordinatorRequest([self.group]), [], self._found)
        elif dice.random() < 0.3 or (self.stopped_committing and self.acknowledged == self.offset):
            self._fetch(self._any_broker() if dice.random() < 0.3 else self._coordinator)
        else:
            self._commit()

    def _any_broker(self) -> int:
        return self.world.schedule.dice.choice(sorted(self.world.disks))

    def _found(self, body: Any, _: Any) -> None:
        found = None if body is None else body.coordinators[0]
        self._coordinator = -1 if found is None or found.error_code else found.broker_id
        self.after(RETRY_MS if self._coordinator < 0 else 1, self._go_on)

    # ---- committing --------------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        if self.acknowledged == self.offset:
            self.offset += 1
        request = OffsetCommitRequest(self.group, [CommittedOffset(*PLACE, self.offset)])
        self.ask(self._coordinator, request, [], self._committed)

    def _committed(self, body: Any, error: Any) -> None:
        if self._is_refused(body, error) or any(body.offsets):
            self.after(RETRY_MS, self._go_on)
            return
        self.acknowledged = self.offset
        self.world.history.offset_acknowledged(self.group, self.offset)
        self.after(self.world.schedule.dice.randrange(1, 60), self._go_on)

    def _is_refused(self, body: Any, error: Any) -> bool:
        """Tell whether to ask again, maybe another broker."""
        code = error.code if isinstance(error, RemoteError) else body.error_code if body is not None else None
        if code in (None, ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE):
            self._coordinator = -1
        return code != 0

    # ---- looking -----------------------------------------------------------------------------------------------------

    def _fetch(self, broker_id: int) -> None:
        done = partial(self._fetched, broker_id, self.acknowledged)
        self.ask(broker_id, OffsetFetchRequest(self.group, [PLACE]), [], done)

    def _fetched(self, broker_id: int, least: int, body: Any, error: Any) -> None:
        if self._is_refused(body, error):
            self.after(RETRY_MS, self._go_on)
            return
        found = max(0, body.offsets[0].offset)
        self.world.history.offset_found(self.group, least, self.offset, found, f"broker-{broker_id}")
        self.seen_at_the_end = self.stopped_committing and self.acknowledged == self.offset
        self.after(self.world.schedule.dice.randrange(1, 60), self._go_on)


def stored_offset(batches: list[Batch], group: str) -> int:
    """Return what a replica of the groups' topic holds as committed by a committer."""
    offsets = CommittedOffsets()
    for header, data in batches:
        columns = decode_batch(data[: header.size], CONSUMER_OFFSETS, 0)
        for key, value in zip(columns.keys.to_list(), columns.values.to_list(), strict=True):
            fact = decode(key, value)
            if isinstance(fact.key, OffsetKey) and isinstance(fact.value, OffsetValue):
                offsets.apply(fact.key, fact.value)
    return max(0, offsets.fetch(group, [PLACE])[0].offset)
