"""The vectors of tests/vectors: made again, checked with integers only, and damaged."""

import base64
import json
import math
import random
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from sealserve.v1 import model_pb2, prediction_pb2
from tests.support.serving import ROOT
from tests.vectors.check import items
from tests.vectors.check.files import messages_of
from tests.vectors.check.vectors import checks
from tests.vectors.make.__main__ import files

FOLDER = ROOT / "tests/vectors"
MADE = [path for path in sorted(FOLDER.rglob("*")) if path.suffix in (".json", ".binpb", ".seal", ".bin")]
NAMES = [str(path.relative_to(FOLDER)) for path in MADE]
MOST_BYTES = 4 << 20

# Modules that must not be needed; then the checker, and what it has loaded.
ALONE = """
import sys
for name in ("seal", "numpy", "grpc"):
    sys.modules[name] = None
from tests.vectors.check import __main__
from pathlib import Path
__main__.main(Path("tests/vectors"))
print(*sorted(name for name, module in sys.modules.items() if module is not None))
"""


def test_the_checker_finds_all_right_with_integers_only() -> None:
    found = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True, check=True)
    *right, modules = found.stdout.splitlines()
    assert right == [f"{name}: right" for name in checks(FOLDER)]
    ours = {name for name in modules.split() if name.startswith(("sealserve", "sealserve_service", "tests."))}
    stubs = {name for name in ours if name.startswith("sealserve.v1")}
    assert ours - stubs - {"sealserve"} == {name for name in ours if name.startswith("tests.vectors")}
    assert stubs


def test_every_file_is_part_of_a_vector() -> None:
    names = checks(FOLDER)
    others = {name for name in NAMES if name not in names and str(Path(name).parent) not in names}
    assert others == {"ciphertexts/full.seal", "ciphertexts/seeded.seal", "ciphertexts/packed.bin"}
    assert sum(path.stat().st_size for path in MADE) < MOST_BYTES


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    return files()


@pytest.mark.slow
def test_the_maker_makes_the_files_again(made: dict[str, bytes]) -> None:
    """But for replies with private weights, for which a service draws its own randomness."""
    steps = {name for name in NAMES if name.startswith("steps/")}  # see test_program_vectors
    assert set(made) == set(NAMES) - steps
    for name, data in made.items():
        if re.fullmatch("items/.*_private/repl.*", name):
            continue
        found, written = (comparable(name, content) for content in (data, (FOLDER / name).read_bytes()))
        assert is_same(found, written), f"{name}: run python -m tests.vectors.make"


def comparable(name: str, data: bytes) -> Any:
    """A file as what is equal on every machine, where the last bits of numbers are others."""
    if name.endswith("description.binpb"):
        return json_format.MessageToDict(model_pb2.GetModelResponse.FromString(data))
    if name.endswith("request.binpb"):
        return without_config_id(prediction_pb2.PredictRequest.FromString(data))
    if name.endswith("requests.binpb"):
        return [without_config_id(message) for message in messages_of(prediction_pb2.StreamPredictRequest, data)]
    if not name.endswith(".json"):
        return data
    content = json.loads(data)
    if name.endswith("_private/expected.json"):
        del content["phases"]
    if name == "descriptions.json":
        for case in content["cases"]:
            case["model"] = json_format.MessageToDict(model_pb2.Model.FromString(base64.b64decode(case["model"])))
    return content


def without_config_id(message: Any) -> bytes:
    """A message without the digest of numbers that the description has."""
    message.header.ClearField("config_id")
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def is_same(found: Any, written: Any) -> bool:
    """Whether two contents are equal but for the last bits of numbers, and their digest."""
    if isinstance(found, dict):
        names = found.keys() - {"configId"}
        return names == written.keys() - {"configId"} and all(is_same(found[name], written[name]) for name in names)
    if isinstance(found, list):
        return len(found) == len(written) and all(map(is_same, found, written))
    if isinstance(found, float):
        return math.isclose(found, written, rel_tol=1e-12, abs_tol=1e-300)
    return bool(found == written)


@pytest.mark.parametrize("name", ["row_private", "column_private"])
def test_a_new_reply_with_private_weights_gives_the_same(made: dict[str, bytes], name: str, tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "rings", tmp_path / "rings")
    folder = tmp_path / "items" / name
    folder.mkdir(parents=True)
    for path, data in made.items():
        if path.startswith(f"items/{name}/"):
            (folder / Path(path).name).write_bytes(data)
    items.check(folder)
    reply = "reply.binpb" if name == "row_private" else "replies.binpb"
    assert (folder / reply).read_bytes() != (FOLDER / "items" / name / reply).read_bytes()


def test_what_is_shipped_has_no_vectors(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("sealserve/v1/model_pb2.py") for name in names)
    assert not [name for name in names if "vectors" in name or Path(name).suffix in (".binpb", ".seal", ".bin")]
    copied = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in copied
    assert not [line for line in copied if line.startswith("!tests") or line == "!*"]


# Damage


EXPECTED = {
    *("cells", "levels", "refused", "features", "predictions", "probabilities", "decision_function", "fault", "reason"),
    *("level_parms_ids", "key_parms_id", "parmsId", "coeffModulus", "plainModulus", "noise_sha256", "weights"),
    *("intercept", "phases", "integers", "secret_key", "public_key_id", "public_key_noise_sha256"),
    *("plaintexts", "score_places", "rows_per_item", "packed", "residues", "first_values", "values_sha256"),
    *("grpc_status", "grpc_message", "detail", "error", "offers"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the vectors, to damage."""
    copied = tmp_path_factory.mktemp("copied") / "vectors"
    shutil.copytree(FOLDER, copied, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return copied


def notices(folder: Path, name: str, data: bytes) -> bool:
    """Whether the checker notices other bytes in a file."""
    path, parent = folder / name, str(Path(name).parent)
    written = path.read_bytes()
    if data == written:
        return True
    check = name if parent in (".", "steps") else parent
    if parent == "ciphertexts":
        check = "packed_ciphertexts.json" if name.endswith("packed.bin") else "ciphertexts.json"
    path.write_bytes(data)
    try:
        checks(folder)[check]()
    except Exception:
        return True
    finally:
        path.write_bytes(written)
    return False


def leaves(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all numbers, texts and such."""
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from leaves(value, (*path, key))
    else:
        yield path


def damaged_json(data: bytes, source: random.Random) -> bytes:
    """A file with another value in one place of what it expects."""
    content = json.loads(data)
    expected = EXPECTED | ({"scores"} if "phases" in content else set())
    # Of what is refused, only the reason is expected: many other bytes are refused for the same.
    paths = [path for path in leaves(content) if expected & set(path)]
    paths = [path for path in paths if path[0] != "refused" or "features" in content or path[-1] == "fault"]
    *parents, key = source.choice(paths)
    inner = content
    for parent in parents:
        inner = inner[parent]
    inner[key] = another(inner[key], source)
    return json.dumps(content).encode()


def another(value: Any, source: random.Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, str) and value:
        at = source.randrange(len(value))
        return value[:at] + ("1" if value[at] == "0" else "0") + value[at + 1 :]
    if isinstance(value, float):
        return value + max(abs(value) * 1e-9, 1e-9)
    return "x" if value in (None, "") else not value if isinstance(value, bool) else value + 1


def damaged(data: bytes, source: random.Random) -> bytes:
    """Bytes with one bit flipped."""
    found = bytearray(data)
    found[source.randrange(len(found))] ^= 1 << source.randrange(8)
    return bytes(found)


def unnoticed(folder: Path, name: str, source: random.Random) -> bool:
    """Whether the checker does not notice a damage to a file."""
    data = (folder / name).read_bytes()
    make = damaged_json if name.endswith(".json") and not name.endswith("description.json") else damaged
    return not notices(folder, name, make(data, source))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("description.json")])
def test_a_damage_is_noticed(folder: Path, name: str) -> None:
    assert not unnoticed(folder, name, random.Random(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("description.json")])
def test_damages_are_noticed(folder: Path, name: str) -> None:
    source = random.Random(f"slow {name}")
    assert [number for number in range(8) if unnoticed(folder, name, source)] == []
