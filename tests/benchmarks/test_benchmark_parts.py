"""`python -m benchmarks`: the parts of the benchmark in processes of their own, once or twice."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import hostile, parameter_sets, publish
from benchmarks.report import FIRST, OUTPUT
from sealserve.he.layouts.row import ROW
from tests.support import mnist
from tests.support.serving import ROOT


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results go into the working directory's build/bench; the repository's stay as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)


def run(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", *options])
    benchmarks.main()


def test_all_that_is_run_is_published() -> None:
    assert {*benchmarks.PARTS, "repeat"} == publish.SECTIONS.keys()


def test_a_part_is_run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    OUTPUT.mkdir(parents=True)
    (OUTPUT / "repeat.json").write_text("of results that this run replaces")
    run(monkeypatch, "uploads", "--quick")
    said = capfd.readouterr().out
    assert "[1 of 1] uploads --calls=10" in said
    assert "a ciphertext of parameter set" in said
    assert said.endswith("in build/bench: uploads.json\n")
    assert json.loads((OUTPUT / "uploads.json").read_text())["uploads"]
    assert not (OUTPUT / "repeat.json").exists()


def test_without_names_all_are_run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    some = benchmarks.PARTS["uploads"]
    monkeypatch.setattr(benchmarks, "PARTS", {"uploads": replace(some, usual=["--calls=3"])})
    run(monkeypatch)
    assert "[1 of 1] uploads --calls=3" in capfd.readouterr().out


def test_the_sets_of_a_model(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["parameter_sets", "--model=digits", "--weights=open", "--calls=2"])
    parameter_sets.main()
    found = json.loads((OUTPUT / "parameter_sets.json").read_text())
    by_set = {(line["layout"], line["parameter_set"]): line for line in found["parameter_sets"]}
    for layout in ("row", "column"):
        small, large = by_set[layout, "2048-44"], by_set[layout, "2048-54"]
        assert small["bytes_up"] / large["bytes_up"] == pytest.approx(11_360 / 16_578)
        assert small["bytes_down"] < large["bytes_down"]
    timed = {(line["parameter_set"], line["form"]): line for line in found["times"]}
    open_sets = [each.name.removeprefix("row-") for each in ROW.open_parameter_sets]
    assert timed.keys() == {(name, form) for name in open_sets for form in ("full", "seeded")}
    assert all(line[f"{step}_us"] > 0 for line in timed.values() for step in ("encrypt", "score", "decrypt"))
    said = capfd.readouterr().out
    assert re.search(r"^\| digits +\| open +\| row +\| 2048-44 ", said, re.MULTILINE)
    assert re.search(r"^\| digits +\| 2048-44 +\| seeded ", said, re.MULTILINE)


@pytest.fixture
def without_data(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """MNIST is not here, and nothing has it. Returns the names of the files that are asked for."""
    asked = list[str]()

    def provide(name: str) -> str:
        asked.append(name)
        raise mnist.DataError(f"no network\n{name}")

    monkeypatch.setattr(mnist, "find", lambda _: None)
    monkeypatch.setattr(mnist, "provide", provide)
    return asked


def test_parts_that_lack_their_data_are_skipped_and_the_others_run(
    without_data: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "column", "uploads", "peers", "--quick")
    captured = capfd.readouterr()
    assert without_data == [mnist.IMAGES, mnist.LABELS]
    assert f"{mnist.IMAGES} is not here: no network; {mnist.IMAGES}\n" in captured.err
    for name in ("column", "peers"):
        assert f"{name} is skipped: it needs {mnist.IMAGES}, {mnist.LABELS}, {mnist.MODEL}\n" in captured.err
    assert "[1 of 1] uploads --calls=10" in captured.out
    with pytest.raises(SystemExit, match="no part is left: run `make data`"):
        run(monkeypatch, "column", "--quick")


@pytest.mark.usefixtures("without_data")
def test_data_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = list[str]()
    monkeypatch.setattr(mnist, "provide", fetched.append)
    monkeypatch.setattr(mnist, "find", lambda name: Path(name) if name == mnist.MODEL else None)
    assert benchmarks.with_data(["row", "uploads"]) == ["row", "uploads"]
    assert fetched == [mnist.IMAGES, mnist.LABELS]


def test_parts_say_which_data_they_need() -> None:
    """A part that reads MNIST would end the run where it is not."""
    for name, part in benchmarks.PARTS.items():
        reads = "mnist.images()" in (ROOT / f"benchmarks/{name}.py").read_text()
        assert part.data == (benchmarks.MNIST if reads else ())


@pytest.mark.slow
@pytest.mark.skipif(
    any(mnist.find(name) is None for name in (mnist.IMAGES, mnist.LABELS, mnist.MODEL)),
    reason="MNIST is not here: `make data`",
)
def test_every_part_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "--quick")
    files = list(OUTPUT.glob("*.json"))
    for path in files:  # as they would be of a commit: here is no clone
        path.write_text(json.dumps(json.loads(path.read_text()) | {"commit": "abc"}))
    found = publish.merged(files)
    assert found["parts"].keys() == benchmarks.PARTS.keys()
    for title, _ in publish.SECTIONS.values():
        assert title == "Measured twice" or f"## {title}\n" in publish.document(found)


def test_what_fails_ends_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="uploads has failed, with exit code 2"):
        benchmarks.run([("uploads", "--calls=few"), ("row",)])
    captured = capfd.readouterr()
    assert "invalid int value: 'few'" in captured.err
    assert "row" not in captured.out


def test_of_two_runs_the_first_is_put_aside(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="repeat has failed"):
        run(monkeypatch, "uploads", "--quick", "--twice")
    assert "have no ratio in common: those with ratios are peers, column" in capfd.readouterr().err
    results = [json.loads((directory / "uploads.json").read_text()) for directory in (FIRST, OUTPUT)]
    assert results[0].keys() == results[1].keys()
    assert results[0] != results[1]


def test_files_of_other_parts_stay() -> None:
    FIRST.mkdir(parents=True)
    (FIRST / "old.json").touch()
    for name in ("row.json", "row.png", "ei.json"):
        (OUTPUT / name).touch()
    benchmarks.put_aside(["row", "column"])
    assert {path.name for path in FIRST.iterdir()} == {"row.json", "row.png"}
    assert {path.name for path in OUTPUT.iterdir()} == {"ei.json", "first"}


@pytest.mark.parametrize("options", [["nix"], ["--profile", "row"], ["--profile", "--twice"], ["--full", "--quick"]])
def test_what_makes_no_sense(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, *options)


def test_the_fairness_is_rendered_where_it_was_measured() -> None:
    """Results that were published before it do not have it."""
    earlier = {"alone_ms": 4.0, "alone_again_ms": 5.0, "beside_ms": {"strangers": 6.0}}
    assert hostile.table(earlier).count("|\n|") == 3
    of_streams = {"alone_p50_ms": 2.0, "alone_p99_ms": 5.0, "beside_p50_ms": 2.5, "beside_p99_ms": 7.5}
    said = hostile.table(earlier | {"fairness": {"idle streams": of_streams}})
    assert said.startswith(hostile.table(earlier))
    assert "| idle streams             | 2.5     | 2.0   | 7.5     | 5.0   | 1.50           |" in said
