"""Devices that fail, and the detector that notices; payloads in between."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.records.columns import decode_columns, encode_columns
from ops.demo.detector import Detector
from ops.demo.device import SENSORS, Device
from ops.demo.payload import PAYLOAD_BYTES, Readings, encode_payload

RATE = 20.0


def readings(payloads: list[bytes]) -> Readings:
    return Readings(decode_columns(encode_columns([0] * len(payloads), None, payloads), len(payloads), 0).values)


@given(
    st.integers(0, 99_999),
    st.integers(0, 10**9 - 1),
    st.sampled_from(SENSORS),
    st.floats(-9e4, 9e4),
    st.integers(0, 2**53),
)
def test_a_payload_is_json_and_reads_back_as_columns(
    device: int, seq: int, sensor: str, value: float, sent_us: int
) -> None:
    payload = encode_payload(device, seq, sensor, value, sent_us)
    assert len(payload) == PAYLOAD_BYTES
    assert json.loads(payload) == {
        "device": f"dev-{device:05d}",
        "seq": seq,
        "sensor": sensor,
        "value": pytest.approx(value, abs=5e-4),
        "sent_us": sent_us,
    }
    columns = readings([payload])
    assert (columns.devices[0], columns.seqs[0], SENSORS[columns.sensors[0]]) == (device, seq, sensor)
    assert columns.values[0] == pytest.approx(value, abs=5e-4)


def test_other_payloads_are_refused() -> None:
    with pytest.raises(ValueError, match="column"):
        readings([b"hello"])


def run(seconds: float, devices: int, seed: int) -> tuple[Detector, dict[str, int]]:
    """Let devices measure, batch by batch, and return what was found and what was simulated."""
    dice = random.Random(seed)
    fleet = [Device(number, random.Random(dice.random()), RATE) for number in range(devices)]
    detector = Detector(devices, RATE)
    now_s = 0.0
    while now_s < seconds:
        batch = []
        for _ in range(5):
            now_s += 1 / RATE
            for number, device in enumerate(fleet):
                reading = device.read(now_s)
                if reading is not None:
                    batch.append(encode_payload(number, 0, reading.sensor, reading.value, 0))
        detector.add(readings(batch), now_s)
        detector.tick(now_s)
    return detector, {kind: sum(device.faults[kind] for device in fleet) for kind in detector.found}


@pytest.mark.parametrize("seed", range(6))
def test_most_faults_are_found_and_hardly_any_is_made_up(seed: int) -> None:
    detector, simulated = run(120, 20, seed)
    for kind, count in simulated.items():
        assert count * 0.6 <= detector.found[kind] <= count + 2, (kind, detector.found, simulated)


def test_a_device_without_faults_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.demo.device.FAULT_EVERY_S", float("inf"))
    assert run(120, 20, 1)[0].found == {"spike": 0, "stuck": 0, "dropout": 0}


def test_a_sensor_that_is_stuck_from_the_start_is_not_mistaken_for_ever_after() -> None:
    detector = Detector(1, RATE)
    dice = random.Random(1)
    for number in range(400):
        value = 40.0 if number < 30 else 40 + dice.gauss(0, 0.2)
        detector.add(readings([encode_payload(0, 0, SENSORS[0], value, 0)]), number / RATE)
    assert detector.found["stuck"] == 1
    assert detector.found["spike"] < 10


def test_records_that_come_late_are_not_the_devices_fault() -> None:
    detector = Detector(1, RATE)
    values: Any = np.array([1.0])
    sample = readings([encode_payload(0, 0, SENSORS[0], values[0], 0)])
    detector.tick(50.0)  # never heard of: not silent
    detector.add(sample, 0.0)
    detector.excuse(100.0)
    detector.tick(101.0)
    assert detector.found["dropout"] == 0
    detector.tick(103.0)
    detector.tick(104.0)
    assert detector.found["dropout"] == 1
