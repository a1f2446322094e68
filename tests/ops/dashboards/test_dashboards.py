"""Dashboards and alert rules: what ships is what the code makes, and a real Prometheus finds data for every query."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from brokerd.serving.stats import GroupStats
from ops.dashboards import overview
from tests import machine
from tests.ops.dashboards.prometheus import SHIPPED, Prometheus, panel_expressions
from tests.ops.metrics.conftest import RunningMonitor
from tests.ops.metrics.fakes import FakeAppliance, answer, broker, controller, histogram, kafka_gateway
from tests.processes import Processes


def promtool(*arguments: str) -> None:
    path = machine.program("promtool")
    assert path is not None
    done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def dashboards() -> list[Path]:
    return sorted(overview.PATH.parent.glob("*.json"))


def test_the_dashboard_that_ships_is_the_one_the_code_makes() -> None:
    assert overview.PATH.read_text() == overview.render(), "run: python -m ops.dashboards.overview"


@pytest.mark.parametrize("path", dashboards(), ids=lambda path: path.stem)
def test_dashboards_take_their_data_source_from_a_variable(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    kinds = {variable["name"]: variable["type"] for variable in dashboard["templating"]["list"]}
    assert kinds["datasource"] == "datasource"
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert panels
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.needs("prometheus")
def test_the_configuration_and_rules_that_ship_are_valid() -> None:
    promtool("check", "config", str(SHIPPED / "prometheus.yml"))


@pytest.mark.needs("prometheus")
def test_every_alert_fires_on_its_trouble_and_none_when_all_is_well(tmp_path: Path) -> None:
    rules = SHIPPED / "rules" / "forebay.yml"
    cases = (Path(__file__).parent / "alerts.yml").read_text()
    (tmp_path / "alerts.yml").write_text(cases.replace("RULES", str(rules)))
    promtool("test", "rules", str(tmp_path / "alerts.yml"))
    untried = {name for name in re.findall(r"alert: (\w+)", rules.read_text()) if f'"{name}"' not in cases}
    assert not untried, f"alerts without a test: {untried}"


@pytest.fixture
def busy_appliance(appliance: FakeAppliance) -> Iterator[FakeAppliance]:
    """Canned stats whose counters go up ten times a second."""
    stop = threading.Event()

    def count() -> None:
        number = 0
        while not stop.wait(0.1):
            number += 1
            stats = msgspec.structs.replace(
                broker(1),
                records_in_total={"sensors": 100 * number},
                request_seconds={"PRODUCE": histogram(*[0.002] * number)},
                flush_seconds=histogram(*[0.001] * number),
                groups=[GroupStats("dash", "Stable", 1, {"sensors": {1: 90}})],
            )
            appliance.say("broker-1", answer("broker-1", "broker", stats))
            gateway = {"received_total": 9 * number, "acknowledged_total": 8 * number, "in_flight": number}
            appliance.say("mqtt", answer("mqtt", "gateway", gateway))
            kafka = kafka_gateway({"received_total": number}, 3, histogram(*[0.002] * number), number)
            appliance.say("kafka", answer("kafka", "kafka", kafka))

    appliance.say("controller", answer("controller", "controller", controller(partitions=1)))
    thread = threading.Thread(target=count)
    thread.start()
    yield appliance
    stop.set()
    thread.join()


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize("path", dashboards(), ids=lambda path: path.stem)
def test_every_query_of_a_dashboard_finds_data_in_canned_stats(
    path: Path,
    busy_appliance: FakeAppliance,
    start_monitor: Callable[..., RunningMonitor],
    tmp_path: Path,
    processes: Processes,
    free_port: Callable[[], int],
) -> None:
    monitor = start_monitor()
    prometheus = Prometheus(tmp_path / "prometheus", processes, free_port(), monitor.port)
    assert prometheus.wait_for_data(panel_expressions(json.loads(path.read_text())), 45) == []
    assert prometheus.query('ALERTS{alertstate="firing"}') == []
