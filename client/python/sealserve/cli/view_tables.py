"""The tables of `sealserve top`, for a terminal.

Cells are texts of rich's, never its markup: a model may be called "[red]".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from sealserve.cli.service_view import ModelView, RefusalView, ReplicaState, ReplicaView, ServiceView

MAX_ROWS = 20
_UNKNOWN = "-"
_VERSION_CHARACTERS = 12
_LEAST_TEXT = 7  # characters of a text in a line, however narrow the terminal
_PADDING = 2  # of a column
_SCHEME, _PATH = "http://", "/metrics"  # of nearly every endpoint
_TABLES = 3
_OTHER_LINES = 2 + 3 * _TABLES  # those above the tables, and the title, heads and caption of each
_STYLES = {
    ReplicaState.READY: "green",
    ReplicaState.NOT_READY: "yellow",
    ReplicaState.STOPPING: "yellow",
    ReplicaState.RESTARTED: "bold yellow",
    ReplicaState.NO_ANSWER: "bold red",
}


def tables(view: ServiceView, seconds: float, *, height: int | None = None) -> RenderableType:
    """Render a view.

    Args:
        view: what replicas did.
        seconds: about how long that took.
        height: the lines of the screen; None if what is beyond the last one can be seen, too.
    """
    ready = sum(replica.state is ReplicaState.READY for replica in view.replicas)
    head = f"{_number(view.rows_per_second, 1)} rows/s, {ready} of {len(view.replicas)} replicas ready"
    if view.is_partial:
        head += "; rates are of the replicas that have any"
    most = MAX_ROWS if height is None else min(MAX_ROWS, max(1, (height - _OTHER_LINES) // _TABLES))
    return Group(
        Text(f"{head} (last {seconds:g} s)"),
        _models(view.models, most),
        _refusals(view.refusals, most),
        _replicas(view.replicas, most),
    )


def _models(models: Sequence[ModelView], most: int) -> RenderableType:
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
    return _Table("models", heads, 4, list(rows), most)


def _refusals(refusals: Sequence[RefusalView], most: int) -> RenderableType:
    rows = (
        (
            *(refusal.reason, refusal.limit or _UNKNOWN, refusal.tenant or _UNKNOWN),
            *(_number(refusal.per_second, 1), _number(refusal.count, 0)),
        )
        for refusal in refusals
    )
    return _Table("refusals", ("REASON", "LIMIT", "TENANT", "PER S", "SINCE START"), 3, list(rows), most)


def _replicas(replicas: Sequence[ReplicaView], most: int) -> RenderableType:
    heads = (
        *("REPLICA", "STATE", "READY", "RESTARTS", "ROWS/S", "BUSY"),
        *("WAITING", "HELD MB", "KEYS MB", "KEY HITS"),
    )
    rows: Iterable[tuple[str | Text, ...]] = (
        (
            replica.url.removeprefix(_SCHEME).removesuffix(_PATH),
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
    return _Table("replicas", heads, 2, list(rows), most)


@dataclass(frozen=True)
class _Table:
    """A table of as many columns as there is room for, with a word on those left out.

    Rich would cut numbers where it has no room: 12,345 would read 12,3.

    Attributes:
        title: of the table.
        heads: of its columns.
        text_count: how many columns, the first ones, are of texts, which may take several lines.
        rows: the cells of each row.
        most: how many rows are shown.
    """

    title: str
    heads: Sequence[str]
    text_count: int
    rows: Sequence[Sequence[str | Text]]
    most: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.rows:
            yield Text(f"no {self.title}")
            return
        shown, rows = self._columns(options.max_width), self.rows[: self.most]
        left_out = [f"{len(self.rows) - len(rows)} more"] if len(rows) < len(self.rows) else []
        left_out += [head for number, head in enumerate(self.heads) if number not in shown]
        caption = Text(f"and {', '.join(left_out)}: --json has them") if left_out else None
        table = Table(title=Text(self.title), title_justify="left", caption=caption, box=None)
        for number in shown:
            is_text = number < self.text_count
            table.add_column(
                Text(self.heads[number]), justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold"
            )
        for row in rows:
            table.add_row(*(_text(row[number]) for number in shown))
        yield table

    def _columns(self, width: int) -> list[int]:
        """Return the numbers of the columns that fit: the first text and number before others."""
        wanted = sorted(range(len(self.heads)), key=lambda number: number not in (0, self.text_count))
        shown = list[int]()
        for number in wanted:
            widest = max(_text(cell).cell_len for cell in (self.heads[number], *(row[number] for row in self.rows)))
            width -= _PADDING + (min(widest, _LEAST_TEXT) if number < self.text_count else widest)
            if width < 0 and len(shown) > 1:
                break
            shown.append(number)
        return sorted(shown)


def _text(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)


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
