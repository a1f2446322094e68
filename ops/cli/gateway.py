"""`forebay gateway`: a gateway or bridge alone, on another machine than the log; users of gateways."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from ops.cli.options import config_option
from ops.cli.reached import bootstrap_option, reported, resolve_bootstrap


@click.group()
def gateway() -> None:
    """Run a gateway alone, on another machine than the log, and keep its users.

    \b
      forebay gateway run mqtt --bootstrap tcp://log.example:9192
      forebay gateway run kafka --bootstrap tcp://log.example:9192
      forebay gateway passwd /etc/forebay/users alice
    """


@gateway.group()
def run() -> None:
    """Run a gateway here until Ctrl-C or SIGTERM."""


@run.command()
@bootstrap_option
@config_option
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(-1, 65535), help="0: any free one; -1: none.  [default: 1883]")
@click.option("--tls-port", type=click.IntRange(-1, 65535), help="For TLS, usually 8883.  [default: none]")
@click.option("--tls-cert-file", metavar="FILE", help="The server's certificate, PEM.")
@click.option("--tls-key-file", metavar="FILE", help="Its key, mode 0600.")
@click.option("--tls-client-ca-file", metavar="FILE", help="Only clients with a certificate of these may connect.")
@click.option("--password-file", metavar="FILE", help="Users; see `forebay gateway passwd`.")
@click.option("--allow-insecure", is_flag=True, default=None, help="Listen beyond loopback without passwords or TLS.")
def mqtt(data_dir: str | None, bootstrap: str | None, config_file: Path | None, **options: Any) -> None:
    """Take messages from MQTT devices: 3.1.1 and 5, QoS 0, 1 and 2. PUBACK means that the record is in the log.

    Settings stand under [mqtt] in the file, and mapping rules there as well.
    """
    with reported():
        settings = _settings("mqtt", config_file, options)
        from edge.mqtt.gateway import run as run_gateway

        run_gateway(settings.mqtt(resolve_bootstrap(data_dir, bootstrap)), _Alone("mqtt"))


@run.command()
@bootstrap_option
@config_option
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(-1, 65535), help="The first broker's; -1: none.  [default: 9092]")
@click.option("--tls-port", type=click.IntRange(-1, 65535), help="The same for TLS, usually 9093.  [default: none]")
@click.option("--tls-cert-file", metavar="FILE", help="The server's certificate, PEM.")
@click.option("--tls-key-file", metavar="FILE", help="Its key, mode 0600.")
@click.option("--tls-client-ca-file", metavar="FILE", help="Only clients with a certificate of these may connect.")
@click.option("--password-file", metavar="FILE", help="Users, who log in by SASL; see `forebay gateway passwd`.")
@click.option("--advertised-host", help="Where clients are told to connect to.  [default: where they have connected]")
@click.option("--advertised-port", type=click.IntRange(0, 65535), help="The same of the first broker's port.")
@click.option("--advertised-tls-port", type=click.IntRange(0, 65535), help="And of its port for TLS.")
@click.option("--allow-insecure", is_flag=True, default=None, help="Listen beyond loopback without passwords or TLS.")
def kafka(data_dir: str | None, bootstrap: str | None, config_file: Path | None, **options: Any) -> None:
    """Serve Kafka's clients: every broker is found here, each at a port of its own, two above the one before.

    Settings stand under [kafka] in the file.
    """
    with reported():
        settings = _settings("kafka", config_file, options)
        from edge.kafka.gateway import run as run_gateway

        run_gateway(settings.kafka(resolve_bootstrap(data_dir, bootstrap)), _Alone("kafka"))


@run.command(name="mqtt-bridge")
@bootstrap_option
@config_option
@click.option("--host", help="The MQTT broker.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65535), help="Its port.  [default: 1883]")
@click.option("--user", help="User name at the broker.")
@click.option("--password-file", metavar="FILE", help="The password alone, mode 0600.")
@click.option("--tls-ca-file", metavar="FILE", help="Use TLS, and trust these.")
@click.option("--filter", "filters", multiple=True, metavar="FILTER", help="What to subscribe to.  [default: #]")
@click.option("--client-id", help="Fixed: the broker keeps its session.  [default: forebay-bridge]")
@click.option("--state-dir", default="", metavar="DIR", help="Where to note that the broker holds a session.")
def mqtt_bridge(
    data_dir: str | None, bootstrap: str | None, config_file: Path | None, state_dir: str, **options: Any
) -> None:
    """Take messages from an MQTT broker that already runs; each is acknowledged once it is in the log."""
    with reported():
        options["filters"] = list(options["filters"]) or None
        settings = _settings("bridge", config_file, options)
        from edge.mqtt.bridge import run as run_bridge

        run_bridge(settings.bridge(resolve_bootstrap(data_dir, bootstrap), state_dir=state_dir), _Alone("mqtt-bridge"))


@gateway.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("user")
@click.option("--delete", is_flag=True, help="Take the user out.")
def passwd(file: Path, user: str, delete: bool) -> None:
    """Add USER to the password file FILE, or change the password; asked for, or read from standard input.

    A running gateway uses the change at the next login.
    """
    from edge.security.passwords import remove_user, set_password

    with reported():
        if delete:
            remove_user(file, user)
            click.echo(f"{user} may not log in any more")
            return
        if sys.stdin.isatty():
            password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        else:
            password = sys.stdin.readline().rstrip("\n")
        if not password:
            raise click.UsageError("the password is empty")
        set_password(file, user, password.encode())
        click.echo(f"{user} may log in; the gateway needs password_file={str(file)!r}")


def _settings(section: str, config_file: Path | None, options: dict[str, Any]) -> Any:
    from ops.config.paths import default_config_file
    from ops.config.settings import load_settings

    flags = {
        (section, name): ("--" + name.replace("_", "-"), value) for name, value in options.items() if value is not None
    }
    return load_settings(config_file or default_config_file(), environment=os.environ, flags=flags)


class _Alone:
    """Implement ingest.lifeline.Lifeline for a process without a supervisor: a signal stops it. Thread: any."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stats: Callable[[], msgspec.Struct] | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os.eventfd_write(self._stop, 1))
        signal.signal(signal.SIGUSR1, lambda *_: self._say())

    @property
    def stop_fd(self) -> int:
        return self._stop

    def beat(self) -> None:
        pass

    def ready(self) -> None:
        click.echo(f"{self._name} is ready; Ctrl-C stops it, SIGUSR1 shows what it counted", err=True)
        self._say()

    def serve_stats(self, stats: Callable[[], msgspec.Struct]) -> None:
        self._stats = stats

    def _say(self) -> None:
        if self._stats is not None:
            click.echo(msgspec.json.encode(self._stats()).decode())
