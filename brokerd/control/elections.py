"""Leaders for all partitions of a cluster: what changes when brokers die, come back or ask; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

import msgspec

from brokerd.control.broker_settings import EffectiveConfigs
from brokerd.control.image import ClusterImage
from brokerd.control.records import Change, PartitionRecord, Put
from replicas.domains import Domains
from replicas.election import Chosen, Electorate, commit, settle
from replicas.reassignment import finish
from replicas.state import NO_LEADER


@dataclass(slots=True)
class Elected:
    """What an event changes.

    Attributes:
        reasons: How many leaders were elected, by how.
        lossy: Partitions whose new leader may lack acknowledged records.
    """

    changes: list[Change] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    lossy: list[PartitionRecord] = field(default_factory=list)


class Electorates:
    """Make the electorate of each topic: the same brokers, each topic's own rules."""

    def __init__(
        self,
        image: ClusterImage,
        configs: EffectiveConfigs,
        common: Electorate,
        ends: Callable[[bytes, int, int], dict[int, tuple[int, int]]],
    ) -> None:
        self._image = image
        self._ends = ends
        self._configs = configs
        self.common = common
        self._by_topic: dict[bytes, Electorate] = {}

    @property
    def domains(self) -> Domains:
        return self.common.domains

    def of(self, record: PartitionRecord) -> Electorate:
        """Return the electorate of a partition."""
        electorate = self._of_topic(record.topic_id)
        if record.leader != NO_LEADER:
            return electorate
        return replace(electorate, ends=self._ends(record.topic_id, record.partition, record.leader_epoch))

    def _of_topic(self, topic_id: bytes) -> Electorate:
        made = self._by_topic.get(topic_id)
        if made is None:
            own = self._image.topics[topic_id].configs
            made = self._by_topic[topic_id] = replace(
                self.common,
                min_in_sync=int(self._configs.topic_value("min.insync.replicas", own)),
                unclean=self._configs.topic_value("unclean.leader.election.enable", own) == "true",
            )
        return made


def settle_all(
    partitions: Iterable[PartitionRecord],
    electorates: Electorates,
    prepare: Callable[[PartitionRecord], PartitionRecord] = lambda record: record,
    epochs: Callable[[PartitionRecord], int] = lambda record: -1,
) -> Elected:
    """Return the changes that make partitions as they should be.

    Args:
        prepare: What the event says of a partition, before anyone is elected.
        epochs: The greatest leader epoch that some log holds of it; one begins above it.
    """
    elected = Elected()
    for before in partitions:
        prepared = prepare(before)
        electorate = electorates.of(prepared)
        after, chosen = settle(prepared, electorate)
        after = finish(after, electorate)
        in_log = epochs(before)
        if in_log > before.leader_epoch:
            if chosen is None and after.leader != NO_LEADER:
                chosen = Chosen(after.leader, "clean")
            if chosen is None:
                after = msgspec.structs.replace(after, leader_epoch=in_log)
        record = commit(before, after, chosen, epoch_min=in_log + 1)
        if record is before:
            continue
        elected.changes.append(Put(record))
        if record.leader_epoch > before.leader_epoch and record.leader != NO_LEADER:
            elected.reasons[chosen.reason if chosen else "clean"] += 1
            if chosen is not None and chosen.reason == "unclean":
                elected.lossy.append(record)
    return elected


def touched_by(image: ClusterImage, brokers: Collection[int]) -> list[PartitionRecord]:
    """Return the partitions that have a replica on one of `brokers`."""
    return [p for p in image.all_partitions() if any(broker in p.replicas for broker in brokers)]
