"""Histograms of the last minute."""

from __future__ import annotations

from ops.metrics.recent import WINDOW_MS, Recent, quantile_seconds


def test_only_what_came_within_the_window_counts() -> None:
    recent = Recent()
    assert recent.step({"Produce": [5, 0]}, 0) == {"Produce": [5, 0]}, "all of it, at the start"
    assert recent.step({"Produce": [7, 1]}, 1000) == {"Produce": [7, 1]}
    assert recent.step({"Produce": [7, 1]}, WINDOW_MS) == {"Produce": [2, 1]}
    assert recent.step({"Produce": [7, 1], "Fetch": [1, 0]}, WINDOW_MS + 1000) == {"Produce": [0, 0], "Fetch": [1, 0]}


def test_quantiles_lie_within_the_bucket_of_their_rank() -> None:
    counts = [0] * 15
    counts[3], counts[8] = 99, 1  # 2.5..5 ms and 0.1..0.25 s
    assert 0.0025 <= quantile_seconds(counts, 0.5) <= 0.005
    assert 0.0025 <= quantile_seconds(counts, 0.99) <= 0.005
    assert 0.1 <= quantile_seconds(counts, 0.999) <= 0.25
    assert quantile_seconds([0] * 15, 0.5) == 0.0
    assert quantile_seconds([0] * 14 + [1], 0.5) == 10.0, "slower than the last bound"
