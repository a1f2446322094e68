"""What a session is told, and what it wants done. Effects are done in their order."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edge.mqtt.codes import Reason
from edge.mqtt.packets import Connect, Packet, Publish


class Connected(msgspec.Struct, frozen=True):
    """The client was let in; `resumed`: it goes on with the state it left."""

    connect: Connect
    resumed: bool


class Received(msgspec.Struct, frozen=True, gc=False):
    """Packets came."""

    packets: list[Packet]


class Settled(msgspec.Struct, frozen=True, gc=False):
    """The log has taken these, or refused them for good: `outcome` says which."""

    publications: list[Publish]


class Lost(msgspec.Struct, frozen=True):
    """The connection is gone; `unsent` QoS 1 and 2 messages never reached the log and never will."""

    unsent: Sequence[Publish] = ()


class Tick(msgspec.Struct, frozen=True):
    """Time has passed."""


class Append(msgspec.Struct, frozen=True, gc=False):
    """Append these to the log, in order."""

    publications: list[Publish]


class Write(msgspec.Struct, frozen=True, gc=False):
    """Send these bytes to the client."""

    data: bytes


class Close(msgspec.Struct, frozen=True):
    """End the connection once what was written is sent."""

    reason: Reason
    text: str


SessionEvent = Connected | Received | Settled | Lost | Tick
SessionEffect = Append | Write | Close
