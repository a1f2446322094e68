"""What every request, response and part of one is: an array-like Struct."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, array_like=True, frozen=True):
    """Base of everything that crosses a socket."""
