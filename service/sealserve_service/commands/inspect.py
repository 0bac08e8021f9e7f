"""`sealserve inspect`: what would be served of a model file, and at what cost, or why not."""

import contextlib
import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealserve.cli.command import Command
from sealserve.errors import PlanError

if TYPE_CHECKING:
    from sealserve.he.quantization import InputGrid
    from sealserve.protocol.model import Model, Offer
    from sealserve_service.models.linear_model import LinearModel
    from sealserve_service.planning.planner import ColumnPlan, RowPlan


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    # Imported here: a list of commands needs no extra.
    from sealserve_service.commands.options import add_options
    from sealserve_service.settings.options import MODEL_OPTIONS

    parser.add_argument("path", type=Path, metavar="MODEL", help="a .skops, .npz, .pkl or .joblib file")
    add_options(parser, MODEL_OPTIONS)
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: Namespace) -> int:
    """Print what would be served, and what else could be."""
    from threadpoolctl import threadpool_limits

    from sealserve.cli.models import as_dict, describe
    from sealserve_service.catalog.registry import PrivateWeights, serve_model
    from sealserve_service.catalog.sources import calibration_rows
    from sealserve_service.commands.options import settings_of
    from sealserve_service.engines.linear.rerandomizer import no_keys
    from sealserve_service.models.loading import load_model
    from sealserve_service.planning.grid import input_grid
    from sealserve_service.settings.options import MODEL_OPTIONS

    settings = settings_of(arguments, MODEL_OPTIONS)
    asked = settings.source(arguments.path.stem, arguments.path)
    model = load_model(asked.path, trust_pickle=settings.trust_pickle)
    calibration = calibration_rows(asked)
    grid = input_grid(model, input_range=asked.input_range, input_step=asked.input_step, calibration=calibration)
    with threadpool_limits(1, user_api="blas"):  # as a serving process has it: engines time themselves
        served = serve_model(
            asked.name,
            model,
            grid,
            settings.limits,
            max_score_error=asked.max_score_error,
            calibration=calibration,
            private=PrivateWeights(settings.hiding_bits, no_keys) if settings.weights == "private" else None,
        )
        plans = summaries(model, grid, served.model, settings.hiding_bits)
    if arguments.json:
        print(json.dumps({"model": as_dict(served.model), "plans": plans}, indent=2))
    else:
        print(describe(served.model))
        print("\nWhat --weights and a smaller --max-score-error would cost, an item:")
        print(table(plans))
    return 0


def summaries(model: "LinearModel", grid: "InputGrid", served: "Model", private_bits: int) -> list[dict[str, Any]]:
    """Summarize the plans of both layouts in both modes, private ones of so many bits of hiding."""
    from sealserve_service.engines.linear.column import ColumnEngine
    from sealserve_service.engines.linear.row import RowEngine
    from sealserve_service.planning.planner import column_plans, row_plans

    layouts: tuple[tuple[Any, Any], ...] = ((row_plans, RowEngine), (column_plans, ColumnEngine))
    found = list[dict[str, Any]]()
    for plans, engine in layouts:
        for bits in (None, private_bits):
            for plan in plans(model.weights, model.intercept, grid, hiding_bits=bits):
                with contextlib.suppress(PlanError):  # too many classes for the engine
                    found.append(summary(plan, engine(plan).offer, served))
    return found


def summary(plan: "RowPlan | ColumnPlan", offer: "Offer", served: "Model") -> dict[str, Any]:
    """Summarize a plan and what its engine offers, and say whether it is one that is served."""
    chosen = [o for o in served.offers if (o.parameters, o.parms_id) == (offer.parameters, offer.parms_id)]
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
        "is_chosen": any(
            (o.classes_per_polynomial, o.private_weights) == (offer.classes_per_polynomial, offer.private_weights)
            for o in chosen
        ),
    }


_HEADINGS = ("LAYOUT", "WEIGHTS", "PARAMETER SET", "BITS", "ERROR BOUND", "ROWS", "BYTES UP", "DOWN", "MS")


def table(plans: list[dict[str, Any]]) -> str:
    """Render the plans, cheapest first."""
    pattern = "{:<6} {:<7} {:<15} {:>4} {:>11} {:>5} {:>11} {:>9} {:>8}"
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
            )
            + ("  <- served" if plan["is_chosen"] else "")
        )
    for mode in ("open", "private"):
        if not any(plan["weights"] == mode for plan in plans):
            lines.append(f"no parameter set has room for {mode} weights")
    return "\n".join(lines)


COMMAND = Command(
    "inspect",
    "say what would be served of a model file, and at what cost, or why not",
    "  sealserve inspect mnist.pkl --trust-pickle --input-range 0,1 --max-score-error 0.01",
    configure,
    run,
)
