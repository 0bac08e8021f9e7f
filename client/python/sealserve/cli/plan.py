"""`sealserve plan`: what a load takes of replicas, cores, network, memory and key store."""

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sealserve.cli.command import Command, add_service_options, credentials
from sealserve.errors import InputError

if TYPE_CHECKING:
    from sealserve.loadtest.capacity import Capacity, ItemCost, Load, Sizing

_MAX_FIGURES_BYTES = 1 << 20


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    add_service_options(parser)
    parser.add_argument("--rows-per-second", type=float, required=True, metavar="N", help="at the busiest time")
    parser.add_argument("--clients", type=int, default=1, metavar="N", help="active in the same hour (%(default)s)")
    parser.add_argument(
        "--spread",
        type=int,
        metavar="N",
        help="processes that the calls of one client reach (all, as behind a proxy that balances calls)",
    )
    costs = parser.add_argument_group("costs of an item, from a service that runs, or from a measurement")
    costs.add_argument("--model", default="", metavar="NAME", help="may be left out if the service has one only")
    costs.add_argument("--layout", default="row", metavar="LAYOUT", help="row or column (%(default)s)")
    costs.add_argument("--rows", type=int, metavar="N", help="rows an item (row: 1, column: as many as fit)")
    costs.add_argument(
        "--bench",
        type=Path,
        metavar="FILE",
        help="what `sealserve bench --json` wrote of a service that had as much to do as it could: exact, "
        "and no service is asked",
    )
    costs.add_argument(
        "--bench-processes", type=int, default=1, metavar="N", help="processes of that service (%(default)s)"
    )
    sizing = parser.add_argument_group("deployment")
    sizing.add_argument(
        "--utilization", type=float, default=0.6, metavar="SHARE", help="of the time that may be busy (%(default)g)"
    )
    sizing.add_argument(
        "--processes", type=int, default=1, metavar="N", help="of a replica, each with a core (%(default)s)"
    )
    sizing.add_argument(
        "--process-megabytes", type=float, default=300.0, metavar="MB", help="memory of a process (%(default)g)"
    )
    sizing.add_argument(
        "--key-cache-bytes",
        type=int,
        default=200 << 20,
        metavar="N",
        help="as the service's own option (%(default)s)",
    )
    sizing.add_argument(
        "--max-wait", type=float, default=0.1, metavar="SECONDS", help="as the service's own option (%(default)g)"
    )
    sizing.add_argument("--envoy", action="store_true", help="with an Envoy in front that balances calls")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: Namespace) -> int:
    """Print what the load takes."""
    from sealserve.loadtest.capacity import ENVOY, Load, Sizing, plan_capacity

    cost, note = _measured(arguments) if arguments.bench else _offered(arguments)
    load = Load(rows_per_second=arguments.rows_per_second, clients=arguments.clients, spread=arguments.spread)
    sizing = Sizing(
        utilization=arguments.utilization,
        processes=arguments.processes,
        process_bytes=1e6 * arguments.process_megabytes,
        key_cache_bytes=arguments.key_cache_bytes,
        max_wait_seconds=arguments.max_wait,
        proxy=ENVOY if arguments.envoy else None,
    )
    capacity = plan_capacity(load, cost, sizing)
    if arguments.json:
        found = asdict(capacity)
        if capacity.replicas == 1:
            found["utilization_without_one"] = None  # infinite
        print(json.dumps({"cost": asdict(cost), "note": note} | found, indent=2))
        return 0
    print("\n".join(f"{name:<34} {value}" for name, value in report(load, cost, sizing, capacity)))
    if note:
        print(f"\n{note}")
    return 0


def _measured(arguments: Namespace) -> tuple["ItemCost", str]:
    """Return the cost that a file of figures tells, and what a user should know of it."""
    from sealserve.loadtest.capacity import measured_cost

    if arguments.bench_processes < 1:
        raise InputError("--bench-processes must be at least 1")
    with arguments.bench.open("rb") as file:
        data = file.read(_MAX_FIGURES_BYTES + 1)
    try:
        if len(data) > _MAX_FIGURES_BYTES:
            raise InputError("it is too long to be what `sealserve bench --json` writes")
        measured = measured_cost(json.loads(data), arguments.bench_processes)
    except (InputError, ValueError, RecursionError) as error:
        reason = error if isinstance(error, InputError) else "it is no JSON"
        raise InputError(f"{arguments.bench}: {reason}") from None
    note = (
        ""
        if measured.is_saturated
        else "The run did not give the service as much as it could do, which is more than this plan takes for granted: "
        "measure with more callers (--replay --concurrency 8)."
    )
    return measured.cost, note


def _offered(arguments: Namespace) -> tuple["ItemCost", str]:
    """Return the cost that a service publishes, and what a user should know of it."""
    from sealserve.client import Client
    from sealserve.loadtest.capacity import offered_cost

    if arguments.rows is not None and arguments.rows < 1:
        raise InputError("--rows must be at least 1")
    with Client(
        arguments.address,
        model=arguments.model,
        credentials=credentials(arguments),
        layout=arguments.layout,
        timeout_seconds=arguments.timeout,
    ) as client:
        offer = client.offer()
    rows = arguments.rows or offer.layout.default_rows_per_item or offer.rows_per_item
    if rows > offer.rows_per_item:
        raise InputError(f"--rows must be at most {offer.rows_per_item} with {offer.parameters.parameter_set.name}")
    cost = offer.cost
    note = "The time is what the service says of its scoring, and what gRPC usually takes. `--bench` is exact."
    if rows < offer.rows_per_item:
        note += f" The costs are those of a full item, of {offer.rows_per_item:,} rows: fewer take less."
    found = offered_cost(
        rows=rows,
        server_seconds=cost.server_seconds,
        request_bytes=cost.request_bytes,
        reply_bytes=cost.reply_bytes,
        held_bytes=cost.held_bytes,
        key_bytes=cost.key_bytes,
    )
    return found, note


def report(load: "Load", cost: "ItemCost", sizing: "Sizing", capacity: "Capacity") -> list[tuple[str, str]]:
    """Describe a plan in words: pairs of a name and a value."""
    received, sent = capacity.received_gbits, capacity.sent_gbits
    lines = [
        ("rows, items a second", f"{load.rows_per_second:,.0f}, {capacity.items_per_second:,.1f}"),
        ("time of a process an item", f"{1e3 * cost.seconds:,.2f} ms, of {cost.rows:,} rows"),
        ("a process scores at most", f"{capacity.process_rows_per_second:,.0f} rows/s"),
        ("replicas, cores", f"{capacity.replicas:,}, {capacity.cores:,}"),
        ("utilization", f"{100 * capacity.utilization:.0f} %"),
        ("  while a replica is missing", _without_one(capacity)),
        ("up, down", f"{received:,.3f}, {sent:,.3f} Gbit/s"),
        ("  of a replica", f"{received / capacity.replicas:,.3f}, {sent / capacity.replicas:,.3f} Gbit/s"),
        ("memory", f"{1e-9 * capacity.memory_bytes:,.1f} GB"),
        ("p99 at the service, estimated", f"{1e3 * capacity.p99_seconds:,.1f} ms"),
        (f"would wait over {sizing.max_wait_seconds:g} s", f"{100 * capacity.refused_share:.2g} %"),
        (
            "calls of the key store",
            f"{capacity.key_writes_per_second:,.1f} put/s, {capacity.key_reads_per_second:,.1f} get and read/s, "
            f"{capacity.key_store_gbits:,.3f} Gbit/s"
            if cost.key_bytes
            else "none",
        ),
    ]
    if sizing.proxy is not None:
        lines.append(("cores of Envoy", f"{capacity.proxy_cores:,}"))
    return lines


def _without_one(capacity: "Capacity") -> str:
    if capacity.replicas == 1:
        return "nothing is served"
    share = capacity.utilization_without_one
    return f"{100 * share:.0f} %" + (": too much" if share >= 1 else "")


COMMAND = Command(
    "plan",
    "estimate the replicas, cores, network and memory that a load takes",
    "  sealserve plan --rows-per-second 20000 --layout column --address 127.0.0.1:50051\n"
    "  sealserve bench --replay --concurrency 8 --json run.json\n"
    "  sealserve plan --rows-per-second 20000 --clients 500 --bench run.json",
    configure,
    run,
)
