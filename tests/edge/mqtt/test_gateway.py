"""The gateway over real sockets and the fake log."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.mqtt.codes import Reason
from edge.mqtt.config import MqttConfig
from edge.mqtt.packets import Will
from edge.mqtt.properties import Property
from ingest.errors import ConfigError, RemoteError, TransportError
from tests.edge.mqtt import client_packets as c
from tests.edge.mqtt.raw_device import RawDevice
from tests.edge.mqtt.running_gateway import RunningGateway

SECONDS = 10
WILL = Will("plant/will", b"gone", 1, False)


def mid(number: int) -> bytes:
    return number.to_bytes(2, "big")


class Paho:
    """A paho client with its thread."""

    def __init__(
        self, port: int, version: MQTTProtocolVersion, client_id: str = "paho", *, inflight: int = 20, **options: Any
    ) -> None:
        if version != MQTTProtocolVersion.MQTTv5:
            options.setdefault("clean_session", True)
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=version, **options)
        self.client.max_inflight_messages_set(inflight)  # paho does not look at the gateway's receive maximum
        self.connected = threading.Event()
        self.gone = threading.Event()
        self.reasons: list[Any] = []
        self.client.on_connect = lambda *args: (self.reasons.append(args[3]), self.connected.set())
        self.client.on_disconnect = lambda *args: (self.reasons.append(args[3]), self.gone.set())
        self.port = port

    def __enter__(self) -> Paho:
        self.client.connect("127.0.0.1", self.port)
        self.client.loop_start()
        assert self.connected.wait(SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()


VERSIONS = [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5]


@pytest.mark.parametrize("version", VERSIONS)
def test_paho_publishes_at_every_qos(version: MQTTProtocolVersion) -> None:
    with RunningGateway() as gateway, Paho(gateway.port, version) as device:
        for qos in (0, 1, 2):
            sent = [device.client.publish(f"plant/{qos}", b"%d" % n, qos=qos, retain=n == 1) for n in range(50)]
            for message in sent:
                message.wait_for_publish(SECONDS)
        records = gateway.records(150)
        assert [int(record.value) for record in records] == list(range(50)) * 3
        assert {record.key for record in records} == {b"paho"}
        assert [record.header("mqtt.qos") for record in records[::50]] == [b"0", b"1", b"2"]
        assert sum(record.header("mqtt.retain") == b"1" for record in records) == 3
        stats = gateway.stats()
        assert stats.received_total == stats.acknowledged_total == stats.appended_total == 150


def test_puback_waits_for_the_log_and_pings_are_answered_meanwhile() -> None:
    with RunningGateway(log={"holds": True}) as gateway, RawDevice(gateway.port) as device:
        device.connect()
        device.send(c.publish("a", b"1", qos=1, mid=1) + c.PINGREQ)
        assert device.receive() == (0xD0, b"")
        gateway.until(lambda: gateway.log.waiting == 1)
        gateway.call(gateway.log.acknowledge)
        assert device.receive() == (0x40, mid(1))
        gateway.check_balance()


def test_an_unknown_outcome_is_tried_again_and_the_puback_held() -> None:
    with RunningGateway(log={"holds": True}) as gateway, RawDevice(gateway.port) as device:
        device.connect()
        device.send(c.publish("a", b"1", qos=1, mid=1))
        gateway.until(lambda: gateway.log.waiting == 1)
        gateway.call(gateway.log.fail, TransportError("gone"))
        gateway.until(lambda: gateway.log.waiting == 1 and gateway.log.sent == 2)
        gateway.call(gateway.log.acknowledge)
        assert device.receive() == (0x40, mid(1))
        assert gateway.stats().retried_total == 1


def test_a_full_log_stops_the_reading_and_loses_nothing() -> None:
    with (
        RunningGateway(log={"holds": True, "buffer_memory": 10_000}, held_bytes_max=20_000) as gateway,
        RawDevice(gateway.port) as device,
    ):
        device.connect()
        count = 3_000
        data = b"".join(c.publish("a", struct.pack(">I", n) + b"x" * 996, qos=1, mid=n + 1) for n in range(count))
        sender = threading.Thread(target=device.send, args=(data,), daemon=True)
        sender.start()
        gateway.until(lambda: gateway.stats().paused_connections == 1)
        assert gateway.log.full_count
        assert gateway.stats().held_bytes < 20_000 + 400_000, "one socket read beyond the limit at most"
        gateway.log.holds = False
        gateway.call(gateway.log.acknowledge)
        assert [device.receive() for _ in range(count)] == [(0x40, mid(n + 1)) for n in range(count)]
        sender.join(SECONDS)
        numbers = [struct.unpack(">I", record.value[:4])[0] for record in gateway.records(count)]
        assert numbers == list(range(count))
        assert gateway.stats().held_bytes == 0
        assert gateway.stats().paused_connections == 0


def test_all_connections_together_hold_a_bounded_number_of_bytes() -> None:
    with RunningGateway(
        log={"holds": True, "buffer_memory": 5_000}, held_bytes_max=10**6, held_bytes_total_max=100_000
    ) as gateway:
        devices = [RawDevice(gateway.port) for _ in range(8)]
        for number, device in enumerate(devices):
            device.connect(f"dev-{number}")
            device.socket.setblocking(False)
        packet = c.publish("a", b"x" * 1000, qos=0)
        for device in devices:
            try:
                for _ in range(100):
                    device.socket.send(packet * 50)
            except BlockingIOError:
                pass
        gateway.until(lambda: gateway.stats().paused_connections == 8)
        assert gateway.stats().held_bytes < 100_000 + 8 * 262_144
        gateway.log.holds = False
        gateway.call(gateway.log.acknowledge)
        gateway.until(lambda: gateway.stats().paused_connections == 0)
        for device in devices:
            device.socket.close()


def test_a_reconnecting_device_attaches_to_what_is_in_flight() -> None:
    with RunningGateway(log={"holds": True}) as gateway:
        for round_number in range(5):
            with RawDevice(gateway.port) as device:
                device.connect("dev")
                device.send(c.publish("a", b"1", qos=1, mid=1, dup=round_number > 0) + c.PINGREQ)
                assert device.receive() == (0xD0, b"")
        with RawDevice(gateway.port) as device:
            device.connect("dev")
            device.send(c.publish("a", b"1", qos=1, mid=1, dup=True) + c.PINGREQ)
            assert device.receive() == (0xD0, b"")
            gateway.call(gateway.log.acknowledge)
            assert device.receive() == (0x40, mid(1))
        assert len(gateway.log.records) == 1
        gateway.check_balance()


def test_a_session_survives_its_connection_but_not_the_gateway() -> None:
    with RunningGateway() as gateway:
        for present in (0, 1):
            with RawDevice(gateway.port) as device:
                assert device.connect("dev", clean=False) == bytes((present, 0))
                if not present:
                    device.send(c.publish("a", b"1", qos=2, mid=1))
                    assert device.receive() == (0x50, mid(1))
                else:
                    device.send(c.publish("a", b"1", qos=2, mid=1, dup=True))
                    assert device.receive() == (0x50, mid(1))
                    device.send(c.pubrel(1))
                    assert device.receive() == (0x70, mid(1))
            gateway.until(lambda: gateway.stats().connections == 0)
        assert len(gateway.log.records) == 1
    with RunningGateway() as gateway, RawDevice(gateway.port) as device:
        assert device.connect("dev", clean=False) == b"\0\0"


@pytest.mark.parametrize("version", [4, 5])
def test_a_takeover_closes_the_older_connection(version: int) -> None:
    with RunningGateway() as gateway, RawDevice(gateway.port) as old, RawDevice(gateway.port) as new:
        old.connect("dev", version=version, will=WILL)
        new.connect("dev", version=version)
        if version == 5:
            farewell = old.receive()
            assert farewell is not None
            assert (farewell[0], farewell[1][0]) == (0xE0, Reason.SESSION_TAKEN_OVER)
        assert old.receive() is None
        assert gateway.records(1)[0].value == b"gone"
        new.send(c.PINGREQ)
        assert new.receive() == (0xD0, b"")


def test_a_will_is_published_on_a_cut_and_not_on_a_disconnect() -> None:
    with RunningGateway() as gateway:
        with RawDevice(gateway.port) as device:
            device.connect("polite", will=WILL)
            device.send(c.disconnect())
            assert device.receive() is None
        with RawDevice(gateway.port) as device:
            device.connect("cut", will=WILL)
            device.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        [record] = gateway.records(1)
        assert record.header("mqtt.clientid") == b"cut"
        assert record.header("mqtt.will") == b"1"
        assert gateway.stats().wills_total == 1


def test_silence_beyond_the_keep_alive_ends_the_connection_and_publishes_the_will() -> None:
    with RunningGateway() as gateway, RawDevice(gateway.port) as device:
        device.connect("dev", version=5, keep_alive=1, will=WILL)
        packet = device.receive()
        assert packet is not None
        assert packet[1][0] == Reason.KEEP_ALIVE_TIMEOUT
        assert gateway.records(1)[0].value == b"gone"


def test_an_mqtt_5_client_is_told_the_limits_and_held_to_them() -> None:
    with (
        RunningGateway(log={"holds": True}, receive_maximum=5) as gateway,
        Paho(gateway.port, MQTTProtocolVersion.MQTTv5, "", inflight=5) as device,
    ):
        for number in range(20):
            device.client.publish("a", b"%d" % number, qos=1)
        gateway.until(lambda: gateway.log.waiting == 5)
        gateway.log.holds = False
        gateway.call(gateway.log.acknowledge)
        assert [int(record.value) for record in gateway.records(20)] == list(range(20))
        assert str(gateway.log.records[0].key).startswith("b'auto-")
    with (
        RunningGateway(log={"holds": True}, receive_maximum=2, stop_timeout_ms=50) as gateway,
        RawDevice(gateway.port) as device,
    ):
        device.connect(version=5)
        device.send(b"".join(c.publish("a", qos=1, mid=n, version=5) for n in (1, 2, 3)))
        packet = device.receive()
        assert packet is not None
        assert packet[1][0] == Reason.RECEIVE_MAXIMUM_EXCEEDED


def test_an_mqtt_311_client_may_send_ahead_but_only_so_much_goes_to_the_log() -> None:
    with RunningGateway(log={"holds": True}, receive_maximum=5) as gateway, RawDevice(gateway.port) as device:
        device.connect()
        device.send(b"".join(c.publish("a", qos=1, mid=n) for n in range(1, 21)) + c.PINGREQ)
        assert device.receive() == (0xD0, b"")
        assert gateway.log.waiting == 5
        gateway.log.holds = False
        gateway.call(gateway.log.acknowledge)
        assert [device.receive() for _ in range(20)] == [(0x40, mid(n)) for n in range(1, 21)]


def test_paho_uses_properties_and_topic_alias() -> None:
    with RunningGateway() as gateway, Paho(gateway.port, MQTTProtocolVersion.MQTTv5) as device:
        for topic in ("plant/a", ""):
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.TopicAlias = 1
            properties.UserProperty = [("unit", "C")]
            device.client.publish(topic, b"x", qos=1, properties=properties).wait_for_publish(SECONDS)
        records = gateway.records(2)
        assert [record.header("mqtt.topic") for record in records] == [b"plant/a"] * 2
        assert [record.header("unit") for record in records] == [b"C"] * 2


def test_what_is_too_large_for_the_log_is_refused_or_a_dead_letter() -> None:
    def refuse(topic: str, value: bytes) -> RemoteError | None:
        return RemoteError("too large", code=10) if len(value) > 600_000 else None

    with RunningGateway(log={"refuse": refuse}) as gateway:
        with RawDevice(gateway.port) as device:
            device.connect(version=5)
            device.send(c.publish("a", b"x" * 700_000, qos=1, mid=1, version=5))
            packet = device.receive()
            assert packet is not None
            assert packet[1][:3] == mid(1) + bytes([Reason.QUOTA_EXCEEDED])
        with RawDevice(gateway.port) as device:
            device.connect()
            device.send(c.publish("a", b"x" * 700_000, qos=1, mid=1))
            assert device.receive() == (0x40, mid(1))
        [record] = gateway.records(1)
        assert record.topic == "mqtt.dead-letter"
        assert record.header("mqtt.reason") == b"too large"
        assert gateway.stats().dead_lettered_total == 1
        gateway.check_balance()


BAD = {
    "garbage": b"GET / HTTP/1.1\r\n\r\n",
    "no CONNECT first": c.publish("a", b"x"),
    "CONNECT of 200 MB": b"\x10\xff\xff\xff\x5f",
    "MQTT 3.1": b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01x",
    "MQTT 6": b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x3c\x00\x01x",
}


@pytest.mark.parametrize("name", BAD)
def test_who_does_not_speak_mqtt_is_closed_and_harms_nobody(name: str) -> None:
    with RunningGateway() as gateway, RawDevice(gateway.port) as good, RawDevice(gateway.port) as bad:
        good.connect("good")
        bad.send(BAD[name])
        answer = bad.receive()
        if name == "MQTT 3.1":
            assert answer == (0x20, b"\0\1")
        elif name == "MQTT 6":
            assert answer is not None
            assert answer[1][1] == Reason.UNSUPPORTED_PROTOCOL_VERSION
        assert answer is None or bad.receive() is None
        good.send(c.publish("a", b"x", qos=1, mid=1))
        assert good.receive() == (0x40, mid(1))


def test_a_packet_beyond_the_maximum_is_answered_with_its_reason() -> None:
    with RunningGateway() as gateway, RawDevice(gateway.port) as device:
        connack = device.connect(version=5)
        assert struct.pack(">BI", Property.MAXIMUM_PACKET_SIZE, 2 << 20) in connack
        device.send(b"\x32\xff\xff\xff\x01")
        packet = device.receive()
        assert packet is not None
        assert packet[1][0] == Reason.PACKET_TOO_LARGE
        assert device.receive() is None
        assert gateway.stats().malformed_total == 1


def test_a_device_that_does_not_read_is_not_read_either_and_harms_nobody() -> None:
    count = 100_000
    asked = c.subscribe(1, ["a"], version=5)  # each costs 9 bytes and is answered with some 70
    with (
        RunningGateway() as gateway,
        RawDevice(gateway.port, receive_buffer=4096) as deaf,
        RawDevice(gateway.port) as good,
    ):
        deaf.connect("deaf", version=5)
        good.connect("good")
        sender = threading.Thread(target=deaf.send, args=(asked * count,), daemon=True)
        sender.start()
        gateway.until(lambda: gateway.stats().paused_connections == 1)
        good.send(c.publish("a", b"x", qos=1, mid=1))
        assert good.receive() == (0x40, mid(1))
        answered = [deaf.receive() for _ in range(count)]
        sender.join(SECONDS)
        assert {packet[0] for packet in answered if packet} == {0x90}
        gateway.until(lambda: gateway.stats().paused_connections == 0)


def test_strangers_who_say_nothing_are_closed_in_time() -> None:
    with RunningGateway(connect_timeout_ms=300) as gateway, RawDevice(gateway.port) as device:
        assert device.receive() is None


def test_connections_are_limited_in_all_and_by_address() -> None:
    names = ("connections_max", "connections_per_ip_max", "unauthenticated_max", "unauthenticated_per_ip_max")
    for limit in ({name: 2} for name in names):
        with RunningGateway(**limit) as gateway, RawDevice(gateway.port), RawDevice(gateway.port):
            gateway.until(lambda gateway=gateway: gateway.stats().connections == 2)
            with RawDevice(gateway.port) as device:
                assert device.receive() is None
            assert gateway.stats().connections_refused_total == 1


def test_an_empty_client_id_needs_a_clean_session_in_mqtt_311() -> None:
    with RunningGateway() as gateway:
        with RawDevice(gateway.port) as device:
            assert device.connect("", clean=False) == b"\0\2"
            assert device.receive() is None
        with RawDevice(gateway.port) as device:
            assert device.connect("", clean=True) == b"\0\0"


def test_a_clean_stop_acknowledges_what_is_in_flight_and_says_farewell() -> None:
    gateway = RunningGateway(log={"holds": True})
    with gateway, RawDevice(gateway.port) as device:
        device.connect(version=5, will=WILL)
        device.send(c.publish("a", b"x", qos=1, mid=1, version=5) + c.PINGREQ)
        assert device.receive() == (0xD0, b"")
        stopping = threading.Thread(target=gateway.stop)
        stopping.start()
        gateway.log.holds = False
        gateway.call(gateway.log.acknowledge)
        assert device.receive() == (0x40, mid(1))
        packet = device.receive()
        assert packet is not None
        assert packet[1][0] == Reason.SERVER_SHUTTING_DOWN
        assert device.receive() is None
        stopping.join(SECONDS)
    assert [record.value for record in gateway.log.records] == [b"x", b"gone"]


def test_a_taken_port_is_a_plain_sentence() -> None:
    with RunningGateway() as gateway, pytest.raises(ConfigError, match=str(gateway.port)):
        RunningGateway(port=gateway.port).__enter__()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"host": "0.0.0.0"}, "password_file"),
        ({"port": -1}, "nothing to listen"),
        ({"tls_port": 0}, "tls_cert_file"),
        ({"receive_maximum": 0}, "receive_maximum"),
        ({"client_id_of_user": "yes"}, "client_id_of_user"),
        ({"dead_letter_topic": "../x"}, "dead_letter_topic"),
        ({"packet_bytes_max": 1 << 40}, "packet_bytes_max"),
    ],
)
def test_a_config_that_cannot_be_used_names_the_key(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        MqttConfig(bootstrap="x", **changes).check()
