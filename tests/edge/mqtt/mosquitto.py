"""A mosquitto of the test's own, with the settings docs/operating/mqtt.md asks for."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.machine import program
from tests.processes import Processes

SECONDS = 10

DOCS = Path(__file__).parents[3] / "docs" / "operating" / "mqtt.md"


def shipped_config() -> str:
    """Return the mosquitto.conf that the documentation tells people to use."""
    return DOCS.read_text().split("```conf\n")[1].split("```")[0]


class Mosquitto:
    """Thread: the test's."""

    def __init__(self, processes: Processes, folder: Path, port: int) -> None:
        self._processes = processes
        self.port = port
        self._path = folder / "mosquitto.conf"
        config = shipped_config()
        assert "listener 1883\n" in config
        config = config.replace("listener 1883", f"listener {port} 127.0.0.1")
        config = config.replace("/var/lib/mosquitto/", f"{folder}/")
        user = "user root\n" if folder.owner() == "root" else ""
        self._path.write_text(f"{config}allow_anonymous true\n{user}")
        self.start()

    def start(self) -> None:
        path = program("mosquitto")
        assert path is not None
        self.process = self._processes.start(
            [path, "-c", str(self._path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert time.monotonic() < deadline, "mosquitto does not listen"
            assert self.process.poll() is None, "mosquitto ended"
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def publish(self, messages: Sequence[tuple[str, bytes]], *, qos: int = 1, **options: Any) -> None:
        """Publish and wait until the broker has acknowledged everything."""
        client = paho.Client(CallbackAPIVersion.VERSION2)
        connected = threading.Event()
        client.on_connect = lambda *_: connected.set()
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        assert connected.wait(SECONDS)
        sent = [client.publish(topic, payload, qos=qos, **options) for topic, payload in messages]
        for message in sent:
            message.wait_for_publish(SECONDS)
        client.disconnect()
        client.loop_stop()
