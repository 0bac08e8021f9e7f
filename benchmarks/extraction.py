"""Extraction: how many honest scores it takes to copy the private head of a boosted ensemble.

A client that keeps to the protocol asks a live service, with private weights, for the scores of
rows of its own. From them it makes a copy of the model: with the published structure of the trees,
by least squares over the leaves that its rows reach; and without it, as if the service were a black
box, by training an ensemble of its own on rows and scores. Nothing hides that: the scores are what
the client is there for. Prints which share of labels each copy gets right on other rows, and writes
extraction.json into build/bench.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from tqdm import tqdm

from benchmarks.report import OUTPUT, described_run, render
from benchmarks.trained_models import UnavailableError, trained
from sealserve.client import Client
from sealserve_service.planning.extraction import scores_to_copy
from tests.support.copied_heads import copied_head
from tests.support.programs import serve

MODELS = ("LightGBM, 100 x 31", "HistGradientBoosting, 100 x 31")  # the first that can be had
SCORES = (100, 300, 1_000, 2_000, 3_001, 4_000)
TEST_ROWS = 4_000


def copied_model(X: NDArray[np.float64], scores: NDArray[np.float64]) -> HistGradientBoostingRegressor:
    """Train an ensemble of the same size on rows and their scores."""
    return HistGradientBoostingRegressor(max_iter=100, max_leaf_nodes=31, early_stopping=False).fit(X, scores)


def measure(name: str, counts: tuple[int, ...]) -> dict[str, Any]:
    """Ask for scores, and copy the model with the first of them."""
    model, asked = trained(name), max(counts)
    rows = model.X[: asked + TEST_ROWS]
    with serve(*model.options, "--weights=private") as program, Client(program.address) as client:
        start = time.perf_counter()
        all_scores = np.asarray(client.scored(rows).scores)[:, 0]
        seconds = time.perf_counter() - start
        all_features, grid = client.features(rows), client.model.grid
    X, other = rows[:asked], rows[asked:]
    scores, expected = all_scores[:asked], all_scores[asked:] > 0
    features, of_other = all_features[:asked], all_features[asked:]
    points = []
    for count in tqdm(counts, unit="copy", leave=False):
        weights = copied_head(features[:count], scores[:count])
        by_structure = of_other @ weights[:-1] + weights[-1] > 0
        by_rows = copied_model(X[:count], scores[:count]).predict(other) > 0
        points.append(
            {
                "scores": count,
                "structure_published": float(np.mean(by_structure == expected)),
                "black_box": float(np.mean(by_rows == expected)),
            }
        )
    with_constant = np.hstack([all_features, np.ones((len(rows), 1))])
    eigenvalues = np.linalg.eigvalsh(with_constant.T @ with_constant)
    return {
        "model": name,
        "features": features.shape[1],
        "scores_to_copy": scores_to_copy(grid),
        "rank": int(np.count_nonzero(eigenvalues > 1e-9)),
        "rank_rows": len(rows),
        "accuracy": float(np.mean(model.expected == model.y)),
        "seconds": seconds,
        "points": points,
    }


def table(found: dict[str, Any]) -> str:
    """Render the shares, and what was asked for."""
    lines = [("honest scores", "labels copied, structure published", "labels copied, as a black box")]
    lines += [
        (f"{point['scores']:,}", f"{point['structure_published']:.2%}", f"{point['black_box']:.2%}")
        for point in found["points"]
    ]
    return (
        f"{render(lines)}\n\n{found['model']}: about {found['scores_to_copy']:,} scores suffice by its grid. Of "
        f"{found['rank_rows']:,} rows the features, with a constant, have the rank {found['rank']:,}. The service "
        f"scored them in {found['seconds']:.1f} s. The model itself is right about {found['accuracy']:.1%} of rows."
    )


def main() -> None:
    """Measure the curve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extraction", description=__doc__)
    parser.add_argument("--model", choices=MODELS, help="the model (default: the first that can be had)")
    arguments = parser.parse_args()
    run, found = described_run(), None
    for name in [arguments.model] if arguments.model else MODELS:
        try:
            found = measure(name, SCORES)
            break
        except UnavailableError as error:
            print(f"{name}: {error}")
    if found is None:
        raise SystemExit("no model can be had")
    (OUTPUT / "extraction.json").write_text(json.dumps(run | {"extraction": found}, indent=2) + "\n")
    print(table(found))
    print(f"\nwritten: {OUTPUT / 'extraction.json'}")


if __name__ == "__main__":
    main()
