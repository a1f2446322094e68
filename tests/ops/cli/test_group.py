"""`forebay group …` against a running cluster."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from click.testing import CliRunner, Result

from brokerd.groups.records import OffsetKey, OffsetValue, encode, partition_of
from brokerd.storage.config import LogConfig
from brokerd.storage.directory import LogDirectory
from ingest import Admin, Consumer, Producer
from ingest.records.batch import encode_batch
from ingest.topic_name import CONSUMER_OFFSETS
from ops.cli.group import group as group_command
from ops.cli.group_destination import Shift, parse_destination
from ops.cli.start_offset import StartOffset, Whence
from tests.cluster import Cluster, running_cluster

_names = itertools.count()
COLUMNS = "GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST CLIENT-ID LAG-SECONDS LAG-BYTES"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), brokers=2) as running:
        yield running


@pytest.fixture(scope="module")
def admin(cluster: Cluster) -> Iterator[Admin]:
    with Admin(cluster.bootstrap) as found:
        yield found


class Shell:
    """Run `forebay group` in this process."""

    def __init__(self, cluster: Cluster) -> None:
        self.bootstrap = cluster.bootstrap

    def run(self, *arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(group_command, [*arguments, "--data-dir", self.bootstrap])
        assert result.exit_code == code, f"{result.exit_code}: {result.stdout}{result.stderr}"
        return result

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--format", "json").stdout)

    def refused(self, *arguments: str, code: int = 1) -> str:
        return self.run(*arguments, code=code).stderr


@pytest.fixture
def shell(cluster: Cluster) -> Shell:
    return Shell(cluster)


@pytest.fixture
def topic(cluster: Cluster, admin: Admin) -> str:
    """Two partitions, the first with twenty records at 1000 to 1019 ms."""
    name = f"t{next(_names)}"
    admin.create_topic(name, 2)
    with Producer(cluster.bootstrap) as producer:
        for number in range(20):
            producer.send(name, b"%d" % number, partition=0, timestamp_ms=1000 + number)
    return name


@pytest.fixture
def group(admin: Admin, topic: str) -> str:
    """A group that has read twelve of them."""
    name = f"g{next(_names)}"
    admin.alter_group_offsets(name, {(topic, 0): 12, (topic, 1): 0})
    return name


@pytest.fixture
def member(cluster: Cluster, group: str, topic: str) -> Iterator[Consumer]:
    with Consumer(cluster.bootstrap, [topic], group_id=group, client_id="dash", enable_auto_commit=False) as consumer:
        until(lambda: len(consumer.assignment()) == 2, consumer)
        yield consumer


def until(done: Callable[[], bool], *consumers: Consumer) -> None:
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        for consumer in consumers:
            consumer.poll(5)


# ---- looking ---------------------------------------------------------------------------------------------------------


def test_groups_are_listed_with_state_members_and_coordinator(
    shell: Shell, admin: Admin, group: str, topic: str, member: Consumer
) -> None:
    empty = f"g{next(_names)}"
    admin.alter_group_offsets(empty, {(topic, 0): 1})
    rows = {row["group"]: row for row in shell.json("list")}
    assert rows[group] | {"coordinator": 0} == {
        "group": group,
        "state": "Stable",
        "protocol_type": "consumer",
        "members": 1,
        "coordinator": 0,
    }
    assert rows[group]["coordinator"] in (1, 2)
    assert rows[empty]["state"] == "Empty"
    names = [row["group"] for row in shell.json("list", "--state", "stable,PreparingRebalance")]
    assert group in names
    assert empty not in names
    text = shell.run("list", "--state", "Stable").stdout.splitlines()
    assert text[0].split() == ["GROUP", "STATE", "PROTOCOL-TYPE", "MEMBERS", "COORDINATOR"]
    assert [group, "Stable", "consumer", "1"] in [line.split()[:4] for line in text]
    assert "'alive' is not Empty, Prep" in shell.refused("list", "--state", "alive", code=2)


def test_a_name_of_several_lines_stays_in_its_row(shell: Shell, admin: Admin, topic: str) -> None:
    name = f"two\nlines\x1b[2J{next(_names)}"
    admin.alter_group_offsets(name, {(topic, 0): 1})
    for command in (("list",), ("describe", name)):
        result = shell.run(*command)
        assert "two\\nlines\\x1b[2J" in result.stdout
        assert "\nlines" not in result.output
        assert "\x1b" not in result.output
    assert name in [row["group"] for row in shell.json("list")]
    assert shell.run("delete", name).stdout.startswith("two\\nlines")


def test_nothing_to_list_says_what_to_do(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        shell = Shell(cluster)
        assert shell.json("list") == []
        assert "forebay topic consume NAME -g GROUP --data-dir" in shell.run("list").stderr
        assert "No group is Stable" in shell.run("list", "--state", "Stable").stderr
        for view in ("--offsets", "--members", "--state"):
            assert "No groups yet" in shell.run("describe", "-a", view).stderr
        assert "at a time" in shell.refused("describe", "-a", "--members", "--offsets", code=2)


def test_describe_shows_kafka_s_columns_and_the_lag_in_seconds(shell: Shell, group: str, topic: str) -> None:
    first, second = shell.json("describe", group)
    assert list(first) == [*COLUMNS.lower().replace("-", "_").split(), "metadata"]
    assert (first["topic"], first["partition"], first["current_offset"], first["log_end_offset"], first["lag"]) == (
        topic,
        0,
        12,
        20,
        8,
    )
    assert 0 <= first["lag_seconds"] < 60
    assert first["lag_bytes"] > 96
    assert first["consumer_id"] is first["host"] is first["client_id"] is None
    assert (second["current_offset"], second["lag"], second["lag_seconds"], second["lag_bytes"]) == (0, 0, 0.0, 0)
    shown = shell.run("describe", group)
    heads, line = (shown.stdout.splitlines()[row].split() for row in (0, 1))
    assert " ".join(heads) == COLUMNS
    assert line[:9] == [group, topic, "0", "12", "20", "8", "-", "-", "-"]
    assert shown.stderr == f"Group {group} has no members: nobody reads for it now.\n"


@pytest.mark.usefixtures("member")
def test_describe_names_who_reads_what(cluster: Cluster, shell: Shell, group: str, topic: str) -> None:
    rows = shell.json("describe", group)
    assert {row["client_id"] for row in rows} == {"dash"}
    assert all(row["consumer_id"].startswith("dash-") and row["host"] for row in rows)
    assert shell.run("describe", group).stderr == ""
    (member,) = shell.json("describe", group, "--members")
    assert (member["pid"], member["partitions"], member["assignment"]) == (os.getpid(), 2, {topic: [0, 1]})
    assert f"{topic}(0,1)" in shell.run("describe", group, "--members").stdout
    (state,) = shell.json("describe", group, "--state")
    assert (state["state"], state["members"], state["assignment_strategy"]) == ("Stable", 1, "cooperative-sticky")
    assert "#MEMBERS" in shell.run("describe", group, "--state").stdout


@contextmanager
def member_process(cluster: Cluster, topic: str, group: str, instance_id: str | None = None) -> Iterator[Popen[bytes]]:
    """A member in a process of its own, once it reads."""
    program = (
        "import sys; from ingest import Consumer\n"
        "consumer = Consumer(sys.argv[1], [sys.argv[2]], group_id=sys.argv[3], group_instance_id=sys.argv[4] or None)\n"
        "while True: consumer.poll(50)\n"
    )
    process = Popen([sys.executable, "-c", program, cluster.bootstrap, topic, group, instance_id or ""])
    try:
        with Admin(cluster.bootstrap) as admin:
            until(lambda: any(listed.group == group and listed.members for listed in admin.list_groups(["Stable"])))
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_static_member_whose_process_has_ended_is_said_to_be_kept_and_nobody_is_told_to_kill_it(
    cluster: Cluster, shell: Shell, group: str, topic: str
) -> None:
    with member_process(cluster, topic, group, "i1") as process:
        (row,) = shell.json("describe", group, "--members")
        assert (row["pid"], row["process"]) == (process.pid, "running")
        alive = shell.refused("delete", group)
        assert f"kill {process.pid}\nStatic members (group.instance.id) are kept until their session is over" in alive
    (row,) = shell.json("describe", group, "--members")
    assert (row["pid"], row["process"]) == (process.pid, "ended")
    kept = rf"i1 \(pid {process.pid}\) has ended already and may come back: kept until the session is over, in \d+ s"
    assert re.search(kept, shell.run("describe", group).stderr)
    for command in (("delete", group), ("seek", group, "--to", "start"), ("offset-delete", group, "-t", topic)):
        said = shell.refused(*command)
        assert re.search(rf"{kept} at most. Try again then.\n", said)
        assert "kill" not in said


def test_a_rebalance_is_described_with_whom_it_waits_for(
    cluster: Cluster, shell: Shell, admin: Admin, group: str, topic: str
) -> None:
    with member_process(cluster, topic, group) as process:
        process.send_signal(signal.SIGSTOP)
        with Consumer(cluster.bootstrap, [topic], group_id=group) as late:
            until(lambda: admin.describe_groups([group])[group].state == "PreparingRebalance", late)
            said = shell.run("describe", group).stderr
            (waited_for,) = [m for m in admin.describe_groups([group])[group].members if m.pid == process.pid]
            process.send_signal(signal.SIGCONT)
    assert f"is being settled. It waits for {waited_for.member_id} (pid {process.pid}" in said


def test_a_member_without_partitions_is_shown(cluster: Cluster, shell: Shell, admin: Admin) -> None:
    name, group = f"t{next(_names)}", f"g{next(_names)}"
    admin.create_topic(name, 1)
    with (
        Consumer(cluster.bootstrap, [name], group_id=group) as one,
        Consumer(cluster.bootstrap, [name], group_id=group) as two,
    ):
        until(lambda: len(one.assignment()) + len(two.assignment()) == 1, one, two)
        until(lambda: [m.assignment for m in admin.describe_groups([group])[group].members].count(()) == 1, one, two)
        rows = shell.json("describe", group)
    assert [row["topic"] for row in rows] == [name, None]
    assert all(row["consumer_id"] for row in rows)


def test_several_groups_and_all_of_them(shell: Shell, admin: Admin, group: str, topic: str) -> None:
    other = f"g{next(_names)}"
    admin.alter_group_offsets(other, {(topic, 1): 0})
    assert {row["group"] for row in shell.json("describe", group, other)} == {group, other}
    assert {group, other} <= {row["group"] for row in shell.json("describe", "--all-groups")}
    assert f"Group {other} has no members" in shell.run("describe", "-a").stderr
    assert "one or the other" in shell.refused("describe", group, "-a", code=2)
    for command in ("describe", "delete"):
        assert f"{command} [OPTIONS] NAME…" in shell.run(command, "--help").stdout


@pytest.mark.parametrize(
    ("command", "more"),
    [("describe", ()), ("delete", ()), ("offset-delete", ("-t", "TOPIC")), ("seek", ("--to", "end"))],
)
def test_a_group_that_is_not_there_is_said_with_the_nearest(
    shell: Shell, admin: Admin, topic: str, command: str, more: tuple[str, ...]
) -> None:
    admin.alter_group_offsets("dashboard", {(topic, 0): 1})
    words = [topic if word == "TOPIC" else word for word in more]
    said = shell.refused(command, "dashbord", *words)
    assert "group dashbord does not exist\nDid you mean dashboard?\nSee what there is with: forebay group list" in said


@pytest.mark.parametrize("command", [("describe",), ("delete",), ("offset-delete",), ("seek", "--to", "start")])
def test_a_group_must_be_named(shell: Shell, command: tuple[str, ...]) -> None:
    assert "name a group" in shell.refused(*command, code=2)


# ---- moving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "new"),
    [
        (("--to", "start"), 0),
        (("--to", "end"), 20),
        (("--to", "7"), 7),
        (("--to", "+3"), 3),
        (("--to", "-3"), 17),
        (("--to", "@1005"), 5),
        (("--to", "@99999999999"), 20),
        (("--to", "1970-01-01T00:00:01.005Z"), 5),
        (("--to", "1970-01-01T01:00:01.005+01:00"), 5),
        (("--to", "current"), 12),
        (("--to-earliest",), 0),
        (("--to-latest",), 20),
        (("--to-current",), 12),
        (("--to-offset", "9"), 9),
        (("--to-datetime", "1970-01-01T00:00:01.005"), 5),
        (("--shift-by", "-2"), 10),
        (("--shift-by", "3", "--execute", "--all-topics"), 15),
    ],
)
def test_a_group_is_moved_to(shell: Shell, admin: Admin, group: str, topic: str, to: tuple[str, ...], new: int) -> None:
    rows = shell.json("seek", group, *to, "--topic", f"{topic}:0")
    assert rows == [{"group": group, "topic": topic, "partition": 0, "old_offset": 12, "new_offset": new}]
    assert {name: item.offset for name, item in admin.group_offsets(group).items()} == {(topic, 0): new, (topic, 1): 0}


def test_a_dry_run_shows_old_and_new_and_changes_nothing(
    shell: Shell, admin: Admin, group: str, topic: str, member: Consumer
) -> None:
    shown = shell.run("seek", group, "--to", "start", "--dry-run")
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["GROUP", "TOPIC", "PARTITION", "OLD-OFFSET", "NEW-OFFSET"],
        [group, topic, "0", "12", "0"],
        [group, topic, "1", "0", "0"],
    ]
    assert "1 members now; as long as it has any, this is refused" in shown.stderr
    assert "Nothing was changed" in shown.stderr
    assert admin.group_offsets(group)[(topic, 0)].offset == 12  # type: ignore[index]


def test_an_active_group_is_left_alone_and_its_members_are_named(
    shell: Shell, admin: Admin, group: str, topic: str, member: Consumer
) -> None:
    for command in (("seek", group, "--to", "start"), ("delete", group), ("offset-delete", group, "-t", topic)):
        said = shell.refused(*command)
        assert "dash-" in said
        assert f"(pid {os.getpid()})" in said
        assert f"Stop what reads on this machine first: kill {os.getpid()}\n" in said
        assert f"forebay group describe {group} --members --data-dir" in said
    assert admin.group_offsets(group)[(topic, 0)].offset == 12  # type: ignore[index]
    member.close()
    shell.run("seek", group, "--to", "start")
    assert admin.group_offsets(group)[(topic, 0)].offset == 0  # type: ignore[index]


def test_offsets_outside_of_the_log_become_the_nearest(shell: Shell, admin: Admin, group: str, topic: str) -> None:
    admin.delete_records(topic, 0, 5)
    low = shell.run("seek", group, "--to", "2", "-p", "0")
    assert f"{topic}-0: offset 2 is not in 5..20; taking 5" in low.stderr
    assert low.stdout.split()[-1] == "5"
    high = shell.run("seek", group, "--shift-by", "1000", "-p", "0")
    assert "taking 20" in high.stderr


def test_topics_may_be_new_to_a_group_and_a_group_new(shell: Shell, admin: Admin, group: str, topic: str) -> None:
    new = f"g{next(_names)}"
    dry = shell.run("seek", new, "--to", "end", "--topics", topic, "--dry-run")
    assert f"There is no group {new} yet; it would be made" in dry.stderr
    rows = shell.json("seek", new, "--to", "end", "--topics", topic)
    assert [(row["partition"], row["old_offset"], row["new_offset"]) for row in rows] == [(0, None, 20), (1, None, 0)]
    shifted = shell.run("seek", new, "--shift-by", "-1", "--topic", f"{topic}:0")
    assert shifted.stdout.split()[-1] == "19"


def test_the_text_beside_an_offset_stays_where_the_offset_does(
    shell: Shell, admin: Admin, group: str, topic: str
) -> None:
    def texts() -> list[str]:
        return [row["metadata"] for row in shell.json("describe", group)]

    admin.alter_group_offsets(group, {(topic, 0): (12, "twelve"), (topic, 1): (0, "nothing")})
    shell.run("seek", group, "--to", "current")
    assert texts() == ["twelve", "nothing"]
    assert "twelve" not in shell.run("describe", group).stdout
    shell.run("seek", group, "--to", "start")
    assert texts() == ["", "nothing"]


def test_offsets_go_to_a_file_and_come_back(shell: Shell, admin: Admin, group: str, topic: str, tmp_path: Path) -> None:
    file = tmp_path / "before.csv"
    file.write_text(shell.run("seek", group, "--to", "current", "--export").stdout)
    assert file.read_text() == f"{topic},0,12\n{topic},1,0\n"
    shell.run("seek", group, "--to", "end")
    shell.run("seek", group, "--from-file", str(file))
    assert admin.group_offsets(group)[(topic, 0)].offset == 12  # type: ignore[index]
    file.write_text(f"# by hand, as rpk has it\n{topic} 0 3\n\nother,{topic},1,7\n")
    assert [row["new_offset"] for row in shell.json("seek", group, "--to-file", str(file))] == [3]
    file.write_text(f'"{group}","{topic}",0,4\n"other","{topic}",1,7\n')
    assert [row["new_offset"] for row in shell.json("seek", group, "--to-file", str(file))] == [4]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("TOPIC,0\n", "line 1: 'TOPIC,0': expected topic,partition,offset"),
        ("TOPIC,0,1\nTOPIC,x,1\n", "line 2: 'TOPIC,x,1': expected topic,partition,offset"),
        ("TOPIC,0,-1\n", "expected topic,partition,offset"),
        ("TOPIC,0,99999999999999999999\n", "a number is too large"),
        ("TOPIC,0,1\nTOPIC,0,2\n", "line 2: TOPIC-0 stands there a second time"),
        ("TOPIC,7,1\n", "has no partition 7; it has 2, from 0 on"),
        ("", "names no offsets of group"),
    ],
)
def test_a_file_that_can_not_be_is_refused_by_line(
    shell: Shell, group: str, topic: str, tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "offsets.csv"
    file.write_text(content.replace("TOPIC", topic))
    assert said.replace("TOPIC", topic) in shell.refused("seek", group, "--from-file", str(file), code=2)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "say where to with --to start|end|OFFSET|@MS, or --from-file FILE"),
        (("--to", "end", "--shift-by", "1"), 2, "not --to and --shift-by"),
        (("--to-earliest", "--to-latest"), 2, "not --to-earliest and --to-latest"),
        (("--to", "somewhere"), 2, "--to somewhere: expected start, end, current, an offset N"),
        (("--to", "2026-13-01"), 2, "expected a date and time such as 2026-01-31T08:00:00Z"),
        (("--to", "1969-12-31T00:00:00Z"), 2, "before 1970"),
        (("--to-offset", "99999999999999999999"), 2, "is larger than any offset"),
        (("--to", "end", "--topics", "no-such"), 1, "topic no-such does not exist"),
        (("--to", "end", "-p", "x"), 2, "x: expected partitions such as 0,1"),
        (("--to", "end", "--topic", "TOPIC:9"), 2, "has no partition 9"),
        (("--to", "end", "--topic", ":1"), 2, "names no topic"),
        (("--to", "end", "-p", "5"), 1, "has committed nothing to partition 5"),
        (("--from-file", "/no/such/file"), 2, "can't read /no/such/file: No such file"),
        (("--from-file", "/dev/null", "-p", "1"), 2, "a file says which partitions"),
    ],
)
def test_what_can_not_be_is_refused_and_nothing_moves(
    shell: Shell, admin: Admin, group: str, topic: str, arguments: tuple[str, ...], code: int, said: str
) -> None:
    words = [word.replace("TOPIC", topic) for word in arguments]
    assert said in shell.refused("seek", group, *words, code=code)
    assert admin.group_offsets(group)[(topic, 0)].offset == 12  # type: ignore[index]


def test_a_bare_number_is_an_offset_or_a_time_by_its_size() -> None:
    assert parse_destination("999999999999") == StartOffset(Whence.OFFSET, 999_999_999_999)
    assert parse_destination("1767225600000") == StartOffset(Whence.TIME_MS, 1_767_225_600_000)
    assert parse_destination("Current") == Shift(0)


# ---- deleting --------------------------------------------------------------------------------------------------------


def test_groups_are_deleted_and_those_that_are_not_there_may_be_fine(
    shell: Shell, admin: Admin, group: str, topic: str
) -> None:
    other = f"g{next(_names)}"
    admin.alter_group_offsets(other, {(topic, 0): 1})
    assert shell.run("delete", group, other).stdout == f"{group}: deleted\n{other}: deleted\n"
    assert shell.json("delete", group, "--if-exists") == [{"name": group, "result": "does not exist"}]


def test_of_several_groups_it_is_said_which_were_deleted(
    shell: Shell, admin: Admin, group: str, topic: str, member: Consumer
) -> None:
    names = [f"g{next(_names)}" for _ in range(3)]
    for name in names[:2]:
        admin.alter_group_offsets(name, {(topic, 0): 1})
    result = shell.run("delete", names[2], names[0], group, names[1], code=1)
    said = [f"{names[2]}: does not exist", f"{names[0]}: deleted", f"{group}: kept", f"{names[1]}: deleted"]
    assert result.stdout.splitlines() == said
    assert f"group {names[2]} does not exist" in result.stderr
    assert f"group {group} has 1 member: dash-" in result.stderr
    left = {listed.group for listed in admin.list_groups()}
    assert group in left
    assert left.isdisjoint(names)


def test_offsets_of_a_topic_are_forgotten(shell: Shell, admin: Admin, group: str, topic: str) -> None:
    assert shell.run("offset-delete", group, "-t", f"{topic}:1").stdout == f"{topic}-1: deleted\n"
    assert shell.json("offset-delete", "--group", group, "--topic", topic) == [
        {"name": f"{topic}-0", "result": "deleted"},
        {"name": f"{topic}-1", "result": "nothing was committed"},
    ]
    assert admin.group_offsets(group) == {}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "name what to forget with -t TOPIC"),
        (("-t", "TOPIC:x"), 2, "expected partitions such as 0,1"),
        (("-t", "TOPIC:7"), 2, "has no partition 7; it has 2, from 0 on"),
        (("-t", "no-such"), 1, "topic no-such does not exist"),
    ],
)
def test_what_can_not_be_forgotten_is_named(
    shell: Shell, group: str, topic: str, arguments: tuple[str, ...], code: int, said: str
) -> None:
    words = [word.replace("TOPIC", topic) for word in arguments]
    assert said in shell.refused("offset-delete", group, *words, code=code)


# ---- what an earlier version let in ----------------------------------------------------------------------------------


def commit_offline(cluster: Cluster, topic: str, partition: int, offset: int) -> None:
    """Have broker 1, the only one, find a commit of group g to a partition, whether there is such a one or not."""
    with Admin(cluster.bootstrap) as admin:
        topics = {item.name: item for item in admin.metadata().topics}
    offsets = topics[CONSUMER_OFFSETS]
    cluster.kill("broker-1")
    directory = LogDirectory.open(
        cluster.data_dir / "brokers" / "1",
        cluster_id=cluster.cluster_id,
        broker_id=1,
        page_path=cluster.run_dir / "broker-1.page",
        failed_dir=cluster.data_dir / "failed",
    )
    number = partition_of("g", len(offsets.partitions))
    log = directory.partition(offsets.topic_id, number, LogConfig(cleanup_policy="compact"))
    log.become_leader(log.last_epoch + 1)
    key, value = OffsetKey("g", topics[topic].topic_id, partition), OffsetValue(offset, -1, "", 0, 0)
    log.append([encode_batch([0], [encode(key)], [encode(value)])], wall_ms=0)
    directory.close()
    cluster.start_broker(1)
    cluster.await_ready()


def test_a_commit_where_there_is_no_partition_holds_nothing_up_and_can_be_forgotten(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster, Admin(cluster.bootstrap) as admin:
        admin.create_topic("t", 2)
        admin.alter_group_offsets("g", {("t", 0): 0})
        commit_offline(cluster, "t", 7, 5)
        shell = Shell(cluster)
        began = time.monotonic()
        rows = {row["partition"]: row for row in shell.json("describe", "g")}
        assert time.monotonic() - began < 2
        assert (rows[0]["lag"], rows[7]["current_offset"], rows[7]["lag"]) == (0, 5, None)
        moved = shell.run("seek", "g", "--to", "end")
        assert "t-7 does not exist, and is left out" in moved.stderr
        assert "offset-delete g -t t:7" in moved.stderr
        assert shell.run("offset-delete", "g", "-t", "t:7").stdout == "t-7: deleted\n"
        assert list(admin.group_offsets("g")) == [("t", 0)]
        assert "t has no partition 7; it has 2" in shell.refused("offset-delete", "g", "-t", "t:7", code=2)
        commit_offline(cluster, "t", 8, 5)
        shell.run("delete", "g")
        assert admin.group_offsets("g") == {}


def test_an_appliance_that_does_not_run_is_said_with_the_way_to_start_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(group_command, ["list", "--data-dir", str(tmp_path)])
    assert result.exit_code == 3
    assert "no appliance" in result.stderr
