"""SCRAM's server side, against the examples of the RFCs and against clients that cheat."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.security.saslprep import SaslError, saslprep
from edge.security.scram import (
    HASHES,
    ITERATIONS_MIN,
    ScramExchange,
    ScramKeys,
    decode_keys,
    derive_keys,
    encode_keys,
)
from tests.edge.security.scram_client import ScramClient

SALT = b"0123456789abcdef"


def begun(client: ScramClient, password: bytes = b"secret") -> tuple[ScramExchange, bytes]:
    exchange = ScramExchange(client.mechanism, "server-nonce")
    exchange.first(client.first)
    return exchange, exchange.challenge(derive_keys(client.mechanism, password, SALT, ITERATIONS_MIN))


def test_the_example_of_rfc_7677() -> None:
    exchange = ScramExchange("SCRAM-SHA-256", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert exchange.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == "user"
    keys = derive_keys("SCRAM-SHA-256", b"pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    nonce = b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    assert exchange.challenge(keys) == b"r=" + nonce + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    final = b"c=biws,r=" + nonce + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    assert exchange.final(final) == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_the_example_of_rfc_5802(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HASHES, "SCRAM-SHA-1", "sha1")  # only here: it is not offered
    exchange = ScramExchange("SCRAM-SHA-1", "3rfcNHYJY1ZVvWVs7j")
    assert exchange.first(b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL") == "user"
    exchange.challenge(derive_keys("SCRAM-SHA-1", b"pencil", base64.b64decode("QSXCR+Q6sek8bf92"), 4096))
    final = b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
    assert exchange.final(final) == b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="


@pytest.mark.parametrize("mechanism", HASHES)
@pytest.mark.parametrize("header", ["n,,", "y,,", "n,a=alice,"])
def test_who_knows_the_password_gets_in_and_who_does_not_does_not(mechanism: str, header: str) -> None:
    client = ScramClient(mechanism, b"secret", header=header)
    exchange, challenge = begun(client)
    assert exchange.final(client.final(challenge)).startswith(b"v=")
    exchange, challenge = begun(client, b"another")
    with pytest.raises(SaslError, match="wrong proof"):
        exchange.final(client.final(challenge))


@pytest.mark.parametrize(
    "final",
    [
        {"nonce": "client-nonce"},
        {"nonce": ""},
        {"nonce": "client-nonceserver-nonc"},
        {"nonce": "client-nonceserver-nonce2"},
        {"nonce": "xclient-nonceserver-nonce"},
        {"header": "y,,"},
        {"header": "p=tls-unique,,"},
        {"header": ""},
    ],
)
def test_another_nonce_or_header_than_at_first_is_refused_though_the_proof_is_right(final: dict[str, str]) -> None:
    client = ScramClient("SCRAM-SHA-256", b"secret")
    exchange, challenge = begun(client)
    with pytest.raises(SaslError, match="another"):
        exchange.final(client.final(challenge, **final))


def test_librdkafka_before_2_6_1_gets_in_though_it_sends_its_nonce_twice() -> None:
    client = ScramClient("SCRAM-SHA-256", b"secret")
    exchange, challenge = begun(client)
    assert exchange.final(client.final(challenge, nonce="client-nonceclient-nonceserver-nonce"))


def test_optional_extensions_are_passed_over() -> None:
    client = ScramClient("SCRAM-SHA-256", b"secret")
    client.bare += ",x=1"
    exchange, challenge = begun(client)
    assert exchange.final(client.final(challenge, extra=",y=2"))


def test_a_recorded_answer_is_of_no_use_to_another_login() -> None:
    client = ScramClient("SCRAM-SHA-256", b"secret")
    exchange, challenge = begun(client)
    recorded = client.final(challenge)
    exchange.final(recorded)
    another = ScramExchange(client.mechanism, "another-nonce")
    another.first(client.first)
    another.challenge(derive_keys(client.mechanism, b"secret", SALT, ITERATIONS_MIN))
    with pytest.raises(SaslError, match="nonce"):
        another.final(recorded)


def test_names_are_unescaped_and_prepared() -> None:
    for said, meant in (("a=2Cb=3Dc", "a,b=c"), ("=3D2C", "=2C"), ("I\u00adX", "IX"), ("\u00aa", "a"), ("zoë", "zoë")):
        assert ScramExchange("SCRAM-SHA-256", "s").first(f"n,,n={said},r=c".encode()) == meant


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n,,",
        b"n,,n=,r=c",
        b"n,,n=a,r=",
        b"n,,r=c,n=a",
        b"n,,n=a",
        b"n,,m=x,n=a,r=c",
        b"p=tls-exporter,,n=a,r=c",
        b"N,,n=a,r=c",
        b",,n=a,r=c",
        b"n,a=bob,n=a,r=c",
        b"n,a=,n=a,r=c",
        b"n,x,n=a,r=c",
        b"n,,n=a=2c,r=c",
        b"n,,n=a=,r=c",
        b"n,,n=\x00,r=c",
        b"n,,n=\xff,r=c",
        "n,,n=\u0007,r=c".encode(),
        "n,,n=a\u06271,r=c".encode(),
        b"n,,n=a,r=c d",
        b"n,,n=a,r=" + b"c" * 300,
        b"n,,n=" + b"a" * 20_000 + b",r=c",
        b"n,,n=a,r=c,xx",
    ],
)
def test_what_is_no_client_first_is_refused(first: bytes) -> None:
    with pytest.raises(SaslError):
        ScramExchange("SCRAM-SHA-256", "s").first(first)


@pytest.mark.parametrize(
    "change",
    [
        lambda final: b"",
        lambda final: final.replace(b",p=", b",q="),
        lambda final: final + b",x=1",
        lambda final: final[:-8] + b"=",
        lambda final: re.sub(rb"p=.*", b"p=", final),
        lambda final: re.sub(rb"p=.*", b"p=AAAA", final),
        lambda final: re.sub(rb"c=\w+", b"c=!!!!", final),
        lambda final: b"x=1," + final,
        lambda final: final + b"\xff",
    ],
)
def test_what_is_no_client_final_is_refused(change: Any) -> None:
    client = ScramClient("SCRAM-SHA-256", b"secret")
    exchange, challenge = begun(client)
    with pytest.raises(SaslError):
        exchange.final(change(client.final(challenge)))


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_are_an_error_of_ours(first: bytes, final: bytes) -> None:
    for prefix in (b"", b"n,,n=a,r=", b"y,a=a,n="):
        with pytest.raises(SaslError):
            ScramExchange("SCRAM-SHA-512", "s").first(prefix + first + b",")
    exchange, _ = begun(ScramClient("SCRAM-SHA-512", b"secret"))
    with pytest.raises(SaslError):
        exchange.final(final)


def test_keys_are_read_as_they_were_written() -> None:
    for mechanism in HASHES:
        keys = derive_keys(mechanism, b"secret", SALT, ITERATIONS_MIN)
        assert decode_keys(encode_keys(mechanism, keys)) == (mechanism, keys)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1$4096:c2FsdA==$YQ==:YQ==",
        encode_keys("SCRAM-SHA-256", ScramKeys(SALT, 4095, bytes(32), bytes(32))),
        encode_keys("SCRAM-SHA-256", ScramKeys(SALT, 1 << 30, bytes(32), bytes(32))),
        encode_keys("SCRAM-SHA-256", ScramKeys(b"", 4096, bytes(32), bytes(32))),
        encode_keys("SCRAM-SHA-256", ScramKeys(SALT, 4096, bytes(32), bytes(31))),
        encode_keys("SCRAM-SHA-512", ScramKeys(SALT, 4096, bytes(32), bytes(32))),
        "SCRAM-SHA-256$x:c2FsdA==$YQ==:YQ==",
    ],
)
def test_keys_that_are_none_or_weak_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        decode_keys(text)


@pytest.mark.parametrize(
    ("text", "prepared"),
    [("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"), ("\u2168", "IX"), ("a\u00a0b", "a b")],
)
def test_the_examples_of_rfc_4013(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize("text", ["\u0007", "\u06271", "a\u0627", "\U0001f600", "\ud800"])
def test_what_saslprep_prohibits_is_refused(text: str) -> None:
    with pytest.raises(SaslError):
        saslprep(text)
