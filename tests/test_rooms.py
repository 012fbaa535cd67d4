"""The rooms of the package stand in a row: a later room imports earlier ones, never the other way round."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from sarmatch.paths import ROOT

PACKAGE = ROOT / "sarmatch"
HELPERS = {"paths", "atomic_io", "progress", "registry", "checks", "_torchvision"}
ORDER = [
    "scenes",
    "simulation",
    "datasets",
    "patches",
    "evaluation",
    "losses",
    "alignment",
    "encoders",
    "search",
    "refinement",
    "training",
    "localization",
    "figures",
    "explorer",
    "experiments",
    "cli",
]
MODELS = {"losses", "alignment", "encoders", "training"}


def imported(node: ast.AST, package: str) -> Iterator[str]:
    """Dotted names that a source imports, inside functions too, but not for type checkers alone."""
    inner = ast.iter_child_nodes(node)
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parts = package.split(".")[: 1 - node.level or None] if node.level else []
        base = [*parts, node.module] if node.module else parts
        yield from (".".join([*base, alias.name]) for alias in node.names)
    elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        inner = iter(node.orelse)
    for child in inner:
        yield from imported(child, package)


def rooms_of(source: str, package: str) -> set[str]:
    """Rooms and helper modules that a source imports; a name of `sarmatch` itself is in the room ""."""
    known = HELPERS | set(ORDER)
    dotted = [name.split(".") for name in imported(ast.parse(source), package)]
    return {parts[1] if len(parts) > 1 and parts[1] in known else "" for parts in dotted if parts[0] == "sarmatch"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_every_module_is_in_a_room_of_the_row():
    assert {room_of(path) for path in MODULES} <= HELPERS | set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_room_imports_itself_helpers_and_earlier_rooms(path):
    room = room_of(path)
    package = ".".join(["sarmatch", *path.relative_to(PACKAGE).parts[:-1]])
    found = rooms_of(path.read_text(), package)
    if room in HELPERS:
        assert found <= HELPERS
    elif room == "cli":
        assert found <= HELPERS | {"", *ORDER}
    else:
        allowed = HELPERS | set(ORDER[: ORDER.index(room) + 1])
        assert found <= allowed, f"{room} may not import {sorted(found - allowed)}"
        assert room != "figures" or not found & MODELS, f"{room} imports {sorted(found & MODELS)}"


def test_imports_are_found_wherever_they_stand():
    source = """
from typing import TYPE_CHECKING
import sarmatch.scenes.scene
from sarmatch import datasets, create_loss
if TYPE_CHECKING:
    from sarmatch.training import Run
else:
    from sarmatch.search import Candidates
def f():
    from sarmatch.patches.tables import match
    from . import city
    from ..losses import pairs
"""
    assert rooms_of(source, "sarmatch.simulation") == {
        "scenes",
        "datasets",
        "",
        "search",
        "patches",
        "simulation",
        "losses",
    }
