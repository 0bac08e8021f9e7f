"""`sealserve inspect`: what would be served of a model file, and at what cost; or why it is refused."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealserve.cli.command import Command
from sealserve_service.commands.options import ModelFile, add_model_options, source

if TYPE_CHECKING:
    from sealserve.he.planner import RowPlan
    from sealserve.model import Offer


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("path", type=Path, metavar="MODEL", help="a .skops, .npz, .pkl or .joblib file")
    add_model_options(parser, per_model=False)
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: Namespace) -> int:
    """Print what would be served."""
    from sealserve.cli.models import as_dict, describe
    from sealserve.he.planner import row_plans
    from sealserve_service.models.input_grid import input_grid
    from sealserve_service.models.loading import load_model
    from sealserve_service.models.registry import serve_model
    from sealserve_service.models.sources import calibration_rows
    from sealserve_service.settings import Settings

    asked = source(ModelFile(arguments.path.stem, arguments.path), arguments)
    model = load_model(asked.path, trust_pickle=arguments.trust_pickle)
    calibration = calibration_rows(asked)
    grid = input_grid(model, input_range=asked.input_range, input_step=asked.input_step, calibration=calibration)
    served = serve_model(
        asked.name,
        model,
        grid,
        Settings().limits,
        max_score_error=asked.max_score_error,
        calibration=calibration,
    )
    chosen = served.model.offers[0]
    plans = [summary(plan, chosen) for plan in row_plans(model.weights, model.intercept, grid)]
    if arguments.json:
        print(json.dumps({"model": as_dict(served.model), "plans": plans}, indent=2))
    else:
        print(describe(served.model))
        print("\nWhat a smaller --max-score-error would cost, an item:")
        print(table(plans))
    return 0


def summary(plan: "RowPlan", chosen: "Offer") -> dict[str, Any]:
    """Summarize a plan, and say whether it is the one that is offered."""
    return {
        "parameter_set": plan.parameters.parameter_set.name,
        "plain_modulus_bits": plan.parameters.plain_modulus.bit_length() - 1,
        "weight_bits": plan.weight_bits,
        "score_error_bound": plan.score_error_bound,
        "rows_per_item": plan.packing.rows,
        "classes_per_polynomial": plan.packing.classes,
        "request_bytes": plan.request_bytes,
        "reply_bytes": plan.reply_bytes,
        "is_chosen": plan.parameters == chosen.parameters and plan.packing.classes == chosen.classes_per_polynomial,
    }


def table(plans: list[dict[str, Any]]) -> str:
    """Render the plans, cheapest first."""
    lines = [f"{'PARAMETER SET':<14} {'WEIGHT BITS':>11} {'ERROR BOUND':>11} {'ROWS':>5} {'BYTES UP':>9} {'DOWN':>9}"]
    for plan in plans:
        lines.append(
            f"{plan['parameter_set']:<14} {plan['weight_bits']:>11} {plan['score_error_bound']:>11.3g} "
            f"{plan['rows_per_item']:>5} {plan['request_bytes']:>9,} {plan['reply_bytes']:>9,}"
            + ("  <- served" if plan["is_chosen"] else "")
        )
    return "\n".join(lines)


COMMAND = Command(
    "inspect",
    "say what would be served of a model file, and at what cost, or why not",
    "  sealserve inspect mnist.pkl --trust-pickle --input-range 0,1 --max-score-error 0.01",
    configure,
    run,
)
