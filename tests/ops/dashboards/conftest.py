"""The fake appliance and the monitor of the metrics' tests."""

from tests.ops.metrics.conftest import appliance, start_monitor

__all__ = ["appliance", "start_monitor"]
