"""Parameter sets: which ones hold a model, and how many bytes a row takes with each of them.

For each model, mode and layout, and each set, the planner makes the plan that it would serve if
there were no other set. Columns are planned for the grid of rows, as a service does it. Bytes up
are those of seeded ciphertexts, packed where the set packs. With --also, rings of one prime are
tried that no layout names; SEAL finds the prime. With --calls, rows with open weights are timed at
client and service. Prints tables, and writes parameter_sets.json into build/bench.
"""

import argparse
import dataclasses
import json
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import seal
from numpy.typing import NDArray

from benchmarks.report import OUTPUT, described_run, render
from benchmarks.trained_models import MODELS, UnavailableError, trained
from sealserve._codec.codec import RowCodec
from sealserve.errors import PlanError
from sealserve.he.layouts import Packing
from sealserve.he.layouts.row import ROW, RowPacking
from sealserve.he.parameters import RINGS, ParameterSet
from sealserve.he.quantization import InputGrid
from sealserve.he.seal_format import CiphertextFormat
from sealserve_service.catalog.registry import describe_model
from sealserve_service.catalog.sources import planning_basis
from sealserve_service.engines.linear.row import RowEngine
from sealserve_service.engines.offering import LINEAR_ENGINES
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.loading import load_model
from sealserve_service.planning.grid import input_ranges
from sealserve_service.planning.hiding import DEFAULT_HIDING_BITS
from sealserve_service.planning.plan import Plan
from sealserve_service.planning.planner import candidate_plans, choose
from sealserve_service.planning.ranges import InputRanges
from sealserve_service.planning.score_error import CalibrationScores
from sealserve_service.planning.verdict import Judgement, first_good_plan, judge
from sealserve_service.settings import Settings
from sealserve_service.settings.model_source import ModelSource
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support import mnist
from tests.support.accuracy_cases import AccuracyCase, accuracy_cases

CASES = ("breast cancer", "housing", "digits", "answers from 1 to 5", "flags and scores", "2,000 one-hot", "counts")
CALIBRATION_IMAGES = 1000
MODES = {"open": None, "private": DEFAULT_HIDING_BITS}


class Planned(NamedTuple):
    """What a model is planned by; `calibration` is None without rows."""

    model: LinearModel
    ranges: InputRanges
    calibration: NDArray[Any] | None


def of_guide() -> Planned:
    """The model of the guide."""
    path, images = mnist.find(mnist.MODEL), mnist.images()
    if path is None or images is None:
        raise UnavailableError("MNIST is not here: run `make data`")
    model, rows = load_model(path, trust_pickle=True), images[:CALIBRATION_IMAGES]
    return Planned(model, input_ranges(model, input_range=(0.0, 1.0), calibration=rows), rows)


def of_case(case: AccuracyCase) -> Planned:
    """A model of numbers, with rows."""
    return Planned(case.model, input_ranges(case.model, calibration=case.calibration), case.calibration)


def of_trained(name: str) -> Planned:
    """A model with published steps, by what `serve` is told of it."""
    options = dict(option.partition("=")[::2] for option in trained(name).options)
    path, calibration = options["--model"].partition("=")[2], options.get("--calibration")
    source = ModelSource(
        name="model",
        path=Path(path),
        publish=(options["--publish"],),
        accept_training_values="--accept-training-values" in options,
        calibration=None if calibration is None else Path(calibration),
    )
    basis = planning_basis(source, load_model(source.path, trust_pickle=True))
    return Planned(basis.model, basis.ranges, basis.calibration)


def planned_models(names: list[str]) -> Iterator[tuple[str, Callable[[], Planned]]]:
    """Yield models by name, all of them if none is named."""

    def is_asked(name: str) -> bool:
        return name in names if names else name in ("MNIST", *CASES, *MODELS)

    if is_asked("MNIST"):
        yield "MNIST", of_guide
    for name in filter(is_asked, MODELS):
        yield name, partial(of_trained, name)
    for case in accuracy_cases(is_asked):
        yield case.name, partial(of_case, case)


def seeded_bytes(plan: Plan[Packing]) -> int:
    """Return the bytes of an item's seeded ciphertexts, packed where the set packs."""
    form = CiphertextFormat(plan.parameters.parameter_set, bytes(32))
    return plan.packing.ciphertexts * (form.packed_bytes if form.packs else form.seeded_bytes)


class Chosen(NamedTuple):
    """The plan that a service would serve if there were no other set."""

    ring: str
    layout: str
    plan: Plan[Any]
    judgement: Judgement


def chosen_plans(planned: Planned, mode: str, also: list[tuple[int, int]]) -> Iterator[Chosen]:
    """Yield a plan for each set and layout that keep the error promised by default."""
    model, ranges, hiding_bits = planned.model, planned.ranges, MODES[mode]
    rows = None
    if planned.calibration is not None:
        rows = CalibrationScores.of(model, planned.calibration, outside_share=ranges.outside_share)
    rings = dict(RINGS)
    for degree, bits in also:
        rings[f"{degree}-{bits}"] = degree, tuple(p.value() for p in seal.CoeffModulus.Create(degree, [bits]))
    for ring_name, ring in rings.items():
        inputs: InputRanges | InputGrid = ranges
        for engine_type in LINEAR_ENGINES:
            layout = engine_type.rules.layout.name
            plans = candidate_plans(
                engine_type.rules,
                model.weights,
                model.intercept,
                inputs,
                hiding_bits=hiding_bits,
                center=ranges.center,
                parameter_sets=[ParameterSet(f"{layout}-{ring_name}", *ring)],
            )
            try:
                first = choose(plans, model.weights, max_score_error=None, hiding_bits=hiding_bits)
            except PlanError:
                continue
            plan, judgement = first_good_plan(plans[plans.index(first) :], lambda plan: judge(plan, model, rows))
            inputs = plan.grid
            yield Chosen(ring_name, layout, plan, judgement)


def sizes(name: str, mode: str, chosen: Chosen) -> dict[str, Any]:
    """Return what a row costs, and how good it is."""
    plan = chosen.plan
    rows_of = plan.packing.rows if chosen.layout == "column" else 1
    return {
        "model": name,
        "weights": mode,
        "layout": chosen.layout,
        "parameter_set": chosen.ring,
        "plain_modulus_bits": plan.parameters.plain_modulus.bit_length() - 1,
        "weight_bits": plan.weight_bits,
        "bytes_up": seeded_bytes(plan) / rows_of,
        "bytes_down": plan.reply_bytes / rows_of,
        "score_error_bound": plan.score_error_bound,
        "verdict": chosen.judgement.grade.value,
    }


class OpenRow:
    """A row with open weights, with what client and service compute for it, in this process.

    Args:
        model: of the plan.
        plan: of a set.
        seeded: whether the row is seeded, and packed where the set packs.
    """

    def __init__(self, model: LinearModel, plan: Plan[RowPacking], *, seeded: bool) -> None:
        self._engine = RowEngine(plan)
        without_steps = dataclasses.replace(model, published=None, feature_names=())
        described = describe_model("model", without_steps, plan.grid, Settings().limits, [self._engine])
        self._codec = RowCodec(described.model, seeded=seeded)
        levels = plan.grid.levels
        self._row = np.random.default_rng(0).integers(0, levels, (1, len(levels)), endpoint=True)
        self.encrypt()
        self.score()

    def encrypt(self) -> None:
        """Encrypt the row at the client."""
        item = self._codec.encrypt(self._row)
        self._header, self._ciphertexts = item.header, list(item.ciphertexts)

    def score(self) -> None:
        """Check the ciphertexts and compute the reply at the service."""
        scoring = self._engine.begin(self._header, ANONYMOUS.name)
        scoring.add(self._ciphertexts)
        self._reply = list(scoring.finish())

    def decrypt(self) -> None:
        """Decrypt the reply at the client."""
        self._codec.read(1, self._reply)


def times(name: str, planned: Planned, found: list[Chosen], calls: int) -> Iterator[dict[str, Any]]:
    """Time open rows of each set, in both forms, in turn: medians in microseconds."""
    rows = {
        (chosen.ring, form): OpenRow(planned.model, chosen.plan, seeded=form == "seeded")
        for chosen in found
        if chosen.plan.parameters.parameter_set in ROW.open_parameter_sets
        for form in ("full", "seeded")
    }
    steps = "encrypt", "score", "decrypt"
    samples = {(key, step): list[float]() for key in rows for step in steps}
    shuffled, order = random.Random(0), list(rows.items())
    for _ in range(calls):
        shuffled.shuffle(order)  # what comes after a large set finds the caches full of that set
        for key, row in order:
            for step in steps:
                start = time.perf_counter()
                getattr(row, step)()
                samples[key, step].append(time.perf_counter() - start)
    for ring_name, form in rows:
        medians = {f"{step}_us": 1e6 * median(samples[(ring_name, form), step]) for step in steps}
        yield {"model": name, "parameter_set": ring_name, "form": form, **medians}


_HEADINGS = ("model", "weights", "layout", "set", "t", "bits", "bytes up a row", "down", "error bound", "verdict")


_PATTERNS = ("{}", "{}", "{}", "{}", "2^{}", "{}", "{:,.0f}", "{:,.0f}", "{:.2g}", "{}")
_TIME_HEADINGS = ("model", "set", "form", "client encrypts, us", "service scores, us", "client decrypts, us")
_TIME_PATTERNS = ("{}", "{}", "{}", "{:.0f}", "{:.0f}", "{:.0f}")


def table(headings: tuple[str, ...], patterns: tuple[str, ...], found: list[dict[str, Any]]) -> str:
    """Render results: a line each."""
    lines = [[pattern.format(value) for pattern, value in zip(patterns, line.values(), strict=True)] for line in found]
    return render([list(headings), *lines])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", default=[], help="only this one; may be repeated")
    parser.add_argument("--weights", choices=MODES, action="append", help="only this mode; may be repeated")
    parser.add_argument("--also", metavar="N-BITS", action="append", default=[], help="another ring of one prime")
    parser.add_argument("--calls", type=int, default=0, help="time so many open rows of each set, in turn")
    arguments = parser.parse_args()
    also = [(int(degree), int(bits)) for degree, bits in (ring.split("-") for ring in arguments.also)]
    report, found, timed = described_run(), list[dict[str, Any]](), list[dict[str, Any]]()
    for name, make in planned_models(arguments.model):
        try:
            planned = make()
        except UnavailableError as error:
            print(f"{name} is left out: {error}")
            continue
        for mode in arguments.weights or MODES:
            plans = list(chosen_plans(planned, mode, also))
            found += (sizes(name, mode, chosen) for chosen in plans)
            if arguments.calls and mode == "open":
                timed += times(name, planned, plans, arguments.calls)
    report |= {"parameter_sets": found, "times": timed}
    (OUTPUT / "parameter_sets.json").write_text(json.dumps(report, indent=2) + "\n")
    print(table(_HEADINGS, _PATTERNS, found))
    if timed:
        print(table(_TIME_HEADINGS, _TIME_PATTERNS, timed))
    print(f"written: {OUTPUT / 'parameter_sets.json'}")


if __name__ == "__main__":
    main()
