"""`make deploy-aci`, `smoke-aci` and `delete-aci`, with an `az` that only records its calls."""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bicep import read_template
from tests.support.digits import Digits
from tests.support.serving import HANG_SECONDS, ROOT
from tests.support.templates import BICEP, OUTSIDE, SECURE

ADDRESS = "sealserve.westeurope.azurecontainer.io:50051"


class Machine:
    """What a person who deploys has: variables, files, and programs that record their calls."""

    def __init__(self, directory: Path) -> None:
        self.programs = directory / "bin"
        self.calls_file = directory / "calls"
        self.tls = directory / "tls"
        self.model = directory / "digits.skops"
        self.programs.mkdir()
        self.tls.mkdir()
        for name in ("tls.crt", "tls.key", "ca.crt", "identities.toml"):
            (self.tls / name).write_text(f"secret {name}")
        self.model.write_bytes(b"model")
        self.variables = {
            "ACI_RESOURCE_GROUP": "group",
            "ACI_REGION": "westeurope",
            "ACI_REGISTRY": "registry",
            "ACI_MODEL_ACCOUNT": "modelaccount",
            "ACI_MODEL": str(self.model),
            "ACI_KEY_ACCOUNT": "keyaccount",
            "ACI_TLS": str(self.tls),
            "ACI_RETRY_SECONDS": "0",
            "ACI_POLL_SECONDS": "0.01",
            "IMAGE": "registry.azurecr.io/sealserve:1.2.3",
        }

    def program(self, name: str, script: str) -> None:
        """Install a program that records its call and does what the script says.

        In the script, $nth is the number of the call.
        """
        path = self.programs / name
        path.write_text(
            f"#!/bin/bash\n{{ printf '%q ' {name} \"$@\"; echo; }} >>{self.calls_file}\n"
            f"nth=$(grep -c '^{name} ' {self.calls_file})\n{script}\n"
        )
        path.chmod(0o755)

    def make(self, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run make with these programs before all others."""
        environment = {**os.environ, **self.variables, **variables, "PATH": f"{self.programs}:{os.environ['PATH']}"}
        return subprocess.run(
            ["make", "--no-print-directory", *words],  # noqa: S607
            cwd=ROOT,
            env={name: value for name, value in environment.items() if value},
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
            check=False,
        )

    def calls(self, program: str) -> list[list[str]]:
        """The command lines of one program so far, without its name."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        return [words[1:] for words in map(shlex.split, lines) if words[0] == program]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.program("az", f"echo {ADDRESS}")
    machine.program("sealserve", "echo SERVING")
    return machine


def options_of(call: list[str]) -> dict[str, list[str]]:
    """The options of a command line and what follows each."""
    options: dict[str, list[str]] = {}
    for word in call:
        if word.startswith("--"):
            options[word] = []
        elif options:
            options[next(reversed(options))].append(word)
    return options


def test_deploys_waits_and_prints_the_address(machine: Machine) -> None:
    machine.program("sealserve", '[ "$SEALSERVE_CA_CERTIFICATE" = "$ACI_TLS/ca.crt" ] && [ $nth -ge 3 ]')
    result = machine.make("deploy-aci")
    assert (result.returncode, result.stdout) == (0, f"{ADDRESS}\n"), result.stderr
    (call,) = machine.calls("az")
    assert call[:3] == ["deployment", "group", "create"]
    options = options_of(call)
    assert options["--resource-group"] == ["group"]
    assert options["--query"] == ["properties.outputs.address.value"]
    assert (ROOT / options["--template-file"][0]).samefile(ROOT / "deploy/aci/main.bicep")
    assert machine.calls("sealserve") == [["health", "--address", ADDRESS]] * 3


def test_every_parameter_of_the_template_is_given(machine: Machine) -> None:
    machine.make("deploy-aci")
    (call,) = machine.calls("az")
    given = dict(word.split("=", 1) for word in options_of(call)["--parameters"])
    assert set(read_template(BICEP, given, OUTSIDE).parameters) - set(given) == {"tags"}
    assert given["image"] == "registry.azurecr.io/sealserve:1.2.3"
    assert (given["modelName"], given["modelFile"]) == ("digits", "digits.skops")
    assert given["modelSha256"] == hashlib.sha256(b"model").hexdigest()
    for name, file in zip(
        ("tlsCertificate", "tlsPrivateKey", "tlsAuthority", "identities"),
        ("tls.crt", "tls.key", "ca.crt", "identities.toml"),
        strict=True,
    ):
        assert given[name] == f"@{machine.tls / file}"
    assert {name for name, value in given.items() if value.startswith("@")} == SECURE
    assert "secret" not in machine.calls_file.read_text()


def test_what_is_set_replaces_what_is_usual(machine: Machine) -> None:
    machine.make(
        "deploy-aci",
        ACI_NAME="scorer",
        ACI_CPU="2",
        ACI_MEMORY_GB="3.5",
        ACI_TRUST_PICKLE="true",
        ACI_WEIGHTS="open",
        ACI_INPUT_RANGE="-1,1",
    )
    (call,) = machine.calls("az")
    given = {"name=scorer", "cpu=2", "memoryInGB=3.5", "trustPickle=true", "inputRange=-1,1", "weights=open"}
    assert given <= set(options_of(call)["--parameters"])


def test_tries_again_while_a_new_identity_is_not_known(machine: Machine) -> None:
    machine.program("az", f"[ $nth = 3 ] && echo {ADDRESS}")
    result = machine.make("deploy-aci")
    assert (result.returncode, result.stdout) == (0, f"{ADDRESS}\n")
    assert len(machine.calls("az")) == 3


def test_gives_up(machine: Machine) -> None:
    machine.program("az", "exit 1")
    assert machine.make("deploy-aci").returncode != 0
    assert len(machine.calls("az")) == 3
    assert machine.calls("sealserve") == []


def test_shows_the_log_of_what_does_not_become_healthy(machine: Machine) -> None:
    machine.program("az", f'if [ "$1" = container ]; then echo the log; else echo {ADDRESS}; fi')
    machine.program("sealserve", "exit 1")
    result = machine.make("deploy-aci", ACI_WAIT_SECONDS="0")
    assert result.returncode != 0
    assert result.stdout == ""
    assert "the log" in result.stderr
    assert machine.calls("az")[-1] == ["container", "logs", "--resource-group", "group", "--name", "sealserve"]


@pytest.mark.parametrize(
    "variable", ["ACI_RESOURCE_GROUP", "ACI_REGION", "ACI_REGISTRY", "ACI_MODEL_ACCOUNT", "ACI_MODEL", "ACI_TLS"]
)
def test_nothing_is_deployed_with_a_variable_missing(machine: Machine, variable: str) -> None:
    result = machine.make("deploy-aci", **{variable: ""})
    assert result.returncode != 0
    assert variable in result.stderr
    assert machine.calls("az") == []


@pytest.mark.parametrize("file", ["tls.key", "identities.toml"])
def test_nothing_is_deployed_with_a_file_missing(machine: Machine, file: str) -> None:
    (machine.tls / file).unlink()
    result = machine.make("deploy-aci")
    assert result.returncode != 0
    assert f"{file} is missing" in result.stderr
    assert machine.calls("az") == []


def test_smoke_asks_a_real_service(machine: Machine, digits_server: str, digits_model: Digits) -> None:
    machine.program("sealserve", f'exec {sys.executable} -m sealserve.cli.main "$@"')
    result = machine.make("smoke-aci", f"ADDRESS={digits_server}", ACI_TLS="")
    assert result.returncode == 0, result.stderr
    (label,) = digits_model.estimator.predict(0 * digits_model.X[:1])
    assert result.stdout == f"SERVING\nprediction: {label}\n"
    assert machine.calls("az") == []


def test_smoke_fails_where_nothing_is_served(machine: Machine) -> None:
    machine.program("sealserve", f'exec {sys.executable} -m sealserve.cli.main "$@"')
    result = machine.make("smoke-aci", "ADDRESS=127.0.0.1:1", ACI_TLS="")
    assert result.returncode != 0
    assert result.stdout == "UNAVAILABLE\n"
    assert "name the service: HOST:PORT" in machine.make("smoke-aci").stderr


def test_delete_deletes_the_container_group_only(machine: Machine) -> None:
    assert machine.make("delete-aci").returncode == 0
    (call,) = machine.calls("az")
    assert call[:2] == ["container", "delete"]
    assert options_of(call) | {"--output": []} == {
        "--resource-group": ["group"],
        "--name": ["sealserve"],
        "--yes": [],
        "--output": [],
    }


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_make_image_builds_and_pushes_with_what_there_is(machine: Machine, name: str) -> None:
    machine.program("docker", "" if name == "docker" else "exit 1")
    machine.program("podman", "")
    assert machine.make("image", "BASE_IMAGE=base").returncode == 0
    assert machine.make("push-image").returncode == 0
    build, push = (call for call in machine.calls(name) if call != ["info"])
    options = options_of(build)
    assert build[0] == "build"
    assert (ROOT / options["--file"][0]).is_file()
    assert options["--platform"] == ["linux/amd64"]
    assert "BASE_IMAGE=base" in options["--build-arg"] or "BASE_IMAGE=base" in build
    assert options["--tag"] == ["registry.azurecr.io/sealserve:1.2.3", "."]
    assert push == ["push", "registry.azurecr.io/sealserve:1.2.3"]


@pytest.mark.parametrize("script", ["deploy/aci/deploy", "deploy/aci/smoke", "deploy/aci/delete", ".ci/install_podman"])
def test_scripts_stop_at_the_first_failure(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert re.search(r"^set -euo pipefail$", path.read_text(), re.MULTILINE)
    bash = shutil.which("bash")
    assert bash
    assert subprocess.run([bash, "-n", str(path)], check=False).returncode == 0
