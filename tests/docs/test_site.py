"""The site of the documentation: it is built strictly, and its links lead somewhere."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.serving import ROOT

pytestmark = pytest.mark.slow

MKDOCS = ROOT / "build/docs/bin/mkdocs"
SECONDS = 240


@pytest.fixture(scope="module")
def tools() -> None:
    if not MKDOCS.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("CI builds the site: `make docs-tools` installs what it needs")
        pytest.skip("the tools of the site are not installed: `make docs-tools`")


def build(root: Path, site: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(MKDOCS), "build", "--strict", "--config-file", str(root / "mkdocs.yml"), "--site-dir", str(site)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def copy_of_the_sources(folder: Path) -> Path:
    """Copy what the site is made of, so that a test may change it."""
    for name in (".ci", "deploy", "docs", "examples", "client/python/sealserve"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.md"), ROOT / "mkdocs.yml"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def site(tools: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT, folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_each_page_is_there(site: Path) -> None:
    pages = {path.parent.relative_to(site).as_posix() for path in site.glob("**/index.html")}
    documents = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages >= documents | {
        ".",
        "azure_ml_guide",
        "security",
        "changelog",
        "contributing",
        "deploy/aci",
        "examples",
    }


def test_docstrings_are_the_reference(site: Path) -> None:
    client = (site / "reference/sealserve.client/index.html").read_text()
    assert 'id="sealserve.client.Client.predict_proba"' in client
    assert "Methods that need the service raise ClientClosedError from then on." in client
    assert 'id="sealserve.client.Client._run"' not in client
    overview = (site / "api/index.html").read_text()
    names = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    linked = re.findall(r'href="\.\./reference/sealserve[\w.]*/#sealserve[\w.]*\.(\w+)"', overview)
    assert set(names) <= set(linked) | {"AsyncClient", "Client"}


def test_the_notebook_is_a_page(site: Path) -> None:
    page = (site / "azure_ml_guide/index.html").read_text()
    assert "EILinearRegressionClient" in page
    assert "297 of 297 labels" in page  # output


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(
        r'<(?:script|img|iframe)[^>]*src="(?:https?:)?//|<link[^>]*rel="stylesheet"[^>]*href="(?:https?:)?//'
    )
    assert [path for path in site.glob("**/*.html") if loaded.search(path.read_text())] == []


@pytest.mark.parametrize(
    ("name", "addition"),
    [
        ("docs/keys.md", "[nowhere](nowhere.md)"),
        ("docs/keys.md", "[nowhere](ranges.md#nowhere)"),
        ("docs/keys.md", "[nowhere](#nowhere)"),
        ("docs/azure_ml_guide.ipynb", "[nowhere](nowhere.md)"),
        ("SECURITY.md", "[nowhere](docs/nowhere.md)"),
        ("docs/lost.md", "# A page that is in no list"),
        ("docs/api.md", "| `Nothing` | nothing |"),
    ],
)
def test_what_leads_nowhere_fails(tools: None, name: str, addition: str, tmp_path: Path) -> None:
    root = copy_of_the_sources(tmp_path / "copy")
    page = root / name
    if page.suffix == ".ipynb":
        page.write_text(
            page.read_text()
            .replace("on one machine:", f"{addition} on one machine:")
            .replace("one machine: from", f"one machine {addition} from")
        )
        assert addition in page.read_text()
    else:
        page.write_text((page.read_text() if page.exists() else "") + f"\n{addition}\n")
    built = build(root, tmp_path / "site")
    assert built.returncode == 1
    assert "nowhere" in built.stderr or "lost.md" in built.stderr or "Nothing" in built.stderr
