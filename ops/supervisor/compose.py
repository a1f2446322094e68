"""Compose an appliance: which processes, with which configs and ports. Pure, but for the settings' own checks."""

from __future__ import annotations

from pathlib import Path

import msgspec

from brokerd.config import BrokerConfig
from brokerd.control.config import ControllerConfig
from ingest.errors import ConfigError
from ops.config.settings import Settings, advertised_of, listener_of
from ops.metrics.config import MonitorConfig
from ops.supervisor.ports import Listener
from ops.supervisor.roles import process
from ops.supervisor.spec import ProcessSpec

CONTROLLERS = ("controller-1", "controller-2")
GATEWAY, BRIDGE, MONITOR = "mqtt", "bridge", "monitor"
DEFAULT_BROKERS_MAX = 2


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where the appliance is, and who."""

    data_dir: Path
    run_dir: Path
    page_dir: Path
    cluster_id: str
    machine: str

    def endpoint(self, broker_id: int) -> str:
        return f"ipc://{self.run_dir}/broker-{broker_id}.sock"

    def peer_endpoint(self, broker_id: int) -> str:
        return f"ipc://{self.run_dir}/broker-{broker_id}-peer.sock"

    @property
    def controller_endpoint(self) -> str:
        return f"ipc://{self.run_dir}/controller.sock"


def choose_broker_count(settings: Settings, on_disk: int, cores: int) -> int:
    """Return how many brokers to run: what is asked for, else as many as there were, else by cores.

    Raises:
        ConfigError: fewer than there were: what the others hold would be out of reach.
    """
    asked = settings["broker", "brokers"]
    if not asked:
        return on_disk or max(1, min(cores, DEFAULT_BROKERS_MAX))
    if int(asked) < on_disk:
        raise ConfigError(
            f"--brokers {asked}: the directory holds the data of {on_disk} brokers, and what the others keep would be "
            f"out of reach; use --brokers {on_disk} or leave it out"
        )
    return int(asked)


def process_names(settings: Settings, brokers: int) -> list[str]:
    """Return the names of all processes."""
    names = [*CONTROLLERS, *(f"broker-{broker_id}" for broker_id in range(1, brokers + 1)), MONITOR]
    if settings.has_gateway:
        names.append(GATEWAY)
    if settings.has_bridge:
        names.append(BRIDGE)
    return names


def listeners(settings: Settings, brokers: int) -> list[Listener]:
    """Return the ports that are asked for."""
    found = []
    if settings.has_gateway:
        host = settings["mqtt", "host"]
        found.append(Listener("mqtt", GATEWAY, host, settings["mqtt", "port"], "--mqtt-port"))
        found.append(Listener("mqtts", GATEWAY, host, settings["mqtt", "tls_port"], "tls_port under [mqtt]"))
    found.append(Listener("http", MONITOR, settings["http", "host"], settings["http", "port"], "--http-port"))
    native = listener_of(settings)
    if native is not None:
        host, port = native
        for broker_id in range(1, brokers + 1):
            own = _port_of(broker_id, port)
            found.append(Listener(_tcp_name(broker_id), f"broker-{broker_id}", host, own, "listeners under [broker]"))
    return found


def compose(settings: Settings, site: Site, brokers: int, ports: dict[str, int]) -> list[ProcessSpec]:
    """Return the processes; controllers and brokers first."""
    configs = settings.broker_configs
    controller = ControllerConfig(
        directory=str(site.data_dir / "controller"),
        cluster_id=site.cluster_id,
        endpoint=site.controller_endpoint,
        broker_configs=configs,
    )
    specs = [process(name, "controller", controller) for name in CONTROLLERS]
    for broker_id in range(1, brokers + 1):
        specs.append(process(f"broker-{broker_id}", "broker", _broker(settings, site, broker_id, ports)))
    expected = [spec.name for spec in specs]
    bootstrap = str(site.data_dir)
    if settings.has_gateway:
        gateway = settings.mqtt(bootstrap, port=ports.get("mqtt", -1), tls_port=ports.get("mqtts", -1))
        specs.append(process(GATEWAY, "gateway", gateway))
        expected.append(GATEWAY)
    if settings.has_bridge:
        specs.append(process(BRIDGE, "bridge", settings.bridge(bootstrap, state_dir=str(site.data_dir / "mqtt"))))
        expected.append(BRIDGE)
    monitor = MonitorConfig(
        run_dir=str(site.run_dir),
        cluster_id=site.cluster_id,
        expected=expected,
        http_host=settings["http", "host"],
        http_port=ports["http"],
        scrape_ms=settings["http", "scrape_ms"],
        topics_max=settings["http", "topics_max"],
    )
    return [*specs, process(MONITOR, "monitor", monitor)]


def _broker(settings: Settings, site: Site, broker_id: int, ports: dict[str, int]) -> BrokerConfig:
    tcp_endpoint = advertised = ""
    if (native := listener_of(settings)) and (told := advertised_of(settings)):
        bound = ports[_tcp_name(broker_id)]
        tcp_endpoint = f"tcp://{native[0]}:{bound}"
        advertised = f"tcp://{told[0]}:{_port_of(broker_id, told[1]) or bound}"
    return BrokerConfig(
        broker_id=broker_id,
        cluster_id=site.cluster_id,
        log_dir=str(site.data_dir / "brokers" / str(broker_id)),
        page_path=str(site.page_dir / f"broker-{broker_id}.page"),
        failed_dir=str(site.data_dir / "failed"),
        endpoint=site.endpoint(broker_id),
        peer_endpoint=site.peer_endpoint(broker_id),
        site=site.cluster_id,
        controller_endpoint=site.controller_endpoint,
        machine=site.machine,
        tcp_endpoint=tcp_endpoint,
        advertised_tcp_endpoint=advertised,
        rack=settings["broker", "broker.rack"],
        local_read=settings["broker", "local.read"],
        auto_create_topics_enable=settings["broker", "auto.create.topics.enable"] == "true",
        request_bytes_max=int(settings["broker", "socket.request.max.bytes"]),
        broker_configs=settings.broker_configs,
    )


def _port_of(broker_id: int, first: int) -> int:
    """Return a broker's own of the ports that begin at `first`; the odd ones are for traffic between brokers."""
    return first + 2 * (broker_id - 1) if first else 0


def _tcp_name(broker_id: int) -> str:
    return "tcp" if broker_id == 1 else f"tcp-{broker_id}"
