"""What a load takes: the arithmetic, and its agreement with what is published."""

import json
import math
from typing import Any

import pytest

from benchmarks.capacity import published_costs
from benchmarks.publish import RESULTS
from sealserve.errors import InputError
from sealserve.loadtest.capacity import (
    BYTE_SECONDS,
    CALL_SECONDS,
    ENVOY,
    ItemCost,
    Load,
    ProxyCost,
    Sizing,
    measured_cost,
    offered_cost,
    plan_capacity,
    wait_quantile,
    wait_share,
)

COST = ItemCost(rows=1, seconds=0.002, request_bytes=30_000, reply_bytes=50_000, held_bytes=1e5)
KEYED = ItemCost(rows=1, seconds=0.005, request_bytes=1, reply_bytes=1, key_bytes=100_000)


def test_processes_network_and_memory() -> None:
    found = plan_capacity(Load(rows_per_second=3000), COST, Sizing(utilization=0.6, process_bytes=1e8))
    assert (found.replicas, found.cores) == (10, 10)
    assert found.utilization == pytest.approx(0.6)
    assert found.utilization_without_one == pytest.approx(6 / 9)
    assert found.process_rows_per_second == pytest.approx(500)
    assert found.received_gbits == pytest.approx(3000 * 30_000 * 8 / 1e9)
    assert found.sent_gbits == pytest.approx(3000 * 50_000 * 8 / 1e9)
    assert found.memory_bytes == pytest.approx(1e9 + 3000 * found.p99_seconds * 1e5), "Little's law"
    assert (found.key_writes_per_second, found.key_reads_per_second, found.proxy_cores) == (0, 0, 0)


def test_replicas_of_several_processes_and_items_of_several_rows() -> None:
    cost = ItemCost(rows=2048, seconds=0.04, request_bytes=2.5e7, reply_bytes=2e5)
    found = plan_capacity(Load(rows_per_second=1e6), cost, Sizing(utilization=0.6, processes=8))
    assert found.items_per_second == pytest.approx(1e6 / 2048)
    assert found.replicas == math.ceil(1e6 / 2048 * 0.04 / 0.6 / 8) == 5
    assert found.cores == 40
    assert found.utilization == pytest.approx(1e6 / 2048 * 0.04 / 40)


@pytest.mark.parametrize("rows_per_second", [0.001, 1.0, 299.9, 300.0, 300.1, 12345.6, 1e6, 1e9])
def test_no_process_is_busier_than_it_may_be_and_none_is_superfluous(rows_per_second: float) -> None:
    found = plan_capacity(Load(rows_per_second=rows_per_second), COST, Sizing(utilization=0.6))
    assert found.utilization <= 0.6 * (1 + 1e-6)
    assert found.replicas == 1 or found.utilization * found.replicas / (found.replicas - 1) > 0.6 * (1 - 1e-6)


def test_the_wait_is_that_of_a_queue_with_one_server() -> None:
    """The quantile and the share are inverse to each other, and grow with the utilization."""
    for utilization in (0.3, 0.6, 0.9, 0.99):
        quantile = wait_quantile(utilization, 0.002, 0.99)
        assert wait_share(utilization, 0.002, quantile) == pytest.approx(0.01)
    assert wait_quantile(0.5, 0.002) < wait_quantile(0.8, 0.002)
    assert wait_quantile(0.5, 0.002) == pytest.approx(0.004 * math.log(50))
    assert wait_quantile(0.005, 0.002) == wait_quantile(0.0, 0.002) == 0, "fewer than one in a hundred wait"
    assert wait_share(0.5, 0.002, 0.0) == 0.5, "those that find the process busy"
    assert (wait_quantile(1.0, 0.002), wait_share(1.0, 0.002, 9.0)) == (math.inf, 1.0)


def test_what_would_wait_for_too_long() -> None:
    patient, hasty = (
        plan_capacity(Load(rows_per_second=300), COST, Sizing(max_wait_seconds=wait)).refused_share
        for wait in (1.0, 0.001)
    )
    assert patient < 1e-6
    assert 0.3 < hasty < 0.6


def test_keys_are_looked_up_every_minute_by_each_process_that_uses_them() -> None:
    load, sizing = Load(rows_per_second=10_000, clients=100), Sizing(utilization=0.5)
    found = plan_capacity(load, KEYED, sizing)
    assert found.replicas == 100
    assert found.key_writes_per_second == pytest.approx(100 / 3600)
    loads = 100 * 100 / 3600
    assert found.key_reads_per_second == pytest.approx(100 * 100 / 60 + 2 * loads)
    assert found.key_store_gbits == pytest.approx(8e-9 * loads * 100_000)
    near = plan_capacity(Load(rows_per_second=10_000, clients=100, spread=4), KEYED, sizing)
    assert near.key_reads_per_second == pytest.approx(found.key_reads_per_second * 4 / 100)
    assert near.memory_bytes == pytest.approx(100 * (300e6 + 4 * 200_000) + 0)
    few = plan_capacity(Load(rows_per_second=1, clients=100), KEYED, sizing)
    assert few.key_reads_per_second <= 3, "no more than items"


def test_keys_that_do_not_fit_are_loaded_again_and_again() -> None:
    sizing = Sizing(key_cache_bytes=50 * 200_000)
    found = plan_capacity(Load(rows_per_second=1000, clients=100), KEYED, sizing)
    assert found.key_reads_per_second > 2 * 1000 * 0.5
    assert found.memory_bytes == pytest.approx(found.cores * (300e6 + 50 * 200_000))


def test_a_proxy_takes_time_a_call_and_a_byte() -> None:
    proxy = ProxyCost(call_seconds=1e-4, byte_seconds=1e-9)
    found = plan_capacity(Load(rows_per_second=10_000), COST, Sizing(utilization=0.5, proxy=proxy))
    assert found.proxy_cores == math.ceil(10_000 * (1e-4 + 80_000 * 1e-9) / 0.5) == 4


@pytest.mark.parametrize(
    ("load", "cost", "sizing"),
    [
        ({"rows_per_second": 0.0}, {}, {}),
        ({"rows_per_second": math.nan}, {}, {}),
        ({"rows_per_second": 1e300}, {}, {}),
        ({"clients": 0}, {}, {}),
        ({"spread": 0}, {}, {}),
        ({}, {"seconds": 0.0}, {}),
        ({}, {"seconds": math.inf}, {}),
        ({}, {"rows": 0}, {}),
        ({}, {"request_bytes": math.inf}, {}),
        ({}, {}, {"utilization": 1.0}),
        ({}, {}, {"utilization": 0.0}),
        ({}, {}, {"processes": 0}),
        ({}, {}, {"max_wait_seconds": -1.0}),
        ({}, {}, {"max_wait_seconds": math.nan}),
        ({}, {}, {"process_bytes": math.nan}),
        ({}, {}, {"process_bytes": math.inf}),
        ({}, {"reply_bytes": -1.0}, {}),
        ({"rows_per_second": 1e15}, {}, {"utilization": 1e-300}),
    ],
)
def test_numbers_out_of_range(load: dict[str, Any], cost: dict[str, Any], sizing: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        plan_capacity(
            Load(**{"rows_per_second": 1.0} | load),
            ItemCost(**{"rows": 1, "seconds": 0.1, "request_bytes": 1.0, "reply_bytes": 1.0} | cost),
            Sizing(**sizing),
        )


FIGURES: dict[str, Any] = {
    "rows_an_item": 2,
    "answered_per_second": 400.0,
    "request_bytes_a_row": 16_000.0,
    "reply_bytes_a_row": 25_000.0,
    "latency_ms": {"p50": 20.0},
    "refused": {},
    "key_bytes": 98_498,
}


def test_the_cost_of_a_run() -> None:
    found = measured_cost(FIGURES, 2)
    assert found.is_saturated, "8 were in flight at 2 processes"
    assert found.cost == ItemCost(
        rows=2, seconds=0.005, request_bytes=32_000, reply_bytes=50_000, held_bytes=0, key_bytes=98_498
    )
    idle = FIGURES | {"latency_ms": {"p50": 2.0}}
    assert not measured_cost(idle, 2).is_saturated
    assert measured_cost(idle | {"refused": {"QuotaExceededError": 3}}, 2).is_saturated


@pytest.mark.parametrize(
    "figures",
    [
        None,
        [],
        {},
        FIGURES | {"answered_per_second": 0.0},
        FIGURES | {"answered_per_second": "many"},
        FIGURES | {"rows_an_item": True},
        FIGURES | {"request_bytes_a_row": math.nan},
        FIGURES | {"reply_bytes_a_row": -1},
        FIGURES | {"latency_ms": []},
        FIGURES | {"rows_an_item": 10**400},
    ],
)
def test_what_is_no_run(figures: object) -> None:
    with pytest.raises(InputError):
        measured_cost(figures, 1)


def test_what_grpc_takes_is_what_the_published_benchmarks_say() -> None:
    """Within a factor of 2: the rule has two constants for all layouts and parameter sets."""
    parts = json.loads(RESULTS.read_text())["parts"]
    systems = {system["name"]: system for system in parts["peers"]["systems"]}
    costs = published_costs(parts)
    assert costs.keys() == {"row", "row, private weights", "column", "column, private weights"}
    for name, (cost, _) in costs.items():
        scoring = 1e-3 * cost.rows * systems[name]["server_ms"]["median"]
        found = offered_cost(
            rows=cost.rows,
            server_seconds=scoring,
            request_bytes=int(cost.request_bytes),
            reply_bytes=int(cost.reply_bytes),
            held_bytes=0,
            key_bytes=0,
        )
        assert 1 / 2 <= found.seconds / cost.seconds <= 2, name
        assert found.seconds - scoring == pytest.approx(
            CALL_SECONDS + BYTE_SECONDS * (cost.request_bytes + cost.reply_bytes)
        )


def test_what_envoy_takes_is_what_was_measured_of_it() -> None:
    """Within a factor of 2, of a call and of what a batch takes."""
    measured = json.loads(RESULTS.read_text()).get("apart", {}).get("capacity")
    if measured is None or "envoy" not in measured["capacity"]:
        pytest.skip("nothing is published of Envoy: `python -m benchmarks.capacity`")
    for layout in measured["capacity"]["envoy"]["layouts"].values():
        planned = ENVOY.call_seconds + ENVOY.byte_seconds * layout["item_bytes"]
        assert 1 / 2 <= planned / layout["item_seconds"] <= 2
