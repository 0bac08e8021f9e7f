"""Pin: what a client expects of a model's description, with a digest of it.

It is the part that decides what the client encrypts and how it reads scores. A user looks at a
description once, saves its pin, and has the client compare every later description with it. A
service cannot then widen a range, rename a column or exchange two labels unnoticed. Pinned are the
columns, the steps from columns to features, the input grid and the output.
Not pinned is what may change without changing the meaning of a row or a score: the model's name and
version, offers, limits, error bounds and the configuration id.

The digest is the SHA-256 of an encoding that any language can write:

    text     the UTF-8 bytes, after their number as uint32
    uint32   little-endian, as are int64 and double (IEEE 754); -0.0 is written as 0.0
    flag     one byte, 0 or 1

    text     "sealserve-pin-1"
    uint32   the number of columns
    uint32   the number of column names: none, or one a column; then each as text
    uint32   0 if the columns say only their names. Otherwise 1, then
        text     the SHA-256 of the steps (Input.steps_id); empty if there are none
        of each column:
        text     its kind: "number", "integer", "boolean", "string" or "text"
        flag     whether values may be missing
        double   the least number that it takes, then the greatest; of a boolean 0 and 1 by default,
                 otherwise an infinity
    uint32   the number of features on the grid, F
    double   F minima, then F maxima, then F steps of the grid
    flag     F flags, whether a feature's values all lie on the grid (Input.keeps)
    uint32   the number of groups, G; if it is not 0, then F numbers of groups (Input.group)
    flag     G flags (Input.exactly_one)
    text     the task: "regression", "classification" or "multilabel"
    uint32   the number of scores
    text     the link: "none", "logistic", "ovr_logistic", "softmax", "modified_huber", "curves",
             "log" or "log1p"
    flag     whether predictions of a regression are scalar (Output.scalar_target)
    flag     whether rows of zeros stay (Output.keeps_zero_rows)
    text     the type of the labels: "none", "bool", "int", "float" or "str"
    uint32   the number of labels; then each as flag, int64, double or text, by their type
    uint32   the number of classifiers whose probabilities are averaged (Output.member_count)
    text     the rule of pairs: "none", "votes", "pairs" or "confidences"
    uint32   the number of curves: none, or one a score; then for each
    uint32       the number of its points, P
    double       P scores, then P probabilities
"""

import hashlib
import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError, UnexpectedModelError
from sealserve.he.quantization import InputGrid
from sealserve.he.row_constraints import RowConstraints
from sealserve.protocol.column import Column, ColumnKind
from sealserve.protocol.model import Model
from sealserve.protocol.output import Curve, Label, Link, Output, Pairwise, Task
from sealserve.protocol.schema import Schema
from sealserve.protocol.text import MAX_NAME_CHARACTERS, feature_in_words, quoted

__all__ = ["Pin", "PinnedContent"]

_FORMAT = "sealserve-pin-1"
_MAX_FILE_BYTES = 64 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KINDS = {bool: "bool", int: "int", float: "float", str: "str"}


@dataclass(frozen=True)
class PinnedContent:
    """What is pinned of a model.

    Attributes:
        schema: the columns of a row.
        grid: the input grid.
        output: the meaning of the scores.
        steps_id: the SHA-256 of the steps; "" if the columns are the features.
    """

    schema: Schema
    grid: InputGrid
    output: Output
    steps_id: str = ""

    @property
    def digest(self) -> str:
        """The SHA-256 of the canonical encoding, as 64 lower-case hexadecimal digits."""
        return hashlib.sha256(b"".join(self._encoded())).hexdigest()

    def _encoded(self) -> Iterator[bytes]:
        schema, grid, output = self.schema, self.grid, self.output
        yield _text(_FORMAT)
        yield struct.pack("<2I", schema.column_count, len(schema.column_names))
        yield from map(_text, schema.column_names)
        yield struct.pack("<I", bool(schema.columns or self.steps_id))
        if schema.columns or self.steps_id:
            yield _text(self.steps_id)
        for column in schema.columns:
            low, high = column.range
            yield _text(column.kind.value) + struct.pack("<?2d", column.allows_missing, low + 0.0, high + 0.0)
        yield struct.pack("<I", grid.feature_count)
        for values in (grid.minimum, grid.maximum, grid.step):
            yield (values + 0.0).astype("<f8").tobytes()  # -0.0 + 0.0 is 0.0
        yield grid.keeps.astype("<u1").tobytes()
        groups = grid.constraints.checked
        yield struct.pack("<I", len(groups.exactly_one)) + groups.group.astype("<u4").tobytes()
        yield groups.exactly_one.astype("<u1").tobytes()
        yield _text(output.task.value) + struct.pack("<I", output.score_count) + _text(output.link.value)
        yield struct.pack("<2?", output.scalar_target, output.keeps_zero_rows)
        yield _text(_kind(output.classes)) + struct.pack("<I", len(output.classes))
        yield from map(_label, output.classes)
        yield struct.pack("<I", output.member_count) + _text(output.pairwise.value)
        yield struct.pack("<I", len(output.curves))
        for curve in output.curves:
            yield struct.pack("<I", len(curve.scores))
            yield (np.array(curve.scores + curve.probabilities) + 0.0).astype("<f8").tobytes()

    def difference(self, other: "PinnedContent") -> str:
        """Say what is the first difference of another description from this one; "" if none is."""
        expected, found = self.schema, other.schema
        if expected.column_count != found.column_count:
            return f"it has {found.column_count} columns, not {expected.column_count}"
        if expected.column_names != found.column_names:
            return _first_name(expected.column_names, found.column_names)
        for position, (column, found_column) in enumerate(zip(expected.columns, found.columns, strict=False)):
            if column != found_column:
                return f"column {position} takes other values: {found_column.words}; expected was: {column.words}"
        if len(expected.columns) != len(found.columns):
            return "its columns say what they take, or do so no longer"
        if self.steps_id != other.steps_id:
            return "its steps are others"
        if self.grid.feature_count != other.grid.feature_count:
            return f"it has {other.grid.feature_count} features on its grid, not {self.grid.feature_count}"
        for what, values, others in (
            ("minimum", self.grid.minimum, other.grid.minimum),
            ("maximum", self.grid.maximum, other.grid.maximum),
            ("step", self.grid.step, other.grid.step),
            ("flag that it keeps its grid", self.grid.keeps, other.grid.keeps),
        ):
            if (at_fault := np.flatnonzero(values != others)).size:
                k = int(at_fault[0])
                has_name = not self.steps_id and k < len(expected.column_names)
                feature = feature_in_words(k, expected.column_names[k] if has_name else None)
                return f"the {what} of {feature} is {others[k]!s}, not {values[k]!s}"
        if self.to_json()["grid"]["groups"] != other.to_json()["grid"]["groups"]:
            return "its groups of features are others"
        return _output_difference(self.output, other.output)

    def to_json(self) -> dict[str, Any]:
        """Return the content for JSON. A value that is equal for all features is written once."""
        grid, output = self.grid, self.output
        return {
            "columns": {
                "count": self.schema.column_count,
                "names": list(self.schema.column_names),
                "values": [_column_to_json(column) for column in self.schema.columns],
            },
            "steps": [self.steps_id] if self.steps_id else [],
            "grid": {
                "features": grid.feature_count,
                "minimum": _folded(grid.minimum),
                "maximum": _folded(grid.maximum),
                "step": _folded(grid.step),
                "keeps": _folded(grid.keeps),
                "groups": {
                    "group": grid.constraints.checked.group.tolist(),
                    "exactly_one": grid.constraints.checked.exactly_one.tolist(),
                },
            },
            "output": {
                "task": output.task.value,
                "scores": output.score_count,
                "link": output.link.value,
                "scalar_target": output.scalar_target,
                "keeps_zero_rows": output.keeps_zero_rows,
                "labels": _kind(output.classes),
                "classes": list(output.classes),
                "members": output.member_count,
                "pairwise": output.pairwise.value,
                "curves": [[list(curve.scores), list(curve.probabilities)] for curve in output.curves],
            },
        }

    @classmethod
    def from_json(cls, content: Any) -> "PinnedContent":
        """Read what `to_json` returned.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        columns, grid, output = content["columns"], content["grid"], content["output"]
        names = tuple(map(str, columns["names"]))
        values = columns.get("values", [])
        named = names[: len(values)] or ("",) * len(values)
        takes = [_column_from_json(name, value) for name, value in zip(named, values, strict=True)]
        [steps_id] = content["steps"] or [""]
        if not isinstance(steps_id, str):
            raise ValueError("its steps have no SHA-256")
        feature_count, groups = int(grid["features"]), grid["groups"]
        constraints = RowConstraints.of(feature_count, groups["group"], groups["exactly_one"])
        kind = next((kind for kind, name in _KINDS.items() if name == output["labels"]), None)
        return cls(
            Schema.of(takes) if takes else Schema(int(columns["count"]), names),
            InputGrid.of(feature_count, grid["minimum"], grid["maximum"], grid["step"], grid["keeps"], constraints),
            Output(
                Task(output["task"]),
                int(output["scores"]),
                tuple(kind(label) for label in output["classes"]) if kind else (),
                Link(output["link"]),
                scalar_target=bool(output["scalar_target"]),
                keeps_zero_rows=bool(output["keeps_zero_rows"]),
                member_count=int(output["members"]),
                pairwise=Pairwise(output["pairwise"]),
                curves=tuple(Curve(*(tuple(map(float, values)) for values in curve)) for curve in output["curves"]),
            ),
            steps_id,
        )


@dataclass(frozen=True)
class Pin:
    """A model that a client expects: its digest and, if it came from a file, its content.

    Attributes:
        digest: 64 lower-case hexadecimal digits.
        content: what the digest is of; None if only the digest is known.
    """

    digest: str
    content: PinnedContent | None = None

    @classmethod
    def of(cls, model: Model) -> "Pin":
        """Pin a model."""
        content = PinnedContent(model.schema, model.grid, model.output, model.steps_id)
        return cls(content.digest, content)

    @classmethod
    def read(cls, expected: str | Path) -> "Pin":
        """Read a pin: a digest of 64 hexadecimal digits, or the path of a file that `save` wrote.

        Raises:
            InputError: it is neither, or the file's content does not have the file's digest.
        """
        if isinstance(expected, str) and _DIGEST.fullmatch(expected.lower()):
            return cls(expected.lower())
        path = Path(expected)
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_FILE_BYTES + 1)
            if len(data) > _MAX_FILE_BYTES:
                raise ValueError("it is too long")
            loaded = json.loads(data)
            if loaded["format"] != _FORMAT:
                raise ValueError(f"its format is not {_FORMAT}: update sealserve, or save the pin again")
            content = PinnedContent.from_json(loaded)
            is_unchanged = content.digest == loaded["digest"]
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; give a file of `models show --save`, or a digest") from error
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            raise InputError(f"{path} is no pin of a model: {error}") from error
        if not is_unchanged:
            raise InputError(f"{path}: its digest is not that of its content: the file was changed; save it again")
        return cls(content.digest, content)

    def save(self, path: str | Path) -> None:
        """Write the pin as JSON, for people and for `read`.

        Raises:
            InputError: only the digest is known.
            OSError: the file cannot be written.
        """
        if self.content is None:
            raise InputError("a digest alone cannot be saved: pin a model")
        # JSON is written in ASCII: a name of the service does not reach a terminal as it is.
        text = json.dumps({"format": _FORMAT, "digest": self.digest, **self.content.to_json()}, indent=2)
        Path(path).write_text(text + "\n")

    def check(self, model: Model) -> None:
        """Compare a model with the pin.

        Raises:
            UnexpectedModelError: the model is another; the text says in what.
        """
        found = Pin.of(model)
        if found.digest == self.digest:
            return
        what = ""
        if self.content is not None and found.content is not None:
            what = self.content.difference(found.content)
        raise UnexpectedModelError(what or f"its pin is {found.digest}, not {self.digest}")


def _column_to_json(column: Column) -> dict[str, Any]:
    return {
        "kind": column.kind.value,
        "missing": column.allows_missing,
        "minimum": column.minimum,
        "maximum": column.maximum,
    }


def _column_from_json(name: str, content: Any) -> Column:
    return Column(name, ColumnKind(content["kind"]), bool(content["missing"]), content["minimum"], content["maximum"])


def _first_name(expected: tuple[str, ...], found: tuple[str, ...]) -> str:
    if not expected or not found:
        return "it has names of columns, and was expected to have none" if found else "it has no names of columns"
    k = next(k for k in range(len(expected)) if expected[k] != found[k])
    return f"column {k} is {_whole(found[k])}, not {_whole(expected[k])}"


def _output_difference(expected: Output, found: Output) -> str:
    for what, value, other in (
        ("task", expected.task.value, found.task.value),
        ("number of scores", expected.score_count, found.score_count),
        ("link", expected.link.value, found.link.value),
        ("shape of a prediction, scalar,", expected.scalar_target, found.scalar_target),
        ("rule that rows of zeros stay", expected.keeps_zero_rows, found.keeps_zero_rows),
        ("number of averaged classifiers", expected.member_count, found.member_count),
        ("rule of pairs", expected.pairwise.value, found.pairwise.value),
        ("type of the labels", _kind(expected.classes), _kind(found.classes)),
        ("number of labels", len(expected.classes), len(found.classes)),
    ):
        if value != other:
            return f"the {what} is {other}, not {value}"
    for k, (label, other_label) in enumerate(zip(expected.classes, found.classes, strict=True)):
        if label != other_label:
            return f"label {k} is {_whole(str(other_label))}, not {_whole(str(label))}"
    for k, (curve, other_curve) in enumerate(zip(expected.curves, found.curves, strict=True)):
        if curve != other_curve:
            return f"the curve of score {k} is another"
    return ""


def _whole(text: str) -> str:
    """Quote a text at greater length than elsewhere: it may differ from another at its end only."""
    return quoted(text, MAX_NAME_CHARACTERS)


def _kind(classes: tuple[Label, ...]) -> str:
    return _KINDS[type(classes[0])] if classes else "none"


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def _label(label: Label) -> bytes:
    match label:
        case bool():
            return struct.pack("<?", label)
        case int():
            return struct.pack("<q", label)
        case float():
            return struct.pack("<d", label + 0.0)
    return _text(label)


def _folded(values: NDArray[Any]) -> float | list[float]:
    folded: float | list[float] = values[0].item() if (values == values[0]).all() else values.tolist()
    return folded
