"""The bytes of the metadata store, pinned: docs/format/metadata-store.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.control.embedded import EmbeddedStore
from brokerd.control.records import (
    BrokerConfigsRecord,
    BrokerRecord,
    ClientQuotaRecord,
    DeletedTopicRecord,
    PartitionRecord,
    ProducerIdsRecord,
    Record,
    TopicRecord,
    VersionRecord,
    decode_record,
    encode_record,
)
from tests.brokerd.control.harness import ThreadLifeline

TOPIC_ID = bytes(range(16))
UUID = "00010203-0405-0607-0809-0a0b0c0d0e0f"
BASE64 = "AAECAwQFBgcICQoLDA0ODw=="


@pytest.mark.parametrize(
    ("record", "path", "value"),
    [
        (VersionRecord(7), "/version", '{"type":"version","version":7}'),
        (ProducerIdsRecord(1000), "/producer_ids", '{"type":"producer-ids","next_producer_id":1000}'),
        (
            BrokerConfigsRecord({"log.retention.ms": "5"}),
            "/config/brokers",
            '{"type":"broker-configs","configs":{"log.retention.ms":"5"}}',
        ),
        (
            ClientQuotaRecord("a/b", {"producer_byte_rate": 1024}),
            "/config/clients/a%2Fb",
            '{"type":"client-quota","client_id":"a/b","rates":{"producer_byte_rate":1024}}',
        ),
        (
            ClientQuotaRecord("", {"consumer_byte_rate": 1}),
            "/config/clients/<default>",
            '{"type":"client-quota","client_id":"","rates":{"consumer_byte_rate":1}}',
        ),
        (
            BrokerRecord(1, 2, 3, "uuid", ["ipc:///x"], "boot", "/data", "/page", "r", 4, False, [9]),
            "/brokers/1",
            '{"type":"broker","broker_id":1,"broker_epoch":2,"incarnation":3,"directory_id":"uuid",'
            '"endpoints":["ipc:///x"],"machine":"boot","log_dir":"/data","page_path":"/page","rack":"r","device":4,'
            '"alive":false,"past_incarnations":[9],"peer_endpoints":[],"site":"","draining":false,"kafka_endpoints":[]}',
        ),
        (
            TopicRecord(TOPIC_ID, "sensors", {"retention.ms": "1"}),
            f"/topics/{UUID}",
            f'{{"type":"topic","topic_id":"{BASE64}","name":"sensors","configs":{{"retention.ms":"1"}}}}',
        ),
        (
            PartitionRecord(
                topic_id=TOPIC_ID, partition=3, leader=1, replicas=[1, 2], isr=[1], leader_epoch=4, partition_epoch=5
            ),
            f"/topics/{UUID}/partitions/3",
            '{"type":"partition","leader":1,"leader_epoch":4,"partition_epoch":5,"replicas":[1,2],"isr":[1],'
            '"eligible":[],"recovering":[],"adding":[],"removing":[],"unclean_epoch":-1,"throttle_bytes_per_s":0,'
            f'"topic_id":"{BASE64}","partition":3}}',
        ),
        (
            DeletedTopicRecord(TOPIC_ID, "gone", 6),
            f"/deleted_topics/{UUID}",
            f'{{"type":"deleted-topic","topic_id":"{BASE64}","name":"gone","version":6}}',
        ),
    ],
)
def test_a_record_keeps_its_path_and_bytes(record: Record, path: str, value: str) -> None:
    assert record.path == path
    assert encode_record(record).decode() == value
    assert decode_record(value.encode()) == record


@pytest.mark.parametrize("client_id", [".", "..", "<default>", "ä ö", "%2E", "a\0b"])
def test_every_client_id_has_a_path_of_its_own_that_a_tree_can_have(client_id: str) -> None:
    path = ClientQuotaRecord(client_id, {}).path
    name = path.removeprefix("/config/clients/")
    assert name.isascii()
    assert name.isprintable()
    assert "/" not in name
    assert name.strip(".")
    assert name not in {ClientQuotaRecord(other, {}).path for other in ("", "...", "%2E%2E") if other != client_id}


def test_the_file_says_what_it_is_in_its_first_bytes(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path, cluster_id="c")
    assert store.campaign(ThreadLifeline().stop_fd, lambda: None) == 1
    store.resign()
    header = (tmp_path / "meta.db").read_bytes()[:100]
    assert header[60:64] == (1).to_bytes(4, "big")
    assert header[68:72] == b"FBMD"
