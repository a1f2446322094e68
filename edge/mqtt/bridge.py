"""The bridge: takes messages from an MQTT broker that already runs, and acknowledges each once it is in the log.

paho-mqtt does the protocol, driven by this process's one loop, so that acknowledgements are sent by the thread that
reads. Only QoS 1 is subscribed to: with QoS 2 and manual acknowledgement paho answers PUBREC before the record is safe.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.mqtt.appender import Appender
from edge.mqtt.bridge_session import Ack, BridgeSession, Came, Effect, Message, Resumed
from edge.mqtt.config import BridgeConfig, read_secret
from edge.mqtt.events import Settled
from edge.mqtt.log_writer import LogWriter
from edge.mqtt.mapping import Mapping
from edge.mqtt.process import run_role
from edge.mqtt.properties import Property
from edge.mqtt.stats import BridgeStats, Counters
from edge.security.tls import trusting
from ingest.atomic_file import replace_file
from ingest.lifeline import Lifeline

TICK_S = 0.25
CONNECT_TIMEOUT_S = 5
RETRY_S_FIRST = 0.2
RETRY_S_MAX = 10.0
STATE_FILE = "bridge.json"

_log = structlog.get_logger("mqtt-bridge")


class Bridge:
    """One subscription to one broker, over one log. Thread: the loop's; `stats` any.

    Attributes:
        subscribed: The broker sends what comes from now on.

    Args:
        on_failed: Called with the error after which the bridge takes nothing any more; then it should stop.
    Raises:
        ConfigError: the config can't be used.
    """

    def __init__(
        self,
        config: BridgeConfig,
        log: LogWriter,
        loop: asyncio.AbstractEventLoop,
        *,
        on_failed: Callable[[BaseException], None],
    ) -> None:
        config.check()
        self._config = config
        self._loop = loop
        self._on_failed = on_failed
        self._counters = Counters()
        mapping = Mapping(config.rules, topics_max=config.topics_max, with_client=False)
        self._session = BridgeSession(mapping, config, self._counters, expects_session=self._expects_session())
        self._appender = Appender(
            log,
            self._counters,
            sent_max=config.receive_maximum,
            on_settled=self._settle_soon,
            on_full=lambda _: None,
        )
        self._client = self._make_client()
        self._reading: Any = None  # paho's socket, plain or TLS
        self.subscribed = False
        self._paused = False
        self._stopping = False
        self._gone = asyncio.Event()
        self._connects = 0
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # ---- its life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to connect; whether the broker is there does not matter yet."""
        self._timer = self._loop.call_later(TICK_S, self._tick)
        self._connecting = self._loop.create_task(self._stay_connected())

    async def stop(self) -> None:
        """Read no more, wait for what is in flight, acknowledge it, disconnect; the broker keeps the session."""
        self._stopping = True
        self._stop_reading()
        deadline = self._loop.time() + self._config.stop_timeout_ms / 1000
        while not self._appender.idle and self._loop.time() < deadline:
            await asyncio.sleep(0.005)
        while self._client.want_write() and self._loop.time() < deadline:
            await asyncio.sleep(0.005)
        self._client.disconnect()
        while self._client.want_write() and self._loop.time() < deadline:
            await asyncio.sleep(0.005)
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        self._client._sock_close()  # paho has no other word for it; it would close on deletion, after the loop
        _log.info("stopped", in_flight=self.stats().in_flight)

    def stats(self) -> BridgeStats:
        """Return what was counted. Thread: any."""
        counted = self._counters.stats()
        return BridgeStats(
            received_total=counted.received_total,
            acknowledged_total=counted.acknowledged_total,
            refused_total=counted.refused_total,
            unanswered_total=counted.unanswered_total,
            appended_total=counted.appended_total,
            in_flight=counted.in_flight,
            bytes_in_total=counted.bytes_in_total,
            dead_lettered_total=counted.dead_lettered_total,
            resends_attached_total=counted.resends_attached_total,
            retried_total=counted.retried_total,
            connections=counted.connections,
            connects_total=self._connects,
            sessions_lost_total=self._session.sessions_lost,
            stale_acks_dropped_total=self._session.stale_acks_dropped,
            held_bytes=counted.held_bytes,
        )

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick)
        self._appender.pump()
        self._check_held()
        if self._reading is not None:
            self._client.loop_misc()

    # ---- connecting --------------------------------------------------------------------------------------------------

    def _make_client(self) -> paho.Client:
        config = self._config
        client = paho.Client(
            CallbackAPIVersion.VERSION2, config.client_id, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        if config.user:
            client.username_pw_set(config.user, read_secret(config.password_file) if config.password_file else None)
        if config.tls_ca_file:
            client.tls_set_context(trusting(config.tls_ca_file))
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        return client

    async def _stay_connected(self) -> None:
        wait_s = RETRY_S_FIRST
        while not self._stopping:
            self._gone.clear()
            connects = self._connects
            try:
                await self._loop.run_in_executor(None, self._connect)
                await self._gone.wait()
            except (OSError, ValueError) as error:
                _log.warning("can't connect", host=self._config.host, port=self._config.port, error=str(error))
            wait_s = RETRY_S_FIRST if self._connects > connects else min(RETRY_S_MAX, 2 * wait_s)
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.5))

    def _connect(self) -> None:
        """Connect and send CONNECT. Thread: a helper's, while nobody else touches the client."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._config.session_expiry_s
        properties.ReceiveMaximum = self._config.receive_maximum
        self._client.connect(
            self._config.host,
            self._config.port,
            self._config.keep_alive_s,
            clean_start=False,
            properties=properties,
        )

    def _on_connect(
        self, _: paho.Client, __: Any, flags: paho.ConnectFlags, reason: ReasonCode, ___: Properties | None
    ) -> None:
        if reason.is_failure:
            _log.error("refused by the broker", reason=str(reason))
            return
        self._connects += 1
        self._counters.connections = 1
        lost = self._session.sessions_lost
        self._session.step(Resumed(flags.session_present))
        if self._session.sessions_lost > lost:
            _log.error(
                "the broker has lost this bridge's session: what it held for it is gone",
                client_id=self._config.client_id,
                check="persistence and persistent_client_expiration in mosquitto.conf; another client with this id",
            )
        self._note_session()
        options = SubscribeOptions(
            qos=1, retainAsPublished=True, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
        )
        share = f"$share/{self._config.share}/" if self._config.share else ""
        self._client.subscribe([(share + name, options) for name in self._config.filters])

    def _on_subscribe(self, _: paho.Client, __: Any, ___: int, reasons: list[ReasonCode], ____: Any) -> None:
        for name, reason in zip(self._config.filters, reasons, strict=False):
            if reason.is_failure:
                _log.error("subscription refused by the broker", filter=name, reason=str(reason))
            else:
                self.subscribed = True

    def _on_disconnect(self, _: paho.Client, __: Any, ___: Any, reason: ReasonCode, ____: Any) -> None:
        self._counters.connections = 0
        self.subscribed = False
        if not self._stopping:
            _log.warning("disconnected", reason=str(reason))
        self._loop.call_soon_threadsafe(self._gone.set)

    # ---- the socket --------------------------------------------------------------------------------------------------

    def _on_socket_open(self, _: paho.Client, __: Any, sock: Any) -> None:
        self._loop.call_soon_threadsafe(self._start_reading, sock)

    def _on_socket_close(self, _: paho.Client, __: Any, sock: Any) -> None:
        if self._reading is sock:
            self._stop_reading()
        if sock.fileno() >= 0:
            self._loop.remove_writer(sock.fileno())

    def _on_register_write(self, _: paho.Client, __: Any, sock: Any) -> None:
        self._loop.call_soon_threadsafe(self._start_writing, sock)

    def _on_unregister_write(self, _: paho.Client, __: Any, sock: Any) -> None:
        self._loop.call_soon_threadsafe(self._stop_writing, sock.fileno())

    def _start_reading(self, sock: Any) -> None:
        if sock.fileno() >= 0 and not self._stopping:
            self._reading = sock
            self._loop.add_reader(sock.fileno(), self._read, sock)

    def _stop_reading(self) -> None:
        sock, self._reading = self._reading, None
        if sock is not None and sock.fileno() >= 0:
            self._loop.remove_reader(sock.fileno())

    def _start_writing(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0 and self._client.want_write():
            self._loop.add_writer(sock.fileno(), self._client.loop_write)

    def _stop_writing(self, descriptor: int) -> None:
        if descriptor >= 0 and not self._client.want_write():
            self._loop.remove_writer(descriptor)

    def _read(self, sock: socket.socket) -> None:
        while self._client.loop_read() == MQTTErrorCode.MQTT_ERR_SUCCESS:
            if not (isinstance(sock, ssl.SSLSocket) and sock.fileno() >= 0 and sock.pending()):
                return

    # ---- messages ----------------------------------------------------------------------------------------------------

    def _on_message(self, _: paho.Client, __: Any, came: paho.MQTTMessage) -> None:
        topic: bytes = came._topic  # `topic` raises where it is not UTF-8
        assert came.qos < 2, "only QoS 1 was subscribed to"
        flags = 0x30 | came.dup << 3 | came.qos << 1 | came.retain
        pairs = getattr(came.properties, "UserProperty", None)
        message = Message(
            flags,
            topic,
            came.mid.to_bytes(2, "big") if came.qos else b"",
            bytes(came.payload),
            {Property.USER_PROPERTY: pairs} if pairs else None,
        )
        self._counters.bytes_in += len(topic) + len(came.payload)
        self._do(self._session.step(Came(message)))
        self._check_held()

    def _settle_soon(self, _: Appender) -> None:
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        try:
            self._do(self._session.step(Settled(self._appender.take_settled())))
        except Exception as error:  # the outermost frame of a loop callback: fenced, or one of our bugs
            self._on_failed(error)
            return
        self._appender.pump()
        self._check_held()

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Ack):
                self._client.ack(int.from_bytes(effect.packet_id, "big"), 1)
            else:
                self._appender.append(effect.publications)

    def _check_held(self) -> None:
        """Read the socket on, or not, by what waits for room in the log."""
        held, limit = self._appender.held_bytes, self._config.held_bytes_max
        if self._reading is not None and held > limit:
            self._stop_reading()
            self._paused = True
        elif self._paused and held <= limit // 2:
            self._paused = False
            sock = self._client.socket()
            if sock is not None:
                self._start_reading(sock)

    # ---- what is remembered of the broker's session ------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        return {"client_id": self._config.client_id, "host": self._config.host, "port": self._config.port}

    def _expects_session(self) -> bool:
        if not self._config.state_dir:
            return False
        try:
            noted = json.loads((Path(self._config.state_dir) / STATE_FILE).read_bytes())
        except (OSError, ValueError):
            return False
        return bool(noted == self._identity())

    def _note_session(self) -> None:
        """Note that the broker holds a session, for the next start. A hint: not fsynced."""
        if not self._config.state_dir:
            return
        path = Path(self._config.state_dir) / STATE_FILE
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, json.dumps(self._identity()).encode(), durable=False)
        except OSError as error:
            _log.warning("can't note the session", path=str(path), error=str(error))


def run(config: BridgeConfig, lifeline: Lifeline) -> None:
    """Run a bridge until it should stop.

    Raises:
        ConfigError: the config can't be used.
        Fenced: somebody newer took over its producer.
    """
    config.check()

    def make(log: LogWriter, loop: asyncio.AbstractEventLoop, on_failed: Callable[[BaseException], None]) -> Bridge:
        return Bridge(config, log, loop, on_failed=on_failed)

    run_role(make, config, lifeline, client_id="forebay-mqtt-bridge")
