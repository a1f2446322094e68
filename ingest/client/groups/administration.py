"""What an administrator does with groups: list, describe, measure, move their offsets, delete."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ingest.client.cluster import Answered, Cluster, monotonic_ms
from ingest.client.groups.committed import Committed, in_requests
from ingest.client.groups.coordinator import RETRY_MS, TRY_MS, Coordinator
from ingest.client.groups.described import (
    GroupDescription,
    GroupListing,
    GroupMember,
    PartitionLag,
    check_states,
    description_of,
    who,
)
from ingest.client.lag import AT_THE_END, LeaderLag, Place, ask_lags
from ingest.client.positions import TopicPartition, named
from ingest.errors import ForebayError, RemoteError, RequestTimedOut, TransportError, UsageError
from ingest.wire.codes import ErrorCode, error_from_code
from ingest.wire.group_messages import (
    CommittedOffset,
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    ListedGroup,
    ListGroupsRequest,
    OffsetCommitRequest,
    OffsetDeleteRequest,
    OffsetFetchRequest,
    OffsetFetchResponse,
)
from ingest.wire.message import Message
from ingest.wire.messages import MetadataResponse

LAG_PATIENCE_MS = 3_000  # with partitions that nobody leads; the others are shown
PLACES_IN_REQUEST = 1_000

Offset = int | tuple[int, str] | Committed


class GroupAdmin:
    """Groups of one cluster. Thread: the cluster's.

    Args:
        metadata: Gives the metadata of all topics as a broker has them now.
        timeout_ms: How long each call may take, retries included.
    """

    def __init__(self, cluster: Cluster, metadata: Callable[[], MetadataResponse], timeout_ms: int) -> None:
        self._cluster = cluster
        self._metadata = metadata
        self._timeout_ms = timeout_ms

    # ---- looking -----------------------------------------------------------------------------------------------------

    def list_groups(self, states: Iterable[str] = ()) -> list[GroupListing]:
        """Return all groups by name, or those in these states. Every broker is asked: each knows its own."""
        wanted = check_states(tuple(states))
        deadline_ms = monotonic_ms() + self._timeout_ms
        while True:
            answers, why = self._ask_brokers(wanted, deadline_ms)
            if why is None:
                break
            if monotonic_ms() >= deadline_ms:
                raise why
            self._cluster.refresh()
            self._pause()
        found = {
            item.group: GroupListing(item.group, item.state, item.protocol_type, item.members, broker_id)
            for broker_id, groups in answers.items()
            for item in groups
        }
        return [found[name] for name in sorted(found)]

    def _ask_brokers(
        self, states: list[str], deadline_ms: int
    ) -> tuple[dict[int, list[ListedGroup]], ForebayError | None]:
        """Ask every live broker for all it has; the error is why one has not said it, worth another try."""
        brokers = [broker.broker_id for broker in self._metadata().brokers if broker.alive]
        outcomes: dict[int, Answered] = {}
        listed: dict[int, list[ListedGroup]] = {broker_id: [] for broker_id in brokers}
        sent: set[int] = set()
        deadline_ms = min(deadline_ms, monotonic_ms() + TRY_MS)

        def on_done(broker_id: int, answered: Answered) -> None:
            if answered.error is None:
                listed[broker_id] += answered.body.groups
            if answered.error is None and answered.body.more and not answered.body.error_code:
                sent.remove(broker_id)
            else:
                outcomes[broker_id] = answered

        while len(outcomes) < len(brokers) and (now_ms := monotonic_ms()) < deadline_ms:
            for broker_id in brokers:
                if broker_id in sent:
                    continue
                request = ListGroupsRequest(states, listed[broker_id][-1].group if listed[broker_id] else "")
                left_ms = deadline_ms - now_ms
                if self._cluster.send(broker_id, request, partial(on_done, broker_id), timeout_ms=left_ms):
                    sent.add(broker_id)
            self._cluster.poll()
            if len(outcomes) < len(brokers):
                self._cluster.wait(5)
        why: ForebayError | None = None
        for broker_id in brokers:
            answered = outcomes.get(broker_id)
            if answered is None or isinstance(answered.error, TransportError):
                why = RequestTimedOut(f"broker {broker_id} did not tell which groups it has in time")
            elif answered.error is not None:
                why = answered.error
            elif answered.body.error_code:
                why = error_from_code(answered.body.error_code, f"broker {broker_id} has not read all its groups yet")
        if isinstance(why, RemoteError) and not why.retriable:
            raise why
        return listed, why

    def describe_groups(self, names: Iterable[str]) -> dict[str, GroupDescription]:
        """Return groups with their members, in the order of the names.

        Raises:
            RemoteError: GROUP_ID_NOT_FOUND and the like, for the first that was refused.
        """
        coordinators = {name: Coordinator(self._cluster, name) for name in names}
        outcomes: dict[str, tuple[Any, ForebayError | None]] = {}

        def on_outcome(name: str, body: Any, error: ForebayError | None) -> None:
            outcomes[name] = (body, error)

        for name, coordinator in coordinators.items():
            request = DescribeGroupsRequest([name])
            coordinator.ask(request, partial(on_outcome, name), timeout_ms=self._timeout_ms)
        while len(outcomes) < len(coordinators):
            self._cluster.poll()
            for coordinator in coordinators.values():
                coordinator.poll()
            if len(outcomes) < len(coordinators):
                self._cluster.wait(5)
        described = {}
        for name, coordinator in coordinators.items():
            body, error = outcomes[name]
            if error is not None:
                raise _not_found(name, error)
            described[name] = description_of(body.groups[0], coordinator.broker_id)
        return described

    def offsets(self, group: str) -> dict[TopicPartition, Committed]:
        """Return what a group has committed, by partition; nothing for a group that does not exist."""
        return _by_name(self._fetch_all(group), self._metadata())

    def _fetch_all(self, group: str) -> list[CommittedOffset]:
        """Return all that is committed; what changes meanwhile as it was, or as it is by now."""
        found: list[CommittedOffset] = []
        body: OffsetFetchResponse = self._call(group, OffsetFetchRequest(group))
        while body.more:
            found += body.offsets
            after = (found[-1].topic_id, found[-1].partition)
            body = self._call(group, OffsetFetchRequest(group, after=after))
        return found + body.offsets

    def lag(self, group: str) -> list[PartitionLag]:
        """Return how far a group is in each partition that it has committed to or that a member is to read.

        Raises:
            RemoteError: GROUP_ID_NOT_FOUND and the like.
        """
        (described,) = self.describe_groups([group]).values()
        items, metadata = self._fetch_all(group), self._metadata()
        committed = _by_name(items, metadata)
        readers = {name: member for member in described.members for name in member.assignment}
        names = sorted(committed.keys() | readers.keys())
        # an earlier version let commit to partitions that there are not: nobody can say anything of those
        there = _partitions_of(metadata)
        places = {
            name: Place(name, committed[name].offset if name in committed else AT_THE_END)
            for name in names
            if name in there
        }
        found, _ = ask_lags(self._cluster, places.values(), timeout_ms=min(self._timeout_ms, LAG_PATIENCE_MS))
        lags = {name: found.get(place) for name, place in places.items()}
        return [_row(name, committed.get(name), lags.get(name), readers.get(name)) for name in names]

    # ---- changing ----------------------------------------------------------------------------------------------------

    def alter_offsets(self, group: str, offsets: Mapping[tuple[str, int], Offset]) -> None:
        """Commit offsets in the place of a group that has no members.

        Raises:
            UsageError: an offset is negative.
            RemoteError: NON_EMPTY_GROUP: it has members, whom the message names; UNKNOWN_TOPIC_OR_PARTITION; another
                for the first partition that was refused, the others are committed.
        """
        wanted = {TopicPartition(*name): _committed(item) for name, item in offsets.items()}
        for name, committed in wanted.items():
            if committed.offset < 0:
                raise UsageError(f"{name.topic}-{name.partition}: offset {committed.offset} is negative")
        metadata = self._metadata()
        topic_ids = _ids_of(metadata, wanted, _partitions_of(metadata))
        items = [
            CommittedOffset(topic_ids[name.topic], name.partition, item.offset, item.leader_epoch, item.metadata)
            for name, item in wanted.items()
        ]
        deadline_ms = monotonic_ms() + self._timeout_ms
        while refused := self._commit(group, items):
            # The coordinator may hear of a new partition later than who told us of it.
            items = [item for item, code in refused if ErrorCode(code).retriable]
            if len(items) < len(refused) or monotonic_ms() >= deadline_ms:
                item, code = next((one for one in refused if not ErrorCode(one[1]).retriable), refused[0])
                names = {topic_id: name for name, topic_id in topic_ids.items()}
                text = f"{names[item.topic_id]}-{item.partition}: the offset was not committed"
                raise error_from_code(code, text)
            self._pause()

    def _commit(self, group: str, items: Sequence[CommittedOffset]) -> list[tuple[CommittedOffset, int]]:
        """Commit in the place of a group without members; return what was refused, and why."""
        refused = []
        for some in in_requests(items):
            try:
                body = self._call(group, OffsetCommitRequest(group, some))
            except RemoteError as error:
                if error.code == ErrorCode.UNKNOWN_MEMBER_ID:
                    raise self._occupied(group) from None
                raise
            refused += [(item, code) for item, code in zip(some, body.offsets, strict=True) if code]
        return refused

    def delete_groups(self, names: Iterable[str]) -> None:
        """Delete groups that have no members, with all they have committed.

        Raises:
            RemoteError: NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND and the like, for the first that was refused; the others
                are deleted.
        """
        first: ForebayError | None = None
        for name in dict.fromkeys(names):
            coordinator = Coordinator(self._cluster, name)
            try:
                coordinator.call(DeleteGroupsRequest([name]), timeout_ms=self._timeout_ms)
            except RemoteError as error:
                if error.code == ErrorCode.GROUP_ID_NOT_FOUND and coordinator.asked_again:
                    continue  # by the try whose answer was lost
                why = self._occupied(name) if error.code == ErrorCode.NON_EMPTY_GROUP else _not_found(name, error)
                first = first or why
        if first is not None:
            raise first

    def delete_offsets(self, group: str, partitions: Iterable[tuple[str, int]]) -> None:
        """Delete what a group has committed for partitions of topics that no member has subscribed to.

        Raises:
            RemoteError: GROUP_SUBSCRIBED_TO_TOPIC, GROUP_ID_NOT_FOUND, UNKNOWN_TOPIC_OR_PARTITION and the like, for the
                first that was refused; the others are deleted.
        """
        wanted = named(partitions)
        metadata = self._metadata()
        there = _partitions_of(metadata)
        if not there.issuperset(wanted):  # what stands there all the same can be deleted
            there |= _by_name(self._fetch_all(group), metadata).keys()
        topic_ids = _ids_of(metadata, wanted, there)
        refused: RemoteError | None = None
        for start in range(0, len(wanted), PLACES_IN_REQUEST):
            some = wanted[start : start + PLACES_IN_REQUEST]
            places = [(topic_ids[name.topic], name.partition) for name in some]
            try:
                body = self._call(group, OffsetDeleteRequest(group, places))
            except RemoteError as error:
                raise _not_found(group, error) from None
            for name, code in zip(some, body.partitions, strict=True):
                if code and refused is None:
                    refused = self._why_kept(group, name, code)
        if refused is not None:
            raise refused

    def _why_kept(self, group: str, name: TopicPartition, code: int) -> RemoteError:
        text = f"{name.topic}-{name.partition}"
        if code == ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC:
            members = tuple(member for member in self._members(group) if name.topic in member.topics)
            text = f"members of group {group} read {name.topic}" + (f": {who(members)}" if members else "")
        return error_from_code(code, text)

    def _occupied(self, group: str) -> RemoteError:
        members = self._members(group)
        count = f"{len(members)} member{'s' if len(members) != 1 else ''}"
        text = f"group {group} has {count}: {who(members)}" if members else f"somebody is about to join group {group}"
        return error_from_code(ErrorCode.NON_EMPTY_GROUP, text)

    def _members(self, group: str) -> tuple[GroupMember, ...]:
        try:
            return self.describe_groups([group])[group].members
        except RemoteError:
            return ()  # it has gone meanwhile

    # ---- asking ------------------------------------------------------------------------------------------------------

    def _call(self, group: str, body: Message) -> Any:
        return Coordinator(self._cluster, group).call(body, timeout_ms=self._timeout_ms)

    def _pause(self) -> None:
        self._cluster.poll()
        self._cluster.wait(RETRY_MS)


def _committed(item: Offset) -> Committed:
    return Committed(item) if isinstance(item, int) else Committed(*item)


def _by_name(items: Iterable[CommittedOffset], metadata: MetadataResponse) -> dict[TopicPartition, Committed]:
    names = {topic.topic_id: topic.name for topic in metadata.topics}
    found = {
        TopicPartition(names[item.topic_id], item.partition): Committed(item.offset, item.metadata, item.leader_epoch)
        for item in items
        if item.topic_id in names  # else the topic was deleted just now
    }
    return dict(sorted(found.items()))


def _partitions_of(metadata: MetadataResponse) -> set[TopicPartition]:
    return {TopicPartition(topic.name, item.partition) for topic in metadata.topics for item in topic.partitions}


def _ids_of(
    metadata: MetadataResponse, names: Iterable[TopicPartition], there: Collection[TopicPartition]
) -> dict[str, bytes]:
    """Return the ids of all topics by name.

    Raises:
        RemoteError: UNKNOWN_TOPIC_OR_PARTITION: one of `names` is not `there`.
    """
    topics = {topic.name: topic for topic in metadata.topics}
    for name in names:
        topic = topics.get(name.topic)
        if topic is None:
            raise error_from_code(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"topic {name.topic} does not exist")
        if name not in there:
            text = f"{name.topic} has no partition {name.partition}; it has {len(topic.partitions)}"
            raise error_from_code(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, text)
    return {name: topic.topic_id for name, topic in topics.items()}


def _not_found(group: str, error: ForebayError) -> ForebayError:
    if isinstance(error, RemoteError) and error.code == ErrorCode.GROUP_ID_NOT_FOUND:
        return error_from_code(ErrorCode.GROUP_ID_NOT_FOUND, f"group {group} does not exist")
    return error


def _row(
    name: TopicPartition, committed: Committed | None, found: LeaderLag | None, member: GroupMember | None
) -> PartitionLag:
    return PartitionLag(
        name.topic,
        name.partition,
        None if committed is None else committed.offset,
        "" if committed is None else committed.metadata,
        None if found is None else found.log_start_offset,
        None if found is None else found.log_end_offset,
        None if found is None or committed is None else found.lag,
        member,
    )
