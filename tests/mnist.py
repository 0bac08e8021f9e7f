"""The MNIST test set and the guide's model: where they are, and how to read IDX files.

They are looked for in $SEALSERVE_DATA, in build/data (see `make data`) and in ../shared/data.
"""

import gzip
import hashlib
import os
import shutil
import sys
import urllib.request
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
DOWNLOADED = ROOT / "build" / "data"
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
IMAGES, LABELS, MODEL = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", "sklearn_mnist_model.pkl"
SHA256 = {
    IMAGES: "75f75abba335db372280711c1000dda45d331aabf2fa61b5145ec0f50ce2bc89",
    LABELS: "ecfb0dd4789ce7d41b5341440f474ef7c4579a431ceaadf21c4168828d3bbf57",
}
_IDX_UNSIGNED_BYTE = 8


def find(name: str) -> Path | None:
    """Return the file's path, or None if it is nowhere."""
    folders = (os.environ.get("SEALSERVE_DATA"), DOWNLOADED, ROOT.parent / "shared" / "data")
    return next((path for folder in folders if folder and (path := Path(folder) / name).is_file()), None)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes.

    Source: http://yann.lecun.com/exdb/mnist/: two zero bytes, the type, the number of dimensions, each
    dimension as a big-endian 32-bit integer, the data.
    """
    data = gzip.decompress(path.read_bytes())
    if data[:2] != b"\0\0" or data[2] != _IDX_UNSIGNED_BYTE:
        raise ValueError(f"{path} is no IDX file of unsigned bytes")
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def test_set() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the images, uint8 (10000, 784), and their labels, uint8 (10000,).

    Raises:
        FileNotFoundError: run `make data` first.
    """
    paths = [find(name) for name in (IMAGES, LABELS)]
    if None in paths:
        raise FileNotFoundError("MNIST is not here: run `make data`")
    images, labels = (read_idx(path) for path in paths if path)
    return images.reshape(len(images), -1), labels


test_set.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it where it is imported


def fetch(name: str, folder: Path, mirror: str = MIRROR) -> Path:
    """Put a file into the folder, from ../shared/data where that has it, else by URL, and check its SHA-256.

    Raises:
        ValueError: the file is not the one it should be; nothing is left in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target, partial = folder / name, folder / f"{name}.partial"
    source = find(name)
    if source:
        shutil.copyfile(source, partial)
    else:
        with urllib.request.urlopen(mirror + name, timeout=60) as response, partial.open("wb") as file:  # noqa: S310
            shutil.copyfileobj(response, file)
    if hashlib.sha256(partial.read_bytes()).hexdigest() != SHA256[name]:
        partial.unlink()
        raise ValueError(f"{name} is not the file it should be: its SHA-256 differs")
    partial.replace(target)
    return target


if __name__ == "__main__":
    for wanted in SHA256:
        print(fetch(wanted, DOWNLOADED), file=sys.stderr)
