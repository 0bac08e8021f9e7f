"""`sealserve top`: a live view of a service's replicas, from their metrics."""

import json
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sealserve.cli.command import Command
from sealserve.errors import InputError, TransportError

if TYPE_CHECKING:
    from sealserve.cli.service_view import ServiceView

_MAX_REPLICAS = 200
_LEAST_INTERVAL_SECONDS = 0.1


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--metrics",
        nargs="+",
        action="extend",
        required=True,
        type=_url,
        metavar="URL",
        help="the metrics endpoint of each replica: http://HOST:PORT/metrics, or HOST:PORT; see --metrics-address of "
        "`sealserve serve`",
    )
    parser.add_argument(
        "--interval", type=_seconds, default=2.0, metavar="SECONDS", help="from one view to the next (%(default)g)"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=2.0,
        metavar="SECONDS",
        help="how long a whole answer may take (%(default)g)",
    )
    parser.add_argument("--once", action="store_true", help="show one view, after one interval, and end")
    parser.add_argument("--json", action="store_true", help="write a view a line, for programs")


def run(arguments: Namespace) -> int:
    """Show views until Ctrl-C, or one."""
    import rich  # noqa: F401  # it is missed first where the extra is not installed

    urls = list(dict.fromkeys(arguments.metrics))
    if len(urls) > _MAX_REPLICAS:
        raise InputError(f"{len(urls)} endpoints are more than {_MAX_REPLICAS}: name fewer")
    if not (arguments.once or arguments.json or sys.stdout.isatty()):
        raise InputError("stdout is no terminal: use --once or --json")
    views = _views(urls, arguments.interval, arguments.timeout)
    try:
        if arguments.once:
            view = next(views)
            _write(view, arguments)
            if all(replica.problem for replica in view.replicas):
                raise TransportError(f"no replica answers: {view.replicas[0].url} {view.replicas[0].problem}")
        elif arguments.json:
            for view in views:
                _write(view, arguments)
        else:
            _show(views, arguments.interval)
    except KeyboardInterrupt:  # the way out
        pass
    return 0


def _views(urls: list[str], interval: float, timeout: float) -> "Iterator[ServiceView]":
    """Scrape, and yield a view after each interval."""
    from sealserve.cli.metrics_page import Scraper
    from sealserve.cli.service_view import Watch

    scraper, watch = Scraper(urls, timeout), Watch()
    due = time.monotonic()
    watch.next_view(scraper.scrape())
    while True:
        due = max(due + interval, time.monotonic())  # a silent replica takes longer than the interval
        time.sleep(max(0.0, due - time.monotonic()))
        yield watch.next_view(scraper.scrape())


def _write(view: "ServiceView", arguments: Namespace) -> None:
    """Write a view on stdout: as JSON, or as tables."""
    if arguments.json:
        described = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **_as_dict(view)}
        print(json.dumps(described), flush=True)
        return
    from rich.console import Console

    from sealserve.cli.view_tables import tables

    Console().print(tables(view, arguments.interval))


def _as_dict(view: "ServiceView") -> dict[str, Any]:
    """Convert a view for JSON."""
    described = asdict(view)
    for replica in described["replicas"]:
        replica["state"] = replica["state"].value
    return described


def _show(views: "Iterator[ServiceView]", interval: float) -> None:
    """Show views in place, each instead of the one before."""
    from rich.console import Console
    from rich.live import Live

    from sealserve.cli.view_tables import tables

    with Live("asking ...", console=Console(), screen=True, auto_refresh=False) as live:
        for view in views:
            live.update(tables(view, interval, height=live.console.height), refresh=True)


def _url(text: str) -> str:
    from sealserve.cli.metrics_page import metrics_url

    try:
        return metrics_url(text)
    except InputError as error:
        raise ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        if _LEAST_INTERVAL_SECONDS <= (seconds := float(text)) <= 3600:
            return seconds
    except ValueError:
        pass
    raise ArgumentTypeError(f"{text!r} is not a number of seconds from {_LEAST_INTERVAL_SECONDS:g} to 3600")


COMMAND = Command(
    "top",
    "show what the replicas of a service do, from their metrics",
    "  sealserve top --metrics 10.0.0.4:9464 10.0.0.5:9464\n"
    "  sealserve top --metrics http://127.0.0.1:9464/metrics --once --json",
    configure,
    run,
    extra="top",
)
