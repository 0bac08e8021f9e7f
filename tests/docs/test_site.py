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
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
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
    for name in (
        "tests/vectors/README.md",
        "client/go/README.md",
        "client/go/example_test.go",
        "client/typescript/README.md",
        "client/examples/README.md",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
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
        "tests/vectors",
    }


def test_docstrings_are_the_reference(site: Path) -> None:
    client = (site / "reference/sealserve.client/index.html").read_text()
    assert 'id="sealserve.client.Client.predict_proba"' in client
    assert "All methods and properties raise ClientClosedError from then on." in client
    assert 'id="sealserve.client.Client._run"' not in client
    assert not re.search("<p>[^<]*├", (site / "reference/sealserve.errors/index.html").read_text())
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


def test_what_pages_load_is_there(site: Path) -> None:
    page = (site / "index.html").read_text()
    scripts_and_images = re.findall(r'<(?:script|img)[^>]* src="([^"#?]+)', page)
    named = {*scripts_and_images, *re.findall(r'<link rel="stylesheet" href="([^"#?]+)', page)}
    assert {"site.css", "how_it_works.svg"} <= named
    assert [name for name in named if not (site / name).exists()] == []


DAMAGE = {
    "docs/keys.md": ("[a](lost-1.md) [b](ranges.md#lost-2) [c](#lost-3)", "lost-1", "lost-2", "lost-3"),
    "SECURITY.md": ("[a](docs/lost-4.md) [b](/docs/lost-5.md)", "lost-4", "lost-5"),
    "docs/lost_6.md": ("# A page that is in no list", "lost_6"),
    "docs/api.md": ("| `Lost7` | a name that no module has |", "Lost7"),
    "docs/azure_ml_guide.ipynb": ("[a](lost-8.md)", "lost-8"),
}
"""What is added to a file, and what the build has to complain about."""


def test_what_leads_nowhere_fails(tools: None, tmp_path: Path) -> None:
    root = copy_of_the_sources(tmp_path / "copy")
    for name, (addition, *_) in DAMAGE.items():
        page = root / name
        before = page.read_text() if page.exists() else ""
        is_notebook = page.suffix == ".ipynb"
        page.write_text(before.replace("8 x 8 pixels", addition) if is_notebook else f"{before}\n{addition}\n")
        assert addition in page.read_text()
    built = build(root, tmp_path / "site")
    assert built.returncode == 1
    warnings = [line for line in built.stderr.splitlines() if line.startswith("WARNING")]
    assert [text for _, *texts in DAMAGE.values() for text in texts if text not in built.stderr] == []
    assert len(warnings) == sum(len(texts) - 1 for texts in DAMAGE.values())
