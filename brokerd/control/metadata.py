"""The cluster's state as brokers and clients are told it; pure."""

from __future__ import annotations

from brokerd.control.broker_settings import EffectiveConfigs
from brokerd.control.image import ClusterImage
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import BrokerMetadata, MetadataResponse, PartitionMetadata, TopicMetadata


class MetadataView:
    """Answers to Metadata and BrokerHeartbeat, made once a version. Cost of a new version: all partitions."""

    def __init__(
        self, image: ClusterImage, cluster_id: str, controller_epoch: int, file_configs: dict[str, str]
    ) -> None:
        self._image = image
        self._cluster_id = cluster_id
        self._controller_epoch = controller_epoch
        self._file_configs = file_configs
        self._made: MetadataResponse | None = None
        self._topics: dict[str, TopicMetadata] = {}

    @property
    def configs(self) -> EffectiveConfigs:
        return EffectiveConfigs(self._file_configs, self._image.broker_configs)

    def for_brokers(self) -> MetadataResponse:
        """Return everything, with what may be erased, the broker configs and the quotas in force."""
        if self._made is None or self._made.version != self._image.version:
            self._made = self._make()
            self._topics = {topic.name: topic for topic in self._made.topics}
        return self._made

    def for_clients(self, names: list[str] | None) -> MetadataResponse:
        """Return the topics asked for by name, None for all."""
        full = self.for_brokers()
        topics = full.topics if names is None else [self._topics.get(name) or _unknown(name) for name in names]
        return MetadataResponse(full.cluster_id, full.version, full.controller_epoch, full.brokers, topics)

    def _make(self) -> MetadataResponse:
        image, configs = self._image, self.configs
        return MetadataResponse(
            cluster_id=self._cluster_id,
            version=image.version,
            controller_epoch=self._controller_epoch,
            brokers=[
                BrokerMetadata(
                    broker_id=broker.broker_id,
                    broker_epoch=broker.broker_epoch,
                    endpoints=broker.endpoints,
                    machine=broker.machine,
                    log_dir=broker.log_dir,
                    page_path=broker.page_path,
                    incarnation=broker.incarnation,
                    alive=broker.alive,
                    rack=broker.rack,
                    directory_id=broker.directory_id,
                    device=broker.device,
                    peer_endpoints=broker.peer_endpoints,
                    site=broker.site,
                    draining=broker.draining,
                    kafka_endpoints=broker.kafka_endpoints,
                )
                for _, broker in sorted(image.brokers.items())
            ],
            topics=[
                TopicMetadata(
                    topic.name,
                    topic.topic_id,
                    [
                        PartitionMetadata(
                            p.partition,
                            p.leader,
                            p.leader_epoch,
                            p.replicas,
                            p.isr,
                            p.partition_epoch,
                            p.eligible,
                            p.recovering,
                            p.adding,
                            p.removing,
                            p.unclean_epoch,
                            p.throttle_bytes_per_s,
                        )
                        for p in image.partitions[topic.topic_id]
                    ],
                    configs.topic(topic.configs),
                )
                for topic in sorted(image.topics.values(), key=lambda topic: topic.name)
            ],
            deleted_topic_ids=list(image.deleted_topics),
            broker_configs=configs.broker(),
            client_quotas={client_id: dict(rates) for client_id, rates in image.client_quotas.items()},
        )


def _unknown(name: str) -> TopicMetadata:
    return TopicMetadata(name, b"", [], {}, int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION))
