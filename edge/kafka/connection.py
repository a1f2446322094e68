"""One socket of a Kafka client: frames in, answers out in the order of the requests."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from mmap import mmap
from typing import TYPE_CHECKING, Any, Protocol, cast

import structlog

from edge.kafka.codec import (
    API_VERSIONS,
    FETCH,
    PRODUCE,
    Head,
    Request,
    decode_head,
    decode_request,
    encode_response,
    error_codes,
)
from edge.kafka.context import Context
from edge.kafka.fields import Malformed
from edge.kafka.frames import FRAME_BYTES_MIN, FrameParser, FrameTooLarge
from edge.kafka.handlers import HANDLERS
from edge.kafka.login import FRAME_BYTES_MAX as LOGIN_BYTES_MAX
from edge.kafka.login import Login
from edge.kafka.memory import Memory
from edge.kafka.stats import Counters
from edge.kafka.versions import answer_versions
from edge.keepalive import keep_alive

if TYPE_CHECKING:
    from typing_extensions import Buffer

REQUESTS_MAX = 20  # of one connection under way; then its socket is not read
WRITE_BYTES_MAX = 1 << 20
INLINE_BYTES_MAX = 1 << 16  # read within the loop, in some milliseconds whatever it holds

_log = structlog.get_logger("kafka")


class Host(Protocol):
    """Whose the connections are: the gateway."""

    @property
    def counters(self) -> Counters: ...

    @property
    def memory(self) -> Memory: ...

    @property
    def decoding(self) -> Executor: ...

    def context(self, transport: asyncio.Transport) -> Context: ...

    def entered(self, connection: Connection) -> bool: ...

    def login(self, connection: Connection) -> Login | None: ...

    def let_in(self, connection: Connection) -> None: ...

    def left(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """A client's connection. Thread: the gateway's loop."""

    def __init__(self, gateway: Host) -> None:
        self._gateway = gateway
        self._transport: asyncio.Transport | None = None
        self._context: Context | None = None
        self._parser: FrameParser | None = None
        self._login: Login | None = None
        self.authenticated = False
        self._waiting: deque[memoryview] = deque()
        self._under_way: deque[tuple[asyncio.Task[Sequence[Buffer]], int]] = deque()  # with the request's size
        self._turn: asyncio.Task[Sequence[Buffer]] | None = None  # the last that is no Produce: they are served in turn
        self._silent: set[asyncio.Task[Sequence[Buffer]]] = set()  # acks=0: finished without the client
        self._unsent = 0
        self._reading = True
        self._can_write = True
        self._throttled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._context = self._gateway.context(self._transport)
        self._parser = FrameParser(LOGIN_BYTES_MAX, 0)
        self._transport.set_write_buffer_limits(high=WRITE_BYTES_MAX)
        keep_alive(self._transport)
        if not self._gateway.entered(self):
            self._transport.abort()
            return
        self._login = self._gateway.login(self)
        if self._login is None:
            self.let_in("", ())

    def data_received(self, data: bytes) -> None:
        assert self._parser is not None
        self._gateway.counters.bytes_in += len(data)
        try:
            frames = self._parser.feed(data)
            if self._login is not None:
                self._login.take(frames)  # others' memory is not for who has not logged in: these have little each
                return
            self._take(frames)
            self._gateway.memory.hold_part(self._clogs, self._parser.buffered_bytes)
        except (FrameTooLarge, Malformed) as error:
            self.malformed(error)

    def _clogs(self) -> None:
        self.malformed(Malformed("too much is held of requests that are not whole, most of it of this"))

    def connection_lost(self, error: Exception | None) -> None:
        under_way, self._under_way = self._under_way, deque()
        for task, size in under_way:
            if task in self._silent:
                self._under_way.append((task, size))
            else:
                task.cancel()
                self._gateway.memory.release(size)
        self._drop_waiting()
        self._gateway.memory.hold_part(self._clogs, 0)
        self._hold_unsent(0)
        self._gateway.memory.forget(self.regulate)
        if self._login is not None:
            self._login.close()
        if self._throttled is not None:
            self._throttled.cancel()
        self._transport = None
        self._gateway.left(self)

    def _hold_unsent(self, size: int) -> None:
        self._gateway.memory.unsent += size - self._unsent
        self._unsent = size

    def pause_writing(self) -> None:
        self._can_write = False
        self.regulate()

    def resume_writing(self) -> None:
        self._can_write = True
        self._hold_unsent(0)
        self._go_on()

    @property
    def ip(self) -> str:
        """The address of the client."""
        return self._context.client_ip if self._context is not None else ""

    def let_in(self, user: str, rest: Iterable[memoryview]) -> None:
        """Serve the client, who is this user, "" for nobody; begin with frames that have come meanwhile.

        Raises:
            Malformed: one of these is no request.
        """
        assert self._context is not None
        assert self._parser is not None
        self._login = None
        self._context.principal = user
        self.authenticated = True
        self._parser.bytes_min, self._parser.bytes_max = FRAME_BYTES_MIN, self._context.config.request_bytes_max
        self._gateway.let_in(self)
        self._take(rest)

    def malformed(self, error: Exception) -> None:
        """Close for what the client sent."""
        self._gateway.counters.malformed += 1
        _log.info("closed for what it sent", ip=self.ip, reason=str(error))
        self.close()

    def _take(self, frames: Iterable[memoryview]) -> None:
        assert self._context is not None
        for frame in frames:
            if frame.nbytes > self._context.config.other_bytes_max and decode_head(frame).api_key != PRODUCE:
                raise Malformed(f"a request of {frame.nbytes} bytes that is no Produce")
            self._gateway.memory.whole += frame.nbytes
            self._waiting.append(frame)
            self._advance()

    def _advance(self) -> None:
        """Begin with what has come.

        Produces go on beside one another; all else is served one by one, as by Kafka: a commit does not overtake
        another. A Fetch, whose answer may be large, waits until all before it is sent.
        """
        loop = asyncio.get_running_loop()
        while self._waiting and len(self._under_way) < REQUESTS_MAX and not self._is_throttled():
            head = decode_head(self._waiting[0])
            if head.api_key == FETCH and (self._under_way or not self._can_write):
                break
            if head.api_key != PRODUCE and self._turn is not None and not self._turn.done():
                break
            frame = self._waiting[0]  # one that is no request is still among them when they are dropped
            self._gateway.counters.requests += 1
            if frame.nbytes > INLINE_BYTES_MAX and head.api_key != PRODUCE:
                task = loop.create_task(self._serve_large(frame))
            else:
                request = decode_request(frame)
                task = loop.create_task(self._serve(request))
                if isinstance(request, Request) and head.api_key == PRODUCE and not request.body.acks:
                    self._silent.add(task)
                    task.add_done_callback(self._silent.discard)
            if head.api_key != PRODUCE:
                self._turn = task
            self._waiting.popleft()
            self._under_way.append((task, frame.nbytes))
            task.add_done_callback(self._done)
        self.regulate()

    async def _serve_large(self, frame: memoryview) -> Sequence[Buffer]:
        """Read it beside the loop, one such request at a time: a megabyte may hold half a million things."""
        loop = asyncio.get_running_loop()
        return await self._serve(await loop.run_in_executor(self._gateway.decoding, decode_request, frame))

    async def _serve(self, request: Request | Head) -> Sequence[Buffer]:
        assert self._context is not None
        started, counts = time.perf_counter(), self._gateway.counters.apis
        if (versions := answer_versions(request)) is not None:
            counts.answered(API_VERSIONS, 0.0)
            return [versions]
        assert isinstance(request, Request)
        answer = await HANDLERS[request.api.key](self._context, request)
        counts.answered(request.api.key, time.perf_counter() - started)
        if answer is None:
            return []
        if isinstance(answer, list):
            copied = self._context.is_tls
            held = sum(memoryview(part).nbytes for part in answer if copied or not _is_mapped(part))
            self._hold_unsent(held)  # of one Fetch: another waits until it is sent
            return cast("Sequence[Buffer]", answer)
        counts.refused(request.api.key, error_codes(answer))
        return [encode_response(request, answer)]

    def _done(self, _: asyncio.Task[Any]) -> None:
        """Send what is answered, in order."""
        while self._under_way and self._under_way[0][0].done():
            task, size = self._under_way.popleft()
            self._gateway.memory.release(size)
            if task.cancelled():
                return
            error = task.exception()
            if isinstance(error, Malformed):
                self.malformed(error)
                return
            if error is not None:
                self._gateway.counters.failed += 1
                _log.error("a request failed", error=repr(error), exc_info=error)
                self.close()
                return
            if self._transport is not None and not self._transport.is_closing():
                parts = task.result()
                if parts:
                    self._gateway.counters.bytes_out += sum(memoryview(part).nbytes for part in parts)
                    self._transport.writelines(parts)  # type: ignore[arg-type]
                    if self._can_write:
                        self._hold_unsent(0)
        if self._transport is not None:
            self._go_on()

    def _go_on(self) -> None:
        try:
            self._advance()
        except Malformed as error:
            self.malformed(error)

    def regulate(self) -> None:
        """Read the socket, or not, by its login, what is under way, what the client has not read, and its quota."""
        if self._login is not None:
            wanted = not self._login.busy
        else:
            memory = self._gateway.memory
            if memory.is_full:
                memory.when_free(self.regulate)
            few = len(self._under_way) + len(self._waiting) < REQUESTS_MAX
            wanted = few and self._can_write and not self._is_throttled() and not memory.is_full
        if wanted == self._reading or self._transport is None or self._transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _is_throttled(self) -> bool:
        """Tell whether nothing more is taken of this client for its quota; it goes on by itself."""
        throttle_ms = self._context.throttle_ms if self._context is not None else 0
        if throttle_ms and self._throttled is None:
            self._throttled = asyncio.get_running_loop().call_later(throttle_ms / 1000, self._unthrottle)
        return throttle_ms > 0

    def _unthrottle(self) -> None:
        self._throttled = None
        self._go_on()

    def write(self, data: bytes) -> None:
        """Send bytes, unless it is closed."""
        if self._transport is not None and not self._transport.is_closing():
            self._gateway.counters.bytes_out += len(data)
            self._transport.write(data)

    def close(self) -> None:
        """Close once what was answered is sent."""
        self._drop_waiting()
        if self._transport is not None:
            self._transport.close()

    def _drop_waiting(self) -> None:
        self._gateway.memory.release(sum(frame.nbytes for frame in self._waiting))
        self._waiting.clear()


def _is_mapped(part: Buffer) -> bool:
    """Tell whether a part of an answer is a view of a map, which takes no memory of ours."""
    return isinstance(memoryview(part).obj, mmap)
