"""Compose an appliance: which processes, with which configs and ports. Pure, but for the settings' own checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from brokerd.config import BrokerConfig
from brokerd.control.config import ControllerConfig
from edge.kafka.places import port_of, protocol_of
from edge.security.listener import is_loopback
from ops.config.settings import Settings, advertised_of, listener_of
from ops.metrics.config import MonitorConfig
from ops.supervisor.membership import Member
from ops.supervisor.ports import Listener
from ops.supervisor.roles import process
from ops.supervisor.spec import ProcessSpec

CONTROLLERS = ("controller-1", "controller-2")
GATEWAY, BRIDGE, KAFKA, MONITOR = "mqtt", "bridge", "kafka", "monitor"
ANY_HOST = ("0.0.0.0", "::")
CONTROLLER_TCP = "controller"  # a listener's name
KAFKA_TLS = "kafkas"
_KAFKA_KEYS = {KAFKA: "port", KAFKA_TLS: "tls_port"}  # with advertised_ in front: what clients are told
PORTS_A_BROKER = 2  # clients', then other brokers'; the one below the first broker's is the controller's


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where the appliance is, and who. `machine` is the boot id."""

    data_dir: Path
    run_dir: Path
    page_dir: Path
    machine: str
    member: Member

    def endpoint(self, broker_id: int) -> str:
        return f"ipc://{self.run_dir}/broker-{broker_id}.sock"

    def peer_endpoint(self, broker_id: int) -> str:
        return f"ipc://{self.run_dir}/broker-{broker_id}-peer.sock"

    @property
    def controller_endpoint(self) -> str:
        return f"ipc://{self.run_dir}/controller.sock"


def process_names(settings: Settings, broker_ids: Sequence[int]) -> list[str]:
    """Return the names of all processes."""
    names = [*CONTROLLERS, *(f"broker-{broker_id}" for broker_id in broker_ids), MONITOR]
    if settings.has_gateway:
        names.append(GATEWAY)
    if settings.has_bridge:
        names.append(BRIDGE)
    if settings.has_kafka:
        names += kafka_names(settings)
    return names


def kafka_names(settings: Settings) -> tuple[str, ...]:
    """Return the names of the Kafka gateway's processes, which listen on the same ports."""
    return (KAFKA, *(f"{KAFKA}-{number}" for number in range(2, settings["kafka", "processes"] + 1)))


def listeners(settings: Settings, broker_ids: Sequence[int]) -> list[Listener]:
    """Return the ports that are asked for."""
    found = []
    if settings.has_gateway:
        host = settings["mqtt", "host"]
        found.append(Listener("mqtt", (GATEWAY,), host, settings["mqtt", "port"], "--mqtt-port"))
        found.append(Listener("mqtts", (GATEWAY,), host, settings["mqtt", "tls_port"], "tls_port under [mqtt]"))
    if settings.has_kafka:
        names, host = kafka_names(settings), settings["kafka", "host"]
        for kind, setting in ((KAFKA, "--kafka-port"), (KAFKA_TLS, "tls_port under [kafka]")):
            first = settings["kafka", _KAFKA_KEYS[kind]]
            for index, broker_id in enumerate(broker_ids if first >= 0 else ()):
                name, what = _kafka_name(kind, index, broker_id), setting + (", the first broker's" if index else "")
                port, optional = port_of(first, index), not settings.wants_kafka
                found.append(Listener(name, names, host, port, what, optional=optional))
    found.append(Listener("http", (MONITOR,), settings["http", "host"], settings["http", "port"], "--http-port"))
    native = listener_of(settings)
    if native is not None:
        host, port = native
        several = bool(settings["broker", "zookeeper.connect"])
        setting = "listeners under [broker]"
        if several:
            found.append(Listener(CONTROLLER_TCP, CONTROLLERS, host, _port(port, -1), setting))
        for index, broker_id in enumerate(broker_ids):
            name, first = f"broker-{broker_id}", PORTS_A_BROKER * index
            found.append(Listener(_tcp_name(index), (name,), host, _port(port, first), setting))
            if several:
                found.append(Listener(_peer_name(index), (name,), host, _port(port, first + 1), setting))
    return found


def compose(settings: Settings, site: Site, ports: dict[str, int]) -> list[ProcessSpec]:
    """Return the processes; controllers and brokers first."""
    controller = _controller(settings, site, ports)
    specs = [process(name, "controller", controller) for name in CONTROLLERS]
    for index, broker_id in enumerate(site.member.broker_ids):
        specs.append(process(f"broker-{broker_id}", "broker", _broker(settings, site, index, ports)))
    expected = [spec.name for spec in specs]
    bootstrap = str(site.data_dir)
    if settings.has_gateway:
        gateway = settings.mqtt(bootstrap, port=ports.get("mqtt", -1), tls_port=ports.get("mqtts", -1))
        specs.append(process(GATEWAY, "gateway", gateway))
        expected.append(GATEWAY)
    if settings.has_bridge:
        specs.append(process(BRIDGE, "bridge", settings.bridge(bootstrap, state_dir=str(site.data_dir / "mqtt"))))
        expected.append(BRIDGE)
    if KAFKA in ports or KAFKA_TLS in ports:
        kafka = settings.kafka(
            bootstrap,
            port=ports.get(KAFKA, -1),
            broker_ports=_kafka_ports(KAFKA, site, ports),
            tls_port=ports.get(KAFKA_TLS, -1),
            broker_tls_ports=_kafka_ports(KAFKA_TLS, site, ports),
        )
        specs += [process(name, "kafka", kafka) for name in kafka_names(settings)]
        expected += kafka_names(settings)
    monitor = MonitorConfig(
        run_dir=str(site.run_dir),
        cluster_id=site.member.cluster_id,
        expected=expected,
        http_host=settings["http", "host"],
        http_port=ports["http"],
        scrape_ms=settings["http", "scrape_ms"],
        topics_max=settings["http", "topics_max"],
        groups_max=settings["http", "groups_max"],
        bootstrap=bootstrap,
    )
    return [*specs, process(MONITOR, "monitor", monitor)]


def _controller(settings: Settings, site: Site, ports: dict[str, int]) -> ControllerConfig:
    endpoint, advertised = _endpoints(settings, CONTROLLER_TCP, -1, ports)
    zookeeper = site.member.zookeeper
    if zookeeper:
        ids = enumerate(site.member.broker_ids)
        kafka = {broker_id: _kafka_endpoints(settings, index, broker_id, ports) for index, broker_id in ids}
        zookeeper = msgspec.structs.replace(zookeeper, kafka_endpoints=kafka)
    return ControllerConfig(
        directory=str(site.data_dir / "controller"),
        cluster_id=site.member.cluster_id,
        endpoint=site.controller_endpoint,
        tcp_endpoint=endpoint,
        advertised_tcp_endpoint=advertised,
        # one file for the machine is one for the cluster; several machines have their settings in the store
        broker_configs={} if zookeeper else settings.broker_configs,
        zookeeper=zookeeper,
    )


def _broker(settings: Settings, site: Site, index: int, ports: dict[str, int]) -> BrokerConfig:
    broker_id = site.member.broker_ids[index]
    first = PORTS_A_BROKER * index
    tcp_endpoint, advertised = _endpoints(settings, _tcp_name(index), first, ports)
    peer_tcp_endpoint, advertised_peer = _endpoints(settings, _peer_name(index), first + 1, ports)
    return BrokerConfig(
        broker_id=broker_id,
        cluster_id=site.member.cluster_id,
        log_dir=str((site.data_dir / "brokers" / str(broker_id)).resolve()),  # a link where log.dirs says so
        page_path=str(site.page_dir / f"broker-{broker_id}.page"),
        failed_dir=str(site.data_dir / "failed"),
        endpoint=site.endpoint(broker_id),
        peer_endpoint=site.peer_endpoint(broker_id),
        site=site.member.site,
        controller_endpoint=site.controller_endpoint,
        machine=site.machine,
        tcp_endpoint=tcp_endpoint,
        advertised_tcp_endpoint=advertised,
        peer_tcp_endpoint=peer_tcp_endpoint,
        advertised_peer_tcp_endpoint=advertised_peer,
        kafka_endpoints=_kafka_endpoints(settings, index, broker_id, ports),
        rack=settings["broker", "broker.rack"],
        local_read=settings["broker", "local.read"],
        auto_create_topics_enable=settings["broker", "auto.create.topics.enable"] == "true",
        request_bytes_max=int(settings["broker", "socket.request.max.bytes"]),
    )


def _endpoints(settings: Settings, name: str, offset: int, ports: dict[str, int]) -> tuple[str, str]:
    """Return where a listener for other machines binds and what those are told, "" twice if there is none."""
    native, told = listener_of(settings), advertised_of(settings)
    if name not in ports or native is None or told is None:
        return "", ""
    return f"tcp://{native[0]}:{ports[name]}", f"tcp://{told[0]}:{_port(told[1], offset) or ports[name]}"


def _kafka_endpoints(settings: Settings, index: int, broker_id: int, ports: dict[str, int]) -> list[str]:
    """Return where clients on other machines find a broker by this one's Kafka gateway; none if they don't reach it."""
    host, found = kafka_host(settings), []
    for kind, key in _KAFKA_KEYS.items():
        name = _kafka_name(kind, index, broker_id)
        if name in ports and host:
            protocol = protocol_of(sasl=bool(settings["kafka", "password_file"]), tls=kind == KAFKA_TLS)
            port = port_of(settings["kafka", f"advertised_{key}"], index) or ports[name]
            found.append(f"{protocol}://{host}:{port}")
    return found


def _kafka_ports(kind: str, site: Site, ports: dict[str, int]) -> dict[int, int]:
    """Return the ports of this machine's brokers, of one kind; none if there is no such listener."""
    ids = enumerate(site.member.broker_ids if kind in ports else ())
    return {broker_id: ports[_kafka_name(kind, index, broker_id)] for index, broker_id in ids}


def kafka_host(settings: Settings) -> str:
    """Return the address by which other machines reach the Kafka gateway, "" if they don't."""
    if settings["kafka", "advertised_host"]:
        return str(settings["kafka", "advertised_host"])
    bound, native, told = str(settings["kafka", "host"]), listener_of(settings), advertised_of(settings)
    with_brokers = native is not None and bound in (*ANY_HOST, native[0].strip("[]"))
    if with_brokers and told and is_loopback(bound) == is_loopback(told[0].strip("[]")):
        return told[0]  # where they reach the brokers
    return "" if bound in ANY_HOST or is_loopback(bound) else bound


def _port(first: int, offset: int) -> int:
    """Return one of the ports around the first broker's; 0 stays any free one."""
    return first + offset if first else 0


def _kafka_name(kind: str, index: int, broker_id: int) -> str:
    return f"{kind}-broker-{broker_id}" if index else kind


def _tcp_name(index: int) -> str:
    return f"tcp-{index + 1}" if index else "tcp"


def _peer_name(index: int) -> str:
    return f"peer-{index + 1}" if index else "peer"
