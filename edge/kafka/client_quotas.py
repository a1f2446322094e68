"""Which clients have a quota, as far as the gateway must know: what it reads from maps no broker counts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from edge.kafka.brokers import Brokers
from ingest.errors import ForebayError
from ingest.wire.messages import CONSUMER_BYTE_RATE, DescribeClientQuotasRequest

LOOK_S = 1.0
TIMEOUT_MS = 5_000
_EVERY_CLIENT = ""


class ClientQuotas:
    """Quotas as of the newest metadata, whose version rises with each change of them. Thread: the loop's."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._version = -1
        self._rates: Mapping[str, Mapping[str, int]] = {}

    def of_fetch(self, client_id: str) -> bool:
        """Tell whether a client has a `consumer_byte_rate`."""
        rates = self._rates
        return any(CONSUMER_BYTE_RATE in rates.get(name, ()) for name in (client_id, _EVERY_CLIENT))

    async def follow(self) -> None:
        """Keep up with changes, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Ask for the quotas if there may be others than those known; they stay where no answer comes."""
        version = self._brokers.version
        if version == self._version:
            return
        try:
            answer = await self._brokers.ask_any(DescribeClientQuotasRequest(), timeout_ms=TIMEOUT_MS)
        except ForebayError:
            return
        self._rates = {quota.client_id: quota.rates for quota in answer.quotas}
        self._version = version
