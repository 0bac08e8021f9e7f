"""The SDK where POSIX is not: Windows has no fcntl, resource, pwd or os.fork, and no modes."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from sealserve.he.layouts import LAYOUTS
from sealserve.secret_key import SecretKey
from tests.support.digits import Digits
from tests.support.serving import HANG_SECONDS, ROOT

# Everything goes before the first import of the SDK. An import of a missing module raises.
PROGRAM = """
import os, sys, stat
for name in ("fcntl", "grp", "pwd", "resource", "pty", "termios", "syslog"):
    sys.modules[name] = None
for name in ("fork", "forkpty", "getuid", "geteuid", "getgid", "fchmod", "fchown", "chown", "register_at_fork",
             "sched_getaffinity", "pread", "pwrite", "posix_spawn", "wait4", "killpg", "setsid", "O_CLOEXEC"):
    if hasattr(os, name):
        delattr(os, name)
import importlib, pkgutil
import numpy as np
import sealserve
for module in pkgutil.walk_packages(sealserve.__path__, "sealserve."):
    if module.name not in ("sealserve.__main__", "sealserve.ei"):  # encrypted-inference is an extra of its own
        importlib.import_module(module.name)
from sealserve import Client
from sealserve.cli.main import main
from sealserve.secret_key import SecretKey

address, rows_file, key_file, predicted = sys.argv[1:]
rows = np.load(rows_file)
sealserve.secret_key._HAS_MODES = False
key = SecretKey.load(key_file)
with Client(address, secret_key=key) as client:
    print(*client.predict(rows))
    print(*(label for _, label in sorted(client.stream(rows))))
sys.exit(main(["predict", "--address", address, "--input", rows_file, "--output", predicted]))
"""


def test_the_sdk_works_without_posix(digits_server: str, digits_model: Digits, tmp_path: Path) -> None:
    rows, key_file = tmp_path / "rows.npy", tmp_path / "key"
    np.save(rows, digits_model.X[:3])
    SecretKey.generate(LAYOUTS["row"].open_parameter_sets[0]).save(key_file)
    key_file.chmod(0o666)  # as Windows reports every file
    command = [sys.executable, "-c", PROGRAM, digits_server, str(rows), str(key_file), str(tmp_path / "labels.npy")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=2 * HANG_SECONDS, check=False)
    assert result.returncode == 0, result.stderr
    expected = digits_model.estimator.predict(digits_model.X[:3]).tolist()
    assert [list(map(int, line.split())) for line in result.stdout.splitlines()[:2]] == [expected, expected]
    assert np.load(tmp_path / "labels.npy").tolist() == expected


def test_what_is_taken_away_is_missed() -> None:
    """The program would notice: it fails as soon as something imports a POSIX module."""
    begin = PROGRAM.partition("import importlib")[0]
    for line in ("import fcntl", "import os; os.fork"):
        result = subprocess.run(
            [sys.executable, "-c", begin + line], capture_output=True, text=True, timeout=HANG_SECONDS, check=False
        )
        assert result.returncode == 1


def test_readme_and_classifiers_name_the_same_platforms() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    classifiers = "\n".join(project["classifiers"])
    said = " ".join((ROOT / "README.md").read_text().split("The SDK runs on ")[1].split("\n\n")[0].split())
    versions = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", classifiers, re.MULTILINE)
    assert project["requires-python"] == f">={versions[0]}"
    assert said.startswith(f"Python {versions[0]} to {versions[-1]} where SEAL's binding has wheels")
    systems = {"MacOS": "macOS on arm64", "Microsoft :: Windows": "Windows", "POSIX :: Linux": "Linux on x86-64"}
    assert set(re.findall(r"^Operating System :: (.*)$", classifiers, re.MULTILINE)) == systems.keys()
    assert all(system in said for system in systems.values())
    assert "There are none for Linux on arm64." in said


@pytest.mark.parametrize("module", ["sealserve", "sealserve.cli.main"])
def test_the_program_runs_as_a_module(module: str) -> None:
    command = [sys.executable, "-m", module, "--version"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=True)
    assert result.stdout.startswith("sealserve 0.")
