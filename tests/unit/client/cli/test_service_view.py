"""What replicas did between two scrapes: rates, quantiles, and none where counters began anew."""

import io
import math

import pytest
from rich.console import Console

from sealserve.cli.metrics_page import MetricsPage, metrics_url, parse_page
from sealserve.cli.service_view import ReplicaState, ServiceView, Watch, histogram_quantile
from sealserve.cli.view_tables import MAX_ROWS, tables
from sealserve.errors import InputError, TransportError

A, B = "http://10.0.0.4:9464/metrics", "http://10.0.0.5:9464/metrics"
DIGITS = 'model="digits",layout="row"'


def page(taken: float, rows: float, *lines: str, start: float = 1000.0, model: str = "digits") -> MetricsPage:
    """A page of a process that has scored rows, one an item: half of them in 10 to 20 ms."""
    offer = f'model="{model}",layout="row"'
    text = [
        f'sealserve_process_start_time_seconds{{process="0"}} {start}',
        'sealserve_ready{process="0"} 1',
        'sealserve_stopping{process="0"} 0',
        f'sealserve_model_info{{model="{model}",version="abcdefghijklmno"}} 1',
        f'sealserve_model_verdict{{model="{model}",verdict="OK"}} 1',
        f"sealserve_rows_total{{{offer}}} {rows}",
        f"sealserve_items_total{{{offer}}} {rows}",
        f'sealserve_item_seconds_total{{{offer},stage="load"}} {0.001 * rows}',
        f'sealserve_item_seconds_total{{{offer},stage="arithmetic"}} {0.002 * rows}',
        f'sealserve_item_duration_seconds_bucket{{{offer},le="0.01"}} {rows / 2}',
        f'sealserve_item_duration_seconds_bucket{{{offer},le="0.02"}} {rows}',
        f'sealserve_item_duration_seconds_bucket{{{offer},le="+Inf"}} {rows}',
        "sealserve_held_bytes 2e6",
        "sealserve_items_waiting 3",
        "sealserve_key_cache_bytes 4e6",
        *lines,
    ]
    return parse_page("\n".join(text) + "\n", taken)


def after(watch: Watch, **answers: MetricsPage | TransportError) -> ServiceView:
    return watch.next_view({A if name == "a" else B: answer for name, answer in answers.items()})


def shown(view: ServiceView, width: int = 160) -> str:
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(tables(view, 2.0))
    return console.export_text()


def test_rates_and_quantiles_are_of_the_increase_and_of_all_replicas() -> None:
    watch = Watch()
    first = after(watch, a=page(10.0, 1000), b=page(10.0, 0))
    assert first.is_partial
    assert [replica.rows_per_second for replica in first.replicas] == [None, None]
    view = after(watch, a=page(12.0, 1200), b=page(14.0, 100))
    assert not view.is_partial
    assert [replica.rows_per_second for replica in view.replicas] == [100, 25]
    assert [replica.busy_share for replica in view.replicas] == pytest.approx([0.3, 0.075])
    (model,) = view.models
    assert view.rows_per_second == model.rows_per_second == model.items_per_second == 125
    assert model.latency_ms == {"p50": pytest.approx(10), "p99": pytest.approx(19.8)}
    assert model.wait_ms == {}
    assert dict(model.versions) == {"abcdefghijklmno": 2}
    assert [replica.state for replica in view.replicas] == [ReplicaState.READY] * 2


def test_a_replica_that_restarts_has_no_rate_and_no_negative_one() -> None:
    watch = Watch()
    after(watch, a=page(10.0, 1000))
    view = after(watch, a=page(12.0, 30, start=1011.0))
    (replica,) = view.replicas
    assert (replica.state, replica.rows_per_second, replica.restarts) == (ReplicaState.RESTARTED, None, 1)
    assert view.rows_per_second == 0
    assert view.models[0].latency_ms == {}
    again = after(watch, a=page(14.0, 50, start=1011.0)).replicas[0]
    assert (again.state, again.rows_per_second, again.restarts) == (ReplicaState.READY, 10, 1)


def test_a_restart_is_known_by_its_time_even_if_the_counts_are_greater_than_before() -> None:
    watch = Watch()
    after(watch, a=page(10.0, 5))
    assert after(watch, a=page(12.0, 50, start=1011.0)).replicas[0].state is ReplicaState.RESTARTED


def test_a_process_that_replaces_another_continues_its_counts() -> None:
    second = 'sealserve_process_start_time_seconds{process="1"} '
    watch = Watch()
    after(watch, a=page(10.0, 100, f"{second}1000"))
    replica = after(watch, a=page(12.0, 120, f"{second}1011")).replicas[0]
    assert (replica.state, replica.rows_per_second) == (ReplicaState.READY, 10)


def test_a_counter_that_is_gone_has_fallen() -> None:
    watch = Watch()
    after(watch, a=page(10.0, 100, 'sealserve_refusals_total{reason="QuotaExceededError"} 5'))
    assert after(watch, a=page(12.0, 200)).replicas[0].state is ReplicaState.RESTARTED


def test_a_replica_without_an_answer_is_shown_and_the_others_are_summed() -> None:
    watch = Watch()
    after(watch, a=page(10.0, 0), b=page(10.0, 0))
    view = after(watch, a=page(12.0, 40), b=TransportError("does not answer within 2 s"))
    assert view.rows_per_second == 20
    assert view.is_partial
    assert view.replicas[1].state is ReplicaState.NO_ANSWER
    text = shown(view)
    assert "20.0 rows/s, 1 of 2 replicas ready; rates are of the replicas that have any" in text
    assert "10.0.0.5:9464  no answer: does not answer within 2 s" in text
    later = after(watch, a=page(14.0, 40), b=page(20.0, 100))
    assert later.replicas[1].rows_per_second == 10, "over the whole time"


def test_states_come_from_the_processes() -> None:
    watch = Watch()
    two = 'sealserve_ready{process="1"} 0'
    view = after(watch, a=page(1.0, 0, two), b=page(1.0, 0, 'sealserve_stopping{process="1"} 1'))
    assert [replica.state for replica in view.replicas] == [ReplicaState.READY, ReplicaState.STOPPING]
    assert (view.replicas[0].ready_processes, view.replicas[0].processes) == (1, 2)
    gone = parse_page('sealserve_ready{process="0"} 0\n', 2.0)
    assert after(watch, a=gone).replicas[0].state is ReplicaState.NOT_READY


def test_refusals_by_reason_the_most_frequent_first() -> None:
    def refusals(quota: float, limit: float) -> tuple[str, str]:
        named = 'reason="QuotaExceededError",limit="rows_per_minute",tenant="clinic"'
        return f"sealserve_refusals_total{{{named}}} {quota}", (
            f'sealserve_refusals_total{{reason="LimitExceededError",limit="max_open_items",tenant=""}} {limit}'
        )

    watch = Watch()
    after(watch, a=page(10.0, 0, *refusals(5, 100)), b=page(10.0, 0, *refusals(0, 0)))
    view = after(watch, a=page(12.0, 0, *refusals(9, 100)), b=page(12.0, 0, *refusals(2, 0)))
    first, second = view.refusals
    assert (first.reason, first.limit, first.tenant) == ("QuotaExceededError", "rows_per_minute", "clinic")
    assert (first.per_second, first.count) == (3, 11)
    assert (second.per_second, second.count) == (0, 100)
    assert next(line for line in shown(view).splitlines() if "clinic" in line).split() == [
        *("QuotaExceededError", "rows_per_minute", "clinic", "3.0", "11")
    ]


def test_the_key_cache() -> None:
    def keys(hits: float, misses: float) -> tuple[str, str]:
        return f"sealserve_key_cache_hits_total {hits}", f"sealserve_key_cache_misses_total {misses}"

    watch = Watch()
    after(watch, a=page(10.0, 0, *keys(10, 10)))
    replica = after(watch, a=page(12.0, 0, *keys(19, 11))).replicas[0]
    assert replica.key_cache_hit_share == pytest.approx(0.9)
    assert (replica.held_bytes, replica.key_cache_bytes, replica.items_waiting) == (2e6, 4e6, 3)


def test_the_tables_in_a_terminal() -> None:
    watch = Watch()
    after(watch, a=page(10.0, 0), b=page(10.0, 0, model="churn"))
    lines = [
        " ".join(line.split())
        for line in shown(after(watch, a=page(12.0, 200), b=page(12.0, 0, model="churn"))).splitlines()
    ]
    assert lines[0] == "100.0 rows/s, 2 of 2 replicas ready (last 2 s)"
    assert "digits row abcdefghijkl OK 100.0 100.0 10.0 19.8 -" in lines
    assert "churn row abcdefghijkl OK 0.0 0.0 - - -" in lines
    assert "no refusals" in lines
    assert "10.0.0.4:9464 ready 1/1 0 100.0 30 % 3 2.0 4.0 -" in lines


def test_a_rollout_shows_how_many_replicas_serve_which_version() -> None:
    watch = Watch()
    other = 'sealserve_model_info{model="digits",version="new"} 1'
    view = after(watch, a=page(1.0, 0), b=page(1.0, 0, other))
    assert dict(view.models[0].versions) == {"abcdefghijklmno": 2, "new": 1}
    assert "abcdefghijkl (2), new (1)" in shown(view)


def test_a_version_that_has_been_replaced_is_gone_and_so_is_its_verdict() -> None:
    replaced = (
        'sealserve_model_info{model="digits",version="old"} 0',
        'sealserve_model_verdict{model="digits",verdict="UNCHECKED"} 0',
        'sealserve_model_info{model="removed",version="1"} 0',
    )
    (model,) = after(Watch(), a=page(1.0, 0, *replaced)).models
    assert (dict(model.versions), model.verdicts) == ({"abcdefghijklmno": 1}, ("OK",))


def test_a_bucket_whose_bound_is_no_time_is_left_out() -> None:
    bucket = f"sealserve_item_duration_seconds_bucket{{{DIGITS},le="
    watch = Watch()
    after(watch, a=page(10.0, 0))
    view = after(watch, a=page(12.0, 0, f'{bucket}"1e308"}} 9', f'{bucket}"nan"}} 9', f'{bucket}"+Inf"}} 9'))
    assert all(math.isfinite(milliseconds) for milliseconds in view.models[0].latency_ms.values())


def test_a_model_that_nobody_has_asked_for_is_there() -> None:
    view = after(Watch(), a=parse_page('sealserve_model_info{model="quiet",version="1"} 1\n', 1.0))
    assert [(model.model, model.layout) for model in view.models] == [("quiet", "")]


def test_more_replicas_than_fit_are_counted() -> None:
    answers = {f"http://10.0.0.{number}/metrics": page(1.0, 0) for number in range(MAX_ROWS + 3)}
    text = shown(Watch().next_view(answers))
    assert "and 3 more: --json has them" in text
    assert f"10.0.0.{MAX_ROWS - 1} " in text
    assert f"10.0.0.{MAX_ROWS} " not in text


@pytest.mark.parametrize("width", [24, 40, 60, 80, 160])
def test_a_narrow_terminal_shows_fewer_columns_and_no_number_in_part(width: int) -> None:
    watch = Watch()
    after(watch, a=page(10.0, 0))
    text = shown(after(watch, a=page(12.0, 2_469_134)), width)
    assert max(map(len, text.splitlines())) <= width
    assert {part for part in text.split() if part.startswith("1,")} == {"1,234,567.0"}
    assert ("--json has" in text) is (width < 160)


def test_a_low_terminal_shows_some_rows_of_each_table() -> None:
    """Live views take the whole screen: what is below its last line would not be seen."""
    view = Watch().next_view({f"http://10.0.0.{number}/metrics": page(1.0, 0) for number in range(MAX_ROWS)})
    console = Console(record=True, width=160, file=io.StringIO(), force_terminal=True)
    console.print(tables(view, 2.0, height=24))
    text = console.export_text()
    assert len(text.splitlines()) <= 24
    assert "10.0.0.0 " in text
    assert "more: --json has them" in text


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ({1.0: 5, 2.0: 10, math.inf: 10}, 0.5, 1.0),
        ({1.0: 5, 2.0: 10, math.inf: 10}, 0.75, 1.5),
        ({0.0: 9, 1.0: 10, math.inf: 10}, 0.5, 0.0),
        ({1.0: 5, 2.0: 5, math.inf: 10}, 0.99, 2.0),  # beyond the greatest bound
        ({1.0: 9, 2.0: 3, math.inf: 10}, 0.5, 5 / 9),  # falls, which no histogram does
        ({math.inf: 10}, 0.5, None),
        ({1.0: 0, math.inf: 0}, 0.5, None),
        ({1.0: 5, 2.0: 5}, 0.5, None),
        ({}, 0.5, None),
    ],
)
def test_quantiles_are_those_of_prometheus(buckets: dict[float, float], share: float, expected: float | None) -> None:
    assert histogram_quantile(buckets, share) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("10.0.0.4:9464", "http://10.0.0.4:9464/metrics"),
        ("[::1]:9464", "http://[::1]:9464/metrics"),
        ("http://host/", "http://host/metrics"),
        ("https://host/a/metrics?x=1", "https://host/a/metrics?x=1"),
    ],
)
def test_urls(given: str, url: str) -> None:
    assert metrics_url(given) == url


@pytest.mark.parametrize(
    "given",
    [
        "",
        "ftp://host/metrics",
        "file:///etc/passwd",
        "http://",
        "http://u:p@host/",
        "host:99999",
        "a b",
        "http://h/\r\nX: y",
        "a..b:80",
        f"{64 * 'x'}.org:80",
    ],
)
def test_what_is_no_url(given: str) -> None:
    with pytest.raises(InputError):
        metrics_url(given)
