"""`sealserve bench`: the measurement of a running service under load."""

import json
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealserve import __version__
from sealserve.cli.command import Command, add_expect_option, add_service_options, credentials
from sealserve.cli.rows import add_rows_options, rows_file
from sealserve.errors import InputError, TransportError

if TYPE_CHECKING:
    from sealserve.loadtest.driver import LoadDriver
    from sealserve.loadtest.items import LoadItems
    from sealserve.loadtest.ledger import Ledger

_REPLAYED_ROW_ITEMS = 16
_REFRESH_SECONDS = 1.0


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    add_service_options(parser)
    add_expect_option(parser)
    parser.add_argument("--model", default="", metavar="NAME", help="may be left out if the service has one only")
    parser.add_argument(
        "--layout", default="row", metavar="LAYOUT", help="row: single rows; column: batches (%(default)s)"
    )
    add_rows_options(
        parser, required=False, purpose="rows to send, in any format of sealserve predict; else random ones"
    )
    parser.add_argument("--rows", type=int, metavar="N", help="rows an item (row: 1, column: as many as fit)")
    load = parser.add_mutually_exclusive_group()
    load.add_argument(
        "--rate",
        type=float,
        metavar="PER_SECOND",
        help="open loop: items are sent at this rate, whatever the outcome of those before; their latency counts "
        "from when they were due, so that an item that waits behind a slow answer counts as slow",
    )
    load.add_argument(
        "--concurrency",
        type=int,
        default=1,
        metavar="N",
        help="closed loop: so many callers; each sends its next item when it has its answer, or after the "
        "service's retry delay when it was refused (%(default)s)",
    )
    parser.add_argument(
        "--poisson", action="store_true", help="with --rate: at random, as independent users do; else evenly spaced"
    )
    parser.add_argument(
        "--in-flight",
        type=int,
        default=256,
        metavar="N",
        help="with --rate: at most so many at once; items that are due beyond them are sent late (%(default)s)",
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="how long (%(default)g)")
    parser.add_argument(
        "--warm-up", type=float, default=1.0, metavar="SECONDS", help="how long before, uncounted (%(default)g)"
    )
    parser.add_argument(
        "--replay",
        action="store_true",
        help="encrypt beforehand, send the same items again and again and decrypt nothing: for the service's "
        "figures, where one process that encrypts and decrypts could not load it",
    )
    parser.add_argument("--seeded", action="store_true", help="uploads of half the size or less")
    parser.add_argument("--connections", type=int, metavar="N", help="by default as many as the service suggests")
    parser.add_argument("--seed", type=int, default=0, help="of the random rows and arrivals (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go, for programs")
    parser.add_argument("--progress", action="store_true", help="show the live view even if stderr is no terminal")


def run(arguments: Namespace) -> int:
    """Load the service and print its figures.

    The exit code is 0 if the service answered anything and the model's grid refused no row.
    """
    from sealserve.client import Client
    from sealserve.loadtest.items import LoadItems
    from sealserve.loadtest.ledger import Ledger

    _check(arguments)
    file = rows_file(arguments) if arguments.input else None
    with Client(
        arguments.address,
        model=arguments.model,
        credentials=credentials(arguments),
        layout=arguments.layout,
        timeout_seconds=arguments.timeout,
        seeded=arguments.seeded or None,
        expect=arguments.expect,
    ) as client:
        offer = client.offer()
        rows = None if file is None else file.read(client.model.schema)
        if rows is not None and not len(rows):
            raise InputError(f"{arguments.input} has no rows: give at least one")
        row_count = arguments.rows or offer.layout.default_rows_per_item or offer.rows_per_item
        if row_count > offer.rows_per_item:
            raise InputError(f"--rows must be at most {offer.rows_per_item} with {offer.parameters.parameter_set.name}")
        client.register_key(row_count)
        replay = (_REPLAYED_ROW_ITEMS if row_count == 1 else 1) if arguments.replay else 0
        items = LoadItems(client, row_count, replay=replay, seed=arguments.seed, rows=rows)
        connections = arguments.connections or client.model.limits.suggested_connections
        ledger = Ledger()
        seconds = _watch(_driver(arguments, items, connections, ledger), ledger, arguments)
        conditions = _conditions(arguments, items, connections)
    summary = ledger.summary(seconds)
    if arguments.json:
        arguments.json.write_text(json.dumps(conditions | summary, indent=2) + "\n")
    print("\n".join(f"{name:<34} {value}" for name, value in report(summary)))
    if refusal := items.refusal:  # not before: the service must not learn of it
        raise refusal
    if not summary["answered"]:
        reasons = ", ".join(summary["failed"] | summary["refused"]) or "nothing was sent"
        raise TransportError(f"the service answered nothing: {reasons}")
    return 0


def _driver(arguments: Namespace, items: "LoadItems", connections: int, ledger: "Ledger") -> "LoadDriver":
    from sealserve.loadtest.driver import LoadDriver
    from sealserve.loadtest.ledger import due_times

    callers = arguments.concurrency if arguments.rate is None else arguments.in_flight
    due = None
    if arguments.rate is not None:
        seed = arguments.seed if arguments.poisson else None
        due = due_times(arguments.rate, -arguments.warm_up, arguments.seconds, seed=seed)
    return LoadDriver(
        [partial(items.send, arguments.timeout, number % connections) for number in range(callers)],
        ledger,
        arguments.seconds,
        warm_up_seconds=arguments.warm_up,
        due_times=due,
    )


def _check(arguments: Namespace) -> None:
    for name in ("rows", "rate", "concurrency", "in_flight", "seconds", "connections"):
        value = getattr(arguments, name)
        if value is not None and value <= 0:
            raise InputError(f"--{name.replace('_', '-')} must be above 0")
    if arguments.warm_up < 0:
        raise InputError("--warm-up must be at least 0")
    if arguments.poisson and arguments.rate is None:
        raise InputError("--poisson needs a --rate")
    if arguments.json and not arguments.json.parent.is_dir():  # better now than after the run
        raise InputError(f"{arguments.json.parent}: no such directory")


def _watch(driver: "LoadDriver", ledger: "Ledger", arguments: Namespace) -> float:
    """Show the outcomes until all calls end or the user interrupts; return the seconds measured."""
    from tqdm import tqdm

    hidden = None if not arguments.progress else False  # None: unless stderr is a terminal
    shape = "{percentage:3.0f}%|{bar}| {elapsed}, {postfix}"
    with tqdm(total=round(arguments.seconds, 3), bar_format=shape, disable=hidden) as bar:
        try:
            while not driver.wait(_REFRESH_SECONDS):
                recent = ledger.take_recent()
                bar.n = max(0.0, min(arguments.seconds, driver.now))
                p50, p99 = (recent.latency_ms.get(name, float("nan")) for name in ("p50", "p99"))
                bar.set_postfix_str(
                    f"{recent.answered / _REFRESH_SECONDS:,.0f} answers/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
                    f"{recent.refused} refused, {recent.failed} failed"
                )
        except KeyboardInterrupt:  # the figures so far are valid
            driver.stop()
            return float(max(0.0, min(arguments.seconds, driver.now)))
        bar.n = arguments.seconds
        bar.refresh()
    return float(arguments.seconds)


def _conditions(arguments: Namespace, items: "LoadItems", connections: int) -> dict[str, Any]:
    model, offer = items.client.model, items.client.offer(items.row_count)
    loop = ("concurrency",) if arguments.rate is None else ("rate", "poisson", "in_flight")
    return {
        "version": __version__,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "address": arguments.address,
        "model": model.name,
        "parameter_set": offer.parameters.parameter_set.name,
        "rows_an_item": items.row_count,
        "held_bytes": offer.cost.held_bytes,
        "key_bytes": offer.cost.key_bytes,
        "connections": connections,
    } | {name: getattr(arguments, name) for name in ("layout", *loop, "warm_up", "replay", "seeded", "seed")}


def report(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Describe a summary in words: pairs of a name and a value."""
    lines = [
        ("items sent, answered", f"{summary['sent']:,}, {summary['answered']:,} in {summary['seconds']:.1f} s"),
        ("items a second sent, answered", f"{summary['sent_per_second']:,.1f}, {summary['answered_per_second']:,.1f}"),
        ("rows answered a second", f"{summary['rows_per_second']:,.1f}"),
        ("bytes up, down a row", f"{summary['request_bytes_a_row']:,.0f}, {summary['reply_bytes_a_row']:,.0f}"),
        ("latency of answers, ms", _quantiles(summary["latency_ms"])),
        ("of which at the server, ms", _quantiles(summary["server_ms"])),
    ]
    for outcome, times in (("refused", "refusal_ms"), ("failed", "failure_ms")):
        reasons = ", ".join(f"{count:,} {name}" for name, count in sorted(summary[outcome].items()))
        lines.append((outcome, reasons or "none"))
        if reasons:
            lines.append((f"  until {outcome}, ms", _quantiles(summary[times])))
    lines.append(("sent after they were due, ms", _quantiles(summary["sent_late_ms"])))
    return lines


def _quantiles(milliseconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:,.2f}" for name, value in milliseconds.items()) or "none"


COMMAND = Command(
    "bench",
    "load a running service with rows, random or your own, and measure it",
    "  sealserve bench --address 127.0.0.1:50051 --rate 200 --seconds 30\n"
    "  sealserve bench --layout column --concurrency 2 --replay --json column.json",
    configure,
    run,
)
