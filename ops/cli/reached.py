"""What commands that talk to an appliance share: which one, in which format, and how its refusals end the command.

exit code 0   done
          1   refused, not found, or done in part: the message says what
          2   used wrongly: an option, a name or a setting that can't be
          3   no answer: nothing runs there, or it did not answer in time
        130   interrupted
"""

from __future__ import annotations

import difflib
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ingest.errors import ConfigError, ForebayError, RemoteError, TransportError, UsageError
from ingest.wire.codes import ErrorCode

if TYPE_CHECKING:
    from ingest.admin import Admin

TIMEOUT_MS = 10_000
REFUSED, MISUSED, UNREACHED, INTERRUPTED = 1, 2, 3, 130
RESTART_SECONDS = 2.0  # a killed broker serves again within that

F = TypeVar("F", bound=Callable[..., Any])

_NEXT = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: "See what there is with: forebay topic list{here}",
    ErrorCode.TOPIC_ALREADY_EXISTS: "Look at it with: forebay topic describe NAME{here}, or pass --if-not-exists",
    ErrorCode.INVALID_REPLICATION_FACTOR: "Leave -r out for what this cluster can keep",
    ErrorCode.INVALID_CONFIG: (
        "See the settings with: forebay topic describe NAME --all{here}, or forebay cluster describe-config --all{here}"
    ),
    ErrorCode.MESSAGE_TOO_LARGE: (
        "See what the topic takes, max.message.bytes, with: forebay topic describe NAME --all{here}"
    ),
    ErrorCode.OFFSET_OUT_OF_RANGE: "See the offsets with: forebay topic describe NAME{here}",
    ErrorCode.GROUP_ID_NOT_FOUND: "See what there is with: forebay group list{here}",
    ErrorCode.NON_EMPTY_GROUP: "See who they are with: forebay group describe NAME --members{here}",
    ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC: "See who they are with: forebay group describe NAME --members{here}",
    ErrorCode.KAFKA_STORAGE_ERROR: "See what is wrong with: forebay doctor{there}",
}


_NOT_THERE = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.GROUP_ID_NOT_FOUND)


class Failed(click.ClickException):
    """A command that ends with a message and an exit code of its own."""

    def __init__(self, message: str, exit_code: int = REFUSED) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


def bootstrap_option(command: F) -> F:
    """Add `--data-dir`, and `--bootstrap` for an appliance that is elsewhere; the command gets `bootstrap`."""
    command = click.option(
        "--bootstrap",
        "--bootstrap-server",
        "--brokers",
        metavar="TCP://HOST:PORT",
        help="An appliance on another machine, instead of a data directory.",
    )(command)
    return click.option(
        "--data-dir",
        envvar="FOREBAY_DATA_DIR",
        metavar="DIR",
        help="The appliance's data directory.  [env: FOREBAY_DATA_DIR]",
    )(command)


def format_option(command: F) -> F:
    """Add `--format text|json`."""
    return click.option(
        "--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print.  [default: text]"
    )(command)


def resolve_bootstrap(data_dir: str | None, bootstrap: str | None) -> str:
    """Return what clients take: a data directory or endpoints. `host:port` is read as `tcp://host:port`."""
    if bootstrap:
        endpoints = [part.strip() for part in bootstrap.split(",")]
        if len(endpoints) == 1 and ":" not in endpoints[0]:
            return endpoints[0]  # a directory
        return ",".join(part if "://" in part else f"tcp://{part}" for part in endpoints)
    from ops.config.paths import resolve_data_dir

    found = resolve_data_dir(data_dir)
    _await_listener(found)
    return str(found)


def open_admin(data_dir: str | None, bootstrap: str | None) -> Admin:
    """Return an Admin of the appliance that the options name; the caller closes it."""
    from ingest.admin import Admin

    return Admin(resolve_bootstrap(data_dir, bootstrap), timeout_ms=TIMEOUT_MS)


def _await_listener(data_dir: Path) -> None:
    """Return once a broker of the appliance takes connections, or there is no appliance file to say where they are.

    Raises:
        Failed: none does for longer than a restart takes: clients would wait for it until their own time is over.
    """
    from ingest.discovery import read_appliance
    from ingest.machine import machine_id

    try:
        appliance = read_appliance(data_dir)
    except ForebayError:
        return
    deadline = time.monotonic() + RESTART_SECONDS
    while appliance.boot_id == machine_id() and time.monotonic() < deadline:
        for endpoint in appliance.brokers:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(OSError):
                probe.connect(endpoint.removeprefix("ipc://"))
                return
        time.sleep(0.05)
    raise Failed(
        f"the appliance of {data_dir} does not run.\n"
        f"Start it with: forebay up --detach --data-dir {quote(str(data_dir))}",
        UNREACHED,
    )


@contextmanager
def reported(names: Callable[[], Sequence[str]] | None = None, *, wanted: str = "") -> Iterator[None]:
    """Turn what the cluster refused into a message with the next command, and an exit code.

    Args:
        names, wanted: Where the nearest name is looked for if `wanted` does not exist.
    """
    try:
        yield
    except RemoteError as error:
        raise Failed(_with_next(error, names, wanted)) from None
    except (TransportError, TimeoutError) as error:
        raise Failed(f"{error}\nSee what runs with: forebay status{there()}", UNREACHED) from None
    except UsageError as error:
        raise Failed(str(error), MISUSED) from None
    except ConfigError as error:
        missing = str(error).startswith("no appliance")
        raise Failed(str(error), UNREACHED if missing else MISUSED) from None
    except ForebayError as error:
        raise Failed(str(error)) from None


def _with_next(error: RemoteError, names: Callable[[], Sequence[str]] | None, wanted: str) -> str:
    lines = [str(error)]
    if error.code in _NOT_THERE and names is not None:
        try:
            near = difflib.get_close_matches(wanted, names(), n=1)
        except ForebayError:
            near = []
        if near and near[0] != wanted:  # else it is the partition that is not there
            lines.append(f"Did you mean {near[0]}?")
    hint = hint_of(error.code, wanted)
    return "\n".join([*lines, hint] if hint else lines)


def hint_of(code: int | None, wanted: str = "") -> str:
    """Return the next command after an error of a broker, empty if none would help."""
    hint = _NEXT.get(ErrorCode(code), "") if code in list(ErrorCode) else ""
    hint = hint.format(here=here(), there=there())
    return hint.replace("NAME", quote(wanted)) if wanted else hint


def here() -> str:
    """Return the options that make a hint mean the appliance the user named on the command line, empty if none."""
    return _given("bootstrap") or _given("data_dir")


def there() -> str:
    """Return the same for a command that must be run on the appliance's own machine."""
    return " on its machine" if _given("bootstrap") else _given("data_dir")


def _given(name: str) -> str:
    context = click.get_current_context(silent=True)
    if context is None or context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
        return ""
    return f" --{name.replace('_', '-')} {quote(str(context.params[name]))}"


def printable(text: str) -> str:
    """Return a text that stays on its line and does nothing to a terminal: names may hold any character."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say_done(form: str, results: Mapping[str, str]) -> None:
    """Say what became of each thing that was named."""
    if form == "json":
        click.echo(json.dumps([{"name": name, "result": what} for name, what in results.items()]))
    else:
        for name, what in results.items():
            click.echo(f"{printable(name)}: {what}")


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns, each as wide as its longest cell."""
    table = [[printable(str(cell)) for cell in row] for row in (heads, *rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
