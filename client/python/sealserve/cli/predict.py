"""`sealserve predict`: predictions for a file of rows, written to a file or to stdout."""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealserve.cli.command import Command, add_expect_option, add_service_options, credentials
from sealserve.cli.rows import add_rows_options, rows_file
from sealserve.errors import InputError, SealserveError

if TYPE_CHECKING:
    from sealserve._codec.batches import PredictionMethod
    from sealserve.cli.predictions_file import PredictionsFile
    from sealserve.client import Client
    from sealserve.protocol.model import Model, Offer
    from sealserve.row_files.reader import RowsFile

METHODS = ("predict", "decision_function", "predict_proba")
_CLASSES_CHANGED = "the model's classes changed during the run, and nothing was written: start again"


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    add_service_options(parser)
    add_expect_option(parser)
    parser.add_argument("--model", default="", metavar="NAME", help="may be left out if the service has one only")
    add_rows_options(
        parser, required=True, purpose="rows of features: csv, tsv, npy, npz, parquet, arrow or jsonl; - for stdin"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="where predictions go: npy, csv, tsv or parquet (default: stdout, a line a row, as in csv)",
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
        "--seeded",
        action="store_true",
        help="uploads of half the size or less from the first item on, for slow links",
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

    output, file = arguments.output, rows_file(arguments)
    _check_files(arguments)
    key_file = arguments.secret_key
    key = SecretKey.load(key_file) if key_file and key_file.exists() else None
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
        rows = file.read(client.model.schema)
        if key_file and key is None:
            client.secret_key.save(key_file)
        prediction_run = PredictionRun(client, rows, arguments.method, show_progress=arguments.progress)
        if output is None:
            prediction_run.print_all()
        elif arguments.resume and prediction_run.is_finished(output, file.path):
            why = f"it has a prediction for each of {len(rows):,} rows, and is newer than {file.path}"
            print(f"{output} is finished: nothing to do; {why}; without --resume it is written anew", file=sys.stderr)
        else:
            begun_with = origin(file, client.model) | {"clipping": arguments.clip}
            prediction_run.write(output, begun_with, resume=arguments.resume)
    return 0


def _check_files(arguments: Namespace) -> None:
    """Check what can be said of the files before anything is read or sent.

    Raises:
        InputError: predictions cannot be written to the output, or --resume cannot continue it.
    """
    from sealserve.cli.predictions_table import check_output

    output, input_path = arguments.output, arguments.input
    if output:
        check_output(output)
        if output.exists() and input_path.exists() and output.samefile(input_path):
            raise InputError(f"{output}: the predictions would replace the rows: name another file")
    if arguments.resume and not output:
        raise InputError("--resume continues a file: it needs --output")
    if arguments.resume and str(input_path) == "-":
        raise InputError("--resume needs rows from a file: what came on stdin is gone")


def origin(file: "RowsFile", model: "Model") -> dict[str, Any]:
    """Return what the predictions depend on, besides the method. A resumed run compares it."""
    status = None if file.content else file.path.stat()
    return {
        "input file": [str(file.path.resolve()), status.st_size, status.st_mtime_ns] if status else [],
        "choice of columns": [file.format_name, file.header, file.chosen, file.index],
        "model": [model.name, model.version],
    }


class PredictionRun:
    """One run of `sealserve predict`: the predictions of a file's rows, with progress on stderr."""

    def __init__(self, client: "Client", rows: Any, method: "PredictionMethod", *, show_progress: bool = False) -> None:
        import numpy as np

        from sealserve.cli.predictions_table import header_of

        self._client = client
        self._rows = rows
        self._method = method
        self._show_progress = show_progress
        self._output = client.model.output
        self._example = getattr(self._output, method)(np.zeros((1, self._output.score_count)))
        self._header = header_of(self._output, method)

    def is_finished(self, path: Path, rows_path: Path) -> bool:
        """Return whether a file has all predictions already, and is newer than that of the rows."""
        from sealserve.cli.predictions_file import is_finished

        return is_finished(path, self._example, len(self._rows), self._header, rows_path)

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
        file = PredictionsFile(path, self._example, len(self._rows), origin, resume=resume, header=self._header)
        can_resume = bool(origin["input file"])  # what came on stdin is gone
        with ExitStack() as leaving:
            if not can_resume:
                leaving.callback(file.discard)
            self._fill(file, can_resume=can_resume)
            consequence = "nothing was written"
            if can_resume and file.first < len(self._rows):
                consequence += "; --resume asks again for those that the service failed"
            file.failed.raise_if_any(len(self._rows), consequence)
            file.finish()

    def _fill(self, file: "PredictionsFile", *, can_resume: bool) -> None:
        """Put the predictions of all rows that are due into a file, or their errors."""
        try:
            with closing(self._predict(file.first)) as results:
                for index, result in results:
                    file.put(index, result)
        except BaseException:
            if can_resume:
                file.save()
                shown = f"{file.first:,} of {len(self._rows):,} rows are written: continue with --resume"
                print(shown, file=sys.stderr)
            raise
        if not self._has_same_classes():
            file.discard()
            raise InputError(_CLASSES_CHANGED)
        file.save()

    def print_all(self) -> None:
        """Print the predictions, a line a row, in the order of the rows, once all are there.

        Labels are printable if they go to a terminal, and otherwise exact.

        Raises:
            InputError: rows failed, and nothing is printed.
            SealserveError: the service cannot be reached, or no longer.
        """
        import numpy as np

        from sealserve.cli.predictions_file import FailedRows, fitting
        from sealserve.cli.predictions_table import write_table

        predictions = np.empty((len(self._rows), *self._example.shape[1:]), self._example.dtype)
        is_predicted, failed = np.zeros(len(self._rows), np.bool_), FailedRows()
        with closing(self._predict(0)) as results:
            for index, found in results:
                result = fitting(predictions, found)
                if isinstance(result, SealserveError):
                    failed.add(index, str(result))
                else:
                    predictions[index] = result
                    is_predicted[index] = True
        if not self._has_same_classes():
            raise InputError(_CLASSES_CHANGED)
        failed.raise_if_any(len(self._rows), "nothing was written")
        if not is_predicted.all():
            raise InputError(
                f"{np.count_nonzero(is_predicted):,} of {len(self._rows):,} rows have predictions; nothing was written"
            )
        write_table(predictions, self._header, sys.stdout.buffer, ".csv", is_shown=sys.stdout.isatty())

    def _predict(self, first: int) -> Generator[tuple[int, Any], None, None]:
        """Yield the predictions or errors of the rows from `first` on, as they come."""
        from tqdm import tqdm

        if first == len(self._rows):
            return
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

    def _has_same_classes(self) -> bool:
        """Return whether all predictions mean what they did when the run began.

        While replicas serve several versions, some rows may have been predicted by each of them.
        """
        return all(model.output == self._output for model in self._client.versions)


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
