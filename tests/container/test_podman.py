"""When the container tests run: always in CI, elsewhere where podman is."""

import pytest

from tests.support import containers
from tests.support.serving import ROOT


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is run to install podman, on a machine that has none and is not CI's."""
    run: list[str] = []

    def record(*command: str) -> str:
        run.extend(command)
        return ""

    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(containers, "_run", record)
    for variable in ("CI", "SEALSERVE_INSTALL_PODMAN"):
        monkeypatch.delenv(variable, raising=False)
    return run


def test_skipped_with_the_reason_where_podman_is_missing(installed: list[str]) -> None:
    with pytest.raises(pytest.skip.Exception, match="make podman"):
        containers.require()
    assert installed == []


@pytest.mark.parametrize(("variable", "value"), [("CI", "true"), ("SEALSERVE_INSTALL_PODMAN", "1")])
def test_installed_in_ci_and_on_demand(
    installed: list[str], monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    containers.require()
    assert installed == [str(ROOT / ".ci/install_podman")]
