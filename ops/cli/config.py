"""`forebay config …`: what the settings are, where each comes from, and whether a file is right."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import msgspec

from ops.cli.options import config_option
from ops.cli.reached import format_option, reported
from ops.config.paths import default_config_file
from ops.config.setting import Setting
from ops.config.settings import DEFAULT, Settings, Value, load_settings

HIDDEN = "(hidden)"
_BARE = re.compile(r"true|false|-?\d{1,18}")  # Kafka's values are text, but need no quotes in a file
_SECRET_WORDS = ("password", "secret", "token")


@click.group()
def config() -> None:
    """Show and check settings. Flags come before the environment, that before the file, that before defaults."""


@config.command()
@config_option
@click.option("--sources", is_flag=True, help="Where each value comes from.")
@click.option("--set", "only_set", is_flag=True, help="Only what is not left at its default.")
@format_option
def dump(config_file: Path | None, sources: bool, only_set: bool, form: str) -> None:
    """Print every setting as a file that can be read again; what is at its default is commented out.

    \b
      forebay config dump --set --sources
    """
    with reported():
        settings = load_settings(config_file or default_config_file(), environment=os.environ)
    _warn(settings)
    shown = [(setting, value) for setting, value in settings.items() if not only_set or value.source != DEFAULT]
    if form == "json":
        click.echo(json.dumps([_as_json(setting, value) for setting, value in shown]))
    else:
        _print(shown, sources)


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@format_option
def check(file: Path, form: str) -> None:
    """Check a file alone, without environment and flags, and the files it names. Exit code 2 if anything is wrong."""
    with reported():
        settings = load_settings(file)
        settings.check_files()
    _warn(settings)
    count = sum(value.source != DEFAULT for _, value in settings.items())
    if form == "json":
        click.echo(json.dumps({"file": str(file), "settings": count, "warnings": settings.warnings}))
    else:
        click.echo(f"{file} is right: {count} settings")


def _warn(settings: Settings) -> None:
    for warning in settings.warnings:
        click.echo(warning, err=True)


def _shown(setting: Setting, value: Value) -> Any:
    """Return the value, unless it is a secret itself; the path of a file that holds one is not."""
    secret = any(word in setting.key for word in _SECRET_WORDS) and not setting.key.endswith("_file")
    return HIDDEN if secret and value.value else value.value


def _as_json(setting: Setting, value: Value) -> dict[str, Any]:
    return {
        "section": setting.section,
        "key": setting.key,
        "value": msgspec.to_builtins(_shown(setting, value)),
        "source": value.source,
        "environment": setting.variable,
        "doc": setting.doc,
    }


def _print(shown: Iterable[tuple[Setting, Value]], sources: bool) -> None:
    section = ""
    for setting, value in shown:
        if setting.section != section:
            click.echo(f"{'' if not section else chr(10)}[{setting.section}]")
            section = setting.section
        text = _toml(_shown(setting, value))
        if text == '""' and value.source == DEFAULT:
            text = "(not set)"  # it stands in a comment: no value that could be meant
        line = f'"{setting.key}" = {text}'
        if value.source == DEFAULT:
            line = f"# {line}"  # read again, the file sets what is set now and nothing else
        if sources:
            line = f"{line:<56}  # {value.source}"
        click.echo(line)


def _toml(value: Any) -> str:
    """Return a value as toml writes it. JSON's strings, numbers and lists are toml's too; tables are not."""
    if value is None:
        return '""'
    value = msgspec.to_builtins(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, str) and _BARE.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)
