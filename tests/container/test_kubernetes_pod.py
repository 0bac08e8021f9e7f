"""The pod of deploy/kubernetes/overlays/ci, as podman plays it: security context, volumes, memory.

Secrets are directories of this machine, since podman 4.3 does not decode them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from sealserve.errors import UnauthenticatedError
from tests.support.azurite import free_port
from tests.support.containers import Container, played, says_yes, wait_until, write_secrets
from tests.support.digits import Digits
from tests.support.manifests import MANIFESTS, rendered

pytestmark = pytest.mark.slow

NAME = "sealserve.sealserve.svc"


class Pod(NamedTuple):
    """A running pod's container, what its manifest says of it, and what its operator has made."""

    container: Container
    described: dict[str, Any]
    authority: Path
    token: str

    def answers(self, probe: str) -> bool:
        """Whether the pod says yes to a probe of its manifest."""
        asked = self.described[probe]["httpGet"]
        (port,) = (each["hostPort"] for each in self.described["ports"] if each["name"] == asked["port"])
        return says_yes(f"http://127.0.0.1:{port}{asked['path']}")


@pytest.fixture(scope="module")
def pod(image: str, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    folder = tmp_path_factory.mktemp("pod")
    folder.chmod(0o755)
    token = write_secrets(folder / "secrets", NAME)
    manifests = [each for each in rendered(MANIFESTS / "overlays/ci") if each["kind"] in ("ConfigMap", "Deployment")]
    configuration, deployment = sorted(manifests, key=lambda each: str(each["kind"]))
    configuration["data"] |= {
        "SEALSERVE_MODEL": "digits.skops",
        "SEALSERVE_INPUT_RANGE": "0,1",
        "SEALSERVE_INPUT_STEP": "0.0625",
    }
    spec = deployment["spec"]["template"]["spec"]
    (described,) = spec["containers"]
    assert described["image"] == image
    for port in described["ports"]:
        port |= {"hostIP": "127.0.0.1", "hostPort": free_port()}
    for volume in spec["volumes"]:
        if volume.pop("secret", None):
            volume["hostPath"] = {"path": str(folder / "secrets"), "type": "Directory"}
        elif "hostPath" in volume:
            volume["hostPath"]["path"] = str(models)
        else:  # podman makes a volume, and names are the machine's
            (mount,) = (each for each in described["volumeMounts"] if each["name"] == volume["name"])
            volume["name"] = mount["name"] = folder.name + volume["name"]
    with played(manifests, folder) as container:
        pod = Pod(container, described, folder / "secrets/ca.crt", token)
        wait_until(lambda: pod.answers("startupProbe"), container)
        yield pod


def test_it_serves_those_whom_it_knows(pod: Pod, digits_model: Digits) -> None:
    assert pod.answers("readinessProbe")
    assert pod.answers("livenessProbe")
    rows = digits_model.X[:5]
    with pod.container.client(pod.authority, NAME, pod.token) as known:
        np.testing.assert_array_equal(known.predict(rows), digits_model.estimator.predict(rows))
    with pod.container.client(pod.authority, NAME, "") as unknown, pytest.raises(UnauthenticatedError):
        unknown.predict(rows)


def test_it_has_the_rights_of_its_security_context_and_no_others(pod: Pod) -> None:
    fields = pod.container.confinement()
    assert fields["Uid"].split() == fields["Gid"].split() == ["10001"] * 4
    assert {fields[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


def test_it_writes_nowhere_but_where_its_volume_is(pod: Pod) -> None:
    places = {each["mountPath"]: not each.get("readOnly") for each in pod.described["volumeMounts"]}
    assert places == {"/tls": False, "/identities": False, "/models": False, "/tmp": True}  # noqa: S108
    for place, may_write in {"/": False, "/opt/sealserve": False, **places}.items():
        assert (pod.container.run("touch", f"{place}/file").returncode == 0) == may_write, place


def test_its_memory_is_bounded(pod: Pod) -> None:
    assert pod.described["resources"]["limits"]["memory"] == "1Gi"
    assert pod.container.memory_limit_bytes() == 1 << 30
