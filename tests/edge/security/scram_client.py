"""The client's side of SCRAM, written from the RFC for the tests; it can be told to cheat."""

from __future__ import annotations

import base64
import hashlib
import hmac

from edge.security.scram import HASHES


class ScramClient:
    """A client that can be told to cheat."""

    def __init__(self, mechanism: str, password: bytes, *, user: str = "alice", header: str = "n,,") -> None:
        self.mechanism, self.password, self.header = mechanism, password, header
        self.bare = f"n={user},r=client-nonce"

    @property
    def first(self) -> bytes:
        return (self.header + self.bare).encode()

    def final(self, challenge: bytes, *, header: str | None = None, nonce: str | None = None, extra: str = "") -> bytes:
        name = HASHES[self.mechanism]
        given_nonce, salt, iterations = (part[2:] for part in challenge.decode().split(","))
        binding = base64.b64encode((self.header if header is None else header).encode()).decode()
        rest = f"c={binding},r={given_nonce if nonce is None else nonce}{extra}"
        salted = hashlib.pbkdf2_hmac(name, self.password, base64.b64decode(salt), int(iterations))
        key = hmac.digest(salted, b"Client Key", name)
        signature = hmac.digest(
            hashlib.new(name, key).digest(), f"{self.bare},{challenge.decode()},{rest}".encode(), name
        )
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        return f"{rest},p={proof}".encode()
