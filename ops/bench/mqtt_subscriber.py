"""The one subscriber of the MQTT benchmark's peer: receives everything at QoS 1, as cheaply as Python can.

All messages have one length, so that numpy finds their packet ids; it ends a second after the last one.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from typing import Any

import numpy as np

from ops.bench.mqtt_worker import connect, publish_packet, subscribe_all, topic_of

QUIET_S = 1.0


def main(arguments: dict[str, Any]) -> dict[str, Any]:
    connection = connect(arguments["host"], arguments["port"], b"bench-subscriber")
    subscribe_all(connection)
    connection.recv(5)  # SUBACK
    print("subscribed", flush=True)
    length = len(publish_packet(topic_of(0), 1, arguments["size"]))
    id_at = length - arguments["size"] - 2
    left, received, last = b"", 0, time.monotonic()
    connection.settimeout(QUIET_S)
    while True:
        try:
            data = connection.recv(1 << 20)
        except TimeoutError:
            if received:
                break
            continue
        if not data:
            break
        last = time.monotonic()
        left += data
        count = len(left) // length
        if count:
            packets = np.frombuffer(left, np.uint8, count * length).reshape(count, length)
            acks = np.empty((count, 4), np.uint8)
            acks[:, 0], acks[:, 1] = 0x40, 2
            acks[:, 2:] = packets[:, id_at : id_at + 2]
            left = left[count * length :]
            received += count
            _send_all(connection, acks.tobytes())
    return {"received": received, "last_monotonic_s": last}


def _send_all(connection: socket.socket, data: bytes) -> None:
    connection.settimeout(10)
    connection.sendall(data)
    connection.settimeout(QUIET_S)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
