"""Start an appliance: check everything that can be checked, take over what still runs, then supervise."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ingest.discovery import FORMAT, Appliance, write_appliance
from ingest.errors import StorageError
from ingest.machine import machine_id
from ops.config.settings import Settings
from ops.supervisor.compose import Site, compose, listeners, process_names
from ops.supervisor.data_dir import LOG_NAME, DataDir
from ops.supervisor.limits import SupervisionLimits
from ops.supervisor.log_dirs import of_others, spread
from ops.supervisor.membership import Member, become_member
from ops.supervisor.ports import address, pick_ports
from ops.supervisor.run_dir import choose_run_dir, open_page_dir, open_run_dir, sweep
from ops.supervisor.spec import Plan
from ops.supervisor.state_file import read_state
from ops.supervisor.status import SupervisorStatus
from ops.supervisor.supervisor import Reporter, Supervisor
from ops.supervisor.survivors import Survivor, find_survivors, tie

LOG_BYTES_MAX = 16 << 20
OPEN_FILES = 65_536  # three files a segment, one a connection; many systems begin with 1,024


@dataclass(frozen=True, slots=True)
class Start:
    """What `forebay up` was asked for.

    Attributes:
        accept_empty: Brokers that may start empty though they had data.
        join: A new directory becomes part of the cluster that zookeeper.connect names.
    """

    data_dir: Path
    settings: Settings
    kill_hung: bool = True
    detached: bool = False
    accept_empty: Collection[int] = ()
    join: bool = False
    limits: SupervisionLimits = field(default_factory=SupervisionLimits)


def run_appliance(start: Start, reporter: Reporter) -> str:
    """Run an appliance until it is stopped; return why it failed, empty after a clean stop.

    Raises:
        ConfigError, StorageError: it can't start, in a plain sentence; nothing runs that did not run before.
    """
    directory = DataDir.open(start.data_dir)
    allow_open_files()
    try:
        supervisor = _prepare(start, directory, reporter)
        if start.detached:
            supervisor.take_stdio()
        return supervisor.run()
    finally:
        directory.lock.release()


def allow_open_files() -> None:
    """Raise the limit on open files, for this process and those it starts, as far as it may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _prepare(start: Start, directory: DataDir, reporter: Reporter) -> Supervisor:
    settings = start.settings
    member = become_member(directory, settings, join=start.join, accept_empty=start.accept_empty)
    _write(directory, _told_before(directory, member))  # it is a member from now on, whatever becomes of this start
    spread(directory.path / "brokers", member.broker_ids, settings.log_dirs, member.site)
    run_dir = choose_run_dir(directory.path, directory.previous)
    open_run_dir(run_dir, directory.path, process_names(settings, member.broker_ids))
    sweep(directory.path)
    page_dir, warning = open_page_dir(run_dir, directory.path)
    warnings = [*settings.warnings, *([warning] if warning else [])]
    if directory.previous is None and (others := of_others(settings.log_dirs, member.site)):
        warnings.append(
            f"this data directory is new, and {', '.join(map(str, others))} belong to another; "
            "if that was lost, stop, and put it back from a backup: it knows the topics in them"
        )
    for text in warnings:
        reporter.note("warning", text)

    state = read_state(run_dir)
    survivors = find_survivors(state.processes if state else [])
    alive = {survivor.process.name for survivor in survivors}
    try:
        asked = listeners(settings, member.broker_ids)
        picked = pick_ports(asked, state.ports if state else {}, alive)
        for text in picked.warnings:
            reporter.note("warning", text)
        ports = picked.ports
        site = Site(
            data_dir=directory.path,
            run_dir=run_dir,
            page_dir=page_dir,
            machine=machine_id(),
            member=member,
        )
        specs = compose(settings, site, ports)
        incarnation = directory.previous.incarnation + 1 if directory.previous else 1
        endpoints = [site.endpoint(broker_id) for broker_id in member.broker_ids]
        appliance = Appliance(
            format=FORMAT,
            cluster_id=member.cluster_id,
            incarnation=incarnation,
            run_dir=str(site.run_dir),
            boot_id=site.machine,
            brokers=endpoints,
            ports=ports,
            kept_by=member.kept_by,
            site=member.site,
            broker_ids=member.broker_ids,
            zookeeper=member.zookeeper.connect if member.zookeeper else "",
        )
        _write(directory, appliance)
        plan = Plan(
            data_dir=str(directory.path),
            run_dir=str(run_dir),
            incarnation=incarnation,
            processes=specs,
            ports=ports,
            addresses={one.name: address(one.host, ports[one.name]) for one in asked if one.name in ports},
            log_path=str(_rotated(directory.path / LOG_NAME)),
        )
    except BaseException:
        _leave(survivors)
        raise
    tie(survivors, run_dir)
    reporter = _Recorder(reporter, directory, appliance)
    return Supervisor(plan, reporter, survivors=survivors, limits=start.limits, kill_hung=start.kill_hung)


def _told_before(directory: DataDir, member: Member) -> Appliance:
    """Return what the last start told, as this member; of a new directory, that nothing of it runs."""
    nothing = Appliance(format=FORMAT, cluster_id="", incarnation=0, run_dir="", boot_id="", brokers=[])
    return msgspec.structs.replace(
        directory.previous or nothing,
        cluster_id=member.cluster_id,
        kept_by=member.kept_by,
        site=member.site,
        broker_ids=member.broker_ids,
        zookeeper=member.zookeeper.connect if member.zookeeper else "",
    )


def _write(directory: DataDir, appliance: Appliance) -> None:
    try:
        write_appliance(directory.path, appliance)
    except OSError as error:
        raise StorageError(f"can't write to {directory.path}: {error.strerror}", path=directory.path) from None


class _Recorder:
    """Write down, once all serve, which brokers keep data, so that a directory that is missing later is missed."""

    def __init__(self, reporter: Reporter, directory: DataDir, appliance: Appliance) -> None:
        self._reporter = reporter
        self._directory = directory
        self._appliance = appliance

    def note(self, level: str, text: str) -> None:
        self._reporter.note(level, text)

    def ready(self, status: SupervisorStatus) -> None:
        kept_by = self._directory.brokers(shared=True).with_data()
        if kept_by != self._appliance.kept_by:
            try:
                _write(self._directory, msgspec.structs.replace(self._appliance, kept_by=kept_by))
            except StorageError as error:
                self._reporter.note(
                    "warning", f"{error}; a broker's directory that is missing later will not be missed"
                )
        self._reporter.ready(status)


def _leave(survivors: list[Survivor]) -> None:
    for survivor in survivors:
        os.close(survivor.pidfd)


def _rotated(path: Path) -> Path:
    """Set a log that has grown large aside; what still runs goes on writing to it there."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > LOG_BYTES_MAX:
            path.replace(f"{path}.1")
    return path
