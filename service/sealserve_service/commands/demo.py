"""`sealserve demo`: trains on scikit-learn's bundled digits, serves, encrypts, scores, decrypts."""

import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sealserve.cli.command import Command
from sealserve.errors import UnavailableError

_SHOWN_ROWS = 8


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--output", type=Path, default=Path("build/demo/digits.png"), metavar="FILE", help="the picture (%(default)s)"
    )


def run(arguments: Namespace) -> int:
    """Run the demonstration; return 0 only if every label equals the plaintext model's."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    from sealserve.client import Client

    images, digits = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(images, digits, test_size=0.25, random_state=0)
    _say(f"training a LogisticRegression on {len(train_x)} digits of 8 x 8 pixels ...")
    estimator = LogisticRegression(max_iter=5000).fit(train_x, train_y)
    with tempfile.TemporaryDirectory() as directory, _serving(*_save(estimator, train_x, directory)) as address:
        _say(f"a service that holds no secret key is serving it on {address}")
        with Client(address) as client:
            offer = client.model.offers[0]
            if (verdict := client.model.verdict) is not None:
                _say(f"its verdict on labels, by the rows of the training: {verdict.value}")
            _say(f"encrypting {len(test_x)} rows with {offer.parameters.parameter_set.name}, one call a row ...")
            client.predict(test_x[:1])
            scores, seconds = _score_one_by_one(client, test_x)
            labels = client.model.output.predict(scores)
    expected, expected_scores = estimator.predict(test_x), estimator.decision_function(test_x)
    _print_table(test_y, labels, expected, scores, expected_scores)
    try:
        _draw(test_x, labels, scores, arguments.output)
    except ModuleNotFoundError:  # matplotlib, which is for the picture only
        _say("there is no picture without matplotlib: pip install 'sealserve[demo]'")
    else:
        print(f"\npicture: {arguments.output}")
    agreement = float(np.mean(labels == expected))
    print(
        f"rows={len(test_x)} accuracy={np.mean(labels == test_y):.4f} agreement={agreement:.4f} "
        f"p50_ms={1e3 * float(np.median(seconds)):.2f}"
    )
    return 0 if agreement == 1.0 else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _save(estimator: Any, rows: Any, directory: str) -> tuple[Path, Path]:
    """Save a model, and rows that are typical for it; return the paths."""
    import numpy as np
    import skops.io

    model, calibration = Path(directory) / "digits.skops", Path(directory) / "rows.npy"
    skops.io.dump(estimator, model)
    np.save(calibration, rows)
    return model, calibration


@contextmanager
def _serving(model: Path, calibration: Path) -> Iterator[str]:
    """Run the real service on a free port and yield its address."""
    command = [sys.executable, "-m", "sealserve.cli.main", "serve", "--model", f"digits={model}"]
    command += ["--input-range", "0,16", "--input-step", "1", "--calibration", str(calibration)]
    command += ["--address", "127.0.0.1:0", "--log-level", "warning"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # our own program
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise UnavailableError("the service did not start; what it says is above")
            yield line.split()[-1]
        finally:
            process.terminate()


def _score_one_by_one(client: Any, rows: Any) -> tuple[Any, list[float]]:
    import numpy as np
    from tqdm import tqdm

    scores, seconds = [], []
    for row in tqdm(rows, unit="row", disable=None):
        start = time.perf_counter()
        scores.append(client.decision_function(row[None]))
        seconds.append(time.perf_counter() - start)
    return np.concatenate(scores), seconds


def _print_table(truth: Any, labels: Any, expected: Any, scores: Any, expected_scores: Any) -> None:
    print(f"{'row':>4} {'digit':>6} {'encrypted':>10} {'plaintext':>10} {'its score':>11} {'in plaintext':>13}")
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
    "train, serve, encrypt, score and decrypt scikit-learn's digits",
    "  sealserve demo --output digits.png",
    configure,
    run,
    extra="service",
)
