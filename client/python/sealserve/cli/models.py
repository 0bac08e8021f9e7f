"""`sealserve models list` and `sealserve models show`: what a service serves."""

import dataclasses
import json
import math
from argparse import ArgumentParser, Namespace
from collections import Counter
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealserve.cli.command import Command, add_service_options, credentials
from sealserve.he.parameters import Scheme
from sealserve.protocol.text import counted, printable, printable_list, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealserve.protocol.model import Model, Offer, Verdict

_SHOWN_COLUMNS = 40
_OPEN = "open: whoever sees a request with its reply can compute the quantized weights"
_PRIVATE = (
    "private: a reply tells the scores, and a client that does not keep to the protocol no more bits than they have"
)
_PRIVATE_FROM_HONEST_CLIENTS = (
    "private, promised against clients that keep to the protocol only: any other may compute all weights from one batch"
)

_MOST_RANGES = 30  # features whose ranges are shown one by one
_NAME_COLUMNS = 23  # of a feature's name
_GROUNDS = {
    Scheme.BFV: "proven, rounding of features included",
    Scheme.CKKS: "estimated from the noise, which has no useful proven bound",
}


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="a line for each model")
    showing = actions.add_parser("show", help="everything about one model")
    showing.add_argument(
        "--save", type=Path, metavar="FILE", help="save what --expect compares: columns, grid and labels"
    )
    showing.add_argument("model", nargs="?", default="", metavar="NAME", help="may be left out if there is one only")
    for action, act in ((listing, _list), (showing, _show)):
        add_service_options(action)
        action.add_argument("--json", action="store_true", help="for programs")
        action.set_defaults(action=act)


def run(arguments: Namespace) -> int:
    """List the models, or show one."""
    from sealserve.client import Client

    with Client(
        arguments.address,
        model=getattr(arguments, "model", ""),
        credentials=credentials(arguments),
        timeout_seconds=arguments.timeout,
    ) as client:
        arguments.action(client, arguments)
    return 0


def _list(client: Any, arguments: Namespace) -> None:
    models = list(client.models())
    if arguments.json:
        print(json.dumps([_with_pin(model) for model in models], indent=2))
        return
    print(f"{'NAME':<20} {'FEATURES':>8} {'SCORES':>6}  {'TASK':<14} {'VERDICT':<9} PARAMETER SETS")
    for model in models:
        sets = ", ".join(offer.parameters.parameter_set.name for offer in model.offers)
        if model.unknown_requirements:
            sets = "for a later version: update sealserve"
        output, verdict = model.output, _word(model.verdict)
        print(
            f"{model.name:<20} {model.schema.column_count:>8} {output.score_count:>6}  {output.task.value:<14} "
            f"{verdict:<9} {sets}"
        )


def _show(client: Any, arguments: Namespace) -> None:
    from sealserve.protocol.pin import Pin

    model, pin = client.model, Pin.of(client.model)
    if arguments.save:
        pin.save(arguments.save)
    if arguments.json:
        print(json.dumps(_with_pin(model), indent=2))
    else:
        print(describe(model), f"{'pin':<28} {pin.digest}", sep="\n")


def _with_pin(model: "Model") -> dict[str, Any]:
    from sealserve.protocol.pin import Pin

    return {**as_dict(model), "verdict": as_dict(model.verdict), "pin": Pin.of(model).digest}


def as_dict(value: Any) -> Any:
    """Convert a model for JSON."""
    from sealserve.he.layouts import Layout
    from sealserve.steps.program import Program

    if isinstance(value, Layout):
        return value.name
    if isinstance(value, Program):  # its tables may have megabytes
        return [type(step).__name__ for step in value.steps]
    if dataclasses.is_dataclass(value):
        return {field.name: as_dict(getattr(value, field.name)) for field in dataclasses.fields(value)}
    match value:
        case Enum():
            return value.value
        case bytes():
            return value.hex()
        case frozenset():
            return sorted(as_dict(member) for member in value)
        case tuple() | list():
            return [as_dict(member) for member in value]
        case bool() | int() | float() | str() | None:
            return value
    return value.tolist()


def describe(model: "Model") -> str:
    """Describe a model and the costs of its offers."""
    grid, output = model.grid, model.output
    names = printable_list(model.schema.column_names, 8)
    described = "columns" if model.schema.columns else "features"
    lines = [
        ("name", model.name),
        ("version", model.version),
        ("config", model.config_id),
        ("task", f"{output.task.value}, {counted(output.score_count, 'scores')}, link {output.link.value}"),
        ("labels", printable_list(output.classes, 20) or "none"),
        (described, f"{model.schema.column_count}" + (f": {names}" if names else "")),
        *_describe_steps(model),
        ("range", f"{_span(grid.minimum)} to {_span(grid.maximum)}, step {_span(grid.step)}"),
        *_describe_ranges(model),
        *([("groups", f"{len(grid.constraints.checked.exactly_one):,} of features")] if grid.has_groups else []),
        ("verdict", _word(model.verdict)),
    ]
    for offer in model.offers:
        lines += describe_offer(offer, has_labels=bool(output.classes))
    limits = model.limits
    lines.append(("message at most", f"{limits.max_message_bytes:,} bytes"))
    lines.append(("in flight at most", f"{limits.window_bytes:,} bytes, {limits.max_open_items} open items a stream"))
    lines.append(("connections", f"{limits.suggested_connections} suggested"))
    return "\n".join(f"{name:<28} {value}" for name, value in lines)


def _describe_ranges(model: "Model") -> "Iterator[tuple[str, str]]":
    """Describe the range of each feature, where they differ and are few."""
    grid = model.grid
    if grid.feature_count > _MOST_RANGES or len({*zip(grid.minimum, grid.maximum, grid.step, strict=True)}) == 1:
        return
    for feature, name in enumerate(model.feature_names):
        low, high, step = grid.minimum[feature], grid.maximum[feature], grid.step[feature]
        kept = ", no values between" if grid.keeps[feature] else ""
        yield f"  {quoted(name, _NAME_COLUMNS)}", f"{low:g}..{high:g}, step {step:g}{kept}"


def _describe_steps(model: "Model") -> list[tuple[str, str]]:
    """Describe what becomes of columns: pairs of a name and a value."""
    columns = model.schema.columns[:_SHOWN_COLUMNS]
    lines = [(f"  {printable(column.name) or number}", column.words) for number, column in enumerate(columns)]
    if len(model.schema.columns) > _SHOWN_COLUMNS:
        lines.append(("  ...", ""))
    if model.steps is not None:
        kinds = Counter(type(step).__name__ for step in model.steps.steps)
        counted_kinds = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        lines.append(("steps", f"{counted_kinds or 'none'}; {model.steps_bytes:,} bytes, SHA-256 {model.steps_id}"))
        lines.append(("features", f"{model.grid.feature_count}"))
    return lines


def describe_offer(offer: "Offer", *, has_labels: bool) -> list[tuple[str, str]]:
    """Describe an offer: pairs of a name and a value."""
    parameters, cost, rows = offer.parameters, offer.cost, offer.rows_per_item
    modulus_bits = parameters.parameter_set.modulus.bit_length()
    return [
        ("offer", f"{offer.layout.name}, {parameters.parameter_set.name}"),
        ("  encryption", f"N {parameters.parameter_set.poly_modulus_degree}, q {modulus_bits} bits, {_numbers(offer)}"),
        ("  verdict", _word(offer.verdict)),
        ("  score error bound", f"{offer.score_error_bound:.3g} ({_GROUNDS[parameters.scheme]})"),
        *_describe_errors(offer, has_labels),
        ("  rows an item", str(rows)),
        ("  classes a polynomial", str(offer.classes_per_polynomial)),
        ("  bytes up, down an item", f"{cost.request_bytes:,}, {cost.reply_bytes:,}"),
        ("  bytes up, down a row", f"{cost.request_bytes / rows:,.0f}, {cost.reply_bytes / rows:,.0f} in a full item"),
        ("  server time an item", f"about {cost.server_seconds * 1e3:.2f} ms"),
        (
            "  key to register, once",
            f"{cost.key_bytes:,} bytes, {offer.required_key.value}" if offer.required_key else "none",
        ),
        ("  weights", _weights(offer)),
    ]


def _describe_errors(offer: "Offer", has_labels: bool) -> "Iterator[tuple[str, str]]":
    """Describe what is published of an offer's errors: little in mode private, nothing of CKKS."""
    observed = offer.observed_error
    if not offer.private_weights and offer.verdict is not None:
        weights, inputs = offer.weight_rounding_error_bound, offer.input_rounding_error_bound
        yield "    of which", f"rounding of weights {weights:.3g}, of features {inputs:.3g}"
        yield "  expected score error", f"{offer.expected_score_error:.3g} r.m.s."
    if observed is None:
        yield "  observed score error", "unknown: no calibration rows were given"
        return
    rows = f"over {observed.row_count:,} rows"
    if not offer.private_weights:
        yield "  observed score error", f"{observed.score_error:.3g} {rows}, {observed.rms_score_error:.3g} r.m.s."
    if has_labels:
        share, expected = observed.label_disagreement, observed.expected_label_disagreement
        figures = f"at most {share:.2%}" if offer.private_weights else f"{share:.2%}, {expected:.2%} expected,"
        yield "  labels that differ", f"{figures} {rows}"


def _word(verdict: "Verdict | None") -> str:
    return verdict.value if verdict else "none"


def _weights(offer: "Offer") -> str:
    if not offer.private_weights:
        return _OPEN
    return _PRIVATE if offer.layout.withstands_malicious_clients else _PRIVATE_FROM_HONEST_CLIENTS


def _numbers(offer: "Offer") -> str:
    t, scale = offer.parameters.plain_modulus, offer.parameters.scale
    if offer.parameters.scheme is Scheme.CKKS:
        return f"scale 2^{math.log2(scale):g}"
    return f"t 2^{t.bit_length() - 1}" if t & (t - 1) == 0 else f"t {t}"


def _span(values: Any) -> str:
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"{low:g}..{high:g} by feature"


COMMAND = Command(
    "models",
    "list the models of a service, or show one",
    "  sealserve models list\n  sealserve models show mnist --json",
    configure,
    run,
)
