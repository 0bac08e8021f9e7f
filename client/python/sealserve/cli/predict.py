"""`sealserve predict`: a file of rows in, a file of predictions out."""

import csv
import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealserve.cli.command import Command, add_service_options, credentials
from sealserve.errors import FeatureCountError, FeatureNameError, InputError, SealserveError

if TYPE_CHECKING:
    from sealserve.client import Client
    from sealserve.model import Model

METHODS = ("predict", "decision_function", "predict_proba")
_SHOWN_ERRORS = 5


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    add_service_options(parser)
    parser.add_argument("--model", default="", metavar="NAME", help="may be left out if the service has one only")
    parser.add_argument("--input", type=Path, required=True, metavar="X.npy|X.csv", help="rows of features")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.npy|FILE.csv",
        help="where predictions go (default: stdout, a line a row)",
    )
    parser.add_argument("--method", choices=METHODS, default="predict", help="what to predict (%(default)s)")
    parser.add_argument(
        "--secret-key", type=Path, metavar="FILE", help="the secret key to use; made and saved there if it is missing"
    )
    parser.add_argument("--clip", action="store_true", help="move features outside the range to its nearest end")
    parser.add_argument("--connections", type=int, metavar="N", help="by default as many as the service suggests")
    parser.add_argument("--progress", action="store_true", help="show progress even if stderr is no terminal")


def run(arguments: Namespace) -> int:
    """Predict."""
    from sealserve.client import Client
    from sealserve.keys import SecretKey

    if arguments.output and arguments.output.suffix not in (".npy", ".csv"):
        raise InputError(f"{arguments.output}: predictions go into a .npy or a .csv file")
    key_file = arguments.secret_key
    key = SecretKey.load(key_file) if key_file and key_file.exists() else None
    names, rows = read_rows(arguments.input)
    with Client(
        arguments.address,
        model=arguments.model,
        credentials=credentials(arguments),
        secret_key=key,
        clip=arguments.clip,
        timeout_seconds=arguments.timeout,
        connections=arguments.connections,
    ) as client:
        _check_columns(names, rows.shape, client.model)
        if key_file and key is None:
            client.secret_key.save(key_file)
        predictions, errors = predict(client, rows, arguments.method, show_progress=arguments.progress)
    for index, error in errors[:_SHOWN_ERRORS]:
        print(f"row {index}: {error}", file=sys.stderr)
    if errors:
        raise InputError(f"{len(errors):,} of {len(rows):,} rows failed; nothing was written")
    write(predictions, arguments.output)
    return 0


def _check_columns(names: tuple[str, ...], shape: tuple[int, ...], model: "Model") -> None:
    expected = model.grid.feature_count
    if shape[1:] != (expected,):
        raise FeatureCountError(f"rows of {expected} features are needed, the shape is {shape}")
    if names and model.feature_names and names != model.feature_names:
        raise FeatureNameError(f"the columns must be, in this order: {', '.join(model.feature_names)}")


def read_rows(path: Path) -> tuple[tuple[str, ...], Any]:
    """Read rows: the columns' names, where a CSV file has them, and a float64 array (rows, features).

    Raises:
        InputError: the file is neither .npy nor .csv, or holds no table of numbers.
    """
    import numpy as np

    try:
        if path.suffix == ".npy":
            return (), np.load(path, mmap_mode="r", allow_pickle=False)
        if path.suffix == ".csv":
            with path.open(newline="") as file:
                first = next(csv.reader(file), [])
            names = () if all(map(_is_number, first)) else tuple(first)
            return names, np.loadtxt(path, delimiter=",", skiprows=int(bool(names)), ndmin=2)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    raise InputError(f"{path}: rows come from a .npy or a .csv file")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def predict(
    client: "Client", rows: Any, method: Any, *, show_progress: bool = False
) -> tuple[Any, list[tuple[int, SealserveError]]]:
    """Predict rows and show progress: predictions in the order of the rows, and the errors with their rows' indices."""
    import numpy as np
    from tqdm import tqdm

    output = client.model.output
    sample = getattr(output, method)(np.zeros((1, output.score_count)))
    predictions = np.empty((len(rows), *sample.shape[1:]), sample.dtype)
    errors: list[tuple[int, SealserveError]] = []
    start = time.perf_counter()
    results = client.stream(rows, method=method, rows_per_item=client.model.offers[0].rows_per_item)
    for index, result in tqdm(results, total=len(rows), unit="row", disable=None if not show_progress else False):
        if isinstance(result, SealserveError):
            errors.append((index, result))
        else:
            predictions[index] = result
    seconds = time.perf_counter() - start
    print(f"{len(rows):,} rows in {seconds:.1f} s: {len(rows) / seconds:,.0f} rows/s", file=sys.stderr)
    return predictions, errors


def write(predictions: Any, path: Path | None) -> None:
    """Write predictions into a file, which is there whole or not at all, or to stdout."""
    import numpy as np

    table = predictions if predictions.ndim == 2 else predictions[:, None]
    form = "%.17g" if predictions.dtype.kind == "f" else "%s"
    if path is None:
        np.savetxt(sys.stdout, table, form, ",")
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            if path.suffix == ".npy":
                np.save(file, predictions)
            else:
                np.savetxt(file, table, form, ",")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


COMMAND = Command(
    "predict",
    "predict a file of rows, encrypted",
    "  sealserve predict --address 127.0.0.1:50051 --model mnist --input X.npy --output labels.csv",
    configure,
    run,
)
