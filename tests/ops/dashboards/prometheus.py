"""A real Prometheus over a port, with the configuration that ships, only faster."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from tests import machine
from tests.processes import Processes

SHIPPED = Path(__file__).parents[3] / "ops" / "dashboards" / "prometheus"


class Prometheus:
    """Start one that scrapes `target_port` of this machine each second."""

    def __init__(self, folder: Path, processes: Processes, port: int, target_port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        folder.mkdir()
        config = (SHIPPED / "prometheus.yml").read_text()
        assert "localhost:9644" in config
        config = config.replace("localhost:9644", f"127.0.0.1:{target_port}").replace("rules/", f"{SHIPPED}/rules/")
        config = re.sub(r"(scrape_interval|evaluation_interval): \w+", r"\1: 1s", config)
        (folder / "prometheus.yml").write_text(config)
        path = machine.program("prometheus")
        assert path is not None
        log = (folder / "log").open("wb")
        processes.start(
            [
                path,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        log.close()

    def query(self, expression: str) -> list[dict[str, object]]:
        """Return the samples an expression gives now; none while the server starts.

        Raises:
            AssertionError: Prometheus calls the expression wrong.
        """
        url = f"{self._url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return []
            raise AssertionError(f"{expression}: {error.read().decode()}") from None
        except OSError:
            return []
        result: list[dict[str, object]] = answer["data"]["result"]
        return [sample for sample in result if sample["value"][1] != "NaN"]  # type: ignore[index]

    def wait_for_data(self, expressions: list[str], seconds: float) -> list[str]:
        """Ask until every expression gave data or the time is over; return those that never did."""
        end = time.monotonic() + seconds
        empty = list(expressions)
        while empty and time.monotonic() < end:
            empty = [expression for expression in empty if not self.query(expression)]
            time.sleep(0.2)  # its scrapes come once a second, whatever we await
        return empty


def panel_expressions(dashboard: dict[str, object], window: str = "5s") -> list[str]:
    """Return every query of a dashboard with Grafana's variables filled in."""
    expressions = []
    for panel in dashboard["panels"]:  # type: ignore[attr-defined]
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", window).replace("$topic", ".*")
            assert "$" not in expression, f"a variable this test does not know: {expression}"
            expressions.append(expression)
    return expressions
