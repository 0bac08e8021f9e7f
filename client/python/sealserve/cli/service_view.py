"""ServiceView: what the replicas of a service did between two scrapes of their metrics. No I/O."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from sealserve.cli.metrics_page import COUNTERS, MAX_VALUE, Labels, MetricsPage, summed
from sealserve.errors import SealserveError

QUANTILES = {"p50": 0.5, "p99": 0.99}
MAX_MODELS = 100
MAX_REFUSALS = 100
_ROUNDING = 1e-9

_Buckets = dict[float, float]  # how many were at most so long, by seconds


class ReplicaState(Enum):
    """The state of a replica."""

    READY = "ready"
    NOT_READY = "not ready"
    STOPPING = "stopping"
    RESTARTED = "restarted"  # since the scrape before: there are no rates
    NO_ANSWER = "no answer"


@dataclass(frozen=True, kw_only=True)
class ReplicaView:
    """A replica between two scrapes. None stands for what is not known.

    Attributes:
        url: its metrics endpoint.
        problem: why there is no answer.
        processes: the number of its processes.
        ready_processes: how many of them serve and have not been told to stop.
        restarts: how often it was seen to restart.
        busy_share: the seconds of work a second and process. Batches may take several cores.
        key_cache_hit_share: how many of the keys that were needed were in the cache, 0 to 1.
    """

    url: str
    state: ReplicaState
    problem: str = ""
    processes: int = 0
    ready_processes: int = 0
    restarts: int = 0
    rows_per_second: float | None = None
    busy_share: float | None = None
    items_waiting: float | None = None
    held_bytes: float | None = None
    key_cache_bytes: float | None = None
    key_cache_hit_share: float | None = None


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """A model in a layout, of all replicas together.

    Attributes:
        versions: those that are served, with how many replicas serve each.
        verdicts: on the predictions of these versions.
        latency_ms: quantiles of how long items took at the service, by their names; {} of none.
        wait_ms: quantiles of how long they waited for their turn.
    """

    model: str
    layout: str
    versions: Mapping[str, int]
    verdicts: tuple[str, ...]
    rows_per_second: float
    items_per_second: float
    latency_ms: Mapping[str, float]
    wait_ms: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RefusalView:
    """Refused calls and items of a kind, of all replicas together.

    Attributes:
        reason: the class of the error.
        limit: the quota, the capacity or the limit that refused them; "" for none.
        tenant: whose quota it is; "" for the service's own.
        per_second: how many there are a second.
        count: how many there have been since the replicas began.
    """

    reason: str
    limit: str
    tenant: str
    per_second: float
    count: float


@dataclass(frozen=True, kw_only=True)
class ServiceView:
    """Replicas of a service between two scrapes.

    Attributes:
        models: at most MAX_MODELS, those with the most rows a second first.
        refusals: at most MAX_REFUSALS, the most frequent first.
        replicas: in the order in which they were named.
        is_partial: whether a replica has no rates, so that sums are of the others only.
    """

    rows_per_second: float
    models: Sequence[ModelView]
    refusals: Sequence[RefusalView]
    replicas: Sequence[ReplicaView]
    is_partial: bool


@dataclass
class Watch:
    """What is known of replicas from one scrape to the next.

    Attributes:
        pages: the last page of each replica that has answered, by its URL.
        restarts: how often each was seen to restart.
    """

    pages: dict[str, MetricsPage] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def next_view(self, answers: Mapping[str, MetricsPage | SealserveError]) -> ServiceView:
        """Return what happened since the answers before, and keep these in their place.

        A replica that has not answered before has no rates yet. Nor has one that has restarted
        meanwhile: its counters began anew.
        """
        replicas, intervals = list[ReplicaView](), list[_Interval]()
        for url, answer in answers.items():
            if isinstance(answer, SealserveError):
                replicas.append(
                    ReplicaView(url=url, state=ReplicaState.NO_ANSWER, problem=str(answer), restarts=self.restarts[url])
                )
                continue
            before = self.pages.get(url)
            self.pages[url] = answer
            has_restarted = before is not None and _has_restarted(before, answer)
            self.restarts[url] += has_restarted
            interval = None if before is None or has_restarted else _Interval.between(before, answer)
            if interval is not None:
                intervals.append(interval)
            state = ReplicaState.RESTARTED if has_restarted else _state(answer)
            replicas.append(_replica_view(url, state, answer, interval, self.restarts[url]))
        pages = [answer for answer in answers.values() if isinstance(answer, MetricsPage)]
        return ServiceView(
            rows_per_second=sum(interval.rate("rows_total") for interval in intervals),
            models=_model_views(pages, intervals),
            refusals=_refusal_views(pages, intervals),
            replicas=replicas,
            is_partial=len(intervals) < len(answers),
        )


@dataclass(frozen=True)
class _Interval:
    """The increase of a replica's counters between two pages, and the seconds between them."""

    seconds: float
    increases: Mapping[tuple[str, Labels], float]

    @classmethod
    def between(cls, before: MetricsPage, after: MetricsPage) -> "_Interval | None":
        """Return the interval; None if no time has passed."""
        if (seconds := after.taken - before.taken) <= 0:
            return None
        increases = {
            key: max(0.0, value - before.samples.get(key, 0.0))
            for key, value in after.samples.items()
            if key[0] in COUNTERS
        }
        return cls(seconds, increases)

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        return summed(self.increases, name, *labels)

    def rate(self, name: str) -> float:
        return self.by(name).get((), 0.0) / self.seconds


def _has_restarted(before: MetricsPage, after: MetricsPage) -> bool:
    """Whether a replica began anew: a counter has fallen, or all of its processes began later.

    If some of its processes were replaced, those that replace them continue their counts. Sums of
    the same seconds of several processes may differ by a rounding error.
    """
    counted = ((key, value) for key, value in before.samples.items() if key[0] in COUNTERS)
    if any(after.samples.get(key, 0.0) < value * (1 - _ROUNDING) for key, value in counted):
        return True
    began, begins = (page.by("process_start_time_seconds", "process") for page in (before, after))
    return bool(began and begins) and min(begins.values()) > max(began.values())


def _state(page: MetricsPage) -> ReplicaState:
    """Return the state of a replica that has answered."""
    if page.sum("stopping"):
        return ReplicaState.STOPPING
    return ReplicaState.READY if page.sum("ready") else ReplicaState.NOT_READY


def _replica_view(
    url: str, state: ReplicaState, page: MetricsPage, interval: _Interval | None, restarts: int
) -> ReplicaView:
    ready = page.by("ready", "process").values()
    hit_share = busy_share = None
    if interval is not None:
        hits, misses = (interval.rate(f"key_cache_{name}_total") for name in ("hits", "misses"))
        hit_share = hits / (hits + misses) if hits + misses else None
        busy_share = interval.rate("item_seconds_total") / len(ready) if ready else None
    return ReplicaView(
        url=url,
        state=state,
        processes=len(ready),
        ready_processes=sum(map(bool, ready)),
        restarts=restarts,
        rows_per_second=None if interval is None else interval.rate("rows_total"),
        busy_share=busy_share,
        items_waiting=page.sum("items_waiting"),
        held_bytes=page.sum("held_bytes"),
        key_cache_bytes=page.sum("key_cache_bytes"),
        key_cache_hit_share=hit_share,
    )


def _model_views(pages: Sequence[MetricsPage], intervals: Sequence[_Interval]) -> list[ModelView]:
    """Return the models that are served, or have scored an item, by the layouts of the items."""
    rows, items = (_rates(intervals, name, "model", "layout") for name in ("rows_total", "items_total"))
    latency, wait = (_buckets(intervals, name) for name in ("item_duration_seconds_bucket", "wait_seconds_bucket"))
    asked = {key for page in pages for key in page.by("items_total", "model", "layout")}
    versions: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    verdicts = defaultdict[str, set[str]](set)
    for page in pages:
        for (model, version), is_served in page.by("model_info", "model", "version").items():
            if is_served:  # 0 once another version has replaced it
                versions[model][version] += 1
        for (model, verdict), is_current in page.by("model_verdict", "model", "verdict").items():
            if is_current:
                verdicts[model].add(verdict)
    unasked = {(model, "") for model in versions.keys() - {model for model, _ in asked}}
    views = [
        ModelView(
            model=key[0],
            layout=key[1],
            versions=dict(versions[key[0]]),
            verdicts=tuple(sorted(verdicts[key[0]])),
            rows_per_second=rows[key],
            items_per_second=items[key],
            latency_ms=_quantiles(latency[key]),
            wait_ms=_quantiles(wait[key]),
        )
        for key in asked | unasked
    ]
    return sorted(views, key=lambda view: (-view.rows_per_second, view.model, view.layout))[:MAX_MODELS]


def _refusal_views(pages: Sequence[MetricsPage], intervals: Sequence[_Interval]) -> list[RefusalView]:
    labels = "reason", "limit", "tenant"
    rates, counts = _rates(intervals, "refusals_total", *labels), defaultdict[tuple[str, ...], float](float)
    for page in pages:
        for key, count in page.by("refusals_total", *labels).items():
            counts[key] += count
    views = [
        RefusalView(reason=key[0], limit=key[1], tenant=key[2], per_second=rates[key], count=count)
        for key, count in counts.items()
        if count
    ]
    return sorted(views, key=lambda view: (-view.per_second, -view.count, view.reason))[:MAX_REFUSALS]


def _rates(intervals: Sequence[_Interval], name: str, *labels: str) -> defaultdict[tuple[str, ...], float]:
    """Return how much counters increased a second, summed over replicas."""
    rates = defaultdict[tuple[str, ...], float](float)
    for interval in intervals:
        for key, increase in interval.by(name, *labels).items():
            rates[key] += increase / interval.seconds
    return rates


def _buckets(intervals: Sequence[_Interval], name: str) -> defaultdict[tuple[str, ...], _Buckets]:
    """Return the buckets of histograms by model and layout, summed over replicas."""
    found: defaultdict[tuple[str, ...], _Buckets] = defaultdict(lambda: defaultdict(float))
    for interval in intervals:
        for (model, layout, bound), increase in interval.by(name, "model", "layout", "le").items():
            if (seconds := _bound(bound)) is not None:
                found[model, layout][seconds] += increase
    return found


def _bound(text: str) -> float | None:
    """Return the upper end of a bucket; None if it has none."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds <= MAX_VALUE or seconds == math.inf else None  # NaN has none


def _quantiles(buckets: _Buckets) -> dict[str, float]:
    """Return QUANTILES in milliseconds, as Prometheus' histogram_quantile estimates them."""
    found = {name: histogram_quantile(buckets, share) for name, share in QUANTILES.items()}
    return {name: 1e3 * value for name, value in found.items() if value is not None}


def histogram_quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """Estimate a quantile from cumulative buckets, linear within one, as Prometheus does.

    Args:
        buckets: how many values were at most so great, by that bound. The greatest bound is
            infinity.
        share: of the values that are at most the quantile, 0 to 1.

    Returns:
        the quantile; the greatest finite bound if it is beyond that; None if there are no values.
    """
    bounds = sorted(buckets)
    total = buckets.get(math.inf, 0.0)
    if total <= 0 or len(bounds) < 2:
        return None
    low, below = 0.0, 0.0
    for bound in bounds[:-1]:
        count = buckets[bound]
        if count >= share * total:
            return low + (bound - low) * max(0.0, share * total - below) / (count - below) if count > below else bound
        low, below = bound, max(below, count)
    return bounds[-2]
