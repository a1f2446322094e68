"""Finding an appliance by its directory."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from ingest.discovery import (
    FORMAT,
    Appliance,
    bootstrap_endpoints,
    is_local,
    read_appliance,
    write_appliance,
)
from ingest.errors import ConfigError, ForeignDirectory
from ingest.machine import machine_id


def appliance() -> Appliance:
    return Appliance(
        format=FORMAT,
        cluster_id="c",
        incarnation=3,
        run_dir="/run/x",
        boot_id=machine_id(),
        brokers=["ipc:///run/x/broker-1.sock"],
        ports={"mqtt": 1883},
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_appliance(tmp_path, appliance())
    assert read_appliance(tmp_path) == appliance()
    assert [path.name for path in tmp_path.iterdir()] == ["appliance.json"]
    assert bootstrap_endpoints(str(tmp_path)) == ["ipc:///run/x/broker-1.sock"]


def test_appliance_is_local_if_it_is_of_this_boot_and_the_directory_opens(tmp_path: Path) -> None:
    assert not is_local(tmp_path)
    write_appliance(tmp_path, appliance())
    assert is_local(tmp_path)
    write_appliance(tmp_path, msgspec.structs.replace(appliance(), boot_id="another"))
    assert not is_local(tmp_path)
    assert not is_local(tmp_path / "elsewhere")


def test_fields_of_a_later_version_are_left_alone(tmp_path: Path) -> None:
    fields = msgspec.to_builtins(appliance()) | {"new": 1}
    (tmp_path / "appliance.json").write_bytes(msgspec.json.encode(fields))
    assert read_appliance(tmp_path) == appliance()


def test_newer_format_is_refused(tmp_path: Path) -> None:
    write_appliance(tmp_path, msgspec.structs.replace(appliance(), format=FORMAT + 1))
    with pytest.raises(ForeignDirectory, match="format 2; this program reads 1"):
        read_appliance(tmp_path)
    assert not is_local(tmp_path)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format": "x"}', b"\xff"])
def test_damaged_file_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "appliance.json").write_bytes(data)
    with pytest.raises(ConfigError, match=r"appliance\.json"):
        read_appliance(tmp_path)


def test_directory_without_an_appliance_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="start one with: forebay up --data-dir"):
        read_appliance(tmp_path)


def test_endpoints_are_given_with_commas() -> None:
    assert bootstrap_endpoints("tcp://a:1, tcp://b:2") == ["tcp://a:1", "tcp://b:2"]
    with pytest.raises(ConfigError, match="is not tcp://host:port"):
        bootstrap_endpoints("udp://a:1")
