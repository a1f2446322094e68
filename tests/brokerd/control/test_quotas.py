"""Quotas of clients as the controller keeps them."""

from __future__ import annotations

import pytest

from brokerd.control.limits import ControlLimits
from ingest.wire.codes import ErrorCode
from ingest.wire.messages import (
    AlterClientQuota,
    AlterClientQuotasRequest,
    AlterConfig,
    AlteredClientQuota,
    DescribeClientQuotasRequest,
)
from tests.brokerd.control.driver import Driver


@pytest.fixture
def driver() -> Driver:
    made = Driver(limits=ControlLimits(client_quotas_max=3))
    made.register()
    return made


def alter(driver: Driver, client_id: str, *, dry: bool = False, **rates: str | None) -> AlteredClientQuota:
    changes = [AlterConfig(name, value) for name, value in rates.items()]
    (result,) = driver.change(AlterClientQuotasRequest([AlterClientQuota(client_id, changes)], dry)).entries
    assert bool(result.error_code) == bool(result.message)
    found: AlteredClientQuota = result
    return found


def quotas(driver: Driver) -> dict[str, dict[str, int]]:
    return {quota.client_id: quota.rates for quota in driver.ask(DescribeClientQuotasRequest()).quotas}


def test_quotas_reach_the_brokers_and_survive_the_controller(driver: Driver) -> None:
    assert quotas(driver) == {}
    assert alter(driver, "", producer_byte_rate="1048576").error_code == 0
    assert alter(driver, "app", producer_byte_rate="5", consumer_byte_rate="6").error_code == 0
    expected = {"": {"producer_byte_rate": 1048576}, "app": {"producer_byte_rate": 5, "consumer_byte_rate": 6}}
    assert driver.metadata().client_quotas == expected
    driver.restart()
    assert quotas(driver) == expected
    assert driver.metadata().client_quotas == expected


def test_what_is_not_named_stays_and_a_client_without_rates_is_forgotten(driver: Driver) -> None:
    alter(driver, "app", producer_byte_rate="5", consumer_byte_rate="6")
    alter(driver, "app", producer_byte_rate=None)
    assert quotas(driver) == {"app": {"consumer_byte_rate": 6}}
    alter(driver, "app", consumer_byte_rate=None)
    assert quotas(driver) == {}
    assert not any("clients" in path for path in driver.durable)
    assert alter(driver, "app", consumer_byte_rate=None).error_code == 0
    driver.restart()
    assert quotas(driver) == {}


@pytest.mark.parametrize("value", ["0", "-1", "", "1.5", "many", str(2**63), "1e6"])
def test_a_rate_that_is_none_is_refused_with_what_is_expected(driver: Driver, value: str) -> None:
    result = alter(driver, "app", producer_byte_rate=value)
    assert result.error_code == ErrorCode.INVALID_REQUEST
    assert f"producer_byte_rate={value}" in result.message
    assert "bytes a second" in result.message
    assert quotas(driver) == {}


def test_other_quotas_of_kafka_are_refused_by_name(driver: Driver) -> None:
    result = alter(driver, "app", request_percentage="50")
    assert "request_percentage" in result.message
    assert "producer_byte_rate or consumer_byte_rate" in result.message


def test_ids_that_are_too_long_or_too_many_and_empty_changes_are_refused(driver: Driver) -> None:
    assert alter(driver, "x" * 256, producer_byte_rate="1").error_code == ErrorCode.INVALID_REQUEST
    assert alter(driver, "app").error_code == ErrorCode.INVALID_REQUEST
    for name in "abc":
        assert alter(driver, name, producer_byte_rate="1").error_code == 0
    assert alter(driver, "d", producer_byte_rate="1").error_code == ErrorCode.POLICY_VIOLATION
    assert alter(driver, "c", producer_byte_rate="2").error_code == 0
    twice = AlterClientQuota("a", [AlterConfig("producer_byte_rate", "7")])
    first, second = driver.change(AlterClientQuotasRequest([twice, twice])).entries
    assert (first.error_code, second.error_code) == (0, ErrorCode.INVALID_REQUEST)


def test_a_trial_changes_nothing(driver: Driver) -> None:
    assert alter(driver, "app", dry=True, producer_byte_rate="5").error_code == 0
    assert quotas(driver) == {}
