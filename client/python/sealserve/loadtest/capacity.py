"""Capacity: what a load takes of processes, network, memory and key store. Pure arithmetic.

The p99 is that of a queue of one server in each process (M/M/1): a process scores one item at a
time, and items come at random, as those of independent users. With utilization u and S seconds an
item, an item waits for longer than t with the probability u exp(-(1 - u) t / S) (Kleinrock,
Queueing Systems, volume 1). The formula takes the work of an item for random, too (exponential).
Equal items would wait for half as long on average, if nothing disturbed the machine.
"""

import math
from dataclasses import dataclass

from sealserve.errors import InputError

QUANTILE = 0.99
KEY_SECONDS = 3600.0
"""How long a client's public key is registered for."""
RECHECK_SECONDS = 60.0
"""How often a process asks the key store whether a key that it uses is still there."""
CALL_SECONDS = 1.2e-3
BYTE_SECONDS = 0.6e-9
"""What gRPC takes of a process for a call and for a byte of its messages, beside the scoring.

As docs/benchmarks.json has it: "server with gRPC" less "server", in rows and columns.
"""

_MAX_AMOUNT = 1e15


@dataclass(frozen=True, kw_only=True)
class ItemCost:
    """What an item takes.

    Attributes:
        rows: the rows in it.
        seconds: the time of a process, with gRPC.
        request_bytes, reply_bytes: its messages.
        held_bytes: the memory that the service holds until it ends.
        key_bytes: the length of the key that its client registers; 0 for none.
    """

    rows: int
    seconds: float
    request_bytes: float
    reply_bytes: float
    held_bytes: float = 0.0
    key_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Load:
    """What clients ask for.

    Attributes:
        rows_per_second: at the busiest time.
        clients: that are active in the same hour, each with a key of its own.
        spread: how many processes the calls of one client reach; None for all, as behind a proxy
            that balances calls.
    """

    rows_per_second: float
    clients: int = 1
    spread: int | None = None


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """How a service is to be deployed.

    Attributes:
        utilization: the share of the time that processes may be busy, above 0 and below 1.
        processes: of a replica; each has a core.
        process_bytes: the memory of a process without keys and items.
        key_cache_bytes: the memory of a process for keys.
        max_wait_seconds: rows that would wait for longer are refused, and sent again by the SDK.
        proxy: what a proxy in front of the replicas takes; None if there is none.
    """

    utilization: float = 0.6
    processes: int = 1
    process_bytes: float = 300e6
    key_cache_bytes: float = 200 * 2**20
    max_wait_seconds: float = 0.1
    proxy: "ProxyCost | None" = None


@dataclass(frozen=True, kw_only=True)
class ProxyCost:
    """What a proxy takes of a core for a call, and for a byte that it passes on."""

    call_seconds: float
    byte_seconds: float


ENVOY = ProxyCost(call_seconds=0.14e-3, byte_seconds=0.46e-9)
"""Envoy, gRPC on both sides without TLS, by the processor time that `benchmarks.capacity` measures.

On a machine that others use too, it has taken several times as long.
"""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a load takes.

    Attributes:
        items_per_second: of all replicas.
        process_rows_per_second: what a process that is always busy scores.
        replicas, cores: of the service.
        utilization: the share of the time that processes are busy.
        utilization_without_one: the same while a replica is missing; above 1 it is too much.
        received_gbits, sent_gbits: a second, of all replicas.
        memory_bytes: of all replicas.
        p99_seconds: of an item at the service: its own time and the wait before it.
        refused_share: the share of rows that are refused first, because they would wait for longer
            than the service lets them.
        key_writes_per_second: registrations at the key store.
        key_reads_per_second: other calls of the key store: keys that are loaded, and looked up
            again.
        key_store_gbits: a second, that the key store sends.
        proxy_cores: of the proxy, at the same utilization.
    """

    items_per_second: float
    process_rows_per_second: float
    replicas: int
    cores: int
    utilization: float
    utilization_without_one: float
    received_gbits: float
    sent_gbits: float
    memory_bytes: float
    p99_seconds: float
    refused_share: float
    key_writes_per_second: float
    key_reads_per_second: float
    key_store_gbits: float
    proxy_cores: int


def plan_capacity(load: Load, cost: ItemCost, sizing: Sizing) -> Capacity:
    """Compute what a load takes.

    Raises:
        InputError: a number is not in its range.
    """
    _check(load, cost, sizing)
    items = load.rows_per_second / cost.rows
    busy = items * cost.seconds  # processes that are always busy
    exact = busy / (sizing.utilization * sizing.processes)
    if exact > _MAX_AMOUNT:
        raise InputError(f"the load takes more than {_MAX_AMOUNT:g} replicas")
    replicas = max(1, math.ceil(exact - 1e-9))
    processes = replicas * sizing.processes
    utilization = busy / processes
    others = processes - sizing.processes
    p99 = cost.seconds + wait_quantile(utilization, cost.seconds)
    _, key_bytes = _keys(load, cost, processes)
    writes, reads, loads = _key_store_calls(load, cost, sizing, processes)
    call = 0.0
    if sizing.proxy is not None:
        call = sizing.proxy.call_seconds + (cost.request_bytes + cost.reply_bytes) * sizing.proxy.byte_seconds
    return Capacity(
        items_per_second=items,
        process_rows_per_second=cost.rows / cost.seconds,
        replicas=replicas,
        cores=processes,
        utilization=utilization,
        utilization_without_one=busy / others if others else math.inf,
        received_gbits=8e-9 * items * cost.request_bytes,
        sent_gbits=8e-9 * items * cost.reply_bytes,
        memory_bytes=processes * (sizing.process_bytes + min(sizing.key_cache_bytes, key_bytes))
        + items * p99 * cost.held_bytes,
        p99_seconds=p99,
        refused_share=wait_share(utilization, cost.seconds, sizing.max_wait_seconds),
        key_writes_per_second=writes,
        key_reads_per_second=reads,
        key_store_gbits=8e-9 * loads * cost.key_bytes,
        proxy_cores=math.ceil(items * call / sizing.utilization),
    )


def wait_share(utilization: float, seconds: float, wait_seconds: float) -> float:
    """Return the share of items that wait for longer than `wait_seconds` in one process's queue.

    Args:
        utilization: of the process, 0 to 1.
        seconds: that an item takes.
        wait_seconds: at least 0.
    """
    if utilization >= 1:
        return 1.0
    return utilization * math.exp(-(1 - utilization) * wait_seconds / seconds)


def wait_quantile(utilization: float, seconds: float, share: float = QUANTILE) -> float:
    """Return how many seconds a share of items waits at most; infinity from utilization 1 on."""
    if utilization >= 1:
        return math.inf
    return max(0.0, seconds / (1 - utilization) * math.log(utilization / (1 - share))) if utilization > 0 else 0.0


def offered_cost(
    *, rows: int, server_seconds: float, request_bytes: int, reply_bytes: int, held_bytes: int, key_bytes: int
) -> ItemCost:
    """Return the cost of an item from what a service publishes of it (`Offer.cost`).

    The service publishes the time of scoring. What gRPC takes is added.
    """
    return ItemCost(
        rows=rows,
        seconds=server_seconds + CALL_SECONDS + BYTE_SECONDS * (request_bytes + reply_bytes),
        request_bytes=request_bytes,
        reply_bytes=reply_bytes,
        held_bytes=held_bytes,
        key_bytes=key_bytes,
    )


@dataclass(frozen=True, kw_only=True)
class MeasuredCost:
    """The cost of an item by a run of `sealserve bench`.

    Attributes:
        cost: of an item.
        is_saturated: whether the run gave the service as much as it could do. Otherwise the service
            takes less than `cost` says.
    """

    cost: ItemCost
    is_saturated: bool


def measured_cost(figures: object, processes: int) -> MeasuredCost:
    """Return the cost of an item by the figures of a run (`sealserve bench --json`).

    What was answered a second is taken for all that the service can do.

    Args:
        figures: the object in the file.
        processes: how many the service has.

    Raises:
        InputError: they are not such figures.
    """
    if not isinstance(figures, dict):
        raise InputError("it is not what `sealserve bench --json` writes: no object")
    answered, rows = _amount(figures, "answered_per_second"), int(_amount(figures, "rows_an_item"))
    if not answered or not rows:
        raise InputError("its run answered nothing")
    latency = figures.get("latency_ms")
    in_flight = answered * 1e-3 * _amount(latency if isinstance(latency, dict) else {}, "p50")  # Little's law
    refused = figures.get("refused")
    return MeasuredCost(
        cost=ItemCost(
            rows=rows,
            seconds=processes / answered,
            request_bytes=rows * _amount(figures, "request_bytes_a_row"),
            reply_bytes=rows * _amount(figures, "reply_bytes_a_row"),
            held_bytes=_amount(figures, "held_bytes", 0.0),
            key_bytes=int(_amount(figures, "key_bytes", 0.0)),
        ),
        is_saturated=bool(refused) or in_flight >= 1.5 * processes,
    )


def _amount(figures: "dict[object, object]", name: str, default: float | None = None) -> float:
    value = figures.get(name, default)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MAX_AMOUNT:
        return float(value)
    raise InputError(f"it is not what `sealserve bench --json` writes: {name} is missing or no amount")


def _keys(load: Load, cost: ItemCost, processes: int) -> tuple[float, float]:
    """Return the number of pairs of a key and a process, and the memory of the keys of one process.

    Ready for use, a key takes twice its length: its second half has been expanded from a seed.
    """
    pairs = float(load.clients * min(load.spread or processes, processes))
    return pairs, pairs / processes * 2 * cost.key_bytes


def _key_store_calls(load: Load, cost: ItemCost, sizing: Sizing, processes: int) -> tuple[float, float, float]:
    """Return registrations, other calls, and keys that are read, each a second.

    A key that a process has no room for is loaded anew for each item that finds it gone: looked up,
    and read.
    """
    if not cost.key_bytes:
        return 0.0, 0.0, 0.0
    items = load.rows_per_second / cost.rows
    pairs, memory = _keys(load, cost, processes)
    kept_share = min(1.0, sizing.key_cache_bytes / memory)
    rechecks = min(items * kept_share, pairs * kept_share / RECHECK_SECONDS)
    loads = min(items, pairs * kept_share / KEY_SECONDS + items * (1 - kept_share))
    return load.clients / KEY_SECONDS, rechecks + 2 * loads, loads


def _check(load: Load, cost: ItemCost, sizing: Sizing) -> None:
    if not 0 < load.rows_per_second <= _MAX_AMOUNT:
        raise InputError(f"the rows a second must be above 0, and at most {_MAX_AMOUNT:g}")
    if not 0 < sizing.utilization < 1:
        raise InputError("the utilization must be above 0 and below 1: a queue at 1 grows without end")
    if min(load.clients, sizing.processes, cost.rows, 1 if load.spread is None else load.spread) < 1:
        raise InputError("clients, their spread, processes and rows an item must be at least 1")
    amounts = cost.request_bytes, cost.reply_bytes, cost.held_bytes, cost.key_bytes, load.clients, sizing.processes
    if not (0 < cost.seconds <= _MAX_AMOUNT and all(0 <= amount <= _MAX_AMOUNT for amount in amounts)):
        raise InputError(f"an item must take time, and its costs must be at least 0 and at most {_MAX_AMOUNT:g}")
    limits = sizing.process_bytes, sizing.key_cache_bytes, sizing.max_wait_seconds
    if not all(0 <= limit <= _MAX_AMOUNT for limit in limits):  # nor is NaN
        raise InputError(f"memory and waits must be at least 0, and at most {_MAX_AMOUNT:g}")
