"""The order of a login, without a socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.kafka.codec import API_VERSIONS, PRODUCE, SASL_AUTHENTICATE, SASL_HANDSHAKE
from edge.kafka.sasl import MECHANISMS, Challenge, CheckPassword, Failed, FindKeys, LoggedIn, Sasl
from edge.security.scram import HASHES, ITERATIONS_MIN, ScramKeys, derive_keys
from tests.edge.security.scram_client import ScramClient

ALL = range(100)
SCRAM = "SCRAM-SHA-256"


def begun(mechanism: str, version: int = 1) -> Sasl:
    sasl = Sasl("server-nonce")
    assert sasl.handshake(mechanism, version)
    return sasl


def keys_of(password: bytes, mechanism: str = SCRAM) -> ScramKeys:
    return derive_keys(mechanism, password, b"salt", ITERATIONS_MIN)


def test_before_the_handshake_there_are_two_apis_and_behind_it_one() -> None:
    sasl = Sasl("n")
    assert [key for key in ALL if sasl.allows(key)] == [SASL_HANDSHAKE, API_VERSIONS]
    sasl.handshake("PLAIN", 1)
    assert [key for key in ALL if sasl.allows(key)] == [SASL_AUTHENTICATE]
    sasl.token(b"\0alice\0secret")
    assert not any(sasl.allows(key) for key in ALL)
    sasl.checked(right=True)
    assert not any(sasl.allows(key) for key in (*ALL, PRODUCE))


def test_bare_tokens_come_behind_the_old_handshake_alone() -> None:
    assert begun("PLAIN", 0).raw
    assert not begun("PLAIN", 1).raw


@pytest.mark.parametrize("mechanism", ["", "plain", "GSSAPI", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "OAUTHBEARER"])
def test_a_mechanism_that_there_is_not_ends_the_login(mechanism: str) -> None:
    sasl = Sasl("n")
    assert not sasl.handshake(mechanism, 1)
    assert not any(sasl.allows(key) for key in ALL)


@pytest.mark.parametrize("token", [b"\0alice\0secret", b"alice\0alice\0secret"])
def test_plain(token: bytes) -> None:
    sasl = begun("PLAIN")
    assert sasl.token(token) == CheckPassword("alice", b"secret")
    assert sasl.checked(right=True) == LoggedIn("alice", b"")
    sasl = begun("PLAIN")
    sasl.token(token)
    assert isinstance(sasl.checked(right=False), Failed)
    assert not any(sasl.allows(key) for key in ALL)


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"\0",
        b"\0\0",
        b"alice",
        b"alice\0secret",
        b"\0alice\0",
        b"\0\0secret",
        b"\0alice\0secret\0",
        b"bob\0alice\0secret",
        b"\0\xff\0secret",
        b"\0\x07\0secret",
        b"\0" + b"a" * 20_000 + b"\0secret",
    ],
)
def test_what_is_no_plain_token_for_oneself_fails(token: bytes) -> None:
    assert isinstance(begun("PLAIN").token(token), Failed)


@pytest.mark.parametrize("mechanism", HASHES)
def test_scram(mechanism: str) -> None:
    sasl, client = begun(mechanism), ScramClient(mechanism, b"secret")
    assert sasl.token(client.first) == FindKeys("alice", mechanism)
    challenge = sasl.found(keys_of(b"secret", mechanism), real=True)
    assert isinstance(challenge, Challenge)
    assert sasl.allows(SASL_AUTHENTICATE)
    step = sasl.token(client.final(challenge.token))
    assert isinstance(step, LoggedIn)
    assert step.user == "alice"
    assert step.token.startswith(b"v=")


@pytest.mark.parametrize(("password", "real"), [(b"another", True), (b"secret", False)])
def test_scram_without_the_password_or_with_keys_that_are_not_real(password: bytes, real: bool) -> None:
    sasl, client = begun(SCRAM), ScramClient(SCRAM, b"secret")
    sasl.token(client.first)
    step = sasl.token(client.final(sasl.found(keys_of(password), real=real).token))
    assert isinstance(step, Failed)
    assert step.user == "alice"
    assert not any(sasl.allows(key) for key in ALL)


def test_client_final_first_and_client_first_twice_fail() -> None:
    client = ScramClient(SCRAM, b"secret")
    challenge = Sasl("n")
    challenge.handshake(SCRAM, 1)
    challenge.token(client.first)
    final = client.final(challenge.found(keys_of(b"secret"), real=True).token)
    assert isinstance(begun(SCRAM).token(final), Failed)
    sasl = begun(SCRAM)
    sasl.token(client.first)
    sasl.found(keys_of(b"secret"), real=True)
    assert isinstance(sasl.token(client.first), Failed)


@given(st.sampled_from(MECHANISMS), st.lists(st.binary(max_size=100), min_size=1, max_size=3))
def test_any_tokens_get_nobody_in_whose_password_is_not_known(mechanism: str, tokens: list[bytes]) -> None:
    sasl = begun(mechanism)
    for token in tokens:
        step = sasl.token(token)
        if isinstance(step, FindKeys):
            step = sasl.found(keys_of(b"secret"), real=True)
        elif isinstance(step, CheckPassword):
            step = sasl.checked(right=False)
        assert isinstance(step, Challenge | Failed)
        if isinstance(step, Failed):
            break
