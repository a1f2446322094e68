"""What lies on one of three disks is gone or wrong when its broker comes back: the others have it, nobody notices."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from ingest.consumer import Consumer
from ingest.errors import ForebayError
from ingest.log.names import INDEX, SNAPSHOT, TIME_INDEX, partition_name
from ingest.records.header import verify_header
from tests.faults.appliance import TOPIC, ProcessTree
from tests.faults.readers import read_back
from tests.faults.trial import HEALED_S, Trial


def empty(home: Path) -> None:
    """Remove all that a broker's directory holds."""
    for entry in home.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def test_a_broker_whose_directory_was_emptied_gives_up_its_seats_and_is_filled_again(
    tree: ProcessTree, pytestconfig: pytest.Config
) -> None:
    with Trial(tree, random.randrange(10**9)) as trial:
        for _ in range(10 if pytestconfig.getoption("--long") else 1):
            trial.fleet.await_more(400)
            broker = trial.dice.randint(1, tree.brokers)
            with tree.held_down(f"broker-{broker}"):
                empty(tree.broker_home(broker))
            trial.await_in_sync(HEALED_S)
            trial.prefer_leaders()  # what it lacks would be lost now
        trial.judge()


def test_a_directory_emptied_while_all_was_down_does_not_empty_the_others(
    tree: ProcessTree, pytestconfig: pytest.Config
) -> None:
    with Trial(tree, random.randrange(10**9)) as trial:
        for _ in range(10 if pytestconfig.getoption("--long") else 1):
            trial.fleet.await_more(400)
            broker = trial.dice.randint(1, tree.brokers)
            tree.kill_everything()
            empty(tree.broker_home(broker))
            refused = tree.try_up()
            assert refused.returncode != 0
            assert f"--accept-empty-broker {broker}" in refused.stderr
            tree.options = ("--accept-empty-broker", str(broker))
            tree.up()
            tree.options = ()
            trial.await_in_sync(HEALED_S)
        trial.judge()


def test_files_that_are_made_from_the_log_may_be_deleted_on_one_replica(
    tree: ProcessTree, pytestconfig: pytest.Config
) -> None:
    patterns = [f"*/*{INDEX}", f"*/*{TIME_INDEX}", f"*/*{SNAPSHOT}", "checkpoint"]
    with Trial(tree, random.randrange(10**9), segment_bytes="16384") as trial:
        for _ in range(5 if pytestconfig.getoption("--long") else 1):
            trial.dice.shuffle(patterns)
            for pattern in patterns:
                trial.fleet.await_more(300)
                broker = trial.dice.randint(1, tree.brokers)
                with tree.held_down(f"broker-{broker}"):
                    deleted = list(tree.broker_home(broker).glob(pattern))
                    assert deleted, pattern
                    for path in deleted:
                        path.unlink()
                trial.await_in_sync(HEALED_S)
        trial.judge()


def flip_a_bit(log: Path, dice: random.Random) -> int:
    """Change one bit of one batch of a segment; return the batch's base offset."""
    data = bytearray(log.read_bytes())
    positions, position = [], 0
    while data[position : position + 4].strip(b"\0"):
        positions.append(position)
        position += verify_header(data, position).padded_size
    start = dice.choice(positions)
    header = verify_header(data, start)
    data[start + dice.randrange(header.size)] ^= 1 << dice.randrange(8)
    log.write_bytes(data)
    return header.base_offset


def read_what_can_be_read(bootstrap: str, partition: int, until: int, *, local: bool) -> list[bytes]:
    """Read a partition from its start as far as it goes; an error of a damaged replica ends it."""
    values: list[bytes] = []
    with Consumer(bootstrap, auto_offset_reset="earliest", local=local) as consumer:
        consumer.assign([(TOPIC, partition)])
        for _ in range(8):
            try:
                for record in consumer.poll(250, 10_000):
                    assert record.offset == len(values), "a record was skipped"
                    values.append(record.value)
            except ForebayError as error:
                print(f"local={local}: {error}")
                break
            if len(values) >= until:
                break
    return values


def test_a_flipped_bit_in_a_sealed_segment_of_one_replica_is_read_by_nobody(
    tree: ProcessTree, pytestconfig: pytest.Config
) -> None:
    with Trial(tree, random.randrange(10**9), segment_bytes="16384") as trial:
        trial.mapped.clear()  # these trust no broker, and would tell of the damage
        trial.tails.clear()
        for _ in range(10 if pytestconfig.getoption("--long") else 1):
            trial.fleet.await_more(2000)
            broker = trial.dice.randint(1, tree.brokers)
            number = next(item.partition for item in trial.partitions() if item.replicas[0] == broker)
            log_dir = tree.broker_home(broker) / partition_name(trial.topic_id, number)
            with tree.held_down(f"broker-{broker}"):
                sealed = sorted(log_dir.glob("*.log"))[:-1]
                assert sealed
                offset = flip_a_bit(trial.dice.choice(sealed), trial.dice)
            print(f"broker {broker}, partition {number}, offset {offset}")
            acknowledged = trial.history.acknowledged_so_far()
            values = read_back(tree.bootstrap, TOPIC, local=True)  # from another: it has to catch up first
            assert trial.history.check(values, acknowledged) == []
            trial.await_in_sync()
            trial.prefer_leaders()  # if it has not been mended, it leads damaged
            for local in (True, False):
                read = read_what_can_be_read(tree.bootstrap, number, len(values[number]), local=local)
                assert read[: len(values[number])] == values[number][: len(read)]
            trial.fleet.await_more(200)
            with tree.held_down(f"broker-{broker}"):
                trial.await_leaders_but(broker)
                values = read_back(tree.bootstrap, TOPIC, local=False)
                assert trial.history.check(values, acknowledged) == []
