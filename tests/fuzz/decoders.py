"""The table of decoders that are fuzzed; each part of the system brings its own in a file of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from tests.fuzz.decoder import Decoder

_SOURCES = ("records", "wire", "groups", "storage", "mqtt", "config", "kafka")


def all_decoders() -> Iterator[Decoder]:
    """Give every decoder there is; a file is imported when its turn comes."""
    for source in _SOURCES:
        yield from import_module(f"tests.fuzz.{source}").decoders()


def find_decoder(name: str) -> Decoder:
    """Return the decoder of that name."""
    return next(decoder for decoder in all_decoders() if decoder.name == name)
