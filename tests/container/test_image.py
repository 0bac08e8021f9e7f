"""The service's image, run as it is in production: 1 CPU, 1 GB, nothing writable, no capability."""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from sealserve import __version__
from sealserve.client import Client
from sealserve.ei import EIClient
from sealserve.errors import DrainingError, UnavailableError
from tests.support.containers import BASE_IMAGE, CA_BUNDLE, PLAINTEXT, RANGE, Container, running_container, wait_until
from tests.support.digits import Digits
from tests.support.raw import Message, RawClient, assert_scores
from tests.support.serving import HANG_SECONDS

pytestmark = pytest.mark.slow

MAX_BYTES = 350e6
START_CPU_SECONDS = 3.0
NOT_NEEDED = ("cc", "gcc", "make", "pip", "pip3", "uv", "pytest", "mypy", "ruff", "apt", "dpkg", "perl", "bash", "su")
PYTHON = "/opt/sealserve/bin/python"


@pytest.fixture(scope="module")
def configuration(image: str) -> dict[str, Any]:
    """The image's configuration."""
    command = ["podman", "image", "inspect", image]
    described = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert isinstance(described[0], dict)
    return described[0]


def test_what_the_image_says_of_itself(configuration: dict[str, Any]) -> None:
    config = configuration["Config"]
    assert configuration["Architecture"] == "amd64"
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["sealserve"]
    assert list(config["ExposedPorts"]) == ["50051/tcp"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    expected = {"title": "sealserve", "version": __version__, "licenses": "MIT", "base.name": BASE_IMAGE}
    assert labels.items() >= expected.items()
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels["revision"])


def test_it_is_small(configuration: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Unpacked, with what it has of its base: here Debian's Python, elsewhere python:3.11-slim."""
    with capsys.disabled():
        print(f"\nimage: {configuration['Size'] / 1e6:.0f} MB")
    assert configuration["Size"] < MAX_BYTES


def test_what_it_does_not_need_is_not_there(container: Container) -> None:
    search = f"for name in {' '.join(NOT_NEEDED)}; do command -v $name; done; true"
    assert container.run("sh", "-c", search).stdout == ""
    for module in ("pip", "ensurepip", "pytest", "hatchling", "grpc_tools", "matplotlib", "tests"):
        missing = container.run(PYTHON, "-c", f"import {module}")
        assert f"No module named '{module}'" in missing.stderr, missing
    program = (
        "import os, stat\n"
        "for place in ('/etc', '/opt', '/usr', '/var'):\n"
        "    for folder, _, names in os.walk(place):\n"
        "        for path in (os.path.join(folder, name) for name in names):\n"
        "            if os.lstat(path).st_mode & (stat.S_ISUID | stat.S_ISGID): print(path)"
    )
    setuid = container.run(PYTHON, "-c", program)
    assert (setuid.returncode, setuid.stdout) == (0, ""), setuid


def test_it_lists_what_is_installed_in_it(container: Container) -> None:
    """In CycloneDX, by name and version; Debian's own packages are not in it."""
    listed = json.loads(container.run("cat", "/opt/sealserve/share/sbom.cdx.json").stdout)
    assert listed["bomFormat"] == "CycloneDX"
    program = "import importlib.metadata as m; print(*{f'{d.name}=={d.version}' for d in m.distributions()}, sep='\\n')"
    installed = container.run(PYTHON, "-c", program).stdout.split()
    assert {f"{each['name']}=={each['version']}".lower() for each in listed["components"]} == {
        each.lower() for each in installed
    }
    assert f"sealserve=={__version__}" in installed
    unlicensed = {each["name"] for each in listed["components"] if not each.get("licenses")}
    assert unlicensed <= {"protobuf"}, "all others declare a licence"


def test_it_lists_what_it_has_of_debian(container: Container) -> None:
    """In dpkg's status, which scanners read, and no package that was left out."""
    status = container.run("cat", "/var/lib/dpkg/status").stdout
    packages = set(re.findall(r"^Package: (.+)$", status, re.MULTILINE))
    assert packages >= {"libc6", "libstdc++6", "dash"}
    assert any(name.startswith("libssl3") for name in packages)
    assert not packages & {"apt", "bash", "dpkg", "perl-base"}
    assert "ID=debian" in container.run("cat", "/etc/os-release").stdout


def test_it_trusts_whom_its_base_trusts(container: Container) -> None:
    """And nobody whom this machine trusts, though its bundle is there while the image is built."""
    command = ["podman", "run", "--rm", "--network=none", BASE_IMAGE, "cat", str(CA_BUNDLE)]
    of_base = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert container.run("cat", str(CA_BUNDLE)).stdout == of_base
    assert "BEGIN CERTIFICATE" in of_base


def test_every_library_finds_what_it_is_linked_with(container: Container) -> None:
    program = (
        "import ctypes, pathlib, sysconfig\n"
        "for place in ('stdlib', 'purelib'):\n"
        "    for path in pathlib.Path(sysconfig.get_path(place)).rglob('*.so*'):\n"
        "        ctypes.CDLL(path)\n"
        "        print(path)"
    )
    loaded = container.run(PYTHON, "-c", program)
    assert loaded.returncode == 0, loaded.stderr
    assert "_ssl" in loaded.stdout
    assert "openblas" in loaded.stdout


def test_it_predicts(container: Container, digits_model: Digits) -> None:
    rows = digits_model.X[:200]
    with Client(container.address, timeout_seconds=HANG_SECONDS) as client:
        np.testing.assert_array_equal(client.predict(rows), digits_model.estimator.predict(rows))


def test_its_health_check_tells_health(configuration: dict[str, Any], container: Container) -> None:
    kind, *command = configuration["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert container.run(*command).stdout == "SERVING\n"
    sick = container.run(*command, "--address", "127.0.0.1:1")
    assert sick.returncode == 1
    assert sick.stdout == "UNAVAILABLE\n"


def test_its_process_is_nobody_and_can_write_nowhere(container: Container) -> None:
    fields = container.confinement()
    assert fields["Uid"].split() == fields["Gid"].split() == ["10001"] * 4
    assert {fields[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"
    for place in ("/", "/tmp", "/models", "/opt/sealserve", "/etc", "/run"):  # noqa: S108
        refused = container.run("touch", f"{place}/file")
        assert refused.returncode == 1, place
        assert "Read-only file system" in refused.stderr or "Permission denied" in refused.stderr


def test_the_bytecode_is_there_already(container: Container) -> None:
    """It cannot be written later, and compiling at each start takes seconds."""
    program = (
        "import pathlib, sys, sealserve.cli.main, sealserve_service.process.supervisor\n"
        "import sealserve_service.keys.stores.azure_blob, sealserve_service.telemetry.trace_export\n"
        "from sealserve_service.models.loading import load_model\n"
        "for path in pathlib.Path('/models').iterdir(): load_model(path, trust_pickle=False)\n"
        "for module in list(sys.modules.values()):\n"
        "    cached = getattr(module, '__cached__', None)\n"
        "    if cached and not pathlib.Path(cached).is_file(): print(cached)"
    )
    imported = container.run(PYTHON, "-c", program)
    assert (imported.returncode, imported.stdout) == (0, ""), imported


@pytest.mark.parametrize(("engine", "rows"), [("seal", 20), ("eiserver", 1)])
def test_encrypted_inference_clients_are_served(
    image: str, models: Path, digits_model: Digits, engine: str, rows: int
) -> None:
    """The image has encrypted-inference's native library unpacked.

    The package would write it beside itself, where nothing may be written.
    """
    arguments = ("--model", "/models/digits.npz", *RANGE, *PLAINTEXT, "--ei-engine", engine)
    with running_container(image, *arguments, mounts={models: "/models"}) as container:
        first_labels(container, digits_model)
        with EIClient(container.address) as client:
            labels = client.predict(digits_model.X[:rows])
        np.testing.assert_array_equal(labels, digits_model.estimator.predict(digits_model.X[:rows]))


@pytest.mark.parametrize("model", ["digits.npz", "digits.skops", "digits.sealmodel"])
def test_the_first_row_is_answered_within_seconds(
    image: str, models: Path, model: str, digits_model: Digits, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the processor's time: on a machine with other work, that of a clock says little."""
    ranges = () if model == "digits.sealmodel" else RANGE  # it has them
    arguments = ("--model", f"/models/{model}", *ranges, *PLAINTEXT)
    with running_container(image, *arguments, mounts={models: "/models"}) as container:
        assert first_labels(container, digits_model) == digits_model.estimator.predict(digits_model.X[:1])
        passed, used = time.monotonic() - container.started, container.cpu_seconds()
        resident = container.resident_bytes()
    with capsys.disabled():
        print(f"\n{model}: {used:.2f} s of CPU, {passed:.1f} s from start to first answer, {resident >> 20} MiB")
    assert used <= START_CPU_SECONDS


def first_labels(container: Container, digits_model: Digits) -> Any:
    """Ask until there is an answer, each time over a connection of its own.

    A connection that was refused waits for a second.
    """
    answers: list[Any] = []

    def is_answered() -> bool:
        try:
            with Client(container.address, timeout_seconds=HANG_SECONDS) as client:
                answers.append(client.predict(digits_model.X[:1]))
        except UnavailableError:
            return False
        return True

    wait_until(is_answered, container)
    return answers[0]


def test_it_says_why_it_does_not_start(image: str, models: Path) -> None:
    for model, reason in (
        ("none.npz", "/models/none.npz is missing"),
        (f"digits.npz@sha256:{'0' * 64}", "/models/digits.npz is not the file it should be"),
    ):
        with running_container(image, "--model", model, *RANGE, *PLAINTEXT, mounts={models: "/models"}) as container:
            assert container.exit_code() == 1
            assert reason in container.logs()


def test_it_serves_what_is_mounted(image: str, models: Path, digits_model: Digits, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    shutil.copy(models / "digits.npz", tmp_path)
    with running_container(image, *RANGE, *PLAINTEXT, mounts={tmp_path: "/models"}) as container:
        assert first_labels(container, digits_model) == digits_model.estimator.predict(digits_model.X[:1])


def test_it_finishes_its_work_on_sigterm(image: str, models: Path, digits_model: Digits) -> None:
    arguments = ("--model", "/models/digits.npz", *RANGE, *PLAINTEXT)
    with running_container(image, *arguments, mounts={models: "/models"}) as container:
        first_labels(container, digits_model)
        with RawClient(container.address) as raw, raw.conversation() as busy:
            begun = raw.item(1, digits_model.X[0])
            busy.send(Message(item_id=1, header=begun.header))
            busy.send(raw.item(2, digits_model.X[1]))
            assert_scores(next(busy.answers)[1], digits_model.scores[1])
            container.send("SIGTERM")
            wait_until(lambda: "stopping" in container.logs(), container)
            busy.send(Message(item_id=1, chunk=begun.chunk))
            assert_scores(next(busy.answers)[1], digits_model.scores[0])
            with pytest.raises(DrainingError):
                next(busy.answers)
            assert busy.call.code() is grpc.StatusCode.UNAVAILABLE
        assert container.exit_code() == 0
