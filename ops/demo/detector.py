"""A small anomaly detector over columns: spikes, stuck sensors, silent devices. Pure; numpy, no object per record."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ops.demo.device import SENSORS
from ops.demo.payload import Readings

SPIKE_SIGMAS = 10.0
SIGMA_MIN = 0.001  # of the mean: a sensor that was stuck has no deviation left to judge by
STUCK_READINGS = 12  # equal to three decimals that often by chance: never, the noise is 50 times wider
SILENT_SECONDS = 2.0
SILENT_READINGS = 30  # a slow device is not silent: so many readings of its own must be missing
WARM_UP_READINGS = 20
MEMORY_READINGS = 100.0


class Detector:
    """Watch each sensor's mean and deviation, and when each device was last heard.

    Attributes:
        found: How often each kind began.
    """

    def __init__(self, devices: int, readings_per_s: float) -> None:
        sensors = devices * len(SENSORS)
        self._count = np.zeros(sensors, np.int64)
        self._mean = np.zeros(sensors)
        self._variance = np.zeros(sensors)
        self._last = np.full(sensors, np.nan)
        self._run = np.zeros(sensors, np.int64)
        self._heard_s = np.full(devices, np.inf)
        self._silent = np.zeros(devices, np.bool_)
        self._silent_s = max(SILENT_SECONDS, SILENT_READINGS / max(readings_per_s, 0.1))
        self.found = {"spike": 0, "stuck": 0, "dropout": 0}

    def add(self, readings: Readings, now_s: float) -> None:
        """Take (n,) readings in the order in which each sensor made them."""
        known = (readings.devices >= 0) & (readings.devices < len(self._heard_s))
        devices, values = readings.devices[known], readings.values[known]
        if not len(devices):
            return
        self._heard_s[devices] = now_s
        self._silent[devices] = False
        sensors = devices * len(SENSORS) + readings.sensors[known]
        order = np.argsort(sensors, kind="stable")
        sensors, values = sensors[order], values[order]
        first = np.flatnonzero(np.diff(sensors, prepend=-1))
        self._find_stuck(sensors, values, first)
        self._find_spikes(sensors, values)

    def _find_stuck(self, sensors: NDArray[np.int64], values: NDArray[np.float64], first: NDArray[np.int64]) -> None:
        before = np.empty_like(values)
        before[1:] = values[:-1]
        owners = sensors[first]
        before[first] = self._last[owners]
        all_equal = np.logical_and.reduceat(values == before, first)
        ends = np.append(first[1:], len(values))
        was = self._run[owners]
        now = np.where(all_equal, was + (ends - first), 0)
        self.found["stuck"] += int(((was < STUCK_READINGS) & (now >= STUCK_READINGS)).sum())
        self._run[owners] = now
        self._last[owners] = values[ends - 1]

    def _find_spikes(self, sensors: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        distance = values - self._mean[sensors]
        sigma = np.maximum(np.sqrt(self._variance[sensors]), SIGMA_MIN * np.abs(self._mean[sensors]))
        limit = np.where(self._count[sensors] >= WARM_UP_READINGS, SPIKE_SIGMAS * sigma, np.inf)
        self.found["spike"] += int((np.abs(distance) > limit).sum())
        # A spike counts as the largest plain reading: it hardly moves the mean, yet a level that stays is learnt soon.
        distance = np.clip(distance, -limit, limit)
        values = self._mean[sensors] + distance
        counts = np.bincount(sensors, minlength=len(self._mean))
        owners = np.flatnonzero(counts)
        mine = counts[owners]
        sums = np.bincount(sensors, values, len(self._mean))[owners]
        squares = np.bincount(sensors, distance**2, len(self._mean))[owners]
        self._count[owners] += mine
        weight = np.minimum(1.0, mine / np.minimum(self._count[owners], MEMORY_READINGS))
        fresh = self._count[owners] == mine  # the first batch of a sensor: its distances are from zero
        means = sums / mine
        if fresh.any():
            inner = np.bincount(sensors, (values - means[np.searchsorted(owners, sensors)]) ** 2, len(self._mean))
            squares = np.where(fresh, inner[owners], squares)
        self._mean[owners] += weight * (means - self._mean[owners])
        self._variance[owners] += weight * (squares / mine - self._variance[owners])

    def tick(self, now_s: float) -> None:
        """Look for devices that have fallen silent."""
        silent = now_s - self._heard_s > self._silent_s
        self.found["dropout"] += int((silent & ~self._silent).sum())
        self._silent |= silent

    def excuse(self, seconds: float) -> None:
        """Forgive everyone so much silence: the records were late, not the devices."""
        self._heard_s += seconds
