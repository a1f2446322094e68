"""`forebay bench …`: measure this machine's appliance beside its peers; one JSON object each."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]


def _options(seconds: float, size: int = 100, batch_size: int = 65_536) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in (
            click.option("--runs", default=5, show_default=True, help="Alternating runs; medians are given."),
            click.option("--seconds", default=seconds, show_default=True, help="About how long each run takes."),
            click.option("--size", default=size, show_default=True, help="Bytes of a record's value."),
            click.option("--batch-size", default=batch_size, show_default=True, help="Bytes of a batch."),
        ):
            command = option(command)
        return command

    return add


def _print(result: Any) -> None:
    click.echo(json.dumps(result, indent=2))


@click.group()
def bench() -> None:
    """Measure throughput, latency and recovery, beside what the machine can do and beside peers.

    Each starts an appliance of its own in a temporary directory (set TMPDIR to choose the disk) and prints one JSON
    object. Run it on a quiet machine, and quote ratios.
    """


@bench.command()
@_options(seconds=3.0)
@click.option("--durability", type=click.Choice(["os", "fsync"]), default="os", show_default=True)
@click.option("--compression", type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]), default="none")
def produce(**options: Any) -> None:
    """send() and send_arrays() to one broker; confluent-kafka against its mock cluster where it is installed."""
    from ops.bench.benchmarks import bench_produce

    _print(bench_produce(**options))


@bench.command()
@_options(seconds=4.0, batch_size=262_144)
def consume(**options: Any) -> None:
    """poll_arrays() and poll() from the mapping, poll_arrays() over ZeroMQ."""
    from ops.bench.benchmarks import bench_consume

    _print(bench_consume(**options))


@bench.command()
@click.option("--runs", default=5, show_default=True)
@click.option("--seconds", default=5.0, show_default=True)
@click.option("--size", default=100, show_default=True)
@click.option("--rate", default=1000, show_default=True, help="Records per second.")
def latency(**options: Any) -> None:
    """From send() to a local reader, linger 0."""
    from ops.bench.benchmarks import bench_latency

    _print(bench_latency(**options))


@bench.command()
@click.option("--runs", default=5, show_default=True)
@click.option("--seconds", default=5.0, show_default=True)
@click.option("--size", default=100, show_default=True)
@click.option("--connections", default=50, show_default=True)
@click.option("--window", default=20, show_default=True, help="Messages each connection has under way.")
def mqtt(**options: Any) -> None:
    """QoS 1 PUBACKs per second, in turn with mosquitto where it is installed."""
    from ops.bench.benchmarks import bench_mqtt

    _print(bench_mqtt(**options))


@bench.command()
@_options(seconds=3.0, batch_size=1_000_000)
@click.option("--rate", default=1000, show_default=True, help="Records per second, for latency.")
@click.option("--connections", default=100, show_default=True, help="That wait for records, for what idling costs.")
@click.option("--compression", type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]), default="none")
def kafka(**options: Any) -> None:
    """Kafka clients at the gateway, with their own settings, beside confluent-kafka at its mock cluster."""
    if importlib.util.find_spec("confluent_kafka") is None:
        raise click.ClickException("confluent-kafka is not installed, which this measures: pip install confluent-kafka")
    from ops.bench.kafka import bench_kafka

    _print(bench_kafka(**options))


@bench.command()
@_options(seconds=3.0)
@click.option("--rate", default=1000, show_default=True, help="Records per second, for latency.")
def replication(**options: Any) -> None:
    """send() with acks=all and three copies beside acks=1 and one; latency with three copies."""
    from ops.bench.replication import bench_replication

    _print(bench_replication(**options))


@bench.command()
@click.option("--kills", default=50, show_default=True, help="Leaders killed under load, one after the other.")
@click.option("--partitions", default=1000, show_default=True, help="Of the topic whose leaders die at once.")
def failover(**options: Any) -> None:
    """The gap in acknowledgements that a killed or stopped leader leaves, with three copies."""
    from ops.bench.replication import bench_failover

    _print(bench_failover(**options))


@bench.command()
@click.option("--members", default=10, show_default=True, help="Of the group that is rebalanced.")
@click.option("--partitions", default=100, show_default=True, help="That they share.")
@click.option("--rounds", default=5, show_default=True, help="Each kills a member, has one leave, and replaces both.")
@click.option("--groups", default=1000, show_default=True, help="That commit, ten partitions each.")
@click.option("--rate", default=1000, show_default=True, help="Commits per second.")
@click.option("--seconds", default=10.0, show_default=True, help="For how long they commit.")
def groups(**options: Any) -> None:
    """Rebalances of a consumer group, latency of commits, and a coordinator's death, with three copies."""
    from ops.bench.groups import bench_groups

    _print(bench_groups(**options))


@bench.command()
@click.option("--seconds", default=60.0, show_default=True, help="How long nothing happens.")
@click.option("--partitions", default=1000, show_default=True, help="With three copies each.")
def idle(**options: Any) -> None:
    """The processor time of everything, as a part of one core, while nobody produces or consumes."""
    from ops.bench.replication import bench_idle

    _print(bench_idle(**options))


@bench.command()
@click.option("--runs", default=3, show_default=True)
@click.option("--records", default=10_000_000, show_default=True, help="Stored before they are compacted.")
@click.option("--keys", default=1_000_000, show_default=True, help="Of them, distinct ones.")
@click.option("--size", default=100, show_default=True, help="Bytes of a record, its key of 14 included.")
@click.option("--compression", type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]), default="none")
def compact(**options: Any) -> None:
    """Compaction of a topic: how fast, in how much memory, and the latency of another topic meanwhile."""
    from ops.bench.compaction import bench_compact

    _print(bench_compact(**options))


@bench.command()
@click.option("--runs", default=5, show_default=True)
@click.option("--gigabytes", default=10.0, show_default=True, help="Stored before a broker is killed.")
def recover(**options: Any) -> None:
    """Start-up, memory, and the gap in acknowledgements that a killed broker leaves."""
    from ops.bench.benchmarks import bench_recover

    _print(bench_recover(**options))
