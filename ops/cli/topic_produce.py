"""`forebay topic produce`: records from stdin, each acknowledged before the command ends well."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from ingest.errors import ForebayError, RemoteError, UsageError
from ops.cli.reached import (
    INTERRUPTED,
    Failed,
    bootstrap_option,
    format_option,
    hint_of,
    reported,
    resolve_bootstrap,
    there,
)

if TYPE_CHECKING:
    from ingest.producer import Delivery, Producer
    from ops.cli.record_format import InputRecord, RecordReader

CHUNK_BYTES = 1 << 16  # what a pipe holds; an interactive line comes alone
PROGRESS_SECONDS = 0.5
ERRORS_SHOWN = 5


@click.command()
@click.argument("name", required=False)
@click.option("--topic", "other_name", metavar="NAME", help="As the argument.")
@click.option("-k", "--key", help="Key of every record; without it records have none.")
@click.option("-f", "--input-format", "input_format", default=r"%v\n", help=r"What stdin holds.  [default: '%v\n']")
@click.option("-p", "--partition", type=click.IntRange(0), help="Where all records go.")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header of every record.")
@click.option("-z", "--compression", type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]), default="none")
@click.option("--acks", type=click.Choice(["all", "-1", "1", "0"]), default="all", help="Whose word counts.")
@click.option("-Z", "--tombstone", is_flag=True, help="Send an empty value as a null one.")
@click.option("--delivery-timeout-ms", type=click.IntRange(1), default=30_000, help="How long a record is tried.")
@bootstrap_option
@format_option
def produce(
    name: str | None,
    other_name: str | None,
    key: str | None,
    input_format: str,
    partition: int | None,
    headers: Sequence[str],
    compression: str,
    acks: str,
    tombstone: bool,
    delivery_timeout_ms: int,
    data_dir: str | None,
    bootstrap: str | None,
    form: str,
) -> None:
    """Send the records of stdin, one a line unless -f says otherwise, and wait until all are acknowledged.

    \b
      echo hello | forebay topic produce greetings -k world
      forebay topic produce sensors -f '%k %v\\n' < readings.txt

    \b
    -f: %k key, %v value, %t topic, %p partition, and the text between and
        behind them; \\n \\t \\xHH.
    """
    from ingest.producer import Producer
    from ops.cli.record_format import InputFormat, RecordReader

    with reported():
        cut = InputFormat(input_format)
        topic = name or other_name
        if not topic and "t" not in cut.verbs:
            raise UsageError("name a topic, or let stdin name it with %t in -f")
        if key is not None and "k" in cut.verbs:
            raise UsageError("the key comes from -k or from %k in -f, not both")
        producer = Producer(
            resolve_bootstrap(data_dir, bootstrap),
            acks=acks,
            compression_type=compression,
            delivery_timeout_ms=delivery_timeout_ms,
            max_block_ms=delivery_timeout_ms,
            client_id="forebay-cli",
        )
        if sys.stdin.isatty():
            click.echo("One record a line; Ctrl-D ends.", err=True)
        sending = _Sending(
            producer,
            topic or "",
            None if key is None else os.fsencode(key),
            partition,
            [_header(text) for text in headers],
            tombstone,
        )
        interrupted = sending.run(RecordReader(cut))
    sending.report(form)
    if sending.problem is not None or sending.acknowledged < sending.taken:
        raise Failed(sending.failure(), INTERRUPTED if interrupted else 1)
    if interrupted:
        raise Failed("interrupted; everything taken from stdin was acknowledged", INTERRUPTED)


def _header(text: str) -> tuple[str, bytes]:
    name, colon, value = text.partition(":")
    if not colon:
        raise UsageError(f"header {text!r}: expected NAME:VALUE")
    return name, os.fsencode(value)


class _Sending:
    """One run of the command. Answers are counted by whichever thread takes them."""

    def __init__(
        self,
        producer: Producer,
        topic: str,
        key: bytes | None,
        partition: int | None,
        headers: list[tuple[str, bytes]],
        tombstone: bool,
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._key = key
        self._partition = partition
        self._headers = headers or None
        self._tombstone = tombstone
        self._lock = threading.Lock()
        self._next_progress = time.monotonic() + PROGRESS_SECONDS
        self._shows = sys.stderr.isatty() and not sys.stdin.isatty()
        self._offsets: dict[tuple[str, int], list[int]] = {}
        self.taken = 0
        self.acknowledged = 0
        self.errors: dict[str, int] = {}
        self._codes: set[int | None] = set()  # None: of an error that says nothing of the records
        self.problem: str | None = None

    def run(self, reader: RecordReader) -> bool:
        """Send what stdin gives until it ends; tell whether Ctrl-C came first."""
        interrupted = False
        try:
            try:
                for record in self._records(reader):
                    self._send(record)
            except (ForebayError, OSError) as error:
                self.problem = str(error)  # what was taken before it is still sent
            self._producer.flush()
        except KeyboardInterrupt:
            interrupted = True
        try:
            self._producer.close(5 if interrupted else None)
        except (TimeoutError, KeyboardInterrupt):
            interrupted = True
        if self._shows:
            click.echo("\r\x1b[K", nl=False, err=True)
        return interrupted

    def _records(self, reader: RecordReader) -> Iterator[InputRecord]:
        while data := sys.stdin.buffer.read1(CHUNK_BYTES):  # type: ignore[union-attr]
            yield from reader.feed(data)
            self._progress()
        yield from reader.finish()

    def _send(self, record: InputRecord) -> None:
        value = None if self._tombstone and not record.value else record.value
        if record.value is None and not self._tombstone:
            value = b""
        self._producer.send(
            record.topic or self._topic,
            value,
            record.key if self._key is None else self._key,
            headers=self._headers,
            partition=self._partition if record.partition is None else record.partition,
            on_delivery=self._answered,
        )
        self.taken += 1

    def _answered(self, delivery: Delivery) -> None:
        error = delivery.exception()
        with self._lock:
            if error is not None:
                text = str(error)
                self.errors[text] = self.errors.get(text, 0) + 1
                self._codes.add(error.code if isinstance(error, RemoteError) and not error.retriable else None)
                return
            self.acknowledged += 1
            topic, partition, offset, _ = delivery.result(0)
            span = self._offsets.setdefault((topic, partition), [offset, offset])
            span[0], span[1] = min(span[0], offset), max(span[1], offset)

    def _progress(self) -> None:
        if self._shows and time.monotonic() >= self._next_progress:
            self._next_progress = time.monotonic() + PROGRESS_SECONDS
            click.echo(f"\r\x1b[K{self.acknowledged:,} acknowledged of {self.taken:,}", nl=False, err=True)

    def report(self, form: str) -> None:
        """Say what became of the records."""
        places = [
            {"topic": topic, "partition": partition, "first_offset": first, "last_offset": last}
            for (topic, partition), (first, last) in sorted(self._offsets.items())
        ]
        if form == "json":
            counts = {"taken": self.taken, "acknowledged": self.acknowledged, "failed": sum(self.errors.values())}
            click.echo(json.dumps({**counts, "partitions": places}))
            return
        click.echo(f"{self.acknowledged:,} of {self.taken:,} records acknowledged")
        for place in places:
            if place["first_offset"] != -1:
                span = f"{place['first_offset']}..{place['last_offset']}"
                click.echo(f"  {place['topic']}[{place['partition']}] offsets {span}")

    def failure(self) -> str:
        """Return why not everything is acknowledged."""
        lines = [self.problem] if self.problem else []
        for text, count in list(self.errors.items())[:ERRORS_SHOWN]:
            lines.append(f"{count:,} records: {text}")
        unknown = self.taken - self.acknowledged - sum(self.errors.values())
        if unknown > 0:
            lines.append(f"{unknown:,} records: no answer, so they may be in the log or not")
        hints = dict.fromkeys(hint_of(code, self._topic) for code in self._codes)
        lines += [hint for hint in hints if hint]
        if unknown > 0 or None in self._codes:
            lines.append(f"See what runs with: forebay status{there()}")
        return "\n".join(lines)
