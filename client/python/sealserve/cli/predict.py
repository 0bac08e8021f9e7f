"""`sealserve predict`: predictions for a file of rows, written to a file or to stdout."""

import csv
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealserve.cli.command import Command, add_expect_option, add_service_options, credentials
from sealserve.errors import InputError, SealserveError

if TYPE_CHECKING:
    from sealserve._codec.batches import PredictionMethod
    from sealserve.client import Client
    from sealserve.protocol.model import Model, Offer

METHODS = ("predict", "decision_function", "predict_proba")


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    add_service_options(parser)
    add_expect_option(parser)
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
        "--resume", action="store_true", help="continue where an interrupted run with the same --output stopped"
    )
    parser.add_argument(
        "--secret-key", type=Path, metavar="FILE", help="the secret key to use; made and saved there if it is missing"
    )
    parser.add_argument("--clip", action="store_true", help="move features outside the range to its nearest end")
    parser.add_argument(
        "--layout",
        default="auto",
        metavar="LAYOUT",
        help="row: the least delay; column: the most rows a second; auto: by the number of rows (%(default)s)",
    )
    parser.add_argument(
        "--seeded", action="store_true", help="uploads of half the size, for links of less than half a gigabit a second"
    )
    parser.add_argument("--connections", type=int, metavar="N", help="by default as many as the service suggests")
    parser.add_argument(
        "--encrypt-processes", type=int, default=0, metavar="N", help="encrypt in so many processes beside this one"
    )
    parser.add_argument("--progress", action="store_true", help="show progress even if stderr is no terminal")


def run(arguments: Namespace) -> int:
    """Predict the rows of the file."""
    from sealserve.client import Client
    from sealserve.secret_key import SecretKey

    output = arguments.output
    if output and output.suffix not in (".npy", ".csv"):
        raise InputError(f"{output}: predictions go into a .npy or a .csv file")
    if arguments.resume and not output:
        raise InputError("--resume continues a file: it needs --output")
    key_file = arguments.secret_key
    key = SecretKey.load(key_file) if key_file and key_file.exists() else None
    names, rows = read_rows(arguments.input)
    with Client(
        arguments.address,
        model=arguments.model,
        credentials=credentials(arguments),
        secret_key=key,
        layout=arguments.layout,
        clip=arguments.clip,
        timeout_seconds=arguments.timeout,
        connections=arguments.connections,
        seeded=arguments.seeded or None,
        encrypt_processes=arguments.encrypt_processes,
        expect=arguments.expect,
    ) as client:
        _check_columns(names, rows.shape, client.model)
        if key_file and key is None:
            client.secret_key.save(key_file)
        prediction_run = PredictionRun(client, rows, arguments.method, show_progress=arguments.progress)
        if output is None:
            prediction_run.print_all()
        else:
            begun_with = origin(arguments.input, client.model) | {"clipping": arguments.clip}
            prediction_run.write(output, begun_with, resume=arguments.resume)
    return 0


def origin(path: Path, model: "Model") -> dict[str, Any]:
    """Return what the predictions depend on, besides the method. A resumed run compares it."""
    status = path.stat()
    return {
        "input file": [str(path.resolve()), status.st_size, status.st_mtime_ns],
        "model": [model.name, model.version],
    }


def _check_columns(names: tuple[str, ...], shape: tuple[int, ...], model: "Model") -> None:
    model.schema.check_shape(shape)
    model.schema.check_names(names)


def read_rows(path: Path) -> tuple[tuple[str, ...], Any]:
    """Read rows: the columns' names, where a CSV file has them, and float64 (rows, column_count).

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


class PredictionRun:
    """One run of `sealserve predict`: the predictions of a file's rows, with progress on stderr."""

    def __init__(self, client: "Client", rows: Any, method: "PredictionMethod", *, show_progress: bool = False) -> None:
        import numpy as np

        self._client = client
        self._rows = rows
        self._method = method
        self._show_progress = show_progress
        output = client.model.output
        self._example = getattr(output, method)(np.zeros((1, output.score_count)))

    def write(self, path: Path, origin: dict[str, Any], *, resume: bool) -> None:
        """Write the predictions into a file, as they come.

        Raises:
            InputError: rows failed, and nothing is written, in this run or in the interrupted one;
                or the interrupted run cannot be continued.
            SealserveError: the service cannot be reached, or no longer. A run with --resume
                continues from there.
        """
        from sealserve.cli.predictions_file import PredictionsFile

        origin = origin | {"method": self._method}
        file = PredictionsFile(path, self._example, len(self._rows), origin, resume=resume)
        try:
            with closing(self._predict(file.first)) as results:
                for index, result in results:
                    file.put(index, result)
        except BaseException:
            file.save()
            print(f"{file.first:,} of {len(self._rows):,} rows are written: continue with --resume", file=sys.stderr)
            raise
        file.save()
        is_answered = file.first == len(self._rows)
        consequence = "nothing was written"
        file.failed.raise_if_any(
            len(self._rows),
            consequence if is_answered else f"{consequence}; --resume asks again for those that the service failed",
        )
        file.finish()

    def print_all(self) -> None:
        """Print the predictions, a line a row, in the order of the rows.

        Raises:
            InputError: rows failed. The output ends before the first of them.
            SealserveError: the service cannot be reached, or no longer.
        """
        import numpy as np

        from sealserve.cli.predictions_file import FailedRows, write_lines

        ahead, due, failed = dict[int, Any](), 0, FailedRows()
        with closing(self._predict(0)) as results:
            for index, result in results:
                if isinstance(result, SealserveError):
                    failed.add(index, str(result))
                else:
                    ahead[index] = result
                while due in ahead:
                    write_lines(np.array([ahead.pop(due)]), sys.stdout, is_shown=True)
                    due += 1
        failed.raise_if_any(len(self._rows), "the output ends before the first of them")

    def _predict(self, first: int) -> Generator[tuple[int, Any], None, None]:
        """Yield the predictions or errors of the rows from `first` on, as they come."""
        from tqdm import tqdm

        offer = self._client.offer(len(self._rows) - first)
        start, count = time.perf_counter(), 0
        results = self._client.stream(self._rows[first:], method=self._method, rows_per_item=offer.rows_per_item)
        hidden = None if not self._show_progress else False  # None: unless stderr is a terminal
        with (
            closing(results),
            tqdm(results, total=len(self._rows), initial=first, unit="row", disable=hidden) as bar,
        ):
            for count, (index, result) in enumerate(bar, 1):
                bar.set_postfix_str(_traffic(count, offer), refresh=False)
                yield first + index, result
        seconds = time.perf_counter() - start
        print(f"{count:,} rows in {seconds:.1f} s: {count / seconds:,.0f} rows/s", file=sys.stderr)


def _traffic(row_count: int, offer: "Offer") -> str:
    """Return how many bytes rows take in full items, in words."""
    up, down = (row_count * count / offer.rows_per_item for count in (offer.cost.request_bytes, offer.cost.reply_bytes))
    return f"{up / 1e6:,.1f} MB up, {down / 1e6:,.1f} MB down"


COMMAND = Command(
    "predict",
    "predict a file of rows, encrypted",
    "  sealserve predict --address 127.0.0.1:50051 --model mnist --input X.npy --output labels.csv\n"
    "  sealserve predict --model mnist --input X.npy --output labels.csv --resume",
    configure,
    run,
)
