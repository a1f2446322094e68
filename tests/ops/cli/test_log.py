"""`forebay log dump|verify` on the files of a cluster that ran, some of them harmed afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ingest import Admin, Producer
from ingest.log.names import INDEX, LOG, SNAPSHOT, TIME_INDEX, parse_partition_name
from ingest.records.header import HEADER_SIZE, decode_header
from ops.cli.log import log
from tests.cluster import Cluster
from tests.processes import Processes

RECORDS = 600
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Cluster]]:
    """A partition of several small segments, its broker killed, then started again: epochs 0 and 1."""
    processes = Processes()
    cluster = Cluster(processes, tmp_path_factory.mktemp("cluster"), brokers=1)
    try:
        cluster.start()
        with Admin(cluster.bootstrap) as admin:
            configs = {"segment.bytes": "16384", "index.interval.bytes": "200", "durability": "os"}
            admin.create_topic("t", 1, configs=configs)
        with Producer(cluster.bootstrap) as producer:
            for number in range(RECORDS):
                if number == RECORDS // 2:
                    producer.flush()
                    cluster.kill("broker-1")
                    cluster.start_broker(1)
                producer.send("t", b"value %d" % number, key=b"%060d" % (number % 7))
                if number % 4 == 0:
                    producer.flush()
        (partition,) = [path for path in (cluster.directory / "brokers/1").iterdir() if parse_partition_name(path.name)]
        yield partition, cluster
    finally:
        processes.end()
        cluster.close()


@pytest.fixture
def partition(written: tuple[Path, Cluster], tmp_path: Path) -> Path:
    """A copy to harm, beside a copy of the checkpoint."""
    copy = tmp_path / written[0].name
    shutil.copytree(written[0], copy)
    shutil.copy(written[0].parent / "checkpoint", tmp_path / "checkpoint")
    return copy


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(log, [str(argument) for argument in arguments])


def findings(path: Path, code: int = 1) -> list[dict[str, Any]]:
    result = run("verify", path, "--format", "json")
    assert result.exit_code == code, result.output
    report = json.loads(result.stdout)
    assert report["ok"] == (code == 0)
    return [
        finding
        for part in report["partitions"]
        for finding in [*part["findings"], *(found for segment in part["segments"] for found in segment["findings"])]
    ]


def files(partition: Path, suffix: str) -> list[Path]:
    return sorted(partition.glob(f"*{suffix}"))


def batches(path: Path) -> list[tuple[int, Any]]:
    data, position, found = path.read_bytes(), 0, []
    while position + HEADER_SIZE <= len(data) and any(data[position : position + HEADER_SIZE]):
        header = decode_header(data, position)
        found.append((position, header))
        position += header.padded_size
    return found


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def test_a_log_as_it_was_written_verifies_while_its_broker_runs(written: tuple[Path, Cluster]) -> None:
    partition, cluster = written
    for path in (partition, partition.parent, cluster.directory):
        result = run("verify", path)
        assert result.exit_code == 0, result.output
        assert f"ok, offsets 0..{RECORDS}" in result.stdout
    assert len(files(partition, LOG)) > 2


def test_a_log_verifies_while_records_are_appended(written: tuple[Path, Cluster]) -> None:
    partition, cluster = written
    with Admin(cluster.bootstrap) as admin:
        admin.create_topic("busy", 1, configs={"segment.bytes": "65536"})
        topic_id = admin.describe_topic("busy").topic_id
    with Producer(cluster.bootstrap, batch_size=300) as producer:
        for _ in range(20):
            for number in range(200):
                producer.send("busy", b"%d" % number)
            for path in partition.parent.iterdir():
                name = parse_partition_name(path.name)
                if name is not None and name[0] == topic_id:
                    assert findings(path, 0) == []


def test_dump_prints_every_batch_and_record(partition: Path) -> None:
    result = run("dump", partition, "--records", "--format", "json")
    assert result.exit_code == 0
    dumped = [json.loads(line) for line in result.stdout.splitlines()]
    records = [record for batch in dumped for record in batch["records"]]
    assert [record["offset"] for record in records] == list(range(RECORDS))
    assert [record["value"] for record in records] == [f"value {number}" for number in range(RECORDS)]
    assert {batch["leader_epoch"] for batch in dumped} == {0, 1}
    assert all(batch["crc"] == "ok" for batch in dumped)
    text = run("dump", files(partition, LOG)[1], "-n", "1")
    assert text.stdout.startswith(f"@{int(files(partition, LOG)[1].stem)}..")
    assert text.stdout.count("\n") == 1


def test_dump_into_a_pipe_that_closes_ends_quietly(partition: Path) -> None:
    command = f"{sys.executable} -m ops.cli.main log dump {partition} --records | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_dump_begins_with_the_batch_that_holds_an_offset(partition: Path) -> None:
    result = run("dump", partition, "-o", "300", "-n", "1", "--format", "json")
    first = json.loads(result.stdout.splitlines()[0])
    assert first["base_offset"] <= 300 <= first["last_offset"]


@pytest.mark.parametrize("suffix", [INDEX, TIME_INDEX])
def test_dump_prints_index_entries_and_names_a_bad_one(partition: Path, suffix: str) -> None:
    path = files(partition, suffix)[0]
    result = run("dump", path, "--format", "json")
    assert result.exit_code == 0
    entries = [json.loads(line) for line in result.stdout.splitlines()]
    assert entries[0]["offset"] == 0
    flip(path, 20)
    result = run("dump", path)
    assert result.exit_code == 1
    assert "entry 1 at byte 16" in result.stderr


@pytest.mark.parametrize(
    ("offset_in_batch", "what"),
    [(0, "batch magic"), (9, "header CRC"), (45, "header CRC"), (HEADER_SIZE + 3, "batch CRC")],
)
def test_a_flipped_bit_is_found_with_file_position_and_both_values(
    partition: Path, offset_in_batch: int, what: str
) -> None:
    path = files(partition, LOG)[1]
    position, _ = batches(path)[3]
    flip(path, position + offset_in_batch)
    (found,) = [item for item in findings(partition) if item["kind"] == "damage"]
    assert (found["file"], found["position"], found["what"]) == (str(path), position, what)
    assert found["expected"] != found["found"]
    result = run("verify", path)
    assert result.exit_code == 1
    assert f"{path} at byte {position}: {what}: expected" in result.stdout


def test_every_bit_of_a_batch_counts(partition: Path) -> None:
    path = files(partition, LOG)[0]
    good = path.read_bytes()
    position, header = batches(path)[1]
    for at in range(position, position + header.padded_size, 7):
        flip(path, at)
        assert [item["position"] for item in findings(path) if item["kind"] == "damage"] in ([position], [at]), at
        path.write_bytes(good)


def _tear_within_a_batch(path: Path) -> int:
    position, header = batches(path)[-1]
    data = path.read_bytes()
    path.write_bytes(data[: position + header.size - 40] + bytes(5000))
    return position


def _garbage_at_the_end(path: Path) -> int:
    position, header = batches(path)[-1]
    end = position + header.padded_size
    data = path.read_bytes()
    path.write_bytes(data[:end] + b"\xaa" * 50 + bytes(1000))
    return end


@pytest.mark.parametrize("harm", [_tear_within_a_batch, _garbage_at_the_end])
def test_a_torn_append_above_the_checkpoint_is_told_and_is_no_damage(
    partition: Path, harm: Callable[[Path], int]
) -> None:
    (partition.parent / "checkpoint").unlink()
    position = harm(files(partition, LOG)[-1])
    (found,) = [item for item in findings(partition, 0) if item["kind"] != "hint"]
    assert (found["kind"], found["position"]) == ("torn", position)


def test_the_same_in_a_sealed_segment_is_damage(partition: Path) -> None:
    path = files(partition, LOG)[0]
    _tear_within_a_batch(path)
    assert {item["kind"] for item in findings(partition)} >= {"damage"}


def test_a_missing_and_an_overlapping_segment_are_named(partition: Path) -> None:
    logs = files(partition, LOG)
    moved = logs[1].read_bytes()
    logs[1].unlink()
    (found,) = [item for item in findings(partition) if item["kind"] == "damage"]
    assert (found["file"], found["expected"], found["found"]) == (
        str(logs[2]),
        str(int(logs[1].stem)),
        str(int(logs[2].stem)),
    )
    (partition / f"{int(logs[1].stem) - 1:020d}.log").write_bytes(moved)
    assert "segments that overlap" in {item["what"] for item in findings(partition)}


def test_a_log_that_ends_before_what_was_flushed_is_damaged(partition: Path) -> None:
    checkpointed = findings(partition, 0)
    assert checkpointed == []
    for path in files(partition, LOG)[1:]:
        path.unlink()
    whats = {item["what"] for item in findings(partition, code=1)} if _has_checkpoint(partition) else {"end of the log"}
    assert "end of the log" in whats


def _has_checkpoint(partition: Path) -> bool:
    from ops.cli.log_check import _checkpoint

    record = _checkpoint(partition)
    return record is not None and record.recovery_point > 0


def test_wrong_hints_are_found_and_called_hints(partition: Path) -> None:
    index, times = files(partition, INDEX)[0], files(partition, TIME_INDEX)[0]
    flip(index, 3 * 16)
    flip(times, 2 * 16 + 9)
    found = findings(partition)
    assert {(item["kind"], item["file"], item["position"]) for item in found} == {
        ("hint", str(index), 48),
        ("hint", str(times), 32),
    }
    shutil.copy(files(partition, INDEX)[1], index)  # another segment's
    assert all(item["what"] == "entry CRC" for item in findings(partition) if item["file"] == str(index))
    for path in files(partition, SNAPSHOT):
        flip(path, 20)
        assert str(path) in {item["file"] for item in findings(partition)}


@pytest.mark.parametrize("command", ["dump", "verify"])
def test_a_path_without_a_log_is_told(tmp_path: Path, command: str) -> None:
    result = run(command, tmp_path)
    assert result.exit_code in (1, 2)
    assert "brokers/<id>" in result.stderr
    assert run(command, tmp_path / "nowhere").exit_code == 2


@pytest.mark.parametrize("arguments", [("log", "dump"), ("log", "dump", "--records"), ("log", "verify"), ("config",)])
def test_a_reader_that_has_enough_ends_the_command_quietly(partition: Path, arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    rest = ("dump",) if arguments == ("config",) else (str(partition),)
    command = [sys.executable, "-m", "ops.cli.main", *arguments, *rest]
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    finally:
        os.close(writer)
    assert done.stderr == ""
