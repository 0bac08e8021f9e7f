"""The options that say what a model is served with; `serve` takes them per model, `inspect` for one."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sealserve_service.planning.hiding import DEFAULT_HIDING_BITS
from sealserve_service.settings import ModelSource

DEFAULT_WEIGHTS = "private"
MAX_HIDING_BITS = 128

T = TypeVar("T")

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=(.+)")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ModelFile(NamedTuple):
    """A model as --model gives it; `sha256` of the file is "" where it is not given."""

    name: str
    path: Path
    sha256: str = ""


def input_range(text: str) -> tuple[float, float]:
    """Parse LO,HI."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not LO,HI: two numbers, such as 0,1") from None
    return low, high


def positive(text: str) -> float:
    """Parse a number above 0."""
    try:
        if (value := float(text)) > 0:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


# flag -> what its value is, how it is parsed, what it is for
_OPTIONS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "input-range": ("LO,HI", input_range, "least and greatest value of every feature"),
    "input-step": (
        "STEP",
        positive,
        "distance between neighbours on the features' grid (default: 1/255 of the range)",
    ),
    "calibration": ("X.npy", Path, "rows that give each feature's range, and on which errors are observed"),
    "max-score-error": ("E", positive, "the largest proven score error that will do; less costs more"),
}


def add_weights_options(parser: argparse.ArgumentParser) -> None:
    """Add --weights and --hiding-bits, which are the same for all models of a process."""
    parser.add_argument(
        "--weights",
        choices=("private", "open"),
        default=DEFAULT_WEIGHTS,
        help="what replies tell of the weights: private, nothing but the scores, to clients that keep to the protocol; "
        "open, all of them to whoever sees a request with its reply, for public models and the last millisecond "
        "(%(default)s)",
    )
    parser.add_argument(
        "--hiding-bits",
        type=_hiding_bits,
        default=DEFAULT_HIDING_BITS,
        metavar="N",
        help="a private reply is within 2^-N of one that depends on its scores only; costs N bits of the ciphertext "
        "modulus, half of them from the weights (%(default)s)",
    )


def hiding_bits(arguments: argparse.Namespace) -> int | None:
    """Return what is said of them for Settings."""
    return arguments.hiding_bits if arguments.weights == "private" else None


def _hiding_bits(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= MAX_HIDING_BITS:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MAX_HIDING_BITS}")


def add_model_options(parser: argparse.ArgumentParser, *, per_model: bool) -> None:
    """Add --trust-pickle, --input-range and so on; per model, each is repeatable and takes [NAME=]VALUE."""
    parser.add_argument(
        "--trust-pickle", action="store_true", help="load pickles, which run code of whoever wrote them"
    )
    for flag, (metavar, parse, purpose) in _OPTIONS.items():
        if per_model:
            parser.add_argument(
                f"--{flag}",
                type=_named(parse),
                action="append",
                default=[],
                metavar=f"[NAME=]{metavar}",
                help=f"{purpose}; for one model or for all",
            )
        else:
            parser.add_argument(f"--{flag}", type=parse, metavar=metavar, help=purpose)


def model_file(text: str) -> ModelFile:
    """Parse [NAME=]PATH[@sha256:HEX]; without a name it is the path's stem."""
    match = _NAMED.fullmatch(text)
    name, file = (match[1], match[2]) if match else ("", text)
    path, at, digest = file.partition("@sha256:")
    if at and not _DIGEST.fullmatch(digest.lower()):
        raise argparse.ArgumentTypeError(f"{digest!r} is not a SHA-256: 64 hexadecimal digits")
    return ModelFile(name or Path(path).stem, Path(path), digest.lower())


def source(file: ModelFile, arguments: argparse.Namespace) -> ModelSource:
    """Gather what the options say of one model."""
    flags = (flag.replace("-", "_") for flag in _OPTIONS)
    chosen = {flag: _chosen(getattr(arguments, flag), file.name) for flag in flags}
    return ModelSource(file.name, file.path, sha256=file.sha256, **chosen)


def _named(parse: Callable[[str], T]) -> Callable[[str], tuple[str | None, T]]:
    def parse_named(text: str) -> tuple[str | None, T]:
        match = _NAMED.fullmatch(text)
        return (match[1], parse(match[2])) if match else (None, parse(text))

    return parse_named


def _chosen(given: Any, name: str) -> Any:
    """Pick the last value for the model, else the last for all; a value that is not a list is for the one model."""
    if not isinstance(given, list):
        return given
    of_all = [value for target, value in given if target is None]
    own = [value for target, value in given if target == name]
    return (of_all + own or [None])[-1]
