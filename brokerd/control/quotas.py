"""Describe and alter the quotas of clients; pure. Source: KIP-546, Kafka's `ClientQuotaManager`."""

from __future__ import annotations

from dataclasses import dataclass, field

from brokerd.control.records import Change, ClientQuotaRecord, Put, Remove
from brokerd.control.topics import Cluster, Refused
from ingest.limits import LIMITS
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    CONSUMER_BYTE_RATE,
    PRODUCER_BYTE_RATE,
    AlterClientQuota,
    AlterClientQuotasRequest,
    AlteredClientQuota,
    ClientQuota,
    DescribeClientQuotasResponse,
)

RATES = (PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE)
RATE_MAX = 2**63 - 1


@dataclass(slots=True)
class QuotasDecision:
    changes: list[Change] = field(default_factory=list)
    results: list[AlteredClientQuota] = field(default_factory=list)


def describe(cluster: Cluster) -> DescribeClientQuotasResponse:
    """Return all quotas, the default first."""
    quotas = cluster.image.client_quotas
    return DescribeClientQuotasResponse(
        [ClientQuota(client_id, dict(quotas[client_id])) for client_id in sorted(quotas)]
    )


def alter(cluster: Cluster, request: AlterClientQuotasRequest) -> QuotasDecision:
    """Set and remove rates; a client is changed as a whole or not at all."""
    decision = QuotasDecision()
    quotas = dict(cluster.image.client_quotas)
    seen: set[str] = set()
    for item in request.entries:
        try:
            if item.client_id in seen:
                raise Refused(ErrorCode.INVALID_REQUEST, "the request names this client twice")
            seen.add(item.client_id)
            merged = _merged(dict(quotas.get(item.client_id, {})), item)
            if item.client_id not in quotas and len(quotas) >= cluster.limits.client_quotas_max:
                text = f"{len(quotas)} clients have a quota, and no more may; use the default, or remove some"
                raise Refused(ErrorCode.POLICY_VIOLATION, text)
        except Refused as refused:
            decision.results.append(AlteredClientQuota(item.client_id, int(refused.code), str(refused)))
            continue
        decision.results.append(AlteredClientQuota(item.client_id, int(ErrorCode.NONE)))
        record = ClientQuotaRecord(item.client_id, merged)
        if merged:
            decision.changes.append(Put(record))
            quotas[item.client_id] = merged
        elif quotas.pop(item.client_id, None) is not None:
            decision.changes.append(Remove(record))
    if request.validate_only:
        decision.changes.clear()
    return decision


def _merged(rates: dict[str, int], item: AlterClientQuota) -> dict[str, int]:
    if len(item.client_id) > LIMITS.client_id_chars_max:
        text = f"a client id of {len(item.client_id)} characters; {LIMITS.client_id_chars_max} are taken"
        raise Refused(ErrorCode.INVALID_REQUEST, text)
    if len({change.name for change in item.rates}) != len(item.rates) or not item.rates:
        raise Refused(ErrorCode.INVALID_REQUEST, "each rate is to be named once, and one at least")
    for change in item.rates:
        if change.name not in RATES:
            text = f"{change.name[:100]} is no quota of clients here; expected {' or '.join(RATES)}"
            raise Refused(ErrorCode.INVALID_REQUEST, text)
        if change.value is None:
            rates.pop(change.name, None)
        else:
            rates[change.name] = _rate(change.name, change.value)
    return rates


def _rate(name: str, text: str) -> int:
    try:
        rate = int(text)
    except ValueError:
        rate = 0
    if not 1 <= rate <= RATE_MAX:
        expected = "expected a whole number of bytes a second, 1 or more; remove it for no quota"
        raise Refused(ErrorCode.INVALID_REQUEST, f"{name}={text[:100]}: {expected}")
    return rate
