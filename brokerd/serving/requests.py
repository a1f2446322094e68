"""What a broker does with each request: the dispatch, without sockets and clocks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from brokerd.config import BrokerConfig
from brokerd.serving.cluster_view import ClusterView
from brokerd.serving.controller_link import (
    AlteredInSync,
    Complaints,
    ControllerLink,
    Effect,
    FencedOut,
    Forwarded,
    NewMetadata,
    ProducerIds,
    Reconnect,
    Registered,
    Send,
    ShutdownAnswered,
    Unanswered,
)
from brokerd.serving.fetch import FetchRoom
from brokerd.serving.groups import GROUP_APIS, GroupRoom
from brokerd.serving.hosted import HostedPartitions
from brokerd.serving.insync import InSyncSets
from brokerd.serving.offsets import OffsetsRoom
from brokerd.serving.outbox import Outbox, Peer
from brokerd.serving.partition import Partition
from brokerd.serving.produce import ProduceRoom
from brokerd.serving.producer_ids import ProducerIdBlocks
from brokerd.serving.replica_fetch import ReplicaFetchRoom
from brokerd.serving.unsent import UnsentAnswers
from ingest.errors import Fenced, ProtocolError, RemoteError
from ingest.limits import LIMITS
from ingest.topic_name import CONSUMER_OFFSETS
from ingest.wire.codes import ErrorCode
from ingest.wire.frames import Request, Response, decode_body, encode_raw_response, encode_request
from ingest.wire.messages import (
    BROKER_APIS,
    CONSUMER_BYTE_RATE,
    PRODUCER_BYTE_RATE,
    REQUESTS,
    VERSION_MAX,
    VERSION_MIN,
    ApiKey,
    ApiVersion,
    ApiVersionsResponse,
    BrokerMetadata,
    BrokerRegistrationRequest,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DescribeLogDirsResponse,
    InitProducerIdRequest,
    InitProducerIdResponse,
    NewTopic,
    ReplicaSize,
)

if TYPE_CHECKING:
    from brokerd.storage.compaction.cleaner import Cleaner
    from brokerd.storage.directory import LogDirectory
    from brokerd.storage.log import Log

log = structlog.get_logger()

FORWARDED = frozenset(
    {
        ApiKey.CREATE_TOPICS,
        ApiKey.DELETE_TOPICS,
        ApiKey.CREATE_PARTITIONS,
        ApiKey.DESCRIBE_CONFIGS,
        ApiKey.ALTER_CONFIGS,
        ApiKey.DESCRIBE_CLIENT_QUOTAS,
        ApiKey.ALTER_CLIENT_QUOTAS,
        ApiKey.ELECT_LEADERS,
        ApiKey.ALTER_PARTITION_REASSIGNMENTS,
        ApiKey.DRAIN_BROKER,
    }
)
CLIENT_APIS = tuple(sorted(api for api in REQUESTS if api not in BROKER_APIS))
PEER_APIS = frozenset({ApiKey.FETCH, ApiKey.API_VERSIONS})  # what brokers ask each other
LAG_MAX_MS = 3000  # replica.lag.time.max.ms
FORWARDED_MAX = 256  # requests that wait for the controller, all peers together
REFUSAL_TELL_MS = 10_000  # clients ask again and again
OFFSETS_TOPIC_RETRY_MS = 1000
PARKED_MAX = 4096  # producers that wait for an id; more are told to come back


@dataclass(frozen=True, slots=True)
class ToPeer:
    """Send one header frame to another broker; with an empty one its connection is to be made anew."""

    broker_id: int
    header: bytes


class RequestHandler:
    """Serve requests of clients and news of the controller. Thread: the broker loop.

    Attributes:
        outbox: Answers to send.
        to_controller: Effects for the controller's socket, in order.
        to_peers: Effects for the sockets to other brokers, in order.
        partitions: The replicas here.
        remaining: Once the controller has answered to a shutdown: how many partitions are still led here.
    """

    def __init__(
        self,
        config: BrokerConfig,
        directory: LogDirectory,
        endpoints: list[str],
        peer_endpoints: list[str],
        unsent: UnsentAnswers,
    ) -> None:
        self._config = config
        self._directory = directory
        self._endpoints = endpoints
        self.outbox = Outbox()
        self._peer_endpoints = peer_endpoints
        self.to_controller: list[Send | Reconnect] = []
        self.to_peers: list[ToPeer] = []
        self.partitions = HostedPartitions(directory, config.broker_id)
        find = self.partitions.find
        self.produce = ProduceRoom(find, self.outbox)
        self.fetch = FetchRoom(find, self.partitions.find_replica, self.outbox, config.response_bytes_max, unsent)
        self.offsets = OffsetsRoom(find, self.outbox)
        self.followers = ReplicaFetchRoom(
            find,
            self.partitions.broker_epoch,
            self.outbox,
            config.response_bytes_max,
            unsent,
            self.partitions.leader_throttle,
        )
        self.groups = GroupRoom(self.outbox, f"{config.broker_id}-{directory.incarnation}")
        self.in_sync = InSyncSets(LAG_MAX_MS)
        self.remaining: int | None = None
        self.view = ClusterView(self.outbox)
        self.link = ControllerLink(config.broker_id, self._registration, self._complaints)
        self._producer_ids = ProducerIdBlocks()
        self._waiting_for_ids: deque[tuple[Peer, int]] = deque()
        self.requests: dict[str, int] = {}
        self._registered_version = -1
        self._damage_told = 0
        self._refusal_told_ms = -REFUSAL_TELL_MS
        self._offsets_topic_wanted_ms = 0

    # ---- requests ----------------------------------------------------------------------------------------------------

    def handle(self, peer: Peer, request: Request, now_ms: int, wall_ms: int) -> None:
        """Serve one request; its answer appears in the outbox now or later."""
        api_key = request.api_key
        name = ApiKey(api_key).name
        self.requests[name] = self.requests.get(name, 0) + 1
        if api_key == ApiKey.PRODUCE:
            self.produce.handle(peer, request, now_ms, wall_ms)
        elif api_key == ApiKey.FETCH and request.body.session is not None:
            # one who only pretends to be a follower would move the high watermark (CVE-2018-1288)
            text = "only brokers fetch in sessions, on their own socket"
            self.outbox.refuse(peer, request.correlation_id, ErrorCode.CLUSTER_AUTHORIZATION_FAILED, text)
        elif api_key == ApiKey.FETCH:
            self.fetch.handle(peer, request, now_ms)
        elif api_key == ApiKey.METADATA:
            self._metadata(peer, request, now_ms)
        elif api_key == ApiKey.LIST_OFFSETS:
            self.offsets.list_offsets(peer, request)
        elif api_key == ApiKey.OFFSET_LAG:
            self.offsets.offset_lag(peer, request, wall_ms)
        elif api_key == ApiKey.OFFSET_FOR_LEADER_EPOCH:
            self.offsets.epoch_ends(peer, request)
        elif api_key == ApiKey.DESCRIBE_LOG_DIRS:
            self._describe_log_dirs(peer, request)
        elif api_key == ApiKey.DELETE_RECORDS:
            self.offsets.delete_records(peer, request)
        elif api_key == ApiKey.INIT_PRODUCER_ID:
            self._init_producer_id(peer, request, now_ms)
        elif api_key == ApiKey.API_VERSIONS:
            versions = [ApiVersion(int(api), VERSION_MIN, VERSION_MAX) for api in CLIENT_APIS]
            body = ApiVersionsResponse(
                versions, self._config.broker_id, self._config.cluster_id, self._directory.incarnation
            )
            self.outbox.answer(peer, request.correlation_id, body)
        elif api_key in GROUP_APIS:
            self.groups.handle(peer, request, now_ms, wall_ms)
            self._want_offsets_topic(now_ms)
        elif api_key in FORWARDED:
            self._forward(peer, request, now_ms)
        else:
            self.outbox.refuse(
                peer, request.correlation_id, ErrorCode.CLUSTER_AUTHORIZATION_FAILED, f"{name} is not for clients"
            )

    def _describe_log_dirs(self, peer: Peer, request: Request) -> None:
        space = self._directory.space()
        replicas = [
            ReplicaSize(one.log.topic_id, one.log.partition, one.log.size_bytes) for one in self.partitions.all()
        ]
        body = DescribeLogDirsResponse(self._config.log_dir, *space, replicas)
        self.outbox.answer(peer, request.correlation_id, body)

    def handle_peer(self, peer: Peer, request: Request, now_ms: int) -> None:
        """Serve one request of another broker."""
        name = ApiKey(request.api_key).name
        if request.api_key == ApiKey.FETCH and request.body.session is not None:
            self.requests["REPLICA_FETCH"] = self.requests.get("REPLICA_FETCH", 0) + 1
            self.followers.handle(peer, request, now_ms)
        else:
            self.outbox.refuse(
                peer, request.correlation_id, ErrorCode.CLUSTER_AUTHORIZATION_FAILED, f"{name} is not for brokers"
            )

    def _forward(self, peer: Peer, request: Request, now_ms: int) -> None:
        mine, everyones = self.link.forwarded(peer.connection)
        if mine >= FORWARDED_MAX // 8 or everyones >= FORWARDED_MAX:
            text = f"{everyones} requests wait for the controller, {mine} of them yours"
            self.outbox.refuse(peer, request.correlation_id, ErrorCode.THROTTLING_QUOTA_EXCEEDED, text)
            return
        timeout_ms = max(1, request.timeout_ms)
        self._take(self.link.forward(peer, request.correlation_id, request.body, now_ms, timeout_ms), now_ms)

    def _metadata(self, peer: Peer, request: Request, now_ms: int) -> None:
        body = request.body
        missing = self.view.missing(body)
        create = bool(missing) and body.allow_auto_topic_creation and self._config.auto_create_topics_enable
        if create and self.view.snapshot is not None and self.link.forwarded(_NOBODY.connection)[0] < FORWARDED_MAX:
            topics = CreateTopicsRequest([NewTopic(name) for name in missing])
            timeout_ms = max(1, request.timeout_ms)
            self._take(self.link.forward(_NOBODY, 0, topics, now_ms, timeout_ms), now_ms)
        self.view.handle(peer, request, now_ms, wait_for_creation=create)

    def _want_offsets_topic(self, now_ms: int) -> None:
        """Create the topic of committed offsets once somebody asks for a group; who asks comes again."""
        if self.groups.wanted and now_ms >= self._offsets_topic_wanted_ms:
            self._offsets_topic_wanted_ms = now_ms + OFFSETS_TOPIC_RETRY_MS
            topics = CreateTopicsRequest([NewTopic(CONSUMER_OFFSETS)])
            self._take(self.link.forward(_NOBODY, 0, topics, now_ms, OFFSETS_TOPIC_RETRY_MS), now_ms)
        self.groups.wanted = False

    def _init_producer_id(self, peer: Peer, request: Request, now_ms: int) -> None:
        body: InitProducerIdRequest = request.body
        if body.producer_id > LIMITS.producer_id_max:
            text = f"producer id {body.producer_id} was never granted"
            self.outbox.refuse(peer, request.correlation_id, ErrorCode.INVALID_REQUEST, text)
            return
        if body.producer_id >= 0 and 0 <= body.producer_epoch < 32766:
            answer = InitProducerIdResponse(body.producer_id, body.producer_epoch + 1)
            self.outbox.answer(peer, request.correlation_id, answer)
            return
        if len(self._waiting_for_ids) >= PARKED_MAX:
            self.outbox.refuse(peer, request.correlation_id, ErrorCode.THROTTLING_QUOTA_EXCEEDED, "too many wait")
            return
        self._waiting_for_ids.append((peer, request.correlation_id))
        self._hand_out_ids(now_ms)

    def _hand_out_ids(self, now_ms: int) -> None:
        while self._waiting_for_ids and (producer_id := self._producer_ids.take()) is not None:
            peer, correlation_id = self._waiting_for_ids.popleft()
            self.outbox.answer(peer, correlation_id, InitProducerIdResponse(producer_id, 0))
        if self._producer_ids.low:
            self._take(self.link.want_producer_ids(now_ms), now_ms)

    # ---- the log moves -----------------------------------------------------------------------------------------------

    def settle(self, now_ms: int, wall_ms: int) -> list[Log]:
        """Draw the consequences of what was appended or has changed hands; return the logs whose flush is awaited.

        Followers get it while it is being flushed here. Where no flush is awaited, the high watermark moves now.
        """
        self.produce.release(now_ms, wall_ms)
        self.groups.store(wall_ms)
        self.produce.touched |= self.groups.touched
        self.groups.touched = {}
        touched, self.produce.touched = self.produce.touched, {}
        unflushed = []
        for partition in touched:
            replica_log = partition.log
            if partition.durable and not replica_log.closed and replica_log.flushed_end < replica_log.end_offset:
                unflushed.append(replica_log)
            partition.advance(now_ms)
            self._moved(partition, now_ms)
        if touched:
            self.followers.appended(touched, now_ms)
            self.in_sync.watch(touched)
        self._settle_followers(now_ms)
        self._settle_damage(now_ms)
        return unflushed

    def flushed(self, flushed_log: Log, end_offset: int, now_ms: int) -> None:
        """Take note that a log is on the disk up to `end_offset`."""
        self._confirm(now_ms)  # a broker that stood still takes this before anything else
        flushed_log.flushed(end_offset)
        found = self.partitions.hosted(flushed_log.topic_id, flushed_log.partition)
        if found is not None and found.log is flushed_log:
            found.advance(now_ms)
            self._moved(found, now_ms)

    def _moved(self, partition: Partition, now_ms: int) -> None:
        """Answer who waited for the partition's marks, which have moved."""
        self.produce.committed(partition)
        if partition.topic == CONSUMER_OFFSETS:
            self.groups.committed(partition)
        self.followers.advanced(partition, now_ms)
        if partition.fetches:
            self.fetch.moved(partition, now_ms)

    def _settle_followers(self, now_ms: int) -> None:
        """Draw the consequences of what followers said: answer producers, propose in-sync sets."""
        moved, self.followers.moved = self.followers.moved, {}
        trimmed, self.offsets.trimmed = self.offsets.trimmed, {}
        for partition in (*moved, *trimmed):
            self._moved(partition, now_ms)
        checked, self.followers.checked = self.followers.checked, {}
        self.in_sync.look(checked, now_ms)
        self.in_sync.check(now_ms)
        if self.link.registered and not self.link.is_altering:
            wanted = self.in_sync.take(now_ms)
            if wanted:
                self._take(self.link.alter_partitions(wanted, now_ms), now_ms)

    def _settle_damage(self, now_ms: int) -> None:
        """Have what was found damaged refilled, and tell the controller at once."""
        for room in (self.fetch, self.offsets, self.followers, self.groups):
            damaged, room.damaged = room.damaged, {}
            for partition, reason in damaged.items():
                self.partitions.damaged(partition.key, reason)
        self.report_if(self.partitions.damage_found > self._damage_told, now_ms)
        self._damage_told = self.partitions.damage_found

    def compact(self, cleaner: Cleaner, now_ms: int) -> None:
        """Have the cleaner go on, and draw the consequences of what it did."""
        partitions = self.partitions
        cleaner.settings = partitions.cleaning
        cleaner.step(partitions.all, now_ms, may_start=not self._directory.disk_full)
        cleaned, cleaner.cleaned = cleaner.cleaned, []
        for key in cleaned:
            partitions.cleaned(key)
        damaged, cleaner.damaged = cleaner.damaged, {}
        for key, reason in damaged.items():
            partitions.damaged(key, reason)

    def report_if(self, news: bool, now_ms: int) -> None:
        """Tell the controller now, and not with the next heartbeat, what this broker is to be relieved of."""
        if news:
            self._take(self.link.report(now_ms), now_ms)

    def _complaints(self) -> Complaints:
        return Complaints(
            self.partitions.leaderless_ends(), self.partitions.damaged_replicas(), self._directory.disk_full
        )

    # ---- following ---------------------------------------------------------------------------------------------------

    def pull(self, now_ms: int) -> None:
        """Send the fetches that are due to the brokers that lead what is followed here."""
        for leader_id, puller in self.partitions.pullers.items():
            if puller.expire(now_ms):
                self.to_peers.append(ToPeer(leader_id, b""))
            due = puller.request(self.link.broker_epoch, now_ms) if self.link.registered else None
            if due is not None:
                number, request, timeout_ms = due
                header = encode_request(request, number, timeout_ms, f"broker-{self._config.broker_id}")
                self.to_peers.append(ToPeer(leader_id, header))

    def on_peer_response(self, leader_id: int, response: Response, now_ms: int, wall_ms: int) -> None:
        """Take the answer of a broker that is followed."""
        puller = self.partitions.pullers[leader_id]
        number = response.correlation_id
        try:
            body = decode_body(response, ApiKey.FETCH)
        except (RemoteError, ProtocolError):
            puller.on_refused(number, now_ms)
            return
        pulled = puller.on_answer(number, body, response.payload, now_ms=now_ms, wall_ms=wall_ms)
        for key in (*pulled.appended, *pulled.changed):
            hosted = self.partitions.hosted(*key)
            if hosted is not None:
                hosted.appended_bytes += pulled.appended.get(key, 0)
                self.produce.touched[hosted] = None
        for key, reason in pulled.offline:
            hosted = self.partitions.hosted(*key)
            log.error("a replica can't be followed", topic=hosted and hosted.topic, partition=key[1], reason=reason)
        for key, reason in pulled.refill:
            self.partitions.damaged(key, reason)

    def broker(self, broker_id: int) -> BrokerMetadata | None:
        """Return what is known of a broker."""
        snapshot = self.partitions.snapshot
        brokers = [] if snapshot is None else snapshot.brokers
        return next((broker for broker in brokers if broker.broker_id == broker_id), None)

    def on_peer_lost(self, leader_id: int, now_ms: int) -> None:
        """The connection to a broker that is followed has ended."""
        self.partitions.pullers[leader_id].on_lost(now_ms)

    # ---- time --------------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        """Answer what is overdue, go on opening partitions and talking to the controller."""
        self.produce.expire(now_ms)
        self.fetch.expire(now_ms)
        self.followers.expire(now_ms)
        self.view.expire(now_ms)
        self.groups.tick(now_ms)
        self._take(self.link.tick(now_ms), now_ms)
        self._confirm(now_ms)
        if self._producer_ids.low:
            self._take(self.link.want_producer_ids(now_ms), now_ms)

    def _confirm(self, now_ms: int) -> None:
        """Note whether the controller may be taken to know this broker still."""
        for partition in self.partitions.confirm(now_ms < self.link.confirmed_until_ms):
            self.produce.touched[partition] = None

    def apply_some(self, now_ms: int) -> None:
        """Open, create, change and delete a few partitions as metadata says; report once all is done."""
        if not self.partitions.pending:
            return
        applied = self.partitions.apply_some(now_ms)
        for partition in applied.touched:  # what a takeover found must be flushed before it counts
            self.produce.touched[partition] = None
            self.followers.recount(partition, now_ms)
            if partition.topic == CONSUMER_OFFSETS and partition.leadership is not None:
                self.groups.lead(partition)
        for partition in applied.ended:
            self.produce.abandon(partition, ErrorCode.REQUEST_TIMED_OUT, "the partition moved or was deleted")
            self.fetch.abandon(partition, now_ms)
            self.followers.ended(partition, now_ms)
            if partition.topic == CONSUMER_OFFSETS and partition.leadership is None:
                self.groups.end(partition)
        if self.partitions.is_applied():
            self._take(self.link.applied(self.partitions.version, now_ms), now_ms)
            snapshot = self.partitions.snapshot
            assert snapshot is not None
            self.in_sync.lag_max_ms = int(snapshot.broker_configs.get("replica.lag.time.max.ms", LAG_MAX_MS))
            self.in_sync.watch(self.partitions.led())  # a broker's new epoch alone makes it lack everything
            selects = bool(snapshot.broker_configs.get("replica.selector.class"))
            self.fetch.racks = {b.broker_id: b.rack for b in snapshot.brokers if selects and b.alive}
            self.followers.tells_marks = selects
            for quota, name in ((self.produce.quota, PRODUCER_BYTE_RATE), (self.fetch.quota, CONSUMER_BYTE_RATE)):
                quota.set({client: rates[name] for client, rates in snapshot.client_quotas.items() if name in rates})
            self.groups.update(snapshot)
            self.view.update(snapshot)

    def shut_down(self, now_ms: int) -> None:
        """Ask the controller to have others lead what is led here."""
        self._take(self.link.shut_down(now_ms), now_ms)

    def next_deadline_ms(self) -> int:
        """Return when `tick` is due at the latest."""
        times = [self.link.next_deadline_ms(), self.in_sync.next_ms()]
        for due in (
            self.produce.next_deadline_ms(),
            self.fetch.next_deadline_ms(),
            self.followers.next_deadline_ms(),
            self.view.next_deadline_ms(),
            self.groups.next_deadline_ms(),
            *(puller.deadline_ms() for puller in self.partitions.pullers.values()),
        ):
            if due is not None:
                times.append(due)
        return min(times)

    # ---- the controller ----------------------------------------------------------------------------------------------

    def _registration(self) -> BrokerRegistrationRequest:
        config = self._config
        stats = self._directory.device
        broker = BrokerMetadata(
            config.broker_id,
            self.link.broker_epoch,
            self._endpoints,
            config.machine,
            config.log_dir,
            config.page_path,
            self._directory.incarnation,
            rack=config.rack,
            directory_id=self._directory.directory_id,
            device=stats,
            peer_endpoints=self._peer_endpoints,
            site=config.site,
            kafka_endpoints=config.kafka_endpoints,
        )
        found = self.partitions.local_partitions()
        floor = self.partitions.producer_id_floor()
        directory = self._directory
        return BrokerRegistrationRequest(
            broker, config.cluster_id, found, floor, directory.intact, directory.incarnations
        )

    def on_controller(self, effects: list[Effect], now_ms: int) -> None:
        self._take(effects, now_ms)

    def _take(self, effects: list[Effect], now_ms: int) -> None:
        for effect in effects:
            match effect:
                case FencedOut():
                    raise Fenced(
                        "a newer incarnation of this broker is registered; this one ends",
                        code=int(ErrorCode.STALE_BROKER_EPOCH),
                    )
                case Send() | Reconnect():
                    self.to_controller.append(effect)
                case Registered(version=version):
                    self._registered_version = version
                    self._directory.registered()
                case NewMetadata(snapshot=snapshot):
                    if snapshot.version >= self._registered_version:
                        self.partitions.plan(snapshot)
                        self.apply_some(now_ms)
                case AlteredInSync(response=response):
                    self.in_sync.answered(response, now_ms)
                case ShutdownAnswered(remaining=remaining):
                    self.remaining = remaining
                case ProducerIds(start=start, count=count):
                    self._producer_ids.add(start, count)
                    self._hand_out_ids(now_ms)
                case Forwarded(peer=peer, correlation_id=correlation_id, response=passed):
                    if peer is not _NOBODY:
                        self.outbox.pass_on(peer, encode_raw_response(correlation_id, passed))
                    else:
                        self._created(passed, now_ms)
                case Unanswered(peer=peer, correlation_id=correlation_id):
                    if peer is not _NOBODY:
                        self.outbox.refuse(
                            peer, correlation_id, ErrorCode.REQUEST_TIMED_OUT, "the controller did not answer in time"
                        )

    def _created(self, response: Response, now_ms: int) -> None:
        """Tell who waits for topics, and the operator, that some can't be created. The others come with metadata."""
        try:
            body: CreateTopicsResponse = decode_body(response, ApiKey.CREATE_TOPICS)
        except (ProtocolError, RemoteError):
            return  # the controller has changed, or has no room: clients ask again
        refused = [topic for topic in body.topics if topic.error_code not in _MADE]
        self.view.not_created({topic.name: topic.error_code for topic in refused})
        if refused and now_ms >= self._refusal_told_ms + REFUSAL_TELL_MS:
            self._refusal_told_ms = now_ms
            log.warning("a topic can't be created for a client", topic=refused[0].name, reason=refused[0].message)


_NOBODY = Peer(-1, b"")
_MADE = (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS)
