"""`forebay cluster …`: brokers and their health, moving leaders and replicas (settings: cluster_config and _quotas)."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from ingest.wire.codes import ErrorCode
from ops.cli.cluster_config import alter_config, describe_config
from ops.cli.cluster_quotas import quotas
from ops.cli.reached import Failed, bootstrap_option, format_option, open_admin, print_table, reported

if TYPE_CHECKING:
    from ingest.wire.messages import MetadataResponse

LOOK_S = 0.5
COPIES_USUAL = 3  # at most; more is for who asks for it
_UNLED = -1


@click.group()
def cluster() -> None:
    """Look at brokers and replicas, move leaders and replicas about, change settings of all brokers.

    \b
    Exit codes: 0 done, 1 refused, done in part or not healthy, 2 used wrongly, 3 no answer.
    """


cluster.add_command(describe_config)
cluster.add_command(alter_config)
cluster.add_command(quotas)


@cluster.command()
@bootstrap_option
@format_option
def info(data_dir: str | None, bootstrap: str | None, form: str) -> None:
    """Show the brokers, and what each leads and keeps."""
    with reported(), open_admin(data_dir, bootstrap) as admin:
        metadata = admin.metadata()
    partitions = [partition for topic in metadata.topics for partition in topic.partitions]
    brokers: list[dict[str, Any]] = [
        {
            "broker_id": broker.broker_id,
            "alive": broker.alive,
            "draining": broker.draining,
            "leaders": sum(p.leader == broker.broker_id for p in partitions),
            "replicas": sum(broker.broker_id in p.replicas for p in partitions),
            "in_sync": sum(broker.broker_id in p.isr for p in partitions),
            "rack": broker.rack,
            "log_dir": broker.log_dir,
            "endpoints": broker.endpoints,
        }
        for broker in metadata.brokers
    ]
    if form == "json":
        found = {"cluster_id": metadata.cluster_id, "controller_epoch": metadata.controller_epoch, "brokers": brokers}
        click.echo(json.dumps(found))
        return
    click.echo(f"cluster {metadata.cluster_id}, controller epoch {metadata.controller_epoch}\n")
    heads = ("BROKER", "STATE", "LEADERS", "REPLICAS", "IN-SYNC", "ADDRESS", "RACK", "LOG-DIR")
    print_table(
        heads,
        [
            (
                broker["broker_id"],
                "draining" if broker["draining"] else "alive" if broker["alive"] else "dead",
                broker["leaders"],
                broker["replicas"],
                broker["in_sync"],
                broker["endpoints"][-1],  # tcp, where there is one
                broker["rack"] or "-",
                broker["log_dir"],
            )
            for broker in brokers
        ],
    )


@cluster.command()
@click.option("--exit-when-healthy", is_flag=True, help="Wait until all is well.")
@bootstrap_option
@format_option
def health(exit_when_healthy: bool, data_dir: str | None, bootstrap: str | None, form: str) -> None:
    """Say what is not as it should be: brokers that are down, partitions without a leader or short of copies."""
    shown: dict[str, Any] | None = None
    with reported(), open_admin(data_dir, bootstrap) as admin:
        while True:
            found = _health(admin.metadata())
            if not exit_when_healthy or found["healthy"]:
                break
            if found != shown and form == "text":
                _print_health(found)
                shown = found
            time.sleep(LOOK_S)
    if form == "json":
        click.echo(json.dumps(found))
    else:
        _print_health(found)
    if not found["healthy"]:
        raise SystemExit(1)


def _health(metadata: MetadataResponse) -> dict[str, Any]:
    """Return what is not as it should be, partitions as topic-partition."""
    from replicas.domains import Domains, Place
    from replicas.state import needed_in_sync

    leaderless, under_min_isr, under_replicated, moving, could_have_more = [], [], [], [], []
    domains = Domains({b.broker_id: Place(b.site, b.device, b.rack) for b in metadata.brokers})
    machines = len({broker.site for broker in metadata.brokers if broker.alive})
    for topic in metadata.topics:
        if any(len(partition.replicas) < min(machines, COPIES_USUAL) for partition in topic.partitions):
            could_have_more.append(topic.name)
        min_insync = int(topic.configs.get("min.insync.replicas", "0"))
        for partition in topic.partitions:
            name = f"{topic.name}-{partition.partition}"
            if partition.leader == _UNLED:
                leaderless.append(name)
            needed = needed_in_sync(partition.replicas, partition.adding, min_insync)
            if domains.copies(partition.isr, partition.replicas) < needed:
                under_min_isr.append(name)
            if len(partition.isr) < len(partition.replicas) - len(partition.adding):
                under_replicated.append(name)
            if partition.adding or partition.removing:
                moving.append(name)
    down = [broker.broker_id for broker in metadata.brokers if not broker.alive]
    return {
        "healthy": not (down or leaderless or under_min_isr or under_replicated),
        "brokers_down": down,
        "leaderless": leaderless,
        "under_min_isr": under_min_isr,
        "under_replicated": under_replicated,
        "moving": moving,
        "could_have_more_copies": could_have_more,
    }


def _print_health(found: dict[str, Any]) -> None:
    click.echo("healthy" if found["healthy"] else "not healthy")
    for key, text in (
        ("brokers_down", "brokers down"),
        ("leaderless", "partitions without a leader"),
        ("under_min_isr", "partitions with fewer copies in sync than min.insync.replicas: acks=all waits"),
        ("under_replicated", "partitions short of copies in sync"),
        ("moving", "partitions that move"),
        ("could_have_more_copies", "topics with fewer copies than machines"),
    ):
        if found[key]:
            some = ", ".join(map(str, found[key][:10]))
            click.echo(f"  {len(found[key])} {text}: {some}{', …' if len(found[key]) > 10 else ''}")


@cluster.command()
@click.argument("broker", type=int)
@click.option("--undo", is_flag=True, help="Let new replicas come to it again; nothing moves back by itself.")
@bootstrap_option
@format_option
def drain(broker: int, undo: bool, data_dir: str | None, bootstrap: str | None, form: str) -> None:
    """Move everything off a broker, as far as others can take it, and put nothing new there."""
    with reported(), open_admin(data_dir, bootstrap) as admin:
        moving, staying = admin.drain_broker(broker, drain=not undo)
    if form == "json":
        click.echo(json.dumps({"broker_id": broker, "draining": not undo, "moving": moving, "staying": staying}))
    elif undo:
        click.echo(f"broker {broker} takes replicas again")
    else:
        click.echo(f"{moving} replicas move off broker {broker}; see: forebay cluster health")
    if staying:
        raise Failed(f"{staying} replicas stay: there is no other broker to take them")


@cluster.command("elect-leaders")
@click.option("--topic", "names", multiple=True, metavar="NAME", help="Of this topic alone; may be repeated.")
@click.option("--unclean", is_flag=True, help="Where nobody may lead: elect one that may lack acknowledged records.")
@bootstrap_option
@format_option
def elect_leaders(
    names: tuple[str, ...], unclean: bool, data_dir: str | None, bootstrap: str | None, form: str
) -> None:
    """Give partitions back to their preferred leaders, the first of their replicas."""
    with reported(), open_admin(data_dir, bootstrap) as admin:
        partitions = None
        if names:
            partitions = [(name, p.partition) for name in names for p in admin.describe_topic(name).partitions]
        results = admin.elect_leaders(partitions, unclean=unclean)
    if form == "json":
        rows = [{"topic": r.topic, "partition": r.partition, "error": r.message or None} for r in results]
        click.echo(json.dumps(rows))
    else:
        elected = [f"{r.topic}-{r.partition}" for r in results if not r.error_code]
        click.echo(f"{len(elected)} leaders elected" + (f": {', '.join(elected[:20])}" if elected else ""))
    fine = (ErrorCode.NONE, ErrorCode.ELECTION_NOT_NEEDED)
    refused = [f"{r.topic}-{r.partition}: {r.message}" for r in results if r.error_code not in fine]
    if refused:
        raise Failed("\n".join(refused))
