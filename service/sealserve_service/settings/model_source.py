"""The source of a model: its file, and what the operator says of it; or a folder of such files."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelSource:
    """The file of a model, and what the operator says of the model.

    Attributes:
        name: under which the model is served.
        path: of the model's file.
        input_range: least and greatest value of every feature; None for that of the calibration
            rows, or else of the model's own scaler.
        input_step: distance between neighbours on the grid that all features are on; None for the
            planner's choice.
        input_margin: share of a range's width by which data's ranges are widened at each end; None
            for the default.
        input_ranges: a file of ranges and steps of single features; None if there is none.
        calibration: a file of typical rows; None if there is none.
        calibration_sha256: of that file, in lower-case hexadecimal digits; "" for any file.
        max_score_error: the largest acceptable error bound; None for the planner's default.
        publish: what the operator agrees to publish: "steps", "structure".
        accept_training_values: whether that may tell values of single training rows.
        sha256: of the model's file, in lower-case hexadecimal digits; "" for any file.
    """

    name: str
    path: Path
    input_range: tuple[float, float] | None = None
    input_step: float | None = None
    input_margin: float | None = None
    input_ranges: Path | None = None
    calibration: Path | None = None
    calibration_sha256: str = ""
    max_score_error: float | None = None
    publish: tuple[str, ...] = ()
    accept_training_values: bool = False
    sha256: str = ""

    @property
    def says_of_inputs(self) -> bool:
        """Whether the operator says something of ranges, steps or rows."""
        said = (self.input_range, self.input_step, self.input_margin, self.input_ranges, self.calibration)
        return any(value is not None for value in said)


@dataclass(frozen=True)
class ModelFolder:
    """A folder whose model files, at any depth, are served under their names without the extension.

    Attributes:
        path: of the folder.
        named: what the operator says of single models; their paths are not used.
        others: what the operator says of all others; its name and path are not used.
    """

    path: Path
    named: tuple[ModelSource, ...]
    others: ModelSource

    def source(self, path: Path) -> ModelSource:
        """Return the source that a file of the folder is."""
        said = next((source for source in self.named if source.name == path.stem), self.others)
        return dataclasses.replace(said, name=path.stem, path=path)
