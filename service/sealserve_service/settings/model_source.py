"""The source of a model: its file, and what the operator says of it; or a folder of such files."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelSource:
    """The file of a model, and what the operator says of the model.

    Attributes:
        sha256: of the file, as lower-case hexadecimal digits; "" where nobody has said.
        input_range, input_step, calibration: None leaves them to the model's own scaler.
        max_score_error: the wanted error bound; None leaves it to the planner.
    """

    name: str
    path: Path
    input_range: tuple[float, float] | None = None
    input_step: float | None = None
    calibration: Path | None = None
    max_score_error: float | None = None
    sha256: str = ""


@dataclass(frozen=True)
class ModelFolder:
    """A folder whose model files, at any depth, are served under their names without the extension.

    Attributes:
        named: what the operator says of single models; the paths mean nothing.
        others: what the operator says of all others; name and path mean nothing.
    """

    path: Path
    named: tuple[ModelSource, ...]
    others: ModelSource

    def source(self, path: Path) -> ModelSource:
        """Say how to serve a file of the folder."""
        said = next((source for source in self.named if source.name == path.stem), self.others)
        return dataclasses.replace(said, name=path.stem, path=path)
