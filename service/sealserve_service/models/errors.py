"""Errors of models; every message says what to do about the fault.

ModelError
├── ModelFileError              file missing, damaged, of an unknown format, or without estimator
│   └── PickleNotTrustedError   a pickle, and the operator has not consented to run it
├── ModelTooLargeError          it passes a limit of `models.limits`
├── PublicationError            the operator has not agreed to what serving it would publish
├── UnsupportedModelError       not linear, not affine, not fitted or not finite; names the step
└── InputRangeError             range, step or calibration rows do not fit the model
    └── InputRangeMissingError  nothing says which inputs to expect
"""

from dataclasses import dataclass
from pathlib import Path

from sealserve.errors import SealserveError


class ModelError(SealserveError):
    """A model cannot be served; the text is for the operator."""


class ModelFileError(ModelError):
    """The file is missing, damaged, of an unknown format, or holds no estimator."""


class PickleNotTrustedError(ModelFileError):
    """The file is a pickle, which runs its author's code, and the operator has not consented."""


@dataclass(eq=False)
class ModelTooLargeError(ModelError):
    """A model, or its file, passes a limit of `models.limits`.

    Attributes:
        limit: what is limited.
        maximum: of it.
        found: how much there is.
        path: of the model's file.
    """

    limit: str
    maximum: int
    found: int
    path: Path | None = None

    def __str__(self) -> str:
        what = f"{self.path}: the model" if self.path else "the model"
        return (
            f"{what} may have {self.maximum:,} {self.limit} and has {self.found:,}: save only what its scores need, by "
            "numpy.savez('model.npz', coef=..., intercept=..., classes=...), or serve its classes as several models"
        )


class UnsupportedModelError(ModelError):
    """The estimator, or the step that is named, is not linear, affine, fitted or finite."""


class PublicationError(ModelError):
    """Serving the model would publish something that the operator has not agreed to publish."""


class InputRangeError(ModelError):
    """The input range, the step or the calibration rows do not fit the model."""


class InputRangeMissingError(InputRangeError):
    """Nothing says which inputs to expect: no range, no calibration rows, no scaler."""
