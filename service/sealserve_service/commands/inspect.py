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
    from sealserve_service.engines.linear.base import LinearEngine
    from sealserve_service.engines.offering import PlannedLayout
    from sealserve_service.models.linear_model import LinearModel
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
    """Print what would be served, what else could be, and whether predictions will be right.

    The status is 1 if `sealserve serve` would refuse the model because they will not.
    """
    from threadpoolctl import threadpool_limits

    from sealserve.cli.models import as_dict, describe
    from sealserve.protocol.model import Verdict
    from sealserve_service.catalog.registry import describe_model
    from sealserve_service.catalog.sources import planning_basis
    from sealserve_service.commands.options import settings_of
    from sealserve_service.engines import offering
    from sealserve_service.models.loading import load_model
    from sealserve_service.planning.extraction import scores_to_copy
    from sealserve_service.settings.options import MODEL_OPTIONS

    settings = settings_of(arguments, MODEL_OPTIONS)
    asked = settings.source(arguments.path.stem, arguments.path)
    model = load_model(asked.path, trust_pickle=settings.trust_pickle)
    basis = planning_basis(asked, model)
    model = basis.model
    bits = settings.hiding_bits if settings.weights == "private" else None
    with threadpool_limits(1, user_api="blas"):  # as in a serving process: engines time themselves
        layouts = list(
            offering.plan_layouts(
                model,
                basis.ranges,
                modes=(None, settings.hiding_bits),
                max_score_error=basis.max_score_error,
                calibration=basis.calibration,
                accept_disagreement=True,  # what would be refused is shown, with the reason
                judged=basis.judged,
            )
        )
        offered = [planned for planned in layouts if planned.hiding_bits == bits]
        if isinstance(offered[0].chosen, PlanError):
            raise offered[0].chosen
        grid = offered[0].chosen.grid
        engines = offering.engines(asked.name, model, grid, offered)
        served = describe_model(asked.name, model, grid, settings.limits, engines).model
        plans = summaries(layouts, bits)
        scores = scores_to_copy(grid, None if basis.calibration is None else model.features(basis.calibration))
    verdicts = list(map(verdict_on, offered))
    if arguments.json:
        told = {"published": publications(model), "scores_to_copy": scores}
        print(json.dumps({"model": as_dict(served), **told, "plans": plans, "verdicts": verdicts}, indent=2))
    else:
        print(describe(served))
        print(what_is_told(model, scores))
        print("\nWhat --weights and a smaller --max-score-error would cost, an item:")
        print(table(plans))
        print("\nThe errors of what is served, which mode private does not publish:")
        print(table_of_verdicts(verdicts))
    is_refused = served.verdict is Verdict.REFUSE and not settings.accept_disagreement
    return 1 if is_refused else 0


def publications(model: "LinearModel") -> list[dict[str, str]]:
    """Return what serving a model publishes beside its description, step by step."""
    return [{"step": p.name, "tells": p.tells, "consent": p.consent.value} for p in model.publications]


def what_is_told(model: "LinearModel", scores_to_copy: int) -> str:
    """Render what serving a model publishes, and how many scores copy the rest."""
    lines = [f"  {told['step']}: {told['tells']}" for told in publications(model)]
    head = ["\nWhat clients get beside the description, to compute on their own machine:", *lines] if lines else []
    copied = (
        f"About {scores_to_copy:,} honest scores suffice to copy this head: the rank of its features and a constant.\n"
        "Fewer copy most of its labels: SECURITY.md has a measured curve."
    )
    return "\n".join([*head, f"\n{copied}"])


def summaries(layouts: "Iterable[PlannedLayout]", served_bits: int | None) -> list[dict[str, Any]]:
    """Summarize the plans of all layouts; the mode with `served_bits` of hiding is served."""
    found = list[dict[str, Any]]()
    for planned in layouts:
        for plan in planned.plans:
            with contextlib.suppress(PlanError):  # too many classes for the engine
                is_chosen = plan is planned.chosen and planned.hiding_bits == served_bits
                found.append(summary(plan, planned.engine_type(plan), is_chosen=is_chosen))
    return found


def summary(plan: "Plan[Packing]", engine: "LinearEngine[Any]", *, is_chosen: bool) -> dict[str, Any]:
    """Summarize a plan and what its engine offers, and say whether it is served."""
    offer, form = engine.offer, engine.format
    return {
        "layout": offer.layout.name,
        "weights": "private" if offer.private_weights else "open",
        "parameter_set": offer.parameters.parameter_set.name,
        "plain_modulus_bits": plan.parameters.plain_modulus.bit_length() - 1,
        "weight_bits": plan.weight_bits,
        "score_error_bound": plan.total_error_bound,
        "weight_rounding_error_bound": plan.score_error_bound,
        "input_rounding_error_bound": plan.input_rounding_error_bound,
        "rows_per_item": plan.packing.rows,
        "classes_per_polynomial": plan.packing.classes,
        "request_bytes": plan.request_bytes,
        "seeded_request_bytes": plan.packing.ciphertexts * (form.packed_bytes if form.packs else form.seeded_bytes),
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


def verdict_on(planned: "PlannedLayout") -> dict[str, Any]:
    """Return the verdict on what a layout serves, and the figures that it rests on."""
    from sealserve_service.planning.plan import Plan

    layout, plan, judgement = planned.engine_type.rules.layout.name, planned.chosen, planned.judgement
    if not isinstance(plan, Plan) or judgement is None:
        return {"layout": layout, "verdict": None, "reason": str(plan), "remedy": ""}
    observed = judgement.observed
    return {
        "layout": layout,
        "verdict": judgement.verdict.value,
        "reason": judgement.reason,
        "remedy": judgement.remedy,
        "score_error_bound": plan.total_error_bound,
        "weight_rounding_error_bound": plan.score_error_bound,
        "input_rounding_error_bound": plan.input_rounding_error_bound,
        "expected_score_error": judgement.expected_rms,
        "row_count": observed.row_count if observed else 0,
        "score_error": observed.maximum if observed else None,
        "rms_score_error": float(observed.rms.max()) if observed else None,
        "label_disagreement": observed.other_labels / observed.row_count if observed and observed.has_labels else None,
        "expected_label_disagreement": observed.disagreement[0] if observed and observed.has_labels else None,
    }


def table_of_verdicts(verdicts: list[dict[str, Any]]) -> str:
    """Render the verdicts: a line of figures for each layout, then a line of words for each."""
    figures = {
        "BOUND": "score_error_bound",
        "OF WEIGHTS": "weight_rounding_error_bound",
        "OF FEATURES": "input_rounding_error_bound",
        "EXPECTED": "expected_score_error",
        "OBSERVED": "score_error",
        "R.M.S.": "rms_score_error",
        "LABELS": "label_disagreement",
        "EXPECTED LABELS": "expected_label_disagreement",
        "ROWS": "row_count",
    }
    pattern = "{:<6} {:>9} {:>10} {:>11} {:>9} {:>9} {:>9} {:>9} {:>15} {:>9}"
    lines = [pattern.format("LAYOUT", *figures)]
    for verdict in verdicts:
        values = (verdict.get(name) for name in figures.values())
        lines.append(pattern.format(verdict["layout"], *("-" if v is None else f"{v:.3g}" for v in values)))
    lines.append("LABELS: the share that differs from the plaintext model's, seen and expected\n")
    for verdict in verdicts:
        lines.append(f"{verdict['layout']}: verdict {verdict['verdict'] or 'none'}: {verdict['reason']}")
        if verdict["remedy"]:
            lines.append(f"  remedy: {verdict['remedy']}")
    return "\n".join(lines)


_HEADINGS = (
    "LAYOUT",
    "WEIGHTS",
    "PARAMETER SET",
    "BITS",
    "ERROR BOUND",
    "ROWS",
    "BYTES UP",
    "SEEDED",
    "DOWN",
    "MS",
    "TOLD BITS",
)


def table(plans: list[dict[str, Any]]) -> str:
    """Render the plans, cheapest first."""
    pattern = "{:<6} {:<7} {:<15} {:>4} {:>11} {:>5} {:>11} {:>11} {:>9} {:>8} {:>9}"
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
                f"{plan['seeded_request_bytes']:,}",
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
        "SEEDED: the bytes up of a client on a slow link, packed where that saves a fifth of them.\n"
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
    extra="service",
)
