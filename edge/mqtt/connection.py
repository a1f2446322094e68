"""One socket of a device: reads bytes, lets the session decide, writes what it says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Protocol, cast

import structlog

from edge.keepalive import keep_alive
from edge.mqtt.codes import Reason
from edge.mqtt.config import MqttConfig
from edge.mqtt.events import Append, Lost, Received, SessionEffect, Tick, Write
from edge.mqtt.inlet import Inlet
from edge.mqtt.packets import Connect, Packet, Violation, encode_disconnect
from edge.mqtt.parser import Parser
from edge.mqtt.stats import Counters
from edge.security.admission import Admission

WRITE_BYTES_MAX = 64 * 1024  # beyond, the device is not read until it reads
SLOW_READER_MS = 30_000
FAREWELL_S = 5

_log = structlog.get_logger("mqtt")


def now_ms() -> int:
    """Return the monotonic time."""
    return time.monotonic_ns() // 1_000_000


class Doorkeeper(Protocol):
    """Who lets clients in, as a connection knows it: the lobby."""

    def connecting(self, connection: Connection, connect: Connect) -> None: ...

    def departed(self, inlet: Inlet, lost: Lost) -> None: ...


class Host(Protocol):
    """Whose the connections are, as a connection knows it: the gateway."""

    @property
    def config(self) -> MqttConfig: ...

    @property
    def counters(self) -> Counters: ...

    @property
    def admission(self) -> Admission: ...

    @property
    def lobby(self) -> Doorkeeper: ...

    def entered(self, connection: Connection) -> None: ...

    def left(self, connection: Connection) -> None: ...

    def turned_away(self, ip: str, problem: str) -> None: ...

    def overflow(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """A device's connection. Thread: the gateway's loop."""

    __slots__ = (
        "_authenticated",
        "_closing",
        "_counted",
        "_gateway",
        "_parser",
        "_partial_bytes",
        "_paused_for",
        "_transport",
        "_writing_paused_ms",
        "began_ms",
        "inlet",
        "ip",
    )

    def __init__(self, gateway: Host) -> None:
        self._gateway = gateway
        self._parser = Parser(gateway.config.packet_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._authenticated = False
        self._closing = False
        self._counted = False
        self._partial_bytes = 0
        self._paused_for: set[str] = set()
        self._writing_paused_ms = 0
        self.inlet: Inlet | None = None
        self.ip = ""
        self.began_ms = 0

    # ---- the transport's calls ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's own do not inherit it
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.ip = str(peer[0]) if peer else ""
        self.began_ms = now_ms()
        problem = self._gateway.admission.enter(self.ip)
        if problem:
            self._gateway.turned_away(self.ip, problem)
            self._closing = True
            transport.abort()
            return
        self._counted = True
        transport.set_write_buffer_limits(high=WRITE_BYTES_MAX)
        keep_alive(transport)  # for devices with keep-alive 0
        self._gateway.entered(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        gateway = self._gateway
        gateway.counters.bytes_in += len(data)
        packets = self._parser.feed(data)
        if self._parser.buffered_bytes or self._partial_bytes:
            self._count_partial()
        if packets:
            self._take(packets)
        if gateway.counters.held_bytes > gateway.config.held_bytes_total_max:
            gateway.overflow(self)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self.resume("")
        self._gateway.counters.held_bytes -= self._partial_bytes
        self._partial_bytes = 0
        authenticated = self._authenticated
        self.detach()
        if self._counted:
            self._gateway.admission.leave(self.ip, authenticated=authenticated)
            self._gateway.left(self)

    def pause_writing(self) -> None:
        self._writing_paused_ms = now_ms()
        self.pause("write")

    def resume_writing(self) -> None:
        self._writing_paused_ms = 0
        self.resume("write")

    @property
    def closed(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing

    # ---- packets -----------------------------------------------------------------------------------------------------

    def _take(self, packets: list[Packet]) -> None:
        if self.inlet is not None:
            self.apply(self.inlet.session.step(Received(packets), now_ms()))
            return
        first = packets[0]
        if isinstance(first, Connect):
            self.pause("login")
            self._gateway.lobby.connecting(self, first)
            return
        assert isinstance(first, Violation), "the parser lets nothing else pass before a CONNECT"
        self._gateway.counters.malformed += 1
        self.close(first.reason, first.text, say=b"")

    def let_in(self, inlet: Inlet, connack: bytes) -> None:
        """Begin the session: what came behind the CONNECT is taken now."""
        self._authenticated = True
        self.inlet = inlet
        inlet.connection = self
        self.write(connack)
        packets = self._parser.accept(self._gateway.config.packet_bytes_max)
        self.resume("login")
        self._count_partial()
        if packets:
            self._take(packets)
        self.check_held()

    def apply(self, effects: list[SessionEffect]) -> None:
        """Do what the session says."""
        for effect in effects:
            if isinstance(effect, Append):
                assert self.inlet is not None
                self.inlet.append(effect.publications)
                if self.inlet.held_bytes:
                    self.check_held()
            elif isinstance(effect, Write):
                self.write(effect.data)
            else:
                self.close(effect.reason, effect.text, say=b"")

    def write(self, data: bytes) -> None:
        """Send bytes; the transport keeps what the socket does not take."""
        assert self._transport is not None
        if data and not self._transport.is_closing():
            self._transport.write(data)

    # ---- pausing -----------------------------------------------------------------------------------------------------

    def pause(self, why: str) -> None:
        """Stop reading the socket, for one reason more."""
        if not self._paused_for:
            self._gateway.counters.paused += 1
            if self._transport is not None and not self._transport.is_closing():
                self._transport.pause_reading()
        self._paused_for.add(why)

    def resume(self, why: str) -> None:
        """Take back one reason for pausing, or all: empty; read again if there is none left."""
        if not self._paused_for:
            return
        if why:
            self._paused_for.discard(why)
        else:
            self._paused_for.clear()
        if self._paused_for:
            return
        self._gateway.counters.paused -= 1
        if self.inlet is not None:
            self.inlet.session.heard_ms = now_ms()  # silent only since it was not listened to
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def check_held(self) -> None:
        """Read the socket on, or not, by what its messages occupy."""
        if self.inlet is None:
            return
        limit = self._gateway.config.held_bytes_max
        if self.inlet.held_bytes > limit:
            self.pause("held")
        elif "held" in self._paused_for and self.inlet.held_bytes <= limit // 2:
            self.resume("held")

    def _count_partial(self) -> None:
        """Count what is held of a packet that is not whole among the bytes held."""
        now = self._parser.buffered_bytes
        self._gateway.counters.held_bytes += now - self._partial_bytes
        self._partial_bytes = now

    # ---- the end -----------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        """Look at the clock: CONNECT in time, keep-alive, a device that does not read."""
        if self._closing:
            return
        if self.inlet is None:
            if now_ms - self.began_ms > self._gateway.config.connect_timeout_ms and "login" not in self._paused_for:
                self.close(Reason.UNSPECIFIED_ERROR, "no CONNECT in time", say=b"")
        elif self._writing_paused_ms and now_ms - self._writing_paused_ms > SLOW_READER_MS:
            self.abort()
        elif not self._paused_for:
            self.apply(self.inlet.session.step(Tick(), now_ms))

    def close(self, reason: Reason, text: str, *, say: bytes | None = None) -> None:
        """Say why, as far as MQTT has a word for it, and end the connection once that is sent."""
        if self._closing:
            return
        self._closing = True
        if reason:
            _log.debug("closing", ip=self.ip, reason=reason.name, text=text)
        if say is None and self.inlet is not None:
            say = encode_disconnect(self.inlet.session.version, reason)
        if say:
            self.write(say)
        self.detach()
        if self._transport is not None:
            self._transport.close()
            if self._transport.get_write_buffer_size():
                asyncio.get_running_loop().call_later(FAREWELL_S, self.abort)

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            with contextlib.suppress(RuntimeError):
                self._transport.abort()

    def detach(self) -> None:
        """Let go of the session, which may go on without this connection."""
        inlet, self.inlet = self.inlet, None
        if inlet is None:
            return
        inlet.connection = None
        self._gateway.lobby.departed(inlet, Lost(inlet.drop_unsent()))
