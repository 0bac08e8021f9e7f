"""Where the sources name a layout: in its own files, two tables, and a few places counted here.

To add a layout must touch nothing else, this test included: the files and names of a layout follow
from its name. A new place fails this test: ask the layout (`offer.layout`, `LAYOUTS`,
`LINEAR_ENGINES`) instead of naming one.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import sealserve
import sealserve_service
from sealserve.he.layouts import LAYOUTS
from sealserve_service.engines.offering import LINEAR_ENGINES

ROOTS = {package.__name__: Path(str(package.__file__)).parent for package in (sealserve, sealserve_service)}

WORDS = set(LAYOUTS)
MODULE_NAMES = {name: name.replace("-", "_") for name in LAYOUTS}
"""A layout's modules have its name, its constants begin with it, and so do its classes."""
PLANNED = [MODULE_NAMES[engine.rules.layout.name] for engine in LINEAR_ENGINES]
CLASS_PREFIXES = [name.title().replace("_", "") for name in MODULE_NAMES.values()] + ["EIServer"]
NAMES = (
    {"EI_PARAMETERS", "EI_PARAMETER_SET"}
    | {f"{name.upper()}{kind}" for name in MODULE_NAMES.values() for kind in ("", "_RULES")}
    | {f"{prefix}{kind}" for prefix in CLASS_PREFIXES for kind in ("Packing", "Plan", "Engine", "Scoring")}
)
MODULES = (
    *(f"{package}.{name}" for name in PLANNED for package in ("layouts", "planning", "linear")),
    "ei_slots",
    "ei.slots",
    "ei.eiserver",
)

TABLES = {"sealserve/he/layouts/__init__.py", "sealserve_service/engines/offering.py"}
OWN = {"sealserve/he/layouts/ei_slots.py", "sealserve/he/ei_format.py"} | {
    f"{package}/{name}.py"
    for name in PLANNED
    for package in ("sealserve/he/layouts", "sealserve_service/planning", "sealserve_service/engines/linear")
}
OWN_FOLDERS = ("sealserve_service/engines/ei/",)
GENERATED = ("sealserve/v1/", "sealserve/inference/")

PLACES = Counter(
    {
        "sealserve/cli/bench.py": 1,  # the default of --layout
        "sealserve/cli/plan.py": 1,  # likewise
        "sealserve/cli/predict.py": 1,  # no layout: the unit of a progress bar
        "sealserve/ei.py": 1,  # the client of encrypted-inference looks for its layout
        "sealserve/key_registry.py": 3,  # evaluation keys are of its parameter set by default
        "sealserve_service/commands/demo.py": 2,
        "sealserve_service/keys/kinds.py": 2,  # evaluation keys are of its parameter set
    }
)
"""So many places are in other files."""


def named(tree: ast.AST) -> Iterator[str]:
    """What names a layout in a module: identifiers, imports of its module, and string literals."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in NAMES:
                yield name
            case ast.ImportFrom(module=str(module)) if module.endswith(MODULES):
                yield module
            case ast.Constant(value=str(text)) if text in WORDS:
                yield repr(text)


def places() -> dict[str, list[str]]:
    found = {}
    for package, root in ROOTS.items():
        for path in sorted(root.rglob("*.py")):
            name = f"{package}/{path.relative_to(root).as_posix()}"
            if not name.startswith(GENERATED) and (of_file := list(named(ast.parse(path.read_text())))):
                found[name] = of_file
    return found


def test_a_layout_is_named_in_its_own_files_and_in_the_tables_only() -> None:
    found = places()
    elsewhere = [name for name in found if name not in OWN | TABLES and not name.startswith(OWN_FOLDERS)]
    new = Counter({name: len(found[name]) for name in elsewhere}) - PLACES
    assert not new, [(name, found[name]) for name in new]


def test_a_table_names_each_layout_once() -> None:
    """One line a layout: an import and an entry."""
    found = places()
    client = Counter(found["sealserve/he/layouts/__init__.py"])
    assert {name: client[name.upper()] for name in MODULE_NAMES.values()} == dict.fromkeys(MODULE_NAMES.values(), 1)
    service = Counter(found["sealserve_service/engines/offering.py"])
    engines = [engine.__name__ for engine in LINEAR_ENGINES]
    assert {name: service[name] for name in engines} == dict.fromkeys(engines, 1)


def test_the_service_has_an_engine_for_every_layout_that_clients_encrypt_for() -> None:
    encrypted_for = [layout for layout in LAYOUTS.values() if layout.packing is not None]
    assert [engine.rules.layout for engine in LINEAR_ENGINES] == encrypted_for


def test_own_files_and_tables_are_there() -> None:
    """A list of files that have moved would excuse nothing."""
    assert places().keys() >= OWN | TABLES
