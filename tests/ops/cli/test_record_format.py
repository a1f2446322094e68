"""The formats of `-f` and the places of `-o`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import UsageError
from ingest.records.batch import Record
from ops.cli.record_format import InputFormat, InputRecord, OutputFormat, RecordReader
from ops.cli.start_offset import StartOffset, Whence, parse_start_offset

RECORD = Record("t", 3, 7, 1700, b"k\xff", b"v", (("a", b"1"), ("b", None)))


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (r"%t[%p]@%o %k %v\n", b"t[3]@7 k\xff v\n"),
        (r"%d\t%K/%V\x00", b"1700\t2/1\x00"),
        (r"%H %h{%k:%v;}", b"2 a:1;b:;"),
        (r"%h", b"a=1 b= "),
        (r"100%% \\n", b"100% \\n"),
        ("", b""),
    ],
)
def test_a_record_is_printed_as_the_format_says(text: str, printed: bytes) -> None:
    assert OutputFormat(text).render(RECORD) == printed


def test_null_key_and_value_print_as_nothing() -> None:
    assert OutputFormat("%k|%v").render(Record("t", 0, 0, 0, None, None)) == b"|"


@pytest.mark.parametrize("text", ["%z", "%", r"\q", r"\xzz", "%h{%k", "%h{%p}"])
def test_an_unknown_verb_or_escape_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="format"):
        OutputFormat(text)


def read(text: str, *chunks: bytes) -> list[InputRecord]:
    reader = RecordReader(InputFormat(text))
    records = [record for chunk in chunks for record in reader.feed(chunk)]
    return records + list(reader.finish())


def test_stdin_is_cut_at_what_stands_between_the_verbs() -> None:
    assert read(r"%k %v\n", b"a 1 2\nb", b" 3\n", b"c ") == [
        InputRecord(b"a", b"1 2"),
        InputRecord(b"b", b"3"),
        InputRecord(b"c", b""),
    ]
    assert read(r"%t;%p;%v\x00", b"x;2;\n\x00") == [InputRecord(None, b"\n", "x", 2)]
    assert read(r"%k\n%v\n", b"a\n1\nb\n2\n") == [InputRecord(b"a", b"1"), InputRecord(b"b", b"2")]
    assert read(r"%v\n") == []


def test_a_record_without_its_separator_is_named_and_those_before_it_are_kept() -> None:
    reader = RecordReader(InputFormat(r"%k %v\n"))
    records = reader.feed(b"a 1\nbad\nc 3\n")
    assert next(records) == InputRecord(b"a", b"1")
    with pytest.raises(UsageError, match="record 2 of stdin has no ' ' behind %k: 'bad'"):
        next(records)


@pytest.mark.parametrize("text", [r"%p;%v\n", r"%t;%v\n"])
def test_a_partition_or_topic_that_can_not_be_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="record 1"):
        read(text, b"\xff;1\n")


def test_stdin_that_ends_within_a_record_is_named() -> None:
    with pytest.raises(UsageError, match="ended within record 2"):
        read(r"%k\n%v\n", b"a\n1\nb")


@pytest.mark.parametrize("text", ["%v", "%k%v\n", "x%v\n", "%o\n", "%k %k\n", "", "abc"])
def test_a_format_that_can_not_be_cut_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        InputFormat(text)


@given(st.lists(st.tuples(st.binary(), st.binary())), st.data())
def test_what_is_printed_is_read_back_however_it_is_cut(pairs: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    pairs = [(key.replace(b"|", b"").replace(b"\n", b""), value.replace(b"\n", b"")) for key, value in pairs]
    render = OutputFormat(r"%k|%v\n").render
    text = b"".join(render(Record("t", 0, 0, 0, key, value)) for key, value in pairs)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert [(record.key, record.value) for record in read(r"%k|%v\n", *chunks)] == pairs


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("start", StartOffset(Whence.START)),
        ("earliest", StartOffset(Whence.START)),
        ("END", StartOffset(Whence.END)),
        ("17", StartOffset(Whence.OFFSET, 17)),
        ("+2", StartOffset(Whence.START, 2)),
        ("-5", StartOffset(Whence.END, 5)),
        ("@1700000000000", StartOffset(Whence.TIME_MS, 1_700_000_000_000)),
    ],
)
def test_a_place_to_start_at(text: str, place: StartOffset) -> None:
    assert parse_start_offset(text) == place


@pytest.mark.parametrize("text", ["", "--1", "@", "1.5", "yesterday", "-", "²", "@-5", "9" * 30])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="-o"):
        parse_start_offset(text)
