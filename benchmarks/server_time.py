"""The server's time for an item, from its metrics: private replies tell it coarsely."""

from collections.abc import Callable
from typing import TypeVar

from tests.support.metrics import scraped

T = TypeVar("T")


def with_server_seconds(
    metrics_address: str, layout: str, work: Callable[[], T], model: str = "mnist"
) -> tuple[T, float]:
    """Do some work, and return what it returns with the server's mean time for an item meanwhile.

    The time is that of checks and arithmetic, as ItemDone.server_seconds has it.

    Args:
        metrics_address: of the service.
        layout: of the items that count.
        work: asks the service, of one process, for such items.
        model: the name of the model that is asked for.
    """
    seconds, items = _totals(metrics_address, model, layout)
    done = work()
    seconds_after, items_after = _totals(metrics_address, model, layout)
    return done, (seconds_after - seconds) / (items_after - items)


def _totals(metrics_address: str, model: str, layout: str) -> tuple[float, float]:
    metrics, labels = scraped(f"http://{metrics_address}/metrics"), {"model": model, "layout": layout}
    seconds = sum(metrics("item_seconds_total", stage=stage, **labels) for stage in ("load", "arithmetic"))
    return seconds, metrics("items_total", **labels)
