"""Who has not logged in gets nowhere: raw sockets against a gateway with a password file."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edge.kafka.codec import APIS
from edge.kafka.context import Context
from edge.kafka.gateway import Gateway
from edge.kafka.login import FRAME_BYTES_MAX
from edge.kafka.sasl import MECHANISMS
from edge.security.guesses import FAILURES_MAX
from edge.security.passwords import Users
from edge.security.scram import HASHES
from ingest.wire.codes import ErrorCode
from tests.cluster import Cluster
from tests.edge.kafka.running_gateway import running_gateway
from tests.edge.kafka.test_versions import Client, fields_of
from tests.edge.kafka.users import OLD, make_users
from tests.edge.security.scram_client import ScramClient

HANDSHAKE, AUTHENTICATE, VERSIONS = 17, 36, 18
FAILED = ErrorCode.SASL_AUTHENTICATION_FAILED
DELAY_MS = 100


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_users(tmp_path_factory.mktemp("users") / "users")


@pytest.fixture(scope="module")
def shared(cluster: Cluster, users: str) -> Iterator[Gateway]:
    options = {"password_file": users, "failed_login_delay_ms": 0, "connect_timeout_ms": 5_000}
    with running_gateway(cluster.bootstrap, **options) as gateway:
        yield gateway


@pytest.fixture
def client(shared: Gateway) -> Iterator[Client]:
    opened = Client(shared.port)
    yield opened
    opened.close()


def begin(client: Client, mechanism: str, version: int = 1) -> None:
    answer = client.ask(HANDSHAKE, version, mechanism=mechanism)
    assert (answer.error_code, set(answer.mechanisms)) == (0, set(MECHANISMS))


def authenticate(client: Client, token: bytes, version: int = 2) -> Any:
    return client.ask(AUTHENTICATE, version, auth_bytes=token)


def log_in(client: Client, token: bytes = b"\0alice\0alice-secret") -> None:
    begin(client, "PLAIN")
    assert authenticate(client, token).error_code == 0


def serves(client: Client) -> bool:
    client.send(request(3, 9))
    return client.receive() != b""


def request(key: int, version: int, **fields: Any) -> bytes:
    asked = APIS[key].request(**(fields or fields_of(key, version, "nothing")))
    asked.API_VERSION = version
    asked.with_header(correlation_id=1, client_id="test")
    return bytes(asked.encode(header=True, framed=True))


def bare(token: bytes) -> bytes:
    return struct.pack(">i", len(token)) + token


@pytest.mark.parametrize("version", [0, 1, 2])
def test_plain(client: Client, version: int) -> None:
    assert client.ask(VERSIONS, 3).error_code == 0
    begin(client, "PLAIN")
    answer = authenticate(client, b"\0alice\0alice-secret", version)
    assert (answer.error_code, answer.auth_bytes, answer.error_message) == (0, b"", None)
    if version >= 1:
        assert answer.session_lifetime_ms == 0
    assert serves(client)


@pytest.mark.parametrize("mechanism", HASHES)
@pytest.mark.parametrize("header", ["n,,", "y,,", "n,a=alice,"])
def test_scram(client: Client, mechanism: str, header: str) -> None:
    begin(client, mechanism)
    scram = ScramClient(mechanism, b"alice-secret", header=header)
    first = authenticate(client, scram.first)
    last = authenticate(client, scram.final(first.auth_bytes))
    assert last.error_code == 0
    assert last.auth_bytes.startswith(b"v=")
    assert serves(client)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_bare_tokens_of_old_clients(client: Client, mechanism: str) -> None:
    begin(client, mechanism, 0)
    if mechanism == "PLAIN":
        client.send(bare(b"\0bob\0bob-secret"))
        assert client.receive_frame() == b""
    else:
        scram = ScramClient(mechanism, b"bob-secret", user="bob")
        client.send(bare(scram.first))
        client.send(bare(scram.final(client.receive())))
        assert client.receive().startswith(b"v=")
    assert serves(client)


def test_the_user_is_known_to_what_serves_the_requests(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    address = Context.address

    def noted(self: Context, broker_id: int) -> tuple[str, int]:
        asked.append(self.principal)
        return address(self, broker_id)

    monkeypatch.setattr(Context, "address", noted)
    log_in(client)
    assert serves(client)
    assert set(asked) == {"alice"}


@pytest.mark.parametrize("key", sorted(APIS.keys() - {HANDSHAKE, VERSIONS}))
def test_nothing_is_served_before_the_login(client: Client, key: int) -> None:
    client.send(request(key, APIS[key].highest))
    assert client.receive() == b""


@pytest.mark.parametrize("key", sorted(APIS.keys() - {AUTHENTICATE}))
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_nothing_but_tokens_comes_behind_the_handshake(client: Client, mechanism: str, key: int) -> None:
    begin(client, mechanism)
    client.send(request(key, APIS[key].highest))
    assert client.receive() == b""


def test_what_came_together_with_the_login_is_served_behind_it(client: Client) -> None:
    token = request(AUTHENTICATE, 2, auth_bytes=b"\0alice\0alice-secret")
    client.send(request(VERSIONS, 3) + request(HANDSHAKE, 1, mechanism="PLAIN") + token + request(3, 9) * 2)
    for _ in range(5):
        assert client.receive()


def test_what_came_together_with_a_wrong_login_is_not_served(client: Client) -> None:
    token = request(AUTHENTICATE, 2, auth_bytes=b"\0alice\0wrong")
    client.send(request(HANDSHAKE, 1, mechanism="PLAIN") + token + request(3, 9))
    assert [bool(client.receive()) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("mechanism", ["GSSAPI", "plain", "SCRAM-SHA-1", ""])
def test_a_mechanism_that_there_is_not_is_refused_with_those_that_there_are(client: Client, mechanism: str) -> None:
    answer = client.ask(HANDSHAKE, 1, mechanism=mechanism)
    assert answer.error_code == ErrorCode.UNSUPPORTED_SASL_MECHANISM
    assert list(answer.mechanisms) == list(MECHANISMS)
    assert client.receive() == b""


@pytest.mark.parametrize(
    "token",
    [
        b"\0alice\0wrong",
        b"\0alice\0",
        b"\0nobody\0alice-secret",
        b"bob\0alice\0alice-secret",
        b"\0alice\0bob-secret",
        b"",
        b"\xff" * 100,
    ],
)
def test_a_wrong_token_of_plain_is_told_and_the_end(shared: Gateway, client: Client, token: bytes) -> None:
    before = shared.stats().auth_failures_total
    begin(client, "PLAIN")
    answer = authenticate(client, token)
    assert (answer.error_code, answer.auth_bytes) == (FAILED, b"")
    assert client.receive() == b""
    assert shared.stats().auth_failures_total == before + 1


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(("user", "password"), [("alice", b"wrong"), ("nobody", b"x"), (OLD, OLD.encode())])
def test_who_does_not_know_the_password_or_has_no_keys_gets_a_challenge_and_not_in(
    client: Client, version: int, user: str, password: bytes
) -> None:
    begin(client, "SCRAM-SHA-512", version)
    scram = ScramClient("SCRAM-SHA-512", password, user=user)
    if version == 0:  # there is no word for it
        client.send(bare(scram.first))
        client.send(bare(scram.final(client.receive())))
    else:
        first = authenticate(client, scram.first)
        assert first.error_code == 0
        assert authenticate(client, scram.final(first.auth_bytes)).error_code == FAILED
    assert client.receive() == b""


def test_who_exists_is_not_to_be_seen_from_the_challenge(shared: Gateway) -> None:
    challenges: dict[str, list[list[str]]] = {"alice": [], "nobody": [], OLD: []}
    for user in [*challenges] * 2:
        client = Client(shared.port)
        begin(client, "SCRAM-SHA-256")
        token = authenticate(client, ScramClient("SCRAM-SHA-256", b"", user=user).first).auth_bytes
        challenges[user].append(token.decode().split(","))
        client.close()
    for first, second in challenges.values():
        assert first[0] != second[0]  # the nonce
        assert first[1:] == second[1:]  # salt and iterations
    assert len({(len(first[1]), first[2]) for first, _ in challenges.values()}) == 1


def test_a_recorded_login_is_of_no_use(shared: Gateway) -> None:
    recorded: bytes = b""
    scram = ScramClient("SCRAM-SHA-256", b"alice-secret")
    for expected in (0, FAILED):
        client = Client(shared.port)
        begin(client, "SCRAM-SHA-256")
        first = authenticate(client, scram.first)
        recorded = recorded or scram.final(first.auth_bytes)
        assert authenticate(client, recorded).error_code == expected
        client.close()


@pytest.mark.parametrize("token", [b"\0bob\0bob-secret", b"\0alice\0alice-secret", b"x"])
def test_who_has_logged_in_stays_who_it_is(client: Client, token: bytes) -> None:
    log_in(client)
    answer = client.ask(HANDSHAKE, 1, mechanism="PLAIN")
    assert answer.error_code == ErrorCode.ILLEGAL_SASL_STATE
    assert authenticate(client, token).error_code == ErrorCode.ILLEGAL_SASL_STATE
    assert serves(client)


@pytest.mark.parametrize("size", [(1 << 16) + 1, (1 << 20) + 1, -1, 2**31 - 1])
@pytest.mark.parametrize("key", [0, VERSIONS])
def test_a_large_frame_is_not_taken_before_the_login(client: Client, key: int, size: int) -> None:
    client.send(struct.pack(">ihhih", size, key, 3, 1, -1))
    client.socket.settimeout(3)  # before it is closed for being late
    assert client.receive() == b""


def test_who_has_not_logged_in_asks_little(client: Client) -> None:
    client.send(request(VERSIONS, 3) * 10_000)
    answers = 0
    while client.receive():
        answers += 1
    assert answers <= 16


@pytest.mark.parametrize("tokens", [[b""], [b"x" * FRAME_BYTES_MAX], [b"\0" * 1000], [b"n,,n=a,r=b", b""]])
@pytest.mark.parametrize("version", [0, 1])
def test_tokens_that_are_none_end_the_connection(client: Client, version: int, tokens: list[bytes]) -> None:
    begin(client, "SCRAM-SHA-256", version)
    for token in tokens:
        client.send(bare(token) if version == 0 else request(AUTHENTICATE, 0, auth_bytes=token))
    while client.receive():
        pass


@pytest.mark.parametrize("said", [[], [request(VERSIONS, 3)], [request(HANDSHAKE, 1, mechanism="PLAIN"), b"\0\0"]])
def test_who_does_not_log_in_in_time_is_closed(cluster: Cluster, users: str, said: list[bytes]) -> None:
    with running_gateway(cluster.bootstrap, password_file=users, connect_timeout_ms=300) as gateway:
        client = Client(gateway.port)
        began = time.monotonic()
        for data in said:
            client.send(data)
        while client.receive():
            pass
        assert 0.25 < time.monotonic() - began < 5
        client = Client(gateway.port)
        log_in(client)
        time.sleep(0.4)
        assert serves(client)
        client.close()


def test_wrong_logins_are_answered_late_and_too_many_not_looked_at(cluster: Cluster, users: str) -> None:
    with (
        running_gateway(cluster.bootstrap, password_file=users, failed_login_delay_ms=DELAY_MS) as gateway,
        ExitStack() as opened,
    ):
        early = Client(gateway.port)  # was challenged before; its proof is looked at too late
        opened.callback(early.close)
        begin(early, "SCRAM-SHA-256")
        scram = ScramClient("SCRAM-SHA-256", b"alice-secret")
        challenge = authenticate(early, scram.first).auth_bytes
        clients = [Client(gateway.port) for _ in range(FAILURES_MAX)]
        for client in clients:
            opened.callback(client.close)
            begin(client, "PLAIN")
        began = time.monotonic()
        for client in clients:
            client.send(request(AUTHENTICATE, 0, auth_bytes=b"\0alice\0guess"))
        for client in clients:
            assert client.receive()
        assert time.monotonic() - began >= DELAY_MS / 1000 - 0.005
        assert authenticate(early, scram.final(challenge)).error_code == FAILED
        for mechanism in MECHANISMS:  # though the password is right
            client = Client(gateway.port)
            opened.callback(client.close)
            begin(client, mechanism)
            first = ScramClient(mechanism, b"").first if mechanism in HASHES else b"\0alice\0alice-secret"
            assert authenticate(client, first).error_code == FAILED
        client = Client(gateway.port)
        opened.callback(client.close)
        log_in(client, b"\0bob\0bob-secret")


def test_one_address_that_never_logs_in_has_few_connections(cluster: Cluster, users: str) -> None:
    options = {"password_file": users, "unauthenticated_per_ip_max": 2}
    with running_gateway(cluster.bootstrap, **options) as gateway, ExitStack() as opened:
        clients = [Client(gateway.port) for _ in range(3)]
        for client in clients:
            opened.callback(client.close)
        assert clients[2].receive() == b""
        log_in(clients[0])
        another = Client(gateway.port)
        opened.callback(another.close)
        log_in(another)
        assert gateway.stats().connections == 3


def test_the_loop_goes_on_while_passwords_are_hashed(cluster: Cluster, tmp_path: Path) -> None:
    from edge.security.passwords import set_password

    set_password(tmp_path / "users", "alice", b"alice-secret")  # at its whole cost
    options = {"password_file": str(tmp_path / "users"), "failed_login_delay_ms": 0}
    with running_gateway(cluster.bootstrap, **options) as gateway, ExitStack() as opened:
        served = Client(gateway.port)
        opened.callback(served.close)
        log_in(served)
        guessing = [Client(gateway.port) for _ in range(10)]
        for client in guessing:
            opened.callback(client.close)
            begin(client, "PLAIN")
        for number, client in enumerate(guessing):
            client.send(request(AUTHENTICATE, 0, auth_bytes=b"\0user-%d\0guess" % number))
        served_before = 0
        guessing[-1].socket.settimeout(0)
        while True:
            assert serves(served)
            try:
                if guessing[-1].socket.recv(1, socket.MSG_PEEK):
                    break
            except BlockingIOError:
                served_before += 1
        assert served_before > 10


def test_who_has_logged_in_when_we_were_slow_stays(
    cluster: Cluster, users: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = Users.check

    def slow(*args: Any) -> bool:
        time.sleep(0.6)
        return check(*args)

    monkeypatch.setattr(Users, "check", slow)
    with running_gateway(cluster.bootstrap, password_file=users, connect_timeout_ms=300) as gateway:
        client = Client(gateway.port)
        log_in(client)
        assert serves(client)
        client.close()
