"""`sealserve inspect`: what would be served of a model file, and at what cost, or why not."""

import contextlib
import json
import math
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealserve.cli.command import Command
from sealserve.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sealserve.he.layouts import Packing
    from sealserve.protocol.model import Offer
    from sealserve_service.engines.offering import PlannedLayout
    from sealserve_service.planning.plan import Plan


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    # Imported here: a list of commands needs no extra.
    from sealserve_service.commands.options import add_options
    from sealserve_service.models.loading import SUFFIXES_IN_WORDS
    from sealserve_service.settings.options import MODEL_OPTIONS

    parser.add_argument("path", type=Path, metavar="MODEL", help=f"the file of a model: {SUFFIXES_IN_WORDS}")
    add_options(parser, MODEL_OPTIONS)
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: Namespace) -> int:
    """Print what would be served, and what else could be."""
    from threadpoolctl import threadpool_limits

    from sealserve.cli.models import as_dict, describe
    from sealserve_service.catalog.registry import describe_model
    from sealserve_service.catalog.sources import calibration_rows, source_ranges
    from sealserve_service.commands.options import settings_of
    from sealserve_service.engines import offering
    from sealserve_service.models.loading import load_model
    from sealserve_service.settings.options import MODEL_OPTIONS

    settings = settings_of(arguments, MODEL_OPTIONS)
    asked = settings.source(arguments.path.stem, arguments.path)
    model = load_model(asked.path, trust_pickle=settings.trust_pickle)
    calibration = calibration_rows(asked)
    ranges = source_ranges(asked, model, calibration)
    bits = settings.hiding_bits if settings.weights == "private" else None
    with threadpool_limits(1, user_api="blas"):  # as in a serving process: engines time themselves
        modes = None, settings.hiding_bits
        layouts = list(offering.plan_layouts(model, ranges, modes=modes, max_score_error=asked.max_score_error))
        offered = [planned for planned in layouts if planned.hiding_bits == bits]
        if isinstance(offered[0].chosen, PlanError):
            raise offered[0].chosen
        grid = offered[0].chosen.grid
        engines = offering.engines(asked.name, model, grid, offered, calibration=calibration)
        served = describe_model(asked.name, model, grid, settings.limits, engines).model
        plans = summaries(layouts, bits)
    if arguments.json:
        print(json.dumps({"model": as_dict(served), "plans": plans}, indent=2))
    else:
        print(describe(served))
        print("\nWhat --weights and a smaller --max-score-error would cost, an item:")
        print(table(plans))
    return 0


def summaries(layouts: "Iterable[PlannedLayout]", served_bits: int | None) -> list[dict[str, Any]]:
    """Summarize the plans of all layouts; the mode with `served_bits` of hiding is served."""
    found = list[dict[str, Any]]()
    for planned in layouts:
        for plan in planned.plans:
            with contextlib.suppress(PlanError):  # too many classes for the engine
                is_chosen = plan is planned.chosen and planned.hiding_bits == served_bits
                found.append(summary(plan, planned.engine_type(plan).offer, is_chosen=is_chosen))
    return found


def summary(plan: "Plan[Packing]", offer: "Offer", *, is_chosen: bool) -> dict[str, Any]:
    """Summarize a plan and what its engine offers, and say whether it is served."""
    return {
        "layout": offer.layout.name,
        "weights": "private" if offer.private_weights else "open",
        "parameter_set": offer.parameters.parameter_set.name,
        "plain_modulus_bits": plan.parameters.plain_modulus.bit_length() - 1,
        "weight_bits": plan.weight_bits,
        "score_error_bound": plan.score_error_bound,
        "rows_per_item": plan.packing.rows,
        "classes_per_polynomial": plan.packing.classes,
        "request_bytes": plan.request_bytes,
        "reply_bytes": plan.reply_bytes,
        "key_bytes": offer.cost.key_bytes,
        "server_seconds": offer.cost.server_seconds,
        "told_bits": _told_bits(plan),
        "is_chosen": is_chosen,
    }


def _told_bits(plan: "Plan[Packing]") -> int | None:
    """Return what a reply tells a client at most, whatever it has sent; None in mode open."""
    from sealserve_service.planning import hiding

    if plan.noise_width is None:
        return None
    places = plan.packing.rows * plan.packing.score_count
    return math.ceil(hiding.told_bits(plan.parameters, plan.noise_width, places))


_HEADINGS = ("LAYOUT", "WEIGHTS", "PARAMETER SET", "BITS", "ERROR BOUND", "ROWS", "BYTES UP", "DOWN", "MS", "TOLD BITS")


def table(plans: list[dict[str, Any]]) -> str:
    """Render the plans, cheapest first."""
    pattern = "{:<6} {:<7} {:<15} {:>4} {:>11} {:>5} {:>11} {:>9} {:>8} {:>9}"
    lines = [pattern.format(*_HEADINGS)]
    for plan in plans:
        lines.append(
            pattern.format(
                plan["layout"],
                plan["weights"],
                plan["parameter_set"],
                plan["weight_bits"],
                f"{plan['score_error_bound']:.3g}",
                plan["rows_per_item"],
                f"{plan['request_bytes']:,}",
                f"{plan['reply_bytes']:,}",
                f"{1e3 * plan['server_seconds']:.2f}",
                "all" if plan["told_bits"] is None else f"{plan['told_bits']:,}",
            )
            + ("  <- served" if plan["is_chosen"] else "")
        )
    for mode in ("open", "private"):
        if not any(plan["weights"] == mode for plan in plans):
            lines.append(f"no parameter set has room for {mode} weights")
    lines.append(
        "TOLD BITS: what the reply to a full item tells at most, whatever a client sends. Private columns are\n"
        "promised against clients that keep to the protocol only: withdraw them from a tenant with "
        "private_columns = false."
    )
    return "\n".join(lines)


COMMAND = Command(
    "inspect",
    "say what would be served of a model file, and at what cost, or why not",
    "  sealserve inspect mnist.pkl --trust-pickle --input-range 0,1 --max-score-error 0.01",
    configure,
    run,
)
