"""deploy/systemd and deploy/compose.yaml: settings that exist, times that add up, nothing too much.

tests/container/test_compose.py runs the latter.
"""

import re
import shlex
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from sealserve.cli.health import COMMAND as HEALTH
from sealserve_service.settings import Settings
from sealserve_service.settings.options import OPTIONS, read_settings
from tests.support.manifests import faults
from tests.support.serving import ROOT
from tests.support.systemd import analyze, directives, exposure

UNIT = ROOT / "deploy/systemd/sealserve.service"
COMPOSE = ROOT / "deploy/compose.yaml"
END_SECONDS = 5.0  # from the last reply to the end of the processes
OF_THE_HEALTH_CHECK = {"SEALSERVE_CA_CERTIFICATE", "SEALSERVE_SERVER_NAME"}


def unit_settings(path: Path = UNIT) -> Settings:
    variables = dict(text.split("=", 1) for text in directives(path)["Environment"])
    assert variables.keys() <= {option.variable for option in OPTIONS}
    return read_settings({}, variables)


def compose() -> Any:
    (service,) = yaml.safe_load(COMPOSE.read_text())["services"].values()
    return service


def compose_settings() -> Settings:
    variables = {name: value for name, value in compose()["environment"].items() if name not in OF_THE_HEALTH_CHECK}
    assert variables.keys() <= {option.variable for option in OPTIONS}
    return read_settings({}, variables)


@pytest.mark.parametrize("settings", [unit_settings(), compose_settings()], ids=["unit", "compose"])
def test_a_service_speaks_tls_knows_its_callers_and_keeps_keys(settings: Settings) -> None:
    assert settings.tls_certificate
    assert settings.tls_private_key
    assert settings.identities
    assert settings.key_store.startswith("/")
    assert not settings.insecure


# systemd


def test_the_unit_starts_the_service_and_gives_it_time_to_end() -> None:
    said = directives(UNIT)
    (command,) = said["ExecStart"]
    program, *words = shlex.split(command)
    assert (Path(program).name, words) == ("sealserve", ["serve"])
    settings = unit_settings()
    assert said["TimeoutStopSec"] == [f"{settings.lame_duck + settings.grace_seconds + END_SECONDS:g}"]
    # What it writes is in the one folder that it may write.
    (state,) = said["StateDirectory"]
    assert Path(settings.key_store).parent == Path("/var/lib", state)
    assert said["ProtectSystem"] == ["strict"]


def test_systemd_takes_the_unit_as_it_is(tmp_path: Path) -> None:
    result = analyze(UNIT, tmp_path, "verify")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_systemd_complains_of_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.service"
    wrong.write_text(UNIT.read_text().replace("Restart=always", "Restart=sometimes"))
    assert "restart specifier" in analyze(wrong, tmp_path, "verify").stderr


def test_systemd_finds_the_unit_little_exposed(tmp_path: Path) -> None:
    result = exposure(UNIT, tmp_path)
    assert result.returncode == 0, result.stdout
    without = tmp_path / "without.service"
    without.write_text(re.sub(r"(?m)^(Protect|Restrict|Private|SystemCall|Capability).*\n", "", UNIT.read_text()))
    assert exposure(without, tmp_path).returncode


# Compose


def test_compose_starts_the_service_and_gives_it_time_to_end() -> None:
    said, settings = compose(), compose_settings()
    assert said["command"] == ["serve"]
    assert said["stop_grace_period"] == f"{settings.lame_duck + settings.grace_seconds + END_SECONDS:g}s"
    mounts = [volume.split(":") for volume in said["volumes"]]
    places = {target: options for _, target, *options in mounts}
    assert places == {"/models": ["ro"], "/tls": ["ro"], "/keys": []}
    assert settings.key_store == "/keys"
    inside = [port.rpartition(":")[2] for port in said["ports"]]
    assert inside == [address.rpartition(":")[2] for address in (settings.address, settings.metrics_address)]


def test_compose_asks_for_health_with_a_command_that_exists() -> None:
    said = compose()
    kind, program, name, *options = said["healthcheck"]["test"]
    assert (kind, program, name) == ("CMD", "sealserve", "health")
    parser = ArgumentParser(exit_on_error=False)
    HEALTH.configure(parser)
    parser.parse_args(options)
    assert said["environment"].keys() >= OF_THE_HEALTH_CHECK


@pytest.mark.slow
def test_compose_keeps_to_its_specification() -> None:
    content = yaml.safe_load(COMPOSE.read_text())
    assert faults([content]) == []
    content["services"]["sealserve"]["stop_grace_seconds"] = 25
    (fault,) = faults([content])
    assert "stop_grace_seconds" in fault
