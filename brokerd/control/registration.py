"""Decide what the registration of a broker changes; pure.

No process appends under an epoch that was granted to an earlier incarnation: every incarnation gets, for each partition
it leads, an epoch above all that the store and its own log have seen, in one transaction, before it is answered.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from brokerd.control.elections import Elected, Electorates, settle_all, touched_by
from brokerd.control.events import Note
from brokerd.control.image import ClusterImage
from brokerd.control.limits import ControlLimits
from brokerd.control.records import BrokerRecord, Change, PartitionRecord, ProducerIdsRecord, Put, VersionRecord
from brokerd.control.topics import Refused
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import BrokerMetadata, BrokerRegistrationRequest
from replicas.election import come_back, forfeit

_ENDPOINTS_MAX = 16
_TEXT_CHARS_MAX = 4096  # PATH_MAX


@dataclass(slots=True)
class RegistrationDecision:
    """What is committed before the broker is answered.

    Attributes:
        changes: Nothing at all if this incarnation is registered already: its request was sent twice.
        replaced_directory: The id of the directory this broker had before, where it is another one now.
        lost: How many partitions it led were in that one.
        older_copy: The directory is the one it had, as it was some time ago.
    """

    broker_epoch: int
    changes: list[Change] = field(default_factory=list)
    elected: Elected = field(default_factory=Elected)
    replaced_directory: str = ""
    lost: int = 0
    older_copy: bool = False
    stray: int = 0

    def notes(self, broker_id: int) -> list[Note]:
        """Return what to tell the operator."""
        notes = [Note("info", "broker registered", {"broker": broker_id, "epoch": self.broker_epoch})]
        if self.replaced_directory:
            fields: dict[str, object] = {
                "broker": broker_id,
                "directory_before": self.replaced_directory,
                "partitions_lost": self.lost,
            }
            notes.append(Note("error", "broker came with another log directory: what it held alone is lost", fields))
        if self.older_copy:
            text = "broker came with an older copy of its log directory: what it has held alone since is lost"
            notes.append(Note("error", text, {"broker": broker_id}))
        if self.stray:
            notes.append(Note("warning", "broker holds partitions of unknown topics", {"count": self.stray}))
        return notes


def decide_registration(
    image: ClusterImage,
    request: BrokerRegistrationRequest,
    cluster_id: str,
    limits: ControlLimits,
    electorates: Electorates,
    *,
    heard: bool,
) -> RegistrationDecision:
    """Return the changes that make this incarnation the broker of its id.

    Args:
        electorates: In which this broker can lead.
        heard: Whether this controller has heard a broker of that id.
    Raises:
        Refused: the request is malformed, of another cluster, of an incarnation that was replaced, or of a machine
            that claims another's id.
    """
    _check(request, cluster_id, limits)
    broker = request.broker
    before = image.brokers.get(broker.broker_id)
    if before is not None and broker.incarnation in before.past_incarnations:
        raise Refused(
            ErrorCode.STALE_BROKER_EPOCH,
            f"broker {broker.broker_id} was registered by a later process since; this one must end",
        )
    if before is not None and _is_anothers(broker, before, heard=heard):
        raise Refused(
            ErrorCode.DUPLICATE_BROKER_REGISTRATION,
            f"broker {broker.broker_id} is another's: {before.log_dir}, {', '.join(before.endpoints)}",
        )
    again = is_registered(image, broker)
    replaced = before is not None and before.directory_id != broker.directory_id
    older_copy = before is not None and not again and not replaced and _is_older_copy(request, before)
    elected = _elect(image, request, electorates, again=again, replaced=replaced or older_copy)
    floor = request.producer_id_floor
    next_producer_id = max(image.next_producer_id, floor + 1 if floor <= limits.producer_id_floor_max else 0)
    record = broker_record(request, before, limits)
    changes = list(elected.changes)
    if next_producer_id > image.next_producer_id:
        changes.append(Put(ProducerIdsRecord(next_producer_id)))
    if again and before is not None and not changes and record == before:
        return RegistrationDecision(before.broker_epoch)
    decision = RegistrationDecision(record.broker_epoch, elected=elected, older_copy=older_copy)
    decision.changes = [Put(record), *changes, Put(VersionRecord(image.version + 1))]
    found = {(p.topic_id, p.partition) for p in request.partitions}
    decision.stray = sum(topic_id not in image.topics for topic_id, _ in found)
    if before is not None and replaced:
        decision.replaced_directory = before.directory_id
        decision.lost = sum(
            broker.broker_id in p.seats and (p.topic_id, p.partition) not in found for p in image.all_partitions()
        )
    return decision


def is_registered(image: ClusterImage, broker: BrokerMetadata) -> bool:
    """Tell whether it is this very process that registered last under its id."""
    before = image.brokers.get(broker.broker_id)
    return before is not None and before.incarnation == broker.incarnation


def _is_anothers(broker: BrokerMetadata, before: BrokerRecord, *, heard: bool) -> bool:
    """Tell whether the id belongs to another directory, or to one that this is a copy of and that is in use."""
    if before.site != broker.site and before.directory_id != broker.directory_id:
        return True
    return before.alive and heard and (before.machine, before.log_dir) != (broker.machine, broker.log_dir)


def _is_older_copy(request: BrokerRegistrationRequest, before: BrokerRecord) -> bool:
    """Tell whether the last process that registered has not had this directory, though its id is the same: a backup.

    What such a replica lacks was acknowledged with its vote, so that it has none, as an empty one.
    """
    return bool(request.incarnations) and before.incarnation not in request.incarnations


def _elect(
    image: ClusterImage, request: BrokerRegistrationRequest, electorates: Electorates, *, again: bool, replaced: bool
) -> Elected:
    """Return what becomes of the partitions this broker has a replica of."""
    broker_id = request.broker.broker_id
    found = {(p.topic_id, p.partition): p for p in request.partitions}

    def epoch_in_log(record: PartitionRecord) -> int:
        local = found.get((record.topic_id, record.partition))
        return -1 if local is None else local.leader_epoch

    def prepare(record: PartitionRecord) -> PartitionRecord:
        local = found.get((record.topic_id, record.partition))
        if not again:
            record = come_back(record, broker_id, intact=request.intact and local is not None)
        return forfeit(record, broker_id) if replaced else record

    own = touched_by(image, {broker_id})
    strays = [p for p in image.all_partitions() if broker_id not in p.replicas and epoch_in_log(p) > p.leader_epoch]
    return settle_all([*own, *strays], electorates, prepare, epoch_in_log)


def broker_record(
    request: BrokerRegistrationRequest, before: BrokerRecord | None, limits: ControlLimits
) -> BrokerRecord:
    """Return the record of the broker that registers."""
    broker = request.broker
    epoch, past = 1, []
    if before is not None:
        epoch, past = before.broker_epoch, before.past_incarnations
        if before.incarnation != broker.incarnation:
            epoch += 1
            past = [*past, before.incarnation][-limits.past_incarnations_max :]
    return BrokerRecord(
        broker_id=broker.broker_id,
        broker_epoch=epoch,
        incarnation=broker.incarnation,
        directory_id=broker.directory_id,
        endpoints=list(broker.endpoints),
        machine=broker.machine,
        log_dir=broker.log_dir,
        page_path=broker.page_path,
        rack=broker.rack,
        device=broker.device,
        alive=True,
        past_incarnations=past,
        peer_endpoints=list(broker.peer_endpoints),
        site=broker.site,
        draining=before is not None and before.draining,
        kafka_endpoints=list(broker.kafka_endpoints),
    )


def _check(request: BrokerRegistrationRequest, cluster_id: str, limits: ControlLimits) -> None:
    broker = request.broker
    if request.cluster_id != cluster_id:
        raise Refused(
            ErrorCode.INVALID_REQUEST,
            f"broker {broker.broker_id} belongs to cluster {request.cluster_id[:64]}, this is {cluster_id}",
        )
    endpoints = [*broker.endpoints, *broker.peer_endpoints, *broker.kafka_endpoints]
    texts = [broker.machine, broker.log_dir, broker.page_path, broker.rack, broker.site, broker.directory_id]
    if (
        not 0 <= broker.broker_id < 2**31
        or broker.incarnation < 0
        or not 1 <= len(broker.endpoints) <= _ENDPOINTS_MAX
        or max(len(broker.peer_endpoints), len(broker.kafka_endpoints)) > _ENDPOINTS_MAX
        or any(len(text) > _TEXT_CHARS_MAX for text in (*texts, *endpoints))
    ):
        raise Refused(ErrorCode.INVALID_REQUEST, f"broker {broker.broker_id}: no valid registration")
    for p in request.partitions:
        if p.leader_epoch > limits.leader_epoch_max:
            name = str(uuid.UUID(bytes=p.topic_id)) if len(p.topic_id) == 16 else p.topic_id[:32].hex()
            raise Refused(
                ErrorCode.INVALID_REQUEST,
                f"{name}-{p.partition}: leader epoch {p.leader_epoch} in the log is beyond {limits.leader_epoch_max}; "
                "`forebay log verify` tells what is wrong with it",
            )
