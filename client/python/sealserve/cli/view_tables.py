"""The tables of `sealserve top`, for a terminal.

Cells are texts of rich's, never its markup: a model may be called "[red]".
"""

from collections.abc import Iterable, Sequence
from itertools import islice

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sealserve.cli.service_view import ModelView, RefusalView, ReplicaState, ReplicaView, ServiceView

MAX_ROWS = 20
_UNKNOWN = "-"
_VERSION_CHARACTERS = 12
_STYLES = {
    ReplicaState.READY: "green",
    ReplicaState.NOT_READY: "yellow",
    ReplicaState.STOPPING: "yellow",
    ReplicaState.RESTARTED: "bold yellow",
    ReplicaState.NO_ANSWER: "bold red",
}


def tables(view: ServiceView, seconds: float) -> RenderableType:
    """Render a view.

    Args:
        view: what replicas did.
        seconds: about how long that took.
    """
    ready = sum(replica.state is ReplicaState.READY for replica in view.replicas)
    head = f"{_number(view.rows_per_second, 1)} rows/s, {ready} of {len(view.replicas)} replicas ready"
    if view.is_partial:
        head += "; rates are of the replicas that have any"
    return Group(
        Text(f"{head} (last {seconds:g} s)"),
        _models(view.models),
        _refusals(view.refusals),
        _replicas(view.replicas),
    )


def _models(models: Sequence[ModelView]) -> RenderableType:
    heads = (*("MODEL", "LAYOUT", "VERSION", "VERDICT"), *("ROWS/S", "ITEMS/S"), *("P50 MS", "P99 MS", "WAIT P99 MS"))
    rows = (
        (
            *(model.model, model.layout or _UNKNOWN, _versions(model), ", ".join(model.verdicts) or _UNKNOWN),
            *(_number(model.rows_per_second, 1), _number(model.items_per_second, 1)),
            *(_number(model.latency_ms.get(name), 1) for name in ("p50", "p99")),
            _number(model.wait_ms.get("p99"), 1),
        )
        for model in models
    )
    return _table("models", heads, 4, rows, len(models))


def _refusals(refusals: Sequence[RefusalView]) -> RenderableType:
    rows = (
        (
            *(refusal.reason, refusal.limit or _UNKNOWN, refusal.tenant or _UNKNOWN),
            *(_number(refusal.per_second, 1), _number(refusal.count, 0)),
        )
        for refusal in refusals
    )
    return _table("refusals", ("REASON", "LIMIT", "TENANT", "PER S", "SINCE START"), 3, rows, len(refusals))


def _replicas(replicas: Sequence[ReplicaView]) -> RenderableType:
    heads = (
        *("REPLICA", "STATE", "READY", "RESTARTS", "ROWS/S", "BUSY"),
        *("WAITING", "HELD MB", "KEYS MB", "KEY HITS"),
    )
    rows: Iterable[tuple[str | Text, ...]] = (
        (
            replica.url,
            Text(_state(replica), _STYLES[replica.state]),
            f"{replica.ready_processes}/{replica.processes}" if replica.processes else _UNKNOWN,
            str(replica.restarts),
            _number(replica.rows_per_second, 1),
            _percent(replica.busy_share),
            _number(replica.items_waiting, 0),
            *(_number(_megabytes(count), 1) for count in (replica.held_bytes, replica.key_cache_bytes)),
            _percent(replica.key_cache_hit_share),
        )
        for replica in replicas
    )
    return _table("replicas", heads, 2, rows, len(replicas))


def _table(
    title: str, heads: Sequence[str], text_count: int, rows: Iterable[Sequence[str | Text]], row_count: int
) -> RenderableType:
    """Make a table, its first columns of text; say how many rows are left out."""
    if not row_count:
        return Text(f"no {title}")
    caption = Text(f"and {row_count - MAX_ROWS} more: --json has them") if row_count > MAX_ROWS else None
    table = Table(title=Text(title), title_justify="left", caption=caption, box=None)
    for number, head in enumerate(heads):
        is_text = number < text_count
        table.add_column(Text(head), justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    for row in islice(rows, MAX_ROWS):
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def _versions(model: ModelView) -> str:
    shown = [version[:_VERSION_CHARACTERS] for version in model.versions]
    if len(shown) > 1:  # a rollout: how many replicas serve which
        shown = [f"{version} ({count})" for version, count in zip(shown, model.versions.values(), strict=True)]
    return ", ".join(shown) or _UNKNOWN


def _state(replica: ReplicaView) -> str:
    return f"{replica.state.value}: {replica.problem}" if replica.problem else replica.state.value


def _number(value: float | None, decimals: int) -> str:
    return _UNKNOWN if value is None else f"{value:,.{decimals}f}"


def _percent(share: float | None) -> str:
    return _UNKNOWN if share is None else f"{100 * share:.0f} %"


def _megabytes(count: float | None) -> float | None:
    return None if count is None else count / 1e6
