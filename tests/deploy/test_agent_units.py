"""The systemd units of the agent: the command exists, and nothing leaks what it holds."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections import defaultdict
from pathlib import Path

import pytest

from sealserve.agent.command import configure
from tests.support.serving import HANG_SECONDS, ROOT

UNITS = sorted((ROOT / "deploy/agent").glob("*.service"))
SYSTEM, USER = (ROOT / f"deploy/agent/sealserve-agent{kind}.service" for kind in ("", ".user"))


def directives(path: Path) -> dict[str, list[str]]:
    """What a unit says, by directive."""
    found = defaultdict[str, list[str]](list)
    for line in path.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


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


MOST_EXPOSURE = 2.0
"""Of 10: systemd calls it OK."""


def analyze(path: Path, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Have systemd judge a unit, whose program need not be installed here."""
    program = shutil.which("systemd-analyze")
    if program is None:
        reason = "systemd-analyze is missing: install systemd"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    unit = folder / "sealserve-agent.service"
    (command,) = directives(path)["ExecStart"]
    unit.write_text(path.read_text().replace(shlex.split(command)[0], sys.executable))
    return subprocess.run(
        [program, *words, str(unit)],
        env=os.environ | {"XDG_RUNTIME_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


@pytest.mark.parametrize(("path", "options"), [(SYSTEM, []), (USER, ["--user"])], ids=["system", "user"])
def test_systemd_takes_a_unit_as_it_is(path: Path, options: list[str], tmp_path: Path) -> None:
    result = analyze(path, tmp_path, "verify", *options)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_systemd_complains_of_a_unit_with_a_mistake(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.service"
    wrong.write_text(SYSTEM.read_text().replace("ProtectHome=yes", "ProtectHome=perhaps"))
    assert "protect home value" in analyze(wrong, tmp_path, "verify").stderr


def test_systemd_finds_the_systems_unit_little_exposed(tmp_path: Path) -> None:
    result = analyze(SYSTEM, tmp_path, "security", "--offline=true", f"--threshold={int(10 * MOST_EXPOSURE)}")
    assert result.returncode == 0, result.stdout
    without = tmp_path / "without.service"
    without.write_text(re.sub(r"(?m)^(Protect|Restrict|Private|SystemCall|Capability).*\n", "", SYSTEM.read_text()))
    assert analyze(without, tmp_path, "security", "--offline=true", f"--threshold={int(10 * MOST_EXPOSURE)}").returncode
