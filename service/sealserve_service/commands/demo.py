"""`sealserve demo`: trains models, serves them, and encrypts, scores and decrypts rows."""

import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealserve.cli.command import Command
from sealserve.errors import UnavailableError

if TYPE_CHECKING:
    from sealserve_service.commands.demonstrations import Demonstration

_SHOWN_ROWS = 8
_DRAWN = "digits"


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--output", type=Path, default=Path("build/demo/digits.png"), metavar="FILE", help="the picture (%(default)s)"
    )


def run(arguments: Namespace) -> int:
    """Run the demonstration; return 0 only if every label equals the plaintext models'."""
    # Imported here: a list of commands needs no extra.
    from sealserve_service.commands.demonstrations import demonstrations

    shown = []
    for demonstration in demonstrations():
        shown.append(demonstration)
        _say(f"trained on {len(demonstration.seen):,} rows: {demonstration.title}")
    with tempfile.TemporaryDirectory() as folder, _serving(shown, Path(folder)) as address:
        _say(f"a service that holds no secret key is serving them on {address}")
        are_right = [_demonstrate(demonstration, address, arguments.output) for demonstration in shown]
    return 0 if all(are_right) else 1


def _demonstrate(demonstration: "Demonstration", address: str, picture: Path) -> bool:
    """Predict the rows of a demonstration; return whether all labels are right, in mode private."""
    import numpy as np

    from sealserve.client import Client

    rows, estimator = demonstration.unseen, demonstration.estimator
    with Client(address, model=demonstration.name) as client:
        offer, verdict = client.model.offers[0], client.model.verdict
        mode = "private" if offer.private_weights else "open"
        print(f"\n{demonstration.title}: weights {mode}, verdict {verdict.value if verdict else 'none'}", flush=True)
        _say(f"encrypting {len(rows)} rows with {offer.parameters.parameter_set.name}, one call a row ...")
        client.predict(rows[:1])
        labels, scores, seconds = _score_one_by_one(client, rows)
    expected = estimator.predict(rows)
    expected_scores = estimator.decision_function(rows).reshape(scores.shape)
    _print_table(demonstration.truth, labels, expected, scores, expected_scores)
    if demonstration.name == _DRAWN:
        try:
            _draw(rows, labels, scores, picture)
        except ModuleNotFoundError:  # matplotlib, which is for the picture only
            _say("there is no picture without matplotlib: pip install 'sealserve[demo]'")
        else:
            print(f"picture: {picture}")
    agreement = float(np.mean(labels == expected))
    print(
        f"rows={len(rows)} accuracy={np.mean(labels == demonstration.truth):.4f} agreement={agreement:.4f} "
        f"p50_ms={1e3 * float(np.median(seconds)):.2f}",
        flush=True,
    )
    return agreement == 1.0 and mode == "private"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _serving(shown: "Sequence[Demonstration]", folder: Path) -> Iterator[str]:
    """Run the real service on a free port and yield its address."""
    command = [sys.executable, "-m", "sealserve.cli.main", "serve", "--trust-pickle"]
    for demonstration in shown:
        command += demonstration.save(folder)
    command += ["--address", "127.0.0.1:0", "--log-level", "warning"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # our own program
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise UnavailableError("the service did not start; what it says is above")
            yield line.split()[-1]
        finally:
            process.terminate()


def _score_one_by_one(client: Any, rows: Any) -> tuple[Any, Any, list[float]]:
    """Return the labels, the scores (rows, score_count) and the seconds of each call."""
    import numpy as np
    from tqdm import tqdm

    found, seconds = [], []
    for row in tqdm(rows, unit="row", disable=None):
        start = time.perf_counter()
        found.append(client.scored(row[None]))
        seconds.append(time.perf_counter() - start)
    return np.concatenate([one.predictions for one in found]), np.concatenate([one.scores for one in found]), seconds


def _print_table(truth: Any, labels: Any, expected: Any, scores: Any, expected_scores: Any) -> None:
    print(f"{'row':>4} {'truth':>6} {'encrypted':>10} {'plaintext':>10} {'its score':>11} {'in plaintext':>13}")
    for row in range(_SHOWN_ROWS):
        winner = scores[row].argmax()
        print(
            f"{row:>4} {truth[row]:>6} {labels[row]:>10} {expected[row]:>10} "
            f"{scores[row, winner]:>11.4f} {expected_scores[row, winner]:>13.4f}"
        )


def _draw(images: Any, labels: Any, scores: Any, path: Path) -> None:
    """Draw digits, each above the scores that the service computed without seeing it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(2, _SHOWN_ROWS, figsize=(1.7 * _SHOWN_ROWS, 4.2), layout="constrained")
    for row in range(_SHOWN_ROWS):
        top, bottom = axes[:, row]
        top.imshow(images[row].reshape(8, 8), cmap="gray_r")
        top.set_title(f"encrypted: {labels[row]}")
        top.axis("off")
        colors = ["#d98c00" if digit == labels[row] else "#3b6fb6" for digit in range(10)]
        bottom.bar(range(10), scores[row], color=colors)
        bottom.axhline(0, color="#555", linewidth=0.8)
        bottom.set_xticks(range(10))
        bottom.set_ylim(scores[:_SHOWN_ROWS].min() - 1, scores[:_SHOWN_ROWS].max() + 1)
        bottom.tick_params(labelsize=7, labelleft=row == 0)
        bottom.spines[["top", "right"]].set_visible(False)
    axes[1, 0].set_ylabel("score, decrypted by the client")
    figure.suptitle("The service scored these digits without seeing them")
    figure.savefig(path, dpi=120)


COMMAND = Command(
    "demo",
    "train, serve, encrypt, score and decrypt: a table with gaps, boosted trees, digits",
    "  sealserve demo --output digits.png",
    configure,
    run,
    extra="service",
)
