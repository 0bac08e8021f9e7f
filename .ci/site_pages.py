"""The files of the documentation's site, for MkDocs: the repository's, and pages of docstrings.

MkDocs takes one folder, and links that leave it lead nowhere. Here each file keeps the path that it
has in the repository, so that one relative link leads to the same page on GitHub and on the site.
Addresses of pages are without `docs/`. Notebooks become pages, with the output that is saved in
them.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
BESIDE_DOCS = (
    *("[A-Z]*.md", "deploy/aci/*.*", "deploy/agent/*.*", "deploy/envoy/*.*", "deploy/kubernetes/README.md"),
    *("deploy/compose.yaml", "deploy/systemd/*.*"),
    *("client/go/README.md", "client/go/example_test.go", "client/typescript/README.md", "client/examples/README.md"),
    *("examples/*.*", "tests/vectors/README.md"),
)
_MODULE = re.compile(r"^## `(sealserve(?:\.\w+)*)`$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Return the files of the site: those of the theme, the repository and the docstrings."""
    found = [file for file in files if file.src_dir != config.docs_dir]
    paths = [Path("docs", file.src_uri) for file in files if file.src_dir == config.docs_dir]
    for pattern in BESIDE_DOCS:
        paths += [path.relative_to(ROOT) for path in sorted(ROOT.glob(pattern))]
    paths.remove(Path("README.md"))  # docs/index.md takes its place
    found += [_file(path, config) for path in paths]
    found += [_reference(module, names, config) for module, names in _modules().items()]
    return Files(found)


def on_page_read_source(page: Any, config: Any) -> str | None:
    """Return the text of a notebook's page; None for the page of a Markdown file."""
    if not page.file.src_uri.endswith(".ipynb"):
        return None
    from nbconvert import MarkdownExporter  # takes a second to import

    text, _ = MarkdownExporter().from_filename(page.file.abs_src_path)
    return str(text)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Make links of the names in docs/api.md."""
    if page.file.src_uri != "docs/api.md":
        return markdown
    return _MODULE.sub(_with_links, markdown)


class _Notebook(File):  # type: ignore[misc]  # mkdocs is not installed where types are checked
    def is_documentation_page(self) -> bool:
        return True


def _file(path: Path, config: Any) -> File:
    kind = _Notebook if path.suffix == ".ipynb" else File
    file = kind(path.as_posix(), str(ROOT), config.site_dir, config.use_directory_urls)
    file.dest_uri = file.dest_uri.removeprefix("docs/").lower()
    return file


def _reference(module: str, names: list[str], config: Any) -> File:
    members = "".join(f"        - {name}\n" for name in names)
    content = f"# `{module}`\n\n::: {module}\n    options:\n      members:\n{members}"
    file = File.generated(config, f"docs/reference/{module}.md", content=content)
    file.dest_uri = file.dest_uri.removeprefix("docs/")
    return file


def _modules() -> dict[str, list[str]]:
    """Return the public names of each module but the package itself, as docs/api.md lists them."""
    page = (ROOT / "docs" / "api.md").read_text()
    found = {match[1]: _NAME.findall(match[2]) for match in _MODULE.finditer(page)}
    del found["sealserve"]  # its names are those of other modules
    return found


def _with_links(section: "re.Match[str]") -> str:
    module = section[1]
    if module == "sealserve":
        return section[0]
    linked = _NAME.sub(lambda name: f"| [`{name[1]}`][{module}.{name[1]}] |", section[2])
    return f"## [`{module}`](reference/{module}.md)\n{linked}"
