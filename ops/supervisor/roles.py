"""The one place that says what each process of the appliance runs."""

from __future__ import annotations

import msgspec

from ops.supervisor.spec import ProcessSpec

GATEWAYS_STOP, BROKERS_STOP, CONTROLLERS_STOP = 0, 1, 2


class Role(msgspec.Struct, frozen=True):
    """One row; the fields are those of ProcessSpec."""

    entry: str
    config_type: str
    stop_stage: int
    standby: bool = False


ROLES = {
    "controller": Role(
        "brokerd.control.process:run", "brokerd.control.config:ControllerConfig", CONTROLLERS_STOP, standby=True
    ),
    "broker": Role("brokerd.serving.broker:run", "brokerd.config:BrokerConfig", BROKERS_STOP),
    "gateway": Role("edge.mqtt.gateway:run", "edge.mqtt.config:MqttConfig", GATEWAYS_STOP),
    "kafka": Role("edge.kafka.gateway:run", "edge.kafka.config:KafkaConfig", GATEWAYS_STOP),
    "bridge": Role("edge.mqtt.bridge:run", "edge.mqtt.config:BridgeConfig", GATEWAYS_STOP),
    # the monitor goes last: it shows the others' end
    "monitor": Role("ops.metrics.monitor:run", "ops.metrics.config:MonitorConfig", CONTROLLERS_STOP),
}


def process(name: str, role: str, config: msgspec.Struct) -> ProcessSpec:
    """Return the spec of a process of a role."""
    row = ROLES[role]
    return ProcessSpec(
        name=name,
        role=role,
        entry=row.entry,
        config_type=row.config_type,
        config=msgspec.json.encode(config),
        standby=row.standby,
        stop_stage=row.stop_stage,
    )
