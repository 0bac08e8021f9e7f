"""Containers of the service's image in Podman, confined as in production.

No registry of images is needed: the base image is made of Debian packages. Slow results are kept:
the base in build/container and in podman's store, and the layers of the image in that store too.
"""

import contextlib
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml

from sealserve.client import Client
from sealserve.credentials import Credentials
from tests.support.azurite import free_port
from tests.support.certificates import Authority
from tests.support.identities import ALL, IdentitiesFile
from tests.support.manifests import podman_compose
from tests.support.serving import HANG_SECONDS, ROOT

BASE_IMAGE = "localhost/sealserve-base:bookworm"
IMAGE = "localhost/sealserve:test"
PORT = 50051
MEMORY_BYTES = 1 << 30
RANGE = ("--input-range", "0,1", "--input-step", "0.0625")  # of the digits
PLAINTEXT = ("--insecure",)  # within the container that is every interface; it is published on loopback only
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_BASE = ROOT / "build/container/base.tar"
_INSTALL = "SEALSERVE_INSTALL_PODMAN"
START_SECONDS = 120.0  # for a start on a busy machine
_SECONDS = 900.0  # for downloads on a busy machine
_CONFINED = (
    f"--memory={MEMORY_BYTES} --memory-swap={MEMORY_BYTES} --cpus=1 --read-only --read-only-tmpfs=false --cap-drop=all "
    "--security-opt=no-new-privileges --user=10001:10001"
)


def require() -> None:
    """Skip where podman is not; in CI, or where the environment asks for it, install it or fail."""
    if shutil.which("podman") and shutil.which("mmdebstrap"):
        return
    if os.environ.get("CI") == "true" or os.environ.get(_INSTALL) == "1":
        _run(str(ROOT / ".ci/install_podman"))
    else:
        pytest.skip(f"podman or mmdebstrap is missing: `make podman`, or {_INSTALL}=1")


def build_image() -> str:
    """Build the image of this work tree, as `make image` does, and return its name."""
    _provide_base()
    # Behind a proxy that signs for others, only this machine knows whom to trust.
    trust = f"--volume {CA_BUNDLE}:{CA_BUNDLE}:ro" if CA_BUNDLE.is_file() else ""
    settings = {"CONTAINERS": "podman", "IMAGE": IMAGE, "BASE_IMAGE": BASE_IMAGE, "IMAGE_FLAGS": trust}
    _run("make", "--no-print-directory", "image", *(f"{name}={value}" for name, value in settings.items()))
    return IMAGE


def _provide_base() -> None:
    """Make Debian with its Python, in the place of python:3.11-slim, unless podman has it."""
    if subprocess.run(["podman", "image", "exists", BASE_IMAGE], check=False).returncode == 0:  # noqa: S607
        return
    if not _BASE.is_file():
        _BASE.parent.mkdir(parents=True, exist_ok=True)
        partial = _BASE.with_name("partial.tar")
        packages = "--include=python3-minimal,python3-venv,ca-certificates"
        _run("mmdebstrap", "--quiet", "--variant=minbase", packages, "bookworm", str(partial))
        partial.replace(_BASE)
    _run("podman", "import", str(_BASE), BASE_IMAGE)


def write_secrets(folder: Path, name: str) -> str:
    """Make what a service on TLS reads, as in a volume of secrets; return the token of a tenant.

    Args:
        folder: for tls.crt, tls.key, ca.crt and identities.toml; it is made.
        name: the service's.
    """
    folder.mkdir()
    authority = Authority("of a test")
    authority.issue(name).write(folder, "tls")
    (folder / "ca.crt").write_bytes(authority.certificate)
    token = IdentitiesFile(folder / "identities.toml", clinic=ALL).token("clinic")
    for file in folder.iterdir():
        file.chmod(0o644)
    return token


@dataclass(frozen=True)
class Container:
    """A running container of the service.

    Attributes:
        address: where this machine reaches its port.
        started: when it was started, on the clock of `time.monotonic`.
    """

    name: str
    address: str
    started: float

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in the container, as the service's user and within its limits."""
        return _podman("exec", self.name, *command)

    def client(self, authority: Path, name: str, token: str) -> Client:
        """A client that knows the service by a certificate, and is known by a token, or by none."""
        credentials = Credentials(authority, server_name=name, token=token)
        return Client(self.address, credentials=credentials, timeout_seconds=HANG_SECONDS)

    def state(self, field: str) -> str:
        """A field of the container's state: Status, ExitCode, OOMKilled, Pid."""
        return _run("podman", "inspect", "--format", f"{{{{.State.{field}}}}}", self.name).strip()

    def logs(self) -> str:
        """What the service has printed and logged."""
        found = _podman("logs", self.name)
        return found.stdout + found.stderr

    def send(self, signal: str) -> None:
        """Send the service a signal."""
        _run("podman", "kill", "--signal", signal, self.name)

    def stop(self) -> None:
        """Stop the service, as an operator does: it is not started again."""
        _run("podman", "stop", self.name)

    def exit_code(self) -> int:
        """Wait for the end of a container that is not started again."""
        return int(_run("podman", "wait", self.name))

    @cached_property
    def _memory(self) -> Path:
        """The control group that bounds its memory."""
        lines = Path(f"/proc/{self.state('Pid')}/cgroup").read_text().splitlines()
        groups = dict(line.split(":", 2)[1:] for line in lines)
        if "memory" in groups:  # control groups of version 1
            return Path("/sys/fs/cgroup/memory" + groups["memory"])
        return Path("/sys/fs/cgroup" + groups[""])

    def confinement(self) -> dict[str, str]:
        """The fields of its first process in /proc/1/status."""
        status = self.run("cat", "/proc/1/status").stdout
        return dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)

    def memory_limit_bytes(self) -> int:
        """What its control group bounds its memory to."""
        names = ("memory.max", "memory.limit_in_bytes")
        return next(int((self._memory / name).read_text()) for name in names if (self._memory / name).is_file())

    def peak_memory_bytes(self) -> int:
        """The most memory that all its processes had at once, file cache included."""
        names = ("memory.peak", "memory.max_usage_in_bytes")
        return next(int((self._memory / name).read_text()) for name in names if (self._memory / name).is_file())

    def cpu_seconds(self) -> float:
        """How long its first process has computed."""
        fields = Path(f"/proc/{self.state('Pid')}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """The most that its first process had resident."""
        status = Path(f"/proc/{self.state('Pid')}/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


@contextlib.contextmanager
def running_container(
    image: str,
    *arguments: str,
    mounts: Mapping[Path, str] = {},  # never changed
    environment: Mapping[str, str] = {},
    shares_network: bool = False,
) -> Iterator[Container]:
    """Run `sealserve serve` with these arguments.

    Args:
        image: of the service.
        arguments: of `serve`.
        mounts: path here -> path in the container, where it is read-only.
        environment: the service's variables.
        shares_network: whether the service listens on this machine's loopback itself, so that it
            can reach what else is there.
    """
    name, port = f"sealserve-test-{os.getpid()}-{time.monotonic_ns()}", free_port()
    volumes = [f"--volume={path}:{inside}:ro" for path, inside in mounts.items()]
    variables = [f"--env={variable}={value}" for variable, value in environment.items()]
    address = f"127.0.0.1:{port}"
    network = [f"--publish={address}:{PORT}"]
    if shares_network:
        network = ["--network=host", f"--env=SEALSERVE_ADDRESS={address}"]
    started = time.monotonic()
    try:
        _run(
            *("podman", "run", "--detach", "--name", name, *network, *_CONFINED.split(), *volumes, *variables),
            *(image, "serve", "--weights", "open", *arguments),
        )
        yield Container(name, address, started)
    finally:
        _podman("rm", "--force", "--time=0", "--volumes", name)


@contextlib.contextmanager
def running_agent(image: str, beside: Container) -> Iterator[Container]:
    """Run `sealserve agent` beside a service, as in one pod: in its network."""
    name = f"{beside.name}-agent"
    shared = ("--tmpfs=/run/agent:mode=0777,size=1m", "--env=XDG_RUNTIME_DIR=/run/agent")
    started = time.monotonic()
    try:
        _run(
            *("podman", "run", "--detach", "--name", name, f"--network=container:{beside.name}"),
            *(*_CONFINED.split(), *shared, image, "agent", f"--target=127.0.0.1:{PORT}"),
        )
        yield Container(name, "unix:/run/agent/sealserve/agent.sock", started)
    finally:
        _podman("rm", "--force", "--time=0", "--volumes", name)


@contextlib.contextmanager
def composed(image: str, folder: Path, **variables: str) -> Iterator[Container]:
    """Run the service of deploy/compose.yaml, with podman-compose.

    Args:
        image: of the service.
        folder: what the Compose file wants beside it; the file is copied to it.
        variables: that the file asks for.
    """
    file, project = folder / "compose.yaml", f"sealserve-test-{os.getpid()}-{time.monotonic_ns()}"
    shutil.copy(ROOT / "deploy/compose.yaml", file)
    address = f"127.0.0.1:{free_port()}"
    given = {"SEALSERVE_IMAGE": image, "SEALSERVE_PUBLISH": address, **variables}
    command = (str(podman_compose()), "--file", str(file), "--project-name", project)
    started = time.monotonic()
    try:
        _run(*command, "up", "--detach", **given)
        yield Container(f"{project}_sealserve_1", address, started)
    finally:
        _run(*command, "down", "--volumes", **given)


@contextlib.contextmanager
def played(manifests: Sequence[Any], folder: Path) -> Iterator[Container]:
    """Run the pod of a Deployment with podman, as far as that can: see deploy/kubernetes/README.md.

    Args:
        manifests: the Deployment, of one container, and its ConfigMaps. Each port has a hostPort on
            loopback, and the first is that of calls.
        folder: for files of this function.
    """
    name = f"sealserve-test-{os.getpid()}-{time.monotonic_ns()}"
    (deployment,) = (each for each in manifests if each["kind"] == "Deployment")
    deployment["metadata"]["name"] = name
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (folder / "pod.yaml").write_text(yaml.safe_dump_all(manifests))
    # What holds a pod's network is an image, too.
    (folder / "pause").mkdir()
    (folder / "pause/Dockerfile").write_text(f'FROM {BASE_IMAGE}\nENTRYPOINT ["sleep", "infinity"]\n')
    pause = "localhost/sealserve-pause:test"
    _run("podman", "build", "--quiet", "--tag", pause, str(folder / "pause"))
    settings = Path("/etc/containers/containers.conf")
    text = settings.read_text() if settings.is_file() else "[engine]\n"
    text = text.replace("[engine]\n", f'[engine]\ninfra_image = "{pause}"\n')
    # Podman 4.3 takes hard limits of pods for soft ones.
    (folder / "containers.conf").write_text(re.sub(r"=\d+:(\d+)\"", r'=\1:\1"', text))
    started = time.monotonic()
    try:
        _run("podman", "kube", "play", str(folder / "pod.yaml"), CONTAINERS_CONF=str(folder / "containers.conf"))
        yield Container(f"{name}-pod-0-{container['name']}", f"127.0.0.1:{container['ports'][0]['hostPort']}", started)
    finally:
        _podman("pod", "rm", "--force", "--time=0", f"{name}-pod-0")
        for volume in deployment["spec"]["template"]["spec"]["volumes"]:
            if "emptyDir" in volume:
                _podman("volume", "rm", volume["name"])


def says_yes(url: str) -> bool:
    """Whether what listens there answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=HANG_SECONDS) as answer:  # noqa: S310  # it is ours
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], container: Container, seconds: float = START_SECONDS) -> None:
    """Wait until a condition holds; fail with the container's log if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert container.state("Status") == "running", container.logs()
        assert time.monotonic() < end, container.logs()
        time.sleep(0.02)


def _podman(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["podman", *arguments],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )


def _run(*command: str, **variables: str) -> str:
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    assert result.returncode == 0, f"{' '.join(command)}: {result.stdout}{result.stderr}"
    return result.stdout
