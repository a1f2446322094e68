"""From CONNECT to a session: rules, password, takeover, CONNACK."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import structlog

from edge.mqtt.admission import Admission
from edge.mqtt.codes import Reason
from edge.mqtt.config import MqttConfig
from edge.mqtt.connect import Refused, accepting_connack, client_id_refusal, refusal, refusing_connack
from edge.mqtt.connection import Connection
from edge.mqtt.events import Lost
from edge.mqtt.inlet import Inlet
from edge.mqtt.intake import Intake
from edge.mqtt.packets import Connect
from edge.mqtt.passwords import Users
from edge.mqtt.sessions import Accepted, Arrived, Departed, Effect, Passed, PublishWill, Sessions, TakeOver
from edge.mqtt.stats import Counters

LOGINS_WAITING_MAX = 1000  # some 40 s of scrypt

_log = structlog.get_logger("mqtt")


class Lobby:
    """Let clients in. Thread: the gateway's loop; one more computes password hashes."""

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
        self._users = Users(config.password_file) if config.password_file else None
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="mqtt-password")
        self._logins_waiting = 0

    def connecting(self, connection: Connection, connect: Connect) -> None:
        """Take a CONNECT; its connection is not read until it is let in or refused."""
        refused = refusal(connect)
        if refused is not None:
            self._refuse(connection, connect, refused)
        elif self._users is None:
            self._arrived(connection, connect, None)
        elif connect.user is None or connect.password is None:
            self._login_failed(connection, connect)
        elif self._admission.is_guessing(connection.ip, connect.user, self._now_ms()):
            self._counters.auth_failures += 1
            refused = Refused(Reason.CONNECTION_RATE_EXCEEDED, "too many wrong passwords; wait a minute")
            self._refuse_late(connection, connect, refused)
        elif self._logins_waiting >= LOGINS_WAITING_MAX:
            self._refuse(connection, connect, Refused(Reason.SERVER_BUSY, "too many logins at once"))
        else:
            self._logins_waiting += 1
            answer = self._loop.run_in_executor(self._hashing, self._users.check, connect.user, connect.password)
            answer.add_done_callback(partial(self._checked, connection, connect))

    def departed(self, inlet: Inlet, lost: Lost) -> None:
        """A session lost its connection."""
        self._publish_wills(self._sessions.step(Departed(inlet.session, lost), self._now_ms()))

    def tick(self, now_ms: int) -> None:
        """Let sessions end and wills go out that are due."""
        self._publish_wills(self._sessions.step(Passed(), now_ms))
        if self._users is not None and self._users.problem:
            _log.error("password file not reloaded", problem=self._users.problem)
            self._users.problem = ""

    def close(self) -> None:
        """Check no more passwords."""
        self._hashing.shutdown(wait=False, cancel_futures=True)

    def _checked(self, connection: Connection, connect: Connect, answer: asyncio.Future[bool]) -> None:
        self._logins_waiting -= 1
        if answer.cancelled() or connection.closed:
            return
        if answer.result():
            self._arrived(connection, connect, connect.user)
        else:
            self._login_failed(connection, connect)

    def _login_failed(self, connection: Connection, connect: Connect) -> None:
        self._counters.auth_failures += 1
        self._admission.login_failed(connection.ip, connect.user or "", self._now_ms())
        _log.warning("login failed", ip=connection.ip, user=(connect.user or "")[:64], client_id=connect.client_id[:64])
        refused = Refused(Reason.BAD_USER_NAME_OR_PASSWORD, "wrong user name or password")
        self._refuse_late(connection, connect, refused)

    def _refuse_late(self, connection: Connection, connect: Connect, refused: Refused) -> None:
        delay_s = self._config.failed_login_delay_ms / 1000  # KIP-306
        self._loop.call_later(delay_s, self._refuse, connection, connect, refused)

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
