"""Probes on connections that are silent: without them one whose other end was cut off would stay for ever."""

from __future__ import annotations

import asyncio
import socket

IDLE_S = 120  # before the first probe
_INTERVAL_S = 15
_PROBES = 8


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Have the kernel end a connection some four minutes after its other end was last there."""
    plain = transport.get_extra_info("socket")
    if plain is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _INTERVAL_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
