"""Finding an appliance: its data directory holds `appliance.json`, which says where its brokers listen."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from ingest.atomic_file import replace_file
from ingest.errors import ConfigError, ForeignDirectory
from ingest.machine import machine_id

APPLIANCE_FILE = "appliance.json"
FORMAT = 1


class Appliance(msgspec.Struct, frozen=True, kw_only=True):
    """What a running appliance tells of itself.

    Attributes:
        boot_id: The machine, and its life, that the endpoints are of.
        brokers: ZeroMQ endpoints of its brokers.
        ports: TCP ports by listener: mqtt, kafka, http.
        kept_by: Ids of the brokers that have data under `brokers/`, or had when the appliance was last ready.
        site: Tells this directory from every other of the cluster.
        broker_ids: Of the brokers that are this directory's, whether they have data yet or not.
        zookeeper: Where the cluster's metadata is, if not in this directory.
    """

    format: int
    cluster_id: str
    incarnation: int
    run_dir: str
    boot_id: str
    brokers: list[str]
    ports: dict[str, int] = {}
    kept_by: list[int] = []
    site: str = ""
    broker_ids: list[int] = []
    zookeeper: str = ""


def read_appliance(data_dir: str | os.PathLike[str]) -> Appliance:
    """Read `appliance.json`.

    Raises:
        ConfigError: there is none, or it can't be read.
        ForeignDirectory: it is of a newer format.
    """
    path = Path(data_dir) / APPLIANCE_FILE
    try:
        appliance = msgspec.json.decode(path.read_bytes(), type=Appliance)
    except FileNotFoundError:
        raise ConfigError(f"no appliance in {data_dir}: start one with: forebay up --data-dir {data_dir}") from None
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if appliance.format > FORMAT:
        raise ForeignDirectory(f"{path} has format {appliance.format}; this program reads {FORMAT}", path=path)
    return appliance


def is_local(data_dir: str | os.PathLike[str]) -> bool:
    """Whether the directory's appliance runs on this machine: it is of this boot, and the directory opens.

    A boot id alone is not enough, for containers share it without sharing files; nor is the directory alone, which
    may be mounted from elsewhere.
    """
    try:
        return read_appliance(data_dir).boot_id == machine_id()
    except (ConfigError, ForeignDirectory):
        return False


def write_appliance(data_dir: str | os.PathLike[str], appliance: Appliance) -> None:
    """Replace `appliance.json` in one step. Cost: a file's and a directory's fsync."""
    replace_file(Path(data_dir) / APPLIANCE_FILE, msgspec.json.encode(appliance))


def bootstrap_endpoints(bootstrap: str) -> list[str]:
    """Return the endpoints to ask first: those of a data directory's appliance, or those given with commas between.

    Raises:
        ConfigError, ForeignDirectory: there is no appliance in the directory, or it is not on this machine.
    """
    if "://" in bootstrap:
        endpoints = [endpoint.strip() for endpoint in bootstrap.split(",") if endpoint.strip()]
        for endpoint in endpoints:
            if not endpoint.startswith(("tcp://", "ipc://")):
                raise ConfigError(f"bootstrap {endpoint!r} is not tcp://host:port or ipc://path")
        return endpoints
    return read_appliance(bootstrap).brokers
