"""The MNIST test images: where they are, how they are read, and how `make data` gets them."""

import contextlib
import gzip
import hashlib
import math
import os
import shutil
import sys
import tempfile
import urllib.request
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.support.serving import ROOT

MODEL = "sklearn_mnist_model.pkl"
IMAGES = "t10k-images-idx3-ubyte.gz"
LABELS = "t10k-labels-idx1-ubyte.gz"
# Digests of the unpacked files. A gzip header holds the time of packing, so that packed copies
# differ from site to site.
SHA256 = {
    IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
URLS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
BUILT = ROOT / "build" / "data"
SHARED = ROOT.parent / "shared" / "data"
TIMEOUT_SECONDS = 60.0


class DataError(Exception):
    """A file cannot be found or fetched, or has another content than it should have."""


def find(name: str, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Look for a file in SEALSERVE_DATA, then in build/data, then beside the repository.

    `make data` writes into build/data.
    """
    given = environment.get("SEALSERVE_DATA")
    places = (Path(given),) if given else ()
    return next((place / name for place in (*places, BUILT, SHARED) if (place / name).is_file()), None)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes.

    It holds two zeros, the type, the number of dimensions, their big-endian lengths, and the data.

    Raises:
        DataError: it is not such a file.
    """
    data = _unpacked(path.read_bytes(), str(path))
    zeros_and_type, dimensions = data[:3], data[3] if len(data) > 3 else 0
    start = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4))
    if zeros_and_type != b"\0\0\x08" or not dimensions or len(data) != start + math.prod(shape):
        raise DataError(f"{path}: not an IDX file of bytes")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _unpacked(packed: bytes, source: str) -> bytes:
    try:
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{source}: {error}") from error


def images() -> NDArray[np.float64] | None:
    """The 10,000 test images as rows of 784 features in 0..1; None where they are not installed."""
    path = find(IMAGES)
    return None if path is None else read_idx(path).reshape(-1, 784) / 255


def labels() -> NDArray[np.uint8] | None:
    """What the images show; None where that is not installed."""
    path = find(LABELS)
    return None if path is None else read_idx(path)


def fetch(url: str, target: Path, sha256: str) -> None:
    """Fetch a gzipped file; leave nothing behind unless it is the right one."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  # URLs of this project
            data: bytes = response.read()
    except OSError as error:
        raise DataError(f"{url}: {error}") from error
    found = hashlib.sha256(_unpacked(data, url)).hexdigest()
    if found != sha256:
        raise DataError(f"{url}: SHA-256 is {found}, not {sha256}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        partial = Path(directory, target.name)
        partial.write_bytes(data)
        partial.replace(target)


def provide(name: str, directory: Path = BUILT, shared: Path = SHARED, urls: tuple[str, ...] = URLS) -> str:
    """Put a file into a directory, unless it is there, and return where it came from.

    It comes from the shared data or from the first URL that has it.

    Raises:
        DataError: no source has it.
    """
    target, sha256 = directory / name, SHA256[name]
    with contextlib.suppress(OSError, DataError):
        if hashlib.sha256(_unpacked(target.read_bytes(), str(target))).hexdigest() == sha256:
            return "there already"
    failures = []
    for url in ((shared / name).resolve().as_uri(), *(base + name for base in urls)):
        try:
            fetch(url, target, sha256)
            return f"from {url}"
        except DataError as error:
            failures.append(str(error))
    raise DataError("\n".join(failures))


def main() -> int:
    """Provide all files, and the model where the shared data has it; returns the exit code."""
    try:
        for name in SHA256:
            print(f"{BUILT / name}: {provide(name)}")
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    if (SHARED / MODEL).is_file():
        shutil.copyfile(SHARED / MODEL, BUILT / MODEL)
        print(f"{BUILT / MODEL}: from {SHARED / MODEL}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
