"""Settings on the command line: KEY=VALUE as they are given, a table as they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ingest.errors import UsageError
from ops.cli.reached import print_table

if TYPE_CHECKING:
    from ingest.wire.messages import ConfigEntry

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT = "default"
_SOURCES = {1: "topic", 2: "brokers", 4: "broker file", 5: DEFAULT}  # Kafka's ConfigSource


def changes_options(command: F) -> F:
    """Add `--set`, `--delete` and `--dry`; the command gets `sets`, `deletes` and `validate_only`."""
    for option in (
        click.option("--dry", "validate_only", is_flag=True, help="Check alone, change nothing."),
        click.option(
            "-d", "--delete", "--delete-config", "deletes", multiple=True, metavar="KEY", help="Back to the default."
        ),
        click.option(
            "-s", "--set", "-c", "--config", "--add-config", "sets", multiple=True, metavar="KEY=VALUE", help="Set."
        ),
    ):
        command = option(command)
    return command


def changes_of(sets: Sequence[str], deletes: Sequence[str]) -> dict[str, str | None]:
    """Return what --set and --delete ask for; None puts a default back.

    Raises:
        UsageError: nothing is asked for, or a text is no KEY=VALUE.
    """
    changes: dict[str, str | None] = {**pairs(sets), **dict.fromkeys(deletes)}
    if not changes:
        raise UsageError("nothing to change: pass --set KEY=VALUE or --delete KEY")
    return changes


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """Return the settings of texts like KEY=VALUE.

    Raises:
        UsageError: one is none.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"config {text!r}: expected KEY=VALUE, such as retention.ms=86400000")
        found[name.strip()] = value
    return found


def described(entries: Iterable[ConfigEntry]) -> dict[str, Any]:
    """Return value and source of each setting, for JSON."""
    return {
        entry.name: {"value": entry.value, "source": _SOURCES.get(entry.source, str(entry.source))} for entry in entries
    }


def print_configs(configs: dict[str, Any], *, all_configs: bool) -> None:
    """Print what `described` returned; without `all_configs` only what is not at its default."""
    shown = [
        (name, config["value"], config["source"])
        for name, config in sorted(configs.items())
        if all_configs or config["source"] != DEFAULT
    ]
    if shown:
        print_table(("CONFIG", "VALUE", "SOURCE"), shown)
    if len(shown) < len(configs):
        if shown:
            click.echo()
        click.echo(f"{len(configs) - len(shown)} settings are at their default: --all shows them")
