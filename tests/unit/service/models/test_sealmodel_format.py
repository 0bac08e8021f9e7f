"""Packed models as files: what was written is read exactly, and what was not is refused."""

import dataclasses
import io
import json
import random
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer

from sealserve.errors import SealserveError
from sealserve.he.row_constraints import RowConstraints
from sealserve.protocol.model import Verdict
from sealserve.protocol.output import Curve, Label, Link, Output, Pairwise, Task
from sealserve_service.catalog.sources import planning_basis
from sealserve_service.engines.offering import plan_layouts
from sealserve_service.models import sealmodel_format
from sealserve_service.models.errors import ModelFileError, ModelTooLargeError
from sealserve_service.models.folding import fold
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.packed import Packed, PackedErrors, PackedJudgement, PackedRanges
from sealserve_service.models.sealmodel_format import read_model, to_bytes
from sealserve_service.settings.model_source import ModelSource
from tests.support.mutations import damaged

PATH = Path("folder/model.sealmodel")
GENERATOR = np.random.default_rng(7)
CHANCES = random.Random(8)


def ranges(feature_count: int, constraints: RowConstraints | None = None) -> PackedRanges:
    return PackedRanges(
        minimum=np.zeros(feature_count),
        maximum=np.ones(feature_count),
        own_step=np.ones(feature_count),
        is_declared=np.ones(feature_count, np.bool_),
        center=np.full(feature_count, 1 / 3),
        outside_share=0.1,
        constraints=constraints or RowConstraints(),
    )


def judgement(score_count: int) -> PackedJudgement:
    errors = PackedErrors(
        maximum=0.1,
        rms=(1 / 3,) * score_count,
        label_rms=(0.0,) * score_count,
        row_count=200,
        has_labels=True,
        other_labels=1,
        disagreement=(0.01, 1e-300),
    )
    return PackedJudgement(
        verdict=Verdict.WARN, grade=Verdict.OK, reason="a", remedy="", expected_rms=0.2, observed=errors
    )


def plain() -> LinearModel:
    """A model of columns, with all that a file can hold of one."""
    model = LinearModel(
        GENERATOR.normal(size=(3, 4)),
        GENERATOR.normal(size=3),
        Output(Task.CLASSIFICATION, 3, ("a", "é\n", "c,[{"), Link.SOFTMAX),
        feature_names=("w", "x", "y", "é"),
        input_range=(np.full(4, -1.5), np.full(4, 1 / 3)),
    )
    declared = RowConstraints.of(4, [0, 1, 1, 0], [True])
    packed = Packed(ranges=ranges(4, declared), max_score_error=0.1, judgements={"a plan": judgement(3)})
    return dataclasses.replace(model, packed=packed)


def stepped() -> LinearModel:
    """A model of features that steps compute."""
    rows = GENERATOR.normal(size=(100, 2))
    pipeline = make_pipeline(KBinsDiscretizer(3), LogisticRegression()).fit(rows, rows[:, 0] > 0)
    model = fold(pipeline)
    return dataclasses.replace(model, packed=Packed(ranges=ranges(model.feature_count)), own_scores=None)


MODELS: dict[str, Callable[[], LinearModel]] = {"plain": plain, "stepped": stepped}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> LinearModel:
    return MODELS[request.param]()


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive_of(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def array(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def same(read: Any, written: Any) -> bool:
    """Whether two values are the same, bit for bit in arrays."""
    if isinstance(written, np.ndarray):
        return (read.dtype, read.shape, read.tobytes()) == (written.dtype, written.shape, written.tobytes())
    if isinstance(written, Packed | PackedRanges | RowConstraints):
        return all(same(getattr(read, f.name), getattr(written, f.name)) for f in dataclasses.fields(written))
    if isinstance(written, tuple):
        return len(read) == len(written) and all(map(same, read, written))
    return type(read) is type(written) and bool(read == written)


# What was written is read


def test_all_parts_come_out_as_they_went_in(model: LinearModel) -> None:
    read = read_model(to_bytes(model), PATH)
    assert read.packed is not None
    assert model.packed is not None
    for name in ("weights", "intercept", "output", "feature_names", "input_range", "column_count"):
        assert same(getattr(read, name), getattr(model, name)), name
    if model.published is None:
        assert same(read.packed, model.packed)
        assert read.published is None
    else:
        assert read.published is not None
        assert read.published.columns == model.published.columns
        assert read.published.publications == model.published.publications
        rows = GENERATOR.normal(size=(50, model.column_count))
        assert same(read.features(rows), model.features(rows))
        # Groups follow from the steps.
        assert len(read.packed.ranges.constraints.exactly_one) == model.column_count
        assert same(dataclasses.replace(read.packed.ranges, constraints=RowConstraints()), model.packed.ranges)
    assert to_bytes(read) == to_bytes(model)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_numbers_are_exact(data: st.DataObject) -> None:
    number = st.floats(-1e99, 1e99)
    weights = data.draw(st.lists(number, min_size=3, max_size=3))
    intercept, error = data.draw(number), abs(data.draw(number))
    model = LinearModel(np.array([weights]), np.array([intercept]), Output(Task.REGRESSION, 1))
    judged = dataclasses.replace(judgement(1), expected_rms=error)
    packed = Packed(ranges=ranges(3), max_score_error=error, judgements={"a": judged})
    read = read_model(to_bytes(dataclasses.replace(model, packed=packed)), PATH)
    assert same(read.weights, model.weights)
    assert same(read.intercept, model.intercept)
    assert read.packed is not None
    assert (read.packed.max_score_error, read.packed.judgements) == (error, {"a": judged})


@pytest.mark.parametrize(
    "labels", [(0, 1), (False, True), (0.0, 1.0), ("0", "1"), (-(2**63), 2**63 - 1), (0.5, 1e-300)]
)
def test_labels_keep_their_type(labels: tuple[Label, ...]) -> None:
    model = LinearModel(np.ones((1, 2)), np.zeros(1), Output(Task.CLASSIFICATION, 1, labels))
    read = read_model(to_bytes(dataclasses.replace(model, packed=Packed(ranges=ranges(2)))), PATH)
    assert same(read.output.classes, labels)


@pytest.mark.parametrize(
    "output",
    [
        Output(Task.REGRESSION, 1, scalar_target=True, link=Link.LOG1P),
        Output(Task.MULTILABEL, 2, (3, 4), Link.LOGISTIC, keeps_zero_rows=True),
        Output(Task.CLASSIFICATION, 3, ("a", "b", "c"), pairwise=Pairwise.CONFIDENCES),
        Output(
            Task.CLASSIFICATION,
            4,
            ("a", "b"),
            Link.CURVES,
            member_count=4,
            has_no_decision_function=True,
            curves=(Curve((-1 / 3, 1e-9), (0.0, 1 / 7)),) * 4,
        ),
    ],
    ids=lambda output: output.task.value,
)
def test_every_output_is_kept(output: Output) -> None:
    model = LinearModel(np.ones((output.score_count, 2)), np.zeros(output.score_count), output)
    assert read_model(to_bytes(dataclasses.replace(model, packed=Packed(ranges=ranges(2)))), PATH).output == output


def test_the_file_tells_neither_time_nor_machine(model: LinearModel) -> None:
    with zipfile.ZipFile(io.BytesIO(to_bytes(model))) as archive:
        assert archive.namelist()[0] == "version"
        for entry in archive.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert (entry.create_system, entry.compress_type) == (3, zipfile.ZIP_STORED)


def test_numpy_reads_the_arrays(model: LinearModel, tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(to_bytes(model))
    np.testing.assert_array_equal(np.load(path)["weights"], model.weights)


# What was not written is refused


def altered(change: Mapping[str, bytes | None], name: str = "plain") -> bytes:
    """A file with other members; None leaves one out."""
    members = members_of(to_bytes(MODELS[name]()))
    return archive_of({key: data for key, data in {**members, **change}.items() if data is not None})


def described(name: str = "plain", more: Mapping[str, Any] | None = None, **change: Any) -> bytes:
    description = json.loads(members_of(to_bytes(MODELS[name]()))["description.json"])
    return altered({"description.json": json.dumps({**description, **change, **(more or {})}).encode()}, name)


FAULTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "not a readable .sealmodel file"),
    "no zip": (lambda: b"sealmodel 1\n", "not a readable .sealmodel file"),
    "npz": (lambda: archive_of({"coef.npy": array([1.0])}), "it does not say its version"),
    "newer": (lambda: altered({"version": b"sealmodel 2\n"}), "is of another version.*update sealserve, or pack"),
    "no version": (lambda: altered({"version": b"1"}), "its version is none"),
    "missing": (lambda: altered({"weights.npy": None}), "a member is missing"),
    "superfluous": (lambda: altered({"code.pkl": b""}), "none of those that it should have"),
    "compressed": (
        lambda: archive_of(members_of(to_bytes(plain())), zipfile.ZIP_DEFLATED),
        "a member is compressed",
    ),
    "no json": (lambda: altered({"description.json": b"{"}), "its description.json makes no sense to this version"),
    "unknown field": (lambda: described(code="x"), "description.json makes .*: code: "),
    "a field that moves the cursor": (lambda: described(more={"\x1b[2J": 1}), "description.json makes no sense"),
    "unknown link": (lambda: described(output={"task": "regression", "score_count": 3, "link": "x"}), "output.*link"),
    "other labels": (lambda: described(output={"task": "classification", "score_count": 3}), "3"),
    "not a number": (lambda: described(outside_share="0.1"), "outside_share: .*number"),
    "a share above 1": (lambda: described(outside_share=1.5), "below 0 or above 1"),
    "infinite": (lambda: altered({"weights.npy": array(np.full((3, 4), np.inf))}), "infinity in the weights"),
    "too large": (lambda: altered({"weights.npy": array(np.full((3, 4), 1e101))}), "scores are too large"),
    "integers": (lambda: altered({"weights.npy": array(np.ones((3, 4), int))}), "holds int64 instead of float64"),
    "another shape": (
        lambda: altered({"weights.npy": array(np.ones((3, 5))), "scaler_range.npy": None}),
        "ranges are not those of the features",
    ),
    "objects": (lambda: altered({"weights.npy": array(np.array([[None]]))}), "Object arrays are pickles"),
    "no range": (lambda: altered({"minimum.npy": array(np.full(4, 2.0))}), "maximum is below its minimum"),
    "a negative step": (lambda: altered({"own_step.npy": array(np.full(4, -1.0))}), "a step is below 0"),
    "a step that is none": (lambda: altered({"own_step.npy": array(np.full(4, np.nan))}), "a step is below 0"),
    "a centre outside": (lambda: altered({"center.npy": array(np.full(4, 9.0))}), "centre is outside"),
    "a group of none": (lambda: altered({"group.npy": array(np.array([0, 0, 0, 2]))}), "each group needs a feature"),
    "a scaler of others": (lambda: altered({"scaler_range.npy": array(np.ones((2, 3)))}), "scaler's range"),
    "other names": (lambda: described(column_names=["a"]), "1 feature names for 4"),
    "columns": (lambda: described(columns=[{"name": "a"}]), "its steps are missing"),
    "no steps": (lambda: altered({"steps": None}, "stepped"), "its steps are missing"),
    "malformed steps": (lambda: altered({"steps": b"\xff"}, "stepped"), "the steps are malformed"),
    "steps of others": (lambda: described("stepped", columns=[{"name": "a"}]), "steps do not fit"),
    "steps that are not told": (lambda: described("stepped", publications=[]), "steps do not fit"),
    "a text that moves the cursor": (
        lambda: described("stepped", publications=[["\x1b[2J", "its bins", "steps", ""]]),
        "a text is too long, or has characters that cannot be shown",
    ),
    "a group of steps": (lambda: described("stepped", exactly_one=[True]), "groups of what steps compute"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_pack_does_not_write_is_refused(fault: str) -> None:
    content, reason = FAULTS[fault]
    with pytest.raises(ModelFileError, match=rf"^folder/model\.sealmodel(?s:.*){reason}") as refusal:
        read_model(content(), PATH)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("what", ["rms", "label_rms", "other_labels", "row_count", "disagreement", "reason"])
def test_a_judgement_that_makes_no_sense_is_refused(what: str) -> None:
    wrong: dict[str, Any] = {"rms": [0.1], "label_rms": [], "other_labels": 201, "row_count": 0}
    wrong |= {"disagreement": [2.0, 0.0], "reason": "good\n2026 ERROR forged"}
    packed = json.loads(members_of(to_bytes(plain()))["description.json"])["judgements"]
    part = packed["a plan"] if what == "reason" else packed["a plan"]["observed"]
    assert what in part
    part[what] = wrong[what]
    with pytest.raises(ModelFileError):
        read_model(described(judgements=packed), PATH)


def test_names_of_steps_that_cannot_be_shown_are_escaped() -> None:
    model = stepped()
    assert model.published is not None
    publication = model.published.publications[0]._replace(name="step '\x1b[2J'")
    front = dataclasses.replace(model.published, publications=(publication,))
    read = read_model(to_bytes(dataclasses.replace(model, published=front)), PATH)
    assert read.published is not None
    assert read.published.publications[0].name == r"step '\x1b[2J'"


def test_sizes_are_checked_before_objects_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    wide_names = altered({"description.json": b"[" + b"1," * 3000 + b"1]"})
    long_name = altered({"description.json": b'"' + b"x" * 20_000 + b'"'})
    monkeypatch.setattr(sealmodel_format, "MAX_DESCRIPTION_VALUES", 3000)
    monkeypatch.setattr(sealmodel_format, "MAX_SCHEMA_BYTES", 20_000)
    for content, limit in ((long_name, "bytes of description.json"), (wide_names, "values in description.json")):
        with pytest.raises(ModelTooLargeError, match=limit):
            read_model(content, PATH)
    wide = {"weights.npy": array(np.ones((1, 1 << 21)))}
    with pytest.raises(ModelTooLargeError, match="features"):
        read_model(altered(wide), PATH)


def test_what_was_not_planned_is_not_written() -> None:
    with pytest.raises(ValueError, match="has not been planned"):
        to_bytes(dataclasses.replace(plain(), packed=None))


# Damage


def outcome(content: bytes, chance: float = 1.0) -> Any:
    """Read a file and, by chance, plan its model; return the model, or what refused it."""
    try:
        model = read_model(content, PATH)
        if CHANCES.random() < chance:
            with warnings.catch_warnings(action="ignore"):  # of numbers that overflow
                next(plan_layouts(model, planning_basis(ModelSource("model", PATH), model).ranges, modes=[None]))
    except SealserveError as error:
        return error
    return model


def test_damage_is_found_or_changes_nothing(model: LinearModel) -> None:
    content, source, refused = to_bytes(model), random.Random(11), 0
    for _ in range(100):
        found = outcome(damaged(content, source), 0.1)
        refused += isinstance(found, Exception)
        if not isinstance(found, Exception):  # of times and other fields of the archive that say nothing
            assert to_bytes(found) == content
    assert refused > 60


def test_a_truncated_file_is_refused(model: LinearModel) -> None:
    content = to_bytes(model)
    for length in range(0, len(content), max(1, len(content) // 100)):
        with pytest.raises(ModelFileError, match="not a readable"):
            read_model(content[:length], PATH)


def mutants(value: Any) -> Iterator[Any]:
    """Yield copies of a value of JSON, each with one part replaced or left out."""
    yield from (None, True, -1, 1 << 70, 1e308, 0.5, "", "x", [], {}, [[]])
    if isinstance(value, dict):
        for key, part in value.items():
            yield {name: kept for name, kept in value.items() if name != key}
            yield from (value | {key: other} for other in mutants(part))
    elif isinstance(value, list):
        yield from (value[1:], value * 2)
        if value:
            yield from ([other, *value[1:]] for other in mutants(value[0]))


def test_a_description_with_any_part_changed_is_served_or_refused(model: LinearModel) -> None:
    """The archive is whole: whoever changed it is no accident."""
    members, count = members_of(to_bytes(model)), 0
    for mutant in mutants(json.loads(members["description.json"])):
        content = archive_of(members | {"description.json": json.dumps(mutant).encode()})
        assert isinstance(outcome(content, 0.03), LinearModel | SealserveError)
        count += 1
    assert count > 100


@pytest.mark.slow
def test_arrays_with_any_number_changed_are_served_or_refused(model: LinearModel) -> None:
    members = members_of(to_bytes(model))
    for name in (name for name in members if name.endswith(".npy")):
        values = np.load(io.BytesIO(members[name]))
        others = (True,) if values.dtype == bool else (0, 1, -1, 1 << 60)
        others = (*others, np.nan, np.inf, -1e308, 1e308, 1e-320) if values.dtype == float else others
        for other in others:
            changed = values.copy()
            changed.flat[0] = other
            found = outcome(archive_of(members | {name: array(changed)}))
            assert isinstance(found, LinearModel | SealserveError), (name, other)
        for other_shape in (values[None], values[:0], values.ravel(), np.asfortranarray(values)):
            found = outcome(archive_of(members | {name: array(other_shape)}), 0.1)
            assert isinstance(found, LinearModel | SealserveError), (name, other_shape.shape)
