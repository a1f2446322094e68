"""`forebay topic consume`: records to stdout, as text or as JSON lines."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from shlex import quote
from typing import TYPE_CHECKING, BinaryIO

import click
from click.exceptions import Exit

from ingest.errors import CorruptBatch, RemoteError, UsageError
from ingest.wire.codes import ErrorCode
from ops.cli.reached import (
    INTERRUPTED,
    MISUSED,
    TIMEOUT_MS,
    Failed,
    bootstrap_option,
    format_option,
    here,
    printable,
    reported,
    resolve_bootstrap,
)

if TYPE_CHECKING:
    from ingest.consumer import Consumer, Record
    from ops.cli.start_offset import StartOffset

DEFAULT_FORMAT = r"%t[%p]@%o %k %v\n"
POLL_MS = 500
POLL_RECORDS = 5_000
METADATA_TIMEOUT_MS = 10_000

TopicPartition = tuple[str, int]


@click.command()
@click.argument("names", nargs=-1, metavar="NAME")
@click.option("--topic", "more_names", multiple=True, metavar="NAME", help="As the argument.")
@click.option("-g", "--group", help="Read as a member of a group: it shares the partitions out and keeps the place.")
@click.option(
    "-o", "--offset", default="start", help="start, end, N, +N, -N (before the end) or @MS (time).  [default: start]"
)
@click.option("--from-beginning", is_flag=True, help="As -o start.")
@click.option("-n", "--num", "--max-messages", "count", type=click.IntRange(1), help="Stop after so many.")
@click.option("--exit-at-end", is_flag=True, help="Stop at what is the end now.")
@click.option(
    "-p", "--partition", "--partitions", "partitions", type=click.IntRange(0), multiple=True, help="Only these."
)
@click.option("-f", "--output-format", "output_format", help=f"How to print a record.  [default: '{DEFAULT_FORMAT}']")
@click.option("--timeout-ms", type=click.IntRange(1), help="Stop when nothing came for so long.")
@click.option("--rack", default="", help="Read from a replica in this rack, where replica.selector.class is set.")
@bootstrap_option
@format_option
def consume(
    names: Sequence[str],
    more_names: Sequence[str],
    group: str | None,
    offset: str,
    from_beginning: bool,
    count: int | None,
    exit_at_end: bool,
    partitions: Sequence[int],
    output_format: str | None,
    timeout_ms: int | None,
    rack: str,
    data_dir: str | None,
    bootstrap: str | None,
    form: str,
) -> None:
    """Print records of topics, from the start unless -o says otherwise, until -n, --exit-at-end or Ctrl-C.

    \b
      forebay topic consume sensors -o -10 --exit-at-end
      forebay topic consume sensors -o end -f '%d %k: %v\\n'

    \b
    -f: %t topic, %p partition, %o offset, %d timestamp in ms, %k key, %v value,
        %h{%k=%v } headers, %K %V sizes, %H number of headers, %% percent;
        \\n \\t \\xHH.
    --format json: one object a line; key_base64 and value_base64 where they
        are no UTF-8.
    """
    from ingest.consumer import Consumer
    from ops.cli.start_offset import StartOffset, Whence, parse_start_offset
    from ops.config.paths import resolve_data_dir

    wanted = list(dict.fromkeys([*names, *more_names]))
    if not wanted:
        raise click.UsageError("name a topic")
    with reported():
        start = parse_start_offset("start" if from_beginning else offset)
        where = "start" if from_beginning else offset
        if group is not None and partitions:
            raise UsageError(f"-p with -g {group}: a group shares out all partitions among its members; leave out one")
        if group is not None and start not in (StartOffset(Whence.START), StartOffset(Whence.END)):
            raise Failed(_said_of_commits(group, where, wanted), MISUSED)
        write = _writer(output_format, form)
        consumer = Consumer(
            resolve_bootstrap(data_dir, bootstrap),
            group_id=group,
            auto_offset_reset={Whence.OFFSET: "none", Whence.END: "latest"}.get(start.whence, "earliest"),
            client_id="forebay-cli",
            client_rack=rack,
        )
        signals = _Signals(consumer)
        try:
            with consumer:
                chosen = _choose(consumer, wanted, partitions)
                if group is not None:
                    if _is_asked_for_a_place() and any(consumer.committed(chosen, TIMEOUT_MS).values()):
                        click.echo(_said_of_commits(group, where, wanted), err=True)
                    consumer.subscribe(wanted)
                else:
                    consumer.assign(chosen)
                    _go_to(consumer, chosen, start)
                damaged = _print_all(consumer, chosen, write, count, exit_at_end, timeout_ms, signals)
        except KeyboardInterrupt:
            raise Exit(INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has enough: `… | head`
            damaged = 0
        if signals.got:
            raise Exit(128 + signals.got)
    if damaged:
        place = "DATA_DIR on its machine" if bootstrap else quote(str(resolve_data_dir(data_dir)))
        raise Failed(f"{damaged} stretches of records were corrupt and left out; see: forebay log verify {place}")


def _is_asked_for_a_place() -> bool:
    """Whether the command line says where to begin; the default asks for nothing."""
    context = click.get_current_context()
    given = click.core.ParameterSource.COMMANDLINE
    return given in (context.get_parameter_source("offset"), context.get_parameter_source("from_beginning"))


def _said_of_commits(group: str, where: str, topics: Sequence[str]) -> str:
    """Return why a group does not go where -o says."""
    return (
        f"-o {where} with -g {group}: a group goes on where it has committed; -o start or end is for partitions where "
        f"it has not.\nMove what it has committed with: forebay group seek {quote(group)} --to {quote(where)} "
        f"--topics {quote(','.join(topics))}{here()}"
    )


class _Signals:
    """End the reading at Ctrl-C or SIGTERM once what was read is printed, so that it is committed; at a second, now."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.got = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def _take(self, number: int, _frame: object) -> None:
        if self.got:
            raise KeyboardInterrupt
        self.got = number
        self._consumer.wakeup()


def _writer(output_format: str | None, form: str) -> Callable[[Record], bytes]:
    if form == "json":
        if output_format is not None:
            raise UsageError("-f says how text looks; with --format json the shape is given")
        from ops.cli.json_record import record_json

        return lambda record: record_json(record) + b"\n"
    from ops.cli.record_format import OutputFormat

    render = OutputFormat(output_format or DEFAULT_FORMAT).render
    if output_format is None and sys.stdout.isatty():
        return lambda record: _shown(render(record))
    return render


def _shown(line: bytes) -> bytes:
    """Return a line that does nothing to a terminal: what devices send must not move its cursor."""
    text = line[:-1].decode(errors="backslashreplace")
    return "\t".join(map(printable, text.split("\t"))).encode() + b"\n"


def _choose(consumer: Consumer, names: Sequence[str], partitions: Sequence[int]) -> list[TopicPartition]:
    chosen = []
    for name in names:
        known = consumer.partitions_for(name, METADATA_TIMEOUT_MS)
        if not known:
            raise RemoteError(
                f"topic {name} does not exist", code=int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION), retriable=True
            )
        for partition in partitions or known:
            if partition not in known:
                raise UsageError(f"{name} has no partition {partition}; it has {len(known)}, from 0 on")
            chosen.append((name, partition))
    return chosen


def _go_to(consumer: Consumer, chosen: Sequence[TopicPartition], start: StartOffset) -> None:
    """Seek every partition to its place."""
    from ops.cli.start_offset import Whence

    match start.whence, start.amount:
        case Whence.START, 0:
            consumer.seek_to_beginning(*chosen)
        case Whence.END, 0:
            consumer.seek_to_end(*chosen)
        case Whence.TIME_MS, amount:
            consumer.seek_to_time(amount, *chosen)
        case Whence.OFFSET, amount:
            for topic, partition in chosen:
                consumer.seek(topic, partition, amount)
        case whence, amount:
            first = consumer.beginning_offsets(chosen)
            last = consumer.end_offsets(chosen)
            for name in first:
                at = last[name] - amount if whence is Whence.END else first[name] + amount
                consumer.seek(*name, min(max(at, first[name]), last[name]))


def _print_all(
    consumer: Consumer,
    chosen: Sequence[TopicPartition],
    write: Callable[[Record], bytes],
    count: int | None,
    exit_at_end: bool,
    timeout_ms: int | None,
    signals: _Signals,
) -> int:
    """Print until it is time to stop; return how often records were corrupt."""
    out = sys.stdout.buffer
    ends = consumer.end_offsets(chosen) if exit_at_end else {}
    left = count
    damaged = 0
    last_ns = time.monotonic_ns()
    while (left is None or left > 0) and not signals.got:
        if exit_at_end:
            mine = consumer.assignment()  # in a group others read the rest
            if mine and all(consumer.position(*name) >= ends.get(name, 0) for name in mine):
                break
        try:
            records = consumer.poll(POLL_MS, POLL_RECORDS if left is None else min(left, POLL_RECORDS))
        except CorruptBatch as error:
            click.echo(f"warning: {error}", err=True)
            damaged += 1
            continue
        if records:
            out.write(b"".join([write(record) for record in records]))
            out.flush()
            last_ns = time.monotonic_ns()
            if left is not None:
                left -= len(records)
        elif (timeout_ms is not None and time.monotonic_ns() - last_ns > timeout_ms * 1_000_000) or _nobody_reads(out):
            break
    return damaged


def _nobody_reads(out: BinaryIO) -> bool:
    """Tell whether the other end of a pipe is closed, as by `head`; else only the next record would tell."""
    poll = select.poll()
    poll.register(out, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))
