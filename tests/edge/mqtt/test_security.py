"""Who may not come in, does not: passwords, TLS, client ids of others."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from edge.mqtt.codes import Reason
from edge.mqtt.config import MqttConfig
from edge.mqtt.properties import Property
from edge.security import passwords
from edge.security.passwords import set_password
from ingest.errors import ConfigError
from tests.edge.mqtt import client_packets as c
from tests.edge.mqtt.raw_device import RawDevice
from tests.edge.mqtt.running_gateway import RunningGateway
from tests.edge.security.certificates import certificate


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(passwords, "SCRYPT_N", 16)
    monkeypatch.setattr(passwords, "SCRAM_ITERATIONS", 4096)
    for user in ("alice", "bob"):
        set_password(tmp_path / "users", user, user.encode() + b"-secret")
    return str(tmp_path / "users")


def client_context(ca: str, **options: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    if "cert" in options:
        context.load_cert_chain(*options["cert"])
    return context


@pytest.mark.parametrize(("version", "refusal"), [(4, b"\0\4"), (5, bytes((0, Reason.BAD_USER_NAME_OR_PASSWORD)))])
@pytest.mark.parametrize(
    ("user", "password"), [(None, None), ("alice", None), ("alice", b""), ("alice", b"bob-secret"), ("eve", b"x")]
)
def test_without_the_right_password_nobody_comes_in(
    users: str, version: int, refusal: bytes, user: str | None, password: bytes | None
) -> None:
    with RunningGateway(password_file=users, failed_login_delay_ms=50) as gateway, RawDevice(gateway.port) as device:
        began = time.monotonic()
        device.send(c.connect(version=version, user=user, password=password) + c.publish("a", b"x", version=version))
        packet = device.receive()
        assert packet is not None
        assert packet[1][:2] == refusal
        assert time.monotonic() - began >= 0.045  # a timer may fire within its clock's resolution
        assert device.receive() is None
        assert gateway.stats().auth_failures_total == 1
        assert gateway.stats().received_total == 0


def test_with_the_right_password_one_does(users: str) -> None:
    with RunningGateway(password_file=users) as gateway:
        for version in (4, 5):
            with RawDevice(gateway.port) as device:
                connack = device.connect("d", version=version, user="alice", password=b"alice-secret")
                assert connack[1] == 0
                device.send(c.publish("a", qos=1, mid=1, version=version))
                assert device.receive() == (0x40, b"\0\1")


def test_who_guesses_a_password_is_not_heard_any_more_and_others_from_there_are(users: str) -> None:
    with RunningGateway(password_file=users, failed_login_delay_ms=0) as gateway:
        for _ in range(20):
            with RawDevice(gateway.port) as device:
                assert device.connect(user="alice", password=b"guess") == b"\0\4"
        with RawDevice(gateway.port) as device:
            connack = device.connect(version=5, user="alice", password=b"alice-secret")
            assert connack[1] == Reason.CONNECTION_RATE_EXCEEDED
        with RawDevice(gateway.port) as device:
            assert device.connect(user="bob", password=b"bob-secret") == b"\0\0"
        assert gateway.stats().auth_failures_total == 21


@pytest.mark.parametrize(
    ("rule", "client_id", "allowed"),
    [
        ("equal", "alice", True),
        ("equal", "alice-1", False),
        ("equal", "bob", False),
        ("prefix", "alice", True),
        ("prefix", "alice-1", True),
        ("prefix", "alice1", False),
        ("prefix", "bob-1", False),
        ("any", "bob", True),
    ],
)
def test_a_client_id_is_bound_to_its_user(users: str, rule: str, client_id: str, allowed: bool) -> None:
    with RunningGateway(password_file=users, client_id_of_user=rule) as gateway, RawDevice(gateway.port) as device:
        connack = device.connect(client_id, user="alice", password=b"alice-secret")
        assert connack == (b"\0\0" if allowed else b"\0\2")


def test_nobody_takes_over_the_session_of_another_user(users: str) -> None:
    with (
        RunningGateway(password_file=users) as gateway,
        RawDevice(gateway.port) as alice,
        RawDevice(gateway.port) as bob,
    ):
        assert alice.connect("dev", user="alice", password=b"alice-secret") == b"\0\0"
        assert bob.connect("dev", user="bob", password=b"bob-secret") == b"\0\2"
        alice.send(c.PINGREQ)
        assert alice.receive() == (0xD0, b"")


def test_another_authentication_method_is_refused() -> None:
    with RunningGateway() as gateway, RawDevice(gateway.port) as device:
        connack = device.connect(version=5, properties={Property.AUTHENTICATION_METHOD: "SCRAM-SHA-1"})
        assert connack[1] == Reason.BAD_AUTHENTICATION_METHOD


@pytest.mark.needs("openssl")
def test_beyond_loopback_passwords_and_tls_are_needed(users: str, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "server")
    tls = {"port": -1, "tls_port": 0, "tls_cert_file": cert, "tls_key_file": key}
    bad: list[dict[str, Any]] = [{}, {"password_file": users}, tls, {**tls, "password_file": users, "port": 0}]
    for changes in bad:
        with pytest.raises(ConfigError, match="allow_insecure"):
            MqttConfig(bootstrap="x", host="0.0.0.0", **changes).check()
    MqttConfig(bootstrap="x", host="0.0.0.0", **tls, password_file=users).check()
    MqttConfig(bootstrap="x", host="0.0.0.0", allow_insecure=True).check()


@pytest.mark.needs("openssl")
def test_tls_carries_messages_and_strangers_certificates_do_not(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "server")
    mine = certificate(tmp_path, "mine")
    other = certificate(tmp_path, "other")
    config = {"port": -1, "tls_port": 0, "tls_cert_file": cert, "tls_key_file": key}
    with RunningGateway(**config, tls_client_ca_file=mine[0]) as gateway:
        port = gateway.gateway.tls_port
        with RawDevice(port, tls=client_context(cert, cert=mine)) as device:
            assert device.connect() == b"\0\0"
            device.send(b"".join(c.publish("a", b"x" * 5000, qos=1, mid=n) for n in range(1, 101)))
            assert [device.receive() for _ in range(100)] == [(0x40, n.to_bytes(2, "big")) for n in range(1, 101)]
        for options in ({}, {"cert": other}):
            try:
                with RawDevice(port, tls=client_context(cert, **options)) as device:
                    device.send(c.connect())
                    assert device.receive() is None
            except (ssl.SSLError, ConnectionError):
                pass
        assert gateway.stats().received_total == 100


@pytest.mark.needs("openssl")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_and_plain_text_do_not_pass_the_tls_listener(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "server")
    config = {"port": -1, "tls_port": 0, "tls_cert_file": cert, "tls_key_file": key, "connect_timeout_ms": 500}
    with RunningGateway(**config) as gateway:
        port = gateway.gateway.tls_port
        context = client_context(cert)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            RawDevice(port, tls=context)
        with RawDevice(port) as device:
            device.send(c.connect())
            assert device.socket.recv(100)[:1] != b"\x20"
        with RawDevice(port) as device:  # says nothing at all
            assert device.socket.recv(100) == b""
        gateway.failures.clear()


@pytest.mark.needs("openssl")
def test_a_key_that_others_read_is_refused(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "server")
    Path(key).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        RunningGateway(port=-1, tls_port=0, tls_cert_file=cert, tls_key_file=key).__enter__()
