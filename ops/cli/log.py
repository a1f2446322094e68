"""`forebay log …`: read partitions on disk, without a broker and beside one. Nothing is ever written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from ops.cli.reached import Failed, format_option, reported

if TYPE_CHECKING:
    from ops.cli.log_check import PartitionSummary


@click.group()
def log() -> None:
    """Look into the files of partitions; no broker is needed, and none is disturbed."""


@log.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--records", is_flag=True, help="The records too, as JSON.")
@click.option("-o", "--offset", type=click.IntRange(0), default=0, help="Begin with the batch that holds it.")
@click.option("-n", "--num", "limit", type=click.IntRange(1), help="So many batches of each segment.")
@format_option
def dump(path: Path, records: bool, offset: int, limit: int | None, form: str) -> None:
    """Print batch headers of a segment or of a partition directory, or the entries of an index file.

    \b
      forebay log dump DATA_DIR/brokers/1/<topic id>-0 --records -n 3
    """
    from ops.cli.log_dump import dump_index, dump_segment, files_to_dump, is_index

    problems = []
    files = files_to_dump(path)
    if not files:
        raise Failed(f"{path} holds no segment; partitions are in DATA_DIR/brokers/<id>/<topic id>-<partition>")
    with reported():
        for file in files:
            try:
                if len(files) > 1 and form == "text":
                    click.echo(file.name)
                if is_index(file):
                    problem = dump_index(file, form)
                else:
                    problem = dump_segment(file, records=records, start=offset, limit=limit, form=form)
            except BrokenPipeError:
                raise  # `| head` has enough; that is no trouble with the file
            except OSError as error:
                problem = f"{file}: {error.strerror}"
            if problem:
                problems.append(problem)
    if problems:
        raise Failed("\n".join([*problems, f"Check everything with: forebay log verify {quote(str(path))}"]))


@log.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH", type=click.Path(exists=True, path_type=Path))
@format_option
def verify(paths: tuple[Path, ...], form: str) -> None:
    """Check every CRC, offset, epoch and index entry of segments, partitions, a broker's or a data directory.

    \b
    Exit codes: 0 all is as it was written (a torn append at the end is: nobody was told it is stored),
                1 something is not; file, position, expected and found are printed.
    """
    import msgspec

    from ops.cli.log_check import PartitionSummary, check_log, find_logs

    shows = form == "text" and sys.stderr.isatty()
    done: list[PartitionSummary] = []
    with reported():
        logs = [found for path in paths for found in find_logs(path)]
        for index, path in enumerate(logs):
            try:
                for part in check_log(path):
                    if isinstance(part, PartitionSummary):
                        done.append(part)
                        if form == "text":
                            _print_summary(part)
                    elif shows:
                        click.echo(f"\r[{index + 1}/{len(logs)}] {part.file}\x1b[K\r", nl=False, err=True)
            except BrokenPipeError:
                raise  # `| head` has enough; that is no trouble with the file
            except OSError as error:
                raise Failed(f"{path}: {error.strerror}") from None
    bad = [finding for part in done for finding in part.all_findings if finding.kind != "torn"]
    if form == "json":
        report = {"ok": not bad, "partitions": [json.loads(msgspec.json.encode(part)) for part in done]}
        click.echo(json.dumps(report))
    if bad:
        hints = sum(finding.kind == "hint" for finding in bad)
        lines = [f"{len(bad) - hints} places are damaged, {hints} hints are wrong"]
        if hints == len(bad):
            lines.append("The broker makes hints anew when it uses them; no record is lost")
        else:
            lines.append("Readers get CORRUPT_MESSAGE there and go on behind it; a copy elsewhere is the only repair")
        raise Failed("\n".join(lines))


def _print_summary(part: PartitionSummary) -> None:
    batches = sum(segment.batches for segment in part.segments)
    records = sum(segment.records for segment in part.segments)
    size = sum(segment.data_bytes for segment in part.segments)
    holes = sum(segment.holes for segment in part.segments)
    verdict = "ok" if all(finding.kind == "torn" for finding in part.all_findings) else "DAMAGED"
    click.echo(
        f"{part.path}: {verdict}, offsets {part.log_start_offset}..{part.log_end_offset}, "
        f"{len(part.segments)} segments, {batches:,} batches, {records:,} records, {size:,} bytes"
        + (f", {holes:,} offsets without a record" if holes else "")
    )
    for finding in part.all_findings:
        click.echo(
            f"  {finding.kind}: {finding.file} at byte {finding.position}: {finding.what}: "
            f"expected {finding.expected}, found {finding.found}"
        )
