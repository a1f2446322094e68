"""A simulated device: what it measures, and how it fails now and then. Pure: time and dice are given."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

FAULT_EVERY_S = 60.0  # of one device, on average
LASTING_S = 3.0  # stuck and dropout, or so many readings where a device measures seldom
LASTING_READINGS = 40
DRIFT = 0.01
SPIKE_SIGMAS = 25.0
TEMPERATURE, VIBRATION = "temperature", "vibration"
SENSORS = (TEMPERATURE, VIBRATION)
_NOISE = {TEMPERATURE: 0.2, VIBRATION: 0.05}
FAULTS = ("spike", "stuck", "dropout")


class Reading(NamedTuple):
    """One measurement: degrees Celsius, or millimetres a second."""

    sensor: str
    value: float


class Device:
    """Measure temperature and vibration in turn.

    Args:
        readings_per_s: How often it is asked.

    Attributes:
        faults: How many of each kind have begun.
    """

    def __init__(self, number: int, dice: random.Random, readings_per_s: float) -> None:
        self._dice = dice
        self._lasting_s = max(LASTING_S, LASTING_READINGS / readings_per_s)
        self._phase = dice.uniform(0, 2 * math.pi)
        self._base = {TEMPERATURE: dice.uniform(35, 65), VIBRATION: dice.uniform(1, 4)}
        self._turn = number
        self._last_s = 0.0
        self._fault = ""
        self._fault_ends_s = 0.0
        self._stuck = dice.choice(SENSORS)  # the sensor that gets stuck, if one does
        self._held = self._base[self._stuck]
        self.faults = dict.fromkeys(FAULTS, 0)

    def read(self, now_s: float) -> Reading | None:
        """Measure; None: the device says nothing now.

        Args:
            now_s: Seconds since the fleet began; never less than before.
        """
        elapsed_s, self._last_s = now_s - self._last_s, now_s
        if self._fault and now_s >= self._fault_ends_s:
            self._fault = ""
        if not self._fault and self._dice.random() < elapsed_s / FAULT_EVERY_S:
            self._begin(self._dice.choice(FAULTS), now_s)
        if self._fault == "dropout":
            return None
        self._turn += 1
        sensor = SENSORS[self._turn % len(SENSORS)]
        if self._fault == "stuck" and sensor == self._stuck:
            return Reading(sensor, self._held)
        value = self._base[sensor] * (1 + DRIFT * math.sin(self._phase + now_s / 20)) + self._dice.gauss(
            0, _NOISE[sensor]
        )
        if self._fault == "spike":
            value += SPIKE_SIGMAS * _NOISE[sensor]
            self._fault = ""
        if sensor == self._stuck:
            self._held = value
        return Reading(sensor, value)

    def _begin(self, fault: str, now_s: float) -> None:
        self._fault = fault
        self._fault_ends_s = math.inf if fault == "spike" else now_s + self._lasting_s
        self.faults[fault] += 1
