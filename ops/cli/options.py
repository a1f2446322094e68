"""Options that commands about one appliance on this machine share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def data_dir_option(command: F) -> F:
    """Add `--data-dir`; the command gets an absolute path."""
    return click.option(
        "--data-dir",
        envvar="FOREBAY_DATA_DIR",
        metavar="DIR",
        callback=_resolved,
        help="The appliance's data directory.  [env: FOREBAY_DATA_DIR]",
    )(command)


def config_option(command: F) -> F:
    """Add `--config`."""
    return click.option(
        "--config",
        "config_file",
        envvar="FOREBAY_CONFIG",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Settings.  [env: FOREBAY_CONFIG; default: /etc/forebay/forebay.toml if it is there]",
    )(command)


def _resolved(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Path:
    from ops.config.paths import resolve_data_dir

    return resolve_data_dir(value)
