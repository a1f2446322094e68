"""The configuration file: toml, with the line of each key for messages."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.errors import ConfigError

_HEADER = re.compile(r"^\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""^\s*("[^"]*"|'[^']*'|[A-Za-z0-9_.\-]+(?:\s*\.\s*[A-Za-z0-9_\-"']+)*)\s*=""")


@dataclass(frozen=True, slots=True)
class FileValue:
    """One value as the file has it."""

    section: str
    key: str
    value: Any
    place: str


def read_config_file(path: Path) -> list[FileValue]:
    """Return what the file sets, in its order. A bare `log.retention.ms = 1` means the quoted key.

    Raises:
        ConfigError: it can't be read or is no toml; names file and line.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name another with --config") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{_place_of(path, str(error))}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deep") from None
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError(f"{path}: {error}") from None
    lines = _lines_of_keys(text)
    values = []
    for section, content in document.items():
        if not isinstance(content, dict):
            values.append(FileValue("", section, content, f"{path}:{lines.get(('', section), 1)}"))
            continue
        try:
            flat = _flat(content)
        except RecursionError:
            raise ConfigError(f"{path}: [{section[:40]}] is nested too deep") from None
        for key, value in flat:
            line = lines.get((section, key)) or lines.get((section, "")) or 1
            values.append(FileValue(section, key, value, f"{path}:{line}"))
    return values


def _flat(table: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found += _flat(value, f"{name}.")
        else:
            found.append((name, value))
    return found


def _lines_of_keys(text: str) -> dict[tuple[str, str], int]:
    """Return the line of each `key =` and of each table; toml's parser does not tell."""
    found: dict[tuple[str, str], int] = {}
    section, prefix = "", ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            section, _, rest = _plain(header[1]).partition(".")
            prefix = f"{rest}." if rest else ""
            found.setdefault((section, rest), number)
        elif key := _KEY.match(line):
            found.setdefault((section, prefix + _plain(key[1])), number)
    return found


def _plain(key: str) -> str:
    return re.sub(r"[\"'\s]", "", key)


def _place_of(path: Path, message: str) -> str:
    line = re.search(r"at line (\d+)", message)
    return f"{path}:{line[1]}" if line else str(path)
