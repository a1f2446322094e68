r"""The text formats of `-f`: literal text with %-verbs, as in rpk; what is printed, and how stdin is cut into records.

    %t topic   %p partition   %o offset   %d timestamp in ms   %k key   %v value   %h{%k=%v } each header
    %K %V bytes of key and value   %H number of headers   %% a percent sign   \n \t \r \0 \\ \xHH

Pure: bytes in, records or bytes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ingest.errors import UsageError
from ingest.limits import LIMITS

Render = Callable[[Any], bytes]

_ESCAPES = {"n": b"\n", "t": b"\t", "r": b"\r", "0": b"\0", "\\": b"\\"}
_INPUT_VERBS = "tpkv"


def as_bytes(value: Any) -> bytes:
    """Return a value as it is printed: bytes as they are, a number of a topic with value.dtype as text."""
    if value is None:
        return b""
    return value if isinstance(value, bytes) else str(value).encode()


_FIELDS: dict[str, Render] = {
    "t": lambda record: record.topic.encode(),
    "p": lambda record: b"%d" % record.partition,
    "o": lambda record: b"%d" % record.offset,
    "d": lambda record: b"%d" % record.timestamp_ms,
    "k": lambda record: record.key or b"",
    "v": lambda record: as_bytes(record.value),
    "K": lambda record: b"%d" % len(record.key or b""),
    "V": lambda record: b"%d" % len(as_bytes(record.value)),
    "H": lambda record: b"%d" % len(record.headers),
}
_HEADER_FIELDS: dict[str, Render] = {
    "k": lambda header: header[0].encode(),
    "v": lambda header: header[1] or b"",
}


class _Verb(NamedTuple):
    letter: str
    inner: str = ""  # what stands in the braces of %h


class InputRecord(NamedTuple):
    """One record of stdin; None where the format does not name it."""

    key: bytes | None = None
    value: bytes | None = None
    topic: str | None = None
    partition: int | None = None


class OutputFormat:
    """How a record is printed.

    Raises:
        UsageError: an unknown verb or escape; it names the place.
    """

    def __init__(self, text: str) -> None:
        self._parts = _renders(text, _FIELDS)

    def render(self, record: Any) -> bytes:
        """Return the bytes of a record; its value may be a number."""
        return b"".join([part(record) for part in self._parts])


class InputFormat:
    """How stdin is cut: the bytes of each verb end where the text behind it begins.

    Raises:
        UsageError: an unknown verb, two verbs with nothing between them, or no text behind the last one.
    """

    def __init__(self, text: str) -> None:
        self.verbs: list[str] = []
        self.delimiters: list[bytes] = []
        for part in _parse(text):
            if isinstance(part, bytes):
                if not self.verbs:
                    raise UsageError(f"format {text!r}: a record of stdin begins with a verb, such as %k or %v")
                self.delimiters.append(part)
                continue
            if part.letter not in _INPUT_VERBS:
                raise UsageError(f"format {text!r}: %{part.letter} can't be read; stdin may hold %k %v %t %p")
            if part.letter in self.verbs:
                raise UsageError(f"format {text!r} names %{part.letter} twice")
            if len(self.verbs) != len(self.delimiters):
                raise UsageError(f"format {text!r}: nothing separates %{self.verbs[-1]} from %{part.letter}")
            self.verbs.append(part.letter)
        if not self.verbs or len(self.verbs) != len(self.delimiters):
            raise UsageError(f"format {text!r} does not say what ends a record; did you mean '{text}\\n'?")


class RecordReader:
    """Cut a stream into records: feed it what comes, then `finish`.

    Attributes:
        count: Records cut so far.
    """

    def __init__(self, form: InputFormat) -> None:
        self._fields = list(zip(form.verbs, form.delimiters, strict=True))
        self._end = form.delimiters[-1]
        self._rest = b""
        self.count = 0

    def feed(self, data: bytes) -> Iterator[InputRecord]:
        """Yield the records that are whole now; take them all before the next call.

        Raises:
            UsageError: a record without a separator, with a partition that is no number, or without an end.
        """
        buffer, start = self._rest + data, 0
        while (cut := self._cut(buffer, start)) is not None:
            record, start = cut
            self.count += 1
            yield record
        self._rest = buffer[start:]
        if len(self._rest) > LIMITS.batch_bytes_max:
            raise UsageError(f"record {self.count + 1} of stdin has no end within {LIMITS.batch_bytes_max} bytes")

    def finish(self) -> Iterator[InputRecord]:
        """Yield the last record, whose end may be missing.

        Raises:
            UsageError: stdin ended within a record.
        """
        if not self._rest:
            return
        found = list(self.feed(self._end))
        if len(found) != 1 or self._rest:
            raise UsageError(f"stdin ended within record {self.count + 1}")
        yield found[0]

    def _cut(self, buffer: bytes, start: int) -> tuple[InputRecord, int] | None:
        """Return the record at `start` and where it ends, None if it is not whole."""
        fields: dict[str, bytes] = {}
        for verb, delimiter in self._fields:
            at = buffer.find(delimiter, start)
            if self._end not in delimiter:
                end = buffer.find(self._end, start, at if at >= 0 else None)
                if end >= 0:
                    line = buffer[start : min(end, start + 60)]
                    raise UsageError(
                        f"record {self.count + 1} of stdin has no {_shown(delimiter)} behind %{verb}: {_shown(line)}"
                    )
            if at < 0:
                return None
            fields[verb] = buffer[start:at]
            start = at + len(delimiter)
        return self._record(fields), start

    def _record(self, fields: Mapping[str, bytes]) -> InputRecord:
        topic, partition = fields.get("t"), fields.get("p")
        try:
            return InputRecord(
                fields.get("k"),
                fields.get("v"),
                None if topic is None else topic.decode(),
                None if partition is None else int(partition),
            )
        except ValueError:
            raise UsageError(
                f"record {self.count + 1} of stdin: topic {topic!r}, partition {partition!r} can't be read"
            ) from None


def _renders(text: str, fields: Mapping[str, Render]) -> list[Render]:
    return [_render(part, text, fields) for part in _parse(text)]


def _render(part: bytes | _Verb, text: str, fields: Mapping[str, Render]) -> Render:
    if isinstance(part, bytes):
        return lambda _: part
    if part.letter == "h" and fields is _FIELDS:
        inner = _renders(part.inner or "%k=%v ", _HEADER_FIELDS)
        return lambda record: b"".join([each(header) for header in record.headers for each in inner])
    if part.letter not in fields:
        known = " ".join(f"%{letter}" for letter in fields)
        raise UsageError(
            f"format {text!r}: %{part.letter} is unknown; known are {known}" + " %h{}" * (fields is _FIELDS)
        )
    return fields[part.letter]


def _shown(data: bytes) -> str:
    return repr(data.decode(errors="backslashreplace"))


def _parse(text: str) -> Iterator[bytes | _Verb]:
    """Yield literals, never two in a row, and verbs."""
    literal, at = b"", 0
    while at < len(text):
        letter = text[at]
        following = text[at + 1 : at + 2]
        if letter == "\\":
            taken, size = _escape(text, at)
            literal, at = literal + taken, at + size
        elif letter == "%" and following == "%":
            literal, at = literal + b"%", at + 2
        elif letter == "%":
            if not following:
                raise UsageError(f"format {text!r} ends in a lone %; write %% for a percent sign")
            if literal:
                yield literal
            literal, at = b"", at + 2
            inner = ""
            if following == "h" and text[at : at + 1] == "{":
                inner, size = _braces(text, at)
                at += size
            yield _Verb(following, inner)
        else:
            literal, at = literal + letter.encode(), at + 1
    if literal:
        yield literal


def _escape(text: str, at: int) -> tuple[bytes, int]:
    kind = text[at + 1 : at + 2]
    if kind == "x":
        try:
            return bytes.fromhex(text[at + 2 : at + 4]), 4
        except ValueError:
            kind = ""
    if kind in _ESCAPES:
        return _ESCAPES[kind], 2
    raise UsageError(f"format {text!r}: unknown escape {text[at : at + 4]!r}; known are \\n \\t \\r \\0 \\\\ \\xHH")


def _braces(text: str, at: int) -> tuple[str, int]:
    end = text.find("}", at)
    if end < 0:
        raise UsageError(f"format {text!r}: %h{{ has no closing brace")
    return text[at + 1 : end], end + 1 - at
