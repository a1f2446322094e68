"""What the monitor is told at its start."""

from __future__ import annotations

import msgspec


class MonitorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The monitor process.

    Attributes:
        run_dir: Where the processes of the appliance have their control sockets, <name>.ctl.
        expected: Names of the processes that must answer for the appliance to be ready, brokers above all.
        http_host: Loopback unless told otherwise.
        http_port: 0 picks a free one; `MonitorStats.http_port` says which.
        scrape_ms: How often the processes are asked when nobody asks the monitor, so that what a killed process
            counted since the last time is at most that old.
        topics_max: Topics that get metrics of their own; those beyond are added up as topic "_other".
        groups_max: Consumer groups that get metrics; those beyond are counted.
        bootstrap: Where leaders are asked how far groups are behind; empty: nobody is asked.
    """

    run_dir: str
    cluster_id: str = ""
    expected: list[str] = []
    http_host: str = "127.0.0.1"
    http_port: int = 9644
    scrape_ms: int = 2000
    topics_max: int = 1000
    groups_max: int = 1000
    bootstrap: str = ""
