"""The options that say what a model is served with; `serve` takes them per model, `inspect` for one."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sealserve_service.settings import ModelSource

T = TypeVar("T")

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=(.+)")


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


def model_path(text: str) -> tuple[str, Path]:
    """Parse NAME=PATH, or PATH, whose stem is the name then."""
    match = _NAMED.fullmatch(text)
    return (match[1], Path(match[2])) if match else (Path(text).stem, Path(text))


def source(name: str, path: Path, arguments: argparse.Namespace) -> ModelSource:
    """Gather what the options say of one model."""
    chosen = {flag.replace("-", "_"): _chosen(getattr(arguments, flag.replace("-", "_")), name) for flag in _OPTIONS}
    return ModelSource(name, path, **chosen)


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
