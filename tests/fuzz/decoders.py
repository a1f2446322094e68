"""The table of decoders that are fuzzed; each part of the system brings its own in a file of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.fuzz import config, groups, kafka, mqtt, records, storage, wire
from tests.fuzz.decoder import Decoder

_SOURCES: tuple[Callable[[], Iterable[Decoder]], ...] = (
    records.decoders,
    wire.decoders,
    groups.decoders,
    storage.decoders,
    mqtt.decoders,
    kafka.decoders,
    config.decoders,
)


def all_decoders() -> list[Decoder]:
    """Return every decoder there is."""
    return [decoder for source in _SOURCES for decoder in source()]


def find_decoder(name: str) -> Decoder:
    """Return the decoder of that name."""
    return next(decoder for decoder in all_decoders() if decoder.name == name)
