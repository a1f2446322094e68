"""Metrics of the Kafka gateway, under the names of Kafka's network beans where it has them. Pure.

What becomes of the records that come in is in `gateway_families`, as of every input; here is what only Kafka has. A
network processor is a process of the gateway. Requests of native clients, the gateway's own too, are in
`broker_families`.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from ops.metrics.families import Sample, counter, gauge, histogram, sums
from ops.metrics.view import View

_REQUESTS = "kafka_network_requestmetrics"
_SOCKETS = "kafka_server_socket_server_metrics"


def kafka_families(view: View) -> Iterator[Metric]:
    """Yield what is known of the Kafka gateway; labels are APIs, error names and processes."""
    processor = ["networkprocessor"]
    yield counter(f"{_REQUESTS}_requests", "Requests of Kafka clients.", ["request"], sums(view, "kafka_requests"))
    yield counter(
        f"{_REQUESTS}_errors",
        "Errors answered to Kafka clients, each part of an answer by itself.",
        ["request", "error"],
        [([key[1], key[2]], value) for key, value in sorted(view.sums.items()) if key[0] == "kafka_errors"],
    )
    yield histogram(
        view,
        "forebay_kafka_request_duration_seconds",
        "Of requests of Kafka clients, the waiting of a Fetch or a JoinGroup included.",
        "kafka_seconds",
        "request",
    )
    connections = [([name], float(one.connections)) for name, one in view.kafka.items()]
    yield gauge(f"{_SOCKETS}_connection_count", "Connections of Kafka clients.", processor, connections)
    for name, text, source in (
        ("connection_creation", "Connections accepted.", "kafka_connections_opened"),
        ("incoming_byte", "Bytes of Kafka clients' requests.", "kafka_bytes_in"),
        ("outgoing_byte", "Bytes of answers to Kafka clients.", "kafka_bytes_out"),
    ):
        yield counter(f"{_SOCKETS}_{name}", text, processor, sums(view, source))
    fetched: list[Sample] = [([], value) for _, value in sums(view, "kafka_fetched")]
    yield counter("forebay_kafka_records_fetched", "Records sent to Kafka clients.", [], fetched)
