"""One setting: its names in file and environment, its default, and how a value of it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ingest.errors import ConfigError

SECTIONS = ("broker", "topic-defaults", "mqtt", "bridge", "kafka", "http")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting.

    Attributes:
        default: As `parse` returns it.
        parse: Reads a value of the file, or text of environment and flags. Raises ConfigError without the key.
        built: False: Kafka has it and this version does not; only its default is taken.
    """

    section: str
    key: str
    default: Any
    parse: Callable[[Any], Any]
    doc: str = ""
    built: bool = True

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        section = "" if self.section == "broker" else f"{self.section.upper().replace('-', '_')}_"
        return f"FOREBAY_{section}{self.key.upper().replace('.', '_')}"

    @property
    def name(self) -> str:
        """Its name in messages."""
        return self.key if self.section in ("broker", "topic-defaults") else f"{self.section}.{self.key}"

    def read(self, value: Any) -> Any:
        """Return the value that is meant.

        Raises:
            ConfigError: naming key, value and what is allowed.
        """
        try:
            parsed = self.parse(value)
        except ConfigError as error:
            raise ConfigError(str(error) if self.key in str(error) else f"{self.name}={value}: {error}") from None
        if not self.built and parsed != self.default:
            instead = f"leave it out, or at {self.default}" if self.default else "leave it out"
            raise ConfigError(f"{self.name}={value} is not supported by this version; {instead}")
        return parsed


def as_text(value: Any) -> str:
    """Return a value as Kafka writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)


def whole(low: int, high: int) -> Callable[[Any], str]:
    """Read a whole number, kept as text."""

    def parse(value: Any) -> str:
        try:
            number = int(as_text(value))
        except ValueError:
            raise ConfigError("expected a whole number") from None
        if not low <= number <= high:
            raise ConfigError(f"expected {low} to {high}")
        return str(number)

    return parse


def boolean(value: Any) -> str:
    """Read true or false, kept as text."""
    text = as_text(value).lower()
    if text not in ("true", "false"):
        raise ConfigError("expected true or false")
    return text


def one_of(*allowed: str) -> Callable[[Any], str]:
    """Read one of a few words."""

    def parse(value: Any) -> str:
        if as_text(value) not in allowed:
            raise ConfigError(f"expected {' or '.join(allowed)}")
        return as_text(value)

    return parse


def typed(field_type: Any) -> Callable[[Any], Any]:
    """Read a value of a config Struct's field; lists may be given as text with commas, or as JSON."""

    def parse(value: Any) -> Any:
        if isinstance(value, str) and field_type not in (str, int, float, bool):
            value = _list_of(value)
        if isinstance(value, str) and field_type is bool:
            return boolean(value) == "true"
        try:
            return msgspec.convert(value, field_type, strict=not isinstance(value, str))
        except msgspec.ValidationError as error:
            raise ConfigError(str(error)) from None

    return parse


def _list_of(text: str) -> Any:
    if text.lstrip().startswith("["):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise ConfigError(f"expected a JSON list: {error}") from None
    return [part.strip() for part in text.split(",") if part.strip()]
