"""A connection that has not logged in yet: its frames one by one, until it is let in or closed."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import structlog

from edge.kafka.codec import (
    API_VERSIONS,
    SASL_HANDSHAKE,
    Request,
    decode_head,
    decode_request,
    encode_response,
    error_codes,
)
from edge.kafka.config import KafkaConfig
from edge.kafka.fields import Malformed
from edge.kafka.sasl import MECHANISMS, Challenge, CheckPassword, Failed, FindKeys, LoggedIn, Sasl, Step
from edge.kafka.stats import Counters
from edge.kafka.versions import answer_versions
from edge.security.logins import Logins, Verdict
from ingest.wire.codes import ErrorCode

FRAME_BYTES_MAX = 1 << 16  # of who has not logged in: thousands of those may be connected
FRAMES_MAX = 16  # versions, handshake, two tokens; answers to ApiVersions are thirty times as long as the question
REFUSED = "wrong user name or password, or too many of them lately"

_log = structlog.get_logger("kafka")


class Busy(Exception):
    """Too many logins wait; the client comes again if it is closed without a word."""


class Entrant(Protocol):
    """Whose login it is: the connection."""

    @property
    def ip(self) -> str: ...

    def write(self, data: bytes) -> None: ...

    def regulate(self) -> None: ...

    def malformed(self, error: Exception) -> None: ...

    def let_in(self, user: str, rest: Sequence[memoryview]) -> None: ...

    def close(self) -> None: ...


class Login:
    """Let one client in. Thread: the gateway's loop."""

    def __init__(
        self,
        entrant: Entrant,
        logins: Logins,
        config: KafkaConfig,
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._entrant = entrant
        self._logins = logins
        self._config = config
        self._counters = counters
        self._loop = loop
        self._sasl = Sasl(secrets.token_urlsafe(24))
        self._frames: deque[memoryview] = deque()
        self._taken = 0
        self._serving: asyncio.Task[None] | None = None
        self._late = False
        self._timer = loop.call_later(config.connect_timeout_ms / 1000, self._expired)

    @property
    def busy(self) -> bool:
        """Whether frames wait to be answered: until then the socket is not read."""
        return self._serving is not None

    def take(self, frames: Sequence[memoryview]) -> None:
        """Take frames; they are answered in their order."""
        self._frames.extend(frames)
        if self._frames and self._serving is None:
            self._serving = self._loop.create_task(self._serve())
            self._serving.add_done_callback(self._served)
            self._entrant.regulate()

    def close(self) -> None:
        """Forget it: the connection is gone."""
        self._timer.cancel()
        if self._serving is not None:
            self._serving.cancel()

    async def _serve(self) -> None:
        try:
            while self._frames:
                self._counters.requests += 1
                self._taken += 1
                if self._taken > FRAMES_MAX:
                    raise Malformed(f"more than {FRAMES_MAX} requests before the login")
                answer, step = await self._answer(self._frames.popleft())
                self._entrant.write(answer)
                if isinstance(step, LoggedIn):
                    self._timer.cancel()
                    self._late = False
                    self._entrant.let_in(step.user, self._frames)
                    return
                if isinstance(step, Failed):
                    self._entrant.close()
                    return
        except Malformed as error:
            self._entrant.malformed(error)
        except Busy:
            self._entrant.close()

    def _served(self, serving: asyncio.Task[None]) -> None:
        self._serving = None
        if serving.cancelled():
            return
        if error := serving.exception():
            self._counters.failed += 1
            _log.error("a login failed", error=repr(error), exc_info=error)
            self._entrant.close()
        elif self._late:
            self._expired()
        self._entrant.regulate()

    def _expired(self) -> None:
        """Close: what the client had to say was not there in time."""
        self._late = True
        if self._serving is None:  # else it is we who are slow
            self._entrant.malformed(Malformed("no login in time"))

    async def _answer(self, frame: memoryview) -> tuple[bytes, Step | None]:
        """Return what is answered to a frame, and how far the login is.

        Raises:
            Malformed: it may not come now, or is no request.
            Busy: there is no answer.
        """
        sasl = self._sasl
        if sasl.raw:
            bare = await self._authenticate(bytes(frame))
            return _bare(bare), bare
        head = decode_head(frame)
        if not sasl.allows(head.api_key):
            raise Malformed(f"api {head.api_key} of a client that has not logged in")
        request = decode_request(frame)
        started, counts = time.perf_counter(), self._counters.apis
        if (versions := answer_versions(request)) is not None:
            counts.answered(API_VERSIONS, 0.0)
            return versions, None
        assert isinstance(request, Request)
        answer, step = await self._asked(request)
        counts.answered(head.api_key, time.perf_counter() - started)
        counts.refused(head.api_key, error_codes(answer))
        return encode_response(request, answer), step

    async def _asked(self, request: Request) -> tuple[Any, Step | None]:
        """Serve SaslHandshake and SaslAuthenticate."""
        response, body = request.api.response, request.body
        if request.api.key == SASL_HANDSHAKE:
            if self._sasl.handshake(body.mechanism, request.version):
                return response(error_code=0, mechanisms=list(MECHANISMS)), None
            failed = await self._failed(self._sasl.fail(f"mechanism {str(body.mechanism)[:64]!r}"))
            code = int(ErrorCode.UNSUPPORTED_SASL_MECHANISM)
            return response(error_code=code, mechanisms=list(MECHANISMS)), failed
        step = await self._authenticate(body.auth_bytes)
        if isinstance(step, Challenge | LoggedIn):
            return response(error_code=0, error_message=None, auth_bytes=step.token, session_lifetime_ms=0), step
        code = int(ErrorCode.SASL_AUTHENTICATION_FAILED)
        return response(error_code=code, error_message=REFUSED, auth_bytes=b"", session_lifetime_ms=0), step

    async def _authenticate(self, token: bytes | None) -> Step:
        """Take a token; whoever fails waits (KIP-306).

        Raises:
            Busy: too many wait.
        """
        step = self._sasl.token(token)
        match step:
            case CheckPassword(user, password):
                verdict = await self._logins.check(self._entrant.ip, user, password)
                if verdict is Verdict.BUSY:
                    raise Busy
                if verdict is Verdict.GUESSING:
                    return await self._failed(self._sasl.fail(verdict.value))
                step = self._sasl.checked(right=verdict is Verdict.RIGHT)
            case FindKeys(user, mechanism):
                if self._logins.is_guessing(self._entrant.ip, user):
                    return await self._failed(self._sasl.fail(Verdict.GUESSING.value))
                keys, real = await self._logins.scram_keys(user, mechanism)
                step = self._sasl.found(keys, real=real)
            case LoggedIn(user) if self._logins.is_guessing(self._entrant.ip, user):
                step = self._sasl.fail(Verdict.GUESSING.value)
            case Failed(user):
                self._logins.failed(self._entrant.ip, user)
        return await self._failed(step) if isinstance(step, Failed) else step

    async def _failed(self, failed: Failed) -> Failed:
        self._counters.auth_failures += 1
        _log.warning("login failed", ip=self._entrant.ip, user=failed.user[:64], reason=failed.reason)
        await asyncio.sleep(self._config.failed_login_delay_ms / 1000)
        return failed


def _bare(step: Step) -> bytes:
    """Return what a bare token is answered: another one; a failure is not told."""
    if isinstance(step, Challenge | LoggedIn):
        return len(step.token).to_bytes(4, "big") + step.token
    return b""
