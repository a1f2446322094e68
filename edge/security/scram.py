"""SCRAM, the server's side: what is stored of a password, and how a client proves that it knows it. Pure.

    client-first   n,,n=alice,r=<client nonce>
    server-first   r=<client nonce><server nonce>,s=<salt>,i=<iterations>
    client-final   c=biws,r=<client nonce><server nonce>,p=<proof>
    server-final   v=<signature>

Source: RFC 5802 and RFC 7677; stored keys are written as in RFC 5803.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import NamedTuple

from edge.security.saslprep import SaslError, saslprep

HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}  # by mechanism
ITERATIONS_MIN = 4096  # RFC 7677 section 4
ITERATIONS_MAX = 1_000_000  # librdkafka computes no more
SALT_BYTES_MAX = 64
MESSAGE_BYTES_MAX = 16 * 1024
NONCE_CHARS_MAX = 256

_VALUE = r"[^,\0]*"
_FIRST = re.compile(rf"(?P<header>(?P<binding>[^,]*),(?:a=(?P<authzid>{_VALUE}))?,)(?P<bare>.*)", re.DOTALL)
_BARE = re.compile(rf"n=(?P<user>{_VALUE}),r=(?P<nonce>[!-+\--~]+)(?:,[A-Za-z]={_VALUE})*")
_FINAL = re.compile(rf"(?P<rest>c=(?P<header>[^,]*),r=(?P<nonce>[^,]*)(?:,[A-Za-z]={_VALUE})*),p=(?P<proof>[^,]*)")


class ScramKeys(NamedTuple):
    """What is stored of a password for one mechanism: enough to check a proof, not enough to make one."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


def derive_keys(mechanism: str, password: bytes, salt: bytes, iterations: int) -> ScramKeys:
    """Return what to store of a password, which has gone through SASLprep. Cost: some 4 µs an iteration."""
    name = HASHES[mechanism]
    salted = hashlib.pbkdf2_hmac(name, password, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", name)
    return ScramKeys(salt, iterations, hashlib.new(name, client_key).digest(), hmac.digest(salted, b"Server Key", name))


def encode_keys(mechanism: str, keys: ScramKeys) -> str:
    """Return stored keys as text: MECHANISM$iterations:salt$stored key:server key."""
    salt, stored_key, server_key = map(_encoded, (keys.salt, keys.stored_key, keys.server_key))
    return f"{mechanism}${keys.iterations}:{salt}${stored_key}:{server_key}"


def decode_keys(text: str) -> tuple[str, ScramKeys]:
    """Read what `encode_keys` wrote.

    Raises:
        ValueError: it is something else, or less safe than allowed.
    """
    mechanism, parameters, keys = text.split("$")
    (iterations, salt), (stored_key, server_key) = parameters.split(":"), keys.split(":")
    found = ScramKeys(_decoded(salt), int(iterations), _decoded(stored_key), _decoded(server_key))
    size = hashlib.new(HASHES.get(mechanism, "sha256")).digest_size
    if (
        mechanism not in HASHES
        or not ITERATIONS_MIN <= found.iterations <= ITERATIONS_MAX
        or not 1 <= len(found.salt) <= SALT_BYTES_MAX
        or not len(found.stored_key) == len(found.server_key) == size
    ):
        raise ValueError("no keys for SCRAM")
    return mechanism, found


class ScramExchange:
    """One login: `first`, `challenge`, `final`, in this order.

    Args:
        server_nonce: Random, of printable characters without a comma.
    """

    def __init__(self, mechanism: str, server_nonce: str) -> None:
        self._hash = HASHES[mechanism]
        self._server_nonce = server_nonce
        self._header = self._bare = self._client_nonce = self._challenge = ""
        self._keys: ScramKeys | None = None
        self.user = ""

    def first(self, token: bytes) -> str:
        """Take client-first; return the user who wants to log in.

        Raises:
            SaslError: it is no such message, or asks for what there is not.
        """
        found = _FIRST.fullmatch(_text(token))
        if found is None:
            raise SaslError("no client-first-message")
        if found["binding"] not in ("n", "y"):  # y: it would, if the server could
            raise SaslError("channel binding, which was not offered")
        bare = _BARE.fullmatch(found["bare"])  # m=, a mandatory extension, is not known and stands before n=
        if bare is None or len(bare["nonce"]) > NONCE_CHARS_MAX:
            raise SaslError("no client-first-message")
        user = _name(bare["user"])
        if found["authzid"] is not None and _name(found["authzid"]) != user:
            raise SaslError("an authorization id that is not the user")
        self._header, self._bare, self._client_nonce = found["header"], found["bare"], bare["nonce"]
        self.user = user
        return user

    def challenge(self, keys: ScramKeys) -> bytes:
        """Return server-first."""
        assert self.user
        assert self._keys is None, "one challenge an exchange"
        self._keys = keys
        nonce = self._client_nonce + self._server_nonce
        self._challenge = f"r={nonce},s={_encoded(keys.salt)},i={keys.iterations}"
        return self._challenge.encode()

    def final(self, token: bytes) -> bytes:
        """Take client-final; return server-final.

        Raises:
            SaslError: the proof, the nonce or what was said of channel binding is wrong.
        """
        assert self._keys is not None
        keys, name = self._keys, self._hash
        found = _FINAL.fullmatch(_text(token))
        if found is None:
            raise SaslError("no client-final-message")
        nonce = self._client_nonce + self._server_nonce
        # librdkafka before 2.6.1 puts its own nonce in front once more (its #4895); ours is in it, whole
        if found["nonce"] not in (nonce, self._client_nonce + nonce):
            raise SaslError("another nonce than it was given")  # CVE-2024-56128
        try:
            header, proof = _decoded(found["header"]), _decoded(found["proof"])
        except ValueError:
            raise SaslError("client-final-message: no base64") from None
        if header != self._header.encode():
            raise SaslError("another header than at first: a downgrade?")
        message = f"{self._bare},{self._challenge},{found['rest']}".encode()
        signature = hmac.digest(keys.stored_key, message, name)
        if len(proof) != len(signature):
            raise SaslError("a proof of another size")
        client_key = bytes(one ^ other for one, other in zip(proof, signature, strict=True))
        if not hmac.compare_digest(hashlib.new(name, client_key).digest(), keys.stored_key):
            raise SaslError("wrong proof")
        return b"v=" + _encoded(hmac.digest(keys.server_key, message, name)).encode()


def _text(token: bytes) -> str:
    if len(token) > MESSAGE_BYTES_MAX:
        raise SaslError(f"a message of {len(token)} bytes")
    try:
        return token.decode()
    except UnicodeDecodeError:
        raise SaslError("a message that is no UTF-8") from None


def _name(escaped: str) -> str:
    """Undo the escapes of a saslname, and prepare it."""
    if re.search("=(?!2C|3D)", escaped):
        raise SaslError("a name with an escape that there is not")
    name = saslprep(escaped.replace("=2C", ",").replace("=3D", "="))
    if not name:
        raise SaslError("no name")
    return name


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("no base64") from None
