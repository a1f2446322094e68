"""From CONNECT to a session: rules, password, takeover, CONNACK."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from functools import partial

import structlog

from edge.mqtt.codes import Reason
from edge.mqtt.config import MqttConfig
from edge.mqtt.connect import Refused, accepting_connack, client_id_refusal, refusal, refusing_connack
from edge.mqtt.connection import Connection
from edge.mqtt.events import Lost
from edge.mqtt.inlet import Inlet
from edge.mqtt.intake import Intake
from edge.mqtt.packets import Connect
from edge.mqtt.sessions import Accepted, Arrived, Departed, Effect, Passed, PublishWill, Sessions, TakeOver
from edge.mqtt.stats import Counters
from edge.security.admission import Admission
from edge.security.logins import Logins, Verdict

_REFUSED = {
    Verdict.WRONG: Refused(Reason.BAD_USER_NAME_OR_PASSWORD, Verdict.WRONG.value),
    Verdict.GUESSING: Refused(Reason.CONNECTION_RATE_EXCEEDED, Verdict.GUESSING.value),
    Verdict.BUSY: Refused(Reason.SERVER_BUSY, Verdict.BUSY.value),
}

_log = structlog.get_logger("mqtt")


class Lobby:
    """Let clients in. Thread: the gateway's loop."""

    def __init__(
        self,
        config: MqttConfig,
        sessions: Sessions,
        intake: Intake,
        admission: Admission,
        counters: Counters,
        loop: asyncio.AbstractEventLoop,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self._config = config
        self._sessions = sessions
        self._intake = intake
        self._admission = admission
        self._counters = counters
        self._loop = loop
        self._now_ms = now_ms
        self._logins = Logins(config.password_file, loop, now_ms=now_ms) if config.password_file else None

    def connecting(self, connection: Connection, connect: Connect) -> None:
        """Take a CONNECT; its connection is not read until it is let in or refused."""
        refused = refusal(connect)
        if refused is not None:
            self._refuse(connection, connect, refused)
        elif self._logins is None:
            self._arrived(connection, connect, None)
        elif connect.user is None or connect.password is None:
            self._logins.failed(connection.ip, connect.user or "")
            self._login_failed(connection, connect, Verdict.WRONG)
        else:
            check = self._loop.create_task(self._logins.check(connection.ip, connect.user, connect.password))
            check.add_done_callback(partial(self._checked, connection, connect))

    def departed(self, inlet: Inlet, lost: Lost) -> None:
        """A session lost its connection."""
        self._publish_wills(self._sessions.step(Departed(inlet.session, lost), self._now_ms()))

    def tick(self, now_ms: int) -> None:
        """Let sessions end and wills go out that are due."""
        self._publish_wills(self._sessions.step(Passed(), now_ms))
        if self._logins is not None:
            self._logins.tick()

    def close(self) -> None:
        """Check no more passwords."""
        if self._logins is not None:
            self._logins.close()

    def _checked(self, connection: Connection, connect: Connect, check: asyncio.Task[Verdict]) -> None:
        if check.cancelled() or connection.closed:
            return
        verdict = check.result()
        if verdict is Verdict.RIGHT:
            self._arrived(connection, connect, connect.user)
        elif verdict is Verdict.BUSY:
            self._refuse(connection, connect, _REFUSED[verdict])
        else:
            self._login_failed(connection, connect, verdict)

    def _login_failed(self, connection: Connection, connect: Connect, verdict: Verdict) -> None:
        self._counters.auth_failures += 1
        if verdict is Verdict.WRONG:
            client_id = connect.client_id[:64]
            _log.warning("login failed", ip=connection.ip, user=(connect.user or "")[:64], client_id=client_id)
        delay_s = self._config.failed_login_delay_ms / 1000  # KIP-306
        self._loop.call_later(delay_s, self._refuse, connection, connect, _REFUSED[verdict])

    @staticmethod
    def _refuse(connection: Connection, connect: Connect, refused: Refused) -> None:
        connection.close(refused.reason, refused.text, say=refusing_connack(connect.version, refused))

    def _arrived(self, connection: Connection, connect: Connect, user: str | None) -> None:
        assigned_id = "" if connect.client_id else self._assign_id(user)
        client_id = connect.client_id or assigned_id
        refused = client_id_refusal(client_id, user, self._config)
        if refused is not None:
            self._refuse(connection, connect, refused)
            return
        arrived = Arrived(connection, connect, client_id, user)
        effects = self._sessions.step(arrived, self._now_ms())
        while isinstance(effects[0], TakeOver):
            older = effects[0].connection
            assert isinstance(older, Connection)
            older.close(Reason.SESSION_TAKEN_OVER, "another connection has this client id")
            effects = self._sessions.step(arrived, self._now_ms())
        for effect in effects:
            match effect:
                case Accepted(session, present):
                    self._admission.let_in(connection.ip)
                    connack = accepting_connack(connect, self._config, present=present, assigned_id=assigned_id)
                    connection.let_in(self._intake.inlet(session), connack)
                case Refused():
                    self._refuse(connection, connect, effect)
                case _:
                    self._publish_wills([effect])

    def _assign_id(self, user: str | None) -> str:
        number = secrets.token_hex(12)
        if user is None or self._config.client_id_of_user == "any":
            return f"auto-{number}"
        return user if self._config.client_id_of_user == "equal" else f"{user}-auto-{number}"

    def _publish_wills(self, effects: list[Effect]) -> None:
        for effect in effects:
            assert isinstance(effect, PublishWill)
            self._intake.inlet(effect.session).append([effect.publication])
