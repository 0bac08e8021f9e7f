"""The server's time for an item is a mean over a layout's items, as its metrics count them."""

from collections.abc import Iterator

import pytest

from benchmarks import server_time
from tests.support.metrics import Metrics


def samples(items: int, load: float, arithmetic: float) -> str:
    row, column = 'model="mnist",layout="row"', 'model="mnist",layout="column"'
    return f"""
# TYPE sealserve_items_total counter
sealserve_items_total{{{row}}} {items}
sealserve_items_total{{{column}}} 7
# TYPE sealserve_item_seconds_total counter
sealserve_item_seconds_total{{{row},stage="load"}} {load}
sealserve_item_seconds_total{{{row},stage="arithmetic"}} {arithmetic}
sealserve_item_seconds_total{{{row},stage="reply"}} 100
sealserve_item_seconds_total{{{column},stage="load"}} 1000
"""


def test_it_is_the_mean_of_checks_and_arithmetic_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    scrapes: Iterator[Metrics] = map(Metrics, [samples(10, 1.0, 2.0), samples(14, 1.5, 3.5)])
    asked = list[str]()

    def scraped(url: str) -> Metrics:
        asked.append(url)
        return next(scrapes)

    monkeypatch.setattr(server_time, "scraped", scraped)
    done, seconds = server_time.with_server_seconds("127.0.0.1:9", "row", lambda: list(asked))
    assert done == ["http://127.0.0.1:9/metrics"], "one scrape comes before the work, one after it"
    assert asked == done * 2
    assert seconds == (0.5 + 1.5) / 4
