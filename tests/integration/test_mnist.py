"""The Azure ML guide's own model on MNIST, and how the images are had."""

import functools
import gzip
import hashlib
import http.server
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pytest

from sealserve.client import Client
from sealserve_service.catalog.registry import ModelRegistry, prepare_model
from sealserve_service.engines.offering import PrivateWeights, plan_layouts
from sealserve_service.models.loading import load_model
from sealserve_service.planning.grid import input_ranges
from sealserve_service.planning.plan import Plan
from tests.support import mnist
from tests.support.serving import HANG_SECONDS, LIMITS, registered_keys, running_server

MODES = {"open": None, "private": 40}


def test_two_hundred_images() -> None:
    path, images = mnist.find(mnist.MODEL), mnist.images()
    if path is None or images is None:
        pytest.skip("the MNIST model or its test images are not at hand: `make data`, or SEALSERVE_DATA=DIRECTORY")
    rows = images[:200]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickled by scikit-learn 0.22
        estimator = joblib.load(path)
    model = load_model(path, trust_pickle=True)
    registry = ModelRegistry([prepare_model("mnist", model, input_ranges(model, input_range=(0.0, 1.0)), LIMITS)])
    with running_server(registry) as address, Client(address, timeout_seconds=HANG_SECONDS) as client:
        expected = rows @ estimator.coef_.T + estimator.intercept_
        assert np.abs(client.decision_function(rows) - expected).max() <= 0.01
        np.testing.assert_array_equal(client.predict(rows), estimator.classes_[expected.argmax(axis=1)])
        offer = client.model.offers[0]
        assert offer.cost.request_bytes <= 34_000
        assert offer.cost.reply_bytes <= 55_000


@pytest.mark.slow
def test_all_images_in_columns() -> None:
    """All decrypted integers are those of plaintext arithmetic, and all labels the estimator's."""
    path, images = mnist.find(mnist.MODEL), mnist.images()
    if path is None or images is None:
        pytest.skip("the MNIST model or its test images are not at hand: `make data`, or SEALSERVE_DATA=DIRECTORY")
    assert images.shape == (10_000, 784)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickled by scikit-learn 0.22
        estimator = joblib.load(path)
    model = load_model(path, trust_pickle=True)
    ranges = input_ranges(model, input_range=(0.0, 1.0))
    _, columns = plan_layouts(model, ranges, modes=[None])
    plan = columns.chosen
    assert isinstance(plan, Plan)
    assert plan.parameters.parameter_set.name == "column-2048-54"
    integers = plan.grid.quantize(images).integers @ plan.model.weights.T + np.array(plan.model.intercept, np.int64)
    registry = ModelRegistry([prepare_model("mnist", model, ranges, LIMITS)])
    with (
        running_server(registry) as address,
        Client(address, layout="column", timeout_seconds=HANG_SECONDS) as client,
    ):
        offer = client.offer(len(images))
        assert offer.parameters == plan.parameters
        assert offer.score_scale == plan.model.score_scale
        scores = client.decision_function(images)
        assert offer.cost.request_bytes / offer.rows_per_item <= 12_600
        assert offer.cost.reply_bytes / offer.rows_per_item <= 110
        labels = client.predict(images[:5])
    np.testing.assert_array_equal(np.rint(scores * offer.score_scale).astype(np.int64), integers)
    np.testing.assert_array_equal(scores, integers / offer.score_scale)
    expected = estimator.classes_[(images @ estimator.coef_.T + estimator.intercept_).argmax(axis=1)]
    np.testing.assert_array_equal(estimator.classes_[scores.argmax(axis=1)], expected)
    np.testing.assert_array_equal(labels, expected[:5])


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("layout", ["row", "column"])
@pytest.mark.parametrize("mode", MODES)
def test_integers_are_those_of_plaintext_arithmetic(mode: str, layout: str, count: int) -> None:
    """Packed replies are exact, and as short as they were meant to be."""
    path, images = mnist.find(mnist.MODEL), mnist.images()
    if path is None or images is None:
        pytest.skip("the MNIST model or its test images are not at hand: `make data`, or SEALSERVE_DATA=DIRECTORY")
    rows, model, keys = images[:count], load_model(path, trust_pickle=True), registered_keys()
    ranges, hiding_bits = input_ranges(model, input_range=(0.0, 1.0)), MODES[mode]
    plans = {p.engine_type.rules.layout.name: p.chosen for p in plan_layouts(model, ranges, modes=[hiding_bits])}
    plan = plans[layout]
    assert isinstance(plan, Plan)
    private = None if hiding_bits is None else PrivateWeights(hiding_bits, keys.zero_encryptor)
    registry = ModelRegistry([prepare_model("mnist", model, ranges, LIMITS, private=private)])
    with (
        running_server(registry, keys=keys) as address,
        Client(address, layout=layout, timeout_seconds=3600.0) as client,
    ):
        offer = client.offer(len(rows))
        scores = client.decision_function(rows)
    assert (offer.parameters, offer.reply_bits) == (plan.parameters, plan.reply_bits)
    assert offer.reply_bits is not None
    assert offer.cost.reply_bytes / offer.rows_per_item <= LONGEST_REPLIES[mode, layout]
    integers = plan.grid.quantize(rows).integers @ plan.model.weights.T + np.array(plan.model.intercept, np.int64)
    np.testing.assert_array_equal(np.rint(scores * offer.score_scale).astype(np.int64), integers)


# Bytes a row.
LONGEST_REPLIES = {
    ("open", "row"): 55_000,
    ("private", "row"): 45_000,
    ("open", "column"): 110,
    ("private", "column"): 110,
}
PROMISES = {
    # mode, layout, --max-score-error -> of 10,000 labels, so many are the estimator's at least
    ("open", "row", None): 10_000,
    ("open", "column", None): 10_000,
    ("private", "row", None): 9_995,
    ("private", "column", None): 9_995,
    ("private", "row", 0.01): 10_000,
    ("private", "column", 0.01): 10_000,
}


@pytest.mark.parametrize(("mode", "max_score_error"), [("open", None), ("private", None), ("private", 0.01)])
def test_labels_of_all_images_on_the_grid(mode: str, max_score_error: float | None) -> None:
    """In plaintext arithmetic, which decrypted integers equal."""
    path, images = mnist.find(mnist.MODEL), mnist.images()
    if path is None or images is None:
        pytest.skip("the MNIST model or its test images are not at hand: `make data`, or SEALSERVE_DATA=DIRECTORY")
    model = load_model(path, trust_pickle=True)
    ranges = input_ranges(model, input_range=(0.0, 1.0))
    for planned in plan_layouts(model, ranges, modes=[MODES[mode]], max_score_error=max_score_error):
        plan = planned.chosen
        assert isinstance(plan, Plan)
        integers = plan.grid.quantize(images).integers.astype(np.float64) @ plan.model.weights.T.astype(np.float64)
        scores = (integers + np.array(plan.model.intercept, np.float64)) / plan.model.score_scale
        right = np.count_nonzero(scores.argmax(axis=1) == model.decision(images).argmax(axis=1))
        assert right >= PROMISES[mode, planned.engine_type.rules.layout.name, max_score_error]


@pytest.mark.long
@pytest.mark.parametrize(("mode", "layout", "max_score_error"), PROMISES)
def test_labels_of_all_images(mode: str, layout: str, max_score_error: float | None) -> None:
    path, images = mnist.find(mnist.MODEL), mnist.images()
    if path is None or images is None:
        pytest.skip("the MNIST model or its test images are not at hand: `make data`, or SEALSERVE_DATA=DIRECTORY")
    model, keys, hiding_bits = load_model(path, trust_pickle=True), registered_keys(), MODES[mode]
    served = prepare_model(
        "mnist",
        model,
        input_ranges(model, input_range=(0.0, 1.0)),
        LIMITS,
        max_score_error=max_score_error,
        private=None if hiding_bits is None else PrivateWeights(hiding_bits, keys.zero_encryptor),
    )
    with (
        running_server(ModelRegistry([served]), keys=keys) as address,
        Client(address, layout=layout, timeout_seconds=3600.0) as client,
    ):
        labels = client.predict(images)
        assert max_score_error is None or client.offer(len(images)).score_error_bound <= 1.5 * max_score_error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickled by scikit-learn 0.22
        expected = joblib.load(path).predict(images)
    assert np.count_nonzero(labels == expected) >= PROMISES[mode, layout, max_score_error]


CONTENT = b"\0\0\x08\x02" + bytes([0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(6))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The URL of a web server on this machine that has one file."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    (tmp_path / "site").mkdir()
    (tmp_path / "site" / mnist.IMAGES).write_bytes(gzip.compress(CONTENT))
    handler = functools.partial(Quiet, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def _small_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mnist.SHA256, mnist.IMAGES, hashlib.sha256(CONTENT).hexdigest())


@pytest.mark.usefixtures("_small_content")
def test_files_come_from_the_next_place_that_has_the_right_ones(site: str, tmp_path: Path) -> None:
    directory, shared, file = tmp_path / "data", tmp_path / "shared", tmp_path / "data" / mnist.IMAGES
    urls = (site + "missing/", site)
    assert mnist.provide(mnist.IMAGES, directory, shared, urls) == f"from {site}{mnist.IMAGES}"
    assert mnist.provide(mnist.IMAGES, directory, shared, ()) == "there already"
    file.write_bytes(b"damaged")
    shared.mkdir()
    (shared / mnist.IMAGES).write_bytes(gzip.compress(CONTENT, 1, mtime=7))  # another packing of the same
    assert mnist.provide(mnist.IMAGES, directory, shared, ()).startswith("from file:")
    assert [path.name for path in directory.iterdir()] == [mnist.IMAGES]
    assert mnist.read_idx(file).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_file_of_another_digest_is_not_kept(site: str, tmp_path: Path) -> None:
    with pytest.raises(mnist.DataError, match="SHA-256") as caught:
        mnist.provide(mnist.IMAGES, tmp_path / "data", tmp_path / "nowhere", (site,))
    assert "nowhere" in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_the_environment_goes_first(tmp_path: Path) -> None:
    (tmp_path / mnist.IMAGES).write_bytes(CONTENT)
    assert mnist.find(mnist.IMAGES, {"SEALSERVE_DATA": str(tmp_path)}) == tmp_path / mnist.IMAGES
    assert mnist.find("no such file", {"SEALSERVE_DATA": str(tmp_path)}) is None


@pytest.mark.parametrize(
    "data",
    [b"", b"no gzip", gzip.compress(b"\0\0"), gzip.compress(b"\0\0\x08\x01\0\0\0\x09few")],
    ids=["nothing", "no gzip", "no header", "too few"],
)
def test_what_is_no_idx_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(data)
    with pytest.raises(mnist.DataError, match="file"):
        mnist.read_idx(path)
