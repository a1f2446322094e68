"""The core against a small model, over any order of requests, deaths, lost answers, full disks and controllers."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from brokerd.control.events import ConnectionLost, PeerGone, Respond
from brokerd.control.image import ClusterImage
from brokerd.control.records import encode_record
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    AllocateProducerIdsRequest,
    BrokerHeartbeatRequest,
    BrokerHeartbeatResponse,
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    LocalPartition,
    MetadataResponse,
    NewPartitions,
    NewTopic,
)
from tests.brokerd.control.driver import Driver
from tests.brokerd.control.harness import registration

BROKERS = st.sampled_from([1, 2])
NAMES = st.sampled_from(["a", "a", "b", "c.d", "c_d", "__x"])


class ModelBroker:
    """A broker's disk and its present incarnation.

    Attributes:
        logs: The epoch of the last batch, by partition; what survives the process. -1: an empty log.
        led: The epochs this incarnation was granted.
    """

    def __init__(self, broker_id: int) -> None:
        self.broker_id = broker_id
        self.incarnation = 0
        self.epoch = -1
        self.applied = -1
        self.logs: dict[tuple[bytes, int], int] = {}
        self.led: dict[tuple[bytes, int], int] = {}

    @property
    def registered(self) -> bool:
        return self.epoch > 0


class ControllerMachine(RuleBasedStateMachine):
    """Promises: no epoch is granted to two incarnations, no producer id is given twice, nothing acknowledged is
    forgotten by the next controller, and nothing is erased that some broker still might need."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = Driver()
        self.brokers = {broker_id: ModelBroker(broker_id) for broker_id in (1, 2)}
        self.granted: dict[tuple[bytes, int, int], tuple[int, int]] = {}  # (partition, epoch) -> who
        self.topics: dict[str, int] = {}
        self.producer_ids: set[int] = set()
        self.versions = 0
        self.incarnations = 0

    @initialize()
    def begin(self) -> None:
        self.restart_broker(1)
        self.restart_broker(2)
        self.create("a", 3, 0)

    @rule(broker_id=BROKERS)
    def restart_broker(self, broker_id: int) -> None:
        """Kill the process, if there is one, and register the next; it leads at once under what it is granted."""
        broker = self.brokers[broker_id]
        self.incarnations += 1
        broker.incarnation, broker.epoch, broker.applied, broker.led = self.incarnations, -1, -1, {}
        self.register(broker)

    def register(self, broker: ModelBroker) -> None:
        found = [LocalPartition(topic_id, index, epoch, 0) for (topic_id, index), epoch in broker.logs.items()]
        request = registration(broker.broker_id, incarnation=broker.incarnation, partitions=found)
        (answer,) = self.answers(self.driver.send(request, b"broker-%d" % broker.broker_id), broker)
        if self.driver.disk_full and answer.body is None:
            assert answer.code == ErrorCode.KAFKA_STORAGE_ERROR
            return
        assert answer.body is not None, answer
        broker.epoch = self.driver.epochs[broker.broker_id] = answer.body.broker_epoch  # type: ignore[attr-defined]

    def answers(self, answers: list[Respond], broker: ModelBroker) -> list[Respond]:
        mine = [a for a in answers if a.peer == b"broker-%d" % broker.broker_id]
        for answer in answers:
            if isinstance(answer.body, BrokerHeartbeatResponse):
                self.versions = max(self.versions, answer.body.version)
        return mine[-1:]

    @rule(broker_id=BROKERS)
    def heartbeat(self, broker_id: int) -> None:
        """Hear of the cluster, lead what it says, erase what it allows."""
        broker = self.brokers[broker_id]
        if not broker.registered:
            return
        request = BrokerHeartbeatRequest(broker_id, broker.epoch, broker.applied, 100)
        for answer in self.answers(self.driver.send(request, b"broker-%d" % broker_id), broker):
            assert isinstance(answer.body, BrokerHeartbeatResponse), answer
            if answer.body.metadata is not None:
                self.apply(broker, answer.body.metadata)
            assert broker.applied == answer.body.version

    def apply(self, broker: ModelBroker, metadata: MetadataResponse) -> None:
        for topic in metadata.topics:
            for p in topic.partitions:
                if p.leader != broker.broker_id:
                    continue
                key = (topic.topic_id, p.partition)
                if broker.led.get(key) != p.leader_epoch:
                    assert p.leader_epoch > broker.logs.get(key, -1), "an epoch that the log has seen"
                    broker.led[key] = p.leader_epoch
                    broker.logs.setdefault(key, -1)
                who = self.granted.setdefault((*key, p.leader_epoch), (broker.broker_id, broker.incarnation))
                assert who == (broker.broker_id, broker.incarnation), "one epoch, two incarnations"
        for topic_id in metadata.deleted_topic_ids:
            assert topic_id not in {t.topic_id for t in metadata.topics}
            for key in [key for key in broker.logs if key[0] == topic_id]:
                del broker.logs[key]
                broker.led.pop(key, None)
        broker.applied = metadata.version

    @rule(broker_id=BROKERS)
    def append(self, broker_id: int) -> None:
        """Write under the epochs granted; only what was written leaves a trace of its epoch."""
        broker = self.brokers[broker_id]
        broker.logs.update(broker.led)

    @rule(name=NAMES, count=st.sampled_from([3, 1, 0]), timeout_ms=st.sampled_from([0, 500, 5000]))
    def create(self, name: str, count: int, timeout_ms: int) -> None:
        answers = self.driver.send(CreateTopicsRequest([NewTopic(name, count)]), timeout_ms=timeout_ms)
        clash = {n.replace(".", "_") for n in self.topics}
        legal = name in ("a", "b", "c.d", "c_d") and name.replace(".", "_") not in clash and count > 0
        if legal and not self.driver.disk_full and self.driver.core.image.alive_brokers():
            self.topics[name] = count
        else:
            (answer,) = answers
            assert answer.body is None or answer.body.topics[0].error_code != 0  # type: ignore[attr-defined]

    @rule(name=NAMES, total=st.integers(1, 6))
    def grow(self, name: str, total: int) -> None:
        self.driver.send(CreatePartitionsRequest([NewPartitions(name, total)]))
        room = not self.driver.disk_full and self.driver.core.image.alive_brokers()
        if self.topics.get(name, total) < total and room:
            self.topics[name] = total

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.driver.send(DeleteTopicsRequest([name]))
        if not self.driver.disk_full:
            self.topics.pop(name, None)

    @rule(broker_id=BROKERS)
    def allocate_producer_ids(self, broker_id: int) -> None:
        broker = self.brokers[broker_id]
        if not broker.registered:
            return
        answer = self.driver.send(AllocateProducerIdsRequest(broker_id, broker.epoch), b"asker")[-1]
        if answer.body is not None:
            start, count = answer.body.producer_id_start, answer.body.count  # type: ignore[attr-defined]
            assert not self.producer_ids & {start, start + count - 1}
            self.producer_ids |= {start, start + count - 1}

    @rule(ms=st.sampled_from([1, 500, 1000, 9000]))
    def time_passes(self, ms: int) -> None:
        self.driver.later(ms)

    @precondition(lambda self: not self.driver.disk_full)
    @rule(name=st.sampled_from(["a", "b"]), away=BROKERS)
    def delete_while_one_is_away(self, name: str, away: int) -> None:
        """The order that would erase a mark too early, which chance alone seldom finds."""
        self.driver.later(9000)
        self.delete(name)
        for broker_id in self.brokers:
            if broker_id != away:
                self.heartbeat(broker_id)
                self.heartbeat(broker_id)

    @rule(broker_id=BROKERS)
    def connection_ends(self, broker_id: int) -> None:
        self.driver.step(ConnectionLost())
        self.driver.step(PeerGone(b"broker-%d" % broker_id))

    @rule()
    def disk_fills(self) -> None:
        self.driver.disk_full = True

    @precondition(lambda self: self.driver.disk_full)
    @rule()
    def disk_has_room(self) -> None:
        self.driver.disk_full = False

    @rule()
    def controller_dies(self) -> None:
        self.driver.restart()

    @invariant()
    def what_is_durable_is_what_is_in_memory(self) -> None:
        image = ClusterImage(self.driver.records())
        ours = {encode_record(r) for r in self.driver.core.image.records()}
        assert {encode_record(r) for r in image.records()} == ours

    @invariant()
    def topics_are_as_asked_for(self) -> None:
        image = self.driver.core.image
        found = {t.name: len(image.partitions[t.topic_id]) for t in image.topics.values()}
        assert found == self.topics

    @invariant()
    def no_version_is_told_that_is_not_durable(self) -> None:
        assert self.versions <= self.driver.core.image.version

    @invariant()
    def nothing_is_forgotten_that_a_broker_has_still_to_erase(self) -> None:
        image = self.driver.core.image
        known = set(image.topics) | set(image.deleted_topics)
        for broker in self.brokers.values():
            if broker.registered:
                assert {topic_id for topic_id, _ in broker.logs} <= known


TestController = ControllerMachine.TestCase
TestController.settings = settings(max_examples=150, stateful_step_count=50)
