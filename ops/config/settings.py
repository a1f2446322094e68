"""All settings with where each comes from: flag over environment over file over default."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from brokerd.control.broker_settings import BROKER_SETTINGS, EffectiveConfigs
from brokerd.control.configs import check_broker_configs
from brokerd.control.limits import CONTROL_LIMITS
from edge.kafka.config import KafkaConfig
from edge.kafka.places import port_of
from edge.mqtt.config import BridgeConfig, MqttConfig, read_secret
from edge.security.listener import ListenerConfig, is_loopback
from edge.security.passwords import read_users
from edge.security.tls import Certificates, trusting
from ingest.errors import ConfigError
from ingest.topic_config import TOPIC_SETTINGS
from ops.config.file import FileValue, read_config_file
from ops.config.setting import SECTIONS, Setting
from ops.config.table import settings

DEFAULT = "default"
PREFIX = "FOREBAY_"
PORT_MAX = 65_535
# what else begins with our name: not settings, and what Docker and Kubernetes make of a service called forebay
_OTHER_VARIABLES = ("FOREBAY_DATA_DIR", "FOREBAY_CONFIG", "FOREBAY_FAILPOINTS", "FOREBAY_REQUIRED_CAPABILITIES")

Key = tuple[str, str]


class Value(msgspec.Struct, frozen=True):
    """A value and where it comes from."""

    value: Any
    source: str


class Settings:
    """Every setting, checked. Immutable once loaded."""

    def __init__(self, values: Mapping[Key, Value], warnings: list[str]) -> None:
        self._values = values
        self.warnings = warnings

    def __getitem__(self, key: Key) -> Any:
        return self._values[key].value

    def items(self) -> Iterable[tuple[Setting, Value]]:
        """Return all in the order they are shown."""
        return [(setting, self._values[key]) for key, setting in settings().items()]

    def is_set(self, key: Key) -> bool:
        return self._values[key].source != DEFAULT

    @property
    def broker_configs(self) -> dict[str, str]:
        """What is set for brokers, under Kafka's names; defaults of topics included."""
        found = {}
        for (section, key), value in self._values.items():
            if value.source != DEFAULT and section == "broker" and key != "brokers":
                found[key] = value.value
            elif value.source != DEFAULT and section == "topic-defaults":
                found[TOPIC_SETTINGS[key].broker_name] = value.value
        return found

    @property
    def cluster_configs(self) -> dict[str, str]:
        """What is set of `broker_configs` that all machines of a cluster have in common."""
        return {name: value for name, value in self.broker_configs.items() if name in BROKER_SETTINGS}

    def mqtt(self, bootstrap: str, **changes: Any) -> MqttConfig:
        return MqttConfig(**{**self._fields("mqtt", MqttConfig), "bootstrap": bootstrap, **changes})

    def bridge(self, bootstrap: str, **changes: Any) -> BridgeConfig:
        return BridgeConfig(**{**self._fields("bridge", BridgeConfig), "bootstrap": bootstrap, **changes})

    def kafka(self, bootstrap: str, **changes: Any) -> KafkaConfig:
        return KafkaConfig(**{**self._fields("kafka", KafkaConfig), "bootstrap": bootstrap, **changes})

    @property
    def log_dirs(self) -> list[Path]:
        return [Path(part.strip()) for part in self["broker", "log.dirs"].split(",") if part.strip()]

    @property
    def zookeeper_session_ms(self) -> int:
        return int(self["broker", "zookeeper.session.timeout.ms"])

    def zookeeper_credentials(self) -> str:
        """Return user:password, "" if none are set.

        Raises:
            ConfigError: the file can't be read, or others may read it.
        """
        path = self["broker", "zookeeper.password.file"]
        return read_secret(path) if path else ""

    def check_files(self) -> None:
        """Check the files that settings name as the processes that read them will.

        Raises:
            ConfigError: one can't be read or used, or others may read a secret.
        """
        self.zookeeper_credentials()
        gateways: list[tuple[str, ListenerConfig]] = []
        if self.has_gateway:
            gateways.append(("mqtt", self.mqtt("")))
        if self.has_kafka:
            gateways.append(("kafka", self.kafka("")))
        for section, gateway in gateways:
            if gateway.tls_port >= 0:
                Certificates(section, gateway)
            if gateway.password_file:
                read_users(Path(gateway.password_file))
        if self.has_bridge:
            bridge = self.bridge("")
            if bridge.password_file:
                read_secret(bridge.password_file)
            if bridge.tls_ca_file:
                trusting(bridge.tls_ca_file)

    @property
    def has_gateway(self) -> bool:
        """Whether there is an MQTT gateway: it is not turned off, and has a port to listen on."""
        return bool(self["mqtt", "enable"]) and (self["mqtt", "port"] >= 0 or self["mqtt", "tls_port"] >= 0)

    @property
    def has_kafka(self) -> bool:
        """Whether there is a Kafka gateway: it has a port to listen on."""
        return bool(self["kafka", "port"] >= 0 or self["kafka", "tls_port"] >= 0)

    @property
    def wants_kafka(self) -> bool:
        """Whether anything is set of the Kafka gateway, which else is there by default."""
        return any(self.is_set(key) for key in self._values if key[0] == "kafka")

    @property
    def has_bridge(self) -> bool:
        enable = self["bridge", "enable"]
        return any(self.is_set(key) for key in self._values if key[0] == "bridge") if enable is None else bool(enable)

    def _fields(self, section: str, config: type[msgspec.Struct]) -> dict[str, Any]:
        names = {field.name for field in msgspec.structs.fields(config)}
        return {key: value.value for (of, key), value in self._values.items() if of == section and key in names}


def load_settings(
    config_file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[Key, tuple[str, Any]] | None = None,
) -> Settings:
    """Merge and check all settings.

    Args:
        flags: By section and key: the flag's name and its value.
    Raises:
        ConfigError: a line for each problem, with its place: file:line, variable or flag.
    """
    loader = _Loader()
    for value in read_config_file(config_file) if config_file else []:
        loader.take_file(value)
    loader.take_environment(environment or {})
    for key, (flag, value) in (flags or {}).items():
        loader.take(key, value, f"flag {flag}", flag)
    loader.check_twice_given()
    values = {key: loader.values.get(key, Value(setting.default, DEFAULT)) for key, setting in settings().items()}
    merged = Settings(values, loader.warnings)
    if not loader.problems:
        loader.check_together(merged, config_file)
    if loader.problems:
        raise ConfigError("\n".join(loader.problems))
    return merged


class _Loader:
    """Collect values and problems, so that one look shows all."""

    def __init__(self) -> None:
        self.values: dict[Key, Value] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def take(self, key: Key, value: Any, source: str, place: str) -> None:
        try:
            self.values[key] = Value(settings()[key].read(value), source)
        except ConfigError as error:
            self.problems.append(f"{place}: {error}")

    def take_file(self, value: FileValue) -> None:
        key = (value.section, value.key)
        if key not in settings() and (value.section, value.key.replace(".", "_")) in settings():
            key = (value.section, value.key.replace(".", "_"))
        if key in settings():
            self.take(key, value.value, f"file {value.place}", value.place)
        else:
            self.problems.append(f"{value.place}: {_unknown(value)}")

    def take_environment(self, environment: Mapping[str, str]) -> None:
        variables = {setting.variable: key for key, setting in settings().items()}
        for variable in sorted(environment):
            if variable in variables:
                self.take(variables[variable], environment[variable], f"environment {variable}", variable)
            elif variable.startswith(PREFIX) and variable not in _OTHER_VARIABLES:
                near = difflib.get_close_matches(variable, variables, n=1, cutoff=0.9)
                if near:  # else it is something else's: Kubernetes sets FOREBAY_SERVICE_HOST for a service forebay
                    self.warnings.append(f"environment: {variable} is no setting; did you mean {near[0]}?")

    def check_twice_given(self) -> None:
        for (section, key), value in self.values.items():
            if section != "topic-defaults":
                continue
            twin = self.values.get(("broker", TOPIC_SETTINGS[key].broker_name))
            if twin is not None and twin.value != value.value:
                self.problems.append(
                    f"{key}={value.value} ({value.source}) and {TOPIC_SETTINGS[key].broker_name}={twin.value} "
                    f"({twin.source}) are the same setting; keep one"
                )

    def check_together(self, merged: Settings, config_file: Path | None) -> None:
        """Check what several settings say together."""
        place = f"{config_file}: " if config_file else ""
        for check in (_check_broker, _check_mqtt, _check_kafka, _check_http, advertised_of):
            try:
                check(merged)
            except ConfigError as error:
                problem = f"{place}{error}"
                if problem not in self.problems:  # two checks may need the same setting
                    self.problems.append(problem)


def listener_of(merged: Settings) -> tuple[str, int] | None:
    """Return host and port of the native listener for other machines, None if there is none.

    Raises:
        ConfigError: it is no tcp://host:port, or open to others without being meant to.
    """
    text = merged["broker", "listeners"]
    if not text:
        return None
    host, port = _host_and_port("listeners", text)
    if not is_loopback(host.strip("[]")) and merged["broker", "allow.insecure.listeners"] != "true":
        raise ConfigError(
            f"listeners={text} is reached from other machines, and this version neither encrypts nor asks who it is; "
            "set allow.insecure.listeners=true (--allow-insecure-listeners) if that network is trusted"
        )
    return host, port


def advertised_of(merged: Settings) -> tuple[str, int] | None:
    """Return host and port that clients on other machines are told, None if there is no listener for them.

    Raises:
        ConfigError: it is no tcp://host:port, or no address that they could reach.
    """
    listener = listener_of(merged)
    text = merged["broker", "advertised.listeners"]
    if listener is None:
        if text:
            raise ConfigError(f"advertised.listeners={text} needs listeners: nothing listens for other machines")
        return None
    host, port = _host_and_port("advertised.listeners", text) if text else listener
    if host.strip("[]") in ("0.0.0.0", "::", "*"):
        raise ConfigError(
            f"listeners={merged['broker', 'listeners']} means every address of this machine; set advertised.listeners="
            "tcp://host:port to the one that clients on other machines reach"
        )
    return host, port


def _host_and_port(key: str, text: str) -> tuple[str, int]:
    host, _, port = text.removeprefix("tcp://").rpartition(":")
    if not text.startswith("tcp://") or not host or not port.isdecimal() or int(port) > PORT_MAX:
        raise ConfigError(f"{key}={text}: expected tcp://host:port, such as tcp://127.0.0.1:9192")
    return host, int(port)


def _check_broker(merged: Settings) -> None:
    check_broker_configs(EffectiveConfigs(merged.broker_configs, {}), CONTROL_LIMITS)
    if (native := listener_of(merged)) and native[1]:
        brokers = int(merged["broker", "brokers"] or 1)
        if not 2 <= native[1] <= PORT_MAX + 1 - 2 * brokers:
            text = merged["broker", "listeners"]
            raise ConfigError(f"listeners={text}: the brokers take the ports from there on, up to {PORT_MAX}")
    for path in merged.log_dirs:
        if not path.is_absolute():
            raise ConfigError(f"log.dirs={merged['broker', 'log.dirs']}: {path} is no absolute path")
    if merged["broker", "zookeeper.connect"] and not merged["broker", "listeners"]:
        raise ConfigError(
            "zookeeper.connect makes this machine one of several, which have to reach it; set listeners=tcp://ADDRESS:9192"
        )


def _check_mqtt(merged: Settings) -> None:
    _check_ports(merged, ("mqtt", "port"), ("mqtt", "tls_port"))
    if merged.has_gateway:
        merged.mqtt("").check()
    if merged.has_bridge:
        merged.bridge("").check()


def _check_kafka(merged: Settings) -> None:
    _check_ports(merged, ("kafka", "port"), ("kafka", "tls_port"))
    if merged.has_kafka:
        merged.kafka("").check()
        highest = port_of(PORT_MAX, 1 - int(merged["broker", "brokers"] or 1))
        for key in ("port", "tls_port"):
            if (port := merged["kafka", key]) > highest:
                raise ConfigError(f"kafka.{key}={port}: brokers take every other port from there on; {highest} at most")


def _check_ports(merged: Settings, *keys: Key) -> None:
    for section, key in keys:
        port = merged[section, key]
        if not -1 <= port <= PORT_MAX:
            raise ConfigError(f"{section}.{key}={port}: expected 0 (any free one) to {PORT_MAX}, or -1 for none")


def _check_http(merged: Settings) -> None:
    _check_ports(merged, ("http", "port"))
    if merged["http", "port"] < 0:
        raise ConfigError("http.port=-1: the monitor needs a port; 0 picks a free one")
    host = merged["http", "host"]
    if not is_loopback(host) and not merged["http", "allow_insecure"]:
        raise ConfigError(
            f"http.host={host} is reached from other machines, and nobody has to log in; "
            "set allow_insecure=true under [http] if that network is trusted"
        )


def _unknown(value: FileValue) -> str:
    """Say what is unknown, and the nearest that is known."""
    if value.section not in SECTIONS:
        name = value.section or value.key
        if not value.section:
            homes = [section for section, key in settings() if key == value.key]
            if homes:
                return f"{value.key} stands outside of a section; move it under [{homes[0]}]"
        near = difflib.get_close_matches(name, SECTIONS, n=1)
        return f"unknown section [{name}]; " + (
            f"did you mean [{near[0]}]?" if near else f"known: {', '.join(SECTIONS)}"
        )
    homes = [section for section, key in settings() if key == value.key and section != value.section]
    if homes:
        return f"{value.key} is no setting of [{value.section}]; it belongs under [{homes[0]}]"
    if value.section == "topic-defaults" and value.key in TOPIC_SETTINGS:
        return f"{value.key} has no default for all topics; set it with: forebay topic create NAME -c {value.key}=…"
    known = [key for section, key in settings() if section == value.section]
    near = difflib.get_close_matches(value.key, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else "; see them all with: forebay config dump"
    return f"unknown key {value.key} in [{value.section}]{hint}"
