"""The devices' MQTT session against a server that drops and delays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ops.demo.publisher import Publisher

CONNACK, PUBLISH, DUP = b"\x20\x02\x00\x00", 0x32, 0x08
Session = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind = (await reader.readexactly(1))[0]
    size = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        size |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return kind, await reader.readexactly(size)


async def read_publish(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Return (first byte, packet id, payload)."""
    kind, body = await read_packet(reader)
    assert kind & 0xF6 == PUBLISH, hex(kind)
    end = 2 + int.from_bytes(body[:2], "big")
    return kind, body[end : end + 2], body[end + 2 :]


async def with_server(sessions: list[Session], drive: Callable[[Publisher], Awaitable[None]], window: int = 2) -> None:
    """Serve one session after the other to one publisher."""
    left = list(sessions)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            assert (await read_packet(reader))[0] == 0x10
            await left.pop(0)(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    publisher = Publisher("127.0.0.1", port, "dev", window, lambda message, seconds: None)
    running = asyncio.create_task(publisher.run())
    try:
        async with asyncio.timeout(20):
            await drive(publisher)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        server.close()


def test_what_was_not_acknowledged_is_sent_again_in_order_with_dup() -> None:
    seen: list[tuple[bool, bytes]] = []
    done = asyncio.Event()

    async def first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK)
        _, packet_id, _ = await read_publish(reader)
        writer.write(b"\x40\x02" + packet_id)
        await read_publish(reader)
        await read_publish(reader)  # then the connection breaks: two have no PUBACK

    async def second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK)
        for _ in range(4):
            kind, packet_id, payload = await read_publish(reader)
            seen.append((bool(kind & DUP), payload))
            writer.write(b"\x40\x02" + packet_id)
        await done.wait()

    async def drive(publisher: Publisher) -> None:
        for number in range(5):
            publisher.publish(b"t", b"%d" % number)
        while not publisher.idle:
            await asyncio.sleep(0.01)
        done.set()
        assert publisher.acknowledged == publisher.published == 5
        assert publisher.transmissions == {1: 2, 2: 2}
        assert publisher.connects == 2

    asyncio.run(with_server([first, second], drive))
    assert seen == [(True, b"1"), (True, b"2"), (False, b"3"), (False, b"4")]


def test_the_window_bounds_what_is_under_way() -> None:
    held = asyncio.Event()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK)
        ids = [(await read_publish(reader))[1] for _ in range(2)]
        held.set()
        for packet_id in ids:
            writer.write(b"\x40")  # byte by byte: packets come in pieces
            await writer.drain()
            writer.write(b"\x02" + packet_id)
        _, packet_id, _ = await read_publish(reader)
        writer.write(b"\x40\x02" + packet_id)
        await reader.read()

    async def drive(publisher: Publisher) -> None:
        for number in range(3):
            publisher.publish(b"t", b"%d" % number)
        assert publisher.unacknowledged == [0, 1, 2]
        await held.wait()
        assert publisher.in_flight <= 2
        while not publisher.idle:
            await asyncio.sleep(0.01)

    asyncio.run(with_server([session], drive))


def test_a_refused_connection_says_why() -> None:
    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x20\x02\x00\x05")
        await reader.read()

    async def drive(publisher: Publisher) -> None:
        while not publisher.refused:
            await asyncio.sleep(0.01)
        assert "5" in publisher.refused
        assert not publisher.connected

    asyncio.run(with_server([session, session, session], drive))
