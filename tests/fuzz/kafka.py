"""The Kafka listener: a client's stream of requests, and the batches it sends."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from edge.kafka.batches import Refused, from_kafka
from edge.kafka.codec import APIS, PRODUCE, SASL_HANDSHAKE, Request, decode_head, decode_request
from edge.kafka.config import KafkaConfig
from edge.kafka.fields import Malformed
from edge.kafka.frames import FrameParser, FrameTooLarge
from edge.kafka.login import FRAME_BYTES_MAX
from edge.kafka.sasl import MECHANISMS, CheckPassword, Failed, FindKeys, LoggedIn, Sasl
from edge.security.scram import HASHES, ITERATIONS_MIN, derive_keys
from ingest.records.checksum import crc32c
from ingest.records.rows import Row, encode_rows
from tests.edge.kafka.test_batches import CODECS, built
from tests.edge.kafka.test_versions import fields_of
from tests.edge.security.scram_client import ScramClient
from tests.fuzz.decoder import MIB, Decoder

CONFIG = KafkaConfig(bootstrap="")
KEYS = {mechanism: derive_keys(mechanism, b"another", b"salt", ITERATIONS_MIN) for mechanism in HASHES}


def _request(key: int, version: int, **fields: object) -> bytes:
    request = APIS[key].request(**(fields or fields_of(key, version, "t")))
    request.API_VERSION = version
    request.with_header(correlation_id=7, client_id="fuzz")
    return bytes(request.encode(header=True, framed=True))


def _read(data: bytes) -> object:
    """Take a stream as a connection does."""
    found = []
    for frame in FrameParser(CONFIG.request_bytes_max).feed(data):
        if frame.nbytes > CONFIG.other_bytes_max and decode_head(frame).api_key != PRODUCE:
            raise Malformed("too large")
        found.append(decode_request(frame))
    return found


def _log_in(data: bytes) -> object:
    """Take a stream as a connection does whose password is wrong; nobody may get in."""
    sasl, step = Sasl("server-nonce"), None
    for frame in FrameParser(FRAME_BYTES_MAX, 0).feed(data):
        if sasl.raw:
            token = bytes(frame)
        else:
            head = decode_head(frame)
            if not sasl.allows(head.api_key):
                raise Malformed("not now")
            request = decode_request(frame)
            if not isinstance(request, Request) or head.api_key not in (SASL_HANDSHAKE, 36):
                continue
            if head.api_key == SASL_HANDSHAKE:
                if not sasl.handshake(request.body.mechanism, request.version):
                    break
                continue
            token = request.body.auth_bytes
        step = sasl.token(token)
        if isinstance(step, FindKeys):
            step = sasl.found(KEYS[step.mechanism], real=True)
        elif isinstance(step, CheckPassword):
            step = sasl.checked(right=False)
        assert not isinstance(step, LoggedIn)
        if isinstance(step, Failed):
            break
    return step


def _logins() -> list[bytes]:
    found = []
    for mechanism in MECHANISMS:
        tokens = [b"\0alice\0secret"]
        if mechanism in HASHES:
            scram, sasl = ScramClient(mechanism, b"secret", user="a=2Cb"), Sasl("server-nonce")
            sasl.handshake(mechanism, 1)
            sasl.token(scram.first)
            tokens = [scram.first, scram.final(sasl.found(KEYS[mechanism], real=True).token)]
        for version in (0, 1):
            bare = [struct.pack(">i", len(token)) + token for token in tokens]
            framed = [_request(36, 2, auth_bytes=token) for token in tokens]
            begin = _request(18, 3) + _request(SASL_HANDSHAKE, version, mechanism=mechanism)
            found.append(begin + b"".join(framed if version else bare))
    return found


def _token_bombs() -> list[bytes]:
    """Tokens as large and as slow to look at as a client may send before it has logged in."""
    room = FRAME_BYTES_MAX - 100
    texts = [
        b"n,," + b"n=" + b"=" * room,
        b"n,,n=a,r=b" + b",x=1" * (room // 4),
        b"n,a=" + "\u0390".encode() * 5_000 + b",n=a,r=b",
        "n,,n={},r=b".format("\ufdfa" * 5_000).encode(),  # one character that becomes eighteen
        b"," * room,
        b"\0" * room,
    ]
    begin = [_request(SASL_HANDSHAKE, 0, mechanism=mechanism) for mechanism in ("PLAIN", "SCRAM-SHA-256")]
    bombs = [one + struct.pack(">i", len(text)) + text for one in begin for text in texts]
    return [*bombs, _request(18, 3) * 5_000, struct.pack(">i", 0) * 100_000]


def _frame(key: int, version: int, body: bytes, *, flexible: bool) -> bytes:
    data = struct.pack(">hhih", key, version, 7, -1) + (b"\0" if flexible else b"") + body
    return struct.pack(">i", len(data)) + data


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _bombs() -> list[bytes]:
    """Arrays of as many and as small elements as a request may hold."""
    room = CONFIG.other_bytes_max - 100
    many = _varint(room // 2 + 1)
    return [
        _frame(3, 9, many + b"\x01\x00" * (room // 2) + bytes(4), flexible=True),
        _frame(3, 1, struct.pack(">i", room // 2) + b"\x00\x00" * (room // 2), flexible=False),
        _frame(10, 4, b"\0" + _varint(room + 1) + b"\x01" * room + b"\0", flexible=True),
        _frame(0, 9, b"\0" + struct.pack(">hi", 1, 1) + many + b"\x01\x01\x00" * (room // 2), flexible=True),
        _frame(0, 3, struct.pack(">hhii", -1, 1, 1, 1) + b"\0\0" + struct.pack(">i", 2**31 - 1), flexible=False),
        _frame(
            9,
            1,
            b"\0\1g" + struct.pack(">i", 1) + b"\0\1t" + struct.pack(">i", room // 4) + bytes(room),
            flexible=False,
        ),
        _frame(18, 3, b"\xff" * room, flexible=True),
    ]


def _take(data: bytes) -> object:
    """Look at a batch whose CRC is right, whatever it holds."""
    batch = bytearray(data)
    if len(batch) >= 61:
        struct.pack_into(">i", batch, 8, len(batch) - 12)
        struct.pack_into(">I", batch, 17, crc32c(batch[21:]))
    return from_kafka(batch)


def _batch_bombs() -> list[bytes]:
    zeros = built(4, [(1, None, bytes(80 << 20), [])])
    small = encode_rows([Row(number, 1, None, None) for number in range(1_000)])
    header = bytearray(built())[:61]
    struct.pack_into(">i", header, 23, 999_999)
    struct.pack_into(">i", header, 57, 1_000_000)
    return [bytes(zeros), bytes(header) + small * 1_000]


def decoders() -> Iterable[Decoder]:
    """Return the decoders of the Kafka listener."""
    requests = [_request(api.key, version) for api in APIS.values() for version in {api.lowest, api.highest}]
    yield Decoder("kafka_stream", requests, _read, _bombs, (FrameTooLarge, Malformed), rss_bytes_max=192 * MIB)
    yield Decoder("kafka_login", _logins(), _log_in, _token_bombs, (FrameTooLarge, Malformed), rss_bytes_max=64 * MIB)
    batches = [bytes(built(codec, producer=(7, 0, 0))) for codec in CODECS.values()]
    yield Decoder("kafka_batch", batches, _take, _batch_bombs, (Refused,), rss_bytes_max=256 * MIB)
