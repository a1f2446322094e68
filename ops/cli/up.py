"""`forebay up`: start an appliance, here or in the background."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import click
import msgspec

from ingest.errors import ConfigError, ForebayError
from ops.cli.cluster_config import not_heeded
from ops.cli.found import find
from ops.cli.options import config_option, data_dir_option
from ops.cli.reached import MISUSED, REFUSED, Failed, reported
from ops.cli.status import describe
from ops.config.paths import default_config_file
from ops.config.settings import load_settings
from ops.supervisor.appliance import Start, run_appliance
from ops.supervisor.limits import SupervisionLimits
from ops.supervisor.status import SupervisorStatus

READY_SECONDS = 120.0
AGREED_SECONDS = 3.0  # all serve: the monitor sees it within tens of ms, if nothing is wrong
_LOOK_SECONDS = 0.02
_PATIENCE_SECONDS = 5.0  # a start that takes longer says what it waits for


@click.command()
@click.option("--detach", "-d", is_flag=True, help="Return once it is ready; it goes on in the background.")
@click.option("--brokers", type=click.IntRange(1, 64), help="How many broker processes.")
@data_dir_option
@config_option
@click.option("--mqtt-port", type=click.IntRange(-1, 65535), help="0: any free one; -1: none.  [default: 1883]")
@click.option("--kafka-port", type=click.IntRange(-1, 65535), help="0: any free one; -1: none.  [default: 9092]")
@click.option("--http-port", type=click.IntRange(0, 65535), help="Metrics and health.  [default: 9644]")
@click.option("--zookeeper", metavar="HOST:PORT,…/FOLDER", help="Be one of several machines, which meet there.")
@click.option("--join", is_flag=True, help="Become part of the cluster that is there already.")
@click.option("--listeners", metavar="tcp://HOST:PORT", help="Where other machines reach this one.")
@click.option("--allow-insecure-listeners", is_flag=True, help="Others reach it though nothing is encrypted.")
@click.option(
    "--accept-empty-broker",
    "accept_empty",
    type=click.IntRange(1, 64),
    multiple=True,
    metavar="ID",
    help="Start this broker empty though it had data, which is lost for good.",
)
@click.option("--no-kill-hung", is_flag=True, help="For tests: leave a process alone that makes no progress.")
@click.option("--hung-ms", type=click.IntRange(1500), hidden=True, help="For tests: how long is hung.")
def up(
    detach: bool,
    brokers: int | None,
    data_dir: Path,
    config_file: Path | None,
    mqtt_port: int | None,
    kafka_port: int | None,
    http_port: int | None,
    zookeeper: str | None,
    join: bool,
    listeners: str | None,
    allow_insecure_listeners: bool,
    accept_empty: tuple[int, ...],
    no_kill_hung: bool,
    hung_ms: int | None,
) -> None:
    """Start the appliance. What still runs after its supervisor was killed is taken over, not interrupted.

    It ends well once everything runs. If `forebay status` would not call it ready, say for a full disk, it tells why.

    \b
      forebay up                                     here, until Ctrl-C
      forebay up --detach --data-dir ./data          in the background
      forebay up --detach --mqtt-port 0 --kafka-port 0 --http-port 0    on any free ports

    \b
    Several machines are one cluster; the first leaves --join out:
      forebay up --join --zookeeper zk1,zk2,zk3/forebay --listeners tcp://10.0.0.2:9192 --allow-insecure-listeners
    """
    if zookeeper == "":  # an unset variable of a script would make this machine a cluster of its own
        raise click.UsageError("--zookeeper names no server")
    flags: dict[tuple[str, str], tuple[str, Any]] = {
        key: (flag, value)
        for key, flag, value in (
            (("broker", "brokers"), "--brokers", brokers),
            (("mqtt", "port"), "--mqtt-port", mqtt_port),
            (("kafka", "port"), "--kafka-port", kafka_port),
            (("http", "port"), "--http-port", http_port),
            (("broker", "zookeeper.connect"), "--zookeeper", zookeeper),
            (("broker", "listeners"), "--listeners", listeners),
            (("broker", "allow.insecure.listeners"), "--allow-insecure-listeners", allow_insecure_listeners or None),
        )
        if value is not None
    }
    limits = SupervisionLimits() if hung_ms is None else SupervisionLimits(hung_ms=hung_ms)
    with reported():
        settings = load_settings(config_file or default_config_file(), environment=os.environ, flags=flags)
        start = Start(
            data_dir,
            settings,
            kill_hung=not no_kill_hung,
            detached=detach,
            limits=limits,
            accept_empty=accept_empty,
            join=join,
        )
        if detach:
            _detached(start)
        else:
            _foreground(start)


# In the foreground


class TerminalReporter:
    """Tell a person at the terminal."""

    def __init__(self, start: Start) -> None:
        self._began = time.monotonic()
        self._start = start
        self._over = threading.Event()
        threading.Thread(target=self._tell_waiting, daemon=True).start()

    def note(self, level: str, text: str) -> None:
        click.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)

    def end(self) -> None:
        """Tell no more of what is waited for."""
        self._over.set()

    def _tell_waiting(self) -> None:
        waiting = _Waiting(self._start.data_dir)
        while not self._over.wait(_PATIENCE_SECONDS):
            waiting.tell()

    def ready(self, status: SupervisorStatus) -> None:
        self.end()
        threading.Thread(target=self._tell, args=(status,), daemon=True).start()  # the supervisor has to go on

    def _tell(self, status: SupervisorStatus) -> None:
        _greet(status, self._start, self._began)
        click.echo("Ctrl-C stops it.")


def _foreground(start: Start) -> None:
    _title()
    reporter = TerminalReporter(start)
    try:
        failure = run_appliance(start, reporter)
    finally:
        reporter.end()
    if failure:
        raise Failed(_why(failure, start.data_dir))
    click.echo("Forebay has stopped.")


def _greet(status: SupervisorStatus, start: Start, began: float) -> None:
    reasons = await_agreement(start.data_dir)
    print_ready(status, time.monotonic() - began, reasons)
    with contextlib.suppress(ForebayError):  # then status says why
        several = bool(start.settings["broker", "zookeeper.connect"])
        for what, command in not_heeded(start.data_dir, start.settings) if several else ():
            click.echo(f"{what}: {command}", err=True)


class _Waiting:
    """Tell why an appliance that starts is not ready yet, each time the reasons are others."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._told: list[str] = []

    def tell(self) -> None:
        with contextlib.suppress(ForebayError):
            reasons = describe(find(self._data_dir))["reasons"]
            if reasons and reasons != self._told:
                self._told = reasons
                click.echo("waiting: " + "; ".join(reasons), err=True)


def await_agreement(data_dir: Path) -> list[str]:
    """Wait until `forebay status` calls it ready as well, and return why it does not if it does not soon."""
    deadline = time.monotonic() + AGREED_SECONDS
    while True:
        reasons = ["it can't be asked"]
        with contextlib.suppress(ForebayError):
            answer = describe(find(data_dir))
            if answer["ready"]:
                return []
            reasons = answer["reasons"]
        if time.monotonic() > deadline:
            return reasons
        time.sleep(_LOOK_SECONDS)


def print_ready(status: SupervisorStatus, seconds: float, reasons: Sequence[str]) -> None:
    """Print the few lines a person wants to see."""
    brokers = sum(process.role == "broker" for process in status.processes)
    state = "runs, but is not ready" if reasons else "is ready"
    click.echo(f"Forebay {state}: {brokers} broker{'s' * (brokers != 1)}, {seconds:.1f} s")
    for reason in reasons:
        click.echo(f"  {reason}")
    addresses = {name: f"{'http://' if name == 'http' else ''}{at}" for name, at in status.addresses.items()}
    places = {"data": status.data_dir, **addresses, "log": status.log_path}
    width = max(map(len, places))
    for name, place in places.items():
        click.echo(f"  {name:<{width}}  {place}")


def _title() -> None:
    import setproctitle

    setproctitle.setproctitle("forebay: supervisor")


def _why(failure: str, data_dir: Path) -> str:
    doctor = f"forebay doctor --data-dir {quote(str(data_dir))}"
    return f"the appliance did not start: {failure}\nSee {data_dir}/forebay.log, or run: {doctor}"


# In the background


class _Outcome(msgspec.Struct, frozen=True):
    """What the supervisor tells the command that waits for it."""

    warning: str = ""
    error: str = ""
    code: int = REFUSED
    status: SupervisorStatus | None = None


class PipeReporter:
    """Tell the waiting command over a pipe, until it is ready; the log tells everything."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def note(self, level: str, text: str) -> None:
        self.send(_Outcome(warning=text))

    def ready(self, status: SupervisorStatus) -> None:
        self.send(_Outcome(status=status), last=True)

    def send(self, outcome: _Outcome, *, last: bool = False) -> None:
        if self._fd is None:
            return
        try:
            os.write(self._fd, msgspec.json.encode(outcome) + b"\n")
        except OSError:
            last = True  # nobody waits any more
        if last:
            os.close(self._fd)
            self._fd = None


def _detached(start: Start) -> None:
    """Fork the supervisor off and wait until it says how it went."""
    reader, writer = os.pipe()
    began = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()  # this process has one thread and no ZeroMQ context
    if pid == 0:
        os.close(reader)
        os._exit(_background(start, writer))
    os.close(writer)
    try:
        status = _await(reader, start)
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)  # our child: its number can't be another's until it is waited for
        os.waitpid(pid, 0)
        raise
    _greet(status, start, began)
    click.echo(f"Stop it with: forebay down --data-dir {quote(str(start.data_dir))}")


def _background(start: Start, writer: int) -> int:
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    _title()
    reporter = PipeReporter(writer)
    try:
        failure = run_appliance(start, reporter)
    except ForebayError as error:
        code = MISUSED if isinstance(error, ConfigError) else REFUSED
        reporter.send(_Outcome(error=str(error), code=code), last=True)
        return code
    except BaseException:  # the outermost frame of the process
        text = traceback.format_exc()
        print(text, file=sys.stderr, flush=True)
        reporter.send(_Outcome(error=text), last=True)
        return 1
    if failure:
        reporter.send(_Outcome(error=_why(failure, start.data_dir)), last=True)
    return 1 if failure else 0


def _await(reader: int, start: Start) -> SupervisorStatus:
    deadline = time.monotonic() + READY_SECONDS
    waiting = _Waiting(start.data_dir)
    unread = b""
    while True:
        left_s = deadline - time.monotonic()
        if not select.select([reader], [], [], min(max(0.0, left_s), _PATIENCE_SECONDS))[0]:
            if left_s > _PATIENCE_SECONDS:
                waiting.tell()
                continue
            raise Failed(
                f"not ready after {READY_SECONDS:.0f} s; it goes on starting: see "
                f"`forebay status --data-dir {quote(str(start.data_dir))}` and {start.data_dir}/forebay.log"
            )
        data = os.read(reader, 1 << 16)
        if not data:
            raise Failed(f"the supervisor ended before it was ready; see {start.data_dir}/forebay.log")
        unread += data
        while b"\n" in unread:
            line, _, unread = unread.partition(b"\n")
            outcome = msgspec.json.decode(line, type=_Outcome)
            if outcome.warning:
                click.echo(outcome.warning, err=True)
            if outcome.error:
                raise Failed(outcome.error, outcome.code)
            if outcome.status is not None:
                return outcome.status
