"""What a device publishes: JSON for people, every field at a fixed place, so that numpy reads a batch without parsing.

{"device":"dev-00017","seq":     1234,"sensor":"temperature","value":    21.530,"sent_us":1700000000000000}
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.demo.device import SENSORS

_TEMPLATE = '{{"device":"dev-{:05d}","seq":{:9d},"sensor":{:<13},"value":{:10.3f},"sent_us":{:16d}}}'
_QUOTED = {sensor: f'"{sensor}"' for sensor in SENSORS}
_EXAMPLE = _TEMPLATE.format(0, 0, _QUOTED[SENSORS[0]], 0.0, 0)
PAYLOAD_BYTES = len(_EXAMPLE)


def _behind(text: str) -> int:
    return _EXAMPLE.index(text) + len(text)


PAYLOAD_DTYPE = np.dtype(
    {
        "names": ["device", "seq", "sensor", "value", "sent_us"],
        "formats": ["S5", "S9", "S1", "S10", "S16"],
        "offsets": [
            _behind('"dev-'),
            _behind('"seq":'),
            _behind('"sensor":"'),
            _behind('"value":'),
            _behind('"sent_us":'),
        ],
        "itemsize": PAYLOAD_BYTES,
    }
)
_SENSOR_OF = {sensor[0].encode(): number for number, sensor in enumerate(SENSORS)}


def encode_payload(device: int, seq: int, sensor: str, value: float, sent_us: int) -> bytes:
    """Return PAYLOAD_BYTES bytes of JSON."""
    payload = _TEMPLATE.format(device, seq, _QUOTED[sensor], value, sent_us).encode()
    assert len(payload) == PAYLOAD_BYTES, payload
    return payload


class Readings:
    """A batch of payloads as columns, (n,) each."""

    def __init__(self, values: Any) -> None:
        """Read the values of one stored batch.

        Args:
            values: A BinaryColumn of n payloads.
        Raises:
            ValueError: they are no payloads of the demo.
        """
        rows = values.as_array(PAYLOAD_DTYPE)
        self.devices: NDArray[np.int64] = rows["device"].astype(np.int64)
        self.seqs: NDArray[np.int64] = rows["seq"].astype(np.int64)
        self.values: NDArray[np.float64] = rows["value"].astype(np.float64)
        self.sensors: NDArray[np.int64] = np.zeros(len(rows), np.int64)
        for letter, number in _SENSOR_OF.items():
            self.sensors[rows["sensor"] == letter] = number

    def __len__(self) -> int:
        return len(self.seqs)
