"""How a client logs in: which requests may come when, and what is done about each. Pure.

    HANDSHAKE  ── SaslHandshake 1 ──▶ TOKENS    ── SaslAuthenticate … ──▶ OVER
               ── SaslHandshake 0 ──▶ TOKENS    ── bare tokens, each with its size in front (`raw`) … ──▶ OVER

ApiVersions may be asked for before the handshake. PLAIN is one token; SCRAM is two.

Source: KIP-43, KIP-152; RFC 4616 (PLAIN), RFC 5802 (SCRAM).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from edge.kafka.codec import API_VERSIONS, SASL_AUTHENTICATE, SASL_HANDSHAKE
from edge.security.saslprep import SaslError, saslprep
from edge.security.scram import HASHES, MESSAGE_BYTES_MAX, ScramExchange, ScramKeys

PLAIN = "PLAIN"
MECHANISMS = (PLAIN, *HASHES)
KEYLESS = "no such user, or one whose password was set before there was SCRAM"


class Phase(Enum):
    HANDSHAKE = auto()
    TOKENS = auto()
    ASKED = auto()  # about a user; nothing may come meanwhile
    OVER = auto()


_ALLOWED = {
    Phase.HANDSHAKE: (API_VERSIONS, SASL_HANDSHAKE),
    Phase.TOKENS: (SASL_AUTHENTICATE,),
    Phase.ASKED: (),
    Phase.OVER: (),
}


@dataclass(frozen=True, slots=True)
class CheckPassword:
    """Find out whether this is the user's password, and tell by `checked`."""

    user: str
    password: bytes


@dataclass(frozen=True, slots=True)
class FindKeys:
    """Find what is stored of the user's password, and give it by `found`."""

    user: str
    mechanism: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send a token; another one will come."""

    token: bytes


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """Send the last token: the client is this user."""

    user: str
    token: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """Tell the client that it does not get in, and close. `reason` is for our log alone: it may tell who exists."""

    user: str
    reason: str


Step = CheckPassword | FindKeys | Challenge | LoggedIn | Failed


class Sasl:
    """One client's login, step by step.

    Args:
        nonce: Random, of printable characters without a comma; no two logins have the same.
    Attributes:
        raw: Tokens come without Kafka's headers.
    """

    def __init__(self, nonce: str) -> None:
        self._nonce = nonce
        self._phase = Phase.HANDSHAKE
        self._mechanism = ""
        self._scram: ScramExchange | None = None
        self._has_keys: bool | None = None  # not known before the challenge
        self._user = ""
        self.raw = False

    def allows(self, api_key: int) -> bool:
        """Tell whether a request of this API may come now."""
        return api_key in _ALLOWED[self._phase]

    def handshake(self, mechanism: str | None, version: int) -> bool:
        """Take SaslHandshake; False: there is no such mechanism, and the login is over."""
        assert self._phase is Phase.HANDSHAKE
        if mechanism is None or mechanism not in MECHANISMS:
            self._phase = Phase.OVER
            return False
        self._phase, self._mechanism, self.raw = Phase.TOKENS, mechanism, version == 0
        if mechanism in HASHES:
            self._scram = ScramExchange(mechanism, self._nonce)
        return True

    def token(self, token: bytes | None) -> Step:
        """Take a token, of SaslAuthenticate or bare; what is null in place of one is an empty one."""
        assert self._phase is Phase.TOKENS
        token = token or b""
        self._phase = Phase.ASKED
        try:
            if self._scram is None:
                self._user, password = read_plain(token)
                return CheckPassword(self._user, password)
            if self._has_keys is None:
                self._user = self._scram.first(token)
                return FindKeys(self._user, self._mechanism)
            last = self._scram.final(token)
            return self._logged_in(last) if self._has_keys else self.fail(KEYLESS)
        except SaslError as error:
            return self.fail(KEYLESS if self._has_keys is False else str(error))

    def checked(self, *, right: bool) -> LoggedIn | Failed:
        """Say whether the password of `CheckPassword` is the user's."""
        assert self._phase is Phase.ASKED
        return self._logged_in(b"") if right else self.fail("wrong user name or password")

    def found(self, keys: ScramKeys, *, real: bool) -> Challenge:
        """Give the keys of `FindKeys`; for a user who has none ones that are not real, so that nobody learns it."""
        assert self._phase is Phase.ASKED
        assert self._scram is not None
        assert self._has_keys is None
        self._phase, self._has_keys = Phase.TOKENS, real
        return Challenge(self._scram.challenge(keys))

    def fail(self, reason: str) -> Failed:
        """End the login."""
        self._phase = Phase.OVER
        return Failed(self._user, reason)

    def _logged_in(self, token: bytes) -> LoggedIn:
        self._phase = Phase.OVER
        return LoggedIn(self._user, token)


def read_plain(token: bytes) -> tuple[str, bytes]:
    """Return user and password of a token of PLAIN: [authorization id] NUL user NUL password.

    Raises:
        SaslError: it is no such token, or would act for another user.
    """
    if len(token) > MESSAGE_BYTES_MAX:
        raise SaslError(f"a message of {len(token)} bytes")
    parts = token.split(b"\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise SaslError("no token of PLAIN")
    try:
        authorization, user = (saslprep(part.decode()) for part in parts[:2])
    except UnicodeDecodeError:
        raise SaslError("a name that is no UTF-8") from None
    if authorization not in ("", user):  # CVE-2017-12610
        raise SaslError("an authorization id that is not the user")
    return user, parts[2]
