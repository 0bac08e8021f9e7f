"""The systemd units of the agent: the command exists, and nothing leaks what it holds."""

import re
import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest

from sealserve.agent.command import configure
from tests.support.serving import ROOT
from tests.support.systemd import analyze, directives, exposure

UNITS = sorted((ROOT / "deploy/agent").glob("*.service"))
SYSTEM, USER = (ROOT / f"deploy/agent/sealserve-agent{kind}.service" for kind in ("", ".user"))


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_the_agent_with_options_that_exist(path: Path) -> None:
    (command,) = directives(path)["ExecStart"]
    program, name, *options = shlex.split(command.replace("${SEALSERVE_TARGET}", "127.0.0.1:50051"))
    assert (Path(program).name, name) == ("sealserve", "agent")
    parser = ArgumentParser(exit_on_error=False)
    configure(parser)
    assert parser.parse_args(options).address == "127.0.0.1:50051"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_keeps_socket_token_and_memory_private(path: Path) -> None:
    said = directives(path)
    for name, value in {
        "RuntimeDirectory": "sealserve",
        "RuntimeDirectoryMode": "0700",
        "UMask": "0077",
        "LimitCORE": "0",
        "NoNewPrivileges": "yes",
        "Restart": "on-failure",
    }.items():
        assert said[name] == [value]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_bounds_what_callers_can_make_the_agent_hold(path: Path) -> None:
    assert directives(path)["MemoryMax"] == ["2G"]


def test_the_systems_unit_is_no_roots_and_writes_nowhere() -> None:
    said = directives(SYSTEM)
    assert said["User"] == ["sealserve"]
    assert said["ProtectSystem"] == ["strict"]
    assert said["CapabilityBoundingSet"] == [""]
    assert said["MemorySwapMax"] == ["0"]


def test_there_is_a_unit_for_a_system_and_one_for_a_user() -> None:
    assert UNITS == [SYSTEM, USER]
    assert directives(SYSTEM)["WantedBy"] == ["multi-user.target"]
    assert directives(USER)["WantedBy"] == ["default.target"]


# What systemd itself says


@pytest.mark.parametrize(("path", "options"), [(SYSTEM, []), (USER, ["--user"])], ids=["system", "user"])
def test_systemd_takes_a_unit_as_it_is(path: Path, options: list[str], tmp_path: Path) -> None:
    result = analyze(path, tmp_path, "verify", *options)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_systemd_complains_of_a_unit_with_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.service"
    wrong.write_text(SYSTEM.read_text().replace("ProtectHome=yes", "ProtectHome=perhaps"))
    assert "protect home value" in analyze(wrong, tmp_path, "verify").stderr


def test_systemd_finds_the_systems_unit_little_exposed(tmp_path: Path) -> None:
    result = exposure(SYSTEM, tmp_path)
    assert result.returncode == 0, result.stdout
    without = tmp_path / "without.service"
    without.write_text(re.sub(r"(?m)^(Protect|Restrict|Private|SystemCall|Capability).*\n", "", SYSTEM.read_text()))
    assert exposure(without, tmp_path).returncode
