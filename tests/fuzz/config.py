"""The configuration file: whatever is in it, the answer is a value or a sentence that names file and line."""

from __future__ import annotations

from collections.abc import Iterable

from ingest.errors import ConfigError
from ops.config.file import read_config_file
from tests.fuzz.decoder import Decoder
from tests.fuzz.storage import decode_file

_SAMPLE = b"""# an appliance
[broker]
"log.retention.ms" = 604800000
log.segment.bytes = 1073741824
"auto.create.topics.enable" = true

[topic-defaults]
"durability" = "fsync"

[mqtt]
port = 1883
rules = [{filter = "#", topic = "mqtt", key = "${clientid}"}]
"""


def _nested() -> list[bytes]:
    return [b"a = " + b"[" * 60_000, b"a = " + b"{b=" * 20_000, b"[a" + b".b" * 30_000 + b"]\nc = 1\n"]


def decoders() -> Iterable[Decoder]:
    """Return the decoder of forebay.toml."""
    read = decode_file("forebay.toml", lambda folder: read_config_file(folder / "forebay.toml"))
    yield Decoder("config_toml", [_SAMPLE], read, bombs=_nested, errors=(ConfigError,), seconds_max=10)
