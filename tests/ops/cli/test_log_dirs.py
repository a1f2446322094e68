"""`log.dirs`: brokers of one machine on disks of their own."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.cli.conftest import Forebay


@contextlib.contextmanager
def disks(directory: Path, count: int) -> Iterator[list[Path]]:
    """Mount small file systems, each a device of its own."""
    paths = [directory / f"disk-{number}" for number in range(count)]
    mounted: list[Path] = []
    try:
        for path in paths:
            path.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", path], check=True)
            mounted.append(path)
        yield paths
    finally:
        for path in mounted:
            subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)


@pytest.mark.needs("tmpfs_mount")
def test_each_broker_has_a_disk_copies_are_spread_over_them_and_one_that_is_missing_is_missed(
    forebay: Forebay, tmp_path: Path
) -> None:
    with disks(tmp_path, 3) as paths:
        forebay.environment["FOREBAY_LOG_DIRS"] = ",".join(map(str, paths))
        forebay.up("--brokers", "3")
        homes = [(forebay.data_dir / "brokers" / str(broker_id)).resolve().parent for broker_id in (1, 2, 3)]
        assert homes == paths
        at = ("--data-dir", str(forebay.data_dir))
        forebay.run("topic", "create", "t", *at)
        described = json.loads(forebay.run("topic", "describe", "t", *at, "--format", "json").stdout)
        assert sorted(described["partitions"][0]["replicas"]) == [1, 2, 3], "a copy on each disk"
        checks = json.loads(forebay.run("doctor", *at, "--format", "json", code=None).stdout)["checks"]
        (full,) = [check["what"] for check in checks if check["name"] == "disk" and str(paths[1]) in check["what"]]
        assert full.startswith("0.1 GiB free"), "doctor looks at every disk"
        forebay.down()
        subprocess.run(["umount", paths[1]], check=True)
        refused = forebay.up(code=1)
        assert f"{forebay.data_dir}/brokers/2 holds no data, and did before. Is a disk not mounted?" in refused.stderr


def test_a_new_data_directory_tells_of_disks_that_others_have_data_on(forebay: Forebay, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    forebay.environment["FOREBAY_LOG_DIRS"] = str(disk)
    assert "belong to another" not in forebay.up().stderr
    forebay.down()
    assert "belong to another" not in forebay.up().stderr
    forebay.down()
    homes = sorted(disk.iterdir())
    forebay.data_dir.rename(tmp_path / "lost")
    assert f"{homes[0]}, {homes[1]} belong to another" in forebay.up().stderr


def test_a_disk_that_is_not_there_is_named(forebay: Forebay, tmp_path: Path) -> None:
    forebay.environment["FOREBAY_LOG_DIRS"] = f"{tmp_path}/nowhere"
    assert f"{tmp_path}/nowhere is no directory; is a disk not mounted?" in forebay.up(code=2).stderr
    forebay.environment["FOREBAY_LOG_DIRS"] = "here"
    assert "here is no absolute path" in forebay.up(code=2).stderr
