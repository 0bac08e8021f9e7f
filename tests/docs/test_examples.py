"""examples/: each program runs, with the real service."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import skops.io

from tests.support.certificates import Authority
from tests.support.serving import HANG_SECONDS, ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The address of the service that train_and_serve.py becomes."""
    with started(EXAMPLES / "train_and_serve.py", str(folder), SEALSERVE_ADDRESS="127.0.0.1:0") as process:
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith("serving tumors on "), line
        yield line.split()[-1]
        process.terminate()


def started(*words: object, **variables: str) -> "subprocess.Popen[str]":
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True)


def printed(name: str, *words: object, rows: str = "", **variables: str) -> list[str]:
    """The lines that an example prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, words)],
        env={**os.environ, **variables},
        input=rows,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rows.csv")


def labels_of(folder: Path) -> list[int]:
    """The labels that the plaintext model gives the rows."""
    labels: list[int] = skops.io.load(folder / "tumors.skops").predict(rows_of(folder)).tolist()
    return labels


def test_dataframe(address: str, folder: Path) -> None:
    rows = rows_of(folder)
    rows.iloc[2, 0] = float("nan")
    rows.to_csv(folder / "damaged.csv", index=False)
    said = printed("dataframe.py", folder / "damaged.csv", folder / "labeled.csv", SEALSERVE_ADDRESS=address)
    assert said[0].startswith("row 2: ")
    assert said[1:] == ["99 of 100 rows have a label"]
    labeled = pd.read_csv(folder / "labeled.csv")
    expected = labels_of(folder)
    assert labeled["label"].isna().tolist() == [number == 2 for number in range(100)]
    assert labeled["label"].drop(2).tolist() == [label for number, label in enumerate(expected) if number != 2]


def test_stream(address: str, folder: Path) -> None:
    lines = (folder / "rows.csv").read_text().splitlines()[1:41]
    said = printed("stream.py", rows="\n".join(lines), SEALSERVE_ADDRESS=address)
    found = dict(line.split(": ") for line in said)
    assert [int(found[str(number)]) for number in range(40)] == labels_of(folder)[:40]


def test_asyncio_client(address: str, folder: Path) -> None:
    said = printed("asyncio_client.py", folder / "rows.csv", SEALSERVE_ADDRESS=address)
    assert [int(float(line) > 0.5) for line in said] == labels_of(folder)


def test_tls_and_token(address: str, folder: Path, tmp_path: Path) -> None:
    authority = Authority("examples")
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    certificate, key = authority.issue("service").write(tmp_path, "service")
    token = subprocess.run(
        [*program("tokens", "new"), "--tenant", "clinic", "--file", str(tmp_path / "identities.toml")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    options = ["--tls-certificate", certificate, "--tls-private-key", key, "--address", "127.0.0.1:0"]
    options += ["--identities", tmp_path / "identities.toml", "--model", f"tumors={folder / 'tumors.skops'}"]
    with started(*program("serve")[1:], *options, SEALSERVE_LOG_LEVEL="error") as service:
        assert service.stdout
        variables = {
            "SEALSERVE_ADDRESS": service.stdout.readline().split()[-1],
            "SEALSERVE_CA_CERTIFICATE": str(tmp_path / "ca.crt"),
            "SEALSERVE_TOKEN": token,
        }
        words = folder / "rows.csv", tmp_path / "tumors.key"
        for _ in range(2):  # the second time with the key that the first has saved
            assert list(map(int, printed("tls_and_token.py", *words, **variables))) == labels_of(folder)
            assert (tmp_path / "tumors.key").stat().st_mode & 0o777 == 0o600
        with pytest.raises(AssertionError, match="ask the operator"):
            printed("tls_and_token.py", *words, **variables | {"SEALSERVE_TOKEN": "sealserve_other"})
        service.terminate()


def program(*words: str) -> list[str]:
    return [sys.executable, "-m", "sealserve", *words]


def test_each_example_is_on_the_page_and_run() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    page, tests = (EXAMPLES / "README.md").read_text(), Path(__file__).read_text()
    assert {name for name in names if f"({name})" not in page or f'"{name}"' not in tests} == set()
    assert len(names) == 5
