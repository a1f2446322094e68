"""The rules of CONNECT and what CONNACK tells. Pure.

Source: MQTT 5.0 sections 3.1 and 3.2; MQTT 3.1.1 sections 3.1 and 3.2.
"""

from __future__ import annotations

from typing import Any

import msgspec

from edge.mqtt.codes import MQTT_5, MQTT_311, Reason
from edge.mqtt.config import MqttConfig
from edge.mqtt.packets import Connect, encode_connack
from edge.mqtt.properties import Property
from edge.mqtt.topics import name_problem

CLIENT_ID_CHARS_MAX = 256


class Refused(msgspec.Struct, frozen=True):
    """Why a client is not let in."""

    reason: Reason
    text: str


def refusal(connect: Connect) -> Refused | None:
    """Tell why a CONNECT can't be accepted, whoever sent it."""
    if connect.version not in (MQTT_311, MQTT_5):
        return Refused(Reason.UNSUPPORTED_PROTOCOL_VERSION, f"protocol version {connect.version}; this is 4 and 5")
    if Property.AUTHENTICATION_METHOD in connect.properties or Property.AUTHENTICATION_DATA in connect.properties:
        return Refused(Reason.BAD_AUTHENTICATION_METHOD, "there is user name and password, no other method")
    if len(connect.client_id) > CLIENT_ID_CHARS_MAX:
        return Refused(Reason.CLIENT_IDENTIFIER_NOT_VALID, f"a client id of more than {CLIENT_ID_CHARS_MAX} characters")
    if not connect.client_id and connect.version == MQTT_311 and not connect.clean_start:
        return Refused(Reason.CLIENT_IDENTIFIER_NOT_VALID, "an empty client id needs a clean session")  # MQTT-3.1.3-8
    if connect.will is not None and (problem := name_problem(connect.will.topic)):
        return Refused(Reason.TOPIC_NAME_INVALID, f"will: {problem}")
    return None


def client_id_refusal(client_id: str, user: str | None, config: MqttConfig) -> Refused | None:
    """Tell why a user may not have this client id."""
    if config.client_id_of_user == "any" or user is None:
        return None
    bound = client_id == user
    if config.client_id_of_user == "prefix":
        bound |= client_id.startswith((user + "-", user + ":", user + "/"))
    return None if bound else Refused(Reason.CLIENT_IDENTIFIER_NOT_VALID, "this client id belongs to another user")


def accepting_connack(connect: Connect, config: MqttConfig, *, present: bool, assigned_id: str = "") -> bytes:
    """Encode the CONNACK of a client that is let in, with the limits it has to keep."""
    if connect.version == MQTT_311:
        return encode_connack(MQTT_311, Reason.SUCCESS, present=present)
    properties: dict[Property, Any] = {
        Property.RECEIVE_MAXIMUM: config.receive_maximum,
        Property.MAXIMUM_PACKET_SIZE: config.packet_bytes_max,
        Property.WILDCARD_SUBSCRIPTION_AVAILABLE: 0,
        Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE: 0,
        Property.SHARED_SUBSCRIPTION_AVAILABLE: 0,
    }
    if config.topic_alias_maximum:
        properties[Property.TOPIC_ALIAS_MAXIMUM] = config.topic_alias_maximum
    if connect.properties.get(Property.SESSION_EXPIRY_INTERVAL, 0) > config.session_expiry_s_max:
        properties[Property.SESSION_EXPIRY_INTERVAL] = config.session_expiry_s_max
    if assigned_id:
        properties[Property.ASSIGNED_CLIENT_IDENTIFIER] = assigned_id
    return encode_connack(MQTT_5, Reason.SUCCESS, present=present, properties=properties)


def refusing_connack(version: int, refused: Refused) -> bytes:
    """Encode the CONNACK of a client that is not let in; empty: just close."""
    if version <= MQTT_311:
        return encode_connack(MQTT_311, refused.reason)
    return encode_connack(MQTT_5, refused.reason, properties={Property.REASON_STRING: refused.text[:200]})
