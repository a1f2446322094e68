"""Many devices on real sockets, in one thread: they publish at a steady pace and come back when they are cut off."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

from tests.faults.device import BrokenProtocol, Device
from tests.faults.history import History

TICK_S = 0.005
RECONNECT_S = 0.02
WINDOW = 10


class _Line:
    """A device and its socket."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.peer: socket.socket | None = None
        self.connect_at_s = 0.0
        self.heard_s = 0.0


class Fleet:
    """Devices that publish through a gateway until each has its last PUBACK.

    Args:
        port: Where the gateway listens now.
        per_s: Messages a second of all together; 0: as fast as the windows allow.
        patience_s: A device that waits so long for an answer connects anew.
    """

    def __init__(
        self,
        history: History,
        port: Callable[[], int],
        *,
        devices: int = 50,
        messages: int,
        per_s: int = 0,
        patience_s: float = 5.0,
        seed: int = 0,
    ) -> None:
        self.history = history
        each, more = divmod(messages, devices)
        self.devices = [Device(number, each + (number < more), WINDOW, history) for number in range(devices)]
        self.messages = messages
        self._port = port
        self._per_s = per_s
        self._patience_s = patience_s
        self._dice = random.Random(seed)
        self._lines = [_Line(device) for device in self.devices]
        self._selector = selectors.DefaultSelector()
        self._acknowledged = 0
        self._news = threading.Condition()
        self._stopping = False
        self.problems: list[str] = []
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)

    # ---- for tests

    def __enter__(self) -> Fleet:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping = True
        self._thread.join()

    @property
    def acknowledged(self) -> int:
        return self._acknowledged

    @property
    def reconnects(self) -> int:
        return sum(max(0, device.connections - 1) for device in self.devices)

    def await_more(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait until so many more messages were acknowledged, or all."""
        self.await_total(min(self.messages, self._acknowledged + count), timeout_s)

    def await_total(self, total: int, timeout_s: float = 60.0) -> None:
        """Wait until so many messages were acknowledged."""
        with self._news:
            done = self._news.wait_for(lambda: self._acknowledged >= total or bool(self.problems), timeout_s)
        assert not self.problems, self.problems
        assert done, f"{self._acknowledged} of {total} messages acknowledged after {timeout_s:.0f} s"

    def finish(self, timeout_s: float = 60.0) -> None:
        """Publish nothing new, and wait until all that was published is acknowledged."""
        for device in self.devices:
            device.stop()
        self._thread.join(timeout_s)
        assert not self.problems, self.problems
        waiting = [device.client_id for device in self.devices if not device.done]
        assert not waiting, f"{waiting} wait for acknowledgements after {timeout_s:.0f} s"

    # ---- the loop

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:
            self.problems.append(f"the fleet ended: {error!r}")
            raise
        finally:
            for line in self._lines:
                self._close(line, 0.0)
            self._selector.close()
            with self._news:
                self._news.notify_all()

    def _loop(self) -> None:
        budget, last_s = 0.0, time.monotonic()
        while not self._stopping and not all(device.done for device in self.devices):
            ready = self._selector.select(TICK_S)
            now_s = time.monotonic()
            acknowledged = sum(self._read(key.data, now_s) for key, mask in ready if mask & selectors.EVENT_READ)
            budget = min(budget + (now_s - last_s) * self._per_s, self._per_s * 0.1) if self._per_s else 1e9
            last_s = now_s
            for line in self._dice.sample(self._lines, len(self._lines)):
                if line.peer is None:
                    self._connect(line, now_s)
                    continue
                if line.device.waits and now_s - line.heard_s > self._patience_s:
                    self._close(line, now_s)
                    continue
                if budget >= 1:
                    if not line.device.waits:
                        line.heard_s = now_s  # its patience begins with what it sends now
                    budget -= line.device.publish_some(min(2, int(budget)))
                self._write(line, now_s)
            if acknowledged:
                with self._news:
                    self._acknowledged += acknowledged
                    self._news.notify_all()

    def _connect(self, line: _Line, now_s: float) -> None:
        if now_s < line.connect_at_s:
            return
        peer = socket.socket()
        try:
            peer.connect(("127.0.0.1", self._port()))  # on this machine: at once, or refused at once
        except OSError:
            peer.close()
            line.connect_at_s = now_s + RECONNECT_S
            return
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.setblocking(False)
        line.peer, line.heard_s = peer, now_s
        self._selector.register(peer, selectors.EVENT_READ, line)
        line.device.connected()
        self._write(line, now_s)

    def _read(self, line: _Line, now_s: float) -> int:
        if line.peer is None:
            return 0
        try:
            data = line.peer.recv(1 << 16)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if not data:
            self._close(line, now_s)
            return 0
        line.heard_s = now_s
        try:
            return line.device.receive(data, now_s)
        except BrokenProtocol as error:
            self.problems.append(str(error))
            self._close(line, now_s)
            return 0

    def _write(self, line: _Line, now_s: float) -> None:
        data = line.device.unsent()
        if line.peer is None or not data:
            return
        try:
            line.device.sent(line.peer.send(data))
        except BlockingIOError:
            pass  # the next tick tries again
        except OSError:
            self._close(line, now_s)

    def _close(self, line: _Line, now_s: float) -> None:
        if line.peer is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(line.peer)
            line.peer.close()
            line.peer = None
            line.connect_at_s = now_s + self._dice.uniform(0, RECONNECT_S)
