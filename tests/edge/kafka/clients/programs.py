"""The programs of Debian: kcat and rsyslog, both on the librdkafka of 2023 that agents in the field are made of."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from aiokafka import AIOKafkaConsumer

from tests.edge.kafka.clients.client import HEARTBEAT_MS, Member, until
from tests.machine import program
from tests.processes import Processes


class ProgramMember:
    """A program that writes what it reads to `output` in a folder of its own, a line each, until SIGTERM."""

    def __init__(self, folder: TemporaryDirectory[str], command: Sequence[str], *, standard_output: bool) -> None:
        self._folder = folder
        self._processes = Processes()
        self._output = Path(folder.name) / "output"
        self._output.touch()
        with self._output.open("ab") as out:
            self._child = self._processes.start(
                command, stdout=out if standard_output else subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )

    def values(self) -> list[bytes]:
        assert self._child.poll() is None, "it ended by itself"
        return self._output.read_bytes().split(b"\n")[:-1]

    def close(self) -> None:
        self._processes.end()
        self._folder.cleanup()


class Kcat:
    """kcat."""

    name: ClassVar = "kcat"
    needs: ClassVar = "kcat"
    lacks: ClassVar[Mapping[str, str]] = {"admin": "it lists metadata, and changes nothing"}

    def produce(self, address: str, topic: str, codec: str, values: Sequence[bytes]) -> None:
        _kcat(address, "-P", "-t", topic, "-z", codec, text=b"".join(value + b"\n" for value in values))

    def consume(self, address: str, topic: str, count: int) -> list[bytes]:
        return _kcat(address, "-C", "-t", topic, "-o", "beginning", "-e", "-q").split(b"\n")[:-1]

    def join(self, address: str, topic: str, group: str) -> Member:
        settings = ["-X", "auto.offset.reset=earliest", "-X", f"heartbeat.interval.ms={HEARTBEAT_MS}"]
        command = ["kcat", "-b", address, "-u", "-q", *settings, "-G", group, topic]
        return ProgramMember(TemporaryDirectory(prefix="kcat-"), command, standard_output=True)

    def offset_at(self, address: str, topic: str, partition: int, at_ms: int) -> int:
        told = _kcat(address, "-Q", "-t", f"{topic}:{partition}:{at_ms}")
        return int(told.split()[-1])

    def administer(self, address: str, name: str) -> None:
        raise NotImplementedError


def _kcat(address: str, *arguments: str, text: bytes = b"") -> bytes:
    command = ["kcat", "-b", address, *arguments]
    done = subprocess.run(command, input=text, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Rsyslog:
    """rsyslogd with its modules omkafka and imkafka, in the foreground, with a configuration of its own."""

    name: ClassVar = "rsyslog"
    needs: ClassVar = "rsyslog"
    lacks: ClassVar[Mapping[str, str]] = {
        "time": "imkafka begins at the start, at the end, or where its group has committed",
        "admin": "it has none",
    }

    def produce(self, address: str, topic: str, codec: str, values: Sequence[bytes]) -> None:
        folder = TemporaryDirectory(prefix="rsyslog-")
        source = Path(folder.name) / "input"
        source.write_bytes(b"".join(value + b"\n" for value in values))
        config = f"""
module(load="imfile")
module(load="omkafka")
template(name="bare" type="string" string="%msg%")
input(type="imfile" file="{source}" tag="t")
action(type="omkafka" broker=["{address}"] topic="{topic}" partitions.auto="on" template="bare"
       confParam=["acks=all", "enable.idempotence=true", "compression.codec={codec}", "queue.buffering.max.ms=20"]
       resubmitOnFailure="on" keepFailedMessages="on" failedMsgFile="{folder.name}/failed")
"""
        with closing(_rsyslogd(folder, config)):
            until(lambda: _records(address, topic) >= len(values))  # it does not tell when it is done

    def consume(self, address: str, topic: str, count: int) -> list[bytes]:
        with closing(self.join(address, topic, f"all of {topic} by rsyslog")) as member:
            until(lambda: len(member.values()) >= count)
            return member.values()

    def join(self, address: str, topic: str, group: str) -> Member:
        # now and then imkafka ends without a LeaveGroup: then the session time has to be over
        folder = TemporaryDirectory(prefix="rsyslog-")
        config = f"""
module(load="imkafka")
template(name="bare" type="string" string="%rawmsg%\\n")
input(type="imkafka" broker=["{address}"] topic="{topic}" consumergroup="{group}" ruleset="all"
      confParam=["auto.offset.reset=earliest", "heartbeat.interval.ms={HEARTBEAT_MS}", "session.timeout.ms=6000"])
ruleset(name="all") {{ action(type="omfile" file="{folder.name}/output" template="bare") }}
"""
        return _rsyslogd(folder, config)

    def offset_at(self, address: str, topic: str, partition: int, at_ms: int) -> int:
        raise NotImplementedError

    def administer(self, address: str, name: str) -> None:
        raise NotImplementedError


def _rsyslogd(folder: TemporaryDirectory[str], config: str) -> ProgramMember:
    home, path = Path(folder.name), program("rsyslogd")
    assert path is not None
    (home / "rsyslog.conf").write_text(f'global(workDirectory="{home}")\n{config}')
    command = [path, "-n", "-f", str(home / "rsyslog.conf"), "-i", str(home / "pid")]
    return ProgramMember(folder, command, standard_output=False)


def _records(address: str, topic: str) -> int:
    async def run() -> int:
        async with AIOKafkaConsumer(topic, bootstrap_servers=address) as consumer:
            ends = await consumer.end_offsets(consumer.assignment())
            return sum(ends.values())

    return asyncio.run(run())
